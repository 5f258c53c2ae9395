"""Photographs: one file as an image, a folder or a zip as training material.

`load(path)` is one picture as (1, 3, H, W) in [-1, 1]: upright by its EXIF orientation, palettes
looked up, grey as three equal channels, 16 bit at its full depth, transparency over white.

`pictures(path)` reads a whole folder or zip once, at 8 bit; `Crops` keeps the pixels in one flat
array and cuts random crops from it, so that nothing is decoded while training. The crops of a step
are a pure function of (seed, step): a run that is resumed sees what it would have seen.
"""

import io
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .files import UnreadableFile, read_image

__all__ = ["Crops", "load", "pictures"]

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


def pictures(path: str | os.PathLike[str], *, under: str = "") -> list[NDArray[np.uint8]]:
    """Returns all pictures of a folder or a zip, sorted by name, each (H, W, 3) uint8.

    Args:
        path: A folder (searched in depth) or a zip file.
        under: Only the pictures in this folder of it, such as "train"; all when empty.
    Returns:
        The pictures; none where there are none.
    Raises:
        FileNotFoundError: There is no such folder or file.
        UnreadableFile: The zip or one of the pictures cannot be read; the message names it.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such folder or zip of pictures")
    found = contents(path, PurePosixPath(under))
    return [decode(content, f"{path}: {name}") for name, content in found]


def contents(path: Path, under: PurePosixPath) -> Iterator[tuple[str, bytes]]:
    """Yields name and bytes of every picture file of a folder or zip, sorted by name."""
    if path.is_dir():
        for file in sorted((path / under).rglob("*")):
            if file.suffix.lower() in SUFFIXES and file.is_file():
                yield file.relative_to(path).as_posix(), file.read_bytes()
        return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                inside = PurePosixPath(name)
                if inside.suffix.lower() in SUFFIXES and inside.is_relative_to(under):
                    yield name, archive.read(name)
    except (zipfile.BadZipFile, zipfile.zlib.error) as error:  # type: ignore[attr-defined]
        raise UnreadableFile(f"{path}: not a readable zip of pictures ({error})") from error


def decode(content: bytes, name: str) -> NDArray[np.uint8]:
    """Returns the upright 8-bit colour pixels of a picture file's bytes, (H, W, 3)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(io.BytesIO(content)) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I;16"):
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UnreadableFile(f"{name}: not a readable picture ({error})") from error


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
