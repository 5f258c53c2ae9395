"""Blind problems from a file to a folder: image and kernel, with their deviations.

estimate               the mean of the estimates with the kernels of the chains of the best mode
sd.npy                 the standard deviation of their draws
kernel.npy, kernel.png the kernel, on the simplex; kernel_sd.npy its deviation
draws/                 image and kernel of every chain
comparison.png         measured, estimated, the kernel, the deviation, true
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..blind import BlindMeasurement
from ..data.writing import write_image
from ..devices import device_named
from ..figures import save_image
from ..measurement import Measurement
from ..metrics import psnr
from ..operators import Identity
from ..priors.trained import Images
from ..priors.wrappers import Counted
from ..registration import inner, registered
from ..samplers.blind import BlindPnPDM
from ..samplers.blind_summary import summary
from ..tensors import generators
from .arguments import build_for, families
from .manifest import Scan
from .measured import Measured, measured
from .reading import Reading
from .reconstruction import OnStep, Opened, Reconstruction, Runner
from .report import comparison, finite_metrics
from .restore import prior_loaded, resolved
from .truth import truth_in

__all__ = [
    "BlindReconstruction",
    "BlindRunner",
    "blind_measured",
    "is_family",
    "theta_prior_of",
]


def is_family(twin: Any) -> bool:
    """Whether the command line's operator is one with unknown parameters."""
    return isinstance(twin, tuple(families().values()))


@dataclass(frozen=True)
class BlindReconstruction(Reconstruction):
    """How images and kernels behind measured files are recovered; see `Reconstruction`.

    Args:
        theta_prior: Prior of the parameters; that of the family where None.
    """

    theta_prior: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.method, BlindPnPDM):
            raise ValueError(
                f"--method: got {type(self.method).__name__}, which wants a known operator; "
                "wanted blind-pnpdm or plugin-blind-pnpdm for one with unknowns"
            )

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "theta_prior": self.theta_prior}

    def ready(self) -> Runner:
        return BlindRunner(self, device_named(self.device))


