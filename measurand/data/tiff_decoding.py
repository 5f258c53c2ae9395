"""Samples of one page of a TIFF, decoded by tifffile, or by pillow where it keeps every bit."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from functools import cache
from typing import Any, BinaryIO

import numpy as np

from .limits import inflates, sized
from .sources import File, UnreadableFile

__all__ = ["decode", "facts", "opened_by_pillow"]

_INFLATED = (8, 32946, 34925)  # deflate, its older number, LZMA
_PART = 2**15  # bytes of a strip, which cannot unpack to more than 256 MiB

# (photometric, samples, bits, sample format) -> the mode in which pillow keeps every bit
_MODES = {
    (0, 1, 1, 1): "1",
    (1, 1, 1, 1): "1",
    (0, 1, 8, 1): "L",
    (1, 1, 2, 1): "L",
    (1, 1, 4, 1): "L",
    (1, 1, 8, 1): "L",
    (1, 2, 8, 1): "LA",
    (1, 1, 12, 1): "I;16",
    (1, 1, 16, 1): "I;16",
    (1, 1, 32, 3): "F",
    (2, 3, 8, 1): "RGB",
    (2, 4, 8, 1): "RGBA",
    (3, 1, 8, 1): "P",
    (5, 4, 8, 1): "CMYK",
    (6, 3, 8, 1): "RGB",
}


def facts(page: Any) -> tuple[int, int, Any, int]:
    """Returns photometric interpretation, samples per pixel, bits and format of a sample."""
    return (
        int(page.photometric),
        page.samplesperpixel,
        page.bitspersample,
        int(page.sampleformat or 1),
    )


def opened_by_pillow(opened: BinaryIO) -> Callable[[], Any]:
    """Returns what opens a file with pillow when it is first called: once for all of its pages."""

    @cache
    def picture() -> Any:
        from PIL import Image

        opened.seek(0)
        return Image.open(io.BytesIO(opened.read()), formats=("TIFF",))

    return picture


def decode(
    source: File, opened: BinaryIO, page: Any, plane: int, pillow: Callable[[], Any]
) -> tuple[np.ndarray, str]:
    """Returns samples (H, W, C) of a page, and the pillow mode they have if pillow decoded them.

    Args:
        source: The file.
        opened: The same, open.
        page: The page, as tifffile has it.
        plane: Which of the images that stand behind its one directory.
        pillow: Returns the file as opened by pillow, see `opened_by_pillow`.
    Raises:
        UnreadableFile: It is cut off, or compressed in a way that nothing here unpacks exactly.
    """
    size = opened.seek(0, io.SEEK_END)
    sized(source.name, page.nbytes, size)
    if plane:
        start = page.dataoffsets[0] + plane * page.nbytes
        opened.seek(start)
        content = opened.read(page.nbytes)
        if len(content) < page.nbytes:
            raise UnreadableFile(f"{source.name}: page {plane} is cut off at the end of the file")
        kind = page.dtype.newbyteorder(page.parent.byteorder)
        planes = np.frombuffer(content, kind).reshape(page.shaped)
        return _channels_last(planes.astype(page.dtype)), ""
    missing = _missing_codec(page)
    if not missing:
        _inflates(source, opened, page)
        try:
            return _channels_last(page.asarray(squeeze=False)), ""
        except (ImportError, NotImplementedError) as error:
            missing = str(error)
    if page.dtype.kind != "c" and facts(page) in _MODES:
        found = _by_pillow(pillow, page)
        if found is not None:
            return found
    photometric, samples, bits, _ = facts(page)
    kind = getattr(page.compression, "name", page.compression)
    layout = ", one channel after the other (planar)" if page.shaped[0] > 1 else ""
    raise UnreadableFile(
        f"{source.name}: got {samples} x {bits} bits of {page.photometric.name}{layout}, "
        f"compressed by {kind}, which only the package imagecodecs unpacks without loss: pip "
        "install imagecodecs (the extra, pip install 'measurand[tiff]'), or save the file "
        "uncompressed or with deflate"
    )


def _inflates(source: File, opened: BinaryIO, page: Any) -> None:
    """Checks that no strip or tile of a page unpacks to more than it should have."""
    if int(page.compression) not in _INFLATED:
        return
    size = (
        math.prod(page.chunks) * page.dtype.itemsize + page.imagelength
    )  # rows end in whole bytes
    for start, stored in zip(page.dataoffsets, page.databytecounts, strict=False):
        if stored > _PART:
            opened.seek(start)
            content = opened.read(min(stored, 2 * size + _PART))
            inflates(source.name, content, size, by_lzma=int(page.compression) == 34925)


def _channels_last(planes: np.ndarray) -> np.ndarray:
    """(H, W, C) of the (S, 1, H, W, C) that tifffile has: one of S and C is 1."""
    return planes[:, 0, :, :, 0].transpose(1, 2, 0) if len(planes) > 1 else planes[0, 0]


def _missing_codec(page: Any) -> str:
    """What tifffile says if it cannot decode a page by itself; empty where it can."""
    from tifffile import TIFF

    try:
        TIFF.DECOMPRESSORS[page.compression]
        TIFF.UNPREDICTORS[page.predictor]
    except KeyError as error:
        return str(error)
    return ""


def _by_pillow(pillow: Callable[[], Any], page: Any) -> tuple[np.ndarray, str] | None:
    """The page as pillow decodes it, where that keeps what its tags say."""
    mode, alpha = _MODES[facts(page)], [int(e) for e in page.extrasamples]
    if page.compression == 6 or (mode in ("LA", "RGBA") and alpha not in ([1], [2])):
        return None
    picture = pillow()
    picture.seek(page.index)
    picture.load()
    tag = page.tags.get(274)
    size = (page.imagewidth, page.imagelength)
    if tag is not None and tag.value in (5, 6, 7, 8):
        size = size[::-1]
    if picture.size != size or picture.mode not in (mode, f"{mode}B"):
        return None
    samples = np.array(picture)
    if mode == "P":
        samples = samples.astype(page.dtype)
    return samples.reshape(*samples.shape[:2], -1), mode
