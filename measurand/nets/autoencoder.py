r"""A convolutional autoencoder: an image of any size, and a code of a quarter of its width.

    encoder   2x pixel-unshuffle, 3x3 convolution, residual blocks at half resolution; 3x3
              convolution with stride 2, residual blocks at a quarter; 3x3 convolution to the code
    decoder   3x3 convolution, residual blocks at a quarter of the resolution; 1x1 convolution and
              2x pixel-shuffle, residual blocks at half; 3x3 convolution and 2x pixel-shuffle
    linear    beside both, a map of blocks of 4 x 4 pixels to code values, and one back
    block     x + conv3x3(SiLU(conv3x3(x))); the second convolution starts at zero

The linear maps and the last convolutions of encoder and decoder start at zero; `initialize` sets
the maps to the principal components of blocks, so that training starts at the best linear code.

With c channels in the code the image has 48 / c times as many numbers as its code (colour). No
layer uses statistics of the whole image and there is no attention: a code value depends on the
pixels around it and a pixel on the code values around it (`reach`), so that a network trained on
crops computes the same on a full image, and a large image decoded in parts, each with a margin of
`reach`, is the image decoded at once.

References:
    | High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022)
    | arXiv:2112.10752
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .unet import extend, zero

__all__ = ["ConvAutoencoder"]

FACTOR = 4


class Residual(nn.Module):
    """One residual block: x + conv3x3(SiLU(conv3x3(x))).

    Args:
        channels: Channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        zero(self.second)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the block's output, with the shape of `x`."""
        return x + self.second(F.silu(self.first(x)))


class ConvAutoencoder(nn.Module):
    """An encoder E and a decoder D with D(E(x)) close to x, for images of any size.

    Args:
        channels: Channels of the image.
        code_channels: Channels of the code.
        widths: Channels at half and at a quarter of the resolution.
        encoder_blocks: Residual blocks of the encoder at half and at a quarter of the resolution.
        decoder_blocks: The same of the decoder.
    """

    factor = FACTOR

    def __init__(
        self,
        channels: int = 3,
        code_channels: int = 4,
        *,
        widths: Sequence[int] = (48, 96),
        encoder_blocks: Sequence[int] = (1, 2),
        decoder_blocks: Sequence[int] = (2, 2),
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "channels": channels,
            "code_channels": code_channels,
            "widths": list(widths),
            "encoder_blocks": list(encoder_blocks),
            "decoder_blocks": list(decoder_blocks),
        }
        self.channels, self.code_channels = channels, code_channels
        fine, coarse = widths
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(2),
            nn.Conv2d(4 * channels, fine, 3, padding=1),
            *(Residual(fine) for _ in range(encoder_blocks[0])),
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1),
            *(Residual(coarse) for _ in range(encoder_blocks[1])),
            nn.Conv2d(coarse, code_channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(code_channels, coarse, 3, padding=1),
            *(Residual(coarse) for _ in range(decoder_blocks[1])),
            nn.Conv2d(coarse, 4 * fine, 1),
            nn.PixelShuffle(2),
            *(Residual(fine) for _ in range(decoder_blocks[0])),
            nn.Conv2d(fine, 4 * channels, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.linear_code = nn.Conv2d(FACTOR**2 * channels, code_channels, 1)
        self.linear_image = nn.Conv2d(code_channels, FACTOR**2 * channels, 1)
        for layer in (self.linear_code, self.linear_image, self.encoder[-1], self.decoder[-2]):
            zero(layer)
        # in code values: all 3x3 layers at a quarter, and half of those at half the resolution
        self.reach = 1 + 2 * decoder_blocks[1] + -(-(1 + 2 * decoder_blocks[0]) // 2)

    def encode(self, x: Tensor) -> Tensor:
        """Returns the code E(x), with shape (B, code_channels, ceil(H / 4), ceil(W / 4)).

        Sizes that are no multiple of 4 are extended by reflection at the bottom and the right.

        Args:
            x: Image, with shape (B, channels, H, W).
        Raises:
            ValueError: The channels are not those of the network.
        """
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(
                f"ConvAutoencoder: got an image of shape {tuple(x.shape)}, wants "
                f"(B, {self.channels}, H, W)"
            )
        x = extend(x, FACTOR)
        return self.linear_code(F.pixel_unshuffle(x, FACTOR)) + self.encoder(x)

    def decode(self, z: Tensor) -> Tensor:
        """Returns the image D(z), with shape (B, channels, 4 h, 4 w).

        Args:
            z: Code, with shape (B, code_channels, h, w).
        Raises:
            ValueError: The channels are not those of a code.
        """
        if z.ndim != 4 or z.shape[1] != self.code_channels:
            raise ValueError(
                f"ConvAutoencoder: got a code of shape {tuple(z.shape)}, wants "
                f"(B, {self.code_channels}, h, w)"
            )
        return F.pixel_shuffle(self.linear_image(z), FACTOR) + self.decoder(z)

    def forward(self, x: Tensor) -> Tensor:
        """Returns D(E(x)), with the shape of `x`."""
        return self.decode(self.encode(x))[:, :, : x.shape[2], : x.shape[3]]

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Sets the linear maps to the principal components of images, codes of unit variance.

        Args:
            x: Images, with shape (B, channels, H, W), multiples of 4.
        """
        blocks = F.pixel_unshuffle(x, FACTOR).movedim(1, -1).flatten(0, -2).double()
        mean = blocks.mean(0)
        covariance = torch.cov(blocks.T)
        values, vectors = torch.linalg.eigh(covariance)
        basis = vectors[:, -self.code_channels :].flip(1)
        scale = values[-self.code_channels :].flip(0).clamp_min(1e-12).sqrt()
        code, image = (basis / scale).T, basis * scale
        assert self.linear_code.bias is not None and self.linear_image.bias is not None
        self.linear_code.weight.copy_(code[..., None, None])
        self.linear_code.bias.copy_(-(code @ mean))
        self.linear_image.weight.copy_(image[..., None, None])
        self.linear_image.bias.copy_(mean)
