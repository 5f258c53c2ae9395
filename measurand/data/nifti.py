"""NIfTI volumes (.nii, .nii.gz; versions 1 and 2) as slices in the units of the file.

A voxel with indices (i, j, k) lies at `affine (i, j, k, 1)` in mm, x to the patient's right, y
forward, z up (RAS). The axes of the array are permuted and turned to the closest of these (no
resampling; an oblique volume keeps its own grid), then cut. A slice looks as it does on the screen
of a scanner, like the axial slices of DICOM:

    axial       foot to head     rows to the back, columns to the patient's left
    coronal     front to back    rows to the feet, columns to the patient's left
    sagittal    right to left    rows to the feet, columns to the back

Values are `scl_slope u + scl_inter`, or u where the file states no scaling. Needs nibabel (extra
`medical`), which reads the header; sizes are compared with the file before anything is allocated,
the check sum of a .gz is verified. Files are read and not mapped: one that is cut off meanwhile is
an error, and not the end of the process. Of a series in time, one volume is in memory at a time.
"""

from __future__ import annotations

import gzip
import logging
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import write_atomic
from .arrays import compact
from .grid import Volume, as_stored, resized
from .limits import IMAGES, at_most, sized
from .sources import File, UnreadableFile, file_at, reading

__all__ = ["slices", "volume"]

if TYPE_CHECKING:
    from .form import Form

_HEADER = 540  # bytes of the longer of the two headers
_QUIET = logging.Logger("measurand.data.nifti", logging.CRITICAL)
_THICK = 2.0  # an axis with voxels so much longer than the others is the one between slices


def slices(
    path: str | os.PathLike[str] | File,
    *,
    across: int | None = None,
    volume: int | None = None,
    nan: float | None = None,
) -> list[np.ndarray]:
    """Returns the slices of a volume, each (H, W); of a series in time, volume after volume.

    Args:
        path: A .nii or .nii.gz file.
        across: Axis between the slices: 0 right-left (sagittal), 1 back-front (coronal), 2
            foot-head (axial). When absent, the one along which voxels are at least twice as long
            as along both others, and 2 where there is none.
        volume: Which one of a four-dimensional file; all when absent.
        nan: What stands for NaN, which many tools write where there are no data; NaN itself to
            keep it. An error where absent.
    Returns:
        The slices: uint8 where the file has unscaled bytes, complex64 where it is complex, else
        float32.
    Raises:
        ImportError: nibabel is not installed.
        UnreadableFile: It is damaged, is no NIfTI volume, or has values that are no numbers.
    """
    return _read(file_at(path), across, volume, nan)[0]


def volume(path: str | os.PathLike[str] | File) -> Volume:
    """Returns the slices of a volume as `slices` does, and what writes them back.

    Args:
        path: A .nii or .nii.gz file.
    """
    file = file_at(path)
    images, grid = _read(file, None, None, math.nan)  # NaN is not measured, and stays
    # values with a scale are rounded by that scale, when they are written
    scaled = grid.header.get_slope_inter() not in ((None, None), (1.0, 0.0))
    dtype = "float32" if scaled else grid.header.get_data_dtype().str
    notes = (f"slices across axis {grid.order[grid.cut]} of {grid.shape}",)
    return Volume(np.stack(images), dtype, file.suffix, grid, notes=notes)


