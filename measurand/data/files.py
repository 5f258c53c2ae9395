"""Real picture files in, and the same kind of file out.

A file's samples u become an image x in [-1, 1] by `x = 2 (u - low) / (high - low) - 1`, where
`low, high` is the full range of an integer type (0 and 255, or 65535) and is stated, or recognised
and said, for floating-point arrays. Everything else the file knows is kept aside in a `Form`
(format, sample type, axes, range, alpha, colour profile), so that `write_image` gives back a file
of the same kind and bit depth.

    pictures   PNG (8 and 16 bit, grey, colour, palette), JPEG, TIFF: EXIF orientation is applied,
               alpha is set aside, palettes and CMYK become RGB
    arrays     .npy, .npz[:key], .h5[:dataset]: (H, W), (H, W, C), (C, H, W) or (1, C, H, W);
               complex arrays keep their values and their axes

A file that cannot be understood raises `UnreadableFile`, whatever is wrong with it; `arrays` says
what is refused. Writing is atomic.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..files import write_atomic
from .arrays import ARRAYS, all_finite, load, split_key
from .png import decode_png16, encode_png16, is_png16
from .sources import File, UnreadableFile, file_at, reading, sized

__all__ = [
    "Form",
    "Picture",
    "UnreadableFile",
    "read_array",
    "read_image",
    "read_samples",
    "write_image",
]

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
_UPRIGHT = {  # EXIF orientation -> (transpose, flip rows, flip columns)
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


@dataclass(frozen=True)
class Form:
    """How a file stores its image: what `write_image` needs to write another one like it.

    Args:
        suffix: The format, as the lower-case ending of the name.
        dtype: Sample type, as numpy names it.
        axes: Order of the axes in an array file: HW, HWC, CHW or 1CHW; "" keeps them as they are.
        low: The sample that means -1.
        high: The sample that means 1.
        key: Name of the array inside an .npz or HDF5 file.
        alpha: Opacity, with shape (H, W) and the sample type of the file.
        profile: ICC colour profile.
    """

    suffix: str = ".png"
    dtype: str = "uint8"
    axes: str = "HWC"
    low: float = 0.0
    high: float = 255.0
    key: str | None = None
    alpha: np.ndarray | None = None
    profile: bytes | None = None


@dataclass(frozen=True)
class Picture:
    """An image and the form of its file.

    Args:
        x: The image in [-1, 1], with shape (1, C, H, W), or a complex array as it was stored.
        form: How its file stores it.
        notes: What was decided on the way, one sentence each.
    """

    x: Tensor
    form: Form
    notes: tuple[str, ...] = ()


def read_image(path: str | Path, *, value_range: tuple[float, float] | None = None) -> Picture:
    """The image of a file, in [-1, 1], with what is needed to write one like it.

    Args:
        path: A PNG, JPEG, TIFF, .npy, .npz[:key] or .h5[:dataset] file.
        value_range: The samples that mean black and white; for floating-point files where [0, 1]
            and [-1, 1] are both wrong, or for integers that do not use their full range.
    Returns:
        The image, its form and what was decided.
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
    if suffix in ARRAYS:
        samples, key, stored_range = load(file, key)
        form = Form(suffix, samples.dtype.str, key=key)
        value_range = value_range or stored_range
        notes: tuple[str, ...] = ()
    else:
        with reading(file):
            samples, profile, notes = read_samples(file)
        form = Form(suffix, samples.dtype.str, profile=profile)
    if np.iscomplexobj(samples):
        x = torch.from_numpy(samples.astype(np.complex64))
        all_finite(file, samples)
        return Picture(x if x.ndim == 4 else x[None], replace(form, axes=""), notes)
    pixels, axes = _as_hwc(file, samples)
    all_finite(file, pixels)
    low, high, note = _range(file, pixels, value_range)
    alpha = None
    if pixels.shape[2] in (2, 4):
        pixels, alpha = pixels[..., :-1], np.ascontiguousarray(pixels[..., -1])
        notes += ("alpha set aside",)
    x = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float64))
    x = (2.0 * (x - low) / (high - low) - 1.0).float()[None]
    form = replace(form, axes=axes, low=low, high=high, alpha=alpha)
    return Picture(x, form, notes + ((note,) if note else ()))


