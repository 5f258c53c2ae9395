"""TIFF files: the samples of one page, exactly as stored, or an error that says why not.

    compression    what `tifffile` decodes by itself (none, deflate, packbits, LZMA), others (LZW,
                   JPEG, CCITT, ...) by pillow, and only where it keeps every bit of the page
    layout         strips or tiles, channels side by side or one after the other; reduced images
                   and masks are no pages; a stack may have one directory for all of its pages
    colours        grey (white is zero or the maximum), RGB, palette, CMYK and YCbCr become grey
                   or RGB; CIELAB and raw sensor data are refused
    channels       those beyond grey and colours are opacity where ExtraSamples says so (1: the
                   colours are multiplied by it, 2: they are not), else further channels
    missing        pixels that equal the GDAL nodata value (tag 42113) in every channel

Samples of 2 to 7 and 9 to 15 bits are spread over 8 and 16.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

import numpy as np

from .colors import (
    DECODED,
    from_cmyk,
    from_palette,
    from_ycbcr,
    full_range,
    white_is_zero,
)
from .limits import PAGES, at_most, sized_in_all
from .ome import elsewhere
from .sources import File, UnreadableFile
from .tiff_decoding import decode, facts, opened_by_pillow

__all__ = [
    "SUFFIXES",
    "Samples",
    "image_pages",
    "is_tiff",
    "opened_tiff",
    "pages",
    "read",
    "upright",
]

SUFFIXES = (".tif", ".tiff")
_SHARED = 2**24  # values of tags that several pages may have in common

_UPRIGHT = {  # EXIF orientation -> (transpose, flip rows, flip columns)
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}
_COLORS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}  # photometric interpretation -> channels


@dataclass(frozen=True)
class Samples:
    """What a picture file holds, upright.

    Args:
        values: The samples, with shape (H, W) or (H, W, C), without opacity.
        further: Channels at the end that are neither grey nor one of three colours.
        alpha: Opacity, with shape (H, W) and the type of the samples.
        multiplied: Whether the colours are multiplied by the opacity.
        missing: Pixels that the file calls missing, with shape (H, W).
        profile: ICC colour profile.
        exif: EXIF data of a picture that is no TIFF.
        gamma: Exponent of the samples of a PNG, where it says so.
        dpi: Its pixels per inch, along x and y.
        pages: Number of images in the file.
        notes: What was decided on the way, one sentence each.
    """

    values: np.ndarray
    further: int = 0
    alpha: np.ndarray | None = None
    multiplied: bool = False
    missing: np.ndarray | None = None
    profile: bytes | None = None
    exif: bytes | None = None
    gamma: float | None = None
    dpi: tuple[float, float] | None = None
    pages: int = 1
    notes: tuple[str, ...] = ()


def is_tiff(source: File) -> bool:
    """Returns whether a file is a TIFF by its first bytes."""
    return source.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Returns samples (H, W[, C]) turned as an EXIF orientation says."""
    transpose, rows, columns = _UPRIGHT.get(int(orientation), (False, False, False))
    if transpose:
        samples = samples.swapaxes(0, 1)
    return samples[:: -1 if rows else 1, :: -1 if columns else 1]


def read(source: File) -> Samples:
    """Returns the samples of the first page, or of the one that the key of the `File` counts.

    Args:
        source: The file; its key is the number of a page, from 0.
    Raises:
        UnreadableFile: There is no such page, or it cannot be read without loss; the message says
            what it is and what would read it.
    """
    first = pages(source, most=1)[0]
    if first.pages > 1 and source.key is None:
        return replace(first, notes=(f"first of {first.pages} pages", *first.notes))
    return first


