"""The grid of a volume, and what becomes of it when images have other sizes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .form import Template
from .ranges import MAGNITUDE, Unit

__all__ = ["Volume", "as_stored", "resized"]


@dataclass(frozen=True)
class Volume:
    """The slices of a volume.

    Args:
        images: With shape (N, H, W), or (N, H, W, C) in colour, in units of the file.
        dtype: Type of the samples in the file, as numpy names it.
        suffix: The format, as the ending of a name.
        template: Writes a volume of the same kind.
        unit: What they are, as the file says it.
        notes: What was decided on the way, one sentence each.
    """

    images: np.ndarray
    dtype: str
    suffix: str
    template: Template
    unit: Unit = MAGNITUDE
    notes: tuple[str, ...] = ()


def resized(before: int, after: int) -> tuple[float, float]:
    """Return (f, o): sample i of the new grid lies at `f i + o` of the old one.

    k times as many samples, or as few, are k times as dense or as sparse over the same length;
    any other number has the old distance. The centre stays.
    """
    many, few = max(before, after), min(before, after)
    factor = before / after if many % few == 0 else 1.0
    return factor, (before - 1) / 2 - factor * (after - 1) / 2


def as_stored(values: np.ndarray, dtype: np.dtype, slope: float, intercept: float) -> np.ndarray:
    """Return samples u with `slope u + intercept` nearest to values, clipped to their type."""
    u = (values.astype(np.promote_types(values.dtype, np.float64)) - intercept) / slope
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        u = u.round().clip(limits.min, limits.max)
    return u.astype(dtype)
