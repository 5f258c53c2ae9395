"""From the words of a command line to a command, and its run."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import tyro

__all__ = ["command_named", "run"]


def command_named(name: str) -> type[Any]:
    """Return the dataclass of a command: `Reconstruct` of the file `reconstruct.py`.

    Only the file of this command is imported, with what it needs.

    Args:
        name: One of `cli.COMMANDS`.
    """
    return getattr(import_module(f".{name}", __package__), name.capitalize())


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
        command_named(name),
        prog=f"measurand {name}",
        args=words,
        config=(tyro.conf.CascadeSubcommandArgs, tyro.conf.FlagCreatePairsOff),
    )
    return parsed(command)
