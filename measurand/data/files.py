"""Real picture files in, with what it takes to write the same kind of file out.

A file's samples u become an image x in [-1, 1] by `x = 2 (u - low) / (high - low) - 1`, where
`low, high` is the full range of an integer type (0 and 255, or 65535) and is stated, or recognised
and said, for floating-point arrays. Everything else the file knows is kept aside in a `Form`
(format, sample type, axes, range, alpha, colour profile), so that `writing` gives back a file of
the same kind and bit depth.

    pictures   PNG (8 and 16 bit, grey, colour, palette), JPEG, TIFF[:page] (`tiff`): EXIF
               orientation is applied, opacity is set aside, palettes and CMYK become RGB
    arrays     .npy, .npz[:key], .h5[:dataset]: (H, W), (H, W, C) with C at most 4, (3, H, W) or
               (1, C, H, W); complex arrays keep their values: (H, W) is one image of one channel,
               (C, H, W) one of several, (N, C, H, W) is N of them

Only what its format calls opacity is opacity. All channels of an array are data, and so are those
of a TIFF beyond grey and colours.

A file that cannot be understood raises `UnreadableFile`, whatever is wrong with it; `arrays` says
what is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from . import pillow, tiff
from .arrays import ARRAYS, all_finite, load, split_key
from .sources import File, UnreadableFile, file_at, reading
from .tiff import Samples

__all__ = [
    "Form",
    "Picture",
    "Stored",
    "UnreadableFile",
    "read_array",
    "read_image",
    "read_samples",
    "read_stored",
]

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_CHANNELS = 4  # more along the last axis of an array are columns


@dataclass(frozen=True)
class Form:
    """How a file stores its image: what `write_image` needs to write another one like it.

    Args:
        suffix: The format, as the lower-case ending of the name.
        dtype: Sample type, as numpy names it.
        axes: Order of the axes in an array file: HW, HWC, CHW or 1CHW; "" keeps values and axes,
            as complex arrays do whatever it says.
        low: The sample that means -1.
        high: The sample that means 1.
        key: Name of the array inside an .npz or HDF5 file.
        alpha: Opacity, with shape (H, W) and the sample type of the file.
        multiplied: Whether the colours of the file are multiplied by the opacity.
        further: Channels at the end of a TIFF that are neither grey nor one of three colours.
        profile: ICC colour profile.
        unit: What the values of complex images are multiplied by when they are written.
    """

    suffix: str = ".png"
    dtype: str = "uint8"
    axes: str = "HWC"
    low: float = 0.0
    high: float = 255.0
    key: str | None = None
    alpha: np.ndarray | None = None
    multiplied: bool = False
    further: int = 0
    profile: bytes | None = None
    unit: float = 1.0


@dataclass(frozen=True)
class Picture:
    """An image and the form of its file.

    Args:
        x: The image in [-1, 1], with shape (1, C, H, W); or complex values as they were stored,
            with shape (N, C, H, W).
        form: How its file stores it.
        notes: What was decided on the way, one sentence each.
    """

    x: Tensor
    form: Form
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stored:
    """What a file holds, before its samples are given a meaning.

    Args:
        name: The file, for messages.
        x: Its samples, with shape (1, C, H, W), NaN where the file calls a pixel missing; complex
            ones with shape (N, C, H, W).
        form: How the file stores them.
        notes: What was decided on the way, one sentence each.
        range: The samples that mean black and white, where the file says so.
        missing: Whether the file calls pixels missing.
    """

    name: str
    x: Tensor
    form: Form
    notes: tuple[str, ...] = ()
    range: tuple[float, float] | None = None
    missing: bool = False

    def image(self, value_range: tuple[float, float] | None = None) -> Picture:
        """Return the samples as an image in [-1, 1]; complex ones as they are.

        Args:
            value_range: The samples that mean black and white; see `read_image`.
        Raises:
            UnreadableFile: Some are missing or not finite, or what they mean is not known.
        """
        if self.missing:
            complete(self.name, self.x.isnan().any(1).numpy())
        all_finite(self.name, self.x.numpy())
        if self.x.is_complex():
            return Picture(self.x, self.form, self.notes)
        low, high, note = _range(self, value_range or self.range)
        x = (2.0 * (self.x - low) / (high - low) - 1.0).float()
        form = replace(self.form, low=low, high=high)
        return Picture(x, form, self.notes + ((note,) if note else ()))


def read_image(path: str | Path, *, value_range: tuple[float, float] | None = None) -> Picture:
    """The image of a file, in [-1, 1], with what is needed to write one like it.

    Args:
        path: A PNG, JPEG, TIFF[:page], .npy, .npz[:key] or .h5[:dataset] file; pages count from 0.
        value_range: The samples that mean black and white; for floating-point files where [0, 1]
            and [-1, 1] are both wrong, or for integers that do not use their full range.
    Returns:
        The image, its form and what was decided.
    """
    return read_stored(path).image(value_range)


def read_stored(path: str | Path) -> Stored:
    """Return what a file holds, before its samples are given a meaning.

    Args:
        path: A file as `read_image` takes it.
    """
    file, key = split_key(path)
    suffix = file.suffix.lower()
    if not file.exists():
        raise FileNotFoundError(f"{file}: no such file")
    if suffix not in PICTURES + ARRAYS:
        known = " ".join(PICTURES + ARRAYS)
        raise UnreadableFile(
            f"{file}: got a file ending in '{file.suffix}', wanted one of {known}"
        )
    notes: tuple[str, ...] = ()
    stored_range = missing = None
    if suffix in ARRAYS:
        values, key, stored_range = load(file, key)
        form = Form(suffix, values.dtype.str, key=key)
    else:
        with reading(file):
            samples = read_samples(File(str(file), file, key=key))
        values, notes, missing = samples.values, samples.notes, samples.missing
        if samples.alpha is not None:
            notes += ("alpha set aside",)
        form = Form(
            suffix,
            values.dtype.str,
            alpha=samples.alpha,
            multiplied=samples.multiplied,
            further=samples.further,
            profile=samples.profile,
        )
    if np.iscomplexobj(values):
        if suffix in PICTURES and values.ndim == 3:
            raise UnreadableFile(f"{file}: got {values.shape[2]} complex channels, wanted one")
        x, axes = _items(file, values)
        return Stored(str(file), x, replace(form, axes=axes), notes)
    if suffix in ARRAYS:
        pixels, axes, note = _as_hwc(file, values)
        notes += (note,) if note else ()
    else:
        pixels, axes = (values, "HWC") if values.ndim == 3 else (values[..., None], "HW")
    x = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float64))[None]
    if missing is not None:
        x[..., torch.from_numpy(np.ascontiguousarray(missing))] = torch.nan
    return Stored(str(file), x, replace(form, axes=axes), notes, stored_range, missing is not None)


def complete(path: Path | str, missing: np.ndarray | None) -> None:
    """Checks that a picture file calls none of its pixels missing.

    Args:
        path: The file, for the message.
        missing: Which pixels are, as a boolean array; None where the file says nothing.
    Raises:
        UnreadableFile: Some are; the message says how many.
    """
    if missing is not None and missing.any():
        raise UnreadableFile(
            f"{path}: {int(missing.sum())} of {missing.size} pixels are missing (they equal the "
            "nodata value that the file states)"
        )


def _items(path: Path, values: np.ndarray) -> tuple[Tensor, str]:
    """Complex values as (N, C, H, W), and the order their axes had."""
    axes = {2: "HW", 3: "", 4: ""}.get(values.ndim)
    if axes is None or 0 in values.shape:
        raise UnreadableFile(
            f"{path}: got a complex array of shape {values.shape}, wanted (H, W), (C, H, W) or "
            "(N, C, H, W)"
        )
    x = torch.from_numpy(np.ascontiguousarray(values, dtype=np.complex64))
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
    """A plain array from a .npy, .npz[:key] or .h5[:dataset] file, or a picture's samples."""
    file, key = split_key(path)
    if file.suffix.lower() in ARRAYS:
        return load(file, key)[0]
    picture = read_image(file)
    return (0.5 * (picture.x[0] + 1.0)).numpy()


