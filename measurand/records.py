"""Records as strict JSON: what a run writes can be read by every program.

JSON has no NaN and no infinity; Python writes them as words that others refuse. Such a number is
null here: there is none. The values of a result are checked before (`Method`, `restore`,
`write_image`), so that null is a number that does not exist: an interval of one measurement, a
loss of a step that was skipped.
"""

import json
import math
from typing import Any

__all__ = ["json_text"]


def json_text(record: Any, *, indent: int | None = None) -> str:
    """Return a record as JSON text without NaN and infinity, with null in their place.

    Args:
        record: Dictionaries, lists and tuples of numbers, text, booleans and None.
        indent: Spaces of a level, with a line for each entry; all in one line where absent.
    """
    return json.dumps(_strict(record), indent=indent, allow_nan=False)


def _strict(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
