"""Arrays from .npy, .npz, HDF5 and MATLAB files that nobody has to trust.

A name is `file.npy`, `file.npz:key`, `file.h5:group/dataset` or `file.mat:name`; the key may be
left out where the file holds one array. MATLAB files of version 7.3 are HDF5 with the axes the
other way round, which is undone. A value range stored beside the array (`range` in an archive, an
attribute `range` in HDF5) travels with it.

A file that cannot be understood raises `UnreadableFile`, whatever is wrong with it. Nothing is
unpickled, no link of an HDF5 file is followed, and nothing may unpack to more than `limits`
allows. Of HDF5 that is checked here (`checked`): the library inflates a chunk to its end, however
far away that is.
"""

from __future__ import annotations

import io
import math
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import matlab, zips
from .limits import at_most, inflates, sized
from .sources import File, UnreadableFile, file_at, reading, split_key

__all__ = [
    "ARRAYS",
    "UnreadableFile",
    "all_finite",
    "checked",
    "compact",
    "complex_numbers",
    "dataset",
    "is_complex",
    "load",
    "one_channel",
    "opened_hdf5",
    "reading",
    "shapes",
    "split_key",
]

ARRAYS = (".npy", ".npz", ".h5", ".hdf5", ".mat")
_ARRAYS = 10_000  # arrays that are listed of a file; each costs about 0.1 ms
_ENTRIES = 100_000  # entries of an HDF5 file that are looked at to find them
_CHUNK = 2**18  # bytes of a deflated chunk, which cannot inflate to more than 256 MiB


def load(
    path: Path | File, key: str | None
) -> tuple[np.ndarray, str | None, tuple[float, float] | None]:
    """The array, the key it was found under, and the value range stored beside it."""
    stored_range, source = None, file_at(path)
    with reading(source):
        if source.suffix == ".npy":
            if source.path:
                with source.open() as opened:
                    array = _array(opened, opened.seek(0, io.SEEK_END))
            else:
                content = source.read()
                array = _array(io.BytesIO(content), len(content))
        elif source.suffix == ".npz":
            with source.open() as opened, _archive(source, opened) as archive:
                names = _members(source, archive)
                key = _choose(source.name, key, [n for n in names if n != "range"])
                array = _member(source.name, archive, key)
                if "range" in names and archive.getinfo("range.npy").file_size < 1000:
                    content = archive.read("range.npy")
                    ends = _array(io.BytesIO(content), len(content))
                    stored_range = (float(ends[0]), float(ends[1]))
        elif source.suffix == ".mat" and not matlab.is_hdf5(source):
            array, key = matlab.load(source, lambda names: _choose(source.name, key, names))
        else:
            with opened_hdf5(source) as h5:
                key = _choose(source.name, key, list(_datasets(h5, source)))
                dataset = checked(h5[key], source)
                if dataset.shape is None:
                    raise UnreadableFile(f"{source.name}:{key} is empty, it has no values")
                array = dataset[()]
                if source.suffix == ".mat":
                    array = array.T
                # text is in a heap, from which the library may never return: do not read it
                if "range" in dataset.attrs and dataset.attrs.get_id("range").dtype.kind in "iuf":
                    ends = dataset.attrs["range"]
                    stored_range = (float(ends[0]), float(ends[1]))
        array = complex_numbers(array)
        if not _numeric(array.dtype):
            raise UnreadableFile(f"{source.name}: got an array of {array.dtype}, wanted numbers")
    return array, key, stored_range


def shapes(path: Path | File) -> dict[str, tuple[int, ...]]:
    """The shapes of the numeric arrays of an .npz or HDF5 file, by name; no data are read."""
    source = file_at(path)
    with reading(source):
        if source.suffix == ".npz":
            with source.open() as opened, _archive(source, opened) as archive:
                found = {}
                for name in _members(source, archive):
                    with archive.open(name + ".npy") as member:
                        shape, dtype = _header(member)
                    if dtype.kind in "buifc":
                        found[name] = shape
                return found
        if source.suffix == ".mat" and not matlab.is_hdf5(source):
            return matlab.shapes(source)
        with opened_hdf5(source) as h5:
            turn = -1 if source.suffix == ".mat" else 1
            return {name: shape[::turn] for name, shape in _datasets(h5, source).items()}


def opened_hdf5(source: File) -> Any:
    """The HDF5 file, open for reading: a context."""
    import h5py

    return h5py.File(source.path or source.open(), "r")