@dataclass(frozen=True)
class _Grid:
    """The grid of a volume: what `slices` did to it, and undoes.

    Args:
        header: The header of the file.
        shape: Numbers of voxels (i, j, k, t).
        order: Which axis of the file is the first, second and third anatomical one.
        turned: Which of these run the other way.
        cut: The one between the slices.
    """

    header: Any
    shape: tuple[int, ...]
    order: tuple[int, ...]
    turned: tuple[bool, ...]
    cut: int

    def write(self, path: Path, values: np.ndarray, form: Form) -> None:
        """Writes slices (N, H, W, 1) as a file of the same grid."""
        nibabel = _nibabel()
        if values.shape[3] != 1:
            raise ValueError(f"{path}: got {values.shape[3]} channels, a volume holds one")
        times = self.shape[3]
        images = values[..., 0].reshape(times, -1, *values.shape[1:3])
        images = images if self.cut == 2 else images[:, :, ::-1]
        voxels = np.moveaxis(images.swapaxes(2, 3), 1, 1 + self.cut)  # (t, three anatomical axes)
        voxels = voxels[(slice(None), *(slice(None, None, -1 if t else 1) for t in self.turned))]
        voxels = np.moveaxis(voxels.transpose(0, *(1 + np.argsort(self.order))), 0, 3)
        header = self.header.copy()
        affine = header.get_best_affine() @ self._rescaled(voxels.shape[:3])
        slope, inter = (
            v if v is not None else d
            for v, d in zip(header.get_slope_inter(), (1, 0), strict=True)
        )
        dtype = header.get_data_dtype()
        dtype = values.dtype if values.dtype.kind == "c" and dtype.kind != "c" else dtype
        stored = as_stored(voxels, dtype.newbyteorder("="), slope, inter)
        kind = nibabel.Nifti2Image if int(header["sizeof_hdr"]) == 540 else nibabel.Nifti1Image
        rank = len(header.get_data_shape())
        if stored.shape[rank:] == (1,) * (4 - rank):  # as many axes as the file had
            stored = stored.reshape((*stored.shape, *(1,) * (rank - 4))[:rank])
        image = kind(stored, affine, header)
        image.set_data_dtype(dtype)
        image.set_qform(affine, int(header["qform_code"]))
        image.set_sform(affine, int(header["sform_code"]))
        image.header.set_slope_inter(slope, inter)
        content = image.to_bytes()
        write_atomic(
            path, gzip.compress(content, mtime=0) if form.suffix == ".nii.gz" else content
        )

    def _rescaled(self, shape: tuple[int, ...]) -> np.ndarray:
        """The map from indices of a grid of this shape to indices of the file."""
        moved = np.eye(4)
        for axis, (before, after) in enumerate(zip(self.shape[:3], shape, strict=True)):
            moved[axis, axis], moved[axis, 3] = resized(before, after)
        return moved


def _read(
    file: File, across: int | None, volume: int | None, nan: float | None
) -> tuple[list[np.ndarray], _Grid]:
    nibabel = _nibabel()
    if across not in (None, 0, 1, 2):
        raise ValueError(f"nifti.slices: got across={across}, wanted 0, 1 or 2")
    with reading(file, "NIfTI"):
        header, shape, stored = _voxels(nibabel, file)
        orientation = nibabel.orientations.io_orientation(header.get_best_affine())
        if not np.isfinite(orientation).all():
            raise ValueError("its affine matrix has no inverse")
        order = np.argsort(orientation[:, 0])
        # to the patient's left, to the back, and up
        turned = orientation[order, 1] * (-1, -1, 1) < 0
        cut = _coarsest(np.abs(header["pixdim"][1:4])[order]) if across is None else across
        grid = _Grid(header, shape, tuple(map(int, order)), tuple(map(bool, turned)), int(cut))
        times = range(shape[3])
        if volume is not None:
            if not -len(times) <= volume < len(times):
                raise ValueError(f"got volume={volume}, it holds {len(times)}")
            times = range(volume % len(times), volume % len(times) + 1)
        at_most(file.name, len(times) * shape[order[cut]], IMAGES, "slices")
        scale, images = header.get_slope_inter(), []
        for t in times:
            voxels = stored(t).transpose(*order)
            voxels = voxels[tuple(slice(None, None, -1 if turn else 1) for turn in turned)]
            images += [_slice(file, u, cut, scale, nan) for u in np.moveaxis(voxels, cut, 0)]
        return images, grid


