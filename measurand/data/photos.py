"""Photographs: one file as an image, a folder or a zip as training material.

`load(path)` is one picture as (1, 3, H, W) in [-1, 1]: upright by its EXIF orientation, palettes
looked up, grey as three equal channels, 16 bit at its full depth, transparency over white.

`pixels(path)` is the same picture as an array at its full depth, grey or colour.

`pictures(path)` reads a whole folder or zip, or one file, once, in colour at 8 bit. Where none of
its pictures of 16 bits uses all of them, white is that of 14, 12, 10 or 8, and a warning says so.

Of a TIFF with channels that are neither grey, colour nor opacity (near infrared, a second
polarization), the grey or colour ones are taken, and a warning says so, one for a whole folder;
where no three of them are called colours, the file is refused. Files with missing pixels (a GDAL
nodata value) are refused too.
"""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import tiff
from .arrays import all_finite
from .files import read_image, read_samples
from .form import complete
from .ranges import bits_of
from .sources import (
    File,
    SkippedFiles,
    Skips,
    UnreadableFile,
    file_at,
    holds_files,
    listing,
    reading,
)

__all__ = [
    "FewBits",
    "FurtherChannels",
    "OtherKind",
    "color",
    "load",
    "pictures",
    "pixels",
    "told_once",
]

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
KINDS = " ".join(sorted(SUFFIXES))


class OtherKind(UnreadableFile):
    """A single file that is no picture was given where pictures are read."""


class FewBits(UserWarning):
    """Samples of 16 bits that use fewer."""


class FurtherChannels(UserWarning):
    """Channels of a picture file that are neither grey, colour nor opacity were left out."""


