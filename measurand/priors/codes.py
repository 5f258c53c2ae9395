"""Latent priors around priors: another value range, grey images, a count; a code of pixels.

Each is a `Latent`: `CodedImages` makes a latent prior fit other images, `CountedLatent` counts how
often one is asked, `PixelCode` makes one of a denoiser of images.
"""

from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from ..tensors import convert_range
from .around import Around
from .brief import one_line
from .capabilities import Latent, Range
from .denoiser import CallableDenoiser

__all__ = ["CodedImages", "CountedLatent", "PixelCode"]


class CodedImages(nn.Module):
    """A latent prior for images of another range, or for grey ones as several equal channels.

    Args:
        prior: The latent prior.
        range: Lowest and highest value of the images outside.
        channels: Where these have one channel and those of the prior several, their number.
    """

    not_by_name: ClassVar[str] = "is put around a latent prior by itself, where images need it"

    def __init__(
        self, prior: Latent, range: Range = (-1.0, 1.0), *, channels: int | None = None
    ) -> None:
        super().__init__()
        if prior.range is None:
            raise ValueError(f"CodedImages: {type(prior).__name__} takes images of any range")
        self.prior, self.range, self.channels, self.inner = prior, range, channels, prior.range
        self.k = (self.inner[1] - self.inner[0]) / (range[1] - range[0])

    @property
    def dtype(self) -> torch.dtype:
        """Kind of the images."""
        return self.prior.dtype

    @property
    def factor(self) -> int:
        """Pixels per code value along an axis."""
        return self.prior.factor

    @property
    def error(self) -> float:
        """Root mean square of x - D(E(x)) over images, in units of the images outside."""
        return self.prior.error / self.k

    def encode(self, x: Tensor) -> Tensor:
        """The code of an image."""
        if self.channels is not None:
            if x.shape[1] != 1:
                raise ValueError(f"CodedImages: got images with {x.shape[1]} channels, wanted 1")
            x = x.expand(-1, self.channels, *x.shape[2:])
        return self.prior.encode(convert_range(x, self.range, self.inner))

    def decode(self, z: Tensor) -> Tensor:
        """The image of a code; of a grey one the mean of its channels."""
        x = convert_range(self.prior.decode(z), self.inner, self.range)
        return x.mean(1, keepdim=True) if self.channels is not None else x

    def denoise_code(self, z: Tensor, sigma: float | Tensor) -> Tensor:
        """The denoised code; codes are those of the prior."""
        return self.prior.denoise_code(z, sigma)

    def code_noise(self, sigma: float | Tensor) -> float | Tensor:
        """The noise of the code of a noisy image; of a grey one all channels have the same."""
        return self.prior.code_noise(sigma * self.k)

    __repr__ = one_line

    def extra_repr(self) -> str:
        return f"range={self.range}, channels={self.channels}"

    @classmethod
    def example(cls) -> Self:
        """A tiny instance for images of shape (1, 8, 8), on which the laws are tested."""
        return cls(PixelCode.example(), (0.0, 1.0))


class CountedLatent(Around):
    """A latent prior that counts how often it denoises a code.

    Args:
        prior: What has `denoise_code`.
    Attributes:
        calls: Number of calls of `denoise_code` so far.
        items: Number of codes denoised so far.
    """

    not_by_name: ClassVar[str] = (
        "counts the calls of another prior, which every run does by itself"
    )

    def __init__(self, prior: Latent) -> None:
        super().__init__(prior)
        self.calls = self.items = 0

    @property
    def factor(self) -> int:
        """Pixels per code value along an axis."""
        return self.prior.factor

    @property
    def error(self) -> float:
        """Root mean square of what a code cannot hold, in image units."""
        return self.prior.error

    def code_noise(self, sigma: float | Tensor) -> float | Tensor:
        """The noise of the code of a noisy image."""
        return self.prior.code_noise(sigma)

    def encode(self, x: Tensor) -> Tensor:
        """The code of an image."""
        return self.prior.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """The image of a code."""
        return self.prior.decode(z)

    def denoise_code(self, z: Tensor, sigma: float | Tensor) -> Tensor:
        """The prior's estimate, counted."""
        self.calls, self.items = self.calls + 1, self.items + len(z)
        return self.prior.denoise_code(z, sigma)

    @classmethod
    def example(cls) -> Self:
        """A tiny instance for images of shape (1, 8, 8), on which the laws are tested."""
        return cls(PixelCode.example())


class PixelCode(Around):
    """A denoiser of images as a latent prior whose code is the image itself: D = E = identity.

    Args:
        prior: A denoiser.
    """

    not_by_name: ClassVar[str] = "is made of a denoiser of images: use it in Python"

    factor = 1
    error = 0.0

    def encode(self, x: Tensor) -> Tensor:
        """The image."""
        return x

    def decode(self, z: Tensor) -> Tensor:
        """The image."""
        return z

    def denoise_code(self, z: Tensor, sigma: float | Tensor) -> Tensor:
        """The denoised image."""
        return self.prior.denoise(z, sigma)

    def code_noise(self, sigma: float | Tensor) -> float | Tensor:
        """Sigma."""
        return sigma

    @classmethod
    def example(cls) -> Self:
        """A tiny instance for images of shape (1, 8, 8), on which the laws are tested."""
        return cls(CallableDenoiser.example())
