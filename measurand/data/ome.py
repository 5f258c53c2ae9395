"""The description of an OME-TIFF, a text in XML, for images that were made of its images.

Where an image has k times as many pixels, its pixels are k times smaller, and the regions of
interest, drawn in the old pixels, are left out. Of one plane of a stack, channel and planes that
are others are left out. What stands beside that is kept letter by letter.
"""

import re

from .grid import resized

__all__ = ["plane_of", "resized_description"]


def _element(name: bytes) -> bytes:
    """A pattern of an element, closed at once or later."""
    tag = rb"(?:\w+:)?" + name
    return rb"<%s\b(?:[^<>]*/>|[^<>]*[^<>/]?>.*?</%s>)" % (tag, tag)


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
