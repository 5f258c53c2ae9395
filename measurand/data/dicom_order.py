"""Slices of one DICOM series beside each other: scale, place, gaps.

* Scale: where some objects say what a stored sample means (a slope, a table, a mapping), the
  others are no bytes of the same unit: an error that names them.
* Copies: the same object twice, or the same pixels at a place that has more images than the others
  (phases of a heart have as many at each); the later one is left out.
* Places of which some have more images than others, which are not the same: a warning.
* Gaps: steps that are longer than the usual one: a warning.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from .dicom_pixels import Frame
from .sources import Skips, UnreadableFile

__all__ = ["by_numbers", "scaled_alike", "without_copies"]

Images = Mapping[tuple[str, int], np.ndarray]
_NUMBERS = re.compile(r"(\d+)")
_MM = 2  # decimals of a position that count


def by_numbers(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts names by the numbers in them: IM8 before IM10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in _NUMBERS.split(name)]


def scaled_alike(frames: Sequence[Frame], skips: Skips) -> list[Frame]:
    """Return the frames of a series, if all or none of them say what a stored sample means.

    Those that do not say it among others that do are bad files.

    Raises:
        UnreadableFile: There are such files, and they are not to be skipped.
    """
    silent = [frame for frame in frames if not frame.rescaled]
    said = {frame.scale for frame in frames if frame.rescaled}
    mapped = any(frame.rescaled and frame.world is not None for frame in frames)
    if not silent or not (mapped or said - {(1.0, 0.0)}):
        return list(frames)
    for name in dict.fromkeys(frame.file.name for frame in silent):
        with skips.over(name):
            others = len(frames) - len(silent)
            raise UnreadableFile(
                f"{name}: says no RescaleSlope and RescaleIntercept, and {others} other images "
                "of its series do: its samples have no unit, theirs have"
            )
    return [frame for frame in frames if frame.rescaled]


def without_copies(frames: Sequence[Frame], images: Images, told: str) -> list[Frame]:
    """Return frames in order without those that are there twice; warn of them and of gaps.

    Args:
        frames: The frames of a series, in order.
        images: Their pixels.
        told: What series it is, for warnings.
    """
    counts = Counter(map(_place, frames))
    usual = min(counts.values(), default=1)
    kept: list[Frame] = []
    copies: list[str] = []
    for frame in frames:
        twins = (
            other
            for other in kept
            if _place(other) == _place(frame)
            and (counts[_place(frame)] > usual or _same_object(other, frame))
            and np.array_equal(_of(images, other), _of(images, frame))
        )
        twin = next(twins, None) if frame.position is not None or frame.instance else None
        if twin is None:
            kept.append(frame)
        else:
            copies.append(f"{frame.file.base} of {twin.file.base}")
    if copies:
        shown = ", ".join(copies[:3]) + (f" and {len(copies) - 3} more" if copies[3:] else "")
        are = "is a copy" if len(copies) == 1 else "are copies"
        _warn(f"{told}: {len(copies)} {are}, left out: {shown}")
    left = Counter(_place(frame) for frame in kept if frame.position is not None)
    doubled = [place for place, count in left.items() if count > min(left.values())]
    if doubled:
        names = [f.file.base for f in kept if _place(f) == doubled[0]]
        _warn(
            f"{told}: {len(doubled)} of {len(left)} places have more images than the others (at "
            f"{doubled[0]:g} mm {', '.join(names[:3])}), which differ: each is kept as a slice"
        )
    scales = Counter(frame.scale for frame in kept)
    usual_scale = max(scales, key=lambda scale: scales[scale], default=(1.0, 0.0))
    others = [frame for frame in kept if frame.scale != usual_scale]
    if 0 < len(others) < 0.5 * len(kept) and kept[0].modality == "CT":
        _warn(
            f"{told}: {len(others)} of {len(kept)} slices have another rescale than most, slope "
            f"and intercept {_shown(others[0].scale)} instead of {_shown(usual_scale)}: "
            f"{', '.join(frame.file.base for frame in others[:3])}"
        )
    places = [(frame.position, frame.number, frame.index) for frame in kept]
    if len(set(places)) < len(places) and all(frame.position is None for frame in kept):
        _warn(
            f"{told}: nothing says the order of its slices, neither a position nor a number: that "
            "of the names of their files is taken"
        )
    if missing := _gaps([frame.position for frame in kept if frame.position is not None]):
        are = "slice is" if missing == 1 else "slices are"
        _warn(f"{told}: {missing} {are} missing between the {len(left)} that are there")
    return kept


def _shown(scale: tuple[float, float]) -> str:
    return f"{scale[0]:g} and {scale[1]:g}"


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def _place(frame: Frame) -> float | None:
    return None if frame.position is None else round(frame.position, _MM)


def _of(images: Images, frame: Frame) -> np.ndarray:
    return images[frame.file.name, frame.index]


def _same_object(a: Frame, b: Frame) -> bool:
    return bool(a.instance) and (a.instance, a.index) == (b.instance, b.index)


def _gaps(positions: Sequence[float]) -> int:
    """How many slices are missing in steps that are longer than the usual one."""
    steps = np.diff(np.unique(np.round(positions, _MM)))
    if len(steps) < 2:
        return 0
    usual = float(np.median(steps))
    return int(sum(round(step / usual) - 1 for step in steps if step > 1.5 * usual))
