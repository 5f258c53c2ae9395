"""Data: reading real formats, and simulating what cannot be had."""

from . import files, photos

__all__ = ["files", "photos"]
