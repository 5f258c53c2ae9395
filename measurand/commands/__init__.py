"""The commands: each a frozen dataclass whose fields are its options, called to run it.

A command is the file of its name, and its line in `cli.COMMANDS`.
Importing this folder imports torch and tyro; `cli` does so only when a command is asked for.
"""

from .parse import command_named, parsed
from .shared import seconds

__all__ = ["command_named", "parsed", "seconds"]
