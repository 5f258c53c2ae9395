"""The true images behind a measurement, from a file, and whether they can be.

A truth in other units than the data, or one that is turned or mirrored against them (an array
beside a picture that its EXIF orientation turns, a volume beside its slices), gives metrics that
say nothing of the method. It is asked of the data: what explains them is the truth.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.files import read_stored
from ..data.form import Stored
from ..data.ranges import Range
from ..data.sources import split_key
from ..data.volumes import SUFFIXES as VOLUMES
from .measured import Measured
from .mistakes import TURNED

__all__ = ["truth_in"]

_TIMES = 3.0  # less of the data left unexplained by another reading of a truth
_SOME = 0.2  # of the data, without their mean, that a truth has to leave before others are tried


def _coded(x: Tensor, power: float) -> Tensor:
    """Real images in [-1, 1] whose samples are a power of what they were."""
    return 2 * (0.5 * (x + 1)).clamp_min(0) ** power - 1


_READINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "the order blue, green, red of its channels": lambda x: x.flip(1),
    "the reverse order of its images": lambda x: x.flip(0),
}
_SHIFTS: dict[str, Callable[[Tensor], Tensor]] = {
    "a shift by one row": lambda x: x.roll(1, -2),
    "a shift by one row back": lambda x: x.roll(-1, -2),
    "a shift by one column": lambda x: x.roll(1, -1),
    "a shift by one column back": lambda x: x.roll(-1, -1),
}
_CODES: dict[str, Callable[[Tensor], Tensor]] = {
    "its power 1 / 2.2, a gamma,": lambda x: _coded(x, 1 / 2.2),
    "its power 2.2, without a gamma,": lambda x: _coded(x, 2.2),
}


def truth_in(
    file: str | Path,
    found: Measured,
    measured_file: str | Path,
    *,
    said: Range | None,
    of_file: Range | None,
    placed: bool = True,
) -> tuple[Tensor, tuple[str, ...]]:
    """The true images behind a measurement, as much of them as lies in its frame, and notes.

    A real truth of complex images is one without a phase, as `simulate` measures it: metrics
    compare complex numbers.

    Args:
        file: The truth.
        found: What was made of the measured file: says the shape, the kind and the units.
        measured_file: The measured file.
        said: Samples of the truth that mean black and white; those of the measured file where
            None, if both are files of one kind or the data have units of their own.
        of_file: What was said of the measured file.
        placed: Whether the data tell where the image lies; beside an unknown blur they do not.
    Raises:
        ValueError: It is no image of this measurement.
    """
    operator, form = found.measurement.operator, found.form
    stored = read_stored(file)
    if said is None and not operator.pictures:
        said = form.low, form.high
    elif said is None and _kind(file) == _kind(measured_file):
        said = of_file
        # what was recognised in the data holds for the truth as well
        types = {np.dtype(stored.form.dtype).str[1:], np.dtype(form.dtype).str[1:]}
        volume = form.suffix in VOLUMES  # in units of its own, however stored
        if volume or types == {"u2"} or (form.template is not None and len(types) == 1):
            said = form.low, form.high
    kind = np.dtype(stored.form.dtype).kind
    if said is None and operator.in_dtype.is_complex and kind == "f" and not stored.x.is_complex():
        magnitudes = _magnitudes(stored, found)
        if magnitudes is not None:
            return magnitudes, ("truth: real, compared with magnitudes, in units of the file",)
    picture = stored.image(said)
    x, notes = picture.x, [f"truth: {note}" for note in picture.notes]
    if x.shape[1:] == operator.in_shape:
        x = operator.framed(x)
    inside = tuple(operator.framed(torch.empty(0, *operator.in_shape)).shape[1:])
    if x.shape[1:] != inside or len(x) not in (1, len(found.measurement)):
        beyond = "" if inside == operator.in_shape else f" or {operator.in_shape}"
        raise ValueError(
            f"{file}: got {len(x)} truths of shape {tuple(x.shape[1:])}, wanted "
            f"{len(found.measurement)} of {inside}{beyond}"
        )
    x = x.expand(len(found.measurement), *inside)
    if x.is_complex() and not operator.in_dtype.is_complex:
        raise ValueError(f"{file}: got a complex truth, the images of {operator} are real")
    if operator.in_dtype.is_complex and not x.is_complex():
        notes.append("truth: real, compared as a complex image of phase zero")
    x = x.to(operator.in_dtype) / form.unit
    return x, (*notes, *_doubts(x, found, placed))


def _doubts(x: Tensor, found: Measured, placed: bool) -> list[str]:
    """Notes where another reading of a truth explains the data far better than the truth.

    That is one turned, mirrored, moved by a pixel, with its channels or images in the reverse
    order, or of another gamma, with `||y - A x|| > 3 ||y - A x'||`; and of data in units of
    their own a multiple, with the projection `s = <A u, v> / ||A u||^2` in the units of the file.
    """
    m = found.measurement
    if x.shape[1:] != m.operator.in_shape:
        return []

    def left(other: Tensor) -> float:
        return float((m.y - m.operator(other)).norm())

    as_given, scale = left(x), float((m.y - m.y.mean()).norm())
    if as_given < _SOME * scale:
        return []
    readings = {way.replace("mask", "truth"): turned for way, turned in TURNED.items()}
    readings |= _READINGS | (_SHIFTS if placed else {})
    pictures = m.operator.pictures and not x.is_complex()
    for way, other_of in (readings | (_CODES if pictures else {})).items():
        other = other_of(x)
        if other.shape == x.shape and left(other) < as_given / _TIMES:
            return [
                f"truth: {way} explains the data far better than it does as it is: metrics are of "
                "no use until both are alike"
            ]
    if pictures:
        return []
    zero = torch.zeros_like(x) if x.is_complex() else torch.full_like(x, -_zero_of(found))
    ax, y = m.operator(x - zero), m.y - m.operator(zero)
    product, power = (ax.conj() * y).sum(), float(ax.abs().square().sum())
    if power == 0:
        return []
    s = float(product.abs()) / power
    best = float((y - product / power * ax).norm())
    if as_given <= _TIMES * best or 0.8 <= s <= 1.25 or best > 0.7 * scale:
        return []
    return [
        f"truth: {s:.4g} times it explains the data far better: it is in other units, and metrics "
        "are of no use"
    ]


def _zero_of(found: Measured) -> float:
    """Minus the value in [-1, 1] of an image that is zero in the units of real data."""
    low, high = found.form.low, found.form.high
    empty = -1000.0 if found.ct else 0.0  # HU of no attenuation
    return (high + low - 2 * empty) / (high - low)


def _magnitudes(stored: Stored, found: Measured) -> Tensor | None:
    """A real truth as magnitudes of complex images; None where it is a picture without a phase.

    As a picture, by its value range, it explains the data; a magnitude does not.
    """
    m, x = found.measurement, stored.x
    if x.shape[1:] != m.operator.in_shape or len(x) not in (1, len(m)) or bool((x < 0).any()):
        return None
    x = x.float().expand(len(m), *x.shape[1:])
    if float(x.max()) <= 1.5:
        picture = (2 * x - 1).to(m.operator.in_dtype) / found.form.unit
        if float(m.residual(picture).norm()) < 0.5 * float(m.y.norm()):
            return None
    return x / found.form.unit


def _kind(file: str | Path) -> str:
    return split_key(file)[0].suffix.lower()
