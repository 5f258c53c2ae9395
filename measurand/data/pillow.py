"""Picture files that are no TIFF: their samples as pillow decodes them, upright, opacity apart.

PNG of 16 bits and several channels, which pillow cuts to 8, is decoded by `png`, PPM of 16 bits
in colour here.

Only formats of pictures are tried: among the others that pillow knows are programs (PostScript).
A progressive JPEG decodes all of its pixels once for each of its scans, and a scan may be a few
bytes: pixels times scans have a limit.
"""

from __future__ import annotations

import io
import re
from dataclasses import replace

import numpy as np

from . import tiff
from .limits import sized
from .png import decode_png16, is_png16
from .sources import File
from .tiff import Samples

__all__ = ["read"]

_FORMATS = ("PNG", "JPEG", "JPEG2000", "TIFF", "BMP", "DIB", "PPM", "WEBP", "GIF")
_SCANNED = 2**31  # pixels times scans, about 10 s; encoders make at most 10 scans or so


def read(source: File) -> Samples:
    """Returns the samples of a picture file; of one that is a TIFF after all, those of `tiff`."""
    from PIL import Image, UnidentifiedImageError

    content, notes = source.read(), []
    if not content:
        raise ValueError("it is empty, 0 bytes: copy or write it again")
    try:
        picture = Image.open(io.BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError as error:  # its own words are the address of a buffer
        raise ValueError("it is in no picture format that is known, or damaged") from error
    with picture:
        image: Image.Image = picture
        if image.format == "TIFF":
            return tiff.read(source)
        depth = 2 if is_png16(content[:32]) else 4 if image.mode in ("I", "F") else 1
        bands = 4 if image.mode in ("P", "PA") else len(image.getbands())  # palettes become RGBA
        pixels = image.width * image.height
        sized(source.name, pixels * bands * depth, len(content))
        scans = content.count(b"\xff\xda") if image.format in ("JPEG", "MPO") else 1
        if scans * pixels > _SCANNED:
            raise ValueError(f"it has {scans} scans of {pixels} pixels, far more than are of use")
        orientation = image.getexif().get(274, 1)
        profile, dpi = image.info.get("icc_profile"), image.info.get("dpi")
        frames = int(getattr(image, "n_frames", 1))
        told = Samples(
            np.empty(0),
            exif=image.info.get("exif"),
            gamma=image.info.get("gamma"),
            dpi=None if dpi is None or 0 in dpi else (float(dpi[0]), float(dpi[1])),
            pages=frames,
        )
        if frames > 1:
            notes.append(f"first of {frames} frames")
        deep = is_png16(content[:32])
        if deep and content[25] != 0:  # pillow keeps 16 bits of grey, of nothing else
            samples, gray = decode_png16(content), content[25] == 4
            told = replace(told, profile=profile, notes=tuple(notes))
            return _parted(samples, 1 if gray else 3, orientation, told)
        if image.format == "PPM" and image.mode == "RGB" and _widest(content) > 255:
            return Samples(_deep_ppm(content))  # pillow cuts it to 8 bits
        if image.mode in ("P", "PA"):
            opacity = "A" if image.has_transparency_data else ""
            image = image.convert(f"RGB{opacity}")
            red, green, blue = (band.tobytes() for band in image.split()[:3])
            gray = red == green == blue
            notes.append(f"palette read as {'grey' if gray else 'colours'}")
            image = image.convert(f"L{opacity}") if gray else image
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
    told = replace(told, profile=profile, notes=tuple(notes))
    return _parted(samples, 3 if samples.shape[2:] > (2,) else 1, orientation, told)


def _widest(content: bytes) -> int:
    """The highest level of a PPM, the fourth word of its head."""
    head = re.sub(rb"#[^\n]*\n", b" ", content[:4096])
    words = head.split(maxsplit=4)
    return int(words[3]) if len(words) > 3 and words[3].isdigit() else 0


def _deep_ppm(content: bytes) -> np.ndarray:
    """The colours (H, W, 3) of a PPM with more than 256 levels, spread over 16 bits."""
    head = re.match(rb"P6(?:\s+|#[^\n]*\n)+" + 3 * rb"(\d+)(?:\s|#[^\n]*\n)+?", content)
    if head is None:
        raise ValueError("a PPM of 16 bits in words, or damaged; wanted a binary one (P6)")
    width, height, white = map(int, head.groups())
    body = content[head.end() : head.end() + 6 * width * height]
    if len(body) < 6 * width * height:
        raise ValueError(f"it ends early: {len(body)} bytes of pixels of {6 * width * height}")
    pixels = np.frombuffer(body, ">u2")
    if white > 65535 or pixels.max(initial=0) > white:
        raise ValueError(f"it has values above the {white} that it calls white")
    spread = np.rint(pixels * (65535 / white)).astype(np.uint16)
    return spread.reshape(height, width, 3)


def _parted(samples: np.ndarray, colors: int, orientation: int, told: Samples) -> Samples:
    """Samples (H, W[, C]) turned upright, their opacity apart, with what the file says."""
    turned = tiff.upright(samples, orientation)
    values, alpha = turned, None
    if turned.ndim == 3:
        if turned.shape[2] > colors:
            values, alpha = turned[..., :-1], np.ascontiguousarray(turned[..., -1])
        values = values[..., 0] if values.shape[2] == 1 else values
    dpi = told.dpi[::-1] if told.dpi and orientation >= 5 else told.dpi
    return replace(told, values=values, alpha=alpha, dpi=dpi)