def read_samples(path: Path | File) -> tuple[np.ndarray, bytes | None, tuple[str, ...]]:
    """Samples (H, W[, C]) of a picture file, upright, with its colour profile and notes.

    C is 1 or 3, and one more for opacity; integers and floats as the file has them. Of a TIFF with
    several pages this is the first, or the one that the key of the `File` counts.
    """
    from PIL import Image, UnidentifiedImageError

    source, notes = file_at(path), []
    if source.suffix in (".tif", ".tiff"):
        import tifffile

        try:
            with source.open() as opened, tifffile.TiffFile(opened) as tiff:
                whole = [p for p in tiff.pages if not p.is_reduced]  # type: ignore[union-attr]
                page = whole[int(source.key or 0)]
                plain = page.photometric in (0, 1, 2) and page.planarconfig == 1  # type: ignore[union-attr]
                if plain and page.dtype is not None:
                    sized(source.name, page.nbytes, opened.seek(0, io.SEEK_END))
                    samples = page.asarray()
                    if page.photometric == 0 and samples.dtype.kind == "u":  # type: ignore[union-attr]
                        samples = np.iinfo(samples.dtype).max - samples  # white is zero
                    orientation = page.tags.get(274)  # type: ignore[union-attr]
                    profile = page.tags.get(34675)  # type: ignore[union-attr]
                    if len(whole) > 1 and source.key is None:
                        notes.append(f"first of {len(whole)} pages")
                    samples = _upright(samples, orientation.value if orientation else 1)
                    return samples, profile.value if profile else None, tuple(notes)
        except UnreadableFile:
            raise
        except (ValueError, ImportError):  # a compression that needs a codec: pillow has most
            pass
    content = source.read()
    try:
        picture = Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:  # its own words are the address of a buffer
        raise ValueError("it is in no picture format that is known, or damaged") from error
    with picture:
        image: Image.Image = picture
        orientation = image.getexif().get(274, 1)
        profile = image.info.get("icc_profile")
        deep = is_png16(content[:32])
        if deep and content[25] != 0:  # pillow keeps 16 bits of grey, of nothing else
            return _upright(decode_png16(content), orientation), profile, ()
        if image.mode in ("P", "PA"):
            notes.append("palette read as colours")
            image = image.convert("RGBA" if image.has_transparency_data else "RGB")
        elif image.mode == "1":
            image = image.convert("L")
        elif image.mode in ("L", "RGB") and "transparency" in image.info:
            image = image.convert(image.mode + "A")
        elif image.mode not in ("L", "LA", "RGB", "RGBA", "I", "I;16", "I;16B", "F"):
            notes.append(f"{image.mode} read as RGB")
            image, profile = image.convert("RGB"), None
        samples = np.array(image, dtype=np.uint16 if deep else None)
    if orientation != 1:
        notes.append("turned upright (EXIF orientation)")
    return _upright(samples, orientation), profile, tuple(notes)


def _upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    transpose, rows, columns = _UPRIGHT.get(int(orientation), (False, False, False))
    if transpose:
        samples = samples.swapaxes(0, 1)
    return samples[:: -1 if rows else 1, :: -1 if columns else 1]


def read_array(path: str | Path) -> np.ndarray:
    """A plain array from a .npy, .npz[:key] or .h5[:dataset] file, or a picture's samples."""
    file, key = split_key(path)
    if file.suffix.lower() in ARRAYS:
        return load(file, key)[0]
    picture = read_image(file)
    return (0.5 * (picture.x[0] + 1.0)).numpy()