class BlindRunner(Runner):
    """A blind reconstruction with its priors at hand: files in, folders out."""

    how: BlindReconstruction

    def problem(self, scan: Scan) -> Opened:
        """Reads one file, and says what is to be solved."""
        how = self.how
        found = blind_measured(scan.file, how.operator, how.reading)
        form, notes, y = found.form, found.notes, found.measurement.y
        blind: Any = found.measurement.to(self.device)
        family = blind.family
        method, name = how.method, how.prior or "natural-color"
        assert method is not None  # BlindReconstruction says so
        loaded = self.loaded(name)
        prior, more = loaded.prior.fitted(
            Images(family.in_shape, torch.float32, str(family)), tile=how.tile, name=name
        )
        truth: Tensor | None = None
        told: tuple[str, ...] = ()
        if scan.truth is not None:
            # an estimate is compared in the frame of the picture, whatever the blur
            seen = Measurement(Identity(tuple(y.shape[1:])), found.measurement.noise, y)
            truth, told = truth_in(
                scan.truth,
                found._replace(measurement=seen),
                scan.file,
                said=how.truth_range,
                of_file=how.reading.value_range,
                placed=False,
            )
        every = (*notes, *more, *told)
        record = dict(loaded.record)
        return Opened(scan, blind, y, form, method, loaded, prior, record, truth, every)

    def solve(
        self, problem: Opened, folder: Path, seed: int, on_step: OnStep | None = None
    ) -> dict[str, Any]:
        """Runs the chains and fills a folder; returns what run.json says."""
        how, form = self.how, problem.form
        blind: Any = problem.measurement
        family = blind.family
        theta, record = theta_prior_of(family, how.theta_prior, self.device)
        counted = Counted(problem.prior)
        started = time.perf_counter()
        method: Any = how.method
        draws = method(
            blind.repeat(how.draws),
            counted,
            theta,
            generator=generators(seed, how.draws, blind.y.device),
            callback=None if on_step is None else lambda step: on_step(0, step),
        )
        result = summary(blind, draws, counted)[0]
        seconds = time.perf_counter() - started
        x, kernel = family.framed(result.x.cpu()), result.kernel.cpu()
        write_image(folder / f"estimate{form.suffix}", x, form)
        np.save(folder / "kernel.npy", kernel[0, 0].numpy(), allow_pickle=False)
        save_image(2 * kernel / kernel.max() - 1, folder / "kernel.png")
        (folder / "draws").mkdir()
        for i, (one, k) in enumerate(zip(draws.x, family.kernel(draws.theta), strict=True)):
            write_image(folder / "draws" / f"{i:02d}{form.suffix}", family.framed(one[None]), form)
            np.save(folder / "draws" / f"kernel_{i:02d}.npy", k[0].numpy(), allow_pickle=False)
        drawn = functional.interpolate(kernel / kernel.max(), x.shape[-2:]) * 2 - 1
        panels = [("measured", problem.y), ("estimate", x), ("kernel", drawn)]
        if result.sd is not None and result.kernel_sd is not None:
            sd = family.framed(result.sd.cpu()) * form.unit
            np.save(folder / "sd.npy", sd[0].numpy(), allow_pickle=False)
            np.save(folder / "kernel_sd.npy", result.kernel_sd[0, 0].numpy(), allow_pickle=False)
            panels.append(("standard deviation", sd))
        metrics: dict[str, float] = {"misfit": result.misfit}
        told: list[str] = []
        if problem.truth is not None:
            shown, by = registered(x, problem.truth, periodic=False)  # no data tell a shift
            pair = inner(shown, by), inner(problem.truth, by)
            metrics["psnr"] = float(psnr(*pair, data_range=2.0))
            told = [f"psnr after a shift by {by[0][0]:g} rows and {by[0][1]:g} columns"]
            panels[1] = ("estimate", shown)
            panels.append(("truth", problem.truth))
        metrics, notes = finite_metrics(metrics)
        notes += told
        if how.figure:
            title = f"{Path(problem.scan.file).name}, {type(how.method).__name__}"
            notes += comparison(folder / "comparison.png", panels, title=title)
        return {
            "file": problem.scan.file,
            "operator": resolved(how.operator) | {"family": str(family)},
            "sigma": float(blind.sigma.max()) if how.reading.level is None else how.reading.level,
            "sigma_estimated": how.reading.level is None,
            "prior": problem.prior_record,
            "theta_prior": record,
            "method": resolved(how.method),
            "draws": how.draws,
            "modes": result.modes,
            "misfits": result.misfits,
            "seed": seed,
            "notes": [*problem.notes, *notes],
            "seconds": round(seconds, 3),
            "nfe": round(counted.items / how.draws),
            "metrics": metrics,
            **self.environment,
            "threads": torch.get_num_threads(),
        }


def blind_measured(file: str | Path, twin: Any, how: Reading) -> Measured:
    """What a measured file says of an image seen through an operator with unknowns.

    Args:
        file: The file, of one image.
        twin: The family as the command line knows it (`arguments.families`).
        how: What the user says of the file.
    Returns:
        What `measured` returns, with a `BlindMeasurement`.
    """
    found = measured(file, lambda s: (Identity(s.x.shape[1:]), []), how)
    y = found.measurement.y
    if not isinstance(found.measurement.operator, Identity):
        raise ValueError(
            f"{file}: has values that are missing or differ in noise; a blind "
            "reconstruction wants all of them, and white noise"
        )
    if len(y) > 1:
        raise ValueError(f"{file}: got {len(y)} images at once, wanted one: save each")
    family: Any = build_for(twin, tuple(y.shape[1:]))  # built as operators are
    blind: Any = BlindMeasurement(family, found.measurement.noise, y)
    return found._replace(measurement=blind)


def theta_prior_of(
    family: Any, name: str | None, device: torch.device
) -> tuple[Any, dict[str, Any]]:
    """The prior of the parameters that a name says, or the family's own; and its record."""
    prior = name or family.default_prior()
    if not isinstance(prior, str):
        return prior, {"name": type(prior).__name__}
    loaded = prior_loaded(prior, device)
    return loaded.prior, loaded.record
