"""The command that makes a picture larger: upscale."""

from dataclasses import dataclass
from typing import Literal

from ..jobs.arguments import twins
from .beside import Picture

__all__ = ["Upscale"]


@dataclass(frozen=True)
class Upscale(Picture):
    """Make a picture larger, with detail: photo.png becomes photo-upscaled.png.

    Each pixel of the picture is the mean of a block of pixels of the result, as a camera's pixels
    are; noise, prior and method are chosen, and printed.

    Args:
        factor: How many times larger each side becomes.
    """

    factor: Literal[2, 3, 4] = 2

    def __call__(self, command: list[str]) -> int:
        operator = twins()["block-average"](factor=self.factor)
        block = f"each pixel is the mean of {self.factor} x {self.factor} of the result"
        return self.restored(operator, command, ending="upscaled", remarks=[block])
