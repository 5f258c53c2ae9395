"""Bad inputs for every public method: each injection ends in finite numbers, or in a named error.

Row 6 of the fault table through the Python API. An `Injection` is one call with one thing wrong
in it: a number that is none in the data, in the start, in the settings, in what an operator or a
prior returns, or one so large or so small that single precision cannot hold what follows from it.

`python tests/injections.py [data, starts, ...]` prints those that were not survived.

`outcome` runs it and says what is wrong with its end, if anything is. An error counts if this
package raised it, as one of the kinds that the command line reports, and if it names the culprit.
"""

import inspect
import linecache
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from measurand import methods, operators, samplers, solvers
from measurand.blind import BlindMeasurement, Unknowns
from measurand.jobs.restore import restore
from measurand.measurement import Measurement
from measurand.nets import ConvUNet, Glow
from measurand.noises import Gaussian, Poisson
from measurand.operators import GaussianBlur, LinearOperator, Mask, UnknownBlur
from measurand.priors import EDMDenoiser, FlowPrior, TotalVariation
from measurand.shift import Adaptation, Divergence, ranked
from measurand.unfolded import (
    FlowProximal,
    UnfoldedDR,
    UnfoldedHQS,
    UnfoldedPGM,
    gradient_folds,
    proximal_folds,
)

SHAPE = (1, 8, 8)
LARGE = 16  # side of the images of blind problems
PACKAGE = Path(methods.__file__).parent
KINDS = (ValueError, TypeError, FloatingPointError)

NOT_FINITE = (math.nan, math.inf, -math.inf)
HUGE = (1e20, -1e30, 1e38, 3e38)


@dataclass(frozen=True)
class Injection:
    """One call with one thing wrong in it.

    Args:
        name: What is wrong, and where.
        call: Makes everything anew, and runs it.
        names: Words of which an error has to hold one.
    """

    name: str
    call: Callable[[], Any]
    names: tuple[str, ...]


def outcome(injection: Injection) -> str:
    """What is wrong with the end of an injection; empty where it ended as it should."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = injection.call()
        except Exception as error:
            return _unfit(error, injection.names)
    bad = [name for name, value in _numbers(found) if not _finite(value)]
    return f"not finite: {', '.join(bad)}" if bad else ""


def _unfit(error: Exception, names: tuple[str, ...]) -> str:
    """Why an error is not one that a user can use."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    assert trace is not None
    file, line = trace.tb_frame.f_code.co_filename, trace.tb_lineno
    said = f"{type(error).__name__}: {error}"
    ours = PACKAGE in Path(file).parents
    if not (ours and linecache.getline(file, line).strip().startswith("raise ")):
        return f"raised by another, {Path(file).name}:{line}: {said}"
    if type(error) not in KINDS:
        return f"of another kind: {said}"
    if not any(name in str(error) for name in names):
        return f"names none of {', '.join(names)}: {said}"
    return ""


def _numbers(found: Any, name: str = "result") -> Iterator[tuple[str, Any]]:
    if isinstance(found, Tensor | float):
        yield name, found
    elif isinstance(found, nn.Module):
        yield from ((key, value) for key, value in found.state_dict().items())
    elif is_dataclass(found):
        yield from ((f.name, getattr(found, f.name)) for f in fields(found))
    elif isinstance(found, tuple | list):
        for k, part in enumerate(found):
            yield from _numbers(part, f"{name}[{k}]")


def _finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return bool(torch.isfinite(value).all())
    return not isinstance(value, float) or math.isfinite(value)


# -- what is made to fail ------------------------------------------------------------------------


class Able:
    """A prior with every capability that methods ask for; from some call on it is broken.

    Args:
        spoil: What becomes of its answers.
        after: Number of answers that are right.
    """

    range = (-1.0, 1.0)
    dtype = torch.float32
    factor, error = 1, 0.0  # of a code that is the image

    def __init__(self, spoil: Callable[[Tensor], Tensor] = lambda x: x, after: int = 0) -> None:
        self.spoil, self.after = spoil, after

    def told(self, x: Tensor) -> Tensor:
        self.after -= 1
        return x if self.after >= 0 else self.spoil(x)

    def denoise(self, v: Tensor, sigma: Any, condition: Tensor | None = None) -> Tensor:
        variance = torch.as_tensor(sigma, dtype=v.dtype).reshape(-1, *[1] * (v.ndim - 1)) ** 2
        return self.told(v * (0.2 / (0.2 + variance)))

    def prox(self, v: Tensor, tau: Any) -> Tensor:
        weight = torch.as_tensor(tau, dtype=v.dtype).reshape(-1, *[1] * (v.ndim - 1))
        return self.told(v / (1 + weight))

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor) -> Tensor:
        return z

    def code_noise(self, sigma: Any) -> Any:
        return sigma

    def denoise_code(self, z: Tensor, sigma: Any) -> Tensor:
        return self.denoise(z, sigma)

    def given(self, measurement: Measurement) -> "Able":
        return self

    def restore(self, measurement: Measurement) -> Tensor:
        return self.told(0.5 * measurement.adjoint_y)


