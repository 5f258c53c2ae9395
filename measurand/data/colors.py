"""Colours that a file stores in another way than as grey or RGB: palettes, CMYK, YCbCr, odd bits.

Each function takes what a page of a TIFF stores and returns what it shows; `page` is that of
`tifffile`. What has no one meaning is refused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .sources import UnreadableFile

__all__ = ["DECODED", "from_cmyk", "from_palette", "from_ycbcr", "full_range", "white_is_zero"]

DECODED = (7, 34892)  # JPEG: decoders return RGB for YCbCr
_USUAL = (0, 255, 128, 255, 128, 255)  # black and white of luma and both chroma
_PLAIN = (1, 5, 8, 32773, 32946, 34925, 50000)  # lossless bytes: samples are still YCbCr


def full_range(samples: np.ndarray, bits: int) -> np.ndarray:
    """Returns unsigned samples of odd bits spread over the range of their type."""
    if samples.dtype.kind != "u" or bits == 8 * samples.dtype.itemsize:
        return samples
    white, widest = 2**bits - 1, int(np.iinfo(samples.dtype).max)
    wide = samples.astype(np.uint64)
    return ((wide * widest + white // 2) // white).astype(samples.dtype)


def white_is_zero(name: str, page: Any, samples: np.ndarray) -> np.ndarray:
    """Returns grey samples of which zero is black, made of those of which it is white."""
    if samples.dtype.kind == "b":
        software = page.tags.get(305)
        if software is not None and str(software.value).startswith("tifffile"):
            return samples  # it stores True as 1, and calls that black
        return ~samples
    if samples.dtype.kind == "u":
        return np.iinfo(samples.dtype).max - samples
    raise UnreadableFile(
        f"{name}: got samples of {samples.dtype} of which zero is white, wanted unsigned ones"
    )


def from_palette(name: str, page: Any, index: np.ndarray) -> np.ndarray:
    """Returns what the palette of a page has for each index, 8 bits each: RGB, or grey alone."""
    table = page.colormap
    if table is None or index.dtype.kind not in "bu" or int(index.max()) >= table.shape[1]:
        raise UnreadableFile(f"{name}: got a palette that lacks some of its colours")
    colors = (table if (table != table[0]).any() else table[:1]).T[index.astype(np.intp)]
    return colors.astype(np.uint8) if table.max() < 256 else (colors >> 8).astype(np.uint8)


def from_cmyk(name: str, inks: np.ndarray) -> np.ndarray:
    """Returns RGB of four inks on white paper: what each and the black let through."""
    if inks.dtype.kind != "u":
        raise UnreadableFile(f"{name}: got CMYK of {inks.dtype}, wanted unsigned samples")
    white = int(np.iinfo(inks.dtype).max)
    paper = white - inks.astype(np.uint64)
    light = (paper[..., :3] * paper[..., 3:] + white // 2) // white
    return light.astype(inks.dtype)


def from_ycbcr(name: str, page: Any, samples: np.ndarray) -> np.ndarray:
    """Returns RGB of YCbCr at full range, as JFIF and TIFF 6.0 (section 21) define it."""
    ends = page.tags.get(532)
    values = [] if ends is None else np.divide(*np.reshape(ends.value, (-1, 2)).T.astype(float))
    usual = len(values) in (0, 6) and np.allclose(values if len(values) else _USUAL, _USUAL)
    if samples.dtype != np.uint8 or not usual or page.compression not in _PLAIN:
        raise UnreadableFile(f"{name}: got YCbCr of an unusual kind, wanted RGB")
    tag = page.tags.get(529)
    luma = np.array((299, 1000, 587, 1000, 114, 1000) if tag is None else tag.value, float)
    red, green, blue = luma[::2] / luma[1::2]
    y, cb, cr = np.moveaxis(samples.astype(np.float64), 2, 0) - [[[0]], [[128]], [[128]]]
    r = y + cr * (2 - 2 * red)
    b = y + cb * (2 - 2 * blue)
    g = (y - red * r - blue * b) / green
    return np.stack([r, g, b], axis=2).round().clip(0, 255).astype(np.uint8)