def pages(source: File, *, most: int | None = None) -> list[Samples]:
    """Returns the samples of all pages, or of the one that the key of the `File` counts.

    Args:
        source: The file; its key is the number of a page, from 0.
        most: Only the first so many of them.
    Raises:
        UnreadableFile: As `read`.
    """
    if len(source.read(9)) < 9:
        raise _empty(source)
    with opened_tiff(source) as (opened, tiff):
        images = image_pages(source, tiff)
        number = source.key or "0"
        if not (number.isdecimal() and int(number) < len(images)):
            raise UnreadableFile(
                f"{source.name}: no page '{number}' (write {source.base}:N, N from 0 to "
                f"{len(images) - 1})"
            )
        notes = []
        if any(_is_mask(other) for other in tiff.pages):
            notes.append("a mask page of the file is not used")
        if tiff.is_ome:
            told = tiff.pages.first.description.encode()
            notes += [note for note in [elsewhere(told, source.base, len(images))] if note]
        wanted = images[:most] if source.key is None else [images[int(number)]]
        stored = opened.seek(0, io.SEEK_END)  # which several pages may share
        sized_in_all(source.name, sum(page.nbytes for page, _ in wanted), stored)
        pillow = opened_by_pillow(opened)
        return [
            _upright_page(source, opened, pillow, page, plane, len(images), notes)
            for page, plane in wanted
        ]


@contextmanager
def opened_tiff(source: File) -> Iterator[tuple[BinaryIO, Any]]:
    """Opens a file, and the same by tifffile, which keeps to itself what it thinks of its tags."""
    import tifffile

    logger = logging.getLogger("tifffile")
    before, logger.disabled = logger.disabled, True
    try:
        with source.open() as opened, tifffile.TiffFile(opened) as tiff:
            yield opened, tiff
    finally:
        logger.disabled = before


def _upright_page(
    source: File,
    opened: BinaryIO,
    pillow: Callable[[], Any],
    page: Any,
    plane: int,
    count: int,
    notes: list[str],
) -> Samples:
    _known(source, page)
    samples, decoded = decode(source, opened, page, plane, pillow)
    found = _interpreted(source, page, samples, decoded)
    tag = page.tags.get(274)
    orientation = tag.value if tag and not decoded else 1  # pillow turns by itself
    return replace(
        found,
        values=upright(found.values, orientation),
        alpha=None if found.alpha is None else upright(found.alpha, orientation),
        missing=None if found.missing is None else upright(found.missing, orientation),
        pages=count,
        notes=(*notes, *found.notes),
    )


def image_pages(source: File, tiff: Any) -> list[tuple[Any, int]]:
    """Returns the pages that are images, each with the number of its plane behind its directory.

    Args:
        source: The file.
        tiff: The same, as tifffile has opened it.
    Raises:
        UnreadableFile: There is none, or more than can be believed.
    """
    at_most(source.name, len(tiff.pages), PAGES, "pages")
    values, stored = 0, tiff.filehandle.size
    for page in tiff.pages:  # several can have one table of strips, and each copies it
        values += sum(tag.count for tag in page.tags)
        if values > stored + _SHARED:
            raise UnreadableFile(
                f"{source.name}: its pages have {values} values of tags in {stored} bytes"
            )
    if not any(len(page.tags) for page in tiff.pages):
        raise _empty(source)
    pages = [p for p in tiff.pages if not _is_reduced(p) and not _is_mask(p)]
    if not pages:
        raise UnreadableFile(f"{source.name}: holds no image, only reduced ones or masks")
    if not all(math.prod(page.shape) for page in pages):
        raise _empty(source)
    if len(tiff.pages) == 1 and (tiff.is_imagej or tiff.is_shaped or tiff.is_stk):
        (page,), series = pages, tiff.series[0]
        planes, rest = divmod(int(series.size), max(1, math.prod(page.shape)))
        if planes > 1 and rest == 0:
            at_most(source.name, planes, PAGES, "images behind one directory")
            if series.dataoffset is None:
                raise UnreadableFile(
                    f"{source.name}: {planes} images behind one directory, and not as one block; "
                    "wanted a directory for each"
                )
            return [(page, k) for k in range(planes)]
    return [(page, 0) for page in pages]


def _empty(source: File) -> UnreadableFile:
    return UnreadableFile(
        f"{source.name}: got an empty TIFF, without a page or without pixels; writing it was "
        "perhaps interrupted, or nothing was left after a crop: write it again"
    )


def _is_reduced(page: Any) -> bool:
    old = page.tags.get(255)  # of TIFF 5: 2 is reduced
    return bool(page.is_reduced) or (old is not None and old.value == 2)


def _is_mask(page: Any) -> bool:
    return bool(page.subfiletype & 4) or page.photometric == 4


