r"""A convolutional U-Net without normalisation, and the embedding of a noise level.

The network is a plain function F(x, c): an image of any size and one number per item (for a
denoiser c = ln(sigma) / 4) give an image of the same size. It knows no noise model and no physics.

    stem    2x pixel-unshuffle (optional) and a 3x3 convolution: the finest level works at half
            resolution, which is 1.7 times faster than full resolution for almost the same quality;
            a condition has a convolution of its own, added to it: the weights of image and
            condition side by side, so that with zeros for the condition the network is the one
            without it, bit for bit
    block   x + conv3x3(SiLU(FiLM(conv3x3(x), c))); the second convolution starts at zero, so that
            every block starts as the identity and no normalisation is needed
    down    3x3 convolution with stride 2;   up: 1x1 convolution and a 2x pixel-shuffle
    skip    the level's encoder output is concatenated to what comes from below and merged by a
            1x1 convolution
    head    3x3 convolution, starts at zero, and the inverse pixel-shuffle

FiLM(h, c) = h (1 + a(c)) + b(c) per channel, where a and b are affine in an embedding of c:
Fourier features cos(2 pi f c), sin(2 pi f c), then one hidden layer.

No layer uses statistics of the whole image, so a network trained on 64-pixel crops computes the
same local function on a full image. Sizes that are no multiple of the coarsest pixel are extended
by reflection at the right and the bottom inside `forward`, and cropped after.

References:
    | U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger et al., 2015)
    | arXiv:1505.04597
    | FiLM: Visual Reasoning with a General Conditioning Layer (Perez et al., 2018)
    | arXiv:1709.07871
    | Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional
      Neural Network (Shi et al., 2016), arXiv:1609.05158
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ConvUNet"]


class FourierEmbedding(nn.Module):
    """Embeds one number per item: Fourier features followed by one hidden layer.

    Args:
        features: Size of the embedding.
        frequencies: Number of frequencies, spaced geometrically.
        low: Lowest frequency, in periods per unit of the number.
        high: Highest frequency.
    """

    def __init__(
        self, features: int, frequencies: int = 32, low: float = 0.1, high: float = 4.0
    ) -> None:
        super().__init__()
        self.span = math.log(low), math.log(high)
        self.index: Tensor
        # whole numbers: a network in bfloat16 keeps the frequencies that it was trained with
        index = torch.tensor(range(frequencies))  # `arange` on the meta device imports sympy
        self.register_buffer("index", index, persistent=False)
        self.hidden = nn.Linear(2 * frequencies, features)

    def forward(self, c: Tensor) -> Tensor:
        """Returns the embedding of `c`, with shape (B, features)."""
        first, last = self.span
        share = self.index.to(torch.float32) / max(1, len(self.index) - 1)
        phase = 2 * math.pi * (first + (last - first) * share).exp() * c.float()[:, None]
        waves = torch.cat((phase.cos(), phase.sin()), dim=1)
        return F.silu(exact(self.hidden, waves))


class Block(nn.Module):
    """One residual block: x + conv3x3(SiLU(FiLM(conv3x3(x), e))).

    Args:
        channels: Channels in and out.
        features: Size of the embedding e.
    """

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.film = nn.Linear(features, 2 * channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        zero(self.film)
        zero(self.second)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Returns the block's output, with the shape of `x`."""
        y = self.first(x)
        a, b = exact(self.film, e)[:, :, None, None].chunk(2, dim=1)
        return x + self.second(F.silu(torch.addcmul(b.to(y.dtype), y, (1 + a).to(y.dtype))))


