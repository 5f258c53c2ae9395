"""The description of an OME-TIFF, a text in XML, for images that were made of its images.

Where an image has k times as many pixels, its pixels are k times smaller, and the regions of
interest, drawn in the old pixels, are left out. Of one plane of a stack, channel and planes that
are others are left out. What stands beside that is kept letter by letter.
"""

import html
import re

from .grid import resized

__all__ = ["alone", "elsewhere", "plane_of", "resized_description"]


_AXES = (b"Z", b"C", b"T")


def _element(name: bytes) -> bytes:
    """A pattern of an element, closed at once or later."""
    tag = rb"(?:\w+:)?" + name
    return rb"<%s\b(?:[^<>]*/>|[^<>]*[^<>/]?>.*?</%s>)" % (tag, tag)


def elsewhere(told: bytes, own: str, count: int) -> str:
    """Return a sentence on the planes of a stack that are not in this file; empty if all are.

    A stack of several files has its description, of all of them, in each. A TiffData with the
    UUID of another file is a plane of that one.

    Args:
        told: The description.
        own: Name of the file.
        count: Images in it.
    """
    if b"BinaryOnly" in told:
        name = re.search(rb'MetadataFile="([^"]*)"', told)
        where = html.unescape(name[1].decode(errors="replace")) if name else "another file"
        return (
            f"one of several files of an OME stack that {where} describes: only this one is read"
        )
    others = _others(told, own)
    sizes = [
        [int(size[1]) if (size := re.search(rb' Size%s="(\d+)"' % a, p[0])) else 1 for a in _AXES]
        for p in re.finditer(rb"<(?:\w+:)?Pixels\b[^>]*>", told)
    ]
    samples = [int(n) for n in re.findall(rb'SamplesPerPixel="(\d+)"', told)]
    per = max(samples, default=1)
    planes = sum(z * t * max(1, c // per) for z, c, t in sizes)
    if not others and planes <= count:
        return ""
    more = f" and {len(others) - 3} more files" if others[3:] else ""
    where = f"others are in {', '.join(others[:3])}{more}" if others else "it is not complete"
    return (
        f"its OME description is of {planes} planes, of which this file holds {count} and no "
        f"other is read; {where}"
    )


def alone(told: bytes, own: str, count: int) -> bytes | None:
    """Return a description without the name of its file; None where planes are elsewhere."""
    if elsewhere(told, own, count):
        return None
    return re.sub(_element(b"UUID"), b"", told, flags=re.S)


def _others(told: bytes, own: str) -> list[str]:
    """The names of other files that a description has planes in."""
    root = re.search(rb'<(?:\w+:)?OME\b[^>]* UUID="([^"]*)"', told)
    found: dict[str, None] = {}
    for name, uuid in re.findall(rb'<(?:\w+:)?UUID\b[^>]*FileName="([^"]*)"[^>]*>([^<]*)<', told):
        shown = html.unescape(name.decode(errors="replace"))
        if uuid.strip() != root[1].strip() if root else shown != own:
            found[shown] = None
    return list(found)


def resized_description(told: bytes, before: tuple[int, int], after: tuple[int, int]) -> bytes:
    """Return the description of images of another size that cover the same ground.

    Args:
        told: That of the file.
        before: Height and width of its images.
        after: Height and width now.
    """
    if before == after:
        return told
    told = re.sub(rb"%s|<(\w+:)?ROIRef\b[^>]*/>" % _element(b"ROI"), b"", told, flags=re.S)
    for axis, old, new in ((b"Y", before[0], after[0]), (b"X", before[1], after[1])):
        factor = resized(old, new)[0]

        def smaller(match: re.Match[bytes], factor: float = factor) -> bytes:
            return match[1] + repr(float(match[2]) * factor).encode() + b'"'

        told = re.sub(rb'( Size%s=")\d+"' % axis, rb'\g<1>%d"' % new, told)
        told = re.sub(rb'( PhysicalSize%s=")([^"]+)"' % axis, smaller, told)
    return told


def plane_of(told: bytes, image: int, channel: int, samples: int) -> bytes:
    """Return the description of one plane of a stack.

    Args:
        told: That of the file.
        image: Which of its images the plane is of.
        channel: Which of the channels.
        samples: Samples of a pixel: 3 of colours.
    """
    told = _only(told, b"Image", image)
    told = _only(told, b"Channel", channel)
    told = re.sub(_element(b"Plane"), b"", told, flags=re.S)
    told = re.sub(rb'( Size[ZT]=")\d+"', rb'\g<1>1"', told)
    told = re.sub(rb'( SizeC=")\d+"', rb'\g<1>%d"' % samples, told)
    data = re.search(_element(b"TiffData"), told, flags=re.S)
    if data is None:
        return told
    name = re.match(rb"<((?:\w+:)?TiffData)", data[0])
    assert name is not None
    head, rest = told[: data.start()], told[data.end() :]
    rest = re.sub(_element(b"TiffData"), b"", rest, flags=re.S)
    return head + b'<%s IFD="0" PlaneCount="1"/>' % name[1] + rest


def _only(told: bytes, name: bytes, wanted: int) -> bytes:
    """A description with one of the elements of a name; with all where it has fewer."""
    found = list(re.finditer(_element(name), told, flags=re.S))
    if wanted >= len(found):
        return told
    for k, match in reversed(list(enumerate(found))):
        if k != wanted:
            told = told[: match.start()] + told[match.end() :]
    return told
