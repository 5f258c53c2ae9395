"""Sixteen-bit PNG: the one common picture format that ordinary readers cut to eight bits.

Pillow undoes the filters and the interlacing of all 16 bits and then keeps the upper 8 of each
sample. Asked for the pixels in the other byte order, it keeps the lower 8: both together are the
sample. A sample of grey with opacity is, byte by byte, a pixel of 8-bit RGBA, and read as such.

Reference: Portable Network Graphics (PNG) Specification (Third Edition), W3C.
"""

import io
import struct
import zlib

import numpy as np

__all__ = ["decode_png16", "encode_png16", "is_png16", "png_gamma"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # colour type -> samples per pixel
_HEADER = 33  # bytes of the signature and the first chunk


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
    _undamaged(content)
    width, height, _, color, *methods = struct.unpack(">IIBBBBB", content[16:29])
    if color not in _CHANNELS or not width * height:
        raise ValueError(f"{width} x {height} pixels of colour type {color} cannot be read")
    channels = _CHANNELS[color]
    if channels == 1:
        return _decoded(content, "I;16B").astype(np.uint16)[..., None]
    if channels == 2:
        head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 6, *methods)
        start = _SIGNATURE + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
        pairs = _decoded(start + content[_HEADER:], "RGBA")
        return np.ascontiguousarray(pairs).view(">u2").astype(np.uint16)
    mode = {3: "RGB", 4: "RGBA"}[channels]
    pixels = _decoded(content, f"{mode};16B").astype(np.uint16) << 8
    pixels |= _decoded(content, f"{mode};16L")
    return pixels


def _undamaged(content: bytes) -> None:
    """Checks that a PNG is whole: pillow does not compare the check sums of the pixels."""
    at, kind = len(_SIGNATURE), b""
    while kind != b"IEND":
        if at + 12 > len(content):
            raise ValueError("the file ends before its last chunk")
        size, kind = struct.unpack(">I4s", content[at : at + 8])
        end = at + 8 + size
        check = zlib.crc32(memoryview(content)[at + 4 : end])
        if content[end : end + 4] != struct.pack(">I", check):
            raise ValueError(f"the {kind!r} chunk is truncated or damaged")
        at = end + 4


def _decoded(content: bytes, kept: str) -> np.ndarray:
    """What pillow keeps of a PNG, told by the name that it has for the order of the bytes."""
    from PIL import Image

    with Image.open(io.BytesIO(content), formats=("PNG",)) as picture:
        (tile,) = picture.tile
        picture.tile = [(*tile[:3], kept)]  # type: ignore[list-item]
        return np.array(picture)


def png_gamma(gamma: float) -> bytes:
    """The content of the chunk that says the exponent of the samples."""
    return struct.pack(">I", round(100_000 * gamma))


def encode_png16(
    pixels: np.ndarray,
    *,
    profile: bytes | None = None,
    exif: bytes | None = None,
    dpi: tuple[float, float] | None = None,
    gamma: float | None = None,
) -> bytes:
    """A 16-bit PNG of some samples.

    Args:
        pixels: Samples, with shape (H, W, channels), 1 to 4 channels, and dtype uint16.
        profile: ICC colour profile.
        exif: EXIF data.
        dpi: Pixels per inch along x and y.
        gamma: Exponent of the samples.
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
    if gamma:
        chunks.append(chunk(b"gAMA", png_gamma(gamma)))
    if profile:
        chunks.append(chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile)))
    if dpi:
        per_metre = [round(value / 0.0254) for value in dpi]
        chunks.append(chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    if exif:
        chunks.append(chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
    chunks += [chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)), chunk(b"IEND", b"")]
    return b"".join((_SIGNATURE, *chunks))
