"""Data: reading real formats, and simulating what cannot be had."""

from . import collection, dicom, fastmri, files, nifti, photos, stacks

__all__ = ["collection", "dicom", "fastmri", "files", "nifti", "photos", "stacks"]
