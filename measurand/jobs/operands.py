"""The tensors of operators from files: whatever the format, the same numbers mean the same.

    mask      booleans, 0 and 1, 0 and another whole number such as 255: what is not zero is
              measured; a few grey values between black and white (JPEG, smooth edges) are cut at
              half of white (255, or 65535), many are refused; real numbers with fractions are
              gains and keep their values; NaN and nodata are not measured
    kernel    centred; where it does not sum to one it is a measured PSF, whose background is
              subtracted, and which is divided by its sum (`psf`)
    maps      complex, (coils, H, W) or coils last; NaN is zero (`coil_maps`)
    others    the values as they are

Each may be a table of numbers in text (.txt, .csv), as angles often are.

One image of a picture file is taken, never a part of it without a word: pages are named by a
number, `psf.tif:3`, and what has several planes or colours where one is wanted is refused.
Everything that was decided is said in a note.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..data.arrays import ARRAYS, load
from ..data.files import PICTURES, read_samples
from ..data.sources import IN_PLACE, File, UnreadableFile, reading, split_key
from .coil_maps import coil_maps
from .psf import psf

__all__ = ["operand"]

Shape = tuple[int, ...]
_TABLES = (".txt", ".csv")
_NEAR = 0.05  # of white; what is no farther from black or white is that,
_GREY = 0.25  # the share of pixels at most that may be neither in a mask of two values,
_LEVELS = 8  # where these have more values than that


@dataclass(frozen=True)
class _Stored:
    """What a file holds: values, whether they are a picture's, pixels it calls missing, notes."""

    values: np.ndarray
    picture: bool
    missing: np.ndarray | None
    notes: list[str]


def operand(text: str, name: str, shape: Shape) -> tuple[Tensor, list[str]]:
    """Returns the tensor that a file holds for an operator, and what was decided about it.

    Args:
        text: A file, with the name of an array or the number of a page where it has several; of a
            kernel that keeps its place with `:in-place` behind it.
        name: The option that it is for: mask, kernel, or another.
        shape: Shape (C, H, W) of the image.
    Raises:
        FileNotFoundError: There is no such file.
        UnreadableFile: It cannot be read.
        ValueError: It holds nothing that this option can be.
    """
    stored, told = _stored(text, name), f"{name}: {text}"
    if name == "mask":
        values, notes = _mask(told, stored)
        values = _channels_first(values, shape)
        if values.shape[:-3:-1] == shape[-2:] != values.shape[-2:]:
            raise ValueError(
                f"{told} has {values.shape[-2]} rows and {values.shape[-1]} columns, wanted "
                f"{shape[-2]} and {shape[-1]}: save np.swapaxes(a, -1, -2), or turn it like the "
                "picture, which is turned upright by its EXIF orientation"
            )
    else:
        if stored.missing is not None:
            raise ValueError(f"{told} calls {int(stored.missing.sum())} of its pixels missing")
        if name != "maps" and not np.isfinite(stored.values).all():
            raise ValueError(f"{told} has values that are NaN or infinite")
        if name == "kernel":
            kept = text.endswith(IN_PLACE)
            values, notes = psf(told, _real(told, stored.values), shape[0], in_place=kept)
        elif name == "maps":
            values, notes = coil_maps(told, stored.values, shape[-2:])
        else:
            values, notes = _one_channel(told, stored), []
    if name == "angles" and values.size == max(values.shape, default=0):
        values = values.reshape(-1)  # of MATLAB, (n, 1) or (1, n)
    tensor = torch.from_numpy(np.array(values))
    whole = tensor.dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
    if not (tensor.is_complex() or (name == "angles" and whole)):  # whole angles are degrees
        tensor = tensor.float()
    return tensor, [f"{told}: {note}" for note in (*stored.notes, *notes)]


def _stored(text: str, name: str) -> _Stored:
    file, key = split_key(text)
    suffix = file.suffix.lower()
    if not file.exists():
        raise FileNotFoundError(f"{name}: {file}: no such file")
    if suffix in ARRAYS:
        values = load(file, key)[0]
        if 0 in values.shape:
            raise ValueError(f"{name}: {text} holds an empty array, of shape {values.shape}")
        return _Stored(values.astype(values.dtype.newbyteorder("=")), False, None, [])
    if suffix in _TABLES:
        return _Stored(_table(name, file), False, None, [])
    if suffix not in PICTURES:
        known = " ".join(PICTURES + ARRAYS + _TABLES)
        raise UnreadableFile(
            f"{name}: {file}: got a file ending in '{file.suffix}', wanted one of {known}"
        )
    source = File(str(file), file, key=key)
    with reading(source):
        samples = read_samples(source)
    if samples.pages > 1 and key is None:
        advice = "save the one you mean"
        if suffix.startswith(".tif"):
            advice = f"write {file.name}:N, N from 0 to {samples.pages - 1}"
        raise ValueError(f"{name}: {text} has {samples.pages} pages, wanted one ({advice})")
    alpha = samples.alpha
    if alpha is not None and (alpha != alpha.flat[0]).any():
        raise ValueError(f"{name}: {text} is transparent in places, wanted a picture that is not")
    notes = [note for note in samples.notes if not note.startswith("first of")]
    return _Stored(samples.values, True, samples.missing, notes)


