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
an uncompressed file is mapped and read slice by slice, the check sum of a .gz is verified.
"""

from __future__ import annotations

import gzip
import logging
import math
import os
from typing import Any

import numpy as np

from .arrays import compact
from .sources import File, UnreadableFile, file_at, reading, sized

__all__ = ["slices"]

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
        nan: What stands for NaN, which many tools write where there are no data.
    Returns:
        The slices: uint8 where the file has unscaled bytes, complex64 where it is complex, else
        float32.
    Raises:
        ImportError: nibabel is not installed.
        UnreadableFile: It is damaged, is no NIfTI volume, or has values that are no numbers.
    """
    nibabel, file = _nibabel(), file_at(path)
    if across not in (None, 0, 1, 2):
        raise ValueError(f"nifti.slices: got across={across}, wanted 0, 1 or 2")
    with reading(file, "NIfTI"):
        header, voxels = _voxels(nibabel, file)
        orientation = nibabel.orientations.io_orientation(header.get_best_affine())
        if not np.isfinite(orientation).all():
            raise ValueError("its affine matrix has no inverse")
        order = np.argsort(orientation[:, 0])
        # to the patient's left, to the back, and up
        turned = orientation[order, 1] * (-1, -1, 1) < 0
        voxels = voxels.transpose(*order, 3)
        voxels = voxels[tuple(slice(None, None, -1 if turn else 1) for turn in turned)]
        cut = _coarsest(np.abs(header["pixdim"][1:4])[order]) if across is None else across
        scale = header.get_slope_inter()
        if volume is not None:
            if not -voxels.shape[3] <= volume < voxels.shape[3]:
                raise ValueError(f"got volume={volume}, it holds {voxels.shape[3]}")
            voxels = voxels[..., volume, None]
        return [
            _slice(file, u, cut, scale, nan)
            for t in range(voxels.shape[3])
            for u in np.moveaxis(voxels[..., t], cut, 0)
        ]


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
            bad = ~np.isfinite(x)
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


def _voxels(nibabel: Any, file: File) -> tuple[Any, np.ndarray]:
    """The header, and the voxels as stored, with shape (i, j, k, t)."""
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
        elif file.path:
            buffer = np.memmap(file.path, np.uint8, "r")
        else:
            buffer = np.frombuffer(file.read(), np.uint8)
    if stored < size:
        raise ValueError(f"it ends after {stored} of {size} bytes")
    count = math.prod(shape)
    voxels = np.frombuffer(buffer, dtype, count, offset).reshape(shape, order="F")
    return header, voxels.reshape((*shape, 1, 1)[:4], order="F")


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
