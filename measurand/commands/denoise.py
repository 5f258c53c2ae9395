"""The command that takes noise out of a picture: denoise."""

from dataclasses import dataclass

from ..jobs.arguments import twins
from .beside import Picture

__all__ = ["Denoise"]


@dataclass(frozen=True)
class Denoise(Picture):
    """Take the noise out of a picture: photo.png becomes photo-denoised.png.

    The noise is white and Gaussian, of one level everywhere; level, prior and method are chosen,
    and printed.
    """

    def __call__(self, command: list[str]) -> int:
        return self.restored(twins()["identity"](), command, ending="denoised")
