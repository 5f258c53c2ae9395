"""The domain that a card names: weights say what their images are.

A card holds the `repr` of a domain, `Body(window=(-1000.0, 2000.0), scale=0.05)`. It comes from a
file that nobody has to trust, so it is parsed, never evaluated: a class of this folder and fields
of it that are written out.
"""

import ast
from dataclasses import fields
from typing import Any

from .body import Body
from .brain import Brain
from .faces import Faces
from .kernels import Kernels
from .material import Domain
from .photographs import Photographs

__all__ = ["domain_of"]

KINDS = {kind.__name__: kind for kind in (Body, Brain, Faces, Kernels, Photographs)}


def domain_of(text: str) -> Domain:
    """Returns the domain of which this is the `repr`.

    Args:
        text: The name of a domain, and its fields by name; those left out have their defaults.
    Raises:
        ValueError: It names no domain of this package, or fields that the domain does not have.
    """
    given = f"the domain {str(text)[:80]!r}" if text else "no domain"
    unknown = ValueError(
        f"got {given}, wanted one of {', '.join(KINDS)}, with its fields by "
        "name: Body(window=(-1000, 2000))"
    )
    try:
        call = ast.parse(text, mode="eval").body
        words = call.keywords if isinstance(call, ast.Call) else []
        values: dict[str, Any] = {f"{word.arg}": ast.literal_eval(word.value) for word in words}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise unknown from error
    named = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args
    kind = KINDS.get(call.func.id) if named else None  # type: ignore[attr-defined]
    known = {field.name for field in fields(kind)} if kind else set()
    if kind is None or not values.keys() <= known or len(values) < len(words):
        raise unknown
    return kind(**values)
