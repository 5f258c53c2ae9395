"""One measurement in, one folder of results out: what a reconstruction is made of.

`restore` runs a method and keeps time and count; `prior_for` makes a named prior fit the images of
an operator, and says how; `variation_weight` is the weight of total variation where none is named.
The noise of draw i of item b comes from (seed, b, i), so draws may be made a few at a time.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import sha256_file
from ..measurement import Measurement
from ..memory import exhausted
from ..methods import Method, Step
from ..operators import LinearOperator
from ..priors import Penalty
from ..priors.capabilities import Denoiser, Latent, Posterior, meaning
from ..priors.codes import CountedLatent
from ..priors.trained import Images, Trained
from ..priors.variation import TotalVariation
from ..priors.wrappers import Counted, CountedPosterior
from ..problems.random import problem_of
from ..tensors import generators
from ..weights.store import load, weight_file
from .arguments import kebab, methods
from .penalties import penalty_named, usual_weight

__all__ = [
    "Restored",
    "bar",
    "environment",
    "prior_for",
    "prior_loaded",
    "restore",
    "suited",
    "variation_weight",
]

TV = "total-variation"


@dataclass(frozen=True)
class Restored:
    """What a method made of a measurement.

    Args:
        estimate: The images, with shape (B, C, ...); the mean of the draws of a sampler.
        draws: The draws of a sampler, with shape (S, B, C, ...); None for a solver.
        seconds: Wall time.
        nfe: Network evaluations of one image, or of one draw.
    """

    estimate: Tensor
    draws: Tensor | None
    seconds: float
    nfe: int

    @property
    def sd(self) -> Tensor | None:
        """Standard deviation of the draws, with shape (B, C, ...); None below two draws."""
        if self.draws is None or len(self.draws) < 2:
            return None
        return self.draws.std(0)


def restore(
    measurement: Measurement,
    prior: Any,
    method: Method,
    *,
    draws: int = 8,
    seed: int = 0,
    batch: int = 4,
    on_step: Callable[[int, int, Step], None] | None = None,
) -> Restored:
    """Return the images behind a measurement, with draws and their spread if a method draws.

    A solver gives one estimate per item. A sampler gives S draws x_1, ..., x_S of p(x | y) per
    item, their mean as the estimate and their standard deviation `sd`:

        result = ms.restore(m, ms.load("natural-color"), ms.samplers.PnPDM.quick(), draws=8)
        result.estimate, result.sd, result.draws, result.seconds, result.nfe

    Args:
        measurement: What was seen, of B items.
        prior: What the method needs: a denoiser, or something with a proximal map.
        method: A solver or a sampler.
        draws: Number S of draws of a sampler; solvers do not look at it.
        seed: Draw i of item b depends on (seed, b, i) alone, not on S, B or the batch.
        batch: Images made at a time by a sampler; at least one draw of every item. Half as many
            where so many do not fit into the memory.
        on_step: Called with (draws done, draws under way, step) after every step.
    Returns:
        The estimate, the draws, and what they cost.
    Raises:
        TypeError: The method is none, or the prior lacks what the method needs.
        ValueError: No draw is asked for.
        FloatingPointError: The method returned values that are NaN or infinite.
    """
    if not isinstance(method, Method):
        name = getattr(method, "__name__", type(method).__name__)
        raise TypeError(f"restore: got {name}, wanted a method, such as measurand.solvers.HQS()")
    for name, number in (("draws", draws), ("batch", batch)):
        if number < 1:
            raise ValueError(f"restore: got {name} = {number}, wanted at least 1")
    counted = counting(prior, method)
    used = counted or prior
    items, device = len(measurement), measurement.y.device
    count = draws if method.draws else 1
    share = max(1, batch // items)
    # the draws of the first item are those of a measurement of one item
    seeds = [seed, *(g.initial_seed() for g in generators(seed, items)[1:])]
    parts, started = [], time.perf_counter()
    first = 0
    while first < count:
        some = min(share, count - first)
        if method.draws:
            every = [g for s in seeds for g in generators(s, first + some, device)[first:]]
        else:
            every = generators(seed, items, device)
        told = None if on_step is None else _told(on_step, first, some)
        repeated = measurement.repeat(some) if some > 1 else measurement
        try:
            made = method(repeated, used, generator=every, callback=told)
        except (RuntimeError, MemoryError) as error:
            if not exhausted(error) or some == 1:
                raise
            made = None
        if made is None:  # outside the handler: what the failed attempt held is free by now
            share = some // 2
            continue
        parts.append(made.unflatten(0, (items, some)).transpose(0, 1))
        first += some
    images = torch.cat(parts)  # finite: the method has checked that
    seconds = time.perf_counter() - started
    nfe = round(counted.items / (count * items)) if counted else 0
    if isinstance(prior, Trained):  # a call of an unfolded network is one for each of its steps
        nfe *= prior.evaluations
    if not method.draws:
        return Restored(images[0], None, seconds, nfe)
    found = Restored(images.mean(0), images, seconds, nfe)
    for what, x in (("mean", found.estimate), ("standard deviation", found.sd)):
        if x is not None and not bool(torch.isfinite(x).all()):
            raise FloatingPointError(
                f"{type(method).__name__}: the {what} of the draws, whose values go up to "
                f"{float(images.abs().max()):.1e}, is too large for its precision"
            )
    return found


def counting(prior: Any, method: Method) -> Counted | CountedLatent | CountedPosterior | None:
    """A prior that counts its calls; None where it is not called as a denoiser."""
    if Denoiser in method.needs and isinstance(prior, Denoiser):
        return Counted(prior)
    if Posterior in method.needs and isinstance(prior, Posterior):
        return CountedPosterior(prior)
    if Latent in method.needs and isinstance(prior, Latent):
        return CountedLatent(prior)
    return None


def _told(on_step: Callable[[int, int, Step], None], first: int, some: int) -> Any:
    return lambda step: on_step(first, some, step)


@dataclass(frozen=True)
class Loaded:
    """A prior on its way from its name to an operator: read once, fitted to many.

    Args:
        prior: The network, or a penalty; None where its weight depends on the noise.
        record: What `run.json` says of it.
    """

    prior: Any
    record: dict[str, Any]

    @property
    def window(self) -> tuple[float, float] | None:
        """Range of the network's images in Hounsfield units; None where they have no unit."""
        return self.prior.window if isinstance(self.prior, Trained) else None

    def remarks(self, measurement: Measurement, x: Tensor) -> dict[str, float]:
        """What the network says of an image, see `Trained.remarks`; nothing of total variation."""
        return self.prior.remarks(measurement, x) if isinstance(self.prior, Trained) else {}


