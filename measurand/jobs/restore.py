"""One measurement in, one folder of results out: what a reconstruction is made of.

`restore` runs a method and keeps time and count; `prior_for` makes a named prior fit the images of
an operator, and says how; `variation_weight` is the weight of total variation where none is named.
The noise of draw i comes from (seed, i), so draws may be made a few at a time.
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
from typing import Any, get_type_hints

import torch
from torch import Tensor

from .. import problems
from ..checkpoints import known_weights, load_weights
from ..files import sha256_file
from ..measurement import Measurement
from ..operators import LinearOperator
from ..priors import Penalty
from ..priors.denoiser import (
    Counted,
    CountedPosterior,
    Denoiser,
    Posterior,
    Rescaled,
    Restorer,
    Tiled,
)
from ..priors.flow import FlowPrior
from ..priors.flow_maps import LatentGain
from ..priors.grey import Grey
from ..priors.variation import TotalVariation
from ..schedules import Step
from ..tensors import generators
from ..unfolded import FlowProximal
from ..unfolded.posterior_score import Unfolded
from .arguments import is_sampler, kebab
from .penalties import penalty_named, usual_weight

__all__ = [
    "Restored",
    "bar",
    "facts",
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
        draws: The draws, with shape (S, C, ...); None for a solver.
        seconds: Wall time.
        nfe: Calls of a denoising network for one image, or one draw.
    """

    estimate: Tensor
    draws: Tensor | None
    seconds: float
    nfe: int

    @property
    def sd(self) -> Tensor | None:
        """Standard deviation of the draws, with shape (1, C, ...); None below two draws."""
        if self.draws is None or len(self.draws) < 2:
            return None
        return self.draws.std(0, keepdim=True)


def restore(
    measurement: Measurement,
    prior: Any,
    method: Any,
    *,
    draws: int = 4,
    seed: int = 0,
    batch: int = 4,
    on_step: Callable[[int, int, Step], None] | None = None,
) -> Restored:
    """One image of each item of a measurement, or several draws of a single one.

    Args:
        measurement: What was seen; several items, such as slices, are for solvers only.
        prior: What the method needs: a denoiser, or something with a proximal map.
        method: A solver or a sampler.
        draws: Number of draws of a sampler.
        seed: Draw i depends on (seed, i) alone.
        batch: Draws made at a time.
        on_step: Called with (draws done, draws under way, step) after every step.
    Returns:
        The estimate, the draws, and what they cost.
    Raises:
        ValueError: No draw is asked for, or draws of several items.
        FloatingPointError: The method returned values that are NaN or infinite.
    """
    if draws < 1:
        raise ValueError(f"restore: got draws = {draws}, wanted at least 1")
    items = len(measurement)
    if is_sampler(method) and items > 1:
        raise ValueError(
            f"{type(method).__name__}: got {items} images at once, and draws are made of one; "
            "save each to a file of its own, or use a solver (--method hqs)"
        )
    counted = counting(prior, method)
    used = counted or prior
    device = measurement.y.device
    count = draws if is_sampler(method) else 1
    found, started = [], time.perf_counter()
    for first in range(0, count, batch):
        some = min(batch, count - first)
        every = generators(seed, max(first + some, items), device)[first:]
        told = None if on_step is None else _told(on_step, first, some)
        repeated = measurement.repeat(some) if some > 1 else measurement
        found.append(method(repeated, used, generator=every, callback=told))
    images = torch.cat(found)
    seconds = time.perf_counter() - started
    bad = int((~torch.isfinite(images)).sum())
    if bad:
        raise FloatingPointError(
            f"{type(method).__name__}: {bad} of {images.numel()} values of the result are NaN or "
            "infinite; nothing is written. The noise level or a step size may be wrong: "
            "`measurand check` says what does not fit"
        )
    nfe = round(counted.items / max(count, items)) if counted else 0
    if isinstance(prior, Unfolded):  # one evaluation is as many calls as it has steps
        nfe *= prior.depth
    if not is_sampler(method):
        return Restored(images, None, seconds, nfe)
    return Restored(images.mean(0, keepdim=True), images, seconds, nfe)


def counting(prior: Any, method: Any) -> Counted | CountedPosterior | None:
    """A prior that counts its calls; None where it is not called as a denoiser."""
    if get_type_hints(type(method).__call__).get("prior") is Posterior:
        return CountedPosterior(prior) if hasattr(prior, "given") else None
    return Counted(prior) if hasattr(prior, "denoise") else None


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


def prior_file(name: str) -> Path | None:
    """The weight file of a prior, None for a penalty; a name that is none is an error."""
    if penalty_named(name) is not None:
        return None
    newest = [path for key, path in known_weights().items() if _called(name, key)]
    path = newest[-1] if newest else Path(name)
    if not path.is_file():
        load_weights(name)  # says what is wrong with the name
    return path


