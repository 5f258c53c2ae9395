"""The commands: each a frozen dataclass whose fields are its options, called to run it.

Importing this folder imports torch and tyro; `cli` does so only when a command is asked for.
"""

from .shared import seconds
from .table import COMMANDS, run

__all__ = ["COMMANDS", "run", "seconds"]
