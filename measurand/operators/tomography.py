r"""Parallel-beam computed tomography.

A detector bin at the position s under the angle theta sees the strip of lines

    x cos(theta) + y sin(theta) = s + t,   |t| <= spacing / 2,

with x to the right, y upwards and the origin, which is the rotation axis, at the centre of the
image. Of n bins, bin j sees `s = (j - (n - 1) / 2 - axis) spacing`: the axis is seen `axis` bins
from the middle of the detector. The measurement is the mean over the strip of the line integrals,
value times length: numbers without unit where the image is attenuation mu in 1/mm and pixels are
in mm, or mu per pixel side where `pixel` is 1. Pixels are squares of constant value, so the weight
of a pixel is exact (`strips`): seen under theta its line integrals form a trapezoid (the
convolution of two boxes, of widths |cos| and |sin|), and the bin takes its area over the bin
divided by the spacing. Nothing is lost between bins, so every projection has the same sum.
"""

import math
import warnings
from functools import cache
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from .base import LinearOperator, Shape
from .function import linear_pair
from .strips import (
    bins_adjoint,
    bins_of,
    halves_adjoint,
    halves_of,
    plan_of,
    strip_matrix,
    views_adjoint,
    views_of,
)

__all__ = ["ParallelCT", "even_angles", "radians"]

_TOGETHER = 16  # views in a product: of more, those that an entry meets fall out of the cache
_TURN = 2 * math.pi + 0.15  # radians; scanners run on for some degrees beyond a full turn


class ParallelCT(LinearOperator):
    """Parallel-beam projections of each channel of an image.

    The integral of x along `u cos(theta) + v sin(theta) = s`, u to the right and v upwards, in
    the mean over a bin. Data have shape (B, C, angles, detectors).

        A = ms.operators.ParallelCT((1, 256, 256), ms.operators.even_angles(180), pixel=0.7)

    Evenly spaced angles over a half or a full turn need the least memory and time, other angles up
    to four times that, and an axis that is not on a whole or half bin up to twice that.

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
    Raises:
        ValueError: Angles above two turns that are not said to be degrees, or lengths that are
            not positive.
    """

    pictures = False  # line integrals, in value times length
    angles: Tensor
    _rays: Tensor
    _forward_start: Tensor
    _forward_place: Tensor
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
        # bins added on one side bring an axis of whole or half bins to the middle, where half a
        # turn of the image reverses the detector: half of the matrix does
        beside = round(2 * self.axis)
        self.halves = beside == 2 * self.axis and abs(beside) <= bins
        self._bins, middle = (bins + abs(beside), 0.0) if self.halves else (bins, self.axis)
        plan = plan_of(angles.double().cpu().numpy(), square=height == width, axis=middle)
        self.views = plan.views
        pixels = math.ceil(height * width / 2) if self.halves else height * width
        back = strip_matrix(
            plan.folded, plan.axis, (height, width), self._bins, spacing / pixel, pixels
        )
        self.register_buffer("angles", angles.detach().float())
        self._register("_forward", back.T.tocsr(), pixel)
        self._register("_back", back, pixel)
        # ray (angle, bin) is row (folded angle, bin) of the matrix on one of the views
        order = np.arange(bins) + (max(0, -beside) if self.halves else 0)
        bin_ = np.where(plan.reversed[:, None], self._bins - 1 - order, order)
        rays = (plan.row[:, None] * self._bins + bin_) * plan.views + plan.view[:, None]
        self.register_buffer("_rays", torch.from_numpy(rays.ravel()), persistent=False)
        self.to(angles.device)

    def forward(self, x: Tensor) -> Tensor:
        return linear_pair(x, self._project, self._back_project)

    def adjoint(self, y: Tensor) -> Tensor:
        return linear_pair(y, self._back_project, self._project)

    def _project(self, x: Tensor) -> Tensor:
        planes = self._together(x.reshape(-1, *self.in_shape[-2:]))
        return torch.cat([self._project_some(p) for p in planes]).reshape(len(x), *self.out_shape)

    def _back_project(self, y: Tensor) -> Tensor:
        planes = self._together(y.reshape(-1, len(self._rays)))
        image = torch.cat([self._back_project_some(p) for p in planes])
        return image.reshape(len(y), *self.in_shape)

    def _together(self, planes: Tensor) -> tuple[Tensor, ...]:
        some = max(1, _TOGETHER // self.views) if planes.device.type == "cpu" else len(planes)
        return planes.split(some)

    def _project_some(self, planes: Tensor) -> Tensor:
        seen = torch.stack(views_of(planes, self.views), -1)  # (planes, H, W, views)
        columns = seen.permute(1, 2, 3, 0).reshape(-1, self.views * len(planes))
        if self.halves:
            rows = bins_of(self._product("_forward", halves_of(columns)), self._bins)
        else:
            rows = self._product("_forward", columns)
        return rows.reshape(-1, len(planes)).index_select(0, self._rays).T

    def _back_project_some(self, planes: Tensor) -> Tensor:
        (height, width), n = self.in_shape[-2:], len(planes)
        rows = planes.new_zeros(len(self._forward_start) - 1, self.views * n)
        rows.view(-1, n).index_add_(0, self._rays, planes.T)
        if self.halves:
            both = self._product("_back", bins_adjoint(rows, self._bins))
            columns = halves_adjoint(both, height * width)
        else:
            columns = self._product("_back", rows)
        seen = columns.reshape(height, width, self.views, n)
        return views_adjoint(seen.permute(3, 0, 1, 2).unbind(-1))

    def _register(self, name: str, matrix: Any, pixel: float) -> None:
        values = torch.from_numpy(matrix.data).mul_(pixel)
        start, place = (
            torch.from_numpy(a.astype(np.int32, copy=False))
            for a in (matrix.indptr, matrix.indices)
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
    def counted(cls, y_shape: Shape) -> dict[str, int]:
        return {"detectors": y_shape[-1]} if y_shape else {}

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
        pixels = math.prod(self.in_shape[-2:])
        squares = self._forward_value.double()[:, None] ** 2
        if self.halves:  # the second one lacks the pixel in the middle of an odd number
            second = squares * (self._forward_place < pixels // 2)[:, None]
            squares = torch.cat([squares, second], 1)
        energy = torch.segment_reduce(squares, "sum", offsets=self._forward_start.long())
        energy = bins_of(energy, self._bins) if self.halves else energy
        return float(energy[self._rays // self.views].sum()) / pixels

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
    Raises:
        ValueError: The number is not a whole one, at least 1.
    """
    if not (count >= 1 and count == int(count)):
        raise ValueError(f"even_angles: got {count} angles, wanted a whole number, at least 1")
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
