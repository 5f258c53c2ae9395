"""The front door: all images of a folder, a zip or a file, whatever their formats.

    pictures (`photos`)     .png .jpg .tif .bmp .ppm .webp      (H, W) or (H, W, 3), white is 255,
                                                                of a TIFF all pages
    NIfTI (`nifti`)         .nii .nii.gz                        (H, W), axial unless acquired else
    MetaImage (`metaimage`) .mhd .mha                           (H, W) or (H, W, C), as they are
    DICOM (`dicom`)         by content, or .dcm .ima            (H, W) or (H, W, 3), CT in HU
    fastMRI (`fastmri`)     .h5 with kspace                     (H, W) complex, coils combined
    stacks (`stacks`)       .npy .npz .h5 .mat                  (H, W) or (H, W, C), as they are

Channels of a TIFF that are neither grey, colour nor opacity are left out, with one warning; a file
that calls some of its pixels missing (GDAL nodata) is a bad one, as one with NaN is. Of DICOM,
phase images, maps, localizers and the like are left out, with a warning that counts them
(`dicom.series` reads them).

Images are numpy arrays, uint8, float16, float32 or complex64, in physical units; nothing is scaled
to [-1, 1] here, because only the recipe knows what means black and white. Images come in the order
of the names of their files, DICOM series after all others, slices in anatomical order.
"""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from . import dicom, fastmri, metaimage, nifti, photos, stacks
from .sources import (
    File,
    SkippedFiles,
    Skips,
    UnreadableFile,
    file_at,
    holds_files,
    listing,
)

__all__ = ["Collection", "images"]


@dataclass(frozen=True)
class Collection:
    """Images, and what could not be read.

    Args:
        images: Each (H, W) or (H, W, C), uint8, float16, float32 or complex64.
        origins: Name of the file of each image, of the first file for a DICOM series: what images
            share that must not be divided between training and test.
        skips: What was left out, of which files.
        others: How many DICOM images were left out for what they show, by kind.
    """

    images: list[np.ndarray]
    origins: list[str]
    skips: Skips
    others: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Name and reason of every file that was left out."""
        return self.skips.found

    @property
    def summary(self) -> str:
        """One line: how many images from how many files, how many were skipped and why."""
        files = len(set(self.origins))
        said = f"{len(self)} images from {files} {'file' if files == 1 else 'files or series'}"
        skips = self.skips.summary()
        others = dicom.counted(self.others) if self.others else ""
        return "; ".join(part for part in (said, others, skips) if part)


def images(
    path: str | os.PathLike[str],
    *,
    under: str = "",
    skip_bad: bool = False,
    check: Callable[[str, np.ndarray], None] | None = None,
) -> Collection:
    """Returns all images of a folder (in depth), a zip or a file.

    Files of other kinds, and hidden ones, are passed over.

    Args:
        path: A folder, a zip, or one file; `file.npz:key` and `file.h5:dataset` name an array.
        under: Only what is in this folder of it, such as "train"; all when empty.
        skip_bad: Go on after a file that cannot be read, list it, and say in one warning how many
            there were.
        check: Gets the name of a file, and each image of it; raises `UnreadableFile` where that
            is none that is wanted, see `arrays.one_channel`.
    Returns:
        The images; none where there are none.
    Raises:
        FileNotFoundError: There is no such folder or file.
        ImportError: A format needs a package that is not installed.
        UnreadableFile: A file cannot be read; the message names it.
    """
    found = Collection([], [], Skips(skip_bad))
    if holds_files(path):
        with photos.told_once(), listing(path, under) as files:
            _collect([file for _, file in files], found, check)
    else:
        file = file_at(path)
        if not Path(file.name).exists():
            raise FileNotFoundError(f"{path}: no such folder, zip or file")
        if _reader(file) is None and not dicom.is_dicom(file):
            raise UnreadableFile(
                f"{path}: got a file of unknown kind, wanted a folder, a zip, a picture, .npy, "
                ".npz, .h5, .mat, .nii, .nii.gz, .mhd, .mha or DICOM"
            )
        with photos.told_once():
            _collect([file], found, check)
        if not found.images and not found.skipped and dicom.is_dicom(file):
            kinds = f", only one of kind '{next(iter(found.others))}'" if found.others else ""
            raise UnreadableFile(f"{path}: holds no image{kinds}")
    if found.others:
        warnings.warn(dicom.counted(found.others), dicom.OtherImages, stacklevel=2)
    if found.skipped:
        warnings.warn(found.skips.summary(), SkippedFiles, stacklevel=2)
    return found


def _collect(
    files: list[File], found: Collection, check: Callable[[str, np.ndarray], None] | None
) -> None:
    def add(new: list[np.ndarray], name: str) -> None:
        if check is not None:
            for image in new:
                check(name, image)
        found.images.extend(new)
        found.origins.extend([name] * len(new))

    scans = []
    for file in files:
        read = _reader(file)
        if read is not None:
            with found.skips.over(file.name):
                add(read(file), file.name)
        elif dicom.recognized(file, found.skips):
            scans.append(file)
    for series in dicom.read(scans, found.skips, found.others, ordinary=True):
        with found.skips.over(*dict.fromkeys(series.files)):
            add(series.images, series.files[0])


def _reader(file: File) -> Callable[[File], list[np.ndarray]] | None:
    """What reads a file of this name; None for DICOM, whose files belong together, and others."""
    if file.suffix in photos.SUFFIXES:
        return photos.pages
    if file.suffix in (".nii", ".nii.gz"):
        return nifti.slices
    if file.suffix in (".npy", ".npz", ".mat"):
        return stacks.slices
    if file.suffix in (".mhd", ".mha"):
        return metaimage.slices
    return _hdf5 if file.suffix in (".h5", ".hdf5") else None


def _hdf5(file: File) -> list[np.ndarray]:
    if file.path is None:  # unpacked once, not for every slice
        content = file.read()
        file = replace(file, member=lambda most: content if most < 0 else content[:most])
    if file.key is None and fastmri.is_fastmri(file):
        return fastmri.combined(file)
    return stacks.slices(file)
