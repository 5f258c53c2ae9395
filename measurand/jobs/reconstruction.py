"""From a measured file to a folder of results: what is done to one scan.

A `Reconstruction` is a plain value: how the file was measured and how the image is recovered. It
travels to other processes as it is. Its `ready` gives a `Runner`, which loads what all files
share once, reads a file (`problem`, see `measured`) and fills a folder (`solve`).

    estimate          the image, in the format and bit depth of the file
    draws/, sd.npy    the draws of a sampler, and their standard deviation
    comparison.png    measured, estimated, true, where a figure is wanted
    run.json          everything needed to repeat it
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.arrays import split_key
from ..data.files import Form
from ..data.writing import write_image
from ..devices import device_named
from ..figures import compare
from ..files import sha256_file
from ..measurement import Measurement
from ..methods import Method, Step
from ..metrics import coverage, crps, nmse, psnr, ssim
from ..operators import LinearOperator
from .arguments import files_of, notes_of
from .choice import choice, method_of
from .manifest import Scan
from .measured import measured, noise_of, operator_for, truth_in
from .restore import (
    Loaded,
    environment,
    prior_file,
    prior_for,
    prior_loaded,
    resolved,
    restore,
    suited,
)

__all__ = ["Opened", "Reconstruction", "Runner"]

OnStep = Callable[[int, int, Step], None]


@dataclass(frozen=True)
class Reconstruction:
    """How the images behind measured files are recovered.

    Args:
        operator: How they were measured: an instance of one of `arguments.twins()`.
        method: A solver or a sampler; the best for the problem (`choice`) when None.
        sigma: Noise standard deviation: of data that are pictures in units of the image scaled to
            [-1, 1], of others in their own; estimated from each file when None.
        prior: A prior that ships, a weight file, or total-variation or
            wavelets[:WEIGHT]; the best for the problem when None.
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
    method: Method | None = None
    sigma: float | None = None
    prior: str | None = None
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
        weights = None if self.prior is None else prior_file(self.prior)
        return {
            "operator": operator,
            "method": resolved(self.method),
            "sigma": self.sigma,
            "prior": self.prior if weights is None else sha256_file(weights),
            "draws": self.draws if self.method is not None and self.method.draws else None,
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
        prior = None if self.prior is None else Path(self.prior)
        return replace(
            self,
            operator=replace(self.operator, **moved),
            prior=str(prior.absolute()) if prior and prior.is_file() else self.prior,
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
        method: The method.
        loaded: The prior, as it was read.
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
    method: Method
    loaded: Loaded
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
        self.environment = environment(device)
        self._operator = lru_cache(maxsize=2)(self._build)  # files of a job are mostly alike
        self.loaded = lru_cache(maxsize=2)(self._load)

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
        name, method = how.prior, how.method
        chosen = choice(operator, method) if name is None else None
        loaded = self.loaded(name if chosen is None else chosen.prior)
        prior, record, more = prior_for(loaded, measurement, tile=how.tile)
        if chosen is not None:
            method, more = chosen.method, [chosen.why, *more]
        elif method is None:
            method = method_of(prior, operator)
            more = [f"method {method.command}, which takes such a prior", *more]
        suited(method, prior)
        truth: Tensor | None = None
        told: tuple[str, ...] = ()
        if scan.truth is not None:
            truth, told = truth_in(
                scan.truth, found, scan.file, said=how.truth_range, of_file=how.value_range
            )
        said = (*notes, *notes_of(how.operator, operator.in_shape), *more, *told)
        return Opened(
            scan, measurement, y, sigma, form, method, loaded, prior, record, truth, said
        )

    def _load(self, name: str) -> Loaded:
        return prior_loaded(name, self.device)

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
        method = problem.method.settled(problem.measurement)
        items = len(problem.measurement)
        if method.draws and items > 1:
            raise ValueError(
                f"{type(method).__name__}: got {items} images at once, and draws are made "
                "of one; save each to a file of its own, or use a solver (--method hqs)"
            )
        result = restore(
            problem.measurement,
            problem.prior,
            method,
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
        metrics |= problem.loaded.remarks(problem.measurement, result.estimate)
        if how.figure:
            title = f"{Path(problem.scan.file).name}, {type(method).__name__}"
            comparison(folder / "comparison.png", panels, title=title)
        return {
            "file": problem.scan.file,
            "operator": resolved(how.operator)
            | {"image": list(problem.measurement.operator.in_shape)},
            "sigma": problem.sigma if how.sigma is None else how.sigma,
            "sigma_estimated": how.sigma is None,
            "prior": problem.prior_record,
            "method": resolved(method),
            "draws": how.draws if method.draws else None,
            "seed": seed,
            "notes": list(problem.notes),
            "seconds": round(result.seconds, 3),
            "nfe": result.nfe,
            "metrics": metrics,
            **self.environment,
            "threads": torch.get_num_threads(),
        }


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


def comparison(path: str | Path, panels: Sequence[tuple[str, Tensor]], *, title: str) -> None:
    """Write the figure of a run.

    Args:
        path: The PNG to write.
        panels: Titles and images (1, C, H, W) in [-1, 1] or complex: the measurement, the
            estimate, and, by these names, "standard deviation" and "truth". Of several slices
            the one in the middle.
        title: A line above them.
    """
    slices = max(len(x) for _, x in panels)
    images = {name: x[len(x) // 2 :][:1] for name, x in panels}
    title += f", slice {slices // 2 + 1} of {slices}" if slices > 1 else ""
    truth, spread = images.pop("truth", None), images.pop("standard deviation", None)
    complex_ = any(x.is_complex() for x in images.values())
    window = None if complex_ else (-1.0, 1.0)
    compare(images, truth=truth, deviation=spread, window=window, title=title).save(path)
