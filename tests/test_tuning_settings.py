"""Settings: what a method's fields say of their search, and files that hold them."""

import json
import math
from dataclasses import dataclass, field, fields

import pytest

from measurand.jobs.arguments import methods
from measurand.nets import ConvUNet
from measurand.priors import ClosedFormTotalVariation, TotalVariation
from measurand.samplers import DAPS, HeunSDE, PnPDM
from measurand.solvers import ADMM, FISTA, HQS, PGM, RED, Annealed, Constant, GradientRED
from measurand.tuning.settings import (
    Setting,
    Settings,
    changed,
    plain,
    read_settings,
    space,
    write_settings,
)

BLIND = {"sweeps", "rho_max", "rho_min", "theta_rho_max", "theta_rho_min"}
BLIND |= {f"{outer}.{n}" for outer in ("reverse", "theta_reverse") for n in
          ("steps", "sigma_max", "sigma_min")}  # fmt: skip
BLIND |= {f"search.{n}" for n in ("turns", "louder", "doubt", "doubt_last")}
BLIND |= {f"search.init.{n}" for n in ("cut", "ratio", "ridge", "rounds_per_size", "weight")}
BLIND |= {
    f"search.solver.{n}" for n in ("steps", "weight", "levels.high", "levels.low", "levels.floor")
}
WANTED = {
    "PGM": {"steps"},
    "FISTA": {"steps"},
    "RED": {"steps", "weight", "step", "levels.high", "levels.low", "levels.floor"},
    "GradientRED": {"steps", "weight"},
    "HQS": {"steps", "weight", "levels.high", "levels.low", "levels.floor"},
    "ADMM": {"steps", "weight", "levels.high", "levels.low", "levels.floor"},
    "RELD": {"steps", "weight", "step", "levels.high", "levels.low", "levels.floor"},
    "EncodedRELD": {"steps", "weight", "levels.high", "levels.low", "levels.floor"},
    "BlindPnPDM": BLIND,
    "PluginBlindPnPDM": BLIND,
    "FlowUnfolding": set(),
    "PosteriorMean": {"sigma_max"},
    "DiffUnfolding": {"steps", "sigma_start", "sigma_min", "sigma_max"},
    "DPS": {"steps", "zeta"},
    "PiGDM": {"steps", "sigma_max", "sigma_min", "spread"},
    "DiffPIR": {"steps", "lam", "zeta", "sigma_max", "sigma_min"},
    "DAPS": {"steps", "flow_steps", "sigma_max", "sigma_min", "flow_min", "width"},
    "PnPDM": {
        "sweeps",
        "rho_max",
        "decay",
        "rho_min",
        "reverse.steps",
        "reverse.sigma_max",
        "reverse.sigma_min",
    },
}


def test_there_is_a_row_for_every_method():
    assert {cls.__name__ for cls in methods().values()} <= set(WANTED)


@pytest.mark.parametrize("cls", methods().values(), ids=lambda cls: cls.__name__)
def test_the_space_of_a_method_follows_from_its_fields(cls):
    method = cls()
    found, left = space(method), set()
    assert {setting.name for setting in found} == WANTED[cls.__name__]
    for setting in found:
        value = method
        for part in setting.name.split("."):
            owner, value = value, getattr(value, part)
        if value is None:  # left to the measurement: the search begins somewhere
            value = next(f for f in fields(owner) if f.name == part).metadata["start"]
            left.add(setting.name)
        assert setting.at(setting.where(setting.start)) == value  # to the last bit
        assert 0 < setting.low <= value <= setting.high < math.inf
        assert setting.whole == isinstance(value, int)
        ratio = 2 if setting.whole else 4
        assert setting.high <= ratio * value + 0.5 and setting.low >= value / ratio - 0.5
        for u in (-5.0, 0.0, 0.31, 1.0, 5.0):
            one = setting.at(u)
            assert type(one) is type(value) and setting.reach[0] <= one <= setting.reach[1]
            other = changed(method, {setting.name: one})
            assert type(other) is cls and plain(other) != plain(method) or one == value
    assert changed(method, {s.name: s.start for s in found if s.name not in left}) == method


