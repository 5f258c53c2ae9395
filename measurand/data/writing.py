"""Images written as files of the form that another file has: the way back of `files`.

An image x in [-1, 1] becomes samples `u = low + (high - low) (x + 1) / 2` of the type, axes and
format of a `Form`; its alpha and colour profile come back. Writing is atomic.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..files import write_atomic
from . import tiff
from .axes import laid_out
from .files import PICTURES
from .form import Form
from .picture_writing import Description
from .tiff_writing import Calibration

__all__ = ["as_written", "check_finite", "write_image"]


def write_image(path: str | Path, x: Tensor, form: Form) -> Path:
    """Write an image the way another file was stored; the write is atomic.

    In an HDF5 file it is never called `kspace`, which has a meaning to those who read it.

    Args:
        path: Where to write; its ending must be that of the form.
        x: Images in [-1, 1], with shape (N, C, H, W), in PNG and JPEG one of 1 or 3 channels;
            integers are rounded and clipped to their range, floating-point samples are not. In the
            form of a complex array, values as they are.
        form: How to store it (`read_image(...).form`).
    Returns:
        The path.
    """
    path = Path(path)
    if not path.name.lower().endswith(form.suffix):
        raise ValueError(
            f"write_image: got the name '{path.name}', wanted an ending {form.suffix}"
        )
    check_finite(path, x.detach().cpu().numpy())
    if form.axes == "" or np.dtype(form.dtype).kind == "c":
        values = (x.detach().cpu() * form.unit).numpy()
        check_finite(path, values)
        if form.template is not None and values.shape[1] == 1:
            form.template.write(path, values.transpose(0, 2, 3, 1), form)
            return path
        values = values[0] if len(values) == 1 else values
        values = values[0] if form.axes == "HW" and len(values) == 1 else values
        write_atomic(
            path, _encode(values.astype(form.dtype if x.is_complex() else np.float32), form)
        )
        return path
    most = form.suffix in PICTURES and form.suffix not in tiff.SUFFIXES
    if x.ndim != 4 or (most and (len(x) != 1 or x.shape[1] not in (1, 3))) or x.is_complex():
        wanted = "(1, C, H, W), C 1 or 3" if most else "(N, C, H, W)"
        raise ValueError(f"{path}: got {x.dtype} of shape {tuple(x.shape)}, wanted real {wanted}")
    pixels = _samples(x, form)
    check_finite(path, pixels)  # the type of the file may hold less than single precision
    template = form.template
    if template is None and form.suffix in PICTURES:
        template = (
            Calibration()
            if form.suffix in tiff.SUFFIXES
            else Description((x.shape[2], x.shape[3]))
        )
    if template is not None:
        template.write(path, pixels, form)
    else:
        write_atomic(path, _encode(laid_out(pixels, form.axes), form))
    return path


def check_finite(path: Path, values: np.ndarray) -> None:
    """Raise a `ValueError` where something that is to be written is no finite number."""
    if not np.isfinite(values).all():
        raise ValueError(
            f"{path}: got an image with NaN or infinite values, or beyond what {values.dtype} "
            "holds, nothing is written"
        )


def as_written(x: Tensor, form: Form) -> Tensor:
    """Return images in [-1, 1] as a file of a form keeps them: rounded and clipped to its type.

    Args:
        x: Images in [-1, 1], with shape (N, C, H, W); complex ones stay as they are.
        form: How they are stored.
    """
    if x.is_complex() or form.axes == "" or np.dtype(form.dtype).kind not in "bui":
        return x
    u = torch.from_numpy(_pixels(x, form).astype(np.float64)).movedim(-1, 1)
    return (2 * (u - form.low) / (form.high - form.low) - 1).to(x)


def _pixels(x: Tensor, form: Form) -> np.ndarray:
    """Images (N, H, W, C) in the file's units and type."""
    kind = np.dtype(form.dtype)
    u = form.low + (x.detach().cpu().double() + 1.0) * (0.5 * (form.high - form.low))
    pixels = u.movedim(1, -1).numpy()
    if kind.kind in "ui":
        limits = np.iinfo(kind)
        pixels = pixels.round().clip(limits.min, limits.max)
    with np.errstate(over="ignore"):
        return pixels > 0.5 if kind.kind == "b" else pixels.astype(kind)


def _samples(x: Tensor, form: Form) -> np.ndarray:
    """Images (N, H, W, C) in the file's units and type, their alpha beside them."""
    pixels, kind = _pixels(x, form), np.dtype(form.dtype)
    if form.alpha is None:
        return pixels
    alpha = torch.from_numpy(form.alpha.astype(np.float64))[None, None]
    if alpha.shape[2:] != x.shape[2:]:
        alpha = F.interpolate(alpha, x.shape[2:], mode="bilinear", antialias=True)
    alpha = alpha.round() if kind.kind in "ui" else alpha
    opacity = np.broadcast_to(alpha[0, 0].numpy().astype(kind), pixels.shape[:3])
    return np.concatenate([pixels, opacity[..., None]], 3)


def _encode(samples: np.ndarray, form: Form) -> bytes:
    """The bytes of a file of this form."""
    out = io.BytesIO()
    if form.suffix == ".npy":
        np.save(out, samples, allow_pickle=False)
    elif form.suffix == ".npz":
        arrays: dict[str, Any] = {form.key or "x": samples}
        np.savez_compressed(out, **arrays, range=np.array([form.low, form.high]))
    elif form.suffix in (".h5", ".hdf5"):
        import h5py

        with h5py.File(out, "w") as h5:
            group, _, name = (form.key or "x").rpartition("/")
            name = "image" if name == "kspace" else name
            dataset = h5.create_dataset(f"{group}/{name}", data=samples)
            dataset.attrs["range"] = (form.low, form.high)
    elif form.suffix == ".mat":
        from scipy.io import savemat

        savemat(out, {form.key or "x": samples})
    else:
        raise ValueError(f"no file ending in '{form.suffix}' can be written")
    return out.getvalue()