def _slice(
    file: File,
    u: np.ndarray,
    cut: int,
    scale: tuple[float | None, float | None],
    nan: float | None,
) -> np.ndarray:
    # the later axis downwards, and from the head, not to it; a copy: the file is only mapped
    u = np.array(u.T if cut == 2 else u.T[::-1], order="C")
    slope, inter = scale
    x = compact(u)
    if slope is not None and inter is not None and (slope, inter) != (1.0, 0.0):
        kind = np.complex64 if x.dtype.kind == "c" else np.float32
        x = (u.astype(np.promote_types(kind, np.float64)) * slope + inter).astype(kind)
    if x.dtype.kind in "fc":
        bad = ~np.isfinite(x)
        if nan is not None and bad.any():
            x[np.isnan(x)] = nan
            bad = np.isinf(x) if math.isnan(nan) else ~np.isfinite(x)
        if bad.any():
            raise UnreadableFile(
                f"{file.name}: {int(bad.sum())} of {bad.size} voxels of a slice are NaN or "
                "infinite (nifti.slices(path, nan=0.0) replaces NaN)"
            )
    return x


def _coarsest(zooms: np.ndarray) -> int:
    """The axis between thick slices, and 2 where voxels are nearly as wide as long."""
    last = int(np.argmax(zooms))
    return last if zooms[last] >= _THICK * np.delete(zooms, last).max() > 0 else 2


def _voxels(nibabel: Any, file: File) -> tuple[Any, tuple[int, ...], Callable[[int], np.ndarray]]:
    """The header, the shape (i, j, k, t), and what reads the voxels (i, j, k) of a time."""
    packed = file.read(2) == b"\x1f\x8b"
    with file.open() as raw:
        stored = raw.seek(0, os.SEEK_END)
        raw.seek(0)
        opened = gzip.GzipFile(fileobj=raw) if packed else raw
        start = opened.read(_HEADER)
        header = _header(nibabel, start)
        shape = tuple(int(n) for n in header.get_data_shape())
        dtype, offset = header.get_data_dtype(), header.get_data_offset()
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if not 2 <= len(shape) <= 4 or min(shape) < 1:
            raise ValueError(f"it has shape {shape}, wanted two to four axes")
        if dtype.kind not in "uifc":
            raise ValueError(f"it has voxels of {dtype} (colours?), wanted numbers")
        size = offset + math.prod(shape) * dtype.itemsize
        if offset < 348:
            raise ValueError(f"its voxels begin at byte {offset}, inside the header")
        if packed:
            buffer = np.empty(sized(file.name, size, stored), np.uint8)
            buffer[: min(size, len(start))] = np.frombuffer(start[:size], np.uint8)
            done = len(start)
            while done < size and (part := opened.readinto(buffer.data[done:])):  # type: ignore[union-attr]
                done += part
            left = sized(file.name, size + 1, stored)
            while done >= size and (more := len(opened.read(2**20))):  # to the check sum
                left = sized(file.name, left + more, stored)
            stored = done
        else:
            buffer = None
    if stored < size:
        raise ValueError(f"it ends after {stored} of {size} bytes")
    grid = (*shape, 1, 1)[:4]
    count = math.prod(grid[:3])

    def volume(t: int) -> np.ndarray:
        start = offset + t * count * dtype.itemsize
        if buffer is not None:
            voxels = np.frombuffer(buffer, dtype, count, start)
        else:
            with file.open() as opened:
                opened.seek(start)
                voxels = np.frombuffer(opened.read(count * dtype.itemsize), dtype)
            if len(voxels) < count:
                raise ValueError("it was cut off while it was read")
        return voxels.reshape(grid[:3], order="F")

    return header, grid, volume


def _header(nibabel: Any, start: bytes) -> Any:
    """The header at the start of a file, of either version and either byte order."""
    if start[4:8] in (b"n+2\0", b"ni2\0"):
        if start[4:8] == b"ni2\0":
            raise ValueError("it is half of a pair (.hdr, .img), wanted a single .nii file")
        return _checked(nibabel.Nifti2Header(start[:540], check=False))
    if start[344:348] != b"n+1\0":
        kind = "half of a pair (.hdr, .img)" if start[344:348] == b"ni1\0" else "no NIfTI file"
        raise ValueError(f"it is {kind}, wanted a single .nii file")
    return _checked(nibabel.Nifti1Header(start[:348], check=False))


def _checked(header: Any) -> Any:
    """The header with its small errors mended without a word; for large ones there is an error."""
    header.check_fix(logger=_QUIET)
    return header


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise ImportError(
            "NIfTI needs nibabel: install the extra, pip install 'measurand[medical]'"
        ) from error
    return nibabel
