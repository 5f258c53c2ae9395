"""MetaImage volumes (.mhd with a raw file beside it, .mha in one file), as ITK writes them.

A header of lines `Key = value`, the last of them ElementDataFile; then samples with x fastest.
Slices (H, W) are rows of y and columns of x, as stored, slice after slice in z. Samples are the
values; compressed ones are zlib. Colours, or other channels of a sample, stay side by side.

References:
    | MetaIO documentation, ITK: MetaImage tags
"""

from __future__ import annotations

import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..files import write_atomic
from .arrays import all_finite
from .grid import Volume, resized
from .limits import IMAGES, at_most, sized
from .sources import File, reading

if TYPE_CHECKING:
    from .form import Form

__all__ = ["slices", "volume"]

_HEADER = 2**16  # bytes in which a header must end
_TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_LONG_LONG": "i8",
    "MET_ULONG_LONG": "u8",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_NAMES = {kind: name for name, kind in _TYPES.items()}
_ORIGINS = ("Offset", "Position", "Origin")


@dataclass(frozen=True)
class _Header:
    """The lines of a header, and what they say of the samples.

    Args:
        lines: Values by key, in order.
        size: Numbers of samples (x, y[, z...]).
        kind: Type of a sample, in the byte order of the file.
        channels: Numbers in each sample.
    """

    lines: dict[str, str]
    size: tuple[int, ...]
    kind: np.dtype
    channels: int

    def write(self, path: Path, values: np.ndarray, form: Form) -> None:
        """Writes slices (N, H, W, C) as a file with the same geometry."""
        n, h, w, channels = values.shape
        kind = values.dtype.newbyteorder("<")
        size = (w, h, *self.size[2:]) if n == math.prod(self.size[2:]) else (w, h, n)
        lines = {**self.lines, "NDims": f"{len(size)}", "DimSize": " ".join(map(str, size))}
        lines |= self._moved(w, h)
        lines["ElementType"] = _NAMES[kind.str[1:]]
        lines["ElementNumberOfChannels"] = f"{channels}"
        lines |= {
            "BinaryData": "True",
            "BinaryDataByteOrderMSB": "False",
            "CompressedData": "False",
        }
        for key in ("ElementByteOrderMSB", "CompressedDataSize", "HeaderSize"):
            lines.pop(key, None)
        local = path.suffix.lower() == ".mha"
        lines.pop("ElementDataFile")
        lines["ElementDataFile"] = "LOCAL" if local else path.with_suffix(".raw").name
        head = "".join(f"{key} = {value}\n" for key, value in lines.items()).encode()
        samples = np.ascontiguousarray(values).astype(kind).tobytes()
        if not local:
            write_atomic(path.with_suffix(".raw"), samples)
        write_atomic(path, head + samples if local else head)

    def _moved(self, w: int, h: int) -> dict[str, str]:
        """Spacing and origin of a grid of another width and height with the same centre."""
        n = len(self.size)
        spacing = _numbers(self.lines.get("ElementSpacing", "1 " * n), n)
        maps = [resized(before, after) for before, after in zip(self.size, (w, h), strict=False)]
        if all(m == (1.0, 0.0) for m in maps):
            return {}
        turn = np.eye(n)
        for key in ("TransformMatrix", "Rotation", "Orientation"):
            if key in self.lines:  # row i is the direction of axis i
                turn = np.array(_numbers(self.lines[key], n * n)).reshape(n, n)
        moved = np.zeros(n)
        for axis, (_, offset) in enumerate(maps):
            moved += offset * spacing[axis] * turn[axis]
        key = next((k for k in _ORIGINS if k in self.lines), "Offset")
        origin = np.array(_numbers(self.lines.get(key, "0 " * n), n)) + moved
        wide = [step * factor for step, (factor, _) in zip(spacing, maps, strict=False)]
        return {
            "ElementSpacing": " ".join(f"{v:.10g}" for v in [*wide, *spacing[2:]]),
            key: " ".join(f"{v:.10g}" for v in origin),
        }


def slices(file: File) -> list[np.ndarray]:
    """Returns the slices of a volume, each (H, W) or (H, W, C), float32 or bytes.

    Raises:
        UnreadableFile: It is damaged, or its samples lie in several files.
    """
    images = volume(file).images
    return [x if x.dtype == np.uint8 else x.astype(np.float32) for x in images]


