"""Commands on measured files: reconstruct, simulate, check."""

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import numpy as np
import tyro
from torch import Tensor
from tyro.conf import Positional

from ..arguments import build, fitted, is_sampler, methods, twins, union
from ..data.files import Form, read_image, write_image
from ..files import sha256_file, write_atomic
from ..fit import check_fit, fits
from ..measurement import Measurement
from ..metrics import coverage, crps, nmse, psnr, ssim
from ..noises import ComplexGaussian, Gaussian, estimate_sigma
from ..operators import LinearOperator, Mask
from ..report import comparison
from ..restore import bar, facts, prior_for, resolved, restore, staged, steps_of
from ..schedules import Step
from ..settings import Settings, read_settings
from ..solvers import HQS
from ..tensors import generators
from .devices import device_named

__all__ = ["Check", "Reconstruct", "Simulate"]

if TYPE_CHECKING:
    Operator: TypeAlias = Any
    Method: TypeAlias = Any
else:
    Operator, Method = union(twins()), union(methods())

File = Annotated[Path, tyro.conf.arg(metavar="FILE")]


def _measured(
    file: Path,
    twin: Any,
    sigma: float | None,
    shape: tuple[int, int, int] | None,
    value_range: tuple[float, float] | None,
) -> tuple[LinearOperator, Tensor, float, Form, list[str]]:
    """What a measured file and an operator's name say: operator, y, noise, form, and notes."""
    picture = read_image(file, value_range=value_range)
    y, notes = picture.x, list(picture.notes)
    operator = build(twin, shape) if shape is not None else fitted(twin, tuple(y.shape[1:]))
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
        y = operator(y)  # what stands in the file where nothing was measured is not data
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


def _noise(sigma: float, y: Tensor) -> Gaussian:
    return ComplexGaussian(sigma) if y.is_complex() else Gaussian(sigma)


