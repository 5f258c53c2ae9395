"""What a recipe is, and the function that trains one.

    run.json                     what was asked for, versions, device
    metrics.jsonl                twice a minute: images per second, TFLOP/s, loss (in four bands of
                                 the noise level where there is one); every few minutes the quality
                                 on what is held out, under its name
    states/                      the last two training states, for `resume`
    <name>-<width>.safetensors   at the end: the weights of each average, with their card

is what the folder of a run holds.
"""

import json
import math
import os
import platform
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..batches import Batch
from ..domains import Domain
from ..domains.material import Material
from ..files import sha256, sha256_file, write_atomic
from ..priors.edm import fast_dtype
from ..priors.trained import Trained
from ..records import json_text
from ..training.distributed import joined, rank
from ..training.ema import EMA
from ..training.log import Journal, tell
from ..training.loop import adamw, train
from ..training.states import check_unused, owned
from ..weights.store import opened, save, saveable, stored

__all__ = ["Recipe", "train_recipe"]


@dataclass(frozen=True)
class Recipe(ABC):
    """How something is trained; its kinds say what.

    Args:
        name: Name of the weights.
        licence: Licence and origin of the training data; nothing is trained without it.
        domain: What the images are.
        budget: Seconds on one processor core after which weights are of use: what is trained for
            where nothing else is said.
        gate: What weights have to reach before they ship, in words.
        lr: Learning rate of AdamW at batch 32 or less; grows with the root of the batch above.
        batch: Crops per step.
        crops: Size of the small crops and of the large ones, in pixels; of the large ones there
            are as many as have the same area, and they are no larger than half of the images.
        warmup: Steps of the warm-up.
        widths_ema: Relative widths of the two averages.
        seed: Of weights and batches.
    """

    name: str
    licence: str
    domain: Domain
    budget: float = 5400.0
    gate: str = ""
    lr: float = 1e-3
    batch: int = 16
    crops: tuple[int, int] = (64, 128)
    warmup: int = 200
    widths_ema: tuple[float, ...] = (0.05, 0.10)
    seed: int = 0

    @abstractmethod
    def new(self, init: str | os.PathLike[str] | None) -> Trained:
        """Returns the model, untrained or with the weights of another one."""

    @abstractmethod
    def problem(self, material: Material, step: int, n: int, size: int) -> Batch:
        """Returns the batch of a step, a pure function: n crops and what the loss needs."""

    @abstractmethod
    def loss(self, model: Any, batch: Mapping[str, Any]) -> Tensor:
        """Returns the loss of each item, (B,)."""

    @abstractmethod
    def quality(
        self, model: Any, held_out: Sequence[Batch], dtype: torch.dtype
    ) -> dict[str, float]:
        """Returns how good a model is on what is held out, images or measurements."""

    measure: ClassVar[str] = "psnr"  # what `quality` returns

    def level(self, batch: Batch) -> Tensor | None:
        """Returns the noise level of each item, (B,), by which the log parts losses, or None."""
        return None

    def prepare(self, model: Any, material: Material) -> None:  # noqa: B027
        """Makes a new model fit its images, before training; nothing by default."""

    def finish(self, model: Any, material: Material, steps: int) -> dict[str, Any]:
        """Measures what belongs to weights of so many steps; returns more for the card.

        Args:
            model: An average, with the weights as a file holds them.
            material: The images.
            steps: Of the training.
        """
        return {}

    def optimizer(self, model: Any, lr: float) -> torch.optim.Optimizer:
        """Returns what follows the gradients, at a learning rate."""
        return adamw(model, lr=lr)

    def origin(self, init: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
        """Returns the weights that a run with this `init` starts from, None for none."""
        return init

    def batches(self, material: Material) -> Callable[[int, int], Batch]:
        """Returns the function (step, stage) -> batch that `train` asks."""

        def batch(step: int, stage: int) -> Batch:
            size = self.crops[stage]
            n = max(1, self.batch * self.crops[0] ** 2 // size**2)
            return self.problem(material, step, n, size)

        return batch

    @property
    def described(self) -> dict[str, Any]:
        """The recipe as JSON values."""
        return {**asdict(self), "domain": repr(self.domain)}


def train_recipe(
    recipe: Recipe,
    data: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    held_out: Sequence[str | os.PathLike[str]] = (),
    steps: int | None = None,
    time_budget: float | None = None,
    device: torch.device | str = "cpu",
    resume: bool = False,
    init: str | os.PathLike[str] | None = None,
    workers: int = 1,
    micro: int | None = None,
    save_every: float = 120.0,
    evaluate_every: float = 300.0,
    skip_bad: bool = False,
    quiet: bool = False,
    tensorboard: bool = False,
) -> dict[str, Path]:
    """Trains by a recipe and writes the weights; under `torchrun`, on all of its processes.

    Args:
        recipe: What to train.
        data: Folders, zips and files of images. Where one has folders `train` and `val`, only
            these are used, the first for training, the second for the quality in the log.
        out: Folder of the run.
        held_out: More files for the quality in the log.
        steps: Length of the run; or
        time_budget: seconds to train, the recipe's budget where neither is given.
        device: Where to train.
        resume: Go on from the state in `out`.
        init: Weights to start from, by name or path.
        workers: Threads on a CPU, one part of the batch each.
        micro: Most images differentiated at once; None for as many as fit into the memory.
        save_every: Seconds between states.
        evaluate_every: Seconds between evaluations on held-out images.
        skip_bad: Leave out files that cannot be read, with a warning.
        quiet: Print nothing.
        tensorboard: Also write events for TensorBoard into `out`.
    Returns:
        The weight files, by name.
    Raises:
        ValueError: The recipe states no licence, the data hold no image that is large enough, or
            the folder holds another run, or one is at work in it; see also `training.train`.
        TypeError: The network could not be saved.
    """
    if not recipe.licence.strip():
        raise ValueError(f"recipe {recipe.name}: states no licence of its training data")
    check(recipe)
    time_budget = recipe.budget if steps is None and time_budget is None else time_budget
    out = Path(out)
    if not resume:
        check_unused(out / "states")
    out.mkdir(parents=True, exist_ok=True)
    with joined(torch.device(device)) as own, nullcontext() if rank() else owned(out):
        material = recipe.domain.open(
            data, held_out, seed=recipe.seed, device=own, skip_bad=skip_bad
        )
        large = recipe.crops[1]
        recipe = fitting(recipe, material)
        if material.images and not quiet and rank() == 0:
            words = f"{recipe.name}: {material.images} images to train on"
            if recipe.crops[1] < large:
                words += f", large crops of {recipe.crops[1]} pixels in place of {large}"
            tell(words)
        model: Any = saveable(recipe.new(init))  # known before the first step
        model.to(own).to(memory_format=torch.channels_last)
        recipe.prepare(model, material)
        averages = [EMA(model, width) for width in recipe.widths_ema]
        start = ancestor(recipe.origin(init))
        precision = fast_dtype(own)
        asked = {
            "recipe": recipe.described,
            "data": [str(path) for path in data],
            "inputs": [os.path.realpath(path) for path in data],
            "images": material.images,
            "digest": material.digest,
            "steps": steps,
            "time_budget": time_budget,
            "device": str(own),
            "init": None if init is None else str(init),
            "workers": workers,
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "command": sys.argv,
        }
        first = rank() == 0
        if resume and (out / "run.json").is_file():
            check_same(out / "run.json", asked)
        elif first:
            write_atomic(out / "run.json", json_text(asked, indent=1))

        def quality() -> dict[str, float]:
            with averages[0].applied():
                return recipe.quality(model, material.held_out, precision)

        one = recipe.problem(material, 0, 1, recipe.crops[0])
        journal = Journal(
            out / "metrics.jsonl",
            quality,
            measure=recipe.measure,
            level=recipe.level,
            forward=lambda: recipe.loss(model, one),
            batch=recipe.batch,
            evaluate_every=evaluate_every,
            quiet=quiet,
            tensorboard=tensorboard and first,
        )
        plan = train(
            model,
            recipe.batches(material),
            recipe.loss,
            steps=steps,
            time_budget=time_budget,
            warmup=recipe.warmup,
            optimizer=recipe.optimizer(model, recipe.lr * max(1.0, recipe.batch / 32) ** 0.5),
            ema=averages,
            on_step=journal if first else None,
            folder=out / "states",
            save_every=save_every,
            resume=resume,
            config=sha256(json.dumps([recipe.described, material.digest, start]))[:16],
            autocast=precision if precision != torch.float32 else None,
            workers=workers,
            micro=micro,
        )
        files = {}
        for average in averages if first else []:
            with average.applied():
                kept = stored(model)
            more = recipe.finish(kept, material, plan.steps)
            kept.card = {
                "name": recipe.name,
                "licence": terms(recipe.licence, start),
                # not their names, which may be those of patients; `run.json` has them
                "data": [Path(path).suffix.lstrip(".") or "folder" for path in data],
                "images": material.images,
                "digest": material.digest,
                "init": start,
                **recipe.domain.facts,
                "recipe": recipe.described,
                "steps": plan.steps,
                "patches": plan.steps * recipe.batch,
                "ema": average.width,
                f"held_out_{recipe.measure}": recipe.quality(kept, material.held_out, precision),
                **more,
                "torch": torch.__version__,
            }
            path = out / f"{recipe.name}-{average.width:g}.safetensors"
            save(path, kept)
            files[path.stem] = path
    return files


def take_over(network: Trained, other: Trained, init: str, name: str) -> None:
    """Gives a network the weights of another one of its kind.

    Args:
        network: What a recipe makes.
        other: What was found at `init`.
        init: Name or path, for messages.
        name: Name of the recipe, for messages.
    Raises:
        ValueError: It is of another kind; the message says in what.
    """
    wanted, given = network.to_card(), other.to_card()
    if wanted != given:
        differs = ", ".join(k for k in wanted if wanted[k] != given.get(k))
        raise ValueError(f"{init}: holds another network than recipe {name}, in: {differs}")
    network.load_state_dict(other.state_dict())


def check(recipe: Recipe) -> None:
    """Checks the fields that every recipe has.

    Raises:
        ValueError: A field is out of its range, or the name cannot be that of a file.
    """
    small, large = recipe.crops
    wrong = {
        "seed": recipe.seed < 0 and "0 or more",
        "batch": recipe.batch < 1 and "1 or more",
        "crops": not 0 < small <= large and "two sizes in pixels, the smaller one first",
        "lr": not 0 <= recipe.lr < math.inf and "0 or more",
        "name": (Path(recipe.name).name != recipe.name or recipe.name.startswith("."))
        and "a word that can be the name of a file",
    }
    for name, wanted in wrong.items():
        if wanted:
            raise ValueError(
                f"recipe {recipe.name}: got {name} {getattr(recipe, name)!r}, wants {wanted}"
            )


def check_same(file: Path, asked: Mapping[str, Any]) -> None:
    """Checks that a run is resumed with the recipe and the images that it began with.

    Raises:
        ValueError: Something differs; the message says what.
    """
    before, now = json.loads(file.read_text()), json.loads(json_text(asked))
    changed = [
        f"{name} {before['recipe'].get(name)!r}, now {now['recipe'].get(name)!r}"
        for name in sorted({*before["recipe"], *now["recipe"]})
        if before["recipe"].get(name) != now["recipe"].get(name)
    ]
    if before.get("digest") != now["digest"]:
        changed.append(f"other images: {before['data']}, now {now['data']}")
    if changed:
        raise ValueError(
            f"{file.parent}: the run began with {'; '.join(changed)}: resume it as it was, or "
            "start another from its weights (--init)"
        )


def fitting(recipe: Recipe, material: Material) -> Recipe:
    """Returns the recipe with large crops that half of the images hold."""
    small, large = recipe.crops
    if material.side is None or material.side >= large:
        return recipe
    return replace(recipe, crops=(small, max(small, material.side)))


def terms(licence: str, start: dict[str, Any] | None) -> str:
    """Returns the licence of trained weights: that of the data, and of what they started from."""
    before = start and start["licence"]
    if not before or before in licence:
        return licence
    if licence in before:
        return str(before)
    return f"{licence}; weights started from {start and start['file']} ({before})"


def ancestor(init: str | os.PathLike[str] | None) -> dict[str, Any] | None:
    """Returns what the card says of the weights that a run started from: terms are inherited."""
    if init is None:
        return None
    path, _, card = opened(init)
    return {"file": path.stem, "sha256": sha256_file(path), "licence": card.get("licence")}
