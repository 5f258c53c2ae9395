r"""Parallel-beam computed tomography.

A detector bin at the position s under the angle theta sees the strip of lines

    x cos(theta) + y sin(theta) = s + t,   |t| <= spacing / 2,

with x to the right, y upwards and the origin, which is the rotation axis, at the centre of the
image. Of n bins, bin j sees `s = (j - (n - 1) / 2 - axis) spacing`: the axis is seen `axis` bins
from the middle of the detector. The measurement is the mean over the strip of the line integrals,
value times length: numbers without unit where the image is attenuation mu in 1/mm and pixels are
in mm, or mu per pixel side where `pixel` is 1. Pixels are squares of constant
value, so the weight of a pixel is exact: seen under theta its line integrals form a trapezoid
(the convolution of two boxes, of widths |cos| and |sin|), and the bin takes its area over the bin
divided by the spacing. Nothing is lost between bins, so every projection has the same sum.

The weights are a sparse matrix, and a product costs the time to stream its entries from memory.
Reflections of the image in an axis and in the diagonal turn any angle into one of [0, pi/4]; the
usual evenly spaced angles therefore need a quarter of the rows only, applied to four views of the
image at once. The transpose is stored too, with the same numbers: the adjoint is exact.
"""

import math
import warnings
from functools import cache
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .base import LinearOperator, Shape
from .function import linear_pair

__all__ = ["ParallelCT", "even_angles", "radians"]

Array = NDArray[Any]
_TURN = 2 * math.pi + 0.15  # radians; scanners run on for some degrees beyond a full turn


