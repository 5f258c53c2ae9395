"""Commands on priors: evaluate, train, priors, export."""

import json
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import torch
import tyro
from torch import Tensor
from tyro.conf import Positional

from .. import recipes
from ..data.sources import SkippedFiles
from ..devices import device_named
from ..domains import domain_of
from ..files import sha256_file
from ..jobs.folders import check_outside, free, named_inputs
from ..priors.capabilities import Trained
from ..problems.random import problem_of
from ..training.distributed import rank
from ..training.log import tell
from ..training.quality import HeldOut
from ..weights.export import compile_portable, export
from ..weights.store import kinds, known_weights, load, weight_file
from ..weights.tensorfile import load_tensors

__all__ = ["Evaluate", "Export", "Priors", "Train", "seconds"]

RECIPES = [value for value in vars(recipes).values() if isinstance(value, recipes.Recipe)]

Weights = Annotated[
    tuple[str, ...],
    tyro.conf.arg(metavar="WEIGHTS | NAME-portable.pt2 ...", help_behavior_hint="(required)"),
]
Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="[NAME ...]")]
Size = Annotated[
    tuple[int, int],
    tyro.conf.arg(metavar="HEIGHT WIDTH", help_behavior_hint="(required for weights)"),
]

if TYPE_CHECKING:
    Recipe: TypeAlias = Any
else:
    Recipe = tyro.extras.subcommand_type_from_defaults(
        {recipe.name: recipe for recipe in RECIPES},
        prefix_names=False,
    )


@dataclass(frozen=True)
class Evaluate:
    """How good a prior or a network is on a set of images.

    Mean over the images of what is measured of its kind: of a denoiser the PSNR in dB by noise
    level, of an unfolded network the PSNR of images restored from simulated measurements, of a
    flow the bits per pixel value. Images are centre crops of 256 x 256 pixels; what is random for
    image k (sorted by name) has seed k.

    Args:
        prior: A prior or a network that ships, or a weight file.
        data: A folder, a zip or a file of images of the prior's domain.
        domain: What the images are, such as 'Photographs(grey=True)'; as the card of the prior
            says, when absent.
        under: Only what is in this folder of it, such as test.
        levels: Of a denoiser, the noise levels, as standard deviations in 255ths of the range of
            the images; 15, 25 and 50 when absent.
        calibration: Of a denoiser, also compare the error that it expects with its true error.
        problems: Of an unfolded network, the kinds of problems, such as 'GaussianBlurs(low=1.0)';
            those of its training, as the card says, when absent.
        noise: Of an unfolded network, the smallest and the largest noise of a measurement,
            relative to the norm of the operator; as in its training when absent.
        limit: Use the first images only.
        device: cpu, cuda, or auto.
        skip_bad: Leave out files that cannot be read, and say so.
        json: Print JSON.
    """

    prior: Positional[str]
    data: Path
    domain: str | None = None
    under: str = ""
    levels: tuple[float, ...] | None = None
    calibration: bool = False
    problems: tuple[str, ...] = ()
    noise: tuple[float, float] | None = None
    limit: int | None = None
    device: str = "auto"
    skip_bad: bool = False
    json: bool = False

    def __call__(self, command: list[str]) -> int:
        for option, values in (("--levels", self.levels), ("--noise", self.noise)):
            if values is not None and not (values and all(0 < x < math.inf for x in values)):
                raise ValueError(f"{option}: got {values}, wants positive noise levels")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit: got {self.limit}, wants at least one image")
        device = device_named(self.device)
        network: Trained = load(self.prior, device=device)
        with skips_said():
            images = [x.to(device) for x in self.images(network)]
        mix = tuple(problem_of(text) for text in self.problems)
        scores = network.quality(HeldOut(images, self.levels, self.calibration, mix, self.noise))
        if self.json:
            record = {"prior": self.prior, "images": len(images)}
            measured = {score.name: score.words for score in scores}
            found = {score.name: score.values for score in scores}
            print(json.dumps({**record, "measured": measured, **found}))
            return 0
        print(f"{self.prior} on {len(images)} images of {self.data}")
        for score in scores:
            print(score.words)
            for name, value in score.values.items():
                print(f"  {name}: {value:.3f}")
        return 0

    def images(self, network: Trained) -> list[Tensor]:
        """The images that the network's domain finds in the data, centre crops of 256 pixels."""
        try:
            domain = domain_of(self.domain or network.recipe.get("domain") or "")
        except ValueError as error:
            raise ValueError(
                f"{self.prior}: what are its images? {error}; say it by --domain, or measure it "
                "in Python, by measurand.training.HeldOut"
            ) from error
        images = domain.look(self.data, self.under, skip_bad=self.skip_bad)[: self.limit]
        if not images:
            where = f"{self.data}" + (f", folder '{self.under}'" if self.under else "")
            raise ValueError(f"{where}: got no image to measure the prior on")
        return images


