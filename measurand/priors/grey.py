r"""Grey images by a prior of colour images.

A grey image x is a colour image with three equal channels. With `u` the channel mean of a colour
image and n white noise of level `s` in each channel, the mean of the three noises has level
`s / sqrt(3)`, and it is all that the data say about a grey image: the differences between channels
are noise. A grey image `v = x + sigma n` therefore belongs to the colour level `sqrt(C) sigma`,

    D_grey(v, sigma) = mean over channels of D(v repeated C times, sqrt(C) sigma),

with the differences between channels, which carry nothing, set to zero. This is exact where the
prior's images are grey. Told `sigma` only, the network takes most of the grey noise for image.
"""

import math
from typing import ClassVar, Self

from torch import Tensor

from .around import Around
from .capabilities import Denoiser
from .denoiser import CallableDenoiser

__all__ = ["Grey"]


class Grey(Around):
    """A denoiser of one-channel images made of one of colour images.

    Args:
        prior: The denoiser of images with several channels.
        channels: Their number.
    """

    not_by_name: ClassVar[str] = (
        "is put around a prior of colour by itself, where an image is grey"
    )

    def __init__(self, prior: Denoiser, channels: int = 3) -> None:
        super().__init__(prior)
        self.channels = channels

    def denoise(self, v: Tensor, sigma: float | Tensor, condition: Tensor | None = None) -> Tensor:
        """The estimate `E[x | v = x + sigma n]`, with shape (B, 1, ...)."""
        if v.shape[1] != 1:
            raise ValueError(f"Grey: got images with {v.shape[1]} channels, wanted 1")
        wide = v.expand(-1, self.channels, *v.shape[2:]).contiguous()
        level = math.sqrt(self.channels) * sigma
        return self.prior.denoise(wide, level, condition).mean(1, keepdim=True)

    forward = denoise

    def extra_repr(self) -> str:
        return f"channels={self.channels}"

    @classmethod
    def example(cls) -> Self:
        """A tiny instance for images of shape (1, 8, 8), on which the laws are tested."""
        return cls(CallableDenoiser.example())
