"""The closed form of total variation in one pass over the image, compiled where numba is.

In the notation of `variation`, for the isotropic kind,

    x = v - D^T Pi(D v / L),

row by row: of the field p = Pi(D v / L), a row of x needs its own row and the one above, which
stay in the cache, where torch streams the image a dozen times. The result is that of `dual`, to
rounding.

numba compiles once on a machine, for a second or two, and keeps what it made beside this file or
among the caches of the user (or in NUMBA_CACHE_DIR). Each process spends another 0.7 s to load
numba and what it made: images have to be large for that.
"""

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd import forward_ad

from .differences import Grid

__all__ = ["compiled", "descend", "fits", "one_pass"]

Array = NDArray[np.float32]

_LARGE = 2**20  # values; a hundred such maps win back the time in which numba is loaded
_TINY = np.finfo(np.float32).tiny


def fits(grid: Grid, v: Tensor) -> bool:
    """Whether one pass can replace the closed form; the image and its kind alone decide.

    Args:
        grid: Differences and groups.
        v: Images, with shape (B, C, ...).
    """
    return (
        v.numel() >= _LARGE
        and forward_ad.unpack_dual(v).tangent is None  # which numpy does not carry
        and v.device.type == "cpu"
        and v.dtype == torch.float32
        and [axis for axis, _ in grid.axes] == [v.ndim - 2, v.ndim - 1]
        and grid.isotropic
        and not (grid.shared or grid.periodic)
    )


def one_pass(run: Callable[..., Any], grid: Grid, v: Tensor, tau: Tensor) -> Tensor:
    """Return `v - D^T Pi(D v / L)`, without a graph; for what `fits`.

    Args:
        run: `descend`, or what `compiled` made of it.
        grid: Differences and groups.
        v: Images, with shape (B, C, ..., H, W).
        tau: Radius of the balls, with shape (1 or B, 1, ...).
    Returns:
        The images, with the shape of `v`.
    """
    planes = v.detach().contiguous().flatten(0, -3)
    radius = tau.detach().expand(*v.shape[:-2], 1, 1).flatten().contiguous()
    weights = np.array([weight for _, weight in grid.axes], np.float32)
    x = torch.empty_like(planes)
    run(planes.numpy(), radius.numpy(), weights, np.float32(grid.bound), x.numpy())
    return x.view(v.shape)


def descend(v: Array, tau: Array, weights: Array, bound: np.float32, x: Array) -> None:
    """Write `v - D^T Pi(D v / bound)` to `x`; the last difference along either axis is zero.

    Args:
        v: Planes, with shape (n, H, W).
        tau: Radius of the balls of each plane, with shape (n,).
        weights: Factors of the differences down the columns and along the rows, with shape (2,).
        bound: At least `||D||^2`.
        x: Where the result goes, with shape (n, H, W).
    """
    planes, height, width = v.shape
    last, (down, along) = width - 1, weights
    field = np.zeros((2, width), np.float32)  # p down the columns: of this row and the one above
    across = np.zeros(width + 1, np.float32)  # p along the row, between the zeros of both borders
    for k in range(planes):
        radius = tau[k]
        floor = max(radius * radius, _TINY)
        field[:] = 0
        for i in range(height):
            row, below, out = v[k, i], v[k, min(i + 1, height - 1)], x[k, i]
            here, above = field[i % 2], field[1 - i % 2]
            for j in range(last):
                p, q = (
                    (row[j + 1] - row[j]) * (along / bound),
                    (below[j] - row[j]) * (down / bound),
                )
                shrink = radius / np.sqrt(max(p * p + q * q, floor))
                across[j + 1], here[j] = p * shrink, q * shrink
            q = (below[last] - row[last]) * (down / bound)
            here[last] = q * (radius / np.sqrt(max(q * q, floor)))
            for j in range(width):
                step = along * (across[j + 1] - across[j]) + down * (here[j] - above[j])
                out[j] = row[j] + step


@cache
def compiled() -> Callable[..., Any] | None:
    """Return `descend` in machine code; None without numba, or where nothing compiled is kept."""
    try:
        from numba import njit
    except ImportError:
        return None
    try:  # types that are said are compiled, or loaded, here and not in the first call
        types = "void(f4[:, :, ::1], f4[::1], f4[::1], f4, f4[:, :, ::1])"
        return njit(types, cache=True, nogil=True, error_model="numpy")(descend)
    except Exception as error:  # no folder that can be written, a full disk, a damaged cache
        warnings.warn(
            f"total variation: got no compiled code from numba ({type(error).__name__}: {error}); "
            "torch does the same, slower",
            stacklevel=2,
        )
        return None
