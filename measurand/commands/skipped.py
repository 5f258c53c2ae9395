"""Files that cannot be read are said and skipped, by the commands that read many for a network."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..data.sources import SkippedFiles
from ..training.distributed import rank
from ..training.log import tell

__all__ = ["skips_said"]


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