class ParallelCT(LinearOperator):
    """Parallel-beam projections of each channel of an image.

    Evenly spaced angles over a half or a full turn need the least memory and time: 256x256 with
    180 angles takes 0.1 GB, other angles up to four times that.

    Args:
        in_shape: Shape of one image, (C, H, W); or of a volume of slices, (C, D, H, W).
        angles: Array or tensor of directions of the detector axis, in radians between -2 pi and
            2 pi, with shape (angles,). At 0 the bins run along the rows of the image, at pi/2 they
            run up its columns.
        detectors: Number of detector bins; those that cover the diagonal when absent.
        spacing: Distance of the bins, in the unit of `pixel`; that of the pixels when absent.
        pixel: Side of a pixel; projections are in value times this unit.
        degrees: Whether the angles are degrees, of any size.
        axis: Where the rotation axis is seen, in bins from the middle of the detector:
            `rotation_axis` finds it. Column c, counted from 0, is `c - (detectors - 1) / 2`;
            radon of scikit-image has 0.5 for an even number of bins, and turns about pixel
            n // 2, the middle of an image of n + 1 pixels.
    """

    pictures = False  # line integrals, in value times length
    angles: Tensor
    _rays: Tensor
    _forward_start: Tensor
    _forward_value: Tensor

    def __init__(
        self,
        in_shape: Shape,
        angles: Any,
        *,
        detectors: int | None = None,
        spacing: float | None = None,
        pixel: float = 1.0,
        degrees: bool = False,
        axis: float = 0.0,
    ) -> None:
        name = type(self).__name__
        if len(in_shape) < 2:
            raise ValueError(f"{name}: got image shape {tuple(in_shape)}, wanted (C, H, W)")
        angles = torch.as_tensor(angles)
        if angles.ndim != 1 or not len(angles) or not bool(torch.isfinite(angles).all()):
            raise ValueError(
                f"{name}: got angles with shape {tuple(angles.shape)}, wanted (n,), all finite"
            )
        angles = radians(name, angles, degrees)
        spacing = pixel if spacing is None else spacing
        if not (0 < spacing < math.inf and 0 < pixel < math.inf):
            raise ValueError(
                f"{name}: got spacing {spacing} and pixel {pixel}, wanted positive lengths"
            )
        height, width = in_shape[-2:]
        diagonal = math.hypot(height, width) * pixel
        if not abs(axis) * spacing <= diagonal:
            raise ValueError(
                f"{name}: got axis {axis}, wanted bins from the middle of the detector, less than "
                f"the diagonal of the image, {diagonal / spacing:.4g} bins"
            )
        covering = math.ceil(diagonal / spacing + 2 * abs(axis))
        bins = covering if detectors is None else detectors
        if bins < 1:
            raise ValueError(f"{name}: got {detectors} detectors, wanted at least one")
        super().__init__(in_shape, (*in_shape[:-2], len(angles), bins))
        self.detectors, self.spacing, self.pixel = bins, float(spacing), float(pixel)
        self.axis = float(axis)
        plan = _plan(angles.double().cpu().numpy(), square=height == width, axis=self.axis)
        self.views = plan.views
        back = _strip_matrix(plan.folded, plan.axis, (height, width), bins, spacing / pixel)
        self.register_buffer("angles", angles.detach().float())
        self._register("_forward", back.T.tocsr(), pixel)
        self._register("_back", back, pixel)
        # ray (angle, bin) is row (folded angle, bin) of the matrix on one of the views
        order = np.arange(bins)
        bin_ = np.where(plan.reversed[:, None], order[::-1], order)
        rays = (plan.row[:, None] * bins + bin_) * plan.views + plan.view[:, None]
        self.register_buffer("_rays", torch.from_numpy(rays.ravel()), persistent=False)
        self.to(angles.device)

    def forward(self, x: Tensor) -> Tensor:
        return linear_pair(x, self._project, self._back_project)

    def adjoint(self, y: Tensor) -> Tensor:
        return linear_pair(y, self._back_project, self._project)

    def _project(self, x: Tensor) -> Tensor:
        planes = x.reshape(-1, *self.in_shape[-2:])
        seen = torch.stack(_views(planes, self.views), -1)  # (planes, H, W, views)
        columns = seen.permute(1, 2, 3, 0).reshape(-1, self.views * len(planes))
        rows = self._product("_forward", columns).reshape(-1, len(planes))
        return rows.index_select(0, self._rays).T.reshape(len(x), *self.out_shape)

    def _back_project(self, y: Tensor) -> Tensor:
        planes = y.reshape(-1, len(self._rays))
        height, width = self.in_shape[-2:]
        n = len(planes)
        rows = y.new_zeros(n, (len(self._forward_start) - 1) * self.views)
        rows = rows.index_add_(1, self._rays, planes).T.reshape(-1, self.views * n)
        seen = self._product("_back", rows).reshape(height, width, self.views, n)
        image = _views_adjoint(seen.permute(3, 0, 1, 2).unbind(-1))
        return image.reshape(len(y), *self.in_shape)

    def _register(self, name: str, matrix: Any, pixel: float) -> None:
        values = torch.from_numpy(matrix.data * np.float32(pixel))
        start, place = (
            torch.from_numpy(a.astype(np.int32)) for a in (matrix.indptr, matrix.indices)
        )
        for part, tensor in (("start", start), ("place", place), ("value", values)):
            self.register_buffer(f"{name}_{part}", tensor, persistent=False)

    def _product(self, name: str, columns: Tensor) -> Tensor:
        start, place, value = (getattr(self, f"{name}_{p}") for p in ("start", "place", "value"))
        size = (len(start) - 1, len(columns))
        dtype = torch.promote_types(value.dtype, columns.dtype)
        value, columns = value.to(dtype), columns.to(dtype).contiguous()
        if columns.device.type == "cpu" and not torch.backends.mkl.is_available():
            from scipy.sparse import csr_array

            parts = value.numpy(), place.numpy(), start.numpy()
            return torch.from_numpy(csr_array(parts, size) @ columns.numpy())
        _allow_sparse()
        matrix = torch.sparse_csr_tensor(start, place, value, size, check_invariants=False)
        if columns.shape[1] == 1:
            return (matrix @ columns[:, 0])[:, None]
        return matrix @ columns

    @classmethod
    def image_shape(  # type: ignore[override]
        cls,
        y_shape: Shape,
        detectors: int | None = None,
        spacing: float | None = None,
        pixel: float = 1.0,
        axis: float = 0.0,
    ) -> Shape:
        """Return the shape of the square image whose diagonal the detectors cover.

        Args:
            y_shape: Shape of the projections, (C, angles, detectors) or (C, D, angles, detectors).
            detectors: None; a number of detectors that was chosen says nothing of the image.
            spacing: Distance of the bins, in the unit of `pixel`; that of the pixels when absent.
            pixel: Side of a pixel.
            axis: Where the rotation axis is seen, in bins from the middle of the detector.
        """
        spacing = pixel if spacing is None else spacing
        seen = (y_shape[-1] - 2 * abs(axis)) * spacing
        side = math.floor(seen / (pixel * math.sqrt(2.0)))
        if detectors is not None or len(y_shape) < 3 or side < 1:
            raise ValueError(
                f"{cls.__name__}: projections of shape {tuple(y_shape)} with detectors = "
                f"{detectors} do not say the size of the image"
            )
        return (*y_shape[:-2], side, side)

    def trace_gram(self) -> float:
        energy = self._forward_value.double() ** 2
        squares = torch.segment_reduce(energy, "sum", offsets=self._forward_start.long())
        return float(squares[self._rays // self.views].sum()) / math.prod(self.in_shape[-2:])

    @classmethod
    def example(cls) -> Self:
        return cls((1, 6, 6), even_angles(8), detectors=9, pixel=0.5, spacing=0.4, axis=0.3)


@cache
def _allow_sparse() -> None:
    """Let torch say once, unheard, that its sparse rows are in beta."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.eye(1).to_sparse_csr()


def even_angles(count: int, turn: float = math.pi) -> Tensor:
    """Angles evenly spaced over a part of a turn, its end excluded.

    Args:
        count: Number of angles.
        turn: What they cover, in radians.
    Returns:
        The angles, with shape (count,).
    """
    return torch.arange(int(count), dtype=torch.float64) * (turn / count)


def radians(name: str, angles: Tensor, degrees: bool) -> Tensor:
    """Return angles in radians; what must have been meant as degrees, or as radians, is said.

    Args:
        name: Who asks, for the message.
        angles: The angles, with shape (angles,).
        degrees: Whether they are degrees.
    Raises:
        ValueError: They are said to be radians, and are hardly that.
    """
    largest = float(angles.double().abs().max())
    if degrees:
        if len(angles) > 8 and 0 < largest <= _TURN:
            warnings.warn(
                f"{name}: got {len(angles)} angles within {largest:.3g} degrees, which look like "
                "radians; degrees=True takes them as degrees",
                stacklevel=3,
            )
        return torch.deg2rad(angles.double())
    whole = not angles.is_floating_point()
    if largest > _TURN or (whole and largest > 0):
        got = f"that are whole numbers up to {largest:g}" if whole else f"up to {largest:.4g}"
        raise ValueError(
            f"{name}: got angles {got}, wanted radians between -2 pi and 2 pi. They look like "
            "degrees: say degrees=True (--operator.degrees), or convert them by np.deg2rad. If "
            "they are radians over several turns, take them modulo 2 pi, np.mod(angles, 2 * np.pi)"
        )
    if len(angles) > 2 and largest >= 2 and bool((angles == angles.round()).all()):
        warnings.warn(
            f"{name}: got angles that are whole numbers, up to {largest:g}, taken as radians; if "
            "they are degrees, say degrees=True (--operator.degrees)",
            stacklevel=3,
        )
    return angles


class _Plan(NamedTuple):
    """Each angle as a row of the matrix, a view of the image and a direction of the detector."""

    folded: Array  # angles of the matrix
    axis: Array  # where it sees the rotation axis, in bins
    row: Array  # index into them, per angle
    view: Array  # index into `_views`
    reversed: Array  # whether the bins run backwards
    views: int  # number of views used: 1, 2 or 4


def _plan(angles: Array, *, square: bool, axis: float) -> _Plan:
    """The cheapest of: no symmetry, the left-right flip, flip and transposition.

    A detector that is turned by half a turn is the same one with its bins in reverse and the axis
    on the other side.
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
    for folded, view, views in (
        (turn, none, 1),
        (half, flip, 2),
        (quarter, flip + 2 * across, 4),
    ):
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
                _Plan(folded[kept], side[kept], row, view.astype(np.int64), backwards, views)
            )
    return min(plans, key=lambda plan: len(plan.folded) * (1 + plan.views))


def _views(x: Tensor, views: int) -> list[Tensor]:
    """The image as it is, flipped left to right, and both with the axes exchanged (x with y)."""
    seen = [x, x.flip(-1)][:views]
    return seen + [_exchanged(v) for v in seen] if views == 4 else seen


def _views_adjoint(seen: tuple[Tensor, ...]) -> Tensor:
    if len(seen) == 4:
        seen = (seen[0] + _exchanged(seen[2]), seen[1] + _exchanged(seen[3]))
    return seen[0] + seen[1].flip(-1) if len(seen) == 2 else seen[0]


def _exchanged(x: Tensor) -> Tensor:
    """The image with x and y exchanged; y points up, against the rows."""
    return x.mT.flip(-2, -1)


def _strip_matrix(
    angles: Array, axis: Array, shape: tuple[int, int], bins: int, spacing: float
) -> Any:
    """The transposed system matrix in pixels: rows are pixels, columns (angle, bin)."""
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
    counts, columns, values = [], [], []
    for row in range(height):
        center = across + ((height - 1) / 2 - row) * np.sin(angles)  # (W, angles)
        left = np.floor((center - outer) / spacing + origin)
        below = area((left - origin) * spacing - center)
        for k in range(most):
            above = area((left + (k + 1 - origin)) * spacing - center)
            weight[..., k], below = (above - below) / spacing, above
        bin_ = left.astype(np.int32)[..., None] + np.arange(most, dtype=np.int32)
        keep = ((weight > 1e-9) & (bin_ >= 0) & (bin_ < bins)).reshape(width, -1)
        counts.append(np.count_nonzero(keep, axis=1))
        values.append(np.compress(keep.ravel(), weight))
        columns.append(np.compress(keep.ravel(), bin_ + offset))
    start = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    if start[-1] >= 2**31:
        raise ValueError(
            f"ParallelCT: {len(angles)} angles of a {height}x{width} image need {start[-1]} "
            "matrix entries, wanted at most 2^31: fewer angles or a smaller image"
        )
    parts = np.concatenate(values), np.concatenate(columns), start.astype(np.int32)
    return csr_array(parts, shape=(height * width, len(angles) * bins))