class Attention(nn.Module):
    """Residual self-attention over all pixels of a level, for small images only.

    Args:
        channels: Channels in and out; each head has the largest power of two, up to 32, that
            divides them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.head = math.gcd(channels, 32)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        zero(self.out)

    def forward(self, x: Tensor) -> Tensor:
        """Returns x + attention(x), with the shape of `x`."""
        b, c, h, w = x.shape
        qkv = self.qkv(x).reshape(b, 3, c // self.head, self.head, h * w).transpose(3, 4)
        q, k, v = qkv.unbind(1)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        y = F.scaled_dot_product_attention(q, k, v, scale=math.sqrt(self.head))
        return x + self.out(y.transpose(2, 3).reshape(b, c, h, w))


class ConvUNet(nn.Module):
    """A convolutional U-Net F(x, c) for images of any size.

    Sizes used by the recipes: S (64, 96, 128), M (64, 128, 160), L (96, 192, 256).

    Args:
        in_channels: Channels of the image.
        out_channels: Channels of the output; those of the image when None.
        widths: Channels of each level, finest first.
        blocks: Residual blocks per level and side.
        stem: Pixel-unshuffle factor in front of the finest level; 1 works at full resolution.
        condition_channels: Channels of an image-like condition, which the stem sees as well.
        attention: Levels that also attend over all pixels, 0 the finest. Costs the square of the
            number of pixels there.
        features: Size of the embedding of c.
    """

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int | None = None,
        *,
        widths: Sequence[int] = (64, 128, 160),
        blocks: int = 2,
        stem: int = 2,
        condition_channels: int = 0,
        attention: Sequence[int] = (),
        features: int = 256,
    ) -> None:
        super().__init__()
        out_channels = in_channels if out_channels is None else out_channels
        self.config: dict[str, Any] = {
            "in_channels": in_channels,
            "out_channels": out_channels,
            "widths": list(widths),
            "blocks": blocks,
            "stem": stem,
            "condition_channels": condition_channels,
            "attention": list(attention),
            "features": features,
        }
        self.in_channels, self.condition_channels = in_channels, condition_channels
        self.multiple = stem * 2 ** (len(widths) - 1)
        self.embedding = FourierEmbedding(features)
        self.unshuffle, self.shuffle = nn.PixelUnshuffle(stem), nn.PixelShuffle(stem)
        self.stem = nn.Conv2d(in_channels * stem**2, widths[0], 3, padding=1)
        self.head = nn.Conv2d(widths[0], out_channels * stem**2, 3, padding=1)
        zero(self.head)

        def level(i: int) -> nn.ModuleList:
            layers: list[nn.Module] = []
            for _ in range(blocks):
                layers.append(Block(widths[i], features))
                if i in attention:
                    layers.append(Attention(widths[i]))
            return nn.ModuleList(layers)

        steps = list(zip(widths[:-1], widths[1:], strict=True))
        self.encoder = nn.ModuleList(level(i) for i in range(len(widths)))
        self.decoder = nn.ModuleList(level(i) for i in range(len(widths)))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in steps)
        self.up = nn.ModuleList(
            nn.Sequential(nn.Conv2d(b, 4 * a, 1), nn.PixelShuffle(2)) for a, b in steps
        )
        self.merge = nn.ModuleList(nn.Conv2d(2 * a, a, 1) for a, _ in steps)
        if condition_channels:
            seen = condition_channels * stem**2
            self.condition_stem = nn.Conv2d(seen, widths[0], 3, padding=1, bias=False)

    def forward(self, x: Tensor, c: Tensor, condition: Tensor | None = None) -> Tensor:
        """Returns F(x, c).

        Args:
            x: Image, with shape (B, in_channels, H, W), any H and W.
            c: One number per item, with shape (B,) or (1,).
            condition: Further channels the network may see, (1 or B, condition_channels, H, W).
        Returns:
            The output, with shape (B, out_channels, H, W).
        Raises:
            ValueError: The channels are not those of the network, or the condition has another
                height or width than the image.
        """
        given = 0 if condition is None else condition.shape[1]
        if x.shape[1] != self.in_channels or given != self.condition_channels:
            raise ValueError(
                f"ConvUNet: got {x.shape[1]} image and {given} condition channels, wants "
                f"{self.in_channels} and {self.condition_channels}"
            )
        if condition is not None and condition.shape[2:] != x.shape[2:]:
            raise ValueError(
                f"ConvUNet: got an image of {tuple(x.shape[2:])} pixels with a condition of "
                f"{tuple(condition.shape[2:])}, wants the same"
            )
        height, width = x.shape[2:]
        e = self.embedding(c)
        x = self.stem(self.unshuffle(extend(x, self.multiple)))
        if condition is not None:
            x = x + self.condition_stem(self.unshuffle(extend(condition, self.multiple)))
        skips = []
        for i, layers in enumerate(self.encoder):
            x = x if i == 0 else self.down[i - 1](x)
            x = run(layers, x, e)
            skips.append(x)
        x = run(self.decoder[-1], x, e)
        for i in reversed(range(len(self.up))):
            x = self.merge[i](torch.cat((self.up[i](x), skips[i]), dim=1))
            x = run(self.decoder[i], x, e)
        return self.shuffle(self.head(x))[:, :, :height, :width]


def exact(layer: nn.Linear, x: Tensor) -> Tensor:
    """Returns `layer(x)` in float32 or better, whatever the precision of its weights.

    What a noise level is turned into acts on all pixels alike: rounded to bfloat16 it would change
    an answer by a thousandth that jumps from level to level, which is much where little noise is
    left. What reaches the pixels of a bfloat16 network is rounded once, channel by channel, where
    errors average out.
    """
    dtype = torch.promote_types(layer.weight.dtype, torch.float32)
    weight, bias = layer.weight.to(dtype), layer.bias.to(dtype)
    if not torch.is_autocast_enabled(x.device.type):  # nothing that an export would have to keep
        return F.linear(x.to(dtype), weight, bias)
    with torch.autocast(x.device.type, enabled=False):
        return F.linear(x.to(dtype), weight, bias)


def zero(layer: nn.Module) -> None:
    """Sets the parameters of a layer to zero."""
    for p in layer.parameters():
        nn.init.zeros_(p)


def run(layers: nn.Module, x: Tensor, e: Tensor) -> Tensor:
    """Returns `x` after the blocks of one level; only residual blocks see the embedding."""
    for layer in layers.children():
        x = layer(x, e) if isinstance(layer, Block) else layer(x)
    return x


def extend(x: Tensor, multiple: int) -> Tensor:
    """Returns `x` extended at the bottom and the right, by reflection, to multiples of a size.

    The reflection does not repeat the edge pixel and folds as often as it has to, so that also
    images smaller than the extension work; a single row or column is repeated.
    """
    for dim in (2, 3):
        n = x.shape[dim]
        if missing := -n % multiple:
            period = max(2 * (n - 1), 1)
            i = torch.arange(n + missing, device=x.device) % period
            x = x.index_select(dim, torch.minimum(i, period - i) if n > 1 else i)
    return x
