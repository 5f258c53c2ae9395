"""Photographs: one file as an image, a folder or a zip as training material.

`load(path)` is one picture as (1, 3, H, W) in [-1, 1]: upright by its EXIF orientation, palettes
looked up, grey as three equal channels, 16 bit at its full depth, transparency over white.

`pixels(path)` is the same picture as an array at its full depth, grey or colour.

`pictures(path)` reads a whole folder or zip once, in colour at 8 bit; `Crops` keeps the pixels in
one flat array and cuts random crops from it, so that nothing is decoded while training. The crops
of a step are a pure function of (seed, step): a run that is resumed sees what it would have seen.
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .arrays import all_finite
from .files import read_image, read_samples
from .sources import File, Skips, UnreadableFile, file_at, listing, reading

__all__ = ["Crops", "color", "load", "pictures", "pixels"]

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


def load(path: str | os.PathLike[str]) -> Tensor:
    """Returns a picture as a colour image, with shape (1, 3, H, W) in [-1, 1], float32.

    Args:
        path: A PNG, JPEG or TIFF file, or an array file that holds a picture.
    Raises:
        UnreadableFile: It holds no picture.
    """
    picture = read_image(Path(path))
    x, alpha = picture.x, picture.form.alpha
    if x.is_complex() or x.shape[1] not in (1, 3):
        raise UnreadableFile(
            f"{path}: got {x.dtype} of shape {tuple(x.shape)}, wanted a grey or colour picture"
        )
    if alpha is not None:
        opacity = torch.from_numpy(alpha.astype(np.float32)) / float(np.iinfo(alpha.dtype).max)
        x = opacity * x + (1 - opacity)
    return x.expand(1, 3, -1, -1).contiguous()


def pictures(
    path: str | os.PathLike[str], *, under: str = "", skip_bad: bool = False
) -> list[NDArray[np.uint8]]:
    """Returns all pictures of a folder or a zip, sorted by name, each (H, W, 3) uint8.

    Args:
        path: A folder (searched in depth) or a zip file.
        under: Only the pictures in this folder of it, such as "train"; all when empty.
        skip_bad: Leave out what cannot be read, and say in one warning what that was.
    Returns:
        The pictures; none where there are none.
    Raises:
        FileNotFoundError: There is no such folder or file.
        UnreadableFile: The zip or one of the pictures cannot be read; the message names it.
    """
    found, skips = [], Skips(skip_bad)
    with listing(path, under) as files:
        for _, file in files:
            if file.suffix in SUFFIXES:
                with skips.over(file.name):
                    found.append(color(file))
    if skips.found:
        warnings.warn(skips.summary(), stacklevel=2)
    return found


def color(path: str | os.PathLike[str] | File) -> NDArray[np.uint8]:
    """Returns the upright 8-bit colour pixels of a picture file, with shape (H, W, 3).

    Grey becomes three equal channels, transparency goes over white, of 16 bits the upper 8 stay.
    """
    file = file_at(path)
    samples = opaque(file)
    if samples.dtype == np.uint16:
        samples = (samples >> 8).astype(np.uint8)
    if samples.dtype != np.uint8:
        raise UnreadableFile(
            f"{file.name}: got samples of {samples.dtype}, wanted a picture of 8 or 16 bits"
        )
    return samples if samples.ndim == 3 else np.repeat(samples[:, :, None], 3, axis=2)


def pixels(path: str | os.PathLike[str] | File) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Returns the upright pixels of a picture file at their full depth, (H, W) or (H, W, 3).

    One scale for 8 and 16 bits, so that they mix: black is 0 and white is 255. Eight bits stay
    uint8; sixteen become float32, in steps of 1/257. Other samples keep their values, as float32.
    Transparency goes over white.
    """
    samples = opaque(file_at(path))
    if samples.dtype == np.uint16:
        return samples.astype(np.float32) / np.float32(257)
    return samples if samples.dtype == np.uint8 else samples.astype(np.float32)


def opaque(file: File) -> np.ndarray:
    """Returns the samples of a picture file over white, with shape (H, W) or (H, W, 3)."""
    with reading(file, "a picture"):
        samples, _, _ = read_samples(file)
        if samples.dtype == bool:
            samples = samples.astype(np.uint8) * np.uint8(255)
        samples = samples.astype(samples.dtype.newbyteorder("="))
        if samples.ndim == 3 and samples.shape[2] in (2, 4):
            if samples.dtype.kind != "u":
                raise ValueError(f"opacity of {samples.dtype} is not understood")
            white = int(np.iinfo(samples.dtype).max)
            wide = samples.astype(np.uint64)
            over = wide[..., :-1] * wide[..., -1:] + white * (white - wide[..., -1:])
            samples = ((over + white // 2) // white).astype(samples.dtype)
        if samples.ndim == 3 and samples.shape[2] == 1:
            samples = samples[..., 0]
        if samples.shape[2:] not in ((), (3,)) or 0 in samples.shape:
            raise ValueError(f"shape {samples.shape} is no grey or colour picture")
        if samples.dtype.kind not in "uif":
            raise ValueError(f"{samples.dtype} is no type of a picture")
        all_finite(file.name, samples)
        return np.ascontiguousarray(samples)


class Crops:
    """Random square crops of many pictures, a pure function of (seed, step).

    Args:
        images: Pictures, each (H, W, C) uint8.
        seed: Chooses the whole sequence.
        dihedral: Also turn and mirror: the eight symmetries of the square.
    Raises:
        ValueError: There is no picture, or they differ in their channels.
    """

    def __init__(
        self, images: Sequence[NDArray[np.uint8]], *, seed: int = 0, dihedral: bool = True
    ) -> None:
        channels = {image.shape[2] for image in images}
        if len(channels) != 1:
            raise ValueError(
                f"Crops: got {len(images)} pictures with {sorted(channels)} channels, wants at "
                "least one picture and one number of channels"
            )
        self.seed, self.dihedral = seed, dihedral
        self.shapes = np.array([image.shape for image in images])
        self.starts = np.concatenate(([0], self.shapes.prod(1).cumsum()))
        self.flat = np.concatenate([image.ravel() for image in images])

    def __len__(self) -> int:
        return len(self.shapes)

    def __call__(self, step: int, n: int, size: int) -> Tensor:
        """Returns the crops of one step, with shape (n, C, size, size) in [-1, 1].

        Every crop of every picture is equally likely.

        Args:
            step: Number of the batch.
            n: Number of crops.
            size: Height and width, in pixels.
        Raises:
            ValueError: Every picture is smaller than the crop.
        """
        rooms = (self.shapes[:, :2] - size + 1).clip(0).prod(1)
        if not rooms.any():
            raise ValueError(f"Crops: no picture has {size} x {size} pixels or more")
        random = np.random.default_rng((self.seed, step))
        crops = np.empty((n, size, size, self.shapes[0, 2]), np.uint8)
        for i, k in enumerate(random.choice(len(rooms), n, p=rooms / rooms.sum())):
            image = self.flat[self.starts[k] : self.starts[k + 1]].reshape(self.shapes[k])
            top, left = (int(random.integers(room + 1)) for room in self.shapes[k, :2] - size)
            crop = image[top : top + size, left : left + size]
            if self.dihedral:
                turn = int(random.integers(8))
                crop = np.rot90(crop[::-1] if turn & 4 else crop, turn & 3)
            crops[i] = crop
        return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