def dataset(group: Any, name: str, source: File) -> Any | None:
    """Returns the dataset of a name in a group of an HDF5 file; None where there is none.

    Raises:
        UnreadableFile: It is a link to another place; not even its end is looked for. Or it is a
            dataset that keeps its data elsewhere, or says that it has more than there are.
    """
    import h5py

    links = group.id.links
    if not links.exists(name.encode()):
        return None
    if links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise UnreadableFile(f"{source.name}:{name} is a link, and links are not followed")
    item = group[name]
    return checked(item, source) if isinstance(item, h5py.Dataset) else None


def checked(dataset: Any, source: File) -> Any:
    """An HDF5 dataset that keeps its data in its own file and is as large as can be believed."""
    name = f"{source.name}:{dataset.name.lstrip('/')}"
    if dataset.is_virtual or dataset.external:
        raise UnreadableFile(f"{name} keeps its data in other files")
    stored = dataset.file.id.get_filesize()
    if dataset.chunks is None and min(stored, dataset.id.get_storage_size()) < dataset.nbytes:
        raise UnreadableFile(f"{name} says it has {dataset.nbytes} bytes, which are not there")
    sized(name, dataset.nbytes, stored)
    if dataset.chunks is not None:
        _chunks(
            name, dataset, sized(name, math.prod(dataset.chunks) * dataset.dtype.itemsize, stored)
        )
    return dataset


def _chunks(name: str, dataset: Any, size: int) -> None:
    """Checks that no chunk of a dataset inflates to more than its size."""
    import h5py

    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(k)[0] for k in range(plist.get_nfilters())]
    if filters.count(h5py.h5z.FILTER_DEFLATE) > 1:
        raise UnreadableFile(f"{name} is deflated more than once: save it with one compression")
    if h5py.h5z.FILTER_DEFLATE not in filters:
        return
    # what follows deflate when it is written comes first when it is read: check sums alone
    last = filters[filters.index(h5py.h5z.FILTER_DEFLATE) + 1 :]
    large: list[tuple[int, ...]] = []

    def note(chunk: Any) -> None:
        if chunk.size > _CHUNK:
            large.append(chunk.chunk_offset)

    dataset.id.chunk_iter(note)
    for offset in large:
        _, content = dataset.id.read_direct_chunk(offset)
        if len(content) > 2 * size + 2**16:
            raise UnreadableFile(f"{name} has a chunk of {len(content)} bytes, packed from {size}")
        if not set(last) <= {h5py.h5z.FILTER_FLETCHER32}:
            raise UnreadableFile(f"{name} is packed again after it was deflated")
        inflates(name, content, size + 2**16)  # scaled integers have a head


def is_complex(dtype: np.dtype) -> bool:
    """Return whether a type is a pair of a real and an imaginary part, as MATLAB writes it.

    Both are of one type and fill the pair: for a damaged one, h5py may take a part for wider than
    it is, and HDF5 then writes beyond the end of its memory.
    """
    names = dtype.names
    if names not in (("real", "imag"), ("r", "i"), ("re", "im")):
        return False
    part = dtype[0]
    return part.kind in "iuf" and dtype == np.dtype([(name, part) for name in names])


def complex_numbers(samples: np.ndarray) -> np.ndarray:
    """Return pairs of real and imaginary parts as complex numbers, other samples as they are."""
    if not is_complex(samples.dtype):
        return samples
    real, imaginary = (samples[name] for name in samples.dtype.names or ())
    return np.asarray(real + 1j * imaginary)


def _numeric(dtype: np.dtype) -> bool:
    return dtype.kind in "buifc" or is_complex(dtype)


def compact(samples: np.ndarray) -> np.ndarray:
    """The same numbers as uint8, float16, float32 or complex64, C-contiguous.

    Bytes and half precision are kept as they are; truth values and all other integers and real
    numbers become float32 (integers beyond 2^24 are rounded), complex ones complex64.
    """
    if samples.dtype.kind == "c":
        with np.errstate(over="ignore"):  # whoever takes them looks for what is infinite
            return np.ascontiguousarray(samples, dtype=np.complex64)
    keep = samples.dtype.kind in "uf" and samples.dtype.name in ("uint8", "float16")
    kind = samples.dtype.newbyteorder("=") if keep else np.dtype(np.float32)
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(samples, dtype=kind)


