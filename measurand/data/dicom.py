"""DICOM series as stacks of images in physical units: CT in Hounsfield units.

A stored sample u means `RescaleSlope u + RescaleIntercept`, or what a table or a real-world value
mapping says (`dicom_pixels`), of each file or of each frame. Slices of one series are those with
the same SeriesInstanceUID, orientation, size and pixel spacing that show the same: the phase of an
MR image, a parameter map or a localizer is a series of its own (`dicom_kinds`). With row
direction r and column direction c of ImageOrientationPatient they are sorted by

    position = (r x c) . ImagePositionPatient,

for axial slices from foot to head, and by instance number where there is no position (by the
numbers in the names of their files, with a warning, where there is neither). Images are
not turned: rows and columns are those of the file, as every viewer shows them. What is there
twice is left out, and a slice without a scale among others that have one is refused
(`dicom_order`).

    MONOCHROME1     white is low: turned, unless a rescale gives the samples a unit
    padding         CT samples that were never measured (PixelPaddingValue) become -1024 HU
    colour          (H, W, 3), from RGB, YBR and palettes of both byte orders
    no images       spectra, segmentations and doses are left out, and counted in a warning
    multi-frame     enhanced objects too, with the scale and position of each frame
    compressed      RLE, baseline JPEG and JPEG 2000 as they come; others name the plugin they need

Needs pydicom (extra `medical`). Nothing that identifies a patient is kept.
"""

from __future__ import annotations

import math
import os
import warnings
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import numpy as np

from .dicom_kinds import kind
from .dicom_order import by_numbers, scaled_alike, without_copies
from .dicom_pixels import Frame, rescale, stated
from .dicom_pixels import images as pixels_of
from .limits import PAGES, at_most, sized
from .sources import (
    File,
    SkippedFiles,
    Skips,
    UnreadableFile,
    file_at,
    holds_files,
    listing,
    reading,
)

__all__ = ["OtherImages", "Series", "counted", "is_dicom", "read", "recognized", "series"]

_NO_IMAGES = {"spectroscopy", "segmentation", "dose"}


class OtherImages(SkippedFiles):
    """Images of another kind (phase, localizers, maps) were left out; the message counts them."""


@dataclass(frozen=True)
class Series:
    """Images of one series, in order.

    Args:
        uid: SeriesInstanceUID.
        modality: CT, MR, PT, ...
        description: SeriesDescription.
        kind: What the images show where that is not what the modality usually shows: phase, map,
            localizer, ...; see `dicom_kinds`.
        images: Each (H, W) or (H, W, 3): uint8 where bytes were stored without a scale, or
            float32.
        files: Name of the file of each image.
        indices: The frame of each in its file, from 0.
        scales: Slope and intercept of the stored samples of each.
        positions: Position of each along the normal, in mm; empty where it is not stated.
        pixel_mm: Distance between rows and between columns, in mm; None where it is not stated.
        rescaled: Whether the objects say what their samples mean.
    """

    uid: str
    modality: str
    description: str
    kind: str
    images: list[np.ndarray]
    files: tuple[str, ...]
    indices: tuple[int, ...]
    scales: tuple[tuple[float, float], ...]
    positions: tuple[float, ...]
    pixel_mm: tuple[float, float] | None
    rescaled: bool = True


def series(path: str | os.PathLike[str], *, skip_bad: bool = False) -> list[Series]:
    """Returns the series in a folder (in depth), a zip or a single file.

    Args:
        path: The folder, zip or file.
        skip_bad: Leave out what cannot be read, and say in one warning what that was.
    Raises:
        ImportError: pydicom is not installed.
        UnreadableFile: A file is damaged.
    """
    skips, others = Skips(skip_bad), Counter[str]()
    if Path(path).is_file() and not holds_files(path):
        found = read([file_at(path)], skips, others)
        if not found and not skips.found and not others:
            raise UnreadableFile(f"{path}: holds no image")
    else:
        with listing(path) as files:
            scans = [file for _, file in files if recognized(file, skips)]
            found = read(scans, skips, others)
    if skips.found:
        warnings.warn(skips.summary(), SkippedFiles, stacklevel=2)
    if others:
        warnings.warn(counted(others), OtherImages, stacklevel=2)
    return found


