"""Stacks of images in .npy, .npz and HDF5 files.

The axes follow from the shape; a key is needed only where several arrays could be meant.

    (H, W)          one image                    (N, H, W)       grey or complex images
    (H, W, C)       one image, C at most 4       (N, H, W, C)    images, C at most 4
                                                 (N, C, H, W)    the same, C at most 4

Other orders, and more channels, are named by `axes`. Numbers keep their values: bytes as uint8,
half precision as float16, complex as complex64, all others as float32.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from .arrays import all_finite, compact, load, shapes
from .limits import IMAGES, at_most
from .sources import File, UnreadableFile, file_at

__all__ = ["slices"]

_CHANNELS = 4


def slices(path: str | os.PathLike[str] | File, *, axes: str = "") -> list[np.ndarray]:
    """Returns the images of an array file, each (H, W) or (H, W, C).

    Args:
        path: `file.npy`, `file.npz[:key]` or `file.h5[:dataset]`. Without a key, the only array
            of three or more axes is taken, or else the only one of two.
        axes: The order of the axes, a letter each: N images, H rows, W columns, C channels; found
            from the shape when empty.
    Raises:
        UnreadableFile: It is damaged, holds no such array, or values that are no numbers.
    """
    file = file_at(path)
    key = _only(file) if file.key is None and file.suffix != ".npy" else file.key
    samples, key, _ = load(file, key)
    name = f"{file.name}:{key}" if key else file.name
    order = axes or _axes(name, samples.shape)
    if sorted(order) not in [sorted(known) for known in ("HW", "NHW", "HWC", "NHWC")]:
        raise ValueError(f"stacks.slices: got axes '{axes}', wanted H, W, and N or C or both")
    if len(order) != samples.ndim or 0 in samples.shape:
        raise UnreadableFile(
            f"{name}: got an array of shape {samples.shape}, wanted as many axes as in {order}, "
            "none of them empty"
        )
    stack = samples.transpose([order.index(axis) for axis in "NHWC" if axis in order])
    stack = stack if "N" in order else stack[None]
    stack = stack[..., 0] if stack.ndim == 4 and stack.shape[3] == 1 else stack
    at_most(name, len(stack), IMAGES, "images")
    images = [compact(image) for image in stack]
    for k, image in enumerate(images):
        all_finite(f"{name}: image {k}", image)
    return images


def _only(file: File) -> str | None:
    """The array that can be meant, where there is just one; without any, `load` says so."""
    found = shapes(file)
    for least in (3, 2):
        names = [name for name, shape in found.items() if len(shape) >= least]
        if len(names) > 1:
            shown = ", ".join(f"{name} {found[name]}" for name in names[:12])
            raise UnreadableFile(
                f"{file.name}: which array? (write {Path(file.name).name}:NAME, NAME one of: "
                f"{shown})"
            )
        if names:
            return names[0]
    return None


def _axes(name: str, shape: tuple[int, ...]) -> str:
    if len(shape) == 2:
        return "HW"
    if len(shape) == 3:
        return "HWC" if shape[2] <= _CHANNELS else "NHW"
    if len(shape) == 4 and shape[3] <= _CHANNELS:
        return "NHWC"
    if len(shape) == 4 and shape[1] <= _CHANNELS:
        return "NCHW"
    raise UnreadableFile(
        f"{name}: got an array of shape {shape}, wanted (H, W), (N, H, W), (H, W, C), "
        f"(N, H, W, C) or (N, C, H, W) with at most {_CHANNELS} channels; others are read by "
        "stacks.slices(path, axes=...)"
    )