def _table(name: str, file: Path) -> np.ndarray:
    """Numbers in text, in columns that blanks, commas or semicolons part; # begins a remark."""
    try:
        lines = re.sub("[,;]", " ", file.read_text()).splitlines()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an empty one, which is refused below
            values = np.loadtxt(lines, ndmin=1)
    except ValueError as error:
        raise UnreadableFile(
            f"{name}: {file}: wanted a table of numbers, as many in each line ({error}); what is "
            "none belongs behind a #"
        ) from error
    if not values.size:
        raise UnreadableFile(f"{name}: {file}: holds no number")
    return values


def _one_channel(told: str, stored: _Stored) -> np.ndarray:
    """The values of a file, of a picture (H, W): channels that are equal are one."""
    values = stored.values
    if not stored.picture or values.ndim == 2:
        return values
    if (values != values[..., :1]).any():
        raise ValueError(
            f"{told} has {values.shape[2]} channels that differ, wanted a grey picture (or an "
            "array file, .npy)"
        )
    return values[..., 0]


def _channels_first(values: np.ndarray, shape: Shape) -> np.ndarray:
    """A mask (H, W, C) as (C, H, W), and one that is the same for all channels or coils as (H, W).

    Args:
        values: The mask.
        shape: Shape (C, H, W) of the image.
    """
    if values.ndim == 3 and values.shape[:2] == shape[-2:] != values.shape[1:]:
        values = np.moveaxis(values, -1, 0)
    return values[0] if values.ndim == 3 and (values == values[:1]).all() else values


def _real(told: str, values: np.ndarray) -> np.ndarray:
    if np.iscomplexobj(values):
        if np.any(values.imag != 0):
            raise ValueError(f"{told} holds complex numbers, wanted real ones")
        return values.real
    return values


def _mask(told: str, stored: _Stored) -> tuple[np.ndarray, list[str]]:
    """Weights of pixels, most often 0 and 1."""
    notes = []
    whole = stored.values.dtype.kind in "bui"
    values = _real(told, stored.values).astype(np.float64)
    if np.isnan(values).any():
        notes.append(f"{int(np.isnan(values).sum())} values are NaN: not measured")
        values = np.nan_to_num(values, nan=0.0, posinf=np.inf, neginf=-np.inf)
    if stored.missing is not None:
        notes.append(f"{int(stored.missing.sum())} pixels are nodata: not measured")
        hole = stored.missing if values.ndim == 2 else stored.missing[..., None]
        values = np.where(hole, 0.0, values)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(high) or low < 0:
        raise ValueError(
            f"{told} has values from {low:g} to {high:g}, wanted a mask of 0 and 1, or gains that "
            "are finite and not negative"
        )
    if high == 0:
        raise ValueError(f"{told} selects nothing: all of its values are zero")
    whole = whole or (high > 1 and bool((values == values.round()).all()))
    if whole:
        values, more = _selection(told, replace(stored, values=values), high)
        notes += more
    elif not np.isin(values, (0.0, 1.0)).all():
        notes.append(f"gains from {low:.3g} to {high:.3g}, which weigh the pixels")
    return _one_channel(told, _Stored(values, stored.picture, None, [])), notes


def _selection(told: str, stored: _Stored, high: float) -> tuple[np.ndarray, list[str]]:
    """Zeros and ones of whole numbers."""
    values = stored.values
    if ((values == 0) | (values == high)).all():
        selected = values != 0
        notes = [] if high == 1 else [f"0 and {high:g} taken as 0 and 1"]
    else:
        white = 255 if high <= 255 else 65535
        levels = f"{len(np.unique(values))} grey values from {values.min():g} to {high:g}"
        selected = values > white / 2
        if values.ndim == 1 and (np.diff(values) > 0).all():
            raise ValueError(
                f"{told} looks like indices, {values[0]:g} to {high:g} in order, wanted a mask of "
                "0 and 1: mask = np.zeros(n); mask[indices] = 1"
            )
        if high > white or not selected.any():
            raise ValueError(
                f"{told} selects nothing: {levels}, none above half of white, {white / 2:g}"
                if high <= white
                else f"{told} has {levels}, wanted a mask of 0 and 1"
            )
        between = np.minimum(values, np.abs(values - white)) > _NEAR * white
        if between.mean() > _GREY and len(np.unique(values[between])) > _LEVELS:
            _one_channel(told, replace(stored, values=selected))
            raise ValueError(
                f"{told} has {levels}, {100 * between.mean():.3g} % of the pixels neither near 0 "
                f"nor near {white}, wanted a mask of two values. Gains (vignetting, a flat field) "
                "are real numbers: save them as .npy or floating-point TIFF, "
                f"np.save('gains.npy', a / {white}); of a mask save a > {white // 2}"
            )
        notes = [f"{levels}, cut at half of white, {white / 2:g}"]
    if notes:
        notes[-1] += f": selects {100 * selected.mean():.3g} %"
    return selected.astype(np.float64), notes
