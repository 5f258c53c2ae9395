"""PNG and JPEG files written with what another picture says beside its pixels.

The EXIF data (without orientation, which was applied, and without the thumbnail, which shows the
picture as it was), the pixels per inch and the ICC colour profile are kept. Where an image has k
times as many pixels, it has k times as many per inch.

JPEG is written at quality 95 without chroma subsampling; everything else as PNG, in 8 or 16 bits.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import write_atomic
from .grid import resized
from .png import encode_png16, png_gamma

if TYPE_CHECKING:
    from .form import Form

__all__ = ["Description"]

_ORIENTATION, _EXIF = 274, 34665  # tags
_RESOLUTION = (282, 283, 296)  # written from the pixels per inch
_SIZE = {40962: 1, 40963: 0}  # width and height, in the part of the camera


@dataclass(frozen=True)
class Description:
    """What a picture says beside its pixels.

    Args:
        size: Height and width of its image, upright.
        exif: EXIF data; None where there are none.
        dpi: Pixels per inch along x and y of the upright image; None where it is not stated.
        gamma: Exponent of the samples of a PNG; None where it is not stated.
    """

    size: tuple[int, int] = (0, 0)
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None
    gamma: float | None = None

    def write(self, path: Path, values: np.ndarray, form: Form) -> None:
        """Writes one image (1, H, W, C), opacity last where the form has some."""
        samples = values[0] if values.dtype.kind != "b" else values[0].astype(np.uint8) * 255
        exif, dpi = self._exif(samples.shape[:2]), self._dpi(samples.shape[:2])
        if samples.dtype == np.uint16:
            write_atomic(
                path,
                encode_png16(samples, profile=form.profile, exif=exif, dpi=dpi, gamma=self.gamma),
            )
            return
        from PIL import Image, PngImagePlugin

        out = io.BytesIO()
        said = {"icc_profile": form.profile, "exif": exif, "dpi": dpi}
        options: dict[str, Any] = {key: value for key, value in said.items() if value}
        image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
        if form.suffix == ".png":
            more = PngImagePlugin.PngInfo()
            if self.gamma:
                more.add(b"gAMA", png_gamma(self.gamma))
            image.save(out, "PNG", pnginfo=more, **options)
        else:
            image.save(out, "JPEG", quality=95, subsampling=0, **options)
        write_atomic(path, out.getvalue())

    def _dpi(self, size: tuple[int, ...]) -> tuple[float, float] | None:
        if self.dpi is None:
            return None
        rows, columns = (resized(a, b)[0] for a, b in zip(self.size, size, strict=True))
        return self.dpi[0] / columns, self.dpi[1] / rows

    def _exif(self, size: tuple[int, ...]) -> bytes | None:
        """The EXIF data of an upright image of another size."""
        if not self.exif:
            return None
        from PIL import Image

        exif = Image.Exif()
        exif.load(self.exif)
        for tag in (_ORIENTATION, *(_RESOLUTION if self.dpi else ())):
            exif.pop(tag, None)
        camera = exif.get_ifd(_EXIF)
        for tag, axis in _SIZE.items():
            if tag in camera:
                camera[tag] = size[axis]
        return exif.tobytes()