def counted(others: Counter[str]) -> str:
    """Return one sentence that says how many images of which kind were left out."""
    kinds = ", ".join(f"{number} of kind '{kind}'" for kind, number in sorted(others.items()))
    return f"left out {others.total()} DICOM images that show something else: {kinds}"


def is_dicom(file: File) -> bool:
    """Whether a file says that it is a DICOM object, by its first bytes or by its name.

    Raises:
        UnreadableFile: A member of a zip is damaged, and its name says nothing, like that of many
            DICOM files: nobody else would miss it.
    """
    if file.base.upper() == "DICOMDIR":  # an index of other files
        return False
    if file.suffix in (".dcm", ".dicom", ".ima"):
        return True
    if file.path is not None and not file.path.is_file():
        return False
    try:
        return file.read(132)[128:] == b"DICM"
    except UnreadableFile:
        ending = PurePosixPath(file.base).suffix
        if not ending or ending[1:].isdecimal():  # IM0001, 1.2.840.113
            raise
        return False
    except OSError:  # whoever reads it in earnest will say why
        return False


def recognized(file: File, skips: Skips) -> bool:
    """Return whether a file of many is a DICOM object; a damaged one is a bad file."""
    try:
        return is_dicom(file)
    except UnreadableFile as error:
        with skips.over(file.name):
            raise error
    return False


def read(
    files: Sequence[File], skips: Skips, others: Counter[str], *, ordinary: bool = False
) -> list[Series]:
    """Returns the series of some files; files without pixels (reports, contours) are passed over.

    Args:
        files: DICOM files.
        skips: What to do about bad ones.
        others: Counts images that are left out, by their kind.
        ordinary: Whether all but ordinary images are, or only what has no pixels.
    """
    if files:
        _pydicom()
    groups: list[list[Frame]] = []
    for file in files:
        with skips.over(file.name):
            frames = _frames(file)
            for frame in frames:
                if frame.kind in _NO_IMAGES or (frame.kind and ordinary):
                    others[frame.kind] += 1
                    continue
                group = next((g for g in reversed(groups) if _together(g[0], frame)), None)
                if group is None:
                    groups.append([frame])
                else:
                    group.append(frame)
    found = []
    for group in groups:
        with skips.over(*dict.fromkeys(frame.file.name for frame in group)):
            found.append(_series(group, skips))
    return [one for one in found if one.images]


def _together(a: Frame, b: Frame) -> bool:
    """Whether two frames are of one stack: orientations are rarely equal to the last digit."""
    if (a.uid, a.kind, a.shape) != (b.uid, b.kind, b.shape):
        return False
    if (a.pixel_mm is None) != (b.pixel_mm is None) or len(a.orientation) != len(b.orientation):
        return False
    spacings = zip(a.pixel_mm or (), b.pixel_mm or (), strict=True)
    directions = zip(a.orientation, b.orientation, strict=True)
    return all(abs(p - q) < 0.02 for p, q in directions) and all(
        math.isclose(p, q, rel_tol=1e-3) for p, q in spacings
    )


def _frames(file: File) -> list[Frame]:
    """What a file says about its images; none for an object without pixels."""
    with reading(file, "DICOM"):
        ds = _dataset(file, pixels=False)
        shown = kind(ds, lambda group, name: stated(ds, 0, group, name))
        if shown in _NO_IMAGES:
            return [_nothing(file, shown)]
        if "Rows" not in ds:
            uid = ds.get("SOPClassUID") or ds.file_meta.get("MediaStorageSOPClassUID")
            if uid is None or "Image" in uid.name:
                raise ValueError("it ends before its image")
        if "Rows" not in ds:
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
        at_most(file.name, count, PAGES, "frames")
        sized(file.name, math.ceil(count * shape[0] * shape[1] * depth), stored)
        return [_frame(file, ds, k, shape) for k in range(count)]


def _nothing(file: File, shown: str) -> Frame:
    """What stands for an object that has no pixels of an image, to be counted."""
    return Frame(file, 0, 0, "", "", "", shown, (0, 0), (), None, (1.0, 0.0), None, None)


