"""Pixels seen by strips of parallel lines: their weights, and the symmetries that spare most.

The weights of pixels in the bins of a detector (`tomography`) are a sparse matrix, and a product
costs the time to stream its entries from memory. Reflections of the image in an axis and in the
diagonal turn any angle into one of [0, pi/4]; the usual evenly spaced angles therefore need a
quarter of the rows only, applied to four views of the image at once. The transpose is stored too,
with the same numbers: the adjoint is exact.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Plan", "plan_of", "strip_matrix", "views_adjoint", "views_of"]

Array = NDArray[Any]


class Plan(NamedTuple):
    """Each angle as a row of the matrix, a view of the image and a direction of the detector."""

    folded: Array  # angles of the matrix
    axis: Array  # where it sees the rotation axis, in bins
    row: Array  # index into them, per angle
    view: Array  # index into `views_of`
    reversed: Array  # whether the bins run backwards
    views: int  # number of views used: 1, 2 or 4


def plan_of(angles: Array, *, square: bool, axis: float) -> Plan:
    """Return the cheapest of: no symmetry, the left-right flip, flip and transposition.

    A detector that is turned by half a turn is the same one with its bins in reverse and the axis
    on the other side.

    Args:
        angles: Angles of the views, in radians, with shape (angles,).
        square: Whether the image is, so that its axes can be exchanged.
        axis: Where the rotation axis is seen, in bins from the middle of the detector.
    """
    turn = np.mod(angles, 2 * np.pi)
    backwards = turn >= np.pi
    turn = np.where(backwards, turn - np.pi, turn)
    flip = turn > np.pi / 2
    half = np.where(flip, np.pi - turn, turn)
    across = half > np.pi / 4
    quarter = np.where(across, np.pi / 2 - half, half)
    none = np.zeros_like(flip)
    plans = []
    for folded, view, views in ((turn, none, 1), (half, flip, 2), (quarter, flip + 2 * across, 4)):
        if views < 4 or square:
            # angles of float32 agree after folding to a microradian, a thousandth of a pixel
            side = np.where(backwards, -axis, axis)
            order = np.lexsort((folded, side))
            fresh = np.diff(folded[order], prepend=-1.0) > 1e-6
            fresh |= np.diff(side[order], prepend=side[order[0]]) > 0
            row = np.empty(len(angles), dtype=np.int64)
            row[order] = np.cumsum(fresh) - 1
            kept = order[fresh]
            plans.append(
                Plan(folded[kept], side[kept], row, view.astype(np.int64), backwards, views)
            )
    return min(plans, key=lambda plan: len(plan.folded) * (1 + plan.views))


def views_of(x: Tensor, views: int) -> list[Tensor]:
    """Return the image, its left-right flip, and both with the axes exchanged (x with y)."""
    seen = [x, x.flip(-1)][:views]
    return seen + [_exchanged(v) for v in seen] if views == 4 else seen


def views_adjoint(seen: tuple[Tensor, ...]) -> Tensor:
    """Return the sum of views, each turned back: the adjoint of `views_of`."""
    if len(seen) == 4:
        seen = (seen[0] + _exchanged(seen[2]), seen[1] + _exchanged(seen[3]))
    return seen[0] + seen[1].flip(-1) if len(seen) == 2 else seen[0]


def _exchanged(x: Tensor) -> Tensor:
    """The image with x and y exchanged; y points up, against the rows."""
    return x.mT.flip(-2, -1)


def strip_matrix(
    angles: Array, axis: Array, shape: tuple[int, int], bins: int, spacing: float
) -> Any:
    """Return the transposed system matrix in pixels: rows are pixels, columns (angle, bin).

    Args:
        angles: Angles in [0, pi), with shape (angles,).
        axis: Where each sees the rotation axis, in bins from the middle of the detector.
        shape: Height and width of the image.
        bins: Number of bins.
        spacing: Their distance, in pixels.
    """
    from scipy.sparse import csr_array

    height, width = shape
    origin = bins / 2 + axis  # of s on the detector, in bins from its first edge
    c, s = np.abs(np.cos(angles)), np.abs(np.sin(angles))
    # the footprint of a pixel is a trapezoid; twice its area from the centre to t is an odd
    # function that grows linearly over the flat top and by a parabola over the slope
    outer, flat, top = (c + s) / 2, np.abs(c - s) / 2, 1 / np.maximum(c, s)
    bend = 1 / np.maximum(2 * (outer - flat), 1e-12)

    def area(t: Array) -> Array:
        a = np.minimum(np.abs(t), outer)
        slope = np.maximum(a - flat, 0)
        return np.copysign(top * (a - bend * slope * slope), t)

    across = (np.arange(width)[:, None] - (width - 1) / 2) * np.cos(angles)
    most = math.ceil(2 * float(outer.max()) / spacing) + 1  # bins that a pixel touches
    offset = (np.arange(len(angles), dtype=np.int32) * bins)[:, None]
    weight = np.empty((width, len(angles), most), dtype=np.float32)
    # room for every bin that could be touched; what is not needed is never written, and costs none
    room = height * width * len(angles) * most
    values, columns = np.empty(room, dtype=np.float32), np.empty(room, dtype=np.int32)
    start = np.zeros(height * width + 1, dtype=np.int64)
    filled = 0
    for row in range(height):
        center = across + ((height - 1) / 2 - row) * np.sin(angles)  # (W, angles)
        left = np.floor((center - outer) / spacing + origin)
        below = area((left - origin) * spacing - center)
        for k in range(most):
            above = area((left + (k + 1 - origin)) * spacing - center)
            weight[..., k], below = (above - below) / spacing, above
        bin_ = left.astype(np.int32)[..., None] + np.arange(most, dtype=np.int32)
        keep = ((weight > 1e-9) & (bin_ >= 0) & (bin_ < bins)).reshape(width, -1)
        counts = np.count_nonzero(keep, axis=1)
        place = slice(filled, filled + int(counts.sum()))
        np.compress(keep.ravel(), weight, out=values[place])
        np.compress(keep.ravel(), bin_ + offset, out=columns[place])
        start[row * width + 1 : (row + 1) * width + 1] = filled + np.cumsum(counts)
        filled = place.stop
    if filled >= 2**31:
        raise ValueError(
            f"ParallelCT: {len(angles)} angles of a {height}x{width} image need {filled} "
            "matrix entries, wanted at most 2^31: fewer angles or a smaller image"
        )
    parts = values[:filled], columns[:filled], start.astype(np.int32)
    return csr_array(parts, shape=(height * width, len(angles) * bins))