def _as_hwc(path: Path, samples: np.ndarray) -> tuple[np.ndarray, str]:
    """Samples as (H, W, C) and the order their axes had."""
    shape = samples.shape
    if 0 in shape:
        raise UnreadableFile(f"{path}: got an empty array of shape {shape}")
    if samples.ndim == 2:
        return samples[..., None], "HW"
    if samples.ndim == 3 and shape[2] <= 4:
        return samples, "HWC"
    if samples.ndim == 3 and shape[0] in (1, 3):
        return samples.transpose(1, 2, 0), "CHW"
    if samples.ndim == 4 and shape[0] == 1 and shape[1] in (1, 3):
        return samples[0].transpose(1, 2, 0), "1CHW"
    raise UnreadableFile(
        f"{path}: got an array of shape {shape}, wanted (H, W), (H, W, C), (C, H, W) or "
        "(1, C, H, W) with 1 or 3 channels (and alpha)"
    )


def _range(
    path: Path, pixels: np.ndarray, stated: tuple[float, float] | None
) -> tuple[float, float, str]:
    """The samples that mean -1 and 1, and a sentence where they had to be guessed."""
    kind = pixels.dtype
    if stated is not None:
        if not stated[0] < stated[1]:
            raise ValueError(f"value range: got {stated}, wanted LOW below HIGH")
        return float(stated[0]), float(stated[1]), ""
    if kind.kind == "b":
        return 0.0, 1.0, ""
    if kind.kind == "u" and kind.itemsize <= 2:
        return 0.0, float(np.iinfo(kind).max), ""
    low, high = float(pixels.min()), float(pixels.max())
    if kind.kind == "f":
        for ends, reach in (((0.0, 1.0), 0.5), ((-1.0, 1.0), 1.0)):
            if ends[0] - reach <= low and high <= ends[1] + reach:
                shown = f"[{ends[0]:g}, {ends[1]:g}]"
                return *ends, f"samples span [{low:.3g}, {high:.3g}]: taken as an image in {shown}"
    raise UnreadableFile(
        f"{path}: {kind} samples span [{low:.4g}, {high:.4g}]; say which mean black and white "
        "(--value-range LOW HIGH)"
    )


def write_image(path: str | Path, x: Tensor, form: Form) -> Path:
    """Write an image the way another file was stored; the write is atomic.

    Args:
        path: Where to write; its ending must be that of the form.
        x: Image in [-1, 1], with shape (1, C, H, W) and 1 or 3 channels; integers are rounded and
            clipped to their range, floating-point samples are not.
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
    if form.axes == "":
        samples = x[0].detach().cpu().numpy()
        samples = samples.astype(form.dtype if x.is_complex() else np.float32)
    else:
        if x.ndim != 4 or x.shape[0] != 1 or x.shape[1] not in (1, 3) or x.is_complex():
            raise ValueError(
                f"{path}: got {x.dtype} of shape {tuple(x.shape)}, wanted real (1, 1 or 3, H, W)"
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
        pixels = np.concatenate([pixels, alpha[0, 0].round().numpy().astype(kind)[..., None]], 2)
    if form.axes == "HW" and pixels.shape[2] == 1:
        return pixels[..., 0]
    if form.axes.endswith("CHW"):
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels[None] if form.axes == "1CHW" else pixels)


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
            dataset = h5.create_dataset(form.key or "x", data=samples)
            dataset.attrs["range"] = (form.low, form.high)
    elif form.suffix in (".tif", ".tiff"):
        import tifffile

        color = samples.ndim == 3 and samples.shape[2] >= 3
        if samples.dtype.kind == "b":
            samples = samples.astype(np.uint8) * 255
        tifffile.imwrite(
            out,
            samples,
            photometric="rgb" if color else "minisblack",
            extrasamples=["unassalpha"] if form.alpha is not None else None,
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