def _called(name: str, key: str) -> bool:
    return name in (key, key.rpartition("@")[0])


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
    network = load_weights(name, device=device)
    nets = getattr(network, "priors", network)  # the steps of an unfolded one stay in float32
    record = {
        "name": path.stem,
        "sha256": sha256_file(path),
        "channels": network.channels,
        "precision": str(next(nets.parameters()).dtype).removeprefix("torch."),
    }
    if isinstance(network, FlowProximal):
        record["trained_on"] = trained_on(network)
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
    notes: list[str] = []
    loaded = name if isinstance(name, Loaded) else prior_loaded(name, device)
    network, record = loaded.prior, loaded.record
    operator = measurement.operator
    if network is None and (penalty := penalty_named(record["name"])) is not None:
        network = penalty[0](weight=usual_weight(penalty[0], measurement))
    if isinstance(network, Penalty):
        return network, {**record, "weight": network.weight}, notes
    prior: Any = network
    called = record["name"]
    if operator.in_dtype.is_complex != network.dtype.is_complex:
        kinds = ("real", "complex")
        raise ValueError(
            f"--prior {called} knows {kinds[network.dtype.is_complex]} images with "
            f"{network.channels} channels, {operator} asks for "
            f"{kinds[operator.in_dtype.is_complex]} ones; use --prior {TV} or a prior of these"
        )
    channels = operator.in_shape[0]
    denoiser, unfolded = isinstance(network, Denoiser), isinstance(network, Unfolded)
    if network.channels != channels:
        grey = channels == 1 and not network.dtype.is_complex
        if not grey or not (denoiser or unfolded):
            advice = "; for a grey image use --prior natural-color --method hqs" if grey else ""
            raise ValueError(
                f"--prior {called} knows images with {network.channels} channels, {operator} "
                f"asks for {channels}{advice}"
            )
        prior = network.in_grey() if unfolded else Grey(prior, network.channels)
        notes.append(f"grey image: shown to {called} as {network.channels} equal channels")
    if isinstance(network, FlowPrior):
        notes.append(f"proximal map of {called} by one Gauss-Newton step in its latents")
        return LatentGain(network), record, notes
    large = max(operator.in_shape[1:]) > tile
    in_tiles = f"denoised in overlapping tiles of {tile} pixels, physics on the whole image"
    if unfolded:  # it holds the physics: the range is as it is, and only its blocks see tiles
        if large:
            prior = prior.with_tiles(tile)
            notes.append(in_tiles)
        return prior, record, notes
    if isinstance(network, FlowProximal) and not of_its_kind(network, operator):
        notes.append(
            f"{called} was trained on {trained_on(network)}, and {operator} is of another kind: "
            "another prior and method may give a better result"
        )
    if not denoiser:
        if large:
            notes.append(f"{called} runs on the whole image: only denoisers are tiled")
        return prior, record, notes
    if tuple(network.range) != (-1.0, 1.0):
        prior = Rescaled(prior, (-1.0, 1.0))
        notes.append(f"images rescaled from [-1, 1] to the prior's {network.range}")
    if large:
        prior = Tiled(prior, tile, overlap=min(32, tile // 2))
        notes.append(in_tiles)
    return prior, record, notes


def trained_on(network: FlowProximal) -> str:
    """The kind of problems that a network of flows was trained on, empty where nothing says it."""
    recipe = network.card.get("recipe")
    return str(recipe.get("kind", "")) if isinstance(recipe, dict) else ""


def of_its_kind(network: FlowProximal, operator: LinearOperator) -> bool:
    """Whether an operator is of the class that a network was trained with, or nobody knows.

    The class alone: a wider blur than those of the training, or more noise, is not seen.
    """
    name = trained_on(network).partition("(")[0]
    if name not in problems.__all__ or not is_dataclass(getattr(problems, name)):
        return True
    kind, shape = getattr(problems, name), (network.channels, 32, 32)
    return isinstance(operator, type(kind().operator(shape, 1, torch.Generator())))


def variation_weight(measurement: Measurement) -> float:
    """The weight of total variation where nobody says one: `0.1 / s`.

    s is the noise as it stands in the image, `sigma / (||A|| sqrt(max(1, n/m)))` for n unknowns
    and m data (`solvers.noise_in_image`), and at least 0.001. Of `nll + weight TV` the first part
    grows as 1 / s^2 and the second is in units of the image, so that a weight in 1 / s has the
    same meaning for a blur, missing pixels, a block average and a tomograph, whatever the units of
    A and of the data. Well-posed data with little noise want less, plain denoising wants more.

    Args:
        measurement: What was seen, with Gaussian noise.
    """
    return usual_weight(TotalVariation, measurement)


def suited(method: Any, prior: Any) -> None:
    """Raise a `ValueError` where a method asks for another kind of prior.

    A method says what it wants in the type of its argument `prior`.
    """
    wanted = get_type_hints(type(method).__call__).get("prior")
    kind = type(method).__name__
    if wanted is Posterior and not isinstance(prior, Posterior):
        raise ValueError(
            f"{kind} wants an unfolded network, which has the physics inside: --prior "
            f"unfold-color, or one of your own; got a {type(prior).__name__}"
        )
    if wanted is Restorer and not isinstance(prior, Restorer):
        raise ValueError(
            f"{kind} wants an unfolded network of flows: --prior flow-denoise, flow-inpaint or "
            f"flow-deblur, or one of your own; got a {type(prior).__name__}"
        )
    if wanted is Denoiser and not isinstance(prior, Denoiser):
        if isinstance(prior, Posterior | Restorer):
            own = "flow-unfolding" if isinstance(prior, Restorer) else "diff-unfolding"
            raise ValueError(
                f"{kind} wants a Denoiser, and an unfolded network has the physics inside; use "
                f"--method {own}" + ("" if isinstance(prior, Restorer) else " or posterior-mean")
            )
    if isinstance(prior, Penalty) and wanted is Denoiser:
        raise ValueError(
            f"--prior {kebab(type(prior).__name__)}: {kind} wants a Denoiser, and this prior has "
            "a proximal map only; use --method fista"
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


def steps_of(method: Any) -> int | None:
    """Number of steps after which a method calls back, where it knows it."""
    for name in ("steps", "sweeps"):
        if isinstance(getattr(method, name, None), int):
            return getattr(method, name)
    return None


def facts(device: str | torch.device) -> dict[str, Any]:
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
