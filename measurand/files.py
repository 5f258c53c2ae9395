"""Files that are either complete or absent, and digests.

`atomic(path)` gives a temporary path in the same directory; when its block ends without an error
the file is flushed to the disk (fsync), renamed over `path` and the directory entry is flushed. A
process that dies at any moment leaves the old file, or the new one, never a part of one.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic", "sha256", "sha256_file", "write_atomic"]


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


def write_atomic(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Writes bytes, or text as UTF-8, so that `path` is never seen half-written.

    Args:
        path: The file to write or to replace.
        data: Its whole content.
    """
    with atomic(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


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


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Returns the SHA-256 digest of a file's content, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
