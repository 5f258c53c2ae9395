"""From the words of a command line to a command."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import tyro

__all__ = ["command_named", "parsed"]


def command_named(name: str) -> type[Any]:
    """Return the dataclass of a command: `Reconstruct` of the file `reconstruct.py`.

    Only the file of this command is imported, with what it needs.

    Args:
        name: One of `cli.COMMANDS`.
    """
    return getattr(import_module(f".{name}", __package__), name.capitalize())


def parsed(name: str, words: list[str]) -> Callable[[list[str]], int]:
    """Parse the options of a command.

    Args:
        name: The command.
        words: Its options.
    Returns:
        What runs it: a function of the whole line, for `run.json`, which gives the exit code.
    """
    return tyro.cli(
        command_named(name),
        prog=f"measurand {name}",
        args=words,
        config=(tyro.conf.CascadeSubcommandArgs, tyro.conf.FlagCreatePairsOff),
    )
