"""The domain that a card names: weights say what their images are.

A card holds the `repr` of a domain, `Body(window=(-1000.0, 2000.0), scale=0.05)`. The domains are
the dataclasses that the `__init__` of this folder names.
"""

from dataclasses import is_dataclass
from importlib import import_module

from ..literal import instance
from .material import Domain

__all__ = ["domain_of"]


def domain_of(text: str) -> Domain:
    """Returns the domain of which this is the `repr`.

    Args:
        text: The name of a domain, and its fields by name; those left out have their defaults.
    Raises:
        ValueError: It names no domain of this package, or fields that the domain does not have.
    """
    folder = import_module(__package__)
    named = {name: getattr(folder, name) for name in folder.__all__}
    kinds = {k: v for k, v in named.items() if isinstance(v, type) and is_dataclass(v)}
    return instance(text, kinds, "domain")