@dataclass(frozen=True)
class Reconstruct:
    """Recover the image behind a measured file.

    Args:
        file: The measurement: PNG, JPEG, TIFF, .npy, .npz[:key] or .h5[:dataset].
        operator: How it was measured.
        method: How the image is recovered.
        sigma: Noise standard deviation, in units of the image scaled to [-1, 1] (s grey levels of
            255 are 2 s / 255); estimated from the data when absent.
        prior: A prior that ships (`measurand priors`), a weight file, or total-variation[:WEIGHT];
            natural-color, or what the settings name, when absent.
        settings: A settings file, as `tune` writes it: the method with its settings, and a prior.
        draws: Number of draws of a sampler.
        seed: Seed of everything random; the same seed gives the same bits.
        out: Folder for the results; runs/NAME-METHOD when absent.
        truth: The true image, where it is known: adds metrics and an error map.
        shape: Shape C H W of the image, where it does not follow from the measurement.
        value_range: Samples that mean black and white, for floating-point files.
        tile: Larger images are denoised in overlapping tiles of this size, in pixels.
        device: cpu, cuda, or auto.
        quiet: Print nothing but errors.
        json: Print the record of the run, as JSON.
    """

    file: Positional[File]
    operator: Operator
    method: Method = field(default_factory=HQS)
    sigma: float | None = None
    prior: str | None = None
    settings: Path | None = None
    draws: int = 4
    seed: int = 0
    out: Path | None = None
    truth: Path | None = None
    shape: tuple[int, int, int] | None = None
    value_range: tuple[float, float] | None = None
    tile: int = 512
    device: str = "auto"
    quiet: bool = False
    json: bool = False

    def __call__(self, command: list[str]) -> int:
        if self.settings is None:
            return self._run(command, [])
        if any(word.startswith(("--method", "method:")) for word in command):
            raise ValueError(f"--settings {self.settings} names the method: leave --method out")
        found = read_settings(self.settings)
        tuned = replace(self, method=found.method, prior=self.prior or found.prior_name)
        return tuned._run(command, _doubts(found, self))

    def _run(self, command: list[str], doubts: list[str]) -> int:
        device = device_named(self.device)
        operator, y, sigma, form, notes = _measured(
            self.file, self.operator, self.sigma, self.shape, self.value_range
        )
        notes = doubts + notes
        prior, prior_record, more = prior_for(
            self.prior or "natural-color", operator, sigma, device=device, tile=self.tile
        )
        notes += more
        truth = None
        if self.truth is not None:
            truth = read_image(self.truth).x
            if truth.shape[1:] != operator.in_shape:
                raise ValueError(
                    f"{self.truth}: got a truth of shape {tuple(truth.shape[1:])}, wanted "
                    f"{operator.in_shape}"
                )
        if not (self.quiet or self.json):
            for note in notes:
                print(f"note: {note}")
        name = type(self.method).__name__
        stem = self.file.name.split(":")[0].rsplit(".", 1)[0]
        out = self.out or Path("runs") / f"{stem}-{name.lower()}"
        measurement = Measurement(operator.to(device), _noise(sigma, y), y).to(device)
        with staged(out) as folder:
            total = steps_of(self.method)
            rounds = -(-self.draws // 4) if is_sampler(self.method) else 1
            with bar(name, total and total * rounds, quiet=self.quiet) as update:

                def on_step(first: int, some: int, step: Step) -> None:
                    update(first // 4 * (total or 0) + step.step + 1)

                result = restore(
                    measurement,
                    prior,
                    self.method,
                    draws=self.draws,
                    seed=self.seed,
                    on_step=on_step,
                )
            x = result.estimate.cpu()
            write_image(folder / f"estimate{form.suffix}", x, form)
            panels = [("measured", y), ("estimate", x)]
            if result.draws is not None:
                panels[1] = ("mean of draws", x)
                (folder / "draws").mkdir()
                for i, draw in enumerate(result.draws.cpu()):
                    write_image(folder / "draws" / f"{i:02d}{form.suffix}", draw[None], form)
            if result.sd is not None:
                sd = result.sd.cpu()
                _save_npy(folder / "sd.npy", sd[0])
                panels.append(("standard deviation", sd))
            metrics: dict[str, float] = {}
            if truth is not None:
                metrics = _metrics(x, truth, result.draws)
                panels.append(("truth", truth))
            comparison(folder / "comparison.png", panels, title=f"{self.file.name}, {name}")
            record = {
                "command": ["measurand", *command],
                "file": str(self.file),
                "operator": resolved(self.operator) | {"image": list(operator.in_shape)},
                "sigma": sigma,
                "sigma_estimated": self.sigma is None,
                "prior": prior_record,
                "method": resolved(self.method),
                "draws": self.draws if is_sampler(self.method) else None,
                "seed": self.seed,
                "notes": notes,
                "seconds": round(result.seconds, 3),
                "nfe": result.nfe,
                "metrics": metrics,
                **facts(device),
            }
            write_atomic(folder / "run.json", json.dumps(record, indent=1) + "\n")
        if self.json:
            print(json.dumps(record | {"out": str(out)}))
        elif not self.quiet:
            numbers = "".join(f", {key} {value:.4g}" for key, value in metrics.items())
            print(f"{name}: {result.seconds:.1f} s, {result.nfe} denoiser calls{numbers}")
            print(f"results in {out}")
        return 0


def _doubts(settings: Settings, asked: Reconstruct) -> list[str]:
    """In what the problem at hand differs from the one for which settings were found."""
    found, tuned, prior = [], settings.tuned, settings.prior
    operator = tuned.get("operator")
    if isinstance(operator, dict) and operator != resolved(asked.operator):
        found.append(f"the settings were found for {operator}")
    sigma = tuned.get("sigma")
    if asked.sigma is not None and isinstance(sigma, float) and sigma != asked.sigma:
        found.append(f"the settings were found for noise of sigma {sigma:g}")
    if asked.prior not in (None, settings.prior_name) and prior:
        found.append(f"the settings were found for the prior {settings.prior_name}")
    elif "sha256" in prior and Path(prior.get("name", "")).is_file():
        if sha256_file(prior["name"]) != prior["sha256"]:
            found.append(f"{prior['name']} is not the file for which the settings were found")
    return found


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


def _save_npy(path: Path, x: Tensor) -> None:
    import numpy as np

    np.save(path, x.numpy(), allow_pickle=False)


@dataclass(frozen=True)
class Simulate:
    """Measure a picture: apply an operator and add Gaussian noise.

    Writes measurement.npz (exact values, which `reconstruct` and `check` read), a picture of it
    where it has one, and run.json.

    Args:
        file: The picture.
        operator: How it is measured.
        sigma: Noise standard deviation, in units of the image scaled to [-1, 1].
        seed: Seed of the noise.
        out: Folder for the results; runs/NAME-measured when absent.
        value_range: Samples that mean black and white, for floating-point files.
        quiet: Print nothing but errors.
        json: Print the record of the run, as JSON.
    """

    file: Positional[File]
    operator: Operator
    sigma: float = 0.04
    seed: int = 0
    out: Path | None = None
    value_range: tuple[float, float] | None = None
    quiet: bool = False
    json: bool = False

    def __call__(self, command: list[str]) -> int:
        picture = read_image(self.file, value_range=self.value_range)
        operator = build(self.operator, tuple(picture.x.shape[1:]))
        x = picture.x.to(operator.in_dtype)
        mean = operator(x)
        y = _noise(self.sigma, mean)(mean, generators(self.seed, 1))
        if isinstance(operator, Mask):
            y = operator(y)
        out = self.out or Path("runs") / f"{self.file.name.rsplit('.', 1)[0]}-measured"
        with staged(out) as folder:
            kind = "complex64" if y.is_complex() else "float32"
            axes = "" if y.is_complex() else "CHW"
            form = Form(".npz", kind, axes=axes, low=-1.0, high=1.0, key="y")
            write_image(folder / "measurement.npz", y, form)
            if not y.is_complex():
                write_image(folder / "measurement.png", y, Form())
            record = {
                "command": ["measurand", *command],
                "operator": resolved(self.operator) | {"image": list(operator.in_shape)},
                "sigma": self.sigma,
                "seed": self.seed,
                "notes": list(picture.notes),
                **facts("cpu"),
            }
            write_atomic(folder / "run.json", json.dumps(record, indent=1) + "\n")
        if self.json:
            print(json.dumps(record | {"out": str(out)}))
        elif not self.quiet:
            print(f"{operator} with noise of sigma {self.sigma:g}: {out}/measurement.npz")
        return 0


@dataclass(frozen=True)
class Check:
    """Do this operator, this prior and this measurement fit together?

    Prints a table of verdicts: the laws of the operator, the shape and kind of the data, what the
    prior expects, the range of values, the noise level. The exit code is 1 when something does not
    fit.

    Args:
        file: The measurement.
        operator: How it was measured.
        sigma: Its noise level; estimated from the data when absent.
        prior: A prior that ships, a weight file, or total-variation[:WEIGHT].
        shape: Shape C H W of the image, where it does not follow from the measurement.
        value_range: Samples that mean black and white, for floating-point files.
        device: cpu, cuda, or auto.
        json: Print the verdicts as JSON.
    """

    file: Positional[File]
    operator: Operator
    sigma: float | None = None
    prior: str = "natural-color"
    shape: tuple[int, int, int] | None = None
    value_range: tuple[float, float] | None = None
    device: str = "cpu"
    json: bool = False

    def __call__(self, command: list[str]) -> int:
        device = device_named(self.device)
        operator, y, sigma, _, notes = _measured(
            self.file, self.operator, self.sigma, self.shape, self.value_range
        )
        prior, _, more = prior_for(self.prior, operator, sigma, device=device)
        verdicts = check_fit(operator.to(device), _noise(sigma, y).to(device), y.to(device), prior)
        good = fits(verdicts)
        if self.json:
            print(json.dumps({"fits": good, "verdicts": [v._asdict() for v in verdicts]}))
            return 0 if good else 1
        for note in notes + more:
            print(f"note: {note}")
        width = max(len(v.name) for v in verdicts)
        for v in verdicts:
            print(f"{v.verdict:<12}  {v.name:<{width}}  {v.found}")
            if v.advice:
                print(f"{'':<12}  {'':<{width}}  -> {v.advice}")
        print("everything fits" if good else "something does not fit")
        return 0 if good else 1
