"""Point spread functions from files: kernels of sum one, or what a camera or microscope measured.

A kernel that sums to one was normalised by somebody, and only its place is looked at. Anything
else is a measured PSF, and four things of the measurement are taken away:

    hot pixels   far above all of their neighbours, beside light that is spread over several pixels
    background   the mean of the outermost pixels without outliers (the median of counts is whole,
                 and of noise that is cut at zero too low), where that is positive and these are
                 alike: in the corners as between them, but for their noise, which the tail of a
                 spot is not, and within a tenth of the peak
    place        the middle of the light, where it lies in the four corners, as numpy.fft has it;
                 else the centre of mass of what is above a tenth of the peak, which is moved to
                 the middle by whole pixels; the planes of a colour PSF are moved together. Of sum
                 one it is moved where it lies more than a pixel off. `psf.tif:in-place` keeps it
                 where it is
    scale        the sum

A kernel of sum one on a background is a measured PSF, too. Negative lobes are kept.
"""

from __future__ import annotations

import numpy as np

__all__ = ["psf"]


def psf(
    told: str, values: np.ndarray, channels: int, *, in_place: bool = False
) -> tuple[np.ndarray, list[str]]:
    """Returns a point spread function of sum one, and what was done to it.

    Args:
        told: What it is, for messages.
        values: Real values with shape (h, w), or one plane for each channel of the image, first or
            last: (C, h, w) or (h, w, C).
        channels: Number C of channels of the image.
        in_place: Whether it stays where it is: it moves the image.
    Returns:
        The kernel, with shape (h, w) or (1, C, h, w).
    Raises:
        ValueError: It has another shape, no light, or is a filter of differences.
    """
    planes, notes = _planes(told, values.astype(np.float64), channels)
    _check_light(told, planes)
    _check_negative(told, planes)
    hot = np.array([_hot(plane) for plane in planes])
    if hot.any() and (np.abs(planes.sum((-2, -1)) - 1) > 1e-3).any():
        notes.append(f"{int(hot.sum())} hot pixels replaced by the median of their neighbours")
        middles = np.array([np.median(_around(plane), 0) for plane in planes])
        planes = np.where(hot, middles, planes)
    if not in_place and _in_corners(planes):
        planes = np.fft.fftshift(planes, axes=(-2, -1))
        notes.append(
            "its light lies in the four corners, as numpy.fft has it: moved to the middle "
            "(FILE:in-place keeps its place)"
        )
    total = planes.sum((-2, -1), keepdims=True)
    background = np.array([_background(plane) for plane in planes])
    measured = bool(background.any() or (np.abs(total - 1) > 1e-3).any())
    if background.any():
        levels = ", ".join(f"{level:.4g}" for level in background)
        notes.append(f"background of {levels} subtracted, the mean of its border")
        planes = planes - background[:, None, None]
        _check_light(told, planes)
    off = _offset(planes)
    if in_place and np.hypot(*off) > 1:
        notes.append(
            f"its centre of mass lies {off[0]:.1f} rows and {off[1]:.1f} columns from its "
            "middle: the image is moved by as much"
        )
    elif not in_place and (measured or np.hypot(*off) > 1):
        planes, moved = _centred(planes)
        if moved != (0, 0):
            notes.append(
                f"centred: moved by {moved[0]} rows and {moved[1]} columns (FILE:in-place keeps "
                "its place)"
            )
    if measured:
        total = planes.sum((-2, -1), keepdims=True)
        sums = ", ".join(f"{one:.6g}" for one in total.flat)
        notes.append(f"divided by its sum, {sums}")
    off = _offset(planes)
    half = [axis for axis, d in zip(("rows", "columns"), off, strict=True) if abs(d) > 0.25]
    if half and np.hypot(*off) <= 1:
        notes.append(
            f"its centre of mass lies {off[0]:.2f} rows and {off[1]:.2f} columns from its middle "
            "pixel: the image is moved by as much; a PSF with an odd number of "
            f"{' and '.join(half)}, its peak in the middle pixel, moves nothing"
        )
    planes = planes / total
    return (planes[0] if len(planes) == 1 else planes[None]), notes


def _planes(told: str, values: np.ndarray, channels: int) -> tuple[np.ndarray, list[str]]:
    """The values as one plane, or as many as the image has channels."""
    found = values
    if found.ndim == 4 and 1 in found.shape[:2]:
        found = found.reshape(-1, *found.shape[2:])
    if found.ndim == 3 and found.shape[2] <= 4 and len(found) not in (1, channels):
        found = np.moveaxis(found, 2, 0)  # as pictures have them
    if found.ndim == 3 and len(found) > 1 and (found == found[:1]).all():
        found = found[:1]
    if found.ndim == 2:
        return found[None], []
    if found.ndim == 3 and len(found) == 1:
        return found, []
    if found.ndim == 3 and len(found) == channels:
        return found, [f"{channels} planes taken as one for each channel of the image"]
    if found.ndim < 2:
        raise ValueError(f"{told} has shape {values.shape}, wanted a kernel (h, w)")
    count = f", {len(found)} planes" if found.ndim == 3 else ""
    every = f", or a plane for each of {channels} channels" if channels > 1 else ""
    raise ValueError(
        f"{told} has shape {values.shape}{count}, wanted one kernel (h, w){every}: "
        "save the one you mean, such as np.save('kernel.npy', a[0])"
    )


