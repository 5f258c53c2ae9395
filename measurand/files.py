"""Files that are either complete or absent, and digests.

`atomic(path)` gives a temporary path in the same directory; when its block ends without an error
the file is flushed to the disk (fsync), renamed over `path` and the directory entry is flushed. A
process that dies at any moment leaves the old file, or the new one, never a part of one.

`room` is the same for a folder: filled out of sight, then put in its place by `publish`. What a
killed process leaves has its stamp (`owners`) in its name: the next `atomic` or `room` in the same
folder removes it (`sweep`).
"""

import ctypes
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from .leases import DAY, now, sign
from .owners import owner_of, stamp, unstamped

__all__ = [
    "atomic",
    "discard",
    "publish",
    "room",
    "sha256",
    "sha256_file",
    "sweep",
    "write_atomic",
]


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends well, and vanishes otherwise.

    Args:
        path: The file to write or to replace. Its folder must exist.
    Yields:
        A path in the same folder and with the same suffix, for the block to write to.
    """
    path = Path(path)
    sweep(path.parent)
    temporary = path.with_name(f".{path.stem[:40]}.{stamp()}{path.suffix}")
    try:
        open(temporary, "x").close()
        yield temporary
        flush(temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(path.parent)


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Writes bytes, or text as UTF-8, so that `path` is never seen half-written.

    Args:
        path: The file to write or to replace.
        data: Its whole content.
    """
    with atomic(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def room(folder: Path, where: Path, name: str) -> Iterator[Path]:
    """An empty folder to fill, out of sight, for `publish`; it is gone when the block ends.

    Args:
        folder: Where the filled one belongs.
        where: The folder to make it in, on the same file system.
        name: The first part of its name there, after a dot.
    Yields:
        The folder to fill.
    """
    token = stamp()
    place = where / f".{name}.{token}"
    with sign(place, token):
        try:
            place.mkdir(parents=True)
            (place / "for").write_text(os.path.relpath(folder, place))
            (place / "results").mkdir()
            yield place / "results"
        finally:
            _clear(place)


def publish(stage: Path, folder: Path) -> None:
    """Puts a filled folder in its place: as a whole, or not at all.

    Where the system can exchange two folders (Linux and macOS, on local disks), there is a result
    at every moment. Elsewhere an old one is put aside for the moment between two renames, and a
    process that dies in it leaves it to be put back by `discard`.

    Args:
        stage: The folder of `room`, filled.
        folder: Where it belongs; the folders above it are made.
    """
    for path in [*stage.rglob("*"), stage]:
        flush(path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for k in count():
        aside = stage.with_name(f"replaced-{k}")
        try:
            if folder.exists():
                if _exchanged(stage, folder):
                    break
                os.replace(folder, aside)
            os.replace(stage, folder)
            break
        except BaseException as error:
            if aside.exists() and not folder.exists():
                os.replace(aside, folder)
            # another process has put one there, or taken it away, between the lines above
            raced = isinstance(error, OSError) and error.errno in _RACED
            if not raced or not stage.exists() or k > 100:
                raise
    flush(folder.parent)


_RACED = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether two folders have changed places, at once."""
    libc: Any = ctypes.CDLL(None) if os.name == "posix" else None
    names = os.fsencode(one), os.fsencode(other)
    if hasattr(libc, "renameat2"):
        return libc.renameat2(-100, names[0], -100, names[1], 2) == 0  # RENAME_EXCHANGE
    if hasattr(libc, "renamex_np"):
        return libc.renamex_np(*names, 2) == 0  # RENAME_SWAP
    return False


def sweep(folder: str | os.PathLike[str]) -> None:
    """Removes what dead processes have left in a folder: temporary files and folders of here.

    Args:
        folder: Where `atomic`, `room` and leases have put them; not searched further down.
    """
    folder = Path(folder)
    try:
        names = [name for name in os.listdir(folder) if name.startswith(".")]
    except OSError:
        return
    for name in names:
        owner = owner_of(name)
        with suppress(OSError):
            alive = owner is None or owner.alive
            if alive is None:
                alive = now(folder) - os.stat(folder / name).st_mtime < DAY
            if not alive:
                discard(folder / name)


def discard(path: Path) -> None:
    """Removes a temporary file or folder that a dead process has left.

    A result that it had put aside is put back where there is none.

    Args:
        path: Made by `atomic`, `room` or a lease.
    """
    if not path.is_dir():
        path.unlink(missing_ok=True)
        return
    ours = path.with_name(unstamped(path.name) + stamp())
    with suppress(FileNotFoundError):
        os.rename(path, ours)  # of several that try, one does
        _clear(ours)


def _clear(place: Path) -> None:
    """Removes a folder of `room`, but not the only copy of a result that was put aside there."""
    target = place / "for"
    with suppress(OSError):
        folder = place / target.read_text()
        for aside in sorted(place.glob("replaced-*"), reverse=True):
            if not folder.exists():
                os.replace(aside, folder)
        if not folder.exists() and any(place.glob("replaced-*")):
            return
        target.unlink()  # first: what is half removed is put back by nobody
    if not target.exists():
        shutil.rmtree(place, ignore_errors=True)


def flush(path: str | os.PathLike[str]) -> None:
    """Waits until the file or the folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(data: bytes | bytearray | memoryview | str) -> str:
    """Returns the SHA-256 digest of bytes, or of text in UTF-8, in hexadecimal."""
    return hashlib.sha256(data.encode() if isinstance(data, str) else data).hexdigest()


def sha256_file(path: str | os.PathLike[str], *, size: int | None = None) -> str:
    """Returns the SHA-256 digest of a file's content, in hexadecimal.

    Args:
        path: The file.
        size: Only the first bytes of it, so many or as many as there are; all when absent.
    """
    with open(path, "rb") as file:
        if size is None:
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        while size > 0 and (part := file.read(min(size, 2**20))):
            digest.update(part)
            size -= len(part)
        return digest.hexdigest()
