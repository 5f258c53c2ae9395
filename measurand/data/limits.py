"""What a file may cost: limits that no file of a real user meets, and files made to do harm do.

A few kilobytes can unpack to gigabytes, claim a million images or send a reader in circles. Sizes
that a file states are compared with its own size before anything is allocated; numbers of images,
pages and members have limits, because each costs time however small it is. The error says what
was found and what is allowed.
"""

import lzma
import zlib

__all__ = ["IMAGES", "PAGES", "UnreadableFile", "at_most", "inflates", "sized", "sized_in_all"]

_LARGEST = 4 * 2**30  # bytes that something compressed may unpack to,
_RATIO = 200  # and how many times its own size, where that is more than
_SMALL = 2**28  # what is always allowed: an empty label volume packs a thousandfold
_SMALL_IN_ALL = 2**30  # the same of all parts of a file together: pages, members of a zip

IMAGES = (
    2**20
)  # images of an array or a volume; the largest set of small ones has 814,255 (EMNIST)
PAGES = 2**16  # pages of a TIFF, frames of a DICOM object; each costs about 0.2 ms


class UnreadableFile(ValueError):
    """A file that is not what its name says, or is damaged, or holds no image."""


def sized(name: str, unpacked: int, stored: int) -> int:
    """Returns the size of something compressed, if that is a size to be believed.

    Args:
        name: What is unpacked.
        unpacked: Bytes that it says it unpacks to.
        stored: Bytes of the file that holds it.
    Raises:
        UnreadableFile: More than 4 GiB, or more than 200 times the file and 256 MiB.
    """
    if unpacked > max(stored, min(_LARGEST, max(_SMALL, _RATIO * stored))):
        raise UnreadableFile(
            f"{name} unpacks to {unpacked} bytes from {stored}, wanted at most 4 GiB and "
            f"{_RATIO} times what is stored"
        )
    return unpacked


def sized_in_all(name: str, unpacked: int, stored: int) -> int:
    """Returns the size of all parts of a file together, if that is one to be believed.

    Parts may share the same stored bytes; each by itself is then within `sized`.

    Args:
        name: The file.
        unpacked: Bytes that its parts say they unpack to.
        stored: Bytes of the file.
    Raises:
        UnreadableFile: More than 1 GiB and more than 200 times the file.
    """
    if unpacked > max(_SMALL_IN_ALL, _RATIO * stored):
        raise UnreadableFile(
            f"{name} unpacks to {unpacked} bytes in all from {stored}, wanted at most 1 GiB or "
            f"{_RATIO} times what is stored"
        )
    return unpacked


def at_most(name: str, number: int, most: int, things: str) -> int:
    """Returns a number of things in a file, if they are not too many.

    Args:
        name: The file.
        number: How many it holds.
        most: How many are allowed.
        things: What they are, and after a semicolon what to do.
    Raises:
        UnreadableFile: There are more.
    """
    if number > most:
        what, _, advice = things.partition("; ")
        raise UnreadableFile(
            f"{name}: holds {number} {what}, wanted at most {most}: {advice or 'divide the file'}"
        )
    return number


def inflates(name: str, content: bytes, size: int, *, by_lzma: bool = False) -> None:
    """Checks that something packed has no more than its size: libraries unpack it to its end.

    Args:
        name: What it is.
        content: A zlib stream.
        size: Bytes that it may have.
        by_lzma: It is one of LZMA instead.
    Raises:
        UnreadableFile: It has more.
    """
    unpacking = lzma.LZMADecompressor() if by_lzma else zlib.decompressobj()
    if len(unpacking.decompress(content, size + 1)) > size:
        raise UnreadableFile(f"{name} has a part that unpacks to more than its {size} bytes")