def test_limits_come_from_the_metadata_of_a_field():
    zeta = {s.name: s for s in space(methods()["diffpir"]())}["zeta"]
    assert zeta.high == 1.0 == zeta.at(7.0) and zeta.low == 0.25
    assert [s.name for s in space(TotalVariation(weight=2.0))] == ["weight"]  # not tol
    assert [s.name for s in space(ClosedFormTotalVariation())] == ["weight"]
    assert space(ConvUNet(1, widths=(4, 8), blocks=1, features=8)) == ()


def test_places_on_the_scale():
    s = Setting("weight", 0.1, 10.0, 1.0)
    assert s.where(1.0) == pytest.approx(0.5) and s.where(10.0) == pytest.approx(1.0)
    assert s.at(0.75) == 3.162 and s.at(0.0) == pytest.approx(0.1) and s.at(1.5) == 100.0
    assert s.where(0.0) == -math.inf and s.where(math.inf) == math.inf
    assert Setting("steps", 5, 20, 10, whole=True).at(0.77) == 15


@dataclass(frozen=True)
class Far:
    """A method whose setting stands outside of its own limits."""

    step: float = field(default=5.0, metadata={"search": (0.0, 1.0)})


def test_fixed_only_and_bounds():
    def names(method, **options):
        return [s.name for s in space(method, **options)]

    assert names(HQS(), fixed=["steps", "levels"]) == ["weight"]
    assert names(HQS(), only=["levels.low", "weight"]) == ["weight", "levels.low"]
    assert names(PGM(), bounds={"step": (0.1, 1.0)}) == ["steps", "step"]
    step = space(PGM(), only=["step"], bounds={"step": (0.1, 10.0)})[0]
    assert step.start is None and step.at(0.5) is None and step.at(0.75) == 3.162
    level = space(RED(levels=Constant()), bounds={"levels.level": (0.01, 0.1)})[-1]
    assert level.name == "levels.level" and level.reach == (0.01, 0.1)
    weight = space(HQS(), bounds={"weight": (0.5, 2.0)}, only=["weight"])[0]
    assert (weight.low, weight.high, weight.start, weight.at(9.0)) == (0.5, 2.0, 0.5, 2.0)
    steps = space(HQS(), bounds={"steps": (2.0, 40.0)}, only=["steps"])[0]
    assert [steps.at(u) for u in (-1.0, 0.5, 2.0)] == [2, 9, 40]
    assert type(steps.at(-1.0)) is type(steps.start) is int
    far = space(Far())[0]
    assert (far.low, far.high, far.start) == (0.25, 1.0, 1.0)
    assert space(HQS(), span=16.0)[1].high == pytest.approx(16 * 0.25)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": ["wait"]}, "HQS has no setting 'wait'; it has: steps, weight, levels.high"),
        ({"only": ["levels.hihg"]}, "no setting 'levels.hihg'"),
        ({"bounds": {"levels": (1, 2)}}, "bounds of levels: got several settings"),
        ({"bounds": {"weight": (2.0, 1.0)}}, "bounds of weight: got 2 to 1"),
        ({"bounds": {"weight": (0.0, 1.0)}}, "two positive numbers"),
        ({"span": 1.0}, "got span 1.0"),
    ],
)
def test_names_and_bounds_that_are_wrong(options, message):
    with pytest.raises(ValueError, match=message):
        space(HQS(), **options)


def test_limits_of_a_field_hold_for_bounds_and_none_needs_them():
    with pytest.raises(ValueError, match="two positive numbers between 0 and 1"):
        space(RED(), bounds={"step": (0.5, 2.0)})
    with pytest.raises(ValueError, match="step holds no positive number to search around"):
        space(FISTA(), only=["step"])


def test_a_method_of_your_own_needs_nothing_but_fields():
    @dataclass(frozen=True)
    class Inner:
        share: float = field(default=0.9, metadata={"search": (0.5, 0.95)})

    @dataclass(frozen=True)
    class Own:
        name: str = "x"
        switch: bool = True
        zero: float = 0.0
        inner: Inner = field(default_factory=Inner)

    (only,) = space(Own())
    assert only == Setting("inner.share", 0.5, 0.95, 0.9, False, (0.5, 0.95))
    assert changed(Own(), {"inner.share": 0.6, "zero": 1.0}) == Own(zero=1.0, inner=Inner(0.6))


