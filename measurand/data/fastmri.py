r"""fastMRI volumes (HDF5): measured k-space, and the images made of it.

A file holds one volume: `kspace` complex (slices, coils, H, W), without the coil axis for a single
coil where a header or a target says that it is one; `reconstruction_rss` or `reconstruction_esc`,
the image it is compared with; `mask` over the columns where it is undersampled; `ismrmrd_header`,
XML. Rows are the readout, sampled twice as finely as the image needs, columns the phase encoding.
With F the centred orthonormal Fourier transform (`operators.kspace.fft2c`) and crop the centre of
reconSpace,

    coil images      x_i = crop F^H y_i
    root sum of squares         sqrt(sum_i |x_i|^2)
    combined         x   = sum_i conj(C_i) x_i,      sum_i |C_i|^2 = 1

with coil sensitivities C_i from the centre of k-space: images s_i of the innermost 24 x 24 samples
under a Hann window, divided by their root sum of squares. Their common phase is that of the
strongest combination of coils, `sum_i conj(u_i) s_i` with u the first eigenvector of their
correlation: it has no zeros where single coils do, and the image keeps its phase against it.

k-space in another order, with the zero frequency at index 0 or with gaps that no mask explains is
refused (`sampling`). Images stand as k-space makes them; values have the scanner's arbitrary unit.

References:
    | fastMRI: An Open Dataset and Benchmarks for Accelerated MRI (Zbontar et al., 2018)
    | Adaptive Reconstruction of Phased Array MR Imagery (Walsh et al., 2000)
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch

from ..operators.kspace import ifft2c
from .arrays import all_finite, complex_numbers, dataset, is_complex, opened_hdf5
from .limits import at_most
from .sampling import gaps, misplaced, unordered, untransformed
from .sources import File, UnreadableFile, file_at, reading

__all__ = [
    "CENTRE",
    "Header",
    "combined",
    "header",
    "is_fastmri",
    "kspace",
    "low_resolution_maps",
    "rss",
]

_HEAP = 2**24  # bytes in which an XML header must lie
_SLICES = 2**14  # a volume has tens, a series in time thousands; each costs a millisecond
CENTRE = 24  # lines that are sampled in every file, at any acceleration up to 8


@dataclass(frozen=True)
class Header:
    """What a file says about its acquisition.

    Args:
        shape: Shape of k-space, (slices, coils, H, W).
        image: Height and width of the image, (h, w): what is left after the crop.
        columns: First and last + 1 column that was measured; the scanner filled up the others.
        mask: Which columns are sampled, with shape (W,); None where all are.
    """

    shape: tuple[int, int, int, int]
    image: tuple[int, int]
    columns: tuple[int, int]
    mask: np.ndarray | None


def header(path: str | os.PathLike[str] | File) -> Header:
    """Returns what a file says about its acquisition; no k-space is read.

    Raises:
        UnreadableFile: It is damaged, or no fastMRI file.
    """
    file = file_at(path)
    with reading(file, "fastMRI"), opened_hdf5(file) as h5:
        return _header(h5, file)


def kspace(path: str | os.PathLike[str] | File) -> Iterator[np.ndarray]:
    """Yields the k-space of slice after slice, each (coils, H, W) complex64; one coil is one.

    Raises:
        UnreadableFile: It is damaged, or no fastMRI file: axes in another order, uncentred.
    """
    file = file_at(path)
    count = header(file).shape[0]
    with reading(file, "fastMRI"), opened_hdf5(file) as h5:
        middle = _slice(h5, file, count // 2)
        if wrong := unordered(middle) or misplaced(middle) or untransformed(middle):
            shape = tuple(map(int, h5["kspace"].shape))
            raise UnreadableFile(f"{file.name}: got kspace of shape {shape}; {wrong}")
    for k in range(count):
        with reading(file, "fastMRI"), opened_hdf5(file) as h5:
            y = _slice(h5, file, k)
        yield y


def rss(path: str | os.PathLike[str] | File) -> list[np.ndarray]:
    """Returns the root-sum-of-squares image of every slice, each (h, w) float32.

    That is what files store as `reconstruction_rss`; of a single coil, the magnitude.

    Raises:
        UnreadableFile: It is damaged, no fastMRI file, or undersampled.
    """
    return [np.sqrt((np.abs(x) ** 2).sum(0)) for _, x in _coil_images(file_at(path))]


def combined(
    path: str | os.PathLike[str] | File,
    *,
    maps: Callable[[np.ndarray], np.ndarray] | None = None,
) -> list[np.ndarray]:
    """Returns the complex image of every slice, each (h, w) complex64.

    x = sum_i conj(C_i) x_i; of a single coil, its image.

    Args:
        path: A fastMRI file.
        maps: Returns coil sensitivities of unit root sum of squares, with shape (coils, H, W), of
            the k-space of a slice, with the same shape; `low_resolution_maps` when absent.
    Raises:
        UnreadableFile: It is damaged, no fastMRI file, or undersampled.
    """
    found = []
    for y, x in _coil_images(file_at(path)):
        if len(x) > 1:
            c = _centre((maps or low_resolution_maps)(y), x.shape[1:])
            x = (c.conj() * x).sum(0, keepdims=True)
        found.append(np.ascontiguousarray(x[0], dtype=np.complex64))
    return found


def low_resolution_maps(y: np.ndarray, width: int = CENTRE) -> np.ndarray:
    """Returns coil sensitivities from the centre of k-space, with shape (coils, H, W).

    C_i = s_i / sqrt(sum_j |s_j|^2), turned by the phase of the strongest combination of coils.

    Args:
        y: k-space of one slice, with shape (coils, H, W), sampled at the centre.
        width: Size of the centre, in samples.
    """
    y = y / (np.abs(y).max() or 1)  # far from overflow, whatever the unit
    window = [_hann(n, min(width, n)) for n in y.shape[1:]]
    s = _image(y * (window[0][:, None] * window[1]).astype(np.float32))
    flat = s.reshape(len(s), -1)
    u = np.linalg.eigh(flat @ flat.conj().T)[1][:, -1]
    common = np.tensordot(u.conj(), s, 1)
    size = np.sqrt((np.abs(s) ** 2).sum(0))
    turn = np.where(abs(common) > 0, common.conj(), 1)
    turn = turn / np.maximum(abs(turn), np.finfo(np.float32).tiny)
    return (s * turn / np.where(size > 0, size, 1)).astype(np.complex64)


def is_fastmri(file: File) -> bool:
    """Whether an HDF5 file has k-space as fastMRI files do."""
    with reading(file), opened_hdf5(file) as h5:
        found = dataset(h5, "kspace", file)
        return found is not None and len(found.shape or ()) in (3, 4)


def _hann(n: int, width: int) -> np.ndarray:
    """A Hann window about index n // 2 that has fallen to 0 just outside `width` samples."""
    distance = np.abs(np.arange(n) - n // 2) / (width / 2 + 0.5)
    return np.where(distance < 1, np.cos(0.5 * math.pi * distance) ** 2, 0)


def _coil_images(file: File) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """k-space and cropped coil images of every slice of a fully sampled file."""
    head = header(file)
    if head.mask is not None:
        raise UnreadableFile(
            f"{file.name}: {int(head.mask.sum())} of {len(head.mask)} columns are sampled, wanted "
            "all: an image of it is to be reconstructed first (fastmri.kspace yields the data)"
        )
    for y in kspace(file):
        if found := gaps(y):
            raise UnreadableFile(
                f"{file.name}: {found}, and the file has no mask that says so; wanted all of "
                "k-space: an image of it is to be reconstructed first (fastmri.kspace yields the "
                "data)"
            )
        x = _centre(_image(y), head.image)
        if not np.square(np.abs(x), dtype=np.float64).sum() < np.finfo(np.float32).max:
            raise UnreadableFile(f"{file.name}: its k-space is too large for single precision")
        yield y, x


def _image(y: np.ndarray) -> np.ndarray:
    return ifft2c(torch.from_numpy(y)).numpy()


def _centre(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    top, left = ((n - m) // 2 for n, m in zip(x.shape[1:], shape, strict=True))
    return x[:, top : top + shape[0], left : left + shape[1]]


def _slice(h5: Any, file: File, k: int) -> np.ndarray:
    found = dataset(h5, "kspace", file)
    if found is None:
        raise ValueError("it has no dataset kspace")
    y = found[k]
    y = complex_numbers(y)
    y = np.ascontiguousarray(y if y.ndim == 3 else y[None], dtype=np.complex64)
    all_finite(f"{file.name}: slice {k} of kspace", y)
    return y


def _header(h5: Any, file: File) -> Header:
    y = dataset(h5, "kspace", file)
    if y is None or len(y.shape or ()) not in (3, 4):
        raise ValueError("it has no dataset kspace of shape (slices, coils, H, W)")
    if y.dtype.kind != "c" and not is_complex(y.dtype):
        raise ValueError(f"its kspace is {y.dtype}, wanted complex numbers")
    shape = y.shape if y.ndim == 4 else (len(y), 1, *y.shape[1:])
    if min(shape) < 1:
        raise ValueError(f"its kspace is empty, of shape {shape}")
    image, columns = shape[2:], (0, shape[3])
    at_most(file.name, len(y), _SLICES, "slices of k-space")
    names = ("ismrmrd_header", "reconstruction_esc", "reconstruction_rss")
    told = any(h5.id.links.exists(name.encode()) for name in names)  # `in` would follow links
    if y.ndim == 3 and not told:
        raise ValueError(
            f"its kspace has shape {y.shape}, {len(y)} slices of one coil or one slice of "
            f"{len(y)} coils, and nothing says which: save kspace[:, None] or kspace[None], "
            "(slices, coils, H, W)"
        )
    text = dataset(h5, "ismrmrd_header", file)
    if text is not None:
        image, columns = _limits(_text(text, file), columns)
    for name in ("reconstruction_rss", "reconstruction_esc"):
        target = dataset(h5, name, file)
        if target is not None:
            image = target.shape[-2:]
    mask, stored = None, dataset(h5, "mask", file)
    if stored is not None:
        if stored.dtype.kind not in "buif":
            raise ValueError(f"its mask is {stored.dtype}, wanted numbers")
        sampled = np.asarray(stored[()]).reshape(-1) > 0
        if len(sampled) != shape[3]:
            raise ValueError(f"its mask has {len(sampled)} columns, its kspace {shape[3]}")
        mask = None if sampled[slice(*columns)].all() else sampled
    height, width = (min(int(n), m) for n, m in zip(image, shape[2:], strict=True))
    if min(height, width) < 1:
        raise ValueError(f"it says its image has {height} x {width} pixels")
    return Header(
        shape=tuple(map(int, shape)),  # type: ignore[arg-type]
        image=(height, width),
        columns=columns,
        mask=mask,
    )


def _text(text: Any, file: File) -> str:
    """The text of a scalar HDF5 string.

    One of variable length is a length, the address of a heap and a number in it. The heap is
    walked here and not by the library, which never returns from a damaged one.
    """
    if text.shape != ():
        raise ValueError(f"its header has shape {text.shape}, wanted one text")
    if text.dtype.kind == "S":
        return bytes(text[()]).decode()
    if text.dtype.kind != "O" or text.id.get_storage_size() != 16:
        raise ValueError(f"its header is {text.dtype}, wanted text")
    with file.open() as opened:
        opened.seek(text.id.get_offset())
        length, address, wanted = struct.unpack("<IQI", opened.read(16))
        opened.seek(text.file.userblock_size + address)
        signature, size = struct.unpack("<4s4xQ", opened.read(16))
        heap = opened.read(min(size, _HEAP))
    at, number = 0, -1
    while signature == b"GCOL" and number and at + 16 <= len(heap):  # number 0 is what is free
        number, size = struct.unpack_from("<H6xQ", heap, at)
        if number == wanted and length <= size:
            return heap[at + 16 : at + 16 + length].rstrip(b"\0").decode()
        at += 16 + -(-size // 8) * 8
    raise ValueError("its header is damaged")


def _limits(text: str, whole: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Image size and measured columns of an ISMRMRD header."""
    if "<!" in text.replace("<!--", ""):
        raise ValueError("its header declares XML entities, which are never followed")
    root = ElementTree.fromstring(text)

    def number(path: str) -> int:
        found = root.find("{*}encoding/" + "/".join("{*}" + part for part in path.split("/")))
        if found is None or found.text is None:
            raise ValueError(f"its header has no encoding/{path}")
        return int(found.text)

    # x is the readout, which fastMRI stores along the rows
    image = (number("reconSpace/matrixSize/x"), number("reconSpace/matrixSize/y"))
    limits = "encodingLimits/kspace_encoding_step_1/"
    first = number("encodedSpace/matrixSize/y") // 2 - number(limits + "center")
    last = first + number(limits + "maximum") + 1
    columns = (max(first, whole[0]), min(last, whole[1]))
    if columns[0] >= columns[1]:
        raise ValueError(f"its header says that columns {first} to {last} were measured")
    return image, columns
