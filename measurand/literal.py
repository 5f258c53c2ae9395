"""Values that a card writes out, read back: `Body(window=(-1000.0, 2000.0), scale=0.05)`.

A card comes from a file that nobody has to trust, so its text is parsed, never evaluated: one of
the classes that are allowed, and fields of it that are literals.
"""

import ast
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

__all__ = ["instance"]


def instance(text: str, kinds: Mapping[str, type], what: str) -> Any:
    """Returns the instance of a dataclass of which this is the `repr`.

    Args:
        text: The name of a class, and its fields by name; those left out have their defaults.
        kinds: The classes that it may be, by name.
        what: What it describes, for messages.
    Raises:
        ValueError: It names no class of these, or fields that the class does not have.
    """
    given = f"the {what} {str(text)[:80]!r}" if text else f"no {what}"
    unknown = ValueError(
        f"got {given}, wanted one of {', '.join(kinds)}, with its fields by name: NAME(FIELD=1)"
    )
    try:
        call = ast.parse(text, mode="eval").body
        words = call.keywords if isinstance(call, ast.Call) else []
        values: dict[str, Any] = {f"{word.arg}": ast.literal_eval(word.value) for word in words}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise unknown from error
    named = isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and not call.args
    kind: Any = kinds.get(call.func.id) if named else None  # type: ignore[attr-defined]
    known = {field.name for field in fields(kind)} if kind else set()
    if kind is None or not values.keys() <= known or len(values) < len(words):
        raise unknown
    try:
        return kind(**values)
    except TypeError as error:  # a value of another type, or a field without a default
        raise unknown from error
