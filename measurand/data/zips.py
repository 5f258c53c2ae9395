"""Zips, whose directory is measured before it is read.

The directory at the end of a zip lists its members, 46 bytes and a name for each, and costs about
a kilobyte of memory and ten microseconds for each when it is read. Several members may share the
same stored bytes, so that a small file can list very many.

Reference: APPNOTE.TXT, .ZIP File Format Specification (PKWARE), sections 4.3.12 to 4.3.16.
"""

from __future__ import annotations

import os
import struct
import zipfile
from typing import BinaryIO

from .limits import at_most

__all__ = ["checked"]

_MEMBERS = 2**18  # twice what large collections of photographs have, and a few seconds
_DIRECTORY = 2**26  # bytes: 256 for each of so many
_END, _WIDE = 22, 56 + 20  # bytes of the last record, and of the two before it in a large zip
_COMMENT = 2**16  # bytes that may follow


def checked(name: str, file: BinaryIO) -> BinaryIO:
    """Returns a zip that is about to be opened, if its directory is no larger than it should be.

    Args:
        name: What messages call it.
        file: Its content, seekable.
    Raises:
        UnreadableFile: It has more than 262,144 members.
        zipfile.BadZipFile: It is no zip.
    """
    start, size = _directory(file)
    advice = "unpack them into a folder, which may have any number"
    at_most(name, size, _DIRECTORY, f"bytes of names of members; {advice}")
    file.seek(start)
    at_most(name, file.read(size).count(b"PK\1\2"), _MEMBERS, f"members; {advice}")
    return file


def _directory(file: BinaryIO) -> tuple[int, int]:
    """Where the directory of a zip begins, and its bytes."""
    length = file.seek(0, os.SEEK_END)
    file.seek(max(0, length - _WIDE - _END - _COMMENT))
    tail = file.read()
    at = len(tail) - _END
    if tail[at : at + 4] != b"PK\5\6" or tail[-2:] != b"\0\0":  # with a comment
        at = tail.rfind(b"PK\5\6")
    if at < 0 or at + _END > len(tail):
        raise zipfile.BadZipFile("it has no directory at its end: it is cut off, or no zip")
    (size,) = struct.unpack_from("<I", tail, at + 12)
    end = length - len(tail) + at
    if at >= _WIDE and tail[at - 20 : at - 16] == b"PK\6\7":
        (size,) = struct.unpack_from("<Q", tail, at - _WIDE + 40)
        end -= _WIDE
    return max(0, end - size), size
