"""The command that trains by a recipe: train."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import tyro

from .. import recipes
from ..devices import device_named
from ..jobs.folders import check_outside, free, named_inputs
from ..training.distributed import rank
from ..training.log import tell
from .shared import seconds
from .skipped import skips_said

__all__ = ["Train"]


RECIPES = [value for value in vars(recipes).values() if isinstance(value, recipes.Recipe)]

if TYPE_CHECKING:
    Recipe: TypeAlias = Any
else:
    Recipe = tyro.extras.subcommand_type_from_defaults(
        {recipe.name: recipe for recipe in RECIPES}, prefix_names=False
    )


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
        save_every: How often the state is saved, for --resume: 30s, 10m; at most this is lost
            when the run is killed.
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
    save_every: str = "2m"
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
                save_every=seconds(self.save_every, "--save-every"),
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
        if not self.resume and not (out / "states").exists():  # which say what can be done
            self._check_unused(out)
        if out != first and self.out is None and not self.quiet and rank() == 0:
            tell(f"{first} holds a run on other data: this one is in {out}")
        return out

    def _check_unused(self, out: Path) -> None:
        """Raise a `ValueError` where a folder has weights of this name, or is of something else.

        A run that died before its first state has left neither, and may begin again.
        """
        weights = sorted(out.glob(f"{self.recipe.name}-*.safetensors"))
        record = out / "run.json"
        try:
            of_training = not record.exists() or "recipe" in json.loads(record.read_text())
        except (OSError, ValueError):
            of_training = False
        if weights or not of_training:
            raise ValueError(
                f"--out {out}: holds {(weights or [record])[0].name} of another run, which would "
                "be replaced; choose another folder with --out"
            )

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
