"""What k-space itself says of how it was stored: the order of its axes, its centre, its gaps.

The energy of k-space lies around the zero frequency, along rows and along columns, and is spread
along the axes of coils and slices. With e_n the energy at index n of an axis of length N,

    centre = sum of e over the N / 4 indices around N // 2,     corner = the same around 0,

as shares of the whole: centred k-space has large centres, that of `numpy.fft` without `fftshift`
large corners, and an axis that is none of k-space neither. The k-space of an image whose own
origin is at its corner (no `ifftshift` before the transform) changes its sign from each sample
to the next. What was not sampled is exactly zero for every coil. Images that were not transformed
have little of their energy in the middle quarter of both axes, and their transform has it there.
"""

from __future__ import annotations

import numpy as np

__all__ = ["gaps", "misplaced", "unordered", "untransformed"]

_CLEAR, _SPREAD = 0.6, 0.45  # shares of energy that lie around one place, and that do not
_IMAGE = 0.3  # the largest share of an image's energy in the middle quarter of both axes
_TURNED = -0.3  # correlation of neighbours whose signs change


def unordered(y: np.ndarray) -> str:
    """Return what contradicts the axes (coils, H, W) of k-space; empty where nothing does.

    Args:
        y: k-space of one slice, with shape (coils, H, W).
    """
    shares = [max(_shares(y, axis)) for axis in range(3)]
    if max(shares) <= _CLEAR or min(shares[1:]) >= _SPREAD:
        return ""
    told = f"the energy along the last three axes lies {_listed(shares)} % around one place"
    if shares[0] > _CLEAR and shares[1] > _CLEAR:
        advice = (
            "the last axis seems to be that of the coils: np.moveaxis(kspace, -1, -3), or of the "
            "slices: np.moveaxis(kspace, -1, 0)"
        )
    elif shares[0] > _CLEAR and shares[2] > _CLEAR:
        advice = "the middle axis seems to be that of the coils: np.moveaxis(kspace, -2, -3)"
    elif shares[0] > _CLEAR:
        advice = "the axes seem to be in reverse, as MATLAB writes them: kspace.transpose()"
    else:
        advice = "put them in this order by np.moveaxis"
    return f"{told}, wanted (slices, coils, H, W), so much of it along both of the last; {advice}"


def misplaced(y: np.ndarray) -> str:
    """Return what is wrong with the place of the zero frequency; empty where nothing is.

    Args:
        y: k-space, with shape (..., H, W).
    """
    for axis, name in ((-2, "rows"), (-1, "columns")):
        centre, corner = _shares(y, axis)
        if corner > max(_SPREAD, 2 * centre):
            return (
                f"its zero frequency is at index 0 of the {name}, wanted index N // 2: "
                "np.fft.fftshift(kspace, axes=(-2, -1)), and the same for a mask"
            )
    for axis, name in ((-2, "rows"), (-1, "columns")):
        if _correlation(y, axis) < _TURNED:
            return (
                f"its image has the origin at index 0 of the {name}, so that its halves are "
                "exchanged; wanted the origin at N // 2: transform "
                "np.fft.ifftshift(image, axes=(-2, -1))"
            )
    return ""


def untransformed(y: np.ndarray) -> str:
    """Return what to do about images where k-space is wanted; empty where it is k-space.

    Args:
        y: k-space, with shape (..., H, W).
    """
    axes = (-2, -1)
    turned = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(y, axes=axes)), axes=axes)
    if _inside(y) < _IMAGE and _inside(turned) > _CLEAR:
        return (
            f"{100 * _inside(y):.0f} % of its energy lie in the middle quarter of both axes, and "
            f"{100 * _inside(turned):.0f} % of that of its Fourier transform: these are images, "
            "not k-space; save np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(a, axes=(-2, -1)), "
            "norm='ortho'), axes=(-2, -1))"
        )
    return ""


def gaps(y: np.ndarray) -> str:
    """Return which samples are zero between others that are not; empty where there are none.

    What lies beyond all samples, and in the corners beyond an ellipse, may be zero: a scanner
    fills these up.

    Args:
        y: k-space of one slice, with shape (coils, H, W).
    """
    seen = (y != 0).any(0)
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    if not len(rows):
        return ""
    box = seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    for axis, name in ((0, "columns"), (1, "rows")):
        empty = int((~box.any(axis)).sum())
        if empty:
            return f"{empty} of {box.shape[1 - axis]} {name} are zero between others that are not"
    i, j = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in box.shape)
    inside = i[:, None] ** 2 + j**2 <= 1
    empty = int((inside & ~box).sum())
    if empty > 0.05 * inside.sum():
        return f"{empty} of {int(inside.sum())} samples are zero between others that are not"
    return ""


def _shares(y: np.ndarray, axis: int) -> tuple[float, float]:
    """Shares of the energy around the middle of an axis, and around its first index."""
    length = y.shape[axis]
    others = tuple(k for k in range(y.ndim) if k != axis % y.ndim)
    energy = np.square(np.abs(y / (np.abs(y).max() or 1)), dtype=np.float64).sum(others)
    if length < 4 or not energy.sum() > 0:
        return 0.0, 0.0
    width = max(1, round(length / 4))
    start = length // 2 - width // 2
    found = [
        float(np.roll(energy, shift)[start : start + width].sum() / energy.sum())
        for shift in (0, length // 2)
    ]
    return found[0], found[1]


def _inside(y: np.ndarray) -> float:
    """Share of the energy in the middle quarter of rows and columns."""
    energy = np.square(np.abs(y / (np.abs(y).max() or 1)), dtype=np.float64)
    (top, rows), (left, columns) = ((n // 2 - n // 8, max(1, n // 4)) for n in y.shape[-2:])
    inside = energy[..., top : top + rows, left : left + columns]
    return float(inside.sum() / energy.sum()) if energy.sum() > 0 else 1.0


def _correlation(y: np.ndarray, axis: int) -> float:
    """Correlation of neighbours along an axis, its real part."""
    y = np.moveaxis(y / (np.abs(y).max() or 1), axis, 0)
    energy = float(np.square(np.abs(y), dtype=np.float64).sum())
    if len(y) < 8 or energy == 0:
        return 0.0
    return float((y[:-1].conj() * y[1:]).sum().real) / energy


def _listed(shares: list[float]) -> str:
    return ", ".join(f"{100 * share:.0f}" for share in shares)
