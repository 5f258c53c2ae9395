"""From a measured file to a folder of results: what is done to one scan.

A `Reconstruction` is a plain value: how the file was measured and how the image is recovered. It
travels to other processes as it is. Its `ready` gives a `Runner`, which loads what all files
share once, reads a file (`problem`) and fills a folder (`solve`).

    estimate          the image, in the format and bit depth of the file
    draws/, sd.npy    the draws of a sampler, and their standard deviation
    comparison.png    measured, estimated, true, where a figure is wanted
    run.json          everything needed to repeat it
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.arrays import ARRAYS, split_key
from ..data.files import Form, Stored, read_image, read_stored, write_image
from ..devices import device_named
from ..figures import comparison
from ..files import sha256_file
from ..measurement import Measurement
from ..methods import Method, Step
from ..metrics import coverage, crps, nmse, psnr, ssim
from ..noises import ComplexGaussian, Gaussian, estimate_sigma
from ..operators import LinearOperator
from ..solvers import first_guess
from .arguments import build, files_of, fitted, notes_of
from .manifest import Scan
from .restore import (
    Loaded,
    facts,
    prior_file,
    prior_for,
    prior_loaded,
    resolved,
    restore,
    suited,
)

__all__ = [
    "Measured",
    "Opened",
    "Reconstruction",
    "Runner",
    "measured",
    "noise_of",
    "operator_for",
    "truth_in",
]

OnStep = Callable[[int, int, Step], None]


@dataclass(frozen=True)
class Reconstruction:
    """How the images behind measured files are recovered.

    Args:
        operator: How they were measured: an instance of one of `arguments.twins()`.
        method: A solver or a sampler.
        sigma: Noise standard deviation: of data that are pictures in units of the image scaled to
            [-1, 1], of others in their own; estimated from each file when None.
        prior: A prior that ships, a weight file, or total-variation or
            wavelets[:WEIGHT].
        draws: Number of draws of a sampler.
        shape: Shape (C, H, W) of the image, where it does not follow from the measurement.
        value_range: Samples that mean black and white, for floating-point files.
        truth_range: The same of the truth; that of the measurement where absent, if both are
            files of one kind.
        tile: Larger images are denoised in overlapping tiles, of at most this size in
            pixels.
        device: cpu, cuda, or auto; where it is run, not part of what the result is.
        margins: Whether to write what an estimate has beyond the frame of the measurement.
        figure: Whether to draw comparison.png.
    """

    operator: Any
    method: Method
    sigma: float | None = None
    prior: str = "natural-color"
    draws: int = 4
    shape: tuple[int, int, int] | None = None
    value_range: tuple[float, float] | None = None
    truth_range: tuple[float, float] | None = None
    tile: int = 1024
    device: str = "cpu"
    margins: bool = False
    figure: bool = False

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise ValueError(f"--draws: got {self.draws}, wanted at least 1")

    def settings(self) -> dict[str, Any]:
        """All that decides a result but its file and its seed, as plain JSON.

        A file is its content: where it lies does not matter.
        """
        operator = resolved(self.operator)
        for key, file in files_of(self.operator).items():
            array = split_key(operator[key])[1]
            operator[key] = {"sha256": sha256_file(file), "array": array}
        weights = prior_file(self.prior)
        return {
            "operator": operator,
            "method": resolved(self.method),
            "sigma": self.sigma,
            "prior": self.prior if weights is None else sha256_file(weights),
            "draws": self.draws if self.method.draws else None,
            "shape": resolved(self.shape),
            "value_range": resolved(self.value_range),
            "truth_range": resolved(self.truth_range),
            "tile": self.tile,
            "margins": self.margins,
            "figure": self.figure,
        }

    def anywhere(self) -> Reconstruction:
        """The same, with its files named so that every working directory finds them."""
        moved = {}
        for key, file in files_of(self.operator).items():
            array = split_key(getattr(self.operator, key))[1]
            moved[key] = f"{file.absolute()}:{array}" if array else str(file.absolute())
        prior = Path(self.prior)
        return replace(
            self,
            operator=replace(self.operator, **moved),
            prior=str(prior.absolute()) if prior.is_file() else self.prior,
        )

    def ready(self) -> Runner:
        """What keeps the things that all files share: the prior, and the operator."""
        return Runner(self, device_named(self.device))


@dataclass(frozen=True)
class Opened:
    """A file that has been read, with all that the method needs.

    Args:
        scan: The file and the truth.
        measurement: What was seen.
        y: The same on the CPU, for figures.
        sigma: Noise level.
        form: How the file stores its image.
        prior: The prior, fitted to the images of the operator.
        prior_record: What `run.json` says of it.
        truth: The true image; None where it is not known.
        notes: What was decided on the way.
    """

    scan: Scan
    measurement: Measurement
    y: Tensor
    sigma: float
    form: Form
    prior: Any
    prior_record: dict[str, Any]
    truth: Tensor | None
    notes: tuple[str, ...]


class Runner:
    """A reconstruction with its prior at hand: files in, folders out.

    Args:
        how: What is done.
        device: Where.
    """

    def __init__(self, how: Reconstruction, device: torch.device) -> None:
        self.how, self.device = how, device
        self.facts = facts(device)
        self._operator = lru_cache(maxsize=2)(self._build)  # files of a job are mostly alike

    @cached_property
    def loaded(self) -> Loaded:
        """The prior, read when the first file has been."""
        return prior_loaded(self.how.prior, self.device)

    def __call__(self, scan: Scan, folder: Path, seed: int) -> dict[str, Any]:
        """Reads one file and fills a folder.

        Args:
            scan: The file.
            folder: An empty folder, where everything but run.json is written.
            seed: Seed of everything random.
        Returns:
            What run.json says.
        """
        return self.solve(self.problem(scan), folder, seed)

    def problem(self, scan: Scan) -> Opened:
        """Reads one file, and says what is to be solved."""
        how = self.how
        found = measured(scan.file, self._operator, how.sigma, how.value_range)
        operator, y, sigma, form, notes = found
        measurement = Measurement(operator.to(self.device), noise_of(sigma, y), y).to(self.device)
        prior, record, more = prior_for(self.loaded, measurement, tile=how.tile)
        suited(how.method, prior)
        truth: Tensor | None = None
        told: tuple[str, ...] = ()
        if scan.truth is not None:
            truth, told = truth_in(
                scan.truth, found, scan.file, said=how.truth_range, of_file=how.value_range
            )
        said = (*notes, *notes_of(how.operator, operator.in_shape), *more, *told)
        return Opened(scan, measurement, y, sigma, form, prior, record, truth, said)

    def _build(self, seen: tuple[int, ...]) -> LinearOperator:
        return operator_for(self.how.operator, self.how.shape, seen)

    def solve(
        self, problem: Opened, folder: Path, seed: int, on_step: OnStep | None = None
    ) -> dict[str, Any]:
        """Runs the method and fills a folder.

        Args:
            problem: What is to be solved.
            folder: An empty folder, where everything but run.json is written.
            seed: Seed of everything random.
            on_step: As in `restore`.
        Returns:
            What run.json says.
        """
        how, form = self.how, problem.form
        items = len(problem.measurement)
        if how.method.draws and items > 1:
            raise ValueError(
                f"{type(how.method).__name__}: got {items} images at once, and draws are made "
                "of one; save each to a file of its own, or use a solver (--method hqs)"
            )
        result = restore(
            problem.measurement,
            problem.prior,
            how.method,
            draws=how.draws,
            seed=seed,
            on_step=on_step,
        )
        operator = problem.measurement.operator
        inside = (lambda x: x) if how.margins else operator.framed
        x = result.estimate.cpu()
        write_image(folder / f"estimate{form.suffix}", inside(x), form)
        panels = [("measured", problem.y), ("estimate", operator.framed(x))]
        draws = None if result.draws is None else result.draws[:, 0].cpu()
        if draws is not None:
            panels[1] = ("mean of draws", operator.framed(x))
            (folder / "draws").mkdir()
            for i, draw in enumerate(inside(draws)):
                write_image(folder / "draws" / f"{i:02d}{form.suffix}", draw[None], form)
        if result.sd is not None:
            sd = result.sd.cpu() * form.unit
            np.save(folder / "sd.npy", inside(sd)[0].numpy(), allow_pickle=False)
            panels.append(("standard deviation", operator.framed(sd)))
        metrics: dict[str, float] = {}
        if problem.truth is not None:
            framed = None if draws is None else operator.framed(draws)
            metrics = _metrics(operator.framed(x), problem.truth, framed)
            panels.append(("truth", problem.truth))
        metrics |= self.loaded.remarks(problem.measurement, result.estimate)
        if how.figure:
            title = f"{Path(problem.scan.file).name}, {type(how.method).__name__}"
            comparison(folder / "comparison.png", panels, title=title)
        return {
            "file": problem.scan.file,
            "operator": resolved(how.operator)
            | {"image": list(problem.measurement.operator.in_shape)},
            "sigma": problem.sigma if how.sigma is None else how.sigma,
            "sigma_estimated": how.sigma is None,
            "prior": problem.prior_record,
            "method": resolved(how.method),
            "draws": how.draws if how.method.draws else None,
            "seed": seed,
            "notes": list(problem.notes),
            "seconds": round(result.seconds, 3),
            "nfe": result.nfe,
            "metrics": metrics,
            **self.facts,
            "threads": torch.get_num_threads(),
        }


def operator_for(
    twin: Any, shape: tuple[int, int, int] | None, seen: tuple[int, ...]
) -> LinearOperator:
    """The operator of images of a shape, or where none is said, of measurements of a shape.

    Args:
        twin: The operator as the command line knows it (`arguments.twins`).
        shape: Shape (C, H, W) of the image; None where it follows from the measurement.
        seen: Shape of one measurement.
    """
    return build(twin, shape) if shape is not None else fitted(twin, seen)


class Measured(NamedTuple):
    """What a measured file says.

    Attributes:
        operator: The operator A.
        y: The data as the image in [-1, 1] makes them, or a complex image of magnitudes near 1.
        sigma: Noise level of y.
        form: How to write an image of this kind.
        notes: What was decided on the way.
    """

    operator: LinearOperator
    y: Tensor
    sigma: float
    form: Form
    notes: list[str]


def measured(
    file: str | Path,
    operator_of: Callable[[tuple[int, ...]], LinearOperator],
    sigma: float | None,
    value_range: tuple[float, float] | None,
) -> Measured:
    """What a measured file says of the image x behind it, which lives in [-1, 1].

    Where samples u of an image have the range [low, high], so that `u = low + w (x + 1) / 2` with
    w = high - low, data `v = A u` are brought to `y = A x` by

        y = 2 v / w - (high + low) / w A 1,

    which for an operator of gain one is the same map as that of an image, and else is not. Data
    of another kind than images (`LinearOperator.pictures`) keep their values where no range is
    said, and sigma is in their units. Complex data are divided by the size of their image, the
    99.5 % quantile of the magnitudes of the initialization; `form` has it as its unit.

    Args:
        file: The measurement.
        operator_of: Gives the operator for the shape of one measurement.
        sigma: Noise level; estimated from the data when None.
        value_range: Samples of an image that mean black and white.
    Raises:
        ValueError: File, operator and noise level do not fit; the message says in what.
    """
    stored = read_stored(file)
    operator = operator_of(tuple(stored.x.shape[1:]))
    if stored.x.shape[1:] != operator.out_shape:
        raise ValueError(
            f"{file}: got a measurement of shape {tuple(stored.x.shape[1:])}, {operator} measures "
            f"{operator.out_shape}"
        )
    if stored.x.is_complex() != operator.out_dtype.is_complex:
        kinds = ("real", "complex")
        raise ValueError(
            f"{file}: got {kinds[stored.x.is_complex()]} data, {operator} measures "
            f"{kinds[operator.out_dtype.is_complex]} ones"
        )
    # what was not measured is not data, whatever stands there
    stored = replace(stored, x=operator.observed(stored.x))
    if stored.x.is_complex():
        return _complex(file, stored, operator, sigma)
    own = value_range or stored.range or ((-1.0, 1.0) if not operator.pictures else None)
    picture = stored.image(own)
    form, notes = picture.form, list(picture.notes)
    ones = operator(torch.ones(1, *operator.in_shape).to(operator.in_dtype))
    width = form.high - form.low
    y = operator.observed(picture.x + (form.high + form.low) / width * (1 - ones))
    scale = 1.0
    if not operator.pictures:
        scale = 2 / width
        suffix = form.suffix if form.suffix in (*ARRAYS, ".tif", ".tiff") else ".tif"
        form = replace(form, suffix=suffix, dtype="<f4", further=0, alpha=None)
        said = f"[{form.low:g}, {form.high:g}]"
        notes.append(
            f"data in units of their own; the image in {said} is [-1, 1] to the prior, sigma is "
            "in units of the data (--value-range LOW HIGH says what the image's range is)"
        )
    if sigma is not None:
        return Measured(operator, y, scale * sigma, form, notes)
    if not bool((operator.observed(torch.ones_like(y)) != 0).all()):
        raise ValueError(f"--sigma: the noise of {operator} cannot be seen in the data; say it")
    sigma = float(estimate_sigma(y))
    kept = np.dtype(stored.form.dtype)
    if kept.kind == "u":  # rounding to whole samples is noise too
        step = 1.0 if not operator.pictures else 2.0 / np.iinfo(kept).max
        sigma = max(sigma, scale * step / math.sqrt(12.0))
    told = f" ({127.5 * sigma:.2g} of 255)" if operator.pictures else ""
    notes.append(f"noise estimated: sigma {sigma / scale:.4g}{told}")
    return Measured(operator, y, sigma, form, notes)


def _complex(
    file: str | Path, stored: Stored, operator: LinearOperator, sigma: float | None
) -> Measured:
    """Complex data, in units in which the image is as large as those of the priors."""
    picture = stored.image()
    if sigma is None:
        raise ValueError(f"--sigma: the noise of {operator} cannot be seen in the data; say it")
    # in double precision: scanners have values whose squares single precision does not hold
    largest = float(picture.x.abs().max())
    if largest == 0:
        raise ValueError(f"{file}: every value that was measured is zero")
    y = picture.x / largest
    guess = first_guess(Measurement(operator, ComplexGaussian(1.0), y)).abs().flatten()
    size = float(guess.kthvalue(max(1, round(0.995 * guess.numel()))).values) or 1.0
    unit = largest * size
    notes = [
        *picture.notes,
        f"divided by {unit:.4g}, so that the magnitudes of the image are near 1; the estimate is "
        "in the units of the file",
    ]
    return Measured(operator, y / size, sigma / unit, replace(picture.form, unit=unit), notes)


def truth_in(
    file: str | Path,
    measurement: Measured,
    measured_file: str | Path,
    *,
    said: tuple[float, float] | None,
    of_file: tuple[float, float] | None,
) -> tuple[Tensor, tuple[str, ...]]:
    """The true image behind a measurement, as much of it as lies in its frame, and notes.

    A real truth of complex images is one without a phase, as `simulate` measures it: metrics
    compare complex numbers.

    Args:
        file: The truth.
        measurement: What was made of the measured file: says the shape, the kind and the units.
        measured_file: The measured file.
        said: Samples of the truth that mean black and white; those of the measured file where
            None, if both are files of one kind or the data have units of their own.
        of_file: What was said of the measured file.
    Raises:
        ValueError: It is no image of this measurement.
    """
    operator, form = measurement.operator, measurement.form
    if said is None and not operator.pictures:
        said = form.low, form.high
    elif said is None and _kind(file) == _kind(measured_file):
        said = of_file
    picture = read_image(file, value_range=said)
    x, notes = picture.x, [f"truth: {note}" for note in picture.notes]
    if x.shape[1:] == operator.in_shape:
        x = operator.framed(x)
    inside = tuple(operator.framed(torch.empty(0, *operator.in_shape)).shape[1:])
    if x.shape[1:] != inside:
        beyond = "" if inside == operator.in_shape else f" or {operator.in_shape}"
        raise ValueError(
            f"{file}: got a truth of shape {tuple(x.shape[1:])}, wanted {inside}{beyond}"
        )
    if x.is_complex() and not operator.in_dtype.is_complex:
        raise ValueError(f"{file}: got a complex truth, the images of {operator} are real")
    if operator.in_dtype.is_complex and not x.is_complex():
        notes.append("truth: real, compared as a complex image of phase zero")
    return x.to(operator.in_dtype) / form.unit, tuple(notes)


def _kind(file: str | Path) -> str:
    return split_key(file)[0].suffix.lower()


def noise_of(sigma: float, y: Tensor) -> Gaussian:
    """Gaussian noise for a real or a complex measurement."""
    return ComplexGaussian(sigma) if y.is_complex() else Gaussian(sigma)


def _metrics(x: Tensor, truth: Tensor, draws: Tensor | None) -> dict[str, float]:
    """What is known of an estimate once the truth is.

    The PSNR of complex images is that of their magnitudes, with the largest of the truth as their
    range, as fastMRI has it.
    """
    if x.is_complex():
        size, true = x.abs(), truth.abs()
        value = psnr(size, true, data_range=float(true.max()) or 1.0)
    else:
        value = psnr(x, truth, data_range=2.0)
    found = {"psnr": float(value.mean()), "nmse": float(nmse(x, truth).mean())}
    if not x.is_complex():
        if min(x.shape[2:]) >= 7:
            found["ssim"] = float(ssim(x, truth, data_range=2.0))
        if draws is not None and len(draws) >= 3:
            every = draws.cpu()[None]
            level = (len(draws) - 1) / (len(draws) + 1)
            found["crps"] = float(crps(every, truth))
            found[f"coverage of {100 * level:.0f} %"] = float(coverage(every, truth, level=level))
    return found
