"""The command that takes a blur out of a picture: deblur."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from ..jobs.arguments import twins
from ..jobs.reading import Reading
from ..jobs.reconstruction import Reconstruction
from .beside import restored_beside
from .shared import File

__all__ = ["Deblur"]

Motion = Annotated[str | None, tyro.conf.arg(metavar="LENGTH:DEGREES")]


@dataclass(frozen=True)
class Deblur:
    """Take a known blur out of a picture: photo.png becomes photo-deblurred.png.

    Say the blur by one of --psf, --defocus, --gaussian and --motion. The scene goes on beyond the
    frame, as a camera sees it; noise, prior and method are chosen, and printed.

    Args:
        file: The picture: PNG, JPEG, TIFF, BMP, WebP, PGM, PPM or .npy.
        psf: Picture or array of the point spread function; a measured one loses its background.
        defocus: Radius of the disk that a lens out of focus makes of a point, in pixels.
        gaussian: Standard deviation of a Gaussian, in pixels.
        motion: Length of a straight motion, in pixels, and its direction, in degrees
            counter-clockwise from the right: 12:30.
        sigma: Noise standard deviation, in units of the image scaled to [-1, 1] (s grey levels of
            255 are 2 s / 255); estimated from the picture when absent.
        prior: A prior that ships, a weight file, or total-variation; the best when absent.
        out: Folder for all results, as `reconstruct` writes them, instead of the picture.
        value_range: Samples that mean black and white, for floating-point files.
        device: cpu, cuda, or auto.
        quiet: Print nothing but errors.
        json: Print the record, as JSON.
    """

    file: Positional[File]
    psf: str | None = None
    defocus: float | None = None
    gaussian: float | None = None
    motion: Motion = None
    sigma: float | None = None
    prior: str | None = None
    out: Path | None = None
    value_range: tuple[float, float] | None = None
    device: str = "auto"
    quiet: bool = False
    json: bool = False

    def __call__(self, command: list[str]) -> int:
        how = Reconstruction(
            self._operator(),
            reading=Reading(self.sigma, self.value_range),
            prior=self.prior,
            device=self.device,
        )
        return restored_beside(
            how,
            self.file,
            command,
            ending="deblurred",
            remarks=["boundary: the scene goes on beyond the frame, as a camera sees it"],
            out=self.out,
            quiet=self.quiet,
            as_json=self.json,
        )

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
