"""Which samples of a file mean black and white: stated, given by a domain, or recognised and said.

    whole numbers    0 and 255, or 65535; where none of 16 bits is above 255, 1023, 4095 or 16383,
                     these (cameras and detectors of 8, 10, 12 and 14 bits); Hounsfield units, also
                     + 32768
    real numbers     0 and 1, or -1 and 1, where the samples lie about there, the largest above
                     0.01: a darker picture is all noise to a prior; Hounsfield units
    volumes          CT in DICOM is in Hounsfield units; other values of NIfTI, MetaImage and DICOM
                     that are not negative are magnitudes without a unit: 0, and their 99.5 %
                     quantile
    a domain         where a prior has a unit of its own, as one of CT has, samples that are not in
                     it are refused

Nothing is stretched to the range that the samples happen to have: a dark picture stays dark.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .sources import UnreadableFile

__all__ = [
    "HOUNSFIELD",
    "MAGNITUDE",
    "STORED",
    "Range",
    "Unit",
    "bits_of",
    "byte_order",
    "in_hounsfield",
    "value_range",
]

Range = tuple[float, float]


class Unit(NamedTuple):
    """What samples are.

    Attributes:
        name: In words.
        range: What means black and white; None where it is up to the samples.
    """

    name: str
    range: Range | None = None


# air, and dense bone; what is beyond goes beyond [-1, 1]
HOUNSFIELD = Unit("Hounsfield units", (-1000.0, 2000.0))
MAGNITUDE = Unit("magnitudes without a unit")
STORED = Unit("stored samples of CT, without a rescale")
_AIR = (-3100.0, -900.0)  # the least value of a CT slice, with what scanners pad with
_METAL = 2e4
_OFFSET = 32768.0  # that some programs add to write signed samples as unsigned
_BITS = (8, 10, 12, 14)
_SMOOTHER = 0.3  # steps between neighbours, in standard deviations, of right bytes to wrong ones
_MANY = 0.002  # of the samples that are one value
_DARK, _BLACK = 0.05, 0.01  # of white: seldom a picture, and none


def value_range(
    name: str,
    samples: np.ndarray,
    kind: np.dtype,
    stated: Range | None = None,
    window: Range | None = None,
    unit: Unit | None = None,
) -> tuple[float, float, str]:
    """Return the samples that mean -1 and 1, and a sentence where they had to be guessed.

    Args:
        name: The file, for messages.
        samples: All of them, real and finite.
        kind: Their type in the file.
        stated: What the user or the file says.
        window: The range of the prior's domain in Hounsfield units; None for other domains.
        unit: What the samples are, where the format says so.
    Raises:
        ValueError: The stated range is empty.
        UnreadableFile: Nobody says, and it cannot be told.
    """
    if stated is not None:
        low, high = map(float, stated)
        if not (low < high and np.isfinite([low, high]).all()):
            raise ValueError(
                f"value range: got {stated}, wanted two finite numbers, LOW below HIGH"
            )
        return low, high, ""
    low, high = float(samples.min()), float(samples.max())
    if unit == STORED and 0 <= low < high:
        raise UnreadableFile(
            f"{name}: samples span [{low:.4g}, {high:.4g}], wanted Hounsfield units, in which air "
            "and fat are below 0: these are stored samples without a rescale, u - 1024 most often "
            "(--value-range 24 3024; if they are Hounsfield units, --value-range -1000 2000)"
        )
    shown = f"samples span [{low:.4g}, {high:.4g}]"
    for offset, words in ((0.0, "Hounsfield units"), (_OFFSET, "Hounsfield units + 32768")):
        looks = _of_tissue(low - offset, high - offset, kind)
        if looks or (unit == HOUNSFIELD and not offset):
            ends = window or HOUNSFIELD.range or (low, high)
            said = f"{shown}: taken as {words}, {ends[0]:g} and {ends[1]:g} HU as black and white"
            return ends[0] + offset, ends[1] + offset, said
    if window is not None:
        raise UnreadableFile(
            f"{name}: {shown}, and the prior wants Hounsfield units; say which samples mean "
            f"{window[0]:g} and {window[1]:g} HU (--value-range LOW HIGH; of attenuations mu they "
            f"are {_attenuation(window[0])} and {_attenuation(window[1])}), or take another prior"
        )
    if kind.kind == "b":
        return 0.0, 1.0, ""
    if unit == MAGNITUDE and low >= 0 and high > 0 and kind.itemsize > 1:
        white = float(np.quantile(samples, 0.995)) or high
        return 0.0, white, f"{shown}: taken as {unit.name}, 0 and {white:.4g} as black and white"
    if kind.kind == "u" and (kind.itemsize == 1 or (kind.itemsize == 2 and high != 1)):
        return _whole(shown, high, kind)
    if kind.kind == "f" and not 0 < max(high, -low) < _BLACK:
        for ends, reach in (((0.0, 1.0), 0.5), ((-1.0, 1.0), 1.0)):
            if ends[0] - reach <= low and high <= ends[1] + reach:
                said = f"{shown}: taken as an image in [{ends[0]:g}, {ends[1]:g}]"
                if not ends[0] and 0 < high < _DARK:
                    said += ", nearly black to the prior (--value-range)"
                return *ends, said + _alone(samples, low)
    raise UnreadableFile(
        f"{name}: {kind} {shown}; say which mean black and white (--value-range LOW HIGH)"
        + _alone(samples, low)
    )


def byte_order(image: np.ndarray, kind: np.dtype) -> tuple[str, ...]:
    """Return a note where an image of 16 bits is far smoother with its bytes exchanged.

    Args:
        image: Samples, with shape (H, W, C).
        kind: Their type in the file.
    """
    if kind.kind not in "iu" or kind.itemsize != 2 or min(image.shape[:2]) < 8:
        return ()
    words = image.astype(kind.newbyteorder("="))
    rough = []
    for one in (words, words.byteswap()):
        steps = [np.abs(np.diff(one.astype(np.float64), axis=axis)).mean() for axis in (0, 1)]
        rough.append(sum(steps) / max(float(one.std()), 1e-9))
    if not rough[0] or rough[1] > _SMOOTHER * rough[0]:
        return ()
    return ("far smoother with the two bytes of its samples exchanged: is the byte order wrong?",)


def _alone(samples: np.ndarray, low: float) -> str:
    """A doubt where many samples are one negative value, far below all others; else nothing."""
    least = samples == low
    share, rest = float(least.mean()), samples[~least]
    if not (low < 0 and share > _MANY and rest.size) or rest.min() < 0:
        return ""
    if rest.min() - low < rest.max() - rest.min():
        return ""
    return (
        f"; {100 * share:.3g} % are exactly {low:g} and no other is below 0: if that means no "
        "data, save NaN there"
    )


def in_hounsfield(samples: np.ndarray, kind: np.dtype, unit: Unit | None) -> bool:
    """Return whether samples are Hounsfield units, by what the format says or by their values.

    Args:
        samples: Real samples.
        kind: Their type in the file.
        unit: What they are, where the format says so.
    """
    low, high = float(np.nanmin(samples)), float(np.nanmax(samples))
    return unit == HOUNSFIELD or any(_of_tissue(low - o, high - o, kind) for o in (0.0, _OFFSET))


def _of_tissue(low: float, high: float, kind: np.dtype) -> bool:
    wide = kind.kind in "iuf" and kind.itemsize >= 2
    return wide and _AIR[0] <= low <= _AIR[1] and -100 < high < _METAL


def bits_of(high: float) -> int:
    """Return how many bits samples of 16 use whose largest is `high`: 8, 10, 12, 14 or 16."""
    return next((bits for bits in _BITS if 0 < high < 2**bits), 16)


def _whole(shown: str, high: float, kind: np.dtype) -> tuple[float, float, str]:
    """The range of unsigned whole numbers."""
    top = float(np.iinfo(kind).max)
    bits = bits_of(high) if kind.itemsize == 2 else 16
    if bits == 16:
        return 0.0, top, ""
    white = 2.0**bits - 1
    all_bits = f"(--value-range 0 {top:g} for all 16)"
    return 0.0, white, f"{shown}: taken as {bits} bits, {white:g} as white {all_bits}"


def _attenuation(hu: float) -> str:
    """`mu = mu_water (1 + HU / 1000)`, in words."""
    return f"{1 + hu / 1000:g} mu_water" if hu != -1000 else "0"