def _known(source: File, page: Any) -> None:
    """Checks that the colours and samples of a page are of a kind that is understood."""
    photometric, samples, bits, _ = facts(page)
    wanted = "wanted grey, RGB, palette, CMYK or YCbCr"
    if photometric not in _COLORS:
        kind = getattr(page.photometric, "name", photometric)
        raise UnreadableFile(f"{source.name}: got colours of kind {kind}, {wanted}")
    least = _COLORS[photometric]
    if samples < least:
        kind = getattr(page.photometric, "name", photometric)
        raise UnreadableFile(f"{source.name}: got {samples} channels of kind {kind}")
    if photometric in (3, 6) and samples > least:
        raise UnreadableFile(
            f"{source.name}: got {samples} channels, wanted {least} for a palette or YCbCr"
        )
    inks = page.tags.get(332)
    if photometric == 5 and inks is not None and inks.value != 1:
        raise UnreadableFile(f"{source.name}: got inks other than CMYK, {wanted}")
    if page.dtype is None or not isinstance(bits, int):
        raise UnreadableFile(
            f"{source.name}: got samples of {bits} bits, wanted one type for all channels"
        )
    if page.imagedepth > 1:
        raise UnreadableFile(
            f"{source.name}: got a volume of {page.imagedepth} slices in one page, wanted a page "
            "for each"
        )


def _interpreted(source: File, page: Any, samples: np.ndarray, decoded: str) -> Samples:
    """Grey or colours, opacity, further channels and missing pixels of stored samples."""
    photometric, _, bits, _ = facts(page)
    name, notes = source.name, []
    inverted = photometric == 0 and decoded == "L"
    missing = _missing(page, 255 - samples if inverted else samples)
    extras = [int(e) for e in page.extrasamples][: samples.shape[2] - _COLORS[photometric]]
    extras += [0] * (samples.shape[2] - _COLORS[photometric] - len(extras))
    profile = page.tags.get(34675)
    opaque = [k for k, extra in enumerate(extras) if extra in (1, 2)]
    if len(opaque) > 1:
        raise UnreadableFile(f"{name}: got {len(opaque)} channels of opacity, wanted one at most")
    alpha, multiplied = None, False
    if opaque:
        at = opaque[0] + _COLORS[photometric]
        alpha = full_range(np.ascontiguousarray(samples[..., at]), bits)
        samples = np.delete(samples, at, axis=2)
        multiplied = extras[opaque[0]] == 1 and decoded != "RGBA"  # pillow divides these
    further = len(extras) - len(opaque)
    if photometric == 3:
        samples = from_palette(name, page, samples[..., 0])
        notes.append(f"palette read as {'colours' if samples.shape[2] == 3 else 'grey'}")
    else:
        samples = samples if decoded == "L" else full_range(samples, bits)  # pillow spreads these
    if photometric == 0 and decoded == "":
        samples = white_is_zero(name, page, samples)
    elif photometric == 5:
        inks, others = samples[..., :4], samples[..., 4:]
        samples = np.concatenate([from_cmyk(name, inks), others], axis=2)
        notes.append("CMYK read as RGB")
        profile = None
    elif photometric == 6 and decoded == "" and page.compression not in DECODED:
        samples = from_ycbcr(name, page, samples)
        notes.append("YCbCr read as RGB")
    if bits not in (1, 8, 16, 32, 64, 128) and photometric != 3:
        notes.append(f"{bits} bits per sample, spread over {8 * samples.dtype.itemsize}")
    if samples.shape[2] == 1:
        samples = samples[..., 0]
    return Samples(
        samples,
        further,
        alpha,
        multiplied,
        missing,
        profile.value if profile else None,
        notes=tuple(notes),
    )


def _missing(page: Any, samples: np.ndarray) -> np.ndarray | None:
    """Pixels that equal the GDAL nodata value in every channel; None where there are none."""
    tag = page.tags.get(42113)
    if tag is None or samples.dtype.kind not in "uif":
        return None
    try:
        value = float(str(tag.value).strip().strip("\x00"))
    except ValueError:
        return None
    if math.isnan(value):
        return None  # what is NaN is refused as such
    if samples.dtype.kind == "f":  # written in decimals, often cut
        close = np.isclose(samples, value, rtol=1e-6, atol=0.0)
    else:
        close = samples == value
    missing = close.all(axis=2)
    return missing if missing.any() else None
