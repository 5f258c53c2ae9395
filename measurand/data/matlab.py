"""Arrays of MATLAB files before version 7.3; those of 7.3 are HDF5, see `arrays`.

Numeric arrays alone are read; cells, structs, objects and sparse matrices are passed over.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np

from .limits import sized
from .sources import File

__all__ = ["is_hdf5", "load", "shapes"]

_KINDS = {
    "double",
    "single",
    "logical",
    *(f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)),
}
_WIDEST = 16  # bytes of a complex number


def is_hdf5(file: File) -> bool:
    """Whether a MATLAB file is one of version 7.3."""
    start = file.read(520)
    return any(start[at : at + 8] == b"\x89HDF\r\n\x1a\n" for at in (0, 512))


def shapes(file: File) -> dict[str, tuple[int, ...]]:
    """The shapes of the numeric arrays of a file, by name."""
    from scipy.io import whosmat

    content = io.BytesIO(file.read())
    return {
        name: tuple(map(int, shape)) for name, shape, kind in whosmat(content) if kind in _KINDS
    }


def load(file: File, choose: Callable[[list[str]], str]) -> tuple[np.ndarray, str]:
    """An array of a file, and its name.

    Args:
        file: A MATLAB file before version 7.3.
        choose: Picks one of the names.
    """
    from scipy.io import loadmat

    content = file.read()
    found = shapes(file)
    name = choose(list(found))
    sized(f"{file.name}:{name}", math.prod(found[name]) * _WIDEST, len(content))
    array: np.ndarray = loadmat(io.BytesIO(content), variable_names=[name])[name]
    return array, name
