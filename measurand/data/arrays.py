"""Arrays from .npy, .npz and HDF5 files that nobody has to trust.

A name is `file.npy`, `file.npz:key` or `file.h5:group/dataset`; the key may be left out where the
file holds one array. A value range stored beside the array (`range` in an archive, an attribute
`range` in HDF5) travels with it.

A file that cannot be understood raises `UnreadableFile`, whatever is wrong with it. Nothing is
unpickled, links out of an HDF5 file are not followed, and a member may not unpack to more than
4 GiB.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

__all__ = ["ARRAYS", "UnreadableFile", "all_finite", "load", "reading", "split_key"]

ARRAYS = (".npy", ".npz", ".h5", ".hdf5")
_LARGEST = 4 * 2**30  # bytes that a member of a file may unpack to


class UnreadableFile(ValueError):
    """A file that is not what its name says, or is damaged, or holds no image."""


def split_key(path: str | Path) -> tuple[Path, str | None]:
    """`file.npz:key` as the file and the key; a name without a key gives None."""
    text = str(path)
    for suffix in (".npz:", ".h5:", ".hdf5:"):
        at = text.lower().rfind(suffix)
        if at >= 0:
            return Path(text[: at + len(suffix) - 1]), text[at + len(suffix) :]
    return Path(text), None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns whatever a parser of a damaged file raises into `UnreadableFile`."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_file():
        raise UnreadableFile(f"{path}: not a file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnreadableFile:
        raise
    except PermissionError as error:
        raise PermissionError(f"{path}: no permission to read it") from error
    except Exception as error:  # parsers of damaged files raise anything at all
        reason = str(error).split("\n")[0] or type(error).__name__
        raise UnreadableFile(f"{path}: cannot be read as {path.suffix}: {reason}") from error


def load(path: Path, key: str | None) -> tuple[np.ndarray, str | None, tuple[float, float] | None]:
    """The array, the key it was found under, and the value range stored beside it."""
    stored_range = None
    with reading(path):
        if path.suffix.lower() == ".npy":
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)  # checks the size first
            array = np.array(mapped)
        elif path.suffix.lower() == ".npz":
            with zipfile.ZipFile(path) as archive:
                names = [n[:-4] for n in archive.namelist() if n.endswith(".npy")]
                key = _choose(path, key, [n for n in names if n != "range"])
                info = archive.getinfo(key + ".npy")
                if info.file_size > _LARGEST:
                    raise UnreadableFile(f"{path}:{key} unpacks to {info.file_size} bytes")
                array = np.load(io.BytesIO(archive.read(info)), allow_pickle=False)
                if "range" in names and archive.getinfo("range.npy").file_size < 1000:
                    ends = np.load(io.BytesIO(archive.read("range.npy")), allow_pickle=False)
                    stored_range = (float(ends[0]), float(ends[1]))
        else:
            import h5py

            with h5py.File(path, "r") as h5:
                key = _choose(path, key, _datasets(h5))
                dataset = h5[key]
                if dataset.is_virtual or dataset.external:
                    raise UnreadableFile(f"{path}:{key} keeps its data in other files")
                if dataset.nbytes > _LARGEST:
                    raise UnreadableFile(f"{path}:{key} unpacks to {dataset.nbytes} bytes")
                array = dataset[()]
                if "range" in dataset.attrs:
                    ends = dataset.attrs["range"]
                    stored_range = (float(ends[0]), float(ends[1]))
        if array.dtype.kind not in "buifc":
            raise UnreadableFile(f"{path}: got an array of {array.dtype}, wanted numbers")
    return array, key, stored_range


def _datasets(group: object, prefix: str = "") -> list[str]:
    """Names of the numeric datasets of an HDF5 file; links to other files are not followed."""
    import h5py

    names: list[str] = []
    for name in group.keys():  # type: ignore[attr-defined]  # noqa: SIM118
        if isinstance(group.get(name, getlink=True), h5py.HardLink):  # type: ignore[attr-defined]
            item = group[name]  # type: ignore[index]
            if isinstance(item, h5py.Dataset):
                names += [prefix + name] if item.dtype.kind in "buifc" else []
            elif prefix.count("/") < 8:
                names += _datasets(item, f"{prefix}{name}/")
    return names


def _choose(path: Path, key: str | None, names: list[str]) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key is None or key not in names:
        shown = " ".join(names[:12]) or "none"
        asked = f"no array '{key}'" if key else "which array?"
        raise UnreadableFile(f"{path}: {asked} (write {path.name}:NAME, NAME one of: {shown})")
    return key


def all_finite(path: Path, samples: np.ndarray) -> None:
    bad = np.size(samples) - int(np.isfinite(samples).sum())
    if bad:
        raise UnreadableFile(f"{path}: {bad} of {np.size(samples)} samples are NaN or infinite")