@dataclass(frozen=True)
class Train:
    """Train a prior by a named recipe.

    The card of the weights says what the training data were and under which licence: that is
    yours to say.

    Args:
        recipe: What to train; its fields can be changed.
        data: Folders, zips or files of images; none for kernels, which are made.
        licence: Licence and origin of the data, in a few words, for the card of the weights.
        licence_of_recipe: The data are those of the recipe: its own words on them are true.
        held_out: More files, to measure the quality on.
        out: Folder of the run; runs/NAME when absent, with -2, -3 where that is of other data.
        time_budget: How long to train: 90s, 20m, 2h; the recipe's budget when absent.
        steps: Number of steps instead.
        init: Weights to start from: a prior, also of other images; for an unfolded network one
            of its own kind.
        resume: Go on with the run in the folder.
        workers: Threads on a CPU, one part of each batch each.
        micro: Most images differentiated at once, where memory is short.
        device: cpu, cuda, or auto.
        skip_bad: Leave out files that cannot be read, and say so.
        quiet: Print nothing but errors.
        tensorboard: Also write events for TensorBoard.
    """

    recipe: Recipe
    data: tuple[Path, ...] = ()
    licence: str | None = None
    licence_of_recipe: bool = False
    held_out: tuple[Path, ...] = ()
    out: Path | None = None
    time_budget: str | None = None
    steps: int | None = None
    init: str | None = None
    resume: bool = False
    workers: int = 1
    micro: int | None = None
    device: str = "auto"
    skip_bad: bool = False
    quiet: bool = False
    tensorboard: bool = False

    def __call__(self, command: list[str]) -> int:
        if self.time_budget is not None and self.steps is not None:
            raise ValueError("train: say how long by --time-budget or by --steps, not by both")
        recipe = replace(self.recipe, licence=self._licence())
        out = self._folder()
        with skips_said():
            files = recipes.train_recipe(
                recipe,
                self.data,
                out,
                held_out=self.held_out,
                steps=self.steps,
                time_budget=None if self.time_budget is None else seconds(self.time_budget),
                device=device_named(self.device),
                resume=self.resume,
                init=self.init,
                workers=self.workers,
                micro=self.micro,
                skip_bad=self.skip_bad,
                quiet=self.quiet,
                tensorboard=self.tensorboard,
            )
        if not self.quiet:
            print("\n".join(str(path) for path in files.values()))
        return 0

    def _folder(self) -> Path:
        """The folder of the run: one that holds no run on other data, and nothing that is read."""
        name = self.recipe.name
        first = Path("runs") / name
        out = self.out or free(first, named_inputs(*self.data), by=None)
        if self.out is None and self.resume and not (out / "run.json").exists():
            out = first  # which says why it cannot be resumed with these data
        weights = (f"{name}-{width:g}.safetensors" for width in self.recipe.widths_ema)
        init = () if self.init is None else (self.init,)
        check_outside(
            out,
            [*self.data, *self.held_out, *init],
            parts=["run.json", "metrics.jsonl", "states", *weights],
        )
        if out != first and self.out is None and not self.quiet and rank() == 0:
            tell(f"{first} holds a run on other data: this one is in {out}")
        return out

    def _licence(self) -> str:
        """Licence and origin of the data: what the user says of them."""
        if self.licence is not None and not self.licence_of_recipe:
            return self.licence
        if self.licence is None and (self.licence_of_recipe or not self.data):
            return self.recipe.licence  # without data only what a program makes is trained on
        raise ValueError(
            "train: say what the data are and under which licence, by --licence 'my own "
            f"photographs, all rights mine'; or by --licence-of-recipe alone that they are "
            f"'{self.recipe.licence}'"
        )


