"""Trained networks as files: the store of those that ship, and what reads and writes one."""

from .export import compile_portable, export
from .store import kinds, known_weights, load, load_prior, save, saveable, weight_file
from .tensorfile import DamagedFile

__all__ = [
    "DamagedFile",
    "compile_portable",
    "export",
    "kinds",
    "known_weights",
    "load",
    "load_prior",
    "save",
    "saveable",
    "weight_file",
]
