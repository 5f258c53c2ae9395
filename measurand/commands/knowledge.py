"""Commands on priors: evaluate, train, priors."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import tyro
from tyro.conf import Positional

from .. import recipes
from ..checkpoints import known_priors, load_prior, load_tensors
from ..data import photos
from ..devices import device_named

__all__ = ["Evaluate", "Priors", "Train", "seconds"]

if TYPE_CHECKING:
    Recipe: TypeAlias = Any
else:
    Recipe = tyro.extras.subcommand_type_from_defaults(
        {
            value.name: value
            for value in vars(recipes).values()
            if isinstance(value, recipes.Recipe)
        },
        prefix_names=False,
    )


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
        prior = load_prior(self.prior, device=device_named(self.device))
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
            device=device_named(self.device),
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