def _as_hwc(path: Path, samples: np.ndarray) -> tuple[np.ndarray, str, str]:
    """Samples as (H, W, C), the order their axes had, and a sentence where it is a guess."""
    shape, note = samples.shape, ""
    if 0 in shape:
        raise UnreadableFile(f"{path}: got an empty array of shape {shape}")
    if samples.ndim == 2:
        return samples[..., None], "HW", ""
    if samples.ndim == 3 and shape[2] <= _CHANNELS:
        if shape[0] <= _CHANNELS:
            note = f"shape {shape} taken as rows, columns, channels"
        return samples, "HWC", note
    if samples.ndim == 3 and shape[0] in (1, 3):
        if shape[0] == 3:
            note = f"shape {shape} taken as one image of 3 channels, rows, columns"
        return samples.transpose(1, 2, 0), "CHW", note
    if samples.ndim == 4 and shape[0] == 1 and shape[1] <= _CHANNELS:
        if shape[3] <= _CHANNELS:
            note = f"shape {shape} taken as one image of channels, rows, columns"
        return samples[0].transpose(1, 2, 0), "1CHW", note
    message = (
        f"{path}: got an array of shape {shape}, wanted (H, W), (H, W, C) with at most "
        f"{_CHANNELS} channels, (3, H, W) or (1, C, H, W)"
    )
    if samples.ndim in (3, 4):
        message += (
            f"; if these are {shape[0]} images, save each to a file of its own, such as "
            "np.save('image0.npy', a[0])"
        )
        if shape[0] <= _CHANNELS:
            message += f"; if it is one image of {shape[0]} channels, save a[None]"
    raise UnreadableFile(message)


def _range(stored: Stored, stated: tuple[float, float] | None) -> tuple[float, float, str]:
    """The samples that mean -1 and 1, and a sentence where they had to be guessed."""
    kind = np.dtype(stored.form.dtype)
    if stated is not None:
        if not stated[0] < stated[1]:
            raise ValueError(f"value range: got {stated}, wanted LOW below HIGH")
        return float(stated[0]), float(stated[1]), ""
    if kind.kind == "b":
        return 0.0, 1.0, ""
    if kind.kind == "u" and kind.itemsize <= 2:
        return 0.0, float(np.iinfo(kind).max), ""
    low, high = float(stored.x.min()), float(stored.x.max())
    if kind.kind == "f":
        for ends, reach in (((0.0, 1.0), 0.5), ((-1.0, 1.0), 1.0)):
            if ends[0] - reach <= low and high <= ends[1] + reach:
                shown = f"[{ends[0]:g}, {ends[1]:g}]"
                return *ends, f"samples span [{low:.3g}, {high:.3g}]: taken as an image in {shown}"
    raise UnreadableFile(
        f"{stored.name}: {kind} samples span [{low:.4g}, {high:.4g}]; say which mean black and "
        "white (--value-range LOW HIGH)"
    )
