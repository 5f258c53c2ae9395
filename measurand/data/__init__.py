"""Data: reading real formats, and simulating what cannot be had."""

from .lazy import lazy

__all__ = ["collection", "dicom", "fastmri", "files", "nifti", "photos", "stacks"]

__getattr__ = lazy(__name__, __all__)
