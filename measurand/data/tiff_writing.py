"""TIFF files written with the calibration that another one has.

Resolution, the unit of a pixel and the stack of ImageJ, and the coordinates of a GeoTIFF are kept.
Where an image has k times as many pixels, its pixels are k times smaller; so it says in the
description of an OME-TIFF, which then loses the regions of interest, drawn in the old pixels.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import write_atomic
from .grid import resized
from .ome import alone, plane_of, resized_description
from .sources import File
from .tiff import image_pages, opened_tiff

if TYPE_CHECKING:
    from .form import Form

__all__ = ["Calibration", "calibration"]

_IMAGEJ = ("u1", "u2", "f4")  # types that ImageJ has
_OF_STACKS = ("unit", "yunit", "zunit", "spacing", "finterval", "fps", "Info")
_OF_CHANNELS = ("mode", "Labels", "Ranges", "LUTs", "min", "max")
_GEO = (33550, 33922, 34264, 34735, 34736, 34737, 42112)  # GeoTIFF and GDAL


@dataclass(frozen=True)
class Calibration:
    """What a TIFF says of the size of its pixels.

    Args:
        size: Height and width of its images.
        resolution: Pixels per unit along x and y; None where it is not stated.
        unit: Unit of the resolution: 1 none, 2 inch, 3 centimetre.
        imagej: Metadata of ImageJ; None where ImageJ did not write it.
        ome: Description of an OME-TIFF; None where it is none.
        pages: Number of pages, type and number of samples that this describes.
        geo: Tags of a GeoTIFF, as (code, type, count, value); not the nodata value of GDAL: an
            estimate lacks no pixel.
        white_is_zero: Whether the file has grey samples of which zero is white.
    """

    size: tuple[int, int] = (0, 0)
    resolution: tuple[float, float] | None = None
    unit: int = 1
    imagej: dict[str, Any] | None = None
    ome: bytes | None = None
    pages: tuple[int, str, int] = (0, "", 1)
    geo: tuple[tuple[int, int, int, Any], ...] = ()
    white_is_zero: bool = False

    def write(self, path: Path, values: np.ndarray, form: Form) -> None:
        """Writes images (N, H, W, C), opacity last where the form has some; a page for each."""
        import tifffile

        values = values if values.dtype.kind != "b" else values.astype(np.uint8) * 255
        n, height, width, channels = values.shape
        opacity = [1 if form.multiplied else 2] if form.alpha is not None else []
        plain = channels - len(opacity)
        color = plain == 3 or (plain > 3 and plain - form.further == 3)
        inverted = self.white_is_zero and channels == 1 and values.dtype.kind == "u"
        values = np.iinfo(values.dtype).max - values if inverted else values
        samples = values if channels > 1 else values[..., 0]
        options: dict[str, Any] = {
            "photometric": "rgb" if color else "miniswhite" if inverted else "minisblack",
            "extrasamples": [0] * (plain - (3 if color else 1)) + opacity or None,
            "planarconfig": "contig" if channels > 1 else None,
            "iccprofile": form.profile,
            "extratags": [(*tag, True) for tag in self._geo(height, width)],
        }
        if self.resolution is not None:
            factors = [
                resized(old, new)[0] for old, new in zip(self.size, (height, width), strict=True)
            ]
            x, y = self.resolution
            options |= {
                "resolution": (x / factors[1], y / factors[0]),
                "resolutionunit": self.unit,
            }
        out = io.BytesIO()
        if (
            self.imagej is not None
            and not inverted
            and channels in (1, 3)
            and values.dtype.str[1:] in _IMAGEJ
        ):
            axes = [int(self.imagej.get(k, 1)) for k in ("frames", "slices", "channels")]
            stack = "T" if "frames" in self.imagej else "Z"
            names: tuple[str, ...] = _OF_STACKS
            if not color and channels == 1 and math.prod(axes) == n:  # a hyperstack
                samples, stack = values.reshape(*axes, height, width), "TZ"
                names += _OF_CHANNELS
            elif not color:
                samples = values.transpose(0, 3, 1, 2)
            kept = {k: v for k, v in self.imagej.items() if k in names}
            tifffile.imwrite(
                out,
                samples,
                imagej=True,
                metadata={**kept, "axes": stack + ("YXS" if color else "CYX")},
                resolution=options.get("resolution"),
            )
        else:
            with tifffile.TiffWriter(out) as tiff:
                same = (n, values.dtype.str[1:], channels) == self.pages
                for k, page in enumerate(samples):
                    told = None
                    if self.ome is not None and same and k == 0:
                        told = resized_description(self.ome, self.size, (height, width))
                    tiff.write(page, metadata=None, description=told, **options)
        write_atomic(path, out.getvalue())

    def _geo(self, height: int, width: int) -> list[tuple[int, int, int, Any]]:
        """The tags of a GeoTIFF; pixels of another size cover the same ground."""
        if (height, width) == self.size or not self.geo:
            return list(self.geo)
        (fy, oy), (fx, ox) = (
            resized(old, new) for old, new in zip(self.size, (height, width), strict=True)
        )
        kept = []
        for code, kind, count, value in self.geo:
            if code == 33550:  # pixel size
                value = (value[0] * fx, value[1] * fy, *value[2:])
            elif code == 33922:  # points (column, row, height, x, y, z), pixel corners at integers
                points = np.reshape(value, (-1, 6)).copy()
                points[:, 0] = (points[:, 0] - 0.5 - ox) / fx + 0.5
                points[:, 1] = (points[:, 1] - 0.5 - oy) / fy + 0.5
                value = tuple(points.ravel())
            elif code == 34264:  # (x, y, z, 1) = M (column, row, 0, 1)
                matrix = np.reshape(value, (4, 4)).copy()
                move = np.eye(4)
                move[0, 0], move[1, 1] = fx, fy
                move[0, 3], move[1, 3] = ox + 0.5 - 0.5 * fx, oy + 0.5 - 0.5 * fy
                value = tuple((matrix @ move).ravel())
            kept.append((code, kind, count, value))
        return kept


def calibration(source: File) -> Calibration:
    """Return what a TIFF file says of the size of its pixels."""
    with opened_tiff(source) as (_, tiff):
        images = image_pages(source, tiff)
        page = images[int(source.key or 0)][0]
        tags = page.tags
        ratios = [tags[code].value for code in (282, 283) if code in tags]
        resolution = None
        if len(ratios) == 2 and all(top and bottom for top, bottom in ratios):
            resolution = (ratios[0][0] / ratios[0][1], ratios[1][0] / ratios[1][1])
        unit = int(tags[296].value) if 296 in tags else 1
        kept = (tags[code] for code in _GEO if code in tags)
        geo = tuple((tag.code, int(tag.dtype), tag.count, tag.value) for tag in kept)
        size = (page.imagelength, page.imagewidth)
        told = tiff.pages.first.description.encode() if tiff.is_ome else b""
        ome = alone(told, source.base, len(images)) if told else None
        kind, samples = page.dtype.str[1:] if page.dtype else "", int(page.samplesperpixel)
        if ome is not None and source.key is not None:
            ome = plane_of(ome, *_place(tiff, page), samples)
        pages = (len(tiff.pages) if source.key is None else 1, kind, samples)
        inverted = page.photometric == 0
        imagej = tiff.imagej_metadata
        return Calibration(size, resolution, unit, imagej, ome, pages, geo, inverted)


def _place(tiff: Any, page: Any) -> tuple[int, int]:
    """Which image of an OME-TIFF a page is of, and which of its channels."""
    for image, series in enumerate(tiff.series):
        for k, other in enumerate(series.pages):
            if other is not None and other.index == page.index:
                counts = {a: n for a, n in zip(series.axes, series.shape, strict=True)}
                sizes = [n for a, n in counts.items() if a not in "YXS"]
                where = np.unravel_index(k, sizes) if sizes else ()
                axes = [a for a in counts if a not in "YXS"]
                return image, int(where[axes.index("C")]) if "C" in axes else 0
    return 0, 0
