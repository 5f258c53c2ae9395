"""What several commands share: choices of operators and methods, times in words."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import tyro

from ..jobs.arguments import families, methods, twins, union
from ..jobs.executors import executors
from ..jobs.noise_kinds import noise_kinds

__all__ = [
    "AnyMethod",
    "AnyOperator",
    "Executor",
    "File",
    "Level",
    "Method",
    "Noise",
    "Operator",
    "seconds",
]


if TYPE_CHECKING:
    Operator: TypeAlias = Any
    AnyOperator: TypeAlias = Any
    Method: TypeAlias = Any
    AnyMethod: TypeAlias = Any
    Executor: TypeAlias = Any
    Noise: TypeAlias = Any
else:
    Operator, Method = union(twins()), union(methods())
    AnyMethod = union({**methods(), "best": type(None)})
    AnyOperator = union({**twins(), **families()})
    Executor = union(executors())
    Noise = union(noise_kinds())


def _level(words: list[str]) -> float | None:
    """A noise level from the word that says it."""
    (text,) = words
    if text == "None":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise ValueError(
            f"got '{text}', wanted one number: white noise has one level for all data. Noise of "
            "counts is --noise poisson; of another map s of deviations, divide in Python: data "
            "y / s, operator Mask(A.out_shape, 1 / s) @ A, sigma 1"
        ) from error


Level = Annotated[
    float | None,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="FLOAT",
        instance_from_str=_level,
        is_instance=lambda value: value is None or isinstance(value, float | int),
        str_from_instance=lambda value: [str(value)],
    ),
]
File = Annotated[Path, tyro.conf.arg(metavar="FILE")]


def seconds(text: str, option: str = "--time-budget") -> float:
    """A duration in seconds: 90, 90s, 20m, 2h.

    Args:
        text: The duration.
        option: Where it was given, for messages.
    """
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
    try:
        value = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"{option}: got '{text}', wanted a duration like 90s, 20m or 2h")
    return value