def volume(file: File) -> Volume:
    """Returns the slices of a volume with what writes them back.

    Args:
        file: A .mhd or .mha file.
    Raises:
        UnreadableFile: It is damaged, or its samples lie in several files.
    """
    with reading(file, "MetaImage"):
        header, end = _header(file)
        at_most(file.name, math.prod(header.size[2:]), IMAGES, "slices")
        content = _content(file, header, end)
        count = math.prod(header.size) * header.channels
        if len(content) != count * header.kind.itemsize:
            raise ValueError(
                f"the header says {count} samples of {header.kind}, the data are "
                f"{len(content)} bytes"
            )
        values = np.frombuffer(content, header.kind).astype(header.kind.newbyteorder("="))
        w, h = header.size[:2]
        images = values.reshape(-1, h, w, header.channels)
        all_finite(file.name, images)
        images = images if header.channels > 1 else images[..., 0]
        return Volume(images, images.dtype.str, file.suffix, header)


def _header(file: File) -> tuple[_Header, int]:
    """The header, and the byte at which it ends."""
    start = file.read(_HEADER)
    lines: dict[str, str] = {}
    at = 0
    while "ElementDataFile" not in lines:
        end = start.find(b"\n", at)
        end = len(start) if end < 0 else end
        key, equals, value = start[at:end].decode("latin-1").partition("=")
        if not equals or at >= len(start):
            raise ValueError("its header has no ElementDataFile")
        lines[key.strip()] = value.strip()
        at = end + 1
    if lines.get("ElementType") not in _TYPES:
        raise ValueError(f"got ElementType {lines.get('ElementType')}, wanted {' '.join(_TYPES)}")
    order = lines.get("BinaryDataByteOrderMSB", lines.get("ElementByteOrderMSB", "False"))
    kind = np.dtype((">" if _true(order) else "<") + _TYPES[lines["ElementType"]])
    size = tuple(int(word) for word in lines["DimSize"].split())
    if not 2 <= len(size) <= 4 or min(size) < 1 or len(size) != int(lines.get("NDims", len(size))):
        raise ValueError(f"got DimSize {lines['DimSize']}, wanted two to four positive numbers")
    channels = int(lines.get("ElementNumberOfChannels", 1))
    if channels < 1 or not _true(lines.get("BinaryData", "True")):
        raise ValueError("its samples are no binary data, or have no channel")
    return _Header(lines, size, kind, channels), at


def _content(file: File, header: _Header, end: int) -> bytes:
    """The bytes of the samples."""
    named = header.lines["ElementDataFile"]
    expected = math.prod(header.size) * header.channels * header.kind.itemsize
    packed = _true(header.lines.get("CompressedData", "False"))
    skip = int(header.lines.get("HeaderSize", 0))
    if named.upper() == "LOCAL":
        source, start = file, end
    else:
        if named.split()[0:1] in (["LIST"], []) or "%" in named:
            raise ValueError("its samples lie in several files, wanted one")
        if file.path is None or Path(named).name != named:
            raise ValueError(f"its samples are in '{named}', wanted a file beside it")
        beside = file.path.with_name(named)
        if not beside.is_file():
            raise ValueError(f"its samples should be in {named}, which is not there")
        source, start = File(str(beside), beside), 0
    with source.open() as opened:
        stored = opened.seek(0, os.SEEK_END)
        start = stored - expected if skip == -1 and not packed else start + max(skip, 0)
        if not packed and stored - start != expected:  # nothing is read that is not wanted
            raise ValueError(
                f"the header says {expected} bytes of samples, the data are "
                f"{max(stored - start, 0)}"
            )
        opened.seek(max(start, 0))
        content = opened.read(expected if not packed else 2 * expected + _HEADER)
    if not packed:
        return content
    sized(file.name, expected, stored)
    return zlib.decompressobj().decompress(content, expected + 1)


def _true(word: str) -> bool:
    return word.strip().lower() in ("true", "1", "t")


def _numbers(text: str, n: int) -> list[float]:
    values = [float(word) for word in text.split()]
    if len(values) != n:
        raise ValueError(f"got '{text}', wanted {n} numbers")
    return values