@contextmanager
def skips_said() -> Iterator[None]:
    """Says of files that are skipped inside the block, in a plain line each on stderr.

    Of several processes that train together only the first says it; other warnings stay as they
    are.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", SkippedFiles)
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **how: Any) -> None:
            if not issubclass(category, SkippedFiles):
                shown(message, category, *where, **how)
            elif rank() == 0:
                tell(str(message))

        warnings.showwarning = show
        yield


def seconds(text: str) -> float:
    """A duration in seconds: 90, 90s, 20m, 2h."""
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
    try:
        value = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"--time-budget: got '{text}', wanted a duration like 90s, 20m or 2h")
    return value


@dataclass(frozen=True)
class Priors:
    """The priors and networks that ship: a line each, or all about some of them.

    Args:
        names: Those of which to print what the card says, with its digests; names or weight
            files.
        json: Print whole cards, as JSON.
    """

    names: Positional[Names] = ()
    json: bool = False

    def __call__(self, command: list[str]) -> int:
        files = {path.stem: path for path in map(weight_file, self.names)} or known_weights()
        cards: dict[str, dict[str, Any]] = {}
        for name, path in files.items():
            try:
                cards[name] = load_tensors(path)[1]
            except (OSError, ValueError) as error:  # one file less, not an end of the list
                cards[name] = {"error": str(error)}
        if self.json:
            told = {k: {**c, "tensors": len(c.get("tensors", ()))} for k, c in cards.items()}
            print(json.dumps(told))
            return 0
        width = max((len(name) for name in cards), default=0)
        for name, card in cards.items():
            print(f"{name:<{width}}  {_line(card, files[name])}")
            for line in _details(card, files[name]) if self.names else ():
                print(f"    {line}")
        if not cards:
            print("no prior ships with this package")
        return 0


@dataclass(frozen=True)
class Export:
    """Write a prior or an unfolded network for use without Python.

    A compiled file for this machine, which the program in `cpp/` runs, and a portable one to
    compile elsewhere: `measurand export NAME-portable.pt2` does that, without the weights.

    Args:
        weights: Weights that ship, or a file: a prior, or a network of Diff-Unfolding. Or the
            portable files of one, all of them, to compile for this machine.
        size: Height and width of the images, in pixels; portable files have theirs.
        out: The compiled file; exported/NAME.pt2 when absent, of portable files NAME.pt2 beside
            them.
        batch: Largest number of images at once.
        precision: float32, bfloat16, or auto for what runs fastest on the device.
        portable_only: Do not compile.
        device: cpu, cuda, or auto.
        quiet: Print nothing but errors.
    """

    weights: Positional[Weights]
    size: Size = (0, 0)
    out: Path | None = None
    batch: int = 8
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    portable_only: bool = False
    device: str = "cpu"
    quiet: bool = False

    def __call__(self, command: list[str]) -> int:
        compiling = bool(self.weights) and all(name.endswith(".pt2") for name in self.weights)
        files = [self._compiled()] if compiling else self._exported()
        if not self.quiet:
            print("\n".join(str(path) for path in files))
        return 0

    def _compiled(self) -> Path:
        """The compiled file of portable ones."""
        if self != Export(self.weights, out=self.out, quiet=self.quiet):
            raise ValueError(
                "export: size, batch, precision and device are in the portable files already, "
                "beside them there is only --out and --quiet"
            )
        first = Path(self.weights[0])
        name = re.sub(r"-portable(-\d+)?$", "", first.stem)
        return compile_portable(self.weights, self.out or first.with_name(f"{name}.pt2"))

    def _exported(self) -> list[Path]:
        """The files of weights."""
        if len(self.weights) != 1:
            raise ValueError(
                f"export: got {' '.join(self.weights) or 'nothing'}, wants one name or file of "
                "weights, or the portable files (.pt2) of one network"
            )
        if self.size == (0, 0):
            raise ValueError("export: wants --size HEIGHT WIDTH, that of the images in pixels")
        (weights,) = self.weights
        dtype = None if self.precision == "auto" else getattr(torch, self.precision)
        model = load(weights, device=device_named(self.device), dtype=dtype)
        name = Path(weights).name.removesuffix(".safetensors")
        out = self.out or Path("exported") / f"{name}.pt2"
        compiled = not self.portable_only
        return export(model, out, size=self.size, batch=self.batch, compiled=compiled)


def _line(card: dict[str, Any], path: Path) -> str:
    """What weights are, how good, of what, how large and under which licence, in a line."""
    if "error" in card:
        return f"cannot be read: {card['error']}"
    cls = kinds().get(str(card.get("kind")))
    try:
        what = (
            f"of a kind unknown here, {card.get('kind')!r}" if cls is None else cls.summary(card)
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        what = f"its card is not one of ours ({type(error).__name__}: {error})"
    recipe = card.get("recipe")
    domain = _domain(recipe.get("domain")) if isinstance(recipe, dict) else ""
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    parts = (what, domain, size, f"licence: {card.get('licence') or 'not said'}")
    return "; ".join(part for part in parts if part)


def _domain(text: Any) -> str:
    """The domain of a card, without the fields that have their defaults."""
    try:
        domain: Any = domain_of(text)
    except ValueError:
        return str(text or "")
    said = [(f.name, getattr(domain, f.name)) for f in fields(domain)]
    other = [f"{k}={v!r}" for k, v in said if v != type(domain).__dataclass_fields__[k].default]
    return type(domain).__name__ + (f"({', '.join(other)})" if other else "")


def _details(card: dict[str, Any], path: Path) -> Iterator[str]:
    """What a card says of its weights, a line for each, and the digest of the file."""
    held_out = [key for key in card if key.startswith("held_out")]
    for key in ("data", *held_out, "notes", "init"):
        if card.get(key):
            yield f"{key.replace('_', ' ')}: {_words(card[key])}"
    for key, label in (
        ("psnr", "PSNR in dB, by noise of 255"),
        ("calibration", "predicted over measured error, by sigma"),
        ("measured_on", "measured on"),
    ):
        if card.get(key):
            yield f"{label}: {_words(card[key])}"
    yield f"file: {path}, sha256: {sha256_file(path)}"


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_words(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)
