"""Pixels of DICOM objects as values of the physical quantity.

A stored sample u has BitsStored bits up to HighBit; the others (overlays of old scanners) count
for nothing, however the object is compressed. It means `RescaleSlope u + RescaleIntercept`, of
each object or of each frame, or what a modality look-up table says; where none of these says
anything, a real-world value mapping does (slope and intercept, or a table over a range).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from .arrays import all_finite, compact
from .sources import File, reading

__all__ = ["Frame", "images", "rescale", "stated"]

_AIR = -1024.0  # HU; what no tissue is below, and what scanners pad with at best
_WORLD = "RealWorldValueMappingSequence"


@dataclass(frozen=True)
class Frame:
    """One image before its pixels are read.

    Args:
        file: Where it is.
        index: Which one of the file.
        number: InstanceNumber.
        uid: SeriesInstanceUID.
        modality: CT, MR, PT, ...
        description: SeriesDescription.
        kind: What it shows where that is no ordinary image, see `dicom_kinds`.
        shape: Height and width.
        orientation: Directions of rows and columns, six numbers; empty where they are not stated.
        position: Along the normal, in mm.
        scale: Slope and intercept.
        world: The real-world value mapping, where that is what gives the samples a meaning.
        pixel_mm: Distance between rows and between columns, in mm.
        instance: SOPInstanceUID.
        rescaled: Whether the object says what its samples mean: a slope, a mapping or a table.
    """

    file: File
    index: int
    number: int
    uid: str
    modality: str
    description: str
    kind: str
    shape: tuple[int, int]
    orientation: tuple[float, ...]
    position: float | None
    scale: tuple[float, float]
    world: Any
    pixel_mm: tuple[float, float] | None
    instance: str = ""
    rescaled: bool = False


def stated(ds: Any, k: int, group: str, name: str) -> Any:
    """Return a value of frame k: of the frame, of all frames, or of an object without frames."""
    for item in _items(ds, k, group):
        if item.get(name) is not None:
            return item.get(name)
    return ds.get(name)


def rescale(ds: Any, k: int) -> tuple[tuple[float, float], Any, bool]:
    """Return slope and intercept of frame k, the real-world mapping that stands for them, and
    whether the object says any of these.

    Raises:
        ValueError: They are no numbers, or mappings contradict each other.
    """
    values = "PixelValueTransformationSequence"
    slope, intercept = (stated(ds, k, values, f"Rescale{n}") for n in ("Slope", "Intercept"))
    scale = (1.0 if slope is None else float(slope), float(intercept or 0.0))
    if not all(map(math.isfinite, scale)) or scale[0] == 0:
        raise ValueError(f"its rescale slope and intercept are {scale}")
    if scale != (1.0, 0.0) or "ModalityLUTSequence" in ds:
        return scale, None, True
    mappings = [m for m in _items(ds, k, _WORLD) if "RealWorldValueSlope" in m or _table(m)]
    if not mappings:
        return scale, None, not (slope is None and intercept is None)
    meanings = {(m.get("RealWorldValueSlope"), m.get("RealWorldValueIntercept")) for m in mappings}
    if len(meanings) > 1 or (len(mappings) > 1 and _table(mappings[0])):
        raise ValueError(
            f"it has {len(mappings)} real-world value mappings that differ, and no rescale slope "
            "that would decide"
        )
    return scale, mappings[0], True


def _items(ds: Any, k: int, group: str) -> list[Any]:
    """The items of a sequence in the groups of frame k, of all frames, and of the object."""
    found: list[Any] = []
    for sequence, index in (
        ("PerFrameFunctionalGroupsSequence", k),
        ("SharedFunctionalGroupsSequence", 0),
    ):
        if sequence in ds:
            item = ds[sequence].value[index]
            if group in item and len(item[group].value) and not found:
                found = list(item[group].value)
    return found or (list(ds[group].value) if group in ds else [])


def _table(mapping: Any) -> Any:
    return mapping.get("RealWorldValueLUTData")


def images(ds: Any, frames: list[Frame]) -> list[np.ndarray]:
    """Return the images of the frames of one object, in physical units.

    Args:
        ds: The object.
        frames: Those that are wanted.
    Raises:
        UnreadableFile: It is damaged, or compressed in a way that needs a plugin.
    """
    import pydicom.pixels

    file = frames[0].file
    with reading(file, "DICOM"):
        syntax = ds.file_meta.TransferSyntaxUID
        if syntax.is_encapsulated:
            decoder = pydicom.pixels.get_decoder(syntax)
            if not decoder.is_available:
                raise ValueError(
                    f"its pixels are compressed as {syntax.name}; install one of: "
                    + "; ".join(decoder.missing_dependencies)
                )
        pixels = pydicom.pixels.pixel_array(ds, correct_unused_bits=False)
        palette = ds.PhotometricInterpretation == "PALETTE COLOR"
        color = pixels.shape[-1] == 3 and int(ds.SamplesPerPixel) == 3
        if not color and pixels.dtype.kind in "ui":
            pixels = _used(ds, pixels)
        if palette:
            pixels = _looked_up(ds, pixels)
        stack = pixels.reshape(-1, *frames[0].shape, *((3,) if color or palette else ()))
        if len(stack) <= max(frame.index for frame in frames):
            raise ValueError(f"it holds {len(stack)} of {len(frames)} frames")
        found = []
        for frame in frames:
            u = stack[frame.index]
            image = compact(u) if color or palette else _physical(ds, u, frame)
            all_finite(file.name, image)
            found.append(image)
        return found


def _used(ds: Any, u: np.ndarray) -> np.ndarray:
    """Samples without the bits above and below those that are stored, with their sign."""
    width, stored = 8 * u.dtype.itemsize, int(ds.BitsStored)
    high = int(ds.get("HighBit", stored - 1))
    if not stored - 1 <= high < width:
        raise ValueError(f"it says its samples have {stored} bits, the highest of them bit {high}")
    return np.asarray((u << (width - 1 - high)) >> (width - stored))


def _looked_up(ds: Any, u: np.ndarray) -> np.ndarray:
    """The colours of a palette, 8 bits each, with shape (..., 3)."""
    import pydicom.pixels

    if "RedPaletteColorLookupTableData" not in ds:  # in segments
        rgb = pydicom.pixels.apply_color_lut(u.astype(np.uint16), ds)[..., :3]
        if rgb.dtype == np.uint8 and u.max() > 255:
            raise ValueError("it has a palette of more than 256 colours in segments of 8 bits")
        return rgb if rgb.dtype == np.uint8 else (rgb >> 8).astype(np.uint8)
    tables, firsts = [], []
    for name in ("Red", "Green", "Blue"):
        entries, first, _ = (int(v) for v in ds[f"{name}PaletteColorLookupTableDescriptor"].value)
        firsts.append(first - 2**16 if u.dtype.kind == "i" and first >= 2**15 else first)
        tables.append(_entries(ds, f"{name}PaletteColorLookupTableData", entries or 2**16))
    if any(table.max() > 255 for table in tables):  # else eight bits, whatever they stand in
        tables = [table >> 8 for table in tables]
    colors = [
        table[np.clip(u.astype(np.int64) - first, 0, len(table) - 1)].astype(np.uint8)
        for table, first in zip(tables, firsts, strict=True)
    ]
    return np.stack(colors, -1)


def _entries(ds: Any, name: str, count: int) -> np.ndarray:
    """The numbers of a table, which are bytes or words in the byte order of the object."""
    value, big = ds[name].value, not ds.file_meta.TransferSyntaxUID.is_little_endian
    if not isinstance(value, bytes):
        words = np.atleast_1d(np.asarray(value, dtype=np.int64)) & 0xFFFF
        if len(words) >= count:
            return words[:count]
        value, big = words.astype("<u2").tobytes(), False
    if len(value) >= 2 * count:
        return np.frombuffer(value, ">u2" if big else "<u2")[:count].astype(np.int64)
    if len(value) < count:
        raise ValueError(f"its palette has {len(value)} of {count} entries")
    if big and ds[name].VR == "OW":  # two bytes to a word, the first in its lower half
        even = value + bytes(len(value) % 2)
        value = np.frombuffer(even, np.uint16).byteswap().tobytes()
    return np.frombuffer(value, np.uint8)[:count].astype(np.int64)


def _physical(ds: Any, u: np.ndarray, frame: Frame) -> np.ndarray:
    """Stored samples of a grey frame as values of the physical quantity."""
    import pydicom.pixels

    slope, intercept = frame.scale
    if "ModalityLUTSequence" in ds:
        return compact(pydicom.pixels.apply_modality_lut(u, ds))
    if frame.world is not None:
        return _mapped(frame.world, u)
    white_is_low = ds.PhotometricInterpretation == "MONOCHROME1" and u.dtype.kind in "ui"
    scaled = frame.scale != (1.0, 0.0)
    x = (u * np.float64(slope) + intercept).astype(np.float32) if scaled else u
    if frame.modality == "CT" and u.dtype.kind in "ui" and (scaled or not white_is_low):
        x = np.where(_padded(ds, u) & (x < _AIR), x.dtype.type(_AIR), x) if x.min() < _AIR else x
    if scaled:
        return x
    if white_is_low:
        bits = int(ds.BitsStored)
        top = -1 if u.dtype.kind == "i" else 2**bits - 1
        x = (top - u.astype(np.int64)).astype(np.uint8 if u.dtype == np.uint8 else np.float32)
    return compact(x)


def _mapped(mapping: Any, u: np.ndarray) -> np.ndarray:
    """What a real-world value mapping makes of stored samples."""
    ends = [mapping.get(f"RealWorldValue{n}ValueMapped") for n in ("First", "Last")]
    if None in ends:
        ends = [mapping.get(f"DoubleFloatRealWorldValue{n}ValueMapped") for n in ("First", "Last")]
    first, last = (None if end is None else float(end) for end in ends)
    if first is not None and last is not None:
        if u.dtype.kind == "i" and first > last:  # written as the bits of a negative number
            first -= 2**16
        outside = int(((u < first) | (u > last)).sum())
        if outside:
            raise ValueError(
                f"{outside} of {u.size} samples lie outside of the real-world value mapping, "
                f"{first:g} to {last:g}"
            )
    table = _table(mapping)
    if table is None:
        intercept = float(mapping.get("RealWorldValueIntercept") or 0.0)
        return (u * np.float64(mapping.RealWorldValueSlope) + intercept).astype(np.float32)
    values = np.atleast_1d(np.asarray(table, dtype=np.float64))
    index = u.astype(np.int64) - int(first or 0)
    if index.min() < 0 or index.max() >= len(values):
        raise ValueError(f"its table of real-world values has {len(values)} entries, too few")
    return values[index].astype(np.float32)


def _padded(ds: Any, u: np.ndarray) -> np.ndarray:
    """Where stored samples say that nothing was measured."""
    first = ds.get("PixelPaddingValue")
    last = ds.get("PixelPaddingRangeLimit", first)
    if not (isinstance(first, int) and isinstance(last, int)):
        return np.zeros(u.shape, bool)
    if u.dtype.kind == "i":  # some files write the bits of a negative number as a positive one
        wrap = 2 ** (8 * u.dtype.itemsize)
        first, last = (v - wrap if v >= wrap // 2 else v for v in (first, last))
    return (u >= min(first, last)) & (u <= max(first, last))
