"""The command that takes noise out of a picture: denoise."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from ..jobs.arguments import twins
from ..jobs.reading import Reading
from ..jobs.reconstruction import Reconstruction
from .beside import restored_beside
from .shared import File

__all__ = ["Denoise"]


@dataclass(frozen=True)
class Denoise:
    """Take the noise out of a picture: photo.png becomes photo-denoised.png.

    The noise is white and Gaussian, of one level everywhere; level, prior and method are chosen,
    and printed.

    Args:
        file: The picture: PNG, JPEG, TIFF, BMP, WebP, PGM, PPM or .npy.
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
    sigma: float | None = None
    prior: str | None = None
    out: Path | None = None
    value_range: tuple[float, float] | None = None
    device: str = "auto"
    quiet: bool = False
    json: bool = False

    def __call__(self, command: list[str]) -> int:
        how = Reconstruction(
            twins()["identity"](),
            reading=Reading(self.sigma, self.value_range),
            prior=self.prior,
            device=self.device,
        )
        return restored_beside(
            how,
            self.file,
            command,
            ending="denoised",
            out=self.out,
            quiet=self.quiet,
            as_json=self.json,
        )