def prior_file(name: str) -> Path | None:
    """The weight file of a prior, None for a penalty; a name that is none is an error."""
    return None if penalty_named(name) is not None else weight_file(name)


def prior_loaded(name: str, device: str | torch.device = "cpu") -> Loaded:
    """A prior by its name, before any operator is known.

    Args:
        name: A prior that ships ("natural-color", "natural-color@2"), a weight file, or
            a prior of `measurand.priors` that needs none, with its weight where wanted
            ("total-variation", "wavelets:2.5").
        device: Where the network runs.
    """
    penalty = penalty_named(name)
    if penalty is not None:
        kind, weight = penalty
        prior = None if weight is None else kind(weight=weight)
        return Loaded(prior, {"name": kebab(kind.__name__), "weight": weight})
    path = prior_file(name)
    assert path is not None  # of a penalty alone
    network: Trained = load(path, device=device)
    record = {
        "name": path.stem,
        "sha256": sha256_file(path),
        "channels": network.channels,
        "precision": str(next((network.fast or network).parameters()).dtype).removeprefix(
            "torch."
        ),
    }
    if not network.any_operator:
        record["trained_on"] = ", ".join(network.problems)
    return Loaded(network, record)


def prior_for(
    name: str | Loaded,
    measurement: Measurement,
    *,
    device: str | torch.device = "cpu",
    tile: int = 1024,
) -> tuple[Any, dict[str, Any], list[str]]:
    """A prior fitted to the images behind a measurement.

    Args:
        name: The name of a prior, or what `prior_loaded` made of it.
        measurement: Says the shape and the kind of the images, and by `usual_weight` the weight
            of a penalty where none is named.
        device: Where the network runs, if it is yet to be loaded.
        tile: Images larger than this are denoised in overlapping tiles of this size, in pixels.
    Returns:
        The prior, what `run.json` says of it, and sentences about what was done.
    """
    loaded = name if isinstance(name, Loaded) else prior_loaded(name, device)
    network, record = loaded.prior, loaded.record
    operator = measurement.operator
    if network is None and (penalty := penalty_named(record["name"])) is not None:
        network = penalty[0](weight=usual_weight(penalty[0], measurement))
    if isinstance(network, Penalty):
        return network, {**record, "weight": network.weight}, []
    called = record["name"]
    images = Images(operator.in_shape, operator.in_dtype, str(operator))
    prior, notes = network.fitted(images, tile=tile, name=called)
    if not of_its_kind(network, operator):
        trained_on = (
            f"{called} was trained on {', '.join(network.problems)}, and {operator} is of another "
            "kind: another prior and method may give a better result"
        )
        notes = [trained_on, *notes]
    return prior, record, notes