def _frame(file: File, ds: Any, k: int, shape: tuple[int, int]) -> Frame:
    orientation: tuple[float, ...] = ()
    position = None
    directions = stated(ds, k, "PlaneOrientationSequence", "ImageOrientationPatient")
    origin = stated(ds, k, "PlanePositionSequence", "ImagePositionPatient")
    if directions and origin and len(directions) == 6 and len(origin) == 3:
        r, c = np.asarray(directions, float).reshape(2, 3)
        orientation = (*map(float, r), *map(float, c))
        position = float(np.cross(r, c) @ np.asarray(origin, float))
        if not math.isfinite(position):
            raise ValueError(f"its position is {origin}, its orientation {directions}")
    scale, world, rescaled = rescale(ds, k)
    spacing = stated(ds, k, "PixelMeasuresSequence", "PixelSpacing")
    return Frame(
        file=file,
        index=k,
        number=int(ds.get("InstanceNumber") or 0),
        uid=str(ds.get("SeriesInstanceUID") or file.name),
        modality=str(ds.get("Modality") or ""),
        description=str(ds.get("SeriesDescription") or ""),
        kind=kind(ds, lambda group, name: stated(ds, k, group, name)),
        shape=shape,
        orientation=orientation,
        position=position,
        scale=scale,
        world=world,
        pixel_mm=(float(spacing[0]), float(spacing[1])) if spacing else None,
        instance=str(ds.get("SOPInstanceUID") or ""),
        rescaled=rescaled,
    )


def _series(frames: list[Frame], skips: Skips) -> Series:
    """The frames in order, with their pixels; each file is decoded once."""
    first = frames[0]
    frames = scaled_alike(frames, skips)
    images: dict[tuple[str, int], np.ndarray] = {}
    by_file: dict[str, list[Frame]] = {}
    for frame in frames:
        by_file.setdefault(frame.file.name, []).append(frame)
    for own in by_file.values():
        with skips.over(own[0].file.name):
            with reading(own[0].file, "DICOM"):
                ds = _dataset(own[0].file, pixels=True)
            for frame, image in zip(own, pixels_of(ds, own), strict=True):
                images[frame.file.name, frame.index] = image
    frames = sorted(
        (f for f in frames if (f.file.name, f.index) in images),
        key=lambda f: (f.position or 0.0, f.number, by_numbers(f.file.name), f.index),
    )
    told = f"series {first.description or first.uid} of {first.file.name}"
    frames = without_copies(frames, images, told)
    return Series(
        uid=first.uid,
        modality=first.modality,
        description=first.description,
        kind=first.kind,
        images=[images[f.file.name, f.index] for f in frames],
        files=tuple(f.file.name for f in frames),
        indices=tuple(f.index for f in frames),
        scales=tuple(f.scale for f in frames),
        positions=tuple(f.position for f in frames if f.position is not None),
        pixel_mm=first.pixel_mm,
        rescaled=all(f.rescaled for f in frames),
    )


def _dataset(file: File, *, pixels: bool) -> Any:
    pydicom = _pydicom()
    with file.open() as opened:
        start = opened.read(132)
        opened.seek(0)
        if start[128:] == b"DICM":
            _inflated(file, opened)
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


def _inflated(file: File, opened: BinaryIO) -> None:
    """Checks what a deflated file inflates to, which pydicom would do without a limit."""
    pydicom = _pydicom()
    opened.seek(132)
    meta = pydicom.filereader.read_dataset(
        opened, False, True, stop_when=lambda tag, *_: tag.group != 2
    )
    if meta.get("TransferSyntaxUID") != pydicom.uid.DeflatedExplicitVRLittleEndian:
        return
    start = opened.tell()
    stored, size = opened.seek(0, os.SEEK_END), 0
    opened.seek(start)
    unpacking = zlib.decompressobj(-zlib.MAX_WBITS)
    while not unpacking.eof and (packed := opened.read(2**16)):
        while packed and not unpacking.eof:
            size = sized(file.name, size + len(unpacking.decompress(packed, 2**20)), stored)
            packed = unpacking.unconsumed_tail


def _pydicom() -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise ImportError(
            "DICOM needs pydicom: install the extra, pip install 'measurand[medical]'"
        ) from error
    return pydicom
