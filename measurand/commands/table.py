"""Which commands there are, and how one is run."""

from collections.abc import Callable
from typing import Any

import tyro

from .check import Check
from .demo import Demo
from .evaluate import Evaluate
from .export import Export
from .priors import Priors
from .reconstruct import Reconstruct
from .shift import Shift
from .simulate import Simulate
from .train import Train
from .tune import Tune

__all__ = ["COMMANDS", "run"]

COMMANDS: dict[str, Any] = {
    cls.__name__.lower(): cls
    for cls in (Demo, Reconstruct, Simulate, Check, Tune, Evaluate, Shift, Train, Export, Priors)
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