class Faulty(LinearOperator):
    """A mask whose answers are spoiled, forward or backward, from some call on."""

    def __init__(
        self, spoil: Callable[[Tensor], Tensor], way: str = "both", after: int = 0
    ) -> None:
        super().__init__(SHAPE, SHAPE)
        self.spoil, self.way, self.after = spoil, way, after

    def told(self, x: Tensor, way: str) -> Tensor:
        x = x.clone()
        x[..., 3:5] = 0
        if self.way not in (way, "both"):
            return x
        self.after -= 1
        return x if self.after >= 0 else self.spoil(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.told(x, "forward")

    def adjoint(self, y: Tensor) -> Tensor:
        return self.told(y, "adjoint")

    @classmethod
    def example(cls) -> Self:
        return cls(lambda x: x)


def one_pixel(value: float) -> Callable[[Tensor], Tensor]:
    def spoil(x: Tensor) -> Tensor:
        x = x.clone()
        x[-1:, ..., -1:] = value
        return x

    return spoil


def times(value: float) -> Callable[[Tensor], Tensor]:
    return lambda x: x * value


SPOILS = {
    "nan": times(math.nan),
    "inf in a pixel": one_pixel(math.inf),
    "nan in a pixel": one_pixel(math.nan),
    "1e38 in a pixel": one_pixel(1e38),
    "times 1e20": times(1e20),
    "times 1e38": times(1e38),
}


# -- methods -------------------------------------------------------------------------------------


def of(folder: Any) -> list[type[methods.Method]]:
    """The public methods of a folder."""
    named = [getattr(folder, name) for name in folder.__all__]
    return [
        cls
        for cls in named
        if isinstance(cls, type)
        and issubclass(cls, methods.Method)
        and not inspect.isabstract(cls)
    ]


def small(cls: type[methods.Method]) -> methods.Method:
    """A method of few steps."""
    if cls is samplers.PnPDM:
        return cls(sweeps=3, reverse=samplers.ReverseSDE(steps=4, sigma_max=1.0))
    if "PnPDM" in cls.__name__:
        reverse = samplers.HeunSDE(steps=4, sigma_max=1.0)
        named = {f.name for f in fields(cls)}
        few = {"sweeps": 2, "reverse": reverse, "search": None}
        return cls(**{name: value for name, value in few.items() if name in named})
    names = ("steps", "flow_steps", "iterations", "rounds_", "inner", "turns")
    return cls(**{f.name: 3 for f in fields(cls) if f.name in names})


CLASSES = [*of(solvers), *of(samplers)]
BLIND = [cls for cls in CLASSES if "Blind" in cls.__name__]
KNOWN = [cls for cls in CLASSES if "Blind" not in cls.__name__]


def data(items: int = 2, side: int = 8) -> Tensor:
    g = torch.Generator().manual_seed(3)
    return torch.rand(items, 1, side, side, generator=g) - 0.5


def measured(
    y: Tensor | None = None, operator: LinearOperator | None = None, noise: Any = None
) -> Measurement:
    return Measurement(
        GaussianBlur(SHAPE, 0.8) if operator is None else operator,
        Gaussian(0.1) if noise is None else noise,
        data() if y is None else y,
    )


def blind(y: Tensor | None = None, noise: Any = None) -> BlindMeasurement:
    family = UnknownBlur((1, LARGE, LARGE), 5)
    return BlindMeasurement(family, noise or Gaussian(0.1), data(2, LARGE) if y is None else y)


def seen(cls: type, y: Tensor | None = None, noise: Any = None) -> Any:
    return blind(y, noise) if cls in BLIND else measured(y, noise=noise)


def run(method: methods.Method, m: Any, prior: Any = None, x0: Any = None) -> Any:
    prior = Able() if prior is None else prior
    if type(method) in (solvers.BlindEdges, solvers.BlindTV):
        return method(m, None, x0=x0)
    if type(method) is solvers.BlindHQS:
        return method(m, prior, x0=x0)
    if type(method) in BLIND:
        return method(m, prior, Able(), x0=x0)
    return method(m, prior, x0=x0)


def spoiled(y: Tensor, value: float, whole: bool = False) -> Tensor:
    y = y.clone()
    if whole:
        return value * y.sign()
    y[0, 0, 1, 2] = value
    return y


def of_data() -> Iterator[Injection]:
    """Every method, with data that are none or far too large, and noise levels likewise."""
    for cls in CLASSES:
        side = LARGE if cls in BLIND else 8
        name, y = cls.__name__, data(2, side)
        any_ = (name, "Measurement")
        for value in NOT_FINITE:
            yield Injection(
                f"{name}: y {value}",
                lambda cls=cls, y=y, v=value: run(small(cls), seen(cls, spoiled(y, v))),
                ("values of y",),
            )
        for value, whole in product(HUGE, (False, True)):
            yield Injection(
                f"{name}: y {value}{' everywhere' * whole}",
                lambda cls=cls, y=y, v=value, w=whole: run(
                    small(cls), seen(cls, spoiled(y, v, w))
                ),
                any_,
            )
        yield Injection(
            f"{name}: no item", lambda cls=cls, y=y: run(small(cls), seen(cls, y[:0])), ("y with",)
        )
        for value in (*NOT_FINITE, -1.0):
            yield Injection(
                f"{name}: sigma {value}",
                lambda cls=cls, v=value: run(small(cls), seen(cls, noise=Gaussian(v))),
                ("sigma",),
            )
        for value in (0.0, 1e-30, 1e-45, 1e20, 1e38):
            yield Injection(
                f"{name}: sigma {value}",
                lambda cls=cls, v=value: run(small(cls), seen(cls, noise=Gaussian(v))),
                (*any_, "sigma"),
            )


def of_starts() -> Iterator[Injection]:
    for cls, value in product(CLASSES, (*NOT_FINITE, *HUGE)):
        if cls in BLIND:

            def call(cls: Any = cls, value: float = value) -> Any:
                m = blind()
                x, theta = m.family.start(m.y)
                return run(small(cls), m, x0=Unknowns(spoiled(x, value), theta))

            def other(cls: Any = cls, value: float = value) -> Any:
                m = blind()
                x, theta = m.family.start(m.y)
                return run(small(cls), m, x0=Unknowns(x, spoiled(theta, value)))

            calls = {"x0.x": call, "x0.theta": other}
        else:
            calls = {
                "x0": lambda cls=cls, v=value: run(small(cls), measured(), x0=spoiled(data(), v))
            }
        for part, made in calls.items():
            names = ("x0",) if not math.isfinite(value) else (cls.__name__, "values of y")
            yield Injection(f"{cls.__name__}: {part} {value}", made, names)


def of_operators() -> Iterator[Injection]:
    """Every method, with an operator whose answers are spoiled, zero, huge or tiny."""
    ways = ("forward", "adjoint", "both")
    for cls, (kind, spoil), way, after in product(KNOWN, SPOILS.items(), ways, (0, 4)):
        large = (cls.__name__,) if "1e" in kind else ()
        yield Injection(
            f"{cls.__name__}: operator {kind}, {way}, after {after}",
            lambda cls=cls, s=spoil, w=way, a=after: run(
                small(cls), measured(operator=Faulty(s, w, a))
            ),
            ("Faulty", *large),
        )
    for cls, factor in product(KNOWN, (0.0, 1e-30, 1e-20, 1e18)):
        yield Injection(
            f"{cls.__name__}: operator times {factor}",
            lambda cls=cls, f=factor: run(small(cls), measured(operator=Faulty(times(f)))),
            ("Faulty", cls.__name__),
        )


def of_priors() -> Iterator[Injection]:
    """Every method, with a prior whose answers are spoiled from some call on."""
    learned = [c for c in CLASSES if c not in (solvers.BlindEdges, solvers.BlindTV)]
    for cls, (kind, spoil), after in product(learned, SPOILS.items(), (0, 1, 2)):
        yield Injection(
            f"{cls.__name__}: prior {kind}, after {after}",
            lambda cls=cls, s=spoil, a=after: run(small(cls), seen(cls), Able(s, a)),
            # a blind sampler may end in a method with a known operator, which names the prior
            (cls.__name__, "the prior returned", *(("values of y",) if "1e" in kind else ())),
        )
    for cls, (kind, spoil) in product(KNOWN, SPOILS.items()):
        yield Injection(
            f"restore by {cls.__name__}: prior {kind}",
            lambda cls=cls, s=spoil: restore(measured(), Able(s, 1), small(cls), draws=3, batch=2),
            (cls.__name__,),
        )
    variation = TotalVariation(weight=1.0)
    for cls, value in product((solvers.PGM, solvers.FISTA), HUGE):
        yield Injection(
            f"{cls.__name__}: total variation, y {value}",
            lambda cls=cls, v=value: run(small(cls), measured(spoiled(data(), v)), variation),
            (cls.__name__, "tv_prox"),
        )


def settings_of(value: Any) -> Iterator[tuple[str, Any]]:
    """A frozen value with each of its numbers made wrong, those of its parts too."""
    for f in fields(value):
        now = getattr(value, f.name)
        if is_dataclass(now) and not isinstance(now, type):
            for name, changed in settings_of(now):
                yield name, lambda v=value, n=f.name, c=changed: replace(v, **{n: c()})
            continue
        number = isinstance(now, float | int) and not isinstance(now, bool)
        if not (number or now is None):
            continue
        wrong = [*NOT_FINITE, -1, 0]
        wrong += [] if isinstance(now, int) or "steps" in f.name else [1e-30, 1e20, 1e38]
        for bad in wrong:
            yield f"{f.name} = {bad}", lambda v=value, n=f.name, b=bad: replace(v, **{n: b})


def of_settings() -> Iterator[Injection]:
    """Every method, with each of its numbers made wrong."""
    for cls in CLASSES:
        for name, changed in settings_of(small(cls)):
            yield Injection(
                f"{cls.__name__}: {name}",
                lambda cls=cls, c=changed: run(c(), seen(cls)),
                (name.split(" ")[0], cls.__name__, "got levels"),
            )


# -- what methods are made of --------------------------------------------------------------------


def networks() -> dict[str, Callable[[], Any]]:
    """Unfolded networks without training."""

    def flows(folds: Any) -> FlowProximal:
        flow = FlowPrior(Glow.tiny(1), shape=SHAPE)
        for level in range(len(flow.latent_shapes)):
            flow.get_buffer(f"kappa_{level}").fill_(0.05)
        return FlowProximal(flow, folds(flow, 2))

    return {
        **{
            cls.__name__: lambda c=cls: c.tiny(1) for cls in (UnfoldedDR, UnfoldedHQS, UnfoldedPGM)
        },
        "gradient_folds": lambda: flows(gradient_folds),
        "proximal_folds": lambda: flows(proximal_folds),
    }


def of_networks() -> Iterator[Injection]:
    """Unfolded networks by their methods, with bad data, operators and weights."""
    for name, made in networks().items():
        flow = name.endswith("folds")
        used = [solvers.FlowUnfolding] if flow else [solvers.PosteriorMean, samplers.DiffUnfolding]
        for cls in used:

            def call(made: Any = made, cls: Any = cls, weight: float = 1, **m: Any) -> Any:
                with torch.random.fork_rng():
                    torch.manual_seed(0)
                    network = made()
                if weight != 1:
                    with torch.no_grad():
                        next(network.parameters()).fill_(weight)
                return run(small(cls), measured(**{k: v() for k, v in m.items()}), network)

            label, names = f"{cls.__name__} of {name}", (cls.__name__, "prox: got r")
            for value in HUGE:
                yield Injection(
                    f"{label}: y {value}",
                    lambda c=call, v=value: c(y=lambda: spoiled(data(), v)),
                    names,
                )
            for kind, spoil in SPOILS.items():
                yield Injection(
                    f"{label}: operator {kind}",
                    lambda c=call, s=spoil: c(operator=lambda: Faulty(s)),
                    ("Faulty",),
                )
            for sigma in (0.0, 1e-30, 1e20, 1e38):
                yield Injection(
                    f"{label}: sigma {sigma}",
                    lambda c=call, s=sigma: c(noise=lambda: Gaussian(s)),
                    (*names, "sigma"),
                )
            for value in (*NOT_FINITE, 1e38):
                yield Injection(
                    f"{label}: weight {value}", lambda c=call, v=value: c(weight=v), names
                )


def of_measurements() -> Iterator[Injection]:
    """What a measurement offers, with radii that are none."""
    radii = (0.0, -1.0, *NOT_FINITE, torch.tensor([0.1, math.nan]), torch.tensor([0.0, 0.1]))
    for way, r in product(("prox", "conditional_sample"), radii):
        yield Injection(
            f"Measurement.{way}: r {r}",
            lambda w=way, r=r: getattr(measured(), w)(data(), r),
            (f"Measurement.{way}: got r",),
        )
    for beta in (*NOT_FINITE, -1.0):
        yield Injection(
            f"Measurement.em_step: beta {beta}",
            lambda b=beta: measured(data() + 2, noise=Poisson()).em_step(data() + 1, data(), b),
            ("beta",),
        )
    for gain in (*NOT_FINITE, 0.0, -1.0):
        yield Injection(f"Poisson: gain {gain}", lambda g=gain: Poisson(g), ("gain",))


def of_every_operator() -> Iterator[Injection]:
    """Every public operator, with no item."""
    named = [getattr(operators, name) for name in operators.__all__]
    classes = [c for c in named if isinstance(c, type) and issubclass(c, LinearOperator)]
    for cls in classes:
        if inspect.isabstract(cls):
            continue
        name = cls.__name__
        yield Injection(
            f"{name}: no item", lambda c=cls: (a := c.example())(a.blank_input(1)[:0]), ("batch",)
        )


def of_shift() -> Iterator[Injection]:
    """Ranking, divergence and adaptation."""

    def masked(value: float = 0.1, noise: float = 0.1, operator: Any = None) -> Measurement:
        mask = torch.ones(SHAPE)
        mask[..., ::3] = 0
        y = data(8)
        y[..., 1] = y[..., 1] if value == 0.1 else value
        return Measurement(Mask(SHAPE, mask), Gaussian(noise), y)

    def small_network(weight: float = 1.0) -> EDMDenoiser:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            prior = EDMDenoiser(ConvUNet(1, widths=(8, 8)), channels=1)
        if weight != 1:
            with torch.no_grad():
                next(prior.parameters()).fill_(weight)
        return prior

    few = Divergence(nodes=4, fixed=True, resamples=10, fills=1, spread=True)
    steps = Adaptation(steps=2, every=1, batch=2, fixed=True)
    tasks: Mapping[str, Callable[..., Any]] = {
        "ranked": lambda m, prior, **k: ranked([m], {"a": Able(), "b": prior}, settings=few),
        "Divergence": lambda m, prior, **k: few([m], prior, Able()),
        "Adaptation": lambda m, prior, weight=1.0: steps(small_network(weight), [m]),
    }
    for name, task in tasks.items():
        names = (name, "Divergence", "ranked")
        for value in HUGE:
            yield Injection(
                f"{name}: y {value}", lambda t=task, v=value: t(masked(v), Able()), names
            )
        for sigma in (0.0, 1e-30, 1e20, 1e38):
            yield Injection(
                f"{name}: sigma {sigma}",
                lambda t=task, s=sigma: t(masked(noise=s), Able()),
                (*names, "sigma"),
            )
        if name != "Adaptation":
            for (kind, spoil), after in product(SPOILS.items(), (0, 3)):
                yield Injection(
                    f"{name}: prior {kind}, after {after}",
                    lambda t=task, s=spoil, a=after: t(masked(), Able(s, a)),
                    names,
                )
    for value in (*NOT_FINITE, 1e38):
        yield Injection(
            f"Adaptation: weight {value}",
            lambda v=value: tasks["Adaptation"](masked(), None, weight=v),
            ("Adaptation",),
        )
    for value in (few, steps):
        for name, changed in settings_of(value):
            task = few if value is few else steps

            def call(changed: Any = changed, first: Any = value) -> Any:
                made = changed()
                if first is few:
                    return made([masked()], Able(), Able())
                return made(small_network(), [masked()])

            yield Injection(
                f"{type(task).__name__}: {name}", call, (name.split(" ")[0], type(task).__name__)
            )


def injections() -> Iterator[Injection]:
    """All of them."""
    yield from of_data()
    yield from of_starts()
    yield from of_operators()
    yield from of_priors()
    yield from of_settings()
    yield from of_networks()
    yield from of_measurements()
    yield from of_every_operator()
    yield from of_shift()


if __name__ == "__main__":
    torch.set_num_threads(1)
    part = sys.argv[1:] and globals()[f"of_{sys.argv[1]}"]
    every = list((part or injections)())
    bad = [(one.name, said) for one in every if (said := outcome(one))]
    for name, said in bad:
        print(f"{name}\n    {said}")
    print(f"{len(bad)} of {len(every)} were not survived")
