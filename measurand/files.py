"""Files that are either complete or absent, and digests.

`atomic(path)` gives a temporary path in the same directory; when its block ends without an error
the file is flushed to the disk (fsync), renamed over `path` and the directory entry is flushed. A
process that dies at any moment leaves the old file, or the new one, never a part of one.

`claimed(folder)` is a folder that one process has to itself. The lock on a file in it goes with
the process, however that ends: what a dead one left can be told from what a living one is writing.
`sweep(folder)` removes what a dead one left and claims nothing by that.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["atomic", "claimed", "publish", "sha256", "sha256_file", "sweep", "write_atomic"]


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary path that becomes `path` when the block ends well, and vanishes otherwise.

    Args:
        path: The file to write or to replace. Its folder must exist.
    Yields:
        A path in the same folder and with the same suffix, for the block to write to.
    """
    path = Path(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    try:
        yield Path(name)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(name, 0o666 & ~mask)
        flush(name)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    flush(path.parent)


@contextmanager
def claimed(folder: str | os.PathLike[str]) -> Iterator[bool]:
    """A folder for the use of this block alone: empty but for its lock, and gone afterwards.

    On a file system without locks everyone is told that the folder is theirs.

    Args:
        folder: The folder; created with those above it. What a dead process left there is removed.
    Yields:
        Whether the folder is ours; False where another block has it, and then nothing is touched.
    """
    folder = Path(folder)
    lock = folder / "lock"
    handle = _locked(lock)
    if handle is None:
        yield False
        return
    try:
        _clear(folder)
        yield True
    finally:
        try:
            _clear(folder)
            lock.unlink(missing_ok=True)  # last: whoever makes the next lock finds it empty
            with suppress(OSError):  # somebody has already claimed it again
                folder.rmdir()
        finally:
            os.close(handle)


def _locked(path: Path) -> int | None:
    """An open handle that holds the lock of a file; None where another one holds it."""
    try:
        import fcntl
    except ImportError:  # a system without such locks
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # its last owner removed the folder just now
            continue
        except FileExistsError:  # the same, while mkdir looked whether it is one
            if path.parent.is_file() or path.parent.is_symlink():
                raise
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owned = not _shares(handle)
            os.close(handle)
            if owned:
                return None
            time.sleep(0.001)  # only swept, or let go of just now
            continue
        except OSError:
            return handle
        try:
            if os.path.samestat(os.fstat(handle), os.stat(path)):
                return handle
        except FileNotFoundError:
            pass
        os.close(handle)  # the lock of a file that its last owner has removed


def _shares(handle: int) -> bool:
    """Whether a lock has no owner; then it can have none until the handle is closed."""
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # BlockingIOError: it has one; others: nobody can tell
        return False
    return True


def sweep(folder: str | os.PathLike[str]) -> None:
    """Removes a folder that a dead process had claimed, and does not claim it meanwhile.

    A process that asks for the folder at this moment is not told that another one has it: it
    waits. One that has the folder keeps it, also one that has made it and not claimed it yet. On a
    file system without locks nothing is removed.

    Args:
        folder: The folder of `claimed`; there may be none.
    """
    folder = Path(folder)
    beside = folder.with_name(f".{folder.name}.sweep")
    if folder.exists() or beside.exists():
        with claimed(beside) as ours:  # of two at once, one could remove what follows the other
            if ours:
                _sweep(folder)


def _sweep(folder: Path) -> None:
    try:
        import fcntl  # noqa: F401
    except ImportError:
        return
    lock = folder / "lock"
    try:
        handle = os.open(lock, os.O_RDWR)  # and never makes one
    except OSError:
        with suppress(OSError):  # whoever is between making it and its lock makes it again
            folder.rmdir()
        return
    try:
        if _shares(handle) and os.path.samestat(os.fstat(handle), os.stat(lock)):
            _clear(folder)
            lock.unlink()
            folder.rmdir()
    except OSError:  # it is claimed again, or cannot be removed
        pass
    finally:
        os.close(handle)


def _clear(folder: Path) -> None:
    for entry in list(folder.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != "lock":
            entry.unlink()


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Writes bytes, or text as UTF-8, so that `path` is never seen half-written.

    Args:
        path: The file to write or to replace.
        data: Its whole content.
    """
    with atomic(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def publish(stage: Path, folder: Path, aside: Path) -> None:
    """Puts a filled folder in its place: as a whole, or not at all.

    Args:
        stage: The filled folder.
        folder: Where it belongs; the folders above it are made.
        aside: Where a folder that is there now is moved to, for the caller to remove. All three
            are on one file system.
    """
    for path in [*stage.rglob("*"), stage]:
        flush(path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        if folder.exists():
            os.replace(folder, aside)  # from here to the next line there is nothing
        os.replace(stage, folder)
    except BaseException:
        if aside.exists() and not folder.exists():
            os.replace(aside, folder)
        raise
    flush(folder.parent)


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
