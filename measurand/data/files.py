"""Real files in, with what it takes to write the same kind of file out.

Samples u of a file become images x in [-1, 1] by `x = 2 (u - low) / (high - low) - 1` (`ranges`).
Everything else the file knows is kept aside in a `Form` (format, sample type, axes, range, alpha,
geometry, calibration), so that `writing` gives back a file of the same kind and bit depth. A file
of several images (pages, slices) is N images, never one of them without a word.

    pictures   PNG (8 and 16 bit, grey, colour, palette), JPEG, TIFF[:page] (`tiff`): EXIF
               orientation is applied, opacity is set aside, palettes and CMYK become RGB; BMP,
               WebP, PGM and PPM (8 and 16 bit), which are written as PNG
    arrays     .npy, .npz[:key], .h5[:dataset], .mat[:name]: real ones as `axes` says; complex
               arrays keep their values: (H, W) is one image of one channel, (C, H, W) one of
               several, (N, C, H, W) is N of them
    volumes    NIfTI, DICOM (a file, or a folder of one series), MetaImage: slices (`volumes`)
    k-space    .h5 with `kspace`, as fastMRI has it: slices of (coils, H, W)

Only what its format calls opacity is opacity. All channels of an array are data, and so are those
of a TIFF beyond grey and colours.

A file that cannot be understood raises `UnreadableFile`, whatever is wrong with it; `arrays` says
what is refused.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import pillow, tiff, volumes
from .arrays import ARRAYS, compact, load, split_key
from .axes import images_first
from .form import Form, Picture, Stored, Template
from .picture_writing import Description
from .ranges import Range, byte_order
from .sources import File, UnreadableFile, file_at, reading
from .tiff import Samples
from .tiff_writing import calibration

__all__ = [
    "FILES",
    "PICTURES",
    "is_file_of_images",
    "read_array",
    "read_image",
    "read_samples",
    "read_stored",
]

_AS_PNG = (".bmp", ".webp", ".pgm", ".ppm", ".pnm")
PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", *_AS_PNG)
FILES = PICTURES + ARRAYS + volumes.SUFFIXES


def read_image(path: str | Path, *, value_range: Range | None = None) -> Picture:
    """The images of a file, in [-1, 1], with what is needed to write one like it.

    Args:
        path: A file as `read_stored` takes it.
        value_range: The samples that mean black and white; for floating-point files where [0, 1]
            and [-1, 1] are both wrong, or for integers that do not use their full range.
    Returns:
        The images, their form and what was decided.
    """
    return read_stored(path).image(value_range)


def is_file_of_images(path: str | Path) -> bool:
    """Whether a file has a name or a beginning that `read_stored` knows."""
    file = file_at(path)
    return file.suffix in FILES or volumes.is_volume(file)


def read_stored(path: str | Path) -> Stored:
    """Return what a file holds, before its samples are given a meaning.

    Args:
        path: A PNG, JPEG, TIFF[:page], BMP, WebP, PGM, PPM, .npy, .npz[:key], .h5[:dataset],
            .mat[:name], NIfTI, DICOM or MetaImage file, or a folder of one DICOM series; pages
            count from 0.
    Raises:
        FileNotFoundError: There is no such file.
        UnreadableFile: It cannot be read; the message says what is wrong and what would do.
    """
    alone, key = split_key(path)
    file = File(str(alone), alone, key=key)
    if not alone.exists():
        raise FileNotFoundError(f"{alone}: no such file")
    try:
        if file.suffix in ARRAYS:
            return _arrays(file)
        if file.suffix in PICTURES:
            return _pictures(file)
        if volumes.is_volume(file):
            return _volume(file)
    except MemoryError as error:
        raise UnreadableFile(f"{alone}: too large for the memory ({error})") from error
    raise UnreadableFile(
        f"{alone}: got a file ending in '{alone.suffix}', wanted one of {' '.join(FILES)}, or a "
        "DICOM file"
    )


def _pictures(file: File) -> Stored:
    with reading(file):
        tiffs = file.suffix in tiff.SUFFIXES and tiff.is_tiff(file)
        pages = tiff.pages(file) if tiffs else [pillow.read(file)]
    first, name = pages[0], file.name
    kept: Template | None = None
    if tiffs:
        with reading(file):
            kept = calibration(file)
    elif file.suffix not in tiff.SUFFIXES:
        kept = Description(first.values.shape[:2], first.exif, first.dpi, first.gamma)
    if len({(page.values.shape, page.values.dtype, page.further) for page in pages}) > 1:
        raise UnreadableFile(
            f"{name}: its {len(pages)} pages differ in size or kind; write {file.base}:N for one "
            f"of them, N from 0 to {len(pages) - 1}"
        )
    values = np.stack([page.values for page in pages])
    notes = list(dict.fromkeys(note for page in pages for note in page.notes))
    alpha = first.alpha
    if len(pages) > 1:
        if any(a is not None and (a != a.flat[0]).any() for a in (p.alpha for p in pages)):
            raise UnreadableFile(
                f"{name}: several pages, transparent in places; write {file.base}:N for one"
            )
        alpha = None
        notes.append(f"{len(pages)} pages, each an image")
    if first.alpha is not None:
        notes.append("alpha set aside")
    suffix = file.suffix
    if suffix in _AS_PNG:
        suffix = ".png"
        notes.append(f"a {file.suffix} file, the estimate of which is a PNG")
    form = Form(
        suffix,
        values.dtype.str,
        alpha=alpha,
        multiplied=first.multiplied,
        further=first.further,
        profile=first.profile,
        template=kept,
    )
    if np.iscomplexobj(values):
        if values.ndim == 4:
            raise UnreadableFile(f"{name}: got {values.shape[3]} complex channels, wanted one")
        x, axes = _items(name, values[0] if len(values) == 1 else values[:, None])
        return Stored(name, x, replace(form, axes=axes), tuple(notes))
    form = replace(form, axes="HWC" if values.ndim == 4 else "HW")
    x = _channels_first(values if values.ndim == 4 else values[..., None])
    missing = [page.missing for page in pages]
    for image, hole in zip(x, missing, strict=True):
        if hole is not None:
            image[:, torch.from_numpy(np.ascontiguousarray(hole))] = torch.nan
    return Stored(name, x, form, tuple(notes), None, any(hole is not None for hole in missing))


def _arrays(file: File) -> Stored:
    key = file.key
    if key is None and file.suffix in (".h5", ".hdf5"):
        from .fastmri import is_fastmri

        key = "kspace" if is_fastmri(file) else None
    values, key, stored_range = load(replace(file, key=None), key)
    form = Form(file.suffix, values.dtype.str, key=key)
    if np.iscomplexobj(values):
        if key == "kspace" and values.ndim == 3:  # of one coil: slices, rows, columns
            values = values[:, None]
        x, axes = _items(file.name, values)
        many: tuple[str, ...] = ()
        if len(x) > 1:
            what = "slices of k-space" if key == "kspace" else "images or slices"
            many = (f"{len(x)} {what}, each of {x.shape[1]} channels or coils",)
        return Stored(file.name, x, replace(form, axes=axes), many)
    pixels, axes, note = images_first(file.name, values)
    notes: tuple[str, ...] = (note,) if note else ()
    notes += byte_order(pixels[len(pixels) // 2], values.dtype)
    return Stored(
        file.name, _channels_first(pixels), replace(form, axes=axes), notes, stored_range
    )


def _volume(file: File) -> Stored:
    volume = volumes.read(file)
    form = Form(volume.suffix, volume.dtype, axes="NHWC", template=volume.template)
    notes = volume.notes
    if len(volume.images) > 1:
        notes += (f"{len(volume.images)} slices, each an image",)
    if np.iscomplexobj(volume.images):
        x, _ = _items(file.name, volume.images[:, None])
        return Stored(file.name, x, replace(form, axes=""), notes)
    images = volume.images if volume.images.ndim == 4 else volume.images[..., None]
    notes += byte_order(images[len(images) // 2], np.dtype(volume.dtype))
    return Stored(file.name, _channels_first(images), form, notes, unit=volume.unit)


def _channels_first(pixels: np.ndarray) -> Tensor:
    """Images (N, H, W, C) as (N, C, H, W), in double precision."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), dtype=np.float64))


