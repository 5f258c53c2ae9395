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
from .files import PICTURES, Form
from .png import encode_png16

__all__ = ["write_image"]


def write_image(path: str | Path, x: Tensor, form: Form) -> Path:
    """Write an image the way another file was stored; the write is atomic.

    In an HDF5 file it is never called `kspace`, which has a meaning to those who read it.

    Args:
        path: Where to write; its ending must be that of the form.
        x: Image in [-1, 1], with shape (1, C, H, W), 1 or 3 channels in PNG and JPEG; integers are
            rounded and clipped to their range, floating-point samples are not. In the form of a
            complex array, values as they are, with shape (N, C, H, W).
        form: How to store it (`read_image(...).form`).
    Returns:
        The path.
    """
    path = Path(path)
    if path.suffix.lower() != form.suffix:
        raise ValueError(
            f"write_image: got a name ending in '{path.suffix}', wanted {form.suffix}"
        )
    if not torch.isfinite(torch.view_as_real(x) if x.is_complex() else x).all():
        raise ValueError(f"{path}: got an image with NaN or infinite values, nothing is written")
    if form.axes == "" or np.dtype(form.dtype).kind == "c":
        values = (x.detach().cpu() * form.unit).numpy()
        values = values[0] if len(values) == 1 else values
        values = values[0] if form.axes == "HW" and len(values) == 1 else values
        samples = values.astype(form.dtype if x.is_complex() else np.float32)
    else:
        most = form.suffix in PICTURES and form.suffix not in tiff.SUFFIXES
        if x.ndim != 4 or x.shape[0] != 1 or (most and x.shape[1] not in (1, 3)) or x.is_complex():
            wanted = "1 or 3" if most else "C"
            raise ValueError(
                f"{path}: got {x.dtype} of shape {tuple(x.shape)}, wanted real (1, {wanted}, H, W)"
            )
        samples = _samples(x, form)
    write_atomic(path, _encode(samples, form))
    return path


def _samples(x: Tensor, form: Form) -> np.ndarray:
    """The image in the file's units, type and axes, its alpha beside it."""
    kind = np.dtype(form.dtype)
    u = x[0].detach().cpu().double()
    u = form.low + (u + 1.0) * (0.5 * (form.high - form.low))
    pixels = u.permute(1, 2, 0).numpy()
    if kind.kind in "ui":
        limits = np.iinfo(kind)
        pixels = pixels.round().clip(limits.min, limits.max)
    pixels = pixels > 0.5 if kind.kind == "b" else pixels.astype(kind)
    if form.alpha is not None:
        alpha = torch.from_numpy(form.alpha.astype(np.float64))[None, None]
        if alpha.shape[2:] != x.shape[2:]:
            alpha = F.interpolate(alpha, x.shape[2:], mode="bilinear", antialias=True)
        alpha = alpha.round() if kind.kind in "ui" else alpha
        pixels = np.concatenate([pixels, alpha[0, 0].numpy().astype(kind)[..., None]], 2)
    if form.axes == "HW" and pixels.shape[2] == 1:
        return pixels[..., 0]
    axes = form.axes
    if axes == "CHW" and pixels.shape[2] not in (1, 3):  # which only (1, C, H, W) says
        axes = "1CHW"
    if axes.endswith("CHW"):
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels[None] if axes == "1CHW" else pixels)


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
    elif form.suffix in (".tif", ".tiff"):
        import tifffile

        samples = samples if samples.dtype.kind != "b" else samples.astype(np.uint8) * 255
        channels = 1 if samples.ndim == 2 else samples.shape[-1]
        opacity = [1 if form.multiplied else 2] if form.alpha is not None else []
        plain = channels - len(opacity)
        color = plain == 3 or (plain > 3 and plain - form.further == 3)
        tifffile.imwrite(
            out,
            samples,
            photometric="rgb" if color else "minisblack",
            extrasamples=[0] * (plain - (3 if color else 1)) + opacity or None,
            planarconfig="contig" if samples.ndim == 3 else None,
            iccprofile=form.profile,
        )
    elif samples.dtype == np.uint16:
        out.write(encode_png16(samples if samples.ndim == 3 else samples[..., None]))
    else:
        from PIL import Image

        image = Image.fromarray(samples[..., 0] if samples.shape[2:] == (1,) else samples)
        options = {"icc_profile": form.profile} if form.profile else {}
        if form.suffix == ".png":
            image.save(out, "PNG", **options)
        else:
            image.save(out, "JPEG", quality=95, subsampling=0, **options)
    return out.getvalue()
