"""Volumes as slices, with what it takes to write the volume that a method made of them.

    .nii .nii.gz        NIfTI (`nifti`): the grid, its orientation, type and scaling come back
    .mhd .mha           MetaImage (`metaimage`): the same
    DICOM               a file, or a folder of one series (`dicom_writing`): derived objects, one
                        for each file, or a folder of them

Values are those of the file in physical units. A file that is read as slices of N images is
written as slices of N images; where rows and columns are k times as many, voxels are k times
smaller, and where they are otherwise more, the grid is wider. Its centre stays where it was.

The readers are imported when a file of their kind comes.
"""

from __future__ import annotations

from pathlib import Path

from .grid import Volume
from .sources import File

__all__ = ["SUFFIXES", "is_volume", "read"]

SUFFIXES = (".nii", ".nii.gz", ".mhd", ".mha", ".dcm", ".dicom", ".ima")


def is_volume(file: File) -> bool:
    """Whether a file is a volume, or a folder holds DICOM files and nothing else."""
    path = file.path or Path(file.name)
    if path.is_dir():
        from .dicom_writing import is_series

        return is_series(path)
    if file.suffix in SUFFIXES:
        return True
    from .dicom import is_dicom

    return is_dicom(file)


def read(file: File) -> Volume:
    """Return the slices of a volume.

    Args:
        file: A file on the disk, or a folder of DICOM files.
    Raises:
        ImportError: The format needs a package that is not installed.
        UnreadableFile: It is damaged, or holds several series.
    """
    if file.suffix in (".nii", ".nii.gz"):
        from . import nifti

        return nifti.volume(file)
    if file.suffix in (".mhd", ".mha"):
        from . import metaimage

        return metaimage.volume(file)
    from . import dicom_writing

    return dicom_writing.volume(file)
