"""Where data come from: files on the disk, folders of them, members of a zip.

A `File` has a name for messages and can be opened, wherever it lies; a reader of a format takes a
`File` (or a path) and never asks. Members of a zip are read in memory: nothing is unpacked to the
disk, so no member can be written anywhere, and neither one nor all may unpack to more than
`limits` allows.

A file that cannot be understood raises `UnreadableFile`, whatever is wrong with it. `Skips` either
lets that error pass, or keeps the name and the reason and goes on with the next file; what was
left out is said at the end, in one warning of its own kind, `SkippedFiles`.
"""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from . import zips
from .limits import UnreadableFile, sized, sized_in_all

__all__ = [
    "File",
    "SkippedFiles",
    "Skips",
    "UnreadableFile",
    "file_at",
    "folders_in",
    "holds_files",
    "listing",
    "reading",
    "split_key",
]

_REASON = 300  # letters of what a parser says, which may quote the file


class SkippedFiles(UserWarning):
    """Files were left out, as was asked for; the message says how many, which and why."""


@dataclass(frozen=True)
class File:
    """A file on the disk or a member of a zip.

    Args:
        name: What messages call it.
        path: Where it is; None inside a zip.
        member: Returns its bytes inside a zip, all of them or the first few.
        key: Which array of it is meant; None where that is not said.
    """

    name: str
    path: Path | None = None
    member: Callable[[int], bytes] | None = None
    key: str | None = None

    @property
    def suffix(self) -> str:
        """The lower-case ending of the name; `.nii.gz` as a whole."""
        name = PurePosixPath(self.name.lower())
        return "".join(name.suffixes[-2:]) if name.name.endswith(".nii.gz") else name.suffix

    @property
    def base(self) -> str:
        """The name without folders and zip."""
        return PurePosixPath(self.name.rsplit(": ", 1)[-1]).name

    def open(self) -> BinaryIO:
        """Returns the file, opened for reading and seekable."""
        if self.path is None:
            return io.BytesIO(self.read())
        if self.path.exists() and not self.path.is_file():  # a pipe, a device: without an end
            raise UnreadableFile(f"{self.name}: not a file")
        return self.path.open("rb")

    def read(self, most: int = -1) -> bytes:
        """Returns its bytes, or the first `most` of them."""
        if self.path is None:
            return self.member(most) if self.member else b""
        with self.open() as file:
            return file.read(most)


def file_at(path: str | os.PathLike[str] | File) -> File:
    """Returns a path as a `File`, with its key where it has one; a `File` as it is."""
    if isinstance(path, File):
        return path
    alone, key = split_key(Path(path))
    return File(str(alone), alone, key=key)


IN_PLACE = ":in-place"


def split_key(path: str | Path) -> tuple[Path, str | None]:
    """`file.npz:key` as the file and the key; a name without a key gives None.

    The key of a TIFF is the number of a page, from 0: `stack.tif:3`. `:in-place` at the end, which
    a kernel may have (`jobs.psf`), belongs to neither. A file that exists has no key in its name.
    """
    if Path(path).exists():
        return Path(path), None
    text = str(path).removesuffix(IN_PLACE)
    for suffix in (".npz:", ".h5:", ".hdf5:", ".mat:", ".tif:", ".tiff:"):
        at = text.lower().rfind(suffix)
        if at >= 0:
            return Path(text[: at + len(suffix) - 1]), text[at + len(suffix) :]
    return Path(text), None