def _check_light(told: str, planes: np.ndarray) -> None:
    total, absolute = planes.sum((-2, -1)), np.abs(planes).sum((-2, -1))
    if (absolute == 0).any():
        raise ValueError(f"{told} is zero everywhere, wanted some light")
    if (total < 0.01 * absolute).any():
        at = int(np.argmin(total / absolute))
        raise ValueError(
            f"{told} has the sum {total[at]:.3g}, of magnitudes {absolute[at]:.3g}: a "
            "filter of differences, which takes the light away; wanted a blur, which keeps it "
            "(it is divided by its sum)"
        )


def _check_negative(told: str, planes: np.ndarray) -> None:
    """Raise a `ValueError` where a PSF is a negative, brightest all along its border."""
    for plane in planes:
        # most of a negative is bright; a ring or a square that touches the border is not
        if min(plane.shape) < 7 or np.median(plane) < 0.7 * plane.max():
            continue
        border = np.median(np.concatenate([plane[0], plane[-1], plane[:, 0], plane[:, -1]]))
        inside = plane[1:-1, 1:-1]
        if border > 0.9 * plane.max() and inside.min() < 0.5 * border and border > inside.mean():
            raise ValueError(
                f"{told} is brightest along its border, {border:.4g}, and down to "
                f"{inside.min():.4g} inside: a negative? wanted light on a dark ground, such as "
                "a.max() - a"
            )


def _background(plane: np.ndarray) -> float:
    """The level on which a PSF stands; zero where its border is not alike, or does not matter."""
    if min(plane.shape) < 5:
        return 0.0
    edges = [plane[0], plane[-1], plane[1:-1, 0], plane[1:-1, -1]]
    border = np.concatenate(edges)
    corners = np.concatenate([np.delete(edge, _middle(edge)) for edge in edges])
    between = np.concatenate([edge[_middle(edge)] for edge in edges])
    level = _typical(border)
    # neighbours differ by noise alone, along a tail as well
    noise = 1.05 * float(np.median(np.abs(np.concatenate([np.diff(edge) for edge in edges]))))
    error = 2 * noise * np.sqrt(1 / len(corners) + 1 / len(between))
    alike = abs(_typical(corners) - _typical(between)) <= 0.2 * level + error
    quiet = np.quantile(np.abs(border - level), 0.9) < 0.1 * (plane.max() - level)
    matters = level * plane.size > 0.005 * np.abs(plane).sum()
    return level if alike and quiet and matters else 0.0


def _around(plane: np.ndarray) -> np.ndarray:
    """The eight neighbours of each pixel, with shape (8, h, w); of the border, mirrored ones."""
    (h, w), wide = plane.shape, np.pad(plane, 1, mode="reflect")
    at = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    return np.stack([wide[i : i + h, j : j + w] for i, j in at])


def _hot(plane: np.ndarray) -> np.ndarray:
    """Which pixels stand alone, away from light that is spread over several."""
    none = np.zeros(plane.shape, bool)
    if min(plane.shape) < 5:
        return none
    x = plane - np.median(plane)
    around = _around(x)
    alone = x > 20 * np.abs(around).max(0)
    rest = np.where(alone, np.median(around, 0), x)
    light = _around(rest).mean(0)
    border = np.concatenate([x[0], x[-1], x[:, 0], x[:, -1]])
    noise = 1.5 * float(np.median(np.abs(border - np.median(border))))
    if not (light.max() > 5 * noise and light.max() > 0.3 * rest.max() > 0):
        return none
    return alone & (x > 0.3 * rest.max()) & (light < 0.5 * light.max())


def _typical(values: np.ndarray) -> float:
    """The mean without what lies more than three standard deviations from it."""
    for _ in range(5):
        values = values[np.abs(values - values.mean()) <= 3 * values.std()]
    return float(values.mean())


def _in_corners(planes: np.ndarray) -> bool:
    """Whether the light lies in all four corners, and close together across the border."""
    light = np.abs(planes).mean(0)
    light = np.where(light > 0.1 * light.max(), light, 0.0)
    h, w = (max(1, n // 4) for n in light.shape)
    corners = np.concatenate([light[:h], light[-h:]])
    corners = np.concatenate([corners[:, :w], corners[:, -w:]], axis=1)
    parts = [c.sum() for c in (light[:h, :w], light[:h, -w:], light[-h:, :w], light[-h:, -w:])]
    inside = corners.sum() > 0.9 * light.sum() and min(parts) > 0.02 * light.sum()
    return min(light.shape) >= 5 and bool(inside)


def _middle(edge: np.ndarray) -> slice:
    """The inner half of an edge."""
    return slice(len(edge) // 4, len(edge) - len(edge) // 4)


def _offset(planes: np.ndarray) -> tuple[float, float]:
    """How far the centre of mass lies from the middle (h // 2, w // 2), in rows and columns."""
    mean = planes.mean(0)
    light = np.where(mean > 0.1 * mean.max(), mean, 0.0)
    height, width = mean.shape
    i, j = np.mgrid[:height, :width]
    return (
        float((light * i).sum() / light.sum() - height // 2),
        float((light * j).sum() / light.sum() - width // 2),
    )


def _centred(planes: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """The planes with their centre of mass in the middle, and by how much it was moved.

    Rows and columns of zeros are put on one side, so that nothing is lost.
    """
    rows, columns = (round(off) for off in _offset(planes))
    pads = [(0, 0), *((max(-2 * d, 0), max(2 * d, 0)) for d in (rows, columns))]
    return np.pad(planes, pads), (-rows, -columns)
