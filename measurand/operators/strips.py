"""Pixels seen by strips of parallel lines: their weights, and the symmetries that spare most.

The weights of pixels in the bins of a detector (`tomography`) are a sparse matrix, and a product
costs the time to stream its entries from memory. Reflections of the image in an axis and in the
diagonal turn any angle into one of [0, pi/4]; the usual evenly spaced angles therefore need a
quarter of the rows only, applied to four views of the image at once. Half a turn of the image
reverses the bins of every angle, so half of the columns will do: the second half of the pixels,
last one first, sees the detector in reverse as the first half sees it. The transpose is stored
too, with the same numbers: the adjoint is exact.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "Plan",
    "bins_adjoint",
    "bins_of",
    "halves_adjoint",
    "halves_of",
    "plan_of",
    "strip_matrix",
    "views_adjoint",
    "views_of",
]

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


def halves_of(x: Tensor) -> Tensor:
    """Return the first half of the pixels beside the second, which begins with the last pixel.

    Args:
        x: Pixels in reading order, with shape (pixels, n). Of an odd number, the one in the
            middle is in the first half, and 0 in the second.
    Returns:
        Both halves, with shape ((pixels + 1) // 2, 2 n).
    """
    first = (len(x) + 1) // 2
    second = torch.nn.functional.pad(x[first:].flip(0), (0, 0, 0, len(x) % 2))
    return torch.cat([x[:first], second], 1)


def halves_adjoint(halves: Tensor, pixels: int) -> Tensor:
    """Return all pixels in reading order, with shape (pixels, n): the adjoint of `halves_of`."""
    first, second = halves.chunk(2, 1)
    return torch.cat([first, second[: pixels // 2].flip(0)])


def bins_of(halves: Tensor, bins: int) -> Tensor:
    """Return what angles see of both halves, the bins of the second in reverse.

    Args:
        halves: What they see of each, with shape (angles * bins, 2 n).
        bins: Number of bins.
    Returns:
        What they see of the image, with shape (angles * bins, n).
    """
    first, second = halves.unflatten(0, (-1, bins)).chunk(2, -1)
    return (first + second.flip(1)).flatten(0, 1)


def bins_adjoint(rows: Tensor, bins: int) -> Tensor:
    """Return the rows for both halves of the pixels: the adjoint of `bins_of`."""
    return torch.cat([rows, rows.unflatten(0, (-1, bins)).flip(1).flatten(0, 1)], 1)


def strip_matrix(
    angles: Array, axis: Array, shape: tuple[int, int], bins: int, spacing: float, pixels: int
) -> Any:
    """Return the transposed system matrix in pixels: rows are pixels, columns (angle, bin).

    Args:
        angles: Angles in [0, pi), with shape (angles,).
        axis: Where each sees the rotation axis, in bins from the middle of the detector.
        shape: Height and width of the image.
        bins: Number of bins.
        spacing: Their distance, in pixels.
        pixels: Number of pixels, from the first one in reading order.
    """
    from scipy.sparse import csr_array

    height, width = shape
    # the footprint of a pixel is a trapezoid; its area from the centre to t is an odd function
    # that grows linearly over the flat top and by a parabola over the slope, to 1/2 at the end
    c, s = np.abs(np.cos(angles)), np.abs(np.sin(angles))
    reach = (c + s) / 2
    trapezoid = [reach, np.abs(c - s) / 2, 1 / np.maximum(c, s)]
    outer, flat, top = np.array(trapezoid, dtype=np.float32)
    bend = 1 / np.maximum(2 * (outer - flat), np.float32(1e-12))

    def area(t: Array) -> Array:
        a = np.minimum(np.abs(t), outer)
        slope = np.maximum(a - flat, 0)
        return np.copysign(top * (a - bend * slope * slope), t)

    # centres of pixels on the detector, in bins from its first edge
    right = (np.arange(width)[:, None] - (width - 1) / 2) * (np.cos(angles) / spacing)
    right += bins / 2 + axis
    up = ((height - 1) / 2 - np.arange(height)[:, None]) * (np.sin(angles) / spacing)
    most = math.ceil(2 * float(reach.max()) / spacing) + 1  # bins that a pixel touches
    steps, offset = np.arange(most, dtype=np.int32), np.arange(len(angles), dtype=np.int32) * bins
    weight = np.empty((width, len(angles), most), dtype=np.float32)
    # room for every bin that could be touched; what is not needed is never written, and costs none
    room = pixels * len(angles) * most
    values, columns = np.empty(room, dtype=np.float32), np.empty(room, dtype=np.int32)
    start = np.zeros(pixels + 1, dtype=np.int64)
    filled = 0
    for row in range(math.ceil(pixels / width)):
        center = right + up[row]  # (W, angles)
        left = np.floor(center - reach / spacing)
        # float32 from here on: of the distances in the pixel, not of the places on the detector
        edge = (left - center).astype(np.float32)
        below: Any = np.float32(-0.5)
        for k in range(most):
            above = area((edge + np.float32(k + 1)) * np.float32(spacing))
            np.subtract(above, below, out=weight[..., k])
            below = above
        bin_ = left.astype(np.int32)[..., None] + steps
        keep = (weight > 1e-9) & (bin_ >= 0) & (bin_ < bins)
        bin_ += offset[:, None]
        seen = slice(row * width, min((row + 1) * width, pixels))
        keep = keep[: seen.stop - seen.start]
        counts = np.count_nonzero(keep.reshape(len(keep), -1), axis=1)
        start[seen.start + 1 : seen.stop + 1] = filled + np.cumsum(counts)
        place = slice(filled, int(start[seen.stop]))
        np.compress(keep.ravel(), weight[: len(keep)], out=values[place])
        np.compress(keep.ravel(), bin_[: len(keep)], out=columns[place])
        filled = place.stop
    if filled >= 2**31:
        raise ValueError(
            f"ParallelCT: {len(angles)} angles of a {height}x{width} image need {filled} "
            "matrix entries, wanted at most 2^31: fewer angles or a smaller image"
        )
    values[:filled] /= np.float32(spacing)
    parts = values[:filled], columns[:filled], start.astype(np.int32)
    return csr_array(parts, shape=(pixels, len(angles) * bins))