@contextmanager
def told_once() -> Iterator[None]:
    """Turns all warnings of further channels in the block into one."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", FurtherChannels)
        yield
    first = ""
    count = 0
    for warning in said:
        if issubclass(warning.category, FurtherChannels):
            first, count = first or str(warning.message), count + 1
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if count:
        more = f" (and {count - 1} more pages or files)" if count > 1 else ""
        warnings.warn(f"{first}{more}", FurtherChannels, stacklevel=4)


def load(path: str | os.PathLike[str]) -> Tensor:
    """Returns a picture as a colour image, with shape (1, 3, H, W) in [-1, 1], float32.

    Args:
        path: A PNG, JPEG or TIFF file, or an array file that holds a picture.
    Raises:
        UnreadableFile: It holds no picture.
    """
    picture = read_image(Path(path))
    x, alpha = picture.x, picture.form.alpha
    if x.is_complex() or len(x) > 1 or x.shape[1] not in (1, 3):
        raise UnreadableFile(
            f"{path}: got {x.dtype} of shape {tuple(x.shape)}, wanted a grey or colour picture"
        )
    if alpha is not None:
        white = float(np.iinfo(alpha.dtype).max) if alpha.dtype.kind in "iu" else 1.0
        opacity = torch.from_numpy(alpha.astype(np.float32)) / white
        if picture.form.multiplied:
            x = x + 2 * (1 - opacity)
        else:
            x = opacity * x + (1 - opacity)
    return x.expand(1, 3, -1, -1).contiguous()


def pictures(
    path: str | os.PathLike[str], *, under: str = "", skip_bad: bool = False
) -> list[NDArray[np.uint8]]:
    """Returns all pictures of a folder or a zip, sorted by name, or one; each (H, W, 3) uint8.

    Args:
        path: A folder (searched in depth), a zip file or a picture file.
        under: Only the pictures in this folder of it, such as "train"; all when empty.
        skip_bad: Leave out what cannot be read, and say in one warning what that was.
    Returns:
        The pictures; none where there are none.
    Raises:
        FileNotFoundError: There is no such folder or file.
        UnreadableFile: The zip or one of the pictures cannot be read, or a file of another kind
            was given; the message names it.
    """
    found, skips = [], Skips(skip_bad)
    with (
        told_once(),
        listing(path, under) if holds_files(path) else nullcontext(_alone(path)) as files,
    ):
        for _, file in files:
            if file.suffix in SUFFIXES:
                with skips.over(file.name):
                    found += [_whole(file, samples) for samples in _opaque(file)]
    if skips.found:
        warnings.warn(skips.summary(), SkippedFiles, stacklevel=2)
    deep = [x for x in found if x.dtype == np.uint16]
    bits = bits_of(max((int(x.max()) for x in deep), default=0))
    if bits < 16:
        warnings.warn(
            f"{path}: {len(deep)} {'picture' if len(deep) == 1 else 'pictures'} of 16 bits "
            f"without a sample above {2**bits - 1}: taken as {bits} bits",
            FewBits,
            stacklevel=2,
        )
    return [_colors(x, bits) for x in found]


def _alone(path: str | os.PathLike[str]) -> list[tuple[str, File]]:
    """A single picture file, as `listing` gives those of a folder."""
    file = file_at(path)
    if not Path(file.name).exists():
        raise FileNotFoundError(f"{path}: no such folder, zip or picture")
    if file.suffix not in SUFFIXES:
        raise OtherKind(
            f"{path}: got a file of another kind, wanted a folder, a zip or a picture ({KINDS})"
        )
    return [(file.base, file)]


def color(path: str | os.PathLike[str] | File) -> NDArray[np.uint8]:
    """Returns the upright 8-bit colour pixels of a picture file, with shape (H, W, 3).

    Grey becomes three equal channels, transparency goes over white, of 16 bits the upper 8 stay.
    """
    file = file_at(path)
    return _colors(_whole(file, next(_opaque(file, first=True))))


def pixels(path: str | os.PathLike[str] | File) -> NDArray[np.uint8] | NDArray[np.float32]:
    """Returns the upright pixels of a picture file at their full depth, (H, W) or (H, W, 3).

    One scale for 8 and 16 bits, so that they mix: black is 0 and white is 255. Eight bits stay
    uint8; sixteen become float32, in steps of 1/257. Other samples keep their values, as float32.
    Transparency goes over white.
    """
    return _scaled(next(_opaque(file_at(path), first=True)))


def pages(file: File) -> list[np.ndarray]:
    """Returns the pixels of all pages of a TIFF, or of another picture, each as `pixels` does."""
    return [_scaled(samples) for samples in _opaque(file)]


def _whole(file: File, samples: np.ndarray) -> np.ndarray:
    """Samples of 8 or 16 bits."""
    if samples.dtype not in (np.uint8, np.uint16):
        raise UnreadableFile(
            f"{file.name}: got samples of {samples.dtype}, wanted a picture of 8 or 16 bits"
        )
    return samples


def _colors(samples: np.ndarray, bits: int = 16) -> NDArray[np.uint8]:
    """Colours of 8 bits, of samples of 16 the upper ones of those that are used."""
    if samples.dtype == np.uint16:
        samples = (samples >> (bits - 8)).astype(np.uint8)
    return samples if samples.ndim == 3 else np.repeat(samples[:, :, None], 3, axis=2)


def _scaled(samples: np.ndarray) -> NDArray[np.uint8] | NDArray[np.float32]:
    if samples.dtype == np.uint16:
        return samples.astype(np.float32) / np.float32(257)
    return samples if samples.dtype == np.uint8 else samples.astype(np.float32)


def _opaque(file: File, *, first: bool = False) -> Iterator[np.ndarray]:
    """The samples of all pages over white, each (H, W) or (H, W, 3); the file is opened once."""
    with reading(file, "a picture"):
        several = not first and file.key is None and file.suffix in tiff.SUFFIXES
        several = several and tiff.is_tiff(file)
        found = tiff.pages(file) if several else [read_samples(file)]
    for picture in found:
        yield _shown(file, picture)


def _shown(file: File, picture: tiff.Samples) -> np.ndarray:
    with reading(file, "a picture"):
        complete(file.name, picture.missing)
        samples, alpha = picture.values, picture.alpha
        if samples.dtype == bool:
            samples = samples.astype(np.uint8) * np.uint8(255)
        samples = samples.astype(samples.dtype.newbyteorder("="))
        channels = samples.shape[2] if samples.ndim == 3 else 1
        kept = {2: 1, 3: 3}.get(channels) if channels != picture.further + 3 else 3
        if picture.further and kept is not None:
            samples = samples[..., 0] if kept == 1 else samples[..., :kept]
        if samples.shape[2:] not in ((), (3,)) or 0 in samples.shape:
            raise ValueError(
                f"shape {samples.shape} is no grey or colour picture"
                + (", and no three of its channels are called colours" if channels > 3 else "")
            )
        if samples.dtype.kind not in "uif":
            raise ValueError(f"{samples.dtype} is no type of a picture")
        if alpha is not None:
            samples = _over_white(samples, alpha, picture.multiplied)
        all_finite(file.name, samples)
    if picture.further:
        warnings.warn(
            f"{file.name}: has {channels} channels and calls none of the last {picture.further} "
            f"opacity: {'the first' if kept == 1 else 'the first three'} taken, for "
            f"{'grey' if kept == 1 else 'colours'}",
            FurtherChannels,
            stacklevel=4,
        )
    return np.ascontiguousarray(samples)


def _over_white(samples: np.ndarray, alpha: np.ndarray, multiplied: bool) -> np.ndarray:
    """Grey or colours in front of white; `multiplied` where they already are by the opacity."""
    if samples.dtype.kind != "u" or alpha.dtype.kind != "u":
        raise ValueError(f"opacity of {samples.dtype} is not understood")
    white = int(np.iinfo(samples.dtype).max)
    wide, opacity = samples.astype(np.uint64), alpha.astype(np.uint64)
    opacity = opacity[..., None] if samples.ndim == 3 else opacity
    if multiplied:
        over = np.minimum(wide + (white - opacity), white)
    else:
        over = (wide * opacity + white * (white - opacity) + white // 2) // white
    return over.astype(samples.dtype)
