"""Real picture files in, and the same kind of file out.

A file's samples u become an image x in [-1, 1] by `x = 2 (u - low) / (high - low) - 1`, where
`low, high` is the full range of an integer type (0 and 255, or 65535) and is stated, or recognised
and said, for floating-point arrays. Everything else the file knows is kept aside in a `Form`
(format, sample type, axes, range, alpha, colour profile), so that `write_image` gives back a file
of the same kind and bit depth.

    pictures   PNG (8 and 16 bit, grey, colour, palette), JPEG, TIFF[:page] (`tiff`): EXIF
               orientation is applied, opacity is set aside, palettes and CMYK become RGB
    arrays     .npy, .npz[:key], .h5[:dataset]: (H, W), (H, W, C) with C at most 4, (3, H, W) or
               (1, C, H, W); complex arrays keep their values: (H, W) is one image of one channel,
               (C, H, W) one of several, (N, C, H, W) is N of them

Only what its format calls opacity is opacity. All channels of an array are data, and so are those
of a TIFF beyond grey and colours.

A file that cannot be understood raises `UnreadableFile`, whatever is wrong with it; `arrays` says
what is refused. Writing is atomic.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..files import write_atomic
from . import tiff
from .arrays import ARRAYS, all_finite, load, split_key
from .png import decode_png16, encode_png16, is_png16
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
    "write_image",
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
    return _pillow(source)


def _pillow(source: File) -> Samples:
    """Samples of a picture file that is no TIFF."""
    from PIL import Image, UnidentifiedImageError

    content, notes = source.read(), []
    try:
        picture = Image.open(io.BytesIO(content))
    except UnidentifiedImageError as error:  # its own words are the address of a buffer
        raise ValueError("it is in no picture format that is known, or damaged") from error
    with picture:
        image: Image.Image = picture
        if image.format == "TIFF":
            return tiff.read(source)
        orientation = image.getexif().get(274, 1)
        profile = image.info.get("icc_profile")
        frames = int(getattr(image, "n_frames", 1))
        if frames > 1:
            notes.append(f"first of {frames} frames")
        deep = is_png16(content[:32])
        if deep and content[25] != 0:  # pillow keeps 16 bits of grey, of nothing else
            samples, gray = decode_png16(content), content[25] == 4
            return _parted(samples, 1 if gray else 3, orientation, profile, notes, frames)
        if image.format == "PPM" and image.mode == "RGB" and _widest(content) > 255:
            raise ValueError(
                f"got {_widest(content)} levels, wanted 255 at most (or a PNG or TIFF)"
            )
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
        wide = deep or (image.format == "PPM" and image.mode == "I")
        samples = np.array(image, dtype=np.uint16 if wide else None)
    if orientation != 1:
        notes.append("turned upright (EXIF orientation)")
    colors = 3 if samples.shape[2:] > (2,) else 1
    return _parted(samples, colors, orientation, profile, notes, frames)


def _widest(content: bytes) -> int:
    """The highest level of a PPM, the fourth word of its head."""
    head = re.sub(rb"#[^\n]*\n", b" ", content[:4096])
    words = head.split(maxsplit=4)
    return int(words[3]) if len(words) > 3 and words[3].isdigit() else 0


def _parted(
    samples: np.ndarray,
    colors: int,
    orientation: int,
    profile: bytes | None,
    notes: list[str],
    frames: int,
) -> Samples:
    """Samples (H, W[, C]) turned upright, and their opacity apart."""
    turned = tiff.upright(samples, orientation)
    values, alpha = turned, None
    if turned.ndim == 3:
        if turned.shape[2] > colors:
            values, alpha = turned[..., :-1], np.ascontiguousarray(turned[..., -1])
        values = values[..., 0] if values.shape[2] == 1 else values
    return Samples(values, alpha=alpha, profile=profile, pages=frames, notes=tuple(notes))


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
