"""From a measured file to a folder of results: what is done to one scan.

A `Reconstruction` is a plain value: how the file was measured and how the image is recovered. It
travels to other processes as it is. Its `ready` gives a `Restorer`, which loads what all files
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
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.arrays import split_key
from ..data.files import Form, read_image, write_image
from ..devices import device_named
from ..files import sha256_file
from ..measurement import Measurement
from ..metrics import coverage, crps, nmse, psnr, ssim
from ..noises import ComplexGaussian, Gaussian, estimate_sigma
from ..operators import LinearOperator, Mask
from ..priors.flow import bits_of
from ..report import comparison
from ..schedules import Step
from ..unfolded import FlowProximal
from .arguments import build, files_of, fitted, is_sampler
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
    "Problem",
    "Reconstruction",
    "Restorer",
    "measured",
    "noise_of",
    "operator_for",
    "truth_in",
    "truth_range",
]

OnStep = Callable[[int, int, Step], None]


@dataclass(frozen=True)
class Reconstruction:
    """How the images behind measured files are recovered.

    Args:
        operator: How they were measured: an instance of one of `arguments.twins()`.
        method: A solver or a sampler.
        sigma: Noise standard deviation, in units of the image scaled to [-1, 1]; estimated from
            each file when None.
        prior: A prior that ships, a weight file, or total-variation[:WEIGHT].
        draws: Number of draws of a sampler.
        shape: Shape (C, H, W) of the image, where it does not follow from the measurement.
        value_range: Samples that mean black and white, for floating-point files.
        truth_range: The same of the truth; that of the measurement where absent, if both are
            files of one kind.
        tile: Larger images are denoised in overlapping tiles of this size, in pixels.
        device: cpu, cuda, or auto; where it is run, not part of what the result is.
        figure: Whether to draw comparison.png.
    """

    operator: Any
    method: Any
    sigma: float | None = None
    prior: str = "natural-color"
    draws: int = 4
    shape: tuple[int, int, int] | None = None
    value_range: tuple[float, float] | None = None
    truth_range: tuple[float, float] | None = None
    tile: int = 1024
    device: str = "cpu"
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
            "draws": self.draws if is_sampler(self.method) else None,
            "shape": resolved(self.shape),
            "value_range": resolved(self.value_range),
            "truth_range": resolved(self.truth_range),
            "tile": self.tile,
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

    def ready(self) -> Restorer:
        """What keeps the things that all files share: the prior, and the operator."""
        return Restorer(self, device_named(self.device))


@dataclass(frozen=True)
class Problem:
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


class Restorer:
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

    def problem(self, scan: Scan) -> Problem:
        """Reads one file, and says what is to be solved."""
        how = self.how
        operator, y, sigma, form, notes = measured(
            scan.file, self._operator, how.sigma, how.value_range
        )
        measurement = Measurement(operator.to(self.device), noise_of(sigma, y), y).to(self.device)
        prior, record, more = prior_for(self.loaded, measurement, tile=how.tile)
        suited(how.method, prior)
        truth: Tensor | None = None
        told: tuple[str, ...] = ()
        if scan.truth is not None:
            ends = truth_range(scan.truth, scan.file, how.truth_range, how.value_range)
            truth, told = truth_in(scan.truth, operator, ends)
        said = (*notes, *more, *told)
        return Problem(scan, measurement, y, sigma, form, prior, record, truth, said)

    def _build(self, seen: tuple[int, ...]) -> LinearOperator:
        return operator_for(self.how.operator, self.how.shape, seen)

    def solve(
        self, problem: Problem, folder: Path, seed: int, on_step: OnStep | None = None
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
        result = restore(
            problem.measurement,
            problem.prior,
            how.method,
            draws=how.draws,
            seed=seed,
            on_step=on_step,
        )
        x = result.estimate.cpu()
        write_image(folder / f"estimate{form.suffix}", x, form)
        panels = [("measured", problem.y), ("estimate", x)]
        if result.draws is not None:
            panels[1] = ("mean of draws", x)
            (folder / "draws").mkdir()
            for i, draw in enumerate(result.draws.cpu()):
                write_image(folder / "draws" / f"{i:02d}{form.suffix}", draw[None], form)
        if result.sd is not None:
            sd = result.sd.cpu()
            np.save(folder / "sd.npy", sd[0].numpy(), allow_pickle=False)
            panels.append(("standard deviation", sd))
        metrics: dict[str, float] = {}
        if problem.truth is not None:
            metrics = _metrics(x, problem.truth, result.draws)
            panels.append(("truth", problem.truth))
        if isinstance(problem.prior, FlowProximal):  # how usual this image is: far off is a sign
            last: Any = problem.prior.priors[-1]
            if min(x.shape[2:]) >= last.flow.multiple:  # a narrower image has no density
                with torch.no_grad():
                    metrics["bits"] = float(bits_of(last, result.estimate))
        if how.figure:
            title = f"{Path(problem.scan.file).name}, {type(how.method).__name__}"
            comparison(folder / "comparison.png", panels, title=title)
        return {
            "file": problem.scan.file,
            "operator": resolved(how.operator)
            | {"image": list(problem.measurement.operator.in_shape)},
            "sigma": problem.sigma,
            "sigma_estimated": how.sigma is None,
            "prior": problem.prior_record,
            "method": resolved(how.method),
            "draws": how.draws if is_sampler(how.method) else None,
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


def measured(
    file: str | Path,
    operator_of: Callable[[tuple[int, ...]], LinearOperator],
    sigma: float | None,
    value_range: tuple[float, float] | None,
) -> tuple[LinearOperator, Tensor, float, Form, list[str]]:
    """What a measured file says: operator, y, noise level, form, and notes.

    Args:
        file: The measurement.
        operator_of: Gives the operator for the shape of one measurement.
        sigma: Noise level; estimated from the data when None.
        value_range: Samples that mean black and white, for floating-point files.
    """
    picture = read_image(file, value_range=value_range)
    y, notes = picture.x, list(picture.notes)
    operator = operator_of(tuple(y.shape[1:]))
    if y.shape[1:] != operator.out_shape:
        raise ValueError(
            f"{file}: got a measurement of shape {tuple(y.shape[1:])}, {operator} measures "
            f"{operator.out_shape}"
        )
    if y.is_complex() != operator.out_dtype.is_complex:
        kinds = ("real", "complex")
        raise ValueError(
            f"{file}: got {kinds[y.is_complex()]} data, {operator} measures "
            f"{kinds[operator.out_dtype.is_complex]} ones"
        )
    if isinstance(operator, Mask):
        y = operator(y.to(operator.mask.device)).cpu()  # what was not measured is not data
    if sigma is None:
        if y.is_complex() or isinstance(operator, Mask):
            raise ValueError(
                f"--sigma: the noise of {operator} cannot be seen in the data; say it"
            )
        sigma = float(estimate_sigma(y))
        stored = np.dtype(picture.form.dtype)
        if stored.kind == "u":  # rounding to whole samples is noise too
            sigma = max(sigma, 2.0 / np.iinfo(stored).max / math.sqrt(12.0))
        notes.append(f"noise estimated: sigma {sigma:.4g} ({127.5 * sigma:.2g} of 255)")
    return operator, y, sigma, picture.form, notes


def truth_in(
    file: str | Path, operator: LinearOperator, value_range: tuple[float, float] | None
) -> tuple[Tensor, tuple[str, ...]]:
    """The true image behind a measurement, and notes.

    A real truth of complex images is one without a phase, as `simulate` measures it: metrics
    compare complex numbers.

    Args:
        file: The truth.
        operator: Says the shape and the kind of the images.
        value_range: Samples that mean black and white.
    """
    picture = read_image(file, value_range=value_range)
    x, notes = picture.x, [f"truth: {note}" for note in picture.notes]
    if x.shape[1:] != operator.in_shape:
        raise ValueError(
            f"{file}: got a truth of shape {tuple(x.shape[1:])}, wanted {operator.in_shape}"
        )
    if x.is_complex() and not operator.in_dtype.is_complex:
        raise ValueError(f"{file}: got a complex truth, the images of {operator} are real")
    if operator.in_dtype.is_complex and not x.is_complex():
        notes.append("truth: real, compared as a complex image of phase zero")
    return x.to(operator.in_dtype), tuple(notes)


def truth_range(
    truth: str | Path,
    file: str | Path,
    said: tuple[float, float] | None,
    of_file: tuple[float, float] | None,
) -> tuple[float, float] | None:
    """The range of a truth: what is said of it; else that of the file, if they are of one kind."""
    return of_file if said is None and _kind(truth) == _kind(file) else said


def _kind(file: str | Path) -> str:
    return split_key(file)[0].suffix.lower()


def noise_of(sigma: float, y: Tensor) -> Gaussian:
    """Gaussian noise for a real or a complex measurement."""
    return ComplexGaussian(sigma) if y.is_complex() else Gaussian(sigma)


def _metrics(x: Tensor, truth: Tensor, draws: Tensor | None) -> dict[str, float]:
    """What is known of an estimate once the truth is."""
    found = {"psnr": float(psnr(x, truth, data_range=2.0)), "nmse": float(nmse(x, truth))}
    if not x.is_complex():
        if min(x.shape[2:]) >= 7:
            found["ssim"] = float(ssim(x, truth, data_range=2.0))
        if draws is not None and len(draws) >= 3:
            every = draws.cpu()[None]
            level = (len(draws) - 1) / (len(draws) + 1)
            found["crps"] = float(crps(every, truth))
            found[f"coverage of {100 * level:.0f} %"] = float(coverage(every, truth, level=level))
    return found
