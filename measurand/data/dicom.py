"""DICOM series as stacks of images in physical units: CT in Hounsfield units.

A stored sample u means `RescaleSlope u + RescaleIntercept` (1 and 0 where absent; a modality
look-up table where there is one), of each file or of each frame. Slices of one series are those
with the same SeriesInstanceUID and the same orientation (a localizer has several); with row
direction r and column direction c of ImageOrientationPatient they are sorted by

    position = (r x c) . ImagePositionPatient,

for axial slices from foot to head, and by instance number where there is no position. Images are
not turned: rows and columns are those of the file, as every viewer shows them.

    MONOCHROME1     white is low: turned, unless a rescale gives the samples a unit
    padding         CT samples that were never measured (PixelPaddingValue) become -1024 HU
    colour          (H, W, 3), from RGB, YBR and palettes
    multi-frame     enhanced objects too, with the scale and position of each frame
    compressed      RLE, baseline JPEG and JPEG 2000 as they come; others name the plugin they need

Needs pydicom (extra `medical`). Nothing that identifies a patient is kept.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .arrays import all_finite, compact
from .sources import (
    File,
    SkippedFiles,
    Skips,
    UnreadableFile,
    file_at,
    holds_files,
    listing,
    reading,
    sized,
)

__all__ = ["Series", "is_dicom", "read", "series"]

_AIR = -1024.0  # HU; what no tissue is below, and what scanners pad with at best
_DERIVED = {"SEG", "RTDOSE"}  # have pixels, are no images


@dataclass(frozen=True)
class Series:
    """Images of one series, in order.

    Args:
        uid: SeriesInstanceUID.
        modality: CT, MR, PT, ...
        description: SeriesDescription.
        images: Each (H, W) or (H, W, 3): uint8 where bytes were stored without a scale, or
            float32.
        files: Name of the file of each image.
        indices: The frame of each in its file, from 0.
        scales: Slope and intercept of the stored samples of each.
        positions: Position of each along the normal, in mm; empty where it is not stated.
        pixel_mm: Distance between rows and between columns, in mm; None where it is not stated.
    """

    uid: str
    modality: str
    description: str
    images: list[np.ndarray]
    files: tuple[str, ...]
    indices: tuple[int, ...]
    scales: tuple[tuple[float, float], ...]
    positions: tuple[float, ...]
    pixel_mm: tuple[float, float] | None


@dataclass(frozen=True)
class _Frame:
    """One image before its pixels are read."""

    file: File
    index: int
    number: int
    uid: str
    modality: str
    description: str
    shape: tuple[int, int]
    orientation: tuple[float, ...]
    position: float | None
    scale: tuple[float, float]
    pixel_mm: tuple[float, float] | None


def series(path: str | os.PathLike[str], *, skip_bad: bool = False) -> list[Series]:
    """Returns the series in a folder (in depth), a zip or a single file.

    Args:
        path: The folder, zip or file.
        skip_bad: Leave out what cannot be read, and say in one warning what that was.
    Raises:
        ImportError: pydicom is not installed.
        UnreadableFile: A file is damaged, or the images of a series differ in size.
    """
    skips = Skips(skip_bad)
    if Path(path).is_file() and not holds_files(path):
        found = read([file_at(path)], skips)
        if not found and not skips.found:
            raise UnreadableFile(f"{path}: holds no image")
    else:
        with listing(path) as files:
            found = read([file for _, file in files if is_dicom(file)], skips)
    if skips.found:
        warnings.warn(skips.summary(), SkippedFiles, stacklevel=2)
    return found


def is_dicom(file: File) -> bool:
    """Whether a file says that it is a DICOM object, by its first bytes or by its name."""
    if file.base.upper() == "DICOMDIR":  # an index of other files
        return False
    if file.suffix in (".dcm", ".dicom", ".ima"):
        return True
    try:
        return file.read(132)[128:] == b"DICM"
    except (OSError, RuntimeError, ValueError):  # whoever reads it in earnest will say why
        return False


def read(files: Sequence[File], skips: Skips) -> list[Series]:
    """Returns the series of some files; files without pixels (reports, contours) are passed over.

    Args:
        files: DICOM files.
        skips: What to do about bad ones.
    """
    if files:
        _pydicom()
    groups: list[list[_Frame]] = []
    for file in files:
        with skips.over(file.name):
            frames = _frames(file)
            for frame in frames:
                group = next((g for g in reversed(groups) if _together(g[0], frame)), None)
                if group is None:
                    groups.append([frame])
                else:
                    group.append(frame)
    found = []
    for group in groups:
        with skips.over(*dict.fromkeys(frame.file.name for frame in group)):
            _same_shape(group)
            found.append(_series(group, skips))
    return [one for one in found if one.images]


def _together(a: _Frame, b: _Frame) -> bool:
    """Whether two frames are of one stack: orientations are rarely equal to the last digit."""
    if a.uid != b.uid or len(a.orientation) != len(b.orientation):
        return False
    return all(abs(p - q) < 0.02 for p, q in zip(a.orientation, b.orientation, strict=True))


def _frames(file: File) -> list[_Frame]:
    """What a file says about its images; none for an object without pixels."""
    with reading(file, "DICOM"):
        ds = _dataset(file, pixels=False)
        if "Rows" not in ds:
            kind = ds.get("SOPClassUID") or ds.file_meta.get("MediaStorageSOPClassUID")
            if kind is None or "Image" in kind.name:
                raise ValueError("it ends before its image")
        if "Rows" not in ds or ds.get("Modality") in _DERIVED:
            return []
        count = int(ds.get("NumberOfFrames") or 1)
        with file.open() as opened:
            stored = opened.seek(0, os.SEEK_END)
        depth = int(ds.get("BitsAllocated") or 8) * int(ds.get("SamplesPerPixel") or 1) / 8
        shape = (int(ds.Rows), int(ds.Columns))
        if count < 1 or min(shape) < 1:
            raise ValueError(f"it says it has {count} frames of {shape[0]} x {shape[1]} pixels")
        if count > stored:
            raise ValueError(f"it says it has {count} frames in {stored} bytes")
        sized(file.name, math.ceil(count * shape[0] * shape[1] * depth), stored)
        return [_frame(file, ds, k, shape) for k in range(count)]


def _frame(file: File, ds: Any, k: int, shape: tuple[int, int]) -> _Frame:
    orientation: tuple[float, ...] = ()
    position = None
    directions = _stated(ds, k, "PlaneOrientationSequence", "ImageOrientationPatient")
    origin = _stated(ds, k, "PlanePositionSequence", "ImagePositionPatient")
    if directions and origin and len(directions) == 6 and len(origin) == 3:
        r, c = np.asarray(directions, float).reshape(2, 3)
        orientation = (*map(float, r), *map(float, c))
        position = float(np.cross(r, c) @ np.asarray(origin, float))
        if not math.isfinite(position):
            raise ValueError(f"its position is {origin}, its orientation {directions}")
    values = "PixelValueTransformationSequence"
    slope = _stated(ds, k, values, "RescaleSlope")
    intercept = _stated(ds, k, values, "RescaleIntercept")
    scale = (1.0 if slope is None else float(slope), float(intercept or 0.0))
    if not all(map(math.isfinite, scale)) or scale[0] == 0:
        raise ValueError(f"its rescale slope and intercept are {scale}")
    spacing = _stated(ds, k, "PixelMeasuresSequence", "PixelSpacing")
    return _Frame(
        file=file,
        index=k,
        number=int(ds.get("InstanceNumber") or 0),
        uid=str(ds.get("SeriesInstanceUID") or file.name),
        modality=str(ds.get("Modality") or ""),
        description=str(ds.get("SeriesDescription") or ""),
        shape=shape,
        orientation=orientation,
        position=position,
        scale=scale,
        pixel_mm=(float(spacing[0]), float(spacing[1])) if spacing else None,
    )


def _stated(ds: Any, k: int, group: str, name: str) -> Any:
    """A value of frame k: of the frame, of all frames, or of an object without frames."""
    for sequence, index in (
        ("PerFrameFunctionalGroupsSequence", k),
        ("SharedFunctionalGroupsSequence", 0),
    ):
        if sequence in ds:
            item = ds[sequence].value[index]
            if group in item and len(item[group].value):
                value = item[group].value[0].get(name)
                if value is not None:
                    return value
    return ds.get(name)


def _same_shape(frames: list[_Frame]) -> None:
    first = frames[0]
    for other in frames:
        if other.shape != first.shape:
            raise UnreadableFile(
                f"series {first.uid}: {first.file.name} has {first.shape[0]} x {first.shape[1]} "
                f"pixels, {other.file.name} has {other.shape[0]} x {other.shape[1]}"
            )


def _series(frames: list[_Frame], skips: Skips) -> Series:
    """The frames in order, with their pixels; each file is decoded once."""
    first = frames[0]
    images: dict[tuple[str, int], np.ndarray] = {}
    by_file: dict[str, list[_Frame]] = {}
    for frame in frames:
        by_file.setdefault(frame.file.name, []).append(frame)
    for own in by_file.values():
        with skips.over(own[0].file.name):
            for frame, image in zip(own, _images(own), strict=True):
                images[frame.file.name, frame.index] = image
    frames = sorted(
        (f for f in frames if (f.file.name, f.index) in images),
        key=lambda f: (f.position or 0.0, f.number, f.file.name, f.index),
    )
    positions = tuple(f.position for f in frames if f.position is not None)
    if missing := _gaps(positions):
        warnings.warn(
            f"series {first.description or first.uid} of {first.file.name}: {missing} slices are "
            f"missing between the {len(set(positions))} that are there",
            stacklevel=2,
        )
    return Series(
        uid=first.uid,
        modality=first.modality,
        description=first.description,
        images=[images[f.file.name, f.index] for f in frames],
        files=tuple(f.file.name for f in frames),
        indices=tuple(f.index for f in frames),
        scales=tuple(f.scale for f in frames),
        positions=positions,
        pixel_mm=first.pixel_mm,
    )


def _gaps(positions: tuple[float, ...]) -> int:
    """How many slices are missing in steps that are longer than the usual one."""
    steps = np.diff(np.unique(np.round(positions, 2)))
    if len(steps) < 2:
        return 0
    usual = float(np.median(steps))
    return int(sum(round(step / usual) - 1 for step in steps if step > 1.5 * usual))


def _images(frames: list[_Frame]) -> list[np.ndarray]:
    """The images of the frames of one file, in physical units."""
    import pydicom.pixels

    file = frames[0].file
    with reading(file, "DICOM"):
        ds = _dataset(file, pixels=True)
        syntax = ds.file_meta.TransferSyntaxUID
        if syntax.is_encapsulated:
            decoder = pydicom.pixels.get_decoder(syntax)
            if not decoder.is_available:
                raise ValueError(
                    f"its pixels are compressed as {syntax.name}; install one of: "
                    + "; ".join(decoder.missing_dependencies)
                )
        pixels = ds.pixel_array
        if ds.PhotometricInterpretation == "PALETTE COLOR":
            pixels = pydicom.pixels.apply_color_lut(pixels, ds)
            pixels = (pixels >> 8).astype(np.uint8) if pixels.dtype == np.uint16 else pixels
        color = pixels.shape[-1] == 3 and int(ds.SamplesPerPixel) == 3
        color = color or ds.PhotometricInterpretation == "PALETTE COLOR"
        stack = pixels.reshape(-1, *frames[0].shape, *((3,) if color else ()))
        if len(stack) <= max(frame.index for frame in frames):
            raise ValueError(f"it holds {len(stack)} of {len(frames)} frames")
        found = []
        for frame in frames:
            u = stack[frame.index]
            image = compact(u) if color else _physical(ds, u, frame)
            all_finite(file.name, image)
            found.append(image)
        return found


def _physical(ds: Any, u: np.ndarray, frame: _Frame) -> np.ndarray:
    """Stored samples of a grey frame as values of the physical quantity."""
    import pydicom.pixels

    slope, intercept = frame.scale
    if "ModalityLUTSequence" in ds:
        return compact(pydicom.pixels.apply_modality_lut(u, ds))
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


def _dataset(file: File, *, pixels: bool) -> Any:
    pydicom = _pydicom()
    with file.open() as opened:
        start = opened.read(132)
        opened.seek(0)
        # very old files begin with their first element, of group 8, and name no syntax
        bare = start[128:] != b"DICM" and start[:2] == b"\x08\x00"
        ds = pydicom.dcmread(opened, stop_before_pixels=not pixels, force=bare)
    if "TransferSyntaxUID" not in ds.file_meta:
        implicit, little = ds.original_encoding
        if not little:
            raise ValueError("it names no transfer syntax")
        uid = pydicom.uid
        ds.file_meta.TransferSyntaxUID = (
            uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian
        )
    return ds


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise ImportError(
            "DICOM needs pydicom: install the extra, pip install 'measurand[medical]'"
        ) from error
    return pydicom
