"""Sixteen-bit PNG: the one common picture format that ordinary readers cut to eight bits.

A PNG holds its pixels as rows of bytes, each row behind one byte that names its filter:

    0 none   x      2 up       x + b
    1 sub    x + a  3 average  x + floor((a + b) / 2)     4 paeth  x + nearest of a, b, c to a+b-c

where a, b, c are the bytes one pixel to the left, above, and above left, and sums are modulo 256.
A byte needs its left and upper neighbours, so rows cannot be undone at once and neither can
columns, but all pixels of one anti-diagonal can: `height + width` vector steps undo any mixture of
filters. Interlaced files are seven such pictures on sub-grids (Adam7).

Reference: Portable Network Graphics (PNG) Specification (Third Edition), W3C.
"""

import struct
import zlib

import numpy as np

__all__ = ["decode_png16", "encode_png16", "is_png16"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # colour type -> samples per pixel
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2))
_LARGEST = 2**28  # samples; 512 MB


def is_png16(head: bytes) -> bool:
    """Whether a file that starts with these bytes is a 16-bit PNG."""
    return head[:8] == _SIGNATURE and len(head) > 24 and head[24] == 16


def decode_png16(content: bytes) -> np.ndarray:
    """The pixels of a 16-bit PNG.

    Args:
        content: The whole file.
    Returns:
        Samples, with shape (H, W, channels) and dtype uint16; 2 and 4 channels end in alpha.
    """
    if not is_png16(content[:32]):
        raise ValueError("not a PNG with 16 bits per sample")
    data, at, header = [], len(_SIGNATURE), b""
    while at < len(content):
        size, kind = struct.unpack(">I4s", content[at : at + 8])
        body = content[at + 8 : at + 8 + size]
        if content[at + 8 + size : at + 12 + size] != struct.pack(">I", zlib.crc32(kind + body)):
            raise ValueError(f"the {kind!r} chunk is truncated or damaged")
        at += 12 + size
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            data.append(body)
        elif kind == b"IEND":
            break
    else:
        raise ValueError("the file ends before its last chunk")
    width, height, _, color, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if color not in _CHANNELS or not 0 < width * height * _CHANNELS[color] <= _LARGEST:
        raise ValueError(f"{width} x {height} pixels of colour type {color} cannot be read")
    channels = _CHANNELS[color]
    passes = [*_ADAM7, (0, 1, 1, 2)] if interlaced else [(0, 0, 1, 1)]
    sizes = [(-(-(height - y) // dy), -(-(width - x) // dx)) for x, y, dx, dy in passes]
    wanted = sum(h * (1 + 2 * channels * w) for h, w in sizes if h > 0 and w > 0)
    inflate = zlib.decompressobj()
    raw = np.frombuffer(inflate.decompress(b"".join(data), wanted + 1), np.uint8)
    if len(raw) != wanted:
        raise ValueError(f"got {len(raw)} bytes of pixels, wanted {wanted}")
    pixels, start = np.empty((height, width, channels), np.uint16), 0
    for (x, y, dx, dy), (h, w) in zip(passes, sizes, strict=True):
        if h > 0 and w > 0:
            rows = raw[start : start + h * (1 + 2 * channels * w)].reshape(h, -1)
            start += rows.size
            undone = _unfilter(rows[:, 1:].reshape(h, w, 2 * channels), rows[:, 0])
            pixels[y::dy, x::dx] = undone.view(">u2")
    return pixels


def _unfilter(filtered: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Bytes (H, W, bytes per pixel) with the filter of each row undone."""
    if kinds.max() > 4:
        raise ValueError(f"unknown row filter {kinds.max()}")
    height, width, _ = filtered.shape
    done = np.zeros((height + 1, width + 1, filtered.shape[2]), np.int16)  # zeros left and above
    for diagonal in range(height + width - 1):
        i = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        j = diagonal - i
        a, b, c = done[i + 1, j], done[i, j + 1], done[i, j]
        p = a + b - c
        to_a, to_b, to_c = abs(p - a), abs(p - b), abs(p - c)
        nearest = np.where((to_a <= to_b) & (to_a <= to_c), a, np.where(to_b <= to_c, b, c))
        guess = np.choose(kinds[i][:, None], [np.zeros_like(a), a, b, (a + b) // 2, nearest])
        done[i + 1, j + 1] = (filtered[i, j] + guess) % 256
    return np.ascontiguousarray(done[1:, 1:].astype(np.uint8))


def encode_png16(
    pixels: np.ndarray,
    *,
    profile: bytes | None = None,
    exif: bytes | None = None,
    dpi: tuple[float, float] | None = None,
) -> bytes:
    """A 16-bit PNG of some samples.

    Args:
        pixels: Samples, with shape (H, W, channels), 1 to 4 channels, and dtype uint16.
        profile: ICC colour profile.
        exif: EXIF data.
        dpi: Pixels per inch along x and y.
    Returns:
        The file's bytes.
    """
    height, width, channels = pixels.shape
    color = {count: kind for kind, count in _CHANNELS.items()}[channels]
    data = np.ascontiguousarray(pixels.astype(">u2")).view(np.uint8).reshape(height, -1)
    rows = np.full((height, 1 + data.shape[1]), 2, np.uint8)  # filter "up" on every row
    rows[:, 1:] = data
    rows[1:, 1:] -= data[:-1]

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0))]
    if profile:
        chunks.append(chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile)))
    if dpi:
        per_metre = [round(value / 0.0254) for value in dpi]
        chunks.append(chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    if exif:
        chunks.append(chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    chunks += [chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)), chunk(b"IEND", b"")]
    return b"".join((_SIGNATURE, *chunks))
