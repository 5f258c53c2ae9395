"""From a measured file to a folder of results: what is done to one scan.

A `Reconstruction` is a plain value: how the file was measured and how the image is recovered. It
travels to other processes as it is. Its `ready` gives a `Runner`, which loads what all files
share once, reads a file (`problem`, see `measured`) and fills a folder (`solve`).

    estimate          the images, in the format and bit depth of the file
    draws/, sd.npy    the draws of a sampler, and their standard deviation
    comparison.png    measured, estimated, true, where a figure is wanted
    run.json          everything needed to repeat it
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.form import Form, Stored
from ..data.sources import IN_PLACE, split_key
from ..data.writing import as_written, check_finite, write_image
from ..devices import device_named
from ..files import sha256_file
from ..measurement import Measurement
from ..memory import tight
from ..methods import Method, Step
from ..operators import LinearOperator
from ..tensors import generators
from .arguments import build, build_for, counted, files_of, notes_of
from .choice import Choice, choice, method_of
from .kspace import AUTO, check_kspace, known, other_coils
from .manifest import Scan
from .measured import measured, operator_for
from .projections import other_angles
from .reading import Reading
from .report import comparison, finite_metrics, metrics_of, unexplained
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
from .truth import truth_in

__all__ = ["Opened", "Reconstruction", "Runner"]

OnStep = Callable[[int, Step], None]


@dataclass(frozen=True)
class Reconstruction:
    """How the images behind measured files are recovered.

    Args:
        operator: How they were measured: an instance of one of `arguments.twins()`.
        method: A solver or a sampler; the best for the problem (`choice`) when None.
        reading: What the user says of every file: noise, range, what was not measured.
        prior: A prior that ships, a weight file, or total-variation or
            wavelets[:WEIGHT]; the best for the problem when None.
        draws: Number of draws of a sampler.
        shape: Shape (C, H, W) of the image, where it does not follow from the measurement.
        truth_range: Samples of the truth that mean black and white; those of the measurement
            where absent, if both are files of one kind.
        tile: Larger images are denoised in overlapping tiles, of at most this size in
            pixels.
        device: cpu, cuda, or auto; where it is run, not part of what the result is.
        margins: Whether to write what an estimate has beyond the frame of the measurement.
        figure: Whether to draw comparison.png.
    """

    operator: Any
    method: Method | None = None
    reading: Reading = field(default_factory=Reading)
    prior: str | None = None
    draws: int = 4
    shape: tuple[int, int, int] | None = None
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
            array, place = split_key(operator[key])[1], operator[key].endswith(IN_PLACE)
            operator[key] = {"sha256": sha256_file(file), "array": array}
            operator[key] |= {"in place": True} if place else {}
        weights = None if self.prior is None else prior_file(self.prior)
        said = {f.name: resolved(getattr(self.reading, f.name)) for f in fields(Reading)}
        for key, name in self.reading.files.items():
            file, array = split_key(name)
            said[key] = {"sha256": sha256_file(file), "array": array}
        return {
            "operator": operator,
            "method": resolved(self.method),
            **said,
            "prior": self.prior if weights is None else sha256_file(weights),
            "draws": self.draws if self.method is not None and self.method.draws else None,
            "shape": resolved(self.shape),
            "truth_range": resolved(self.truth_range),
            "tile": self.tile,
            "margins": self.margins,
            "figure": self.figure,
        }

    def anywhere(self) -> Reconstruction:
        """The same, with its files named so that every working directory finds them."""
        moved = {}
        for key in files_of(self.operator):
            moved[key] = absolute(getattr(self.operator, key))
        prior = None if self.prior is None else Path(self.prior)
        named: dict[str, Any] = {k: absolute(v) for k, v in self.reading.files.items()}
        return replace(
            self,
            operator=replace(self.operator, **moved),
            reading=replace(self.reading, **named),
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
        form: How the file stores its image.
        method: The method.
        loaded: The prior, as it was read.
        prior: The prior, fitted to the images of the operator.
        prior_record: What `run.json` says of it.
        truth: The true image; None where it is not known.
        notes: What was decided on the way.
        unit: Units of the file in one of y.
    """

    scan: Scan
    measurement: Measurement
    y: Tensor
    form: Form
    method: Method
    loaded: Loaded
    prior: Any
    prior_record: dict[str, Any]
    truth: Tensor | None
    notes: tuple[str, ...]
    unit: float = 1.0


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
        twin = with_operands(how.operator, scan.operands)
        found = measured(
            scan.file,
            partial(self._made, twin),
            how.reading,
            lambda operator, ct: self._prior(operator, ct)[0].window,
        )
        measurement, form, notes, unit, ct = found
        y = measurement.y
        measurement = measurement.to(self.device)
        loaded, chosen = self._prior(measurement.operator, ct)
        prior, record, more = prior_for(loaded, measurement[:1], tile=how.tile)
        method = how.method
        if chosen is not None:
            method, more = chosen.method, [chosen.why, *more]
        elif method is None:
            method = method_of(prior, measurement.operator)
            more = [f"method {method.command}, which takes such a prior", *more]
        suited(method, prior)
        truth: Tensor | None = None
        told: tuple[str, ...] = ()
        if scan.truth is not None:
            truth, told = truth_in(
                scan.truth, found, scan.file, said=how.truth_range, of_file=how.reading.value_range
            )
        shape = measurement.operator.in_shape
        told = (*told, *other_coils(measurement, twin), *other_angles(measurement))
        scarce = tight(measurement.operator[0].blank_input().nbytes, self.device)
        said = (*notes, *notes_of(twin, shape), *more, *told, *([scarce] if scarce else []))
        return Opened(scan, measurement, y, form, method, loaded, prior, record, truth, said, unit)

    def _prior(self, operator: LinearOperator, ct: bool) -> tuple[Loaded, Choice | None]:
        """The prior as it is read, and why, where it was not named."""
        name = self.how.prior
        if name is not None:
            return self.loaded(name), None
        chosen = choice(operator, self.how.method, ct=ct)
        return self.loaded(chosen.prior), chosen

    def _load(self, name: str) -> Loaded:
        return prior_loaded(name, self.device)

    def _made(self, twin: Any, stored: Stored) -> tuple[LinearOperator, list[str]]:
        if any(getattr(twin, name) == AUTO for name in known(twin)):  # every file has its own
            return operator_for(twin, self.how.shape, stored)
        if known(twin):
            check_kspace(stored.x, stored.name)
        return self._operator(twin, tuple(stored.x.shape[1:])), []

    def _build(self, twin: Any, seen: tuple[int, ...]) -> LinearOperator:
        shape = self.how.shape
        return build(counted(twin, seen), shape) if shape is not None else build_for(twin, seen)

    def solve(
        self, problem: Opened, folder: Path, seed: int, on_step: OnStep | None = None
    ) -> dict[str, Any]:
        """Runs the method and fills a folder.

        Several images are made one after the other, image b as if it were b-th of a batch: what is
        random about it does not depend on the others.

        Args:
            problem: What is to be solved.
            folder: An empty folder, where everything but run.json is written.
            seed: Seed of everything random.
            on_step: Called with (rounds done, step) after every step.
        Returns:
            What run.json says.
        """
        how, form = self.how, problem.form
        items = len(problem.measurement)
        seeds = [seed, *(g.initial_seed() for g in generators(seed, items)[1:])]
        results = []
        method = problem.method.settled(problem.measurement[:1])
        for item, own in enumerate(seeds):

            def told(first: int, some: int, step: Step, item: int = item) -> None:
                if on_step is not None:
                    on_step(item * rounds_of(method, how.draws) + first // 4, step)

            one = problem.measurement[item : item + 1]
            made = problem.method.settled(one)
            results.append(
                restore(one, problem.prior, made, draws=how.draws, seed=own, on_step=told)
            )
        x = torch.cat([result.estimate.cpu() for result in results])
        operator = problem.measurement.operator
        inside = (lambda x: x) if how.margins else operator.framed
        write_image(folder / f"estimate{form.suffix}", inside(x), form)
        shown = as_written(operator.framed(x), form)
        panels = [("measured", problem.y), ("estimate", shown)]
        draws = None
        if method.draws:
            every = [result.draws.cpu() for result in results if result.draws is not None]
            draws = torch.cat(every, 1)  # (S, N, C, H, W)
            panels[1] = ("mean of draws", shown)
            (folder / "draws").mkdir()
            for i, draw in enumerate(draws):
                write_image(folder / "draws" / f"{i:02d}{form.suffix}", inside(draw), form)
            if len(draws) > 1:
                sd = draws.std(0) * form.unit
                stored = inside(sd).numpy()
                check_finite(folder / "sd.npy", stored)
                np.save(folder / "sd.npy", stored[0] if items == 1 else stored, allow_pickle=False)
                panels.append(("standard deviation", operator.framed(sd)))
        metrics: dict[str, float] = {}
        truth = problem.truth
        if truth is not None and shown.is_complex() and not truth.is_complex():
            truth = torch.polar(truth, shown.angle())  # magnitudes are compared with magnitudes
        if truth is not None:
            framed = None
            if draws is not None:
                framed = torch.stack([as_written(operator.framed(d), form) for d in draws], 1)
            metrics = metrics_of(shown, truth, framed)
            panels.append(("truth", truth))
        metrics |= problem.loaded.remarks(problem.measurement[:1], x[:1].to(self.device))
        metrics, notes = finite_metrics(metrics)
        notes += unexplained(problem.measurement, x.to(self.device))
        if how.figure:
            title = f"{Path(problem.scan.file).name}, {type(method).__name__}"
            notes += comparison(folder / "comparison.png", panels, title=title)
        sigma = (problem.measurement.sigma * problem.unit).flatten().tolist()
        return {
            "file": problem.scan.file,
            "operator": resolved(with_operands(how.operator, problem.scan.operands))
            | {"image": list(operator.in_shape)},
            "images": items,
            "noise": resolved(how.reading.noise),
            "sigma": how.reading.level if how.reading.level is not None else sigma[0],
            **({"sigmas": sigma} if len(sigma) > 1 else {}),
            "sigma_estimated": how.reading.level is None,
            "prior": problem.prior_record,
            "method": resolved(method),
            "draws": how.draws if method.draws else None,
            "seed": seed,
            "notes": [*problem.notes, *notes],
            "seconds": round(sum(result.seconds for result in results), 3),
            "nfe": results[0].nfe,
            "metrics": metrics,
            **self.environment,
            "threads": torch.get_num_threads(),
        }


def rounds_of(method: Method, draws: int) -> int:
    """How often a method goes through its steps for one image: draws are made four at a time."""
    return -(-draws // 4) if method.draws else 1


def with_operands(twin: Any, operands: Sequence[tuple[str, str]]) -> Any:
    """An operator's twin with options that a manifest names for one scan.

    Args:
        twin: The operator of all scans.
        operands: Names of options, and what they are.
    Raises:
        ValueError: The operator has no such option.
    """
    known = [f.name for f in fields(twin)]
    for name, _ in operands:
        if name not in known:
            raise ValueError(
                f"the manifest has a column '{name}': {type(twin).__name__} has no such option "
                f"({', '.join(known) or 'it has none'})"
            )
    return replace(twin, **dict(operands))


def absolute(text: str) -> str:
    """A file with its key, named so that every working directory finds it."""
    file, key = split_key(text)
    if not file.exists():
        return text
    place = IN_PLACE if text.endswith(IN_PLACE) else ""
    return f"{file.absolute()}:{key}{place}" if key else f"{file.absolute()}{place}"
