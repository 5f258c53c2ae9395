"""What several commands share: choices of operators and methods, times in words."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import tyro

from ..data.sources import SkippedFiles
from ..jobs.arguments import families, methods, twins, union
from ..jobs.executors import executors
from ..training.distributed import rank
from ..training.log import tell

__all__ = ["AnyOperator", "Executor", "File", "Method", "Operator", "seconds", "skips_said"]


if TYPE_CHECKING:
    Operator: TypeAlias = Any
    AnyOperator: TypeAlias = Any
    Method: TypeAlias = Any
    Executor: TypeAlias = Any
else:
    Operator, Method = union(twins()), union(methods())
    AnyOperator = union({**twins(), **families()})
    Executor = union(executors())


File = Annotated[Path, tyro.conf.arg(metavar="FILE")]


@contextmanager
def skips_said() -> Iterator[None]:
    """Says of files that are skipped inside the block, in a plain line each on stderr.

    Of several processes that train together only the first says it; other warnings stay as they
    are.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("always", SkippedFiles)
        shown = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any, **how: Any) -> None:
            if not issubclass(category, SkippedFiles):
                shown(message, category, *where, **how)
            elif rank() == 0:
                tell(str(message))

        warnings.showwarning = show
        yield


def seconds(text: str) -> float:
    """A duration in seconds: 90, 90s, 20m, 2h."""
    unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:])
    try:
        value = float(text[:-1]) * unit if unit else float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise ValueError(f"--time-budget: got '{text}', wanted a duration like 90s, 20m or 2h")
    return value