def _items(name: str, values: np.ndarray) -> tuple[Tensor, str]:
    """Complex values as (N, C, H, W), and the order their axes had."""
    axes = {2: "HW", 3: "", 4: ""}.get(values.ndim)
    if axes is None or 0 in values.shape:
        raise UnreadableFile(
            f"{name}: got a complex array of shape {values.shape}, wanted (H, W), (C, H, W) or "
            "(N, C, H, W)"
        )
    x = torch.from_numpy(compact(values))
    return x.reshape((1,) * (4 - x.ndim) + x.shape), axes


def read_samples(path: Path | File) -> Samples:
    """Samples of a picture file, upright; integers and floats as the file has them.

    Of a TIFF with several pages these are the first, or the one that the key of the `File` counts.
    """
    source = file_at(path)
    if source.suffix in tiff.SUFFIXES and tiff.is_tiff(source):
        return tiff.read(source)
    return pillow.read(source)


def read_array(path: str | Path) -> np.ndarray:
    """A plain array from a .npy, .npz[:key], .mat[:name] or .h5[:dataset] file, or a picture's."""
    file, key = split_key(path)
    if file.suffix.lower() in ARRAYS:
        return load(file, key)[0]
    picture = read_image(file)
    return (0.5 * (picture.x[0] + 1.0)).numpy()
