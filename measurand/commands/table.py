"""Which commands there are, and how one is run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from ..demo import demo
from ..devices import device_named
from .images import Check, Reconstruct, Simulate
from .knowledge import Evaluate, Export, Priors, Train
from .tuning import Tune

__all__ = ["COMMANDS", "run"]


@dataclass(frozen=True)
class Demo:
    """Restore four photographs with several methods; write a page, a picture and a table.

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
            device=device_named(self.device),
            quiet=self.quiet,
        )
        if not self.quiet:
            print(found)
        return 0


COMMANDS: dict[str, Any] = {
    cls.__name__.lower(): cls
    for cls in (Demo, Reconstruct, Simulate, Check, Tune, Evaluate, Train, Export, Priors)
}


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
        config=(tyro.conf.CascadeSubcommandArgs, tyro.conf.FlagCreatePairsOff),
    )
    return parsed(command)
