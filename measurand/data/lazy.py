"""Modules of a package that are imported when they are first asked for."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

__all__ = ["lazy"]


def lazy(package: str, names: Sequence[str]) -> Callable[[str], Any]:
    """Return the `__getattr__` of a package some of whose modules few users need.

    Args:
        package: Its name.
        names: Names of the modules.
    """

    def module(name: str) -> Any:
        if name in names:
            return import_module(f".{name}", package)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return module
