"""The commands: each a frozen dataclass whose fields are its options, called to run it.

Importing this file imports torch; `cli` does so only when a command is asked for.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import tyro
from torch import Tensor
from tyro.conf import Positional

from . import recipes
from .arguments import build, fitted, is_sampler, methods, twins, union
from .checkpoints import known_priors, load_prior, load_tensors
from .data import photos
from .data.files import Form, read_image, write_image
from .demo import demo
from .files import write_atomic
from .fit import check_fit, fits
from .measurement import Measurement
from .metrics import coverage, crps, nmse, psnr, ssim
from .noises import ComplexGaussian, Gaussian, estimate_sigma
from .operators import LinearOperator, Mask
from .report import comparison
from .restore import bar, facts, prior_for, resolved, restore, staged, steps_of
from .schedules import Step
from .solvers import HQS
from .tensors import generators

__all__ = ["run"]

if TYPE_CHECKING:
    Operator = Method = Recipe = Any
else:
    Operator, Method = union(twins()), union(methods())
    Recipe = tyro.extras.subcommand_type_from_defaults(
        {
            value.name: value
            for value in vars(recipes).values()
            if isinstance(value, recipes.Recipe)
        },
        prefix_names=False,
    )

File = Annotated[Path, tyro.conf.arg(metavar="FILE")]


def run(name: str, words: list[str], command: list[str]) -> int:
    """Parse the options of a command and run it.

    Args:
        name: The command.
        words: Its options.
        command: The whole line, for `run.json`.
    Returns:
        The exit code.
    """
    parsed: Callable[[list[str]], int] = tyro.cli(
        COMMANDS[name],
        prog=f"measurand {name}",
        args=words,
        config=(tyro.conf.CascadeSubcommandArgs,),
    )
    return parsed(command)


def _device(name: str) -> torch.device:
    """The device of a name; `auto` is the accelerator where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return device


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
        steps = 255 if "1" in picture.form.dtype else 65535
        if picture.form.dtype.strip("<>|=") in ("u1", "uint8", "u2", "uint16"):
            sigma = max(sigma, 2.0 / steps / math.sqrt(12.0))  # rounding to whole samples
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
        prior: A prior that ships (`measurand priors`), a weight file, or total-variation[:WEIGHT].
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
    prior: str = "natural-color"
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
        device = _device(self.device)
        operator, y, sigma, form, notes = _measured(
            self.file, self.operator, self.sigma, self.shape, self.value_range
        )
        prior, prior_record, more = prior_for(
            self.prior, operator, sigma, device=device, tile=self.tile
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
        device = _device(self.device)
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


@dataclass(frozen=True)
class Evaluate:
    """Denoising quality of a prior on a set of pictures.

    Centre crops of 256 x 256 pixels, noise of picture k (sorted by name) from seed k, mean PSNR in
    dB over the pictures.

    Args:
        prior: A prior that ships, or a weight file.
        data: A folder or a zip of pictures.
        under: Only the pictures in this folder of it, such as test.
        levels: Noise levels, as standard deviations on the scale of 255.
        limit: Use the first pictures only.
        device: cpu, cuda, or auto.
        json: Print JSON.
    """

    prior: Positional[str]
    data: Path
    under: str = ""
    levels: tuple[float, ...] = (15.0, 25.0, 50.0)
    limit: int | None = None
    device: str = "auto"
    json: bool = False

    def __call__(self, command: list[str]) -> int:
        prior = load_prior(self.prior, device=_device(self.device))
        images = photos.pictures(self.data, under=self.under)[: self.limit]
        found = recipes.held_out_psnr(prior, images, levels=self.levels)
        if self.json:
            record = {"prior": self.prior, "pictures": len(images), "psnr": found}
            print(json.dumps(record))
        else:
            print(f"{self.prior} on {len(images)} pictures of {self.data}")
            for level, value in found.items():
                print(f"  noise {level:>4} of 255: {value:.2f} dB")
        return 0


@dataclass(frozen=True)
class Train:
    """Train a prior by a named recipe.

    Args:
        recipe: What to train; its fields can be changed.
        data: Folders or zips of pictures.
        out: Folder of the run; runs/NAME when absent.
        time_budget: How long to train: 90s, 20m, 2h.
        steps: Number of steps instead.
        init: A prior to start from.
        resume: Go on with the run in the folder.
        workers: Threads on a CPU, one part of each batch each.
        device: cpu, cuda, or auto.
        quiet: Print nothing but errors.
    """

    recipe: Recipe
    data: tuple[Path, ...]
    out: Path | None = None
    time_budget: str | None = None
    steps: int | None = None
    init: str | None = None
    resume: bool = False
    workers: int = 1
    device: str = "auto"
    quiet: bool = False

    def __call__(self, command: list[str]) -> int:
        if (self.time_budget is None) == (self.steps is None):
            raise ValueError("train: say how long, by --time-budget 20m or by --steps 10000")
        files = recipes.train_recipe(
            self.recipe,
            self.data,
            self.out or Path("runs") / self.recipe.name,
            steps=self.steps,
            time_budget=None if self.time_budget is None else seconds(self.time_budget),
            device=_device(self.device),
            resume=self.resume,
            init=self.init,
            workers=self.workers,
            quiet=self.quiet,
        )
        if not self.quiet:
            print("\n".join(str(path) for path in files.values()))
        return 0


def seconds(text: str) -> float:
    """A duration in seconds: 90, 90s, 20m, 2h."""
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
    try:
        value = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise ValueError(f"--time-budget: got '{text}', wanted a duration like 90s, 20m or 2h")
    return value


@dataclass(frozen=True)
class Priors:
    """The priors that ship, with their data and licence.

    Args:
        json: Print the whole cards, as JSON.
    """

    json: bool = False

    def __call__(self, command: list[str]) -> int:
        cards = {name: load_tensors(path)[1] for name, path in known_priors().items()}
        if self.json:
            print(json.dumps({k: {**c, "tensors": len(c["tensors"])} for k, c in cards.items()}))
            return 0
        for name, card in cards.items():
            low, high = card["range"]
            print(f"{name}: {card['channels']} channels in [{low:g}, {high:g}]")
            for label in ("licence", "data", "quality", "held_out_psnr"):
                if card.get(label):
                    print(f"    {label.replace('_', ' ')}: {_words(card[label])}")
        if not cards:
            print("no prior ships with this package")
        return 0


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_words(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Demo:
    """Restore four photographs with four methods; write a page, a picture and a table.

    Args:
        out: Folder for the results.
        prior: A prior that ships, or a weight file.
        seed: Seed of the noise and of the draws.
        device: cpu, cuda, or auto.
        quiet: Print nothing but errors.
    """

    out: Path = Path("demo-output")
    prior: str = "natural-color"
    seed: int = 0
    device: str = "auto"
    quiet: bool = False

    def __call__(self, command: list[str]) -> int:
        found = demo(
            self.out,
            prior=self.prior,
            seed=self.seed,
            device=_device(self.device),
            quiet=self.quiet,
        )
        if not self.quiet:
            print(found)
        return 0


COMMANDS: dict[str, Any] = {
    cls.__name__.lower(): cls
    for cls in (Demo, Reconstruct, Simulate, Check, Evaluate, Train, Priors)
}