EXAMPLES = [
    HQS(steps=8, weight=0.1 + 0.2, levels=Annealed(high=1 / 3)),
    ADMM(levels=Constant(0.3)),
    GradientRED(step=None, levels=Constant()),
    PnPDM(reverse=HeunSDE(steps=4, sigma_max=1.0)),
    DAPS(tau=0.01),
]


@pytest.mark.parametrize("method", EXAMPLES, ids=lambda m: type(m).__name__)
def test_what_is_written_is_read_to_the_last_bit(tmp_path, method):
    wrote = Settings(method, {"name": "natural-color@1", "sha256": "0" * 64}, {"seed": 3})
    write_settings(tmp_path / "s.json", wrote)
    assert read_settings(tmp_path / "s.json") == wrote


def test_a_file_written_by_hand_says_as_little_as_it_likes(tmp_path):
    file = tmp_path / "s.json"
    file.write_text('{"method": {"class": "HQS", "weight": 1}}')
    assert (
        read_settings(file) == Settings(HQS(weight=1)) and read_settings(file).prior_name is None
    )
    file.write_text(
        '{"method": {"class": "FISTA"}, "prior": {"name": "total-variation", "weight": 0.3}}'
    )
    assert read_settings(file).prior_name == "total-variation:0.3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "not a settings file"),
        ("[1]", r"got \[1\], wanted \{name: value"),
        ("{}", "says no method"),
        ('{"method": {"class": "HQS"}, "extra": 1}', "no entry 'extra'; there are: method, prior"),
        ('{"method": {"class": "HSQ"}}', "method.class: got 'HSQ', wanted one of: .*HQS"),
        ('{"method": {"class": ["HQS"]}}', r"method.class: got \['HQS'\]"),
        (
            '{"method": {"class": "HQS", "wait": 1}}',
            "method: no entry 'wait'; there are: class, s",
        ),
        ('{"method": {"class": "HQS", "steps": 8.5}}', "method.steps: got 8.5, wanted a whole"),
        ('{"method": {"class": "HQS", "steps": true}}', "method.steps: got True"),
        ('{"method": {"class": "HQS", "weight": NaN}}', "method.weight: got nan, wanted a number"),
        ('{"method": {"class": "HQS", "weight": "1"}}', "method.weight: got '1'"),
        ('{"method": {"class": "HQS", "weight": null}}', "method.weight: got None"),
        ('{"method": {"class": "PGM", "step": "1"}}', "wanted a number or null"),
        ('{"method": {"class": "HQS", "levels": 3}}', "method.levels: got 3"),
        (
            '{"method": {"class": "HQS", "levels": {"class": "HQS"}}}',
            "method.levels.class: got 'HQS', wanted one of: Annealed, Constant",
        ),
        (
            '{"method": {"class": "HQS", "levels": {"class": "Annealed", "hihg": 1}}}',
            "method.levels: no entry 'hihg'; there are: class, high, low, floor",
        ),
        (
            '{"method": {"class": "PnPDM", "reverse": {"class": "Reverse"}}}',
            "wanted one of: ReverseSDE, EulerSDE, HeunSDE",
        ),
        ('{"method": {"class": "HQS"}, "prior": {"name": 3}}', "prior.name: got 3, wanted a text"),
        ('{"method": {"class": "HQS"}, "prior": {"weight": 3}}', "of total-variation or another"),
        ('{"method": {"class": "HQS"}, "tuned": 3}', "tuned: got 3"),
    ],
)
def test_entries_that_are_wrong_are_named(tmp_path, text, message):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_settings(tmp_path / "s.json")
    assert "s.json" in str(error.value)


def test_nothing_is_left_of_a_file_that_cannot_be_written(tmp_path):
    write_settings(tmp_path / "s.json", Settings(HQS()))
    before = (tmp_path / "s.json").read_bytes()
    assert json.loads(before)["method"]["levels"]["class"] == "Annealed"
    with pytest.raises(ValueError, match="JSON"):
        write_settings(tmp_path / "s.json", Settings(Far(step=math.nan)))
    with pytest.raises(TypeError, match="got a object, which a settings file cannot hold"):
        write_settings(tmp_path / "s.json", Settings(Far(step=object())))
    assert (tmp_path / "s.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.json"]


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, "{"])
def test_a_text_that_is_no_json_is_named(text, tmp_path):
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(ValueError, match="s.json: not a settings file"):
        read_settings(tmp_path / "s.json")
