"""The command that finds settings: tune."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import tyro
from torch import Tensor
from tyro.conf import Positional

from ..data.files import read_image
from ..data.sources import split_key
from ..devices import device_named
from ..jobs.arguments import build, files_of, kebab, notes_of, union
from ..jobs.folders import check_outside, named_inputs, reserved, staged
from ..jobs.measured import magnitude, measured, noise_of, operator_for
from ..jobs.noise_kinds import Gaussian
from ..jobs.provenance import write_record
from ..jobs.reading import Reading, said_of
from ..jobs.restore import bar, environment, prior_for, prior_loaded, resolved, suited
from ..jobs.truth import truth_in
from ..measurement import Measurement
from ..priors import Penalty
from ..records import json_text
from ..solvers import HQS
from ..tensors import generators
from ..tuning import objectives
from ..tuning.objectives import PSNR, Case
from ..tuning.settings import Settings, write_settings
from ..tuning.trials import Trial, Tuned, tune
from .shared import Level, Method, Noise, Operator, seconds

__all__ = ["Tune"]

if TYPE_CHECKING:
    Objective: TypeAlias = Any
else:
    Objective = union({kebab(c.__name__): c for c in objectives.Objective.__subclasses__()})

Files = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE [FILE ...]")]


@dataclass(frozen=True)
class Tune:
    """Find the settings of a method for a problem, and write a settings file for `reconstruct`.

    Positive numbers among the fields of the method are searched around their values, and the
    weight of total variation; what --method.NAME sets on the command line stays as it is said,
    unless --only or --bounds names it too.

    Writes settings.json and trials.json; also what was found until Ctrl-C.

    Args:
        files: Measurements; or, with --simulate, pictures to measure.
        operator: How they were, or are, measured.
        method: Whose settings are wanted.
        objective: What to go by: psnr with truth; sure, projected-sure or discrepancy without.
        truth: The true images, one per measurement, in the same order.
        simulate: The files are true pictures: measure them with the operator and noise of sigma.
        crop: With --simulate: use the central square of this side, in pixels.
        sigma: Noise standard deviation, in units of the image scaled to [-1, 1]; estimated from
            the first measurement when absent.
        noise: Kind of the noise: gaussian, or poisson for counts.
        seen: A mask of the data, zero where nothing was measured; NaN is not measured either.
        saturated: Samples of the files from this value on are not used.
        flat: Tomography: the files hold counts, and this one those without the object.
        dark: Tomography: counts without light.
        water: Tomography: attenuation of water in the units of the image (about 0.019 per mm).
        prior: A prior that ships (`measurand priors`), a weight file, or total-variation or
            wavelets[:WEIGHT] with the weight at which its search begins.
        trials: Largest number of trials.
        time_budget: No trial begins after this: 90s, 20m, 2h.
        fixed: Settings that stay, such as steps or levels.high.
        only: The only settings that are searched, such as weight or prior.weight.
        bounds: Hard limits of settings, as NAME=LOW:HIGH.
        draws: Number of draws of a sampler, whose mean is judged.
        seed: Seed of everything random; the same seed gives the same trials.
        out: Folder for the results; runs/tuned-METHOD when absent, with -2, -3 where that is of
            other files.
        shape: Shape C H W of the image, where it does not follow from the measurement.
        value_range: Samples that mean black and white, for floating-point files.
        truth_range: The same of the truth; that of the measurement when absent, if both are files
            of one kind.
        tile: Larger images are denoised in overlapping tiles, of at most this size in
            pixels.
        device: cpu, cuda, or auto.
        quiet: Print nothing but errors.
        json: Print the record, as JSON.
    """

    files: Positional[Files]
    operator: Operator
    method: Method = field(default_factory=HQS)
    objective: Objective = field(default_factory=PSNR)
    truth: tuple[Path, ...] = ()
    simulate: bool = False
    crop: int | None = None
    sigma: Level = None
    noise: Noise = field(default_factory=Gaussian)
    seen: str | None = None
    saturated: float | None = None
    flat: str | None = None
    dark: str | None = None
    water: float | None = None
    prior: str = "natural-color"
    trials: int = 40
    time_budget: str | None = None
    fixed: tuple[str, ...] = ()
    only: tuple[str, ...] | None = None
    bounds: tuple[str, ...] = ()
    draws: int = 4
    seed: int = 0
    out: Path | None = None
    shape: tuple[int, int, int] | None = None
    value_range: tuple[float, float] | None = None
    truth_range: tuple[float, float] | None = None
    tile: int = 1024
    device: str = "auto"
    quiet: bool = False
    json: bool = False

    def __call__(self, command: list[str]) -> int:
        if not self.files:
            raise ValueError("tune: got no file, wanted measurements, or pictures with --simulate")
        if self.draws < 1:
            raise ValueError(f"--draws: got {self.draws}, wanted at least 1")
        of, inputs = named_inputs(*self.files), [*self.files, *self.truth, Path(self.prior)]
        inputs += files_of(self.operator).values()
        inputs += [split_key(name)[0] for name in (self.seen, self.flat, self.dark) if name]
        check_outside(self.out, inputs)
        device = device_named(self.device)
        limit = None if self.time_budget is None else seconds(self.time_budget)
        cases, sigma, notes = self._simulated() if self.simulate else self._seen()
        widest = max((m for m, _ in cases), key=lambda m: max(m.operator.in_shape))
        prior, record, more = prior_for(
            self.prior, widest.to(device), device=device, tile=self.tile
        )
        suited(self.method, prior)
        if not (self.quiet or self.json):
            for note in notes + more:
                print(f"note: {note}")
        name, bounds = type(self.method).__name__, _bounds(self.bounds)
        asked = {*bounds, *(self.only or ())}  # from the value that the command line gives
        cases = [
            Case(m.to(device), None if truth is None else truth.to(device)) for m, truth in cases
        ]
        with (
            reserved(self.out, f"tuned-{name.lower()}", of, by="tune", inputs=inputs) as out,
            staged(out, by="tune", inputs=inputs) as folder,
        ):
            with bar("tune", self.trials, quiet=self.quiet) as update:
                found = tune(
                    self.method,
                    prior,
                    cases,
                    objective=self.objective,
                    trials=self.trials,
                    seconds=limit,
                    fixed={*self.fixed, *(_said(command) - asked)},
                    only=self.only,
                    bounds=bounds,
                    draws=self.draws,
                    seed=self.seed,
                    on_trial=lambda k, _: update(k + 1),
                )
            summary = {
                "objective": resolved(self.objective),
                "default": self.objective.words(found.default.loss),
                "best": self.objective.words(found.best.loss),
                "cases": len(cases),
                "trials": len(found.trials),
                "seed": self.seed,
                "operator": resolved(self.operator),
                "sigma": sigma,
                "noise": resolved(self.noise),
            }
            settings = Settings(found.method, _named(self.prior, record, found.prior), summary)
            write_settings(folder / "settings.json", settings)
            trials = {
                "command": ["measurand", *command],
                "inputs": of,
                "settings": [resolved(s) for s in found.settings],
                "trials": [_plain(trial) for trial in found.trials],
                "notes": notes + more,
                **environment(device),
            }
            write_record(folder / "trials.json", trials, inputs)
        if self.json:
            told = {"best": found.best.values, "tuned": summary, "out": str(out)}
            print(json_text(told))
        elif not self.quiet:
            _print(found, out)
        return 0

    @property
    def _reading(self) -> Reading:
        """What is said of the files beside their operator."""
        return said_of(self)

    def _simulated(self) -> tuple[list[Case], float | None, list[str]]:
        """The cases that pictures make once they are measured."""
        if self.sigma is None or self.truth:
            raise ValueError("--simulate: say --sigma, and no --truth: the files are the truth")
        if self._reading != Reading(self.sigma, self.value_range):
            raise ValueError(
                "--simulate: measures with white noise of --sigma and nothing missing; --noise, "
                "--seen, --saturated, --flat, --dark and --water are for measured files"
            )
        cases, notes, images = list[Case](), list[str](), list[Tensor]()
        units: list[float] = []
        for file in self.files:
            picture = read_image(file, value_range=self.value_range)
            unit = magnitude(picture.x, str(file)) if picture.x.is_complex() else 1.0
            notes += picture.notes
            if unit != 1:
                notes.append(f"{file}: image and sigma divided by {unit:.4g}, its magnitude")
            parts = _central(picture.x / unit, self.crop).split(1)
            images, units = [*images, *parts], [*units, *[unit] * len(parts)]
        for k, (x, unit) in enumerate(zip(images, units, strict=True)):
            operator = build(self.operator, tuple(x.shape[1:]))
            x = x.to(operator.in_dtype)
            clean = operator(x)
            noise = noise_of(self.sigma / unit, clean)
            y = noise(clean, generators(self.seed, k + 1)[k:])
            cases.append(Case(Measurement(operator, noise, y), x))
        return cases, self.sigma, notes

    def _seen(self) -> tuple[list[Case], float | None, list[str]]:
        """The cases that measured files make, with their truths."""
        if self.crop is not None:
            raise ValueError(
                "--crop: only pictures that are measured here, by --simulate, are cut"
            )
        if self.truth and len(self.truth) != len(self.files):
            raise ValueError(
                f"--truth: got {len(self.truth)} images for {len(self.files)} measurements"
            )
        reading = self._reading
        cases, sigma, notes = list[Case](), reading.level, list[str]()
        window = prior_loaded(self.prior).window
        operator_of = partial(operator_for, self.operator, self.shape)
        for k, file in enumerate(self.files):
            found = measured(file, operator_of, reading, lambda operator, ct: window)
            m, notes = found.measurement, [*notes, *found.notes]
            notes += notes_of(self.operator, m.operator.in_shape) if k == 0 else []
            truth = None
            if self.truth:
                truth, told = truth_in(
                    self.truth[k], found, file, said=self.truth_range, of_file=self.value_range
                )
                notes += told
                if m.operator.in_dtype.is_complex and not truth.is_complex():
                    raise ValueError(f"{self.truth[k]}: got magnitudes, wanted the complex image")
            if reading.level is None and isinstance(self.noise, Gaussian):
                if sigma is None:  # of the first for all, in units of the files
                    sigma = float(m.sigma.mean()) * found.unit
                m = Measurement(m.operator, noise_of(sigma / found.unit, m.y), m.y)
            cases += [
                Case(m[i], None if truth is None else truth[i : i + 1]) for i in range(len(m))
            ]
        return cases, sigma, notes


def _central(x: Tensor, side: int | None) -> Tensor:
    if side is None:
        return x
    if not 1 <= side <= min(x.shape[-2:]):
        raise ValueError(f"--crop: got {side} for a picture of {x.shape[-2]} x {x.shape[-1]}")
    top, left = (x.shape[-2] - side) // 2, (x.shape[-1] - side) // 2
    return x[..., top : top + side, left : left + side].contiguous()


def _said(command: Sequence[str]) -> set[str]:
    """The settings of the method that the command line gives a value."""
    words = [word.split("=")[0] for word in command if word.startswith("--method.")]
    return {word.removeprefix("--method.").replace("-", "_") for word in words}


def _bounds(texts: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Bounds from words such as `weight=0.1:2`."""
    found = {}
    for text in texts:
        name, _, ends = text.partition("=")
        try:
            low, high = map(float, ends.split(":"))
        except ValueError as error:
            raise ValueError(f"--bounds: got '{text}', wanted NAME=LOW:HIGH") from error
        found[name] = (low, high)
    return found


def _named(asked: str, record: dict[str, Any], prior: Any) -> dict[str, Any]:
    """What a settings file says of a prior: a file by its path, what ships by name and version."""
    if isinstance(prior, Penalty):
        return {"name": record["name"], "weight": prior.weight}
    return {"name": asked if Path(asked).exists() else record["name"], "sha256": record["sha256"]}


def _plain(trial: Trial) -> dict[str, Any]:
    return {
        "values": trial.values,
        "loss": trial.loss,
        "losses": list(trial.losses),
        "seconds": round(trial.seconds, 3),
        "note": trial.note,
    }


def _print(found: Tuned, out: Path) -> None:
    before, after = found.default.values, found.best.values
    width = max(len(name) for name in before)
    for name, value in before.items():
        print(f"  {name:<{width}}  {value!s:>10.10} -> {after[name]!s:>10.10}")
    words = found.objective.words
    short = sum(bool(trial.note) for trial in found.trials)
    print(f"{words(found.default.loss)} -> {words(found.best.loss)}", end="")
    print(f", {len(found.trials)} trials, {short} of them given up")
    print(f"settings in {out / 'settings.json'}")