def _archive(source: File, opened: BinaryIO) -> zipfile.ZipFile:
    return zipfile.ZipFile(zips.checked(source.name, opened))


def _members(source: File, archive: zipfile.ZipFile) -> list[str]:
    names = [n[:-4] for n in dict.fromkeys(archive.namelist()) if n.endswith(".npy")]
    at_most(source.name, len(names), _ARRAYS, "arrays")
    return names


def _member(name: str, archive: zipfile.ZipFile, key: str) -> np.ndarray:
    info = archive.getinfo(key + ".npy")
    sized(f"{name}:{key}", info.file_size, archive.fp.seek(0, io.SEEK_END))  # type: ignore[union-attr]
    with archive.open(info) as member:
        array = _array(member, info.file_size)
        member.read()  # the check sum is compared at the end
    return array


def _header(file: Any) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array in an .npy stream, which is left at its data."""
    versions = {(1, 0): np.lib.format.read_array_header_1_0}
    versions[2, 0] = np.lib.format.read_array_header_2_0
    version = np.lib.format.read_magic(file)
    if version not in versions:
        raise ValueError(f"version {version} of the .npy format is for tables, not for arrays")
    shape, _, dtype = versions[version](file)
    return shape, dtype


def _array(file: BinaryIO | Any, size: int) -> np.ndarray:
    """The array of an .npy stream of `size` bytes; what the header claims must be there."""
    file.seek(0)
    shape, dtype = _header(file)
    if dtype.hasobject:
        raise ValueError("holds pickled objects, which are never read")
    if math.prod(shape) * dtype.itemsize != size - file.tell():
        raise ValueError(
            f"the header says {dtype} of shape {shape}, the data are {size - file.tell()} bytes"
        )
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def _datasets(h5: Any, source: File) -> dict[str, tuple[int, ...]]:
    """Shapes of the numeric datasets of an HDF5 file, by name; links are not followed.

    Each group is looked at once: groups may contain each other, and then have names without end.
    """
    import h5py

    found: dict[str, tuple[int, ...]] = {}
    looked, seen, groups = 0, {h5py.h5o.get_info(h5.id).addr}, [("", h5)]
    while groups:
        prefix, group = groups.pop()
        looked += at_most(source.name, len(group), _ENTRIES - looked, "entries in its groups")
        inside = []
        for name in group.keys():  # noqa: SIM118
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            if name.startswith("#"):  # what MATLAB's cells and texts point to
                continue
            item = group[name]
            if isinstance(item, h5py.Dataset) and _numeric(item.dtype):
                found[prefix + name] = tuple(item.shape or ())
                at_most(source.name, len(found), _ARRAYS, "arrays")
            elif isinstance(item, h5py.Group):
                address = h5py.h5o.get_info(item.id).addr
                if address not in seen:
                    seen.add(address)
                    inside.append((f"{prefix}{name}/", item))
        groups += reversed(inside)
    return dict(sorted(found.items()))


def _choose(name: str, key: str | None, names: list[str]) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if not names:
        raise UnreadableFile(
            f"{name}: which array? It holds none of numbers (tables, text, links, cells and "
            "structs are none; of a struct save the field by a name of its own)"
        )
    if key is not None and key.startswith("/") and key[1:] in names:
        return key[1:]
    if key is None or key not in names:
        shown = " ".join(names[:12]) or "none"
        asked = f"no array '{key}'" if key else "which array?"
        raise UnreadableFile(
            f"{name}: {asked} (write {Path(name).name}:NAME, NAME one of: {shown})"
        )
    return key


def all_finite(path: Path | str, samples: np.ndarray) -> None:
    """Checks that no sample is NaN or infinite.

    Args:
        path: The file, for the message.
        samples: What it holds.
    Raises:
        UnreadableFile: Some are; the message says how many.
    """
    bad = np.size(samples) - int(np.isfinite(samples).sum())
    if bad:
        raise UnreadableFile(f"{path}: {bad} of {np.size(samples)} samples are NaN or infinite")


def one_channel(path: Path | str, samples: np.ndarray) -> None:
    """Checks that an image has one channel.

    Args:
        path: The file, for the message.
        samples: The image, (H, W) where that is so.
    Raises:
        UnreadableFile: It has more.
    """
    if samples.ndim != 2:
        raise UnreadableFile(
            f"{path}: got an image of shape {samples.shape}, wanted images of one channel (H, W)"
        )
