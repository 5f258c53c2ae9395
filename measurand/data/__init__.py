"""Data: reading real formats, and simulating what cannot be had."""

from . import photos

__all__ = ["photos"]