def of_its_kind(network: Trained, operator: LinearOperator) -> bool:
    """Whether a network serves an operator as well as those of its training, or nobody knows.

    It does if an operator of the training is of the same class, or if it serves any: a wider blur
    than those of the training, or more noise, is not seen.
    """
    if network.any_operator:
        return True
    try:
        kinds = [problem_of(text) for text in network.problems]
    except ValueError:
        return True
    shape = (network.channels, 32, 32)
    trained = [type(kind.operator(shape, 1, torch.Generator())) for kind in kinds]
    return not trained or isinstance(operator, tuple(trained))


def variation_weight(measurement: Measurement) -> float:
    """The weight of total variation where nobody says one, see `Variation.usual_weight`.

    The noise is that in the image, `sigma / (||A|| sqrt(max(1, n/m)))` for n unknowns and m data
    (`solvers.noise_in_image`), and at least 0.001: a blur, missing pixels, a block average and a
    tomograph have the same one, whatever the units of A and of the data.

    Args:
        measurement: What was seen, with Gaussian noise.
    """
    return usual_weight(TotalVariation, measurement)


def suited(method: Method, prior: Any) -> None:
    """Raise a `ValueError` where a prior has none of the capabilities that a method needs."""
    if not method.needs or isinstance(prior, method.needs):
        return
    wanted = " or ".join(meaning(capability) for capability in method.needs)
    others = sorted(name for name, cls in methods().items() if isinstance(prior, cls.needs))
    advice = f"use --method {' or '.join(others)}, or " if others else "use "
    raise ValueError(
        f"{type(method).__name__} wants {wanted}; got a {type(prior).__name__}: {advice}another "
        "--prior (`measurand priors` lists those that ship)"
    )


@contextmanager
def bar(
    label: str, total: int | None, *, quiet: bool, unit: str = "step"
) -> Iterator[Callable[[int], None]]:
    """A progress bar with the time to go, shown once two seconds have passed.

    Yields:
        A function that takes the number of steps done.
    """
    from tqdm import tqdm

    seen = sys.stderr is not None and sys.stderr.isatty()
    shown = tqdm(
        total=total,
        desc=label,
        unit=unit,
        delay=2.0,
        mininterval=0.2 if seen else 10.0,  # a log file wants few lines
        disable=quiet or sys.stderr is None,  # closed: there is nobody to look
        file=sys.stderr,
        leave=False,
    )
    with shown:

        def update(done: int) -> None:
            shown.update(done - shown.n)

        yield update


def environment(device: str | torch.device) -> dict[str, Any]:
    """Versions and machine, for `run.json`."""
    device = torch.device(device)
    name = platform.processor() or platform.machine()
    return {
        "versions": {
            "measurand": version("measurand"),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": version("numpy"),
        },
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else name,
        "threads": torch.get_num_threads(),
        "system": platform.system(),
    }


def resolved(value: Any) -> Any:
    """A method or a twin as plain JSON: its class and its fields."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "class": type(value).__name__,
            **{k: str_or_plain(v) for k, v in asdict(value).items()},
        }
    return str_or_plain(value)


def str_or_plain(value: Any) -> Any:
    """Numbers, text, lists and dictionaries as they are, everything else by its name."""
    if isinstance(value, dict):
        return {key: str_or_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [str_or_plain(item) for item in value]
    return value if isinstance(value, int | float | str | type(None)) else repr(value)
