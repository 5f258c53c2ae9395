"""The command that takes a blur out of a picture: deblur."""

import math
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from ..jobs.arguments import twins
from .beside import Picture

__all__ = ["Deblur"]

Motion = Annotated[str | None, tyro.conf.arg(metavar="LENGTH:DEGREES")]


@dataclass(frozen=True)
class Deblur(Picture):
    """Take a known blur out of a picture: photo.png becomes photo-deblurred.png.

    Say the blur by one of --psf, --defocus, --gaussian and --motion. The scene goes on beyond the
    frame, as a camera sees it; noise, prior and method are chosen, and printed.

    Args:
        psf: Picture or array of the point spread function; a measured one loses its background.
        defocus: Radius of the disk that a lens out of focus makes of a point, in pixels.
        gaussian: Standard deviation of a Gaussian, in pixels.
        motion: Length of a straight motion, in pixels, and its direction, in degrees
            counter-clockwise from the right: 12:30.
    """

    psf: str | None = None
    defocus: float | None = None
    gaussian: float | None = None
    motion: Motion = None

    def __call__(self, command: list[str]) -> int:
        edges = "boundary: the scene goes on beyond the frame, as a camera sees it"
        return self.restored(self._operator(), command, ending="deblurred", remarks=[edges])

    def _operator(self) -> Any:
        """The blur, as an operator of the command line."""
        ways = {
            "--psf": self.psf,
            "--defocus": self.defocus,
            "--gaussian": self.gaussian,
            "--motion": self.motion,
        }
        said = [name for name, value in ways.items() if value is not None]
        if len(said) != 1:
            raise ValueError(f"deblur: got {' and '.join(said) or 'none'} of {', '.join(ways)}; "
                             "wanted one, which says what the blur is")  # fmt: skip
        for name in ("defocus", "gaussian"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"--{name}: got {value:g}, wanted a positive number of pixels")
        if self.gaussian is not None:
            return twins()["gaussian-blur"](sigma=self.gaussian)
        if self.motion is not None:
            length, angle = _motion(self.motion)
            return twins()["motion-blur"](length=length, angle=angle)
        return twins()["blur"](kernel=self.psf or f"disk_kernel:{self.defocus}")


def _motion(text: str) -> tuple[float, float]:
    """Length in pixels and angle in radians, from words such as 12:30."""
    try:
        length, degrees = map(float, text.split(":"))
    except ValueError as error:
        raise ValueError(
            f"--motion: got '{text}', wanted LENGTH:DEGREES, such as 12:30"
        ) from error
    if not (0 < length < math.inf and math.isfinite(degrees)):
        raise ValueError(f"--motion: got '{text}', wanted a positive length and a finite angle")
    return length, math.radians(degrees)