@contextmanager
def reading(source: str | os.PathLike[str] | File, what: str = "") -> Iterator[None]:
    """Turns whatever a parser of a damaged file raises into `UnreadableFile`.

    Args:
        source: The file that is read.
        what: What it was taken for; the ending of its name when empty.
    Raises:
        FileNotFoundError: There is no such file.
        UnreadableFile: The block failed.
    """
    file = file_at(source)
    if file.path is not None:
        if not file.path.exists():
            raise FileNotFoundError(f"{file.name}: no such file")
        if not file.path.is_file():
            raise UnreadableFile(f"{file.name}: not a file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UnreadableFile:
        raise
    except PermissionError as error:
        raise PermissionError(f"{file.name}: no permission to read it") from error
    except Exception as error:  # parsers of damaged files raise anything at all
        reason = str(error).split("\n")[0][:_REASON] or type(error).__name__
        kind = what or file.suffix
        raise UnreadableFile(f"{file.name}: cannot be read as {kind}: {reason}") from error


def holds_files(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is a folder or, by its name, a zip: a place of many files."""
    return Path(path).is_dir() or Path(path).suffix.lower() == ".zip"


def folders_in(path: str | os.PathLike[str]) -> list[str]:
    """Returns the names of all folders of a folder or a zip, in depth, sorted; also empty ones.

    Hidden ones are passed over. A file has none.

    Raises:
        FileNotFoundError: There is no such zip.
        UnreadableFile: The zip cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        found = [top.relative_to(path) / name for top, names, _ in _walk(path) for name in names]
        return sorted(at.as_posix() for at in found)
    if not holds_files(path):
        return []
    with reading(path, "a zip"), path.open("rb") as file:
        members = _members(zipfile.ZipFile(zips.checked(str(path), file)))
    above = {p for name in members for p in PurePosixPath(name).parents if p.name}
    above |= {PurePosixPath(name) for name, info in members.items() if name.endswith("/")}
    return sorted(str(at) for at in above if not _hidden(str(at)))


def _walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Folders, through links, with the names of what is in them; none twice, none hidden."""
    seen = set()
    for top, folders, files in os.walk(folder, followlinks=True):
        status = os.stat(top)
        if (status.st_dev, status.st_ino) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not _hidden(name))
        yield Path(top), folders, [name for name in files if not _hidden(name)]


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The members of a zip by name; some programs write names with backslashes."""
    return {info.filename.replace("\\", "/"): info for info in archive.infolist()}


@contextmanager
def listing(path: str | os.PathLike[str], under: str = "") -> Iterator[list[tuple[str, File]]]:
    """The files of a folder, in depth, or of a zip, sorted by name; open while the block lasts.

    Hidden files and folders, and the leavings of macOS in a zip, are passed over.

    Args:
        path: A folder or a zip.
        under: Only what is in this folder of it; all when empty.
    Yields:
        Pairs of the name within the folder or zip, and the file.
    Raises:
        FileNotFoundError: There is no such folder or file.
        UnreadableFile: The zip cannot be read.
    """
    path, inside = Path(path), PurePosixPath(under)
    if path.is_dir():
        found = sorted(top / name for top, _, names in _walk(path / inside) for name in names)
        yield [
            (file.relative_to(path).as_posix(), File(str(file), file))
            for file in found
            if file.is_file() or file.is_symlink()  # whoever opens a broken link will say so
        ]
        return
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such folder or zip")
    with reading(path, "a zip"):
        with path.open("rb") as file:
            zips.checked(str(path), file)
        archive = zipfile.ZipFile(path)
    with archive:
        members = {
            name: info
            for name, info in sorted(_members(archive).items())
            if (not under or PurePosixPath(name).is_relative_to(inside))
            and not name.endswith("/")
            and not _hidden(name)
        }
        stored = path.stat().st_size
        sized_in_all(str(path), sum(info.file_size for info in members.values()), stored)
        yield [
            (
                name,
                File(f"{path}: {name}", None, _member(archive, f"{path}: {name}", info, stored)),
            )
            for name, info in members.items()
        ]


def _member(
    archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo, stored: int
) -> Callable[[int], bytes]:
    def read(most: int) -> bytes:
        with reading(File(name), "a member of a zip"):  # also where only its first bytes are
            sized(name, info.file_size, stored)
            with archive.open(info) as file:  # checks the CRC where it is read to the end
                return file.read(most)

    return read


def _hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any((p.startswith(".") and p != "..") or p == "__MACOSX" for p in parts)


@dataclass
class Skips:
    """What to do about a file that cannot be read: stop, or remember it and go on.

    Args:
        carry_on: Go on.
        found: Name and reason of every file that was left out.
        names: All files that were to be read.
    """

    carry_on: bool
    found: list[tuple[str, str]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)

    @contextmanager
    def over(self, *names: str) -> Iterator[None]:
        """The block reads files that belong together; where it fails, it ends without them."""
        self.names.update(names)
        try:
            yield
        except (UnreadableFile, OSError) as error:
            if not self.carry_on:
                raise
            reason = str(error).removeprefix(names[0]).lstrip(": ")
            self.found.append((names[0], reason))
            self.found.extend((name, f"belongs to {names[0]}") for name in names[1:])

    def summary(self) -> str:
        """One sentence: how many were left out and why; empty where none was."""
        if not self.found:
            return ""
        shown = ", ".join(f"{name} ({reason})" for name, reason in self.found[:3])
        more = f" and {len(self.found) - 3} more" if len(self.found) > 3 else ""
        files = "file" if len(self.names) == 1 else "files"
        return f"skipped {len(self.found)} of {len(self.names)} {files}: {shown}{more}"
