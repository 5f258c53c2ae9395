r"""GLOW: an invertible network between images and latents, with its log-determinant.

    f: x -> (z_1, ..., z_L),    g = f^-1,    log |det df/dx|,

so that z ~ N(0, I) gives x an explicit density. Each of L levels gathers 2x2 pixels into channels,
takes K steps, and splits half of the channels off as z_l (the last level keeps all of them). A
step is three invertible maps, written with c channels, h x w pixels:

    ActNorm    y = (x + b) e^s per channel                                 log det = h w sum(s)
    Mix        y = W x, W = P L (U + diag(sign e^d)), P and sign fixed     log det = h w sum(d)
    Coupling   y = (a, (b + t) e^s), x = (a, b), (s, t) = F(a)             log det = sum(s)

with F a small convolutional network that ends in zeros, so that every coupling starts as the
identity. Latents are standardised: with a split prior of mean m and log standard deviation s, both
from a convolution of the channels that go on, z_l = (x - m) e^-s; the last level has an ActNorm in
its place.

A flow is exactly invertible only in arithmetic that is: `forward` and `inverse` switch autocast
off. W is applied as a matrix product, not as a convolution, because processors that shorten the
mantissa of convolutions leave products alone.

`initialize` sets every ActNorm from a batch so that its output has mean 0 and variance 1 per
channel. It acts once; that it did is stored with the weights.

Deviations. The log-scale of a coupling is bounded, `2 tanh(raw / 2)`, and that of a split prior,
`4 tanh(raw / 4)` (paper: sigmoid, and unbounded), because the flow is also asked about images far
from its data; the 1x1 convolution is always in LU form.

References:
    | Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma & Dhariwal, 2018)
    | arXiv:1807.03039
    | Density estimation using Real NVP (Dinh et al., 2017), arXiv:1605.08803
"""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Glow"]


class ActNorm(nn.Module):
    """An affine map per channel, `y = (x + bias) exp(log_scale)`.

    Args:
        channels: Channels in and out.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))
        self.log_scale = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y and the log-determinant, which all items share."""
        y = (x + channelwise(self.bias)) * channelwise(self.log_scale.exp())
        return y, x.shape[2] * x.shape[3] * self.log_scale.sum()

    def inverse(self, y: Tensor) -> Tensor:
        """Returns x."""
        return y * channelwise(torch.exp(-self.log_scale)) - channelwise(self.bias)

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Chooses the map that standardises each channel of a batch."""
        sd, mean = torch.std_mean(x, dim=(0, 2, 3), correction=0)
        self.bias.copy_(-mean)
        # a channel without contrast (a blank border) must not become a magnifying glass
        self.log_scale.copy_(-sd.clamp_min(1e-3).log())


class Mix(nn.Module):
    """An invertible 1x1 convolution, `y = W x` at every pixel, starting at a random rotation.

    Args:
        channels: Channels in and out.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(diagonal.abs().log())

    def weight(self) -> Tensor:
        """Returns W = P L U, (c, c), in the precision of the weights."""
        lower, upper = self.lower.double(), self.upper.double()
        eye = torch.eye(len(lower), dtype=lower.dtype, device=lower.device)
        diagonal = torch.diag(self.sign.double() * self.log_diagonal.double().exp())
        w = self.permutation.double() @ (lower.tril(-1) + eye) @ (upper.triu(1) + diagonal)
        return w.to(self.lower)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y and the log-determinant, which all items share."""
        return times(self.weight(), x), x.shape[2] * x.shape[3] * self.log_diagonal.sum()

    def inverse(self, y: Tensor) -> Tensor:
        """Returns x."""
        # of the rounded W, in float64: a rounding that is not in both grows with their condition
        return times(torch.linalg.inv(self.weight().double()).to(y), y)


class ZeroConv(nn.Conv2d):
    """A 3x3 convolution that starts at zero, times a learned scale per channel."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        self.log_scale = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the convolution."""
        return super().forward(x) * channelwise(self.log_scale.exp())


class Coupling(nn.Module):
    """Half of the channels, shifted and scaled as the other half says.

    Args:
        channels: Channels in and out, an even number.
        hidden: Channels inside the network that says it.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(channels // 2, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(),
            ZeroConv(hidden, channels),
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns y and the log-determinant of each item, (B,)."""
        a, b = x.chunk(2, dim=1)
        s, t = self.net(a).chunk(2, dim=1)
        s = bounded(s, 2)
        return torch.cat((a, (b + t) * s.exp()), dim=1), s.flatten(1).sum(1)

    def inverse(self, y: Tensor) -> Tensor:
        """Returns x."""
        a, b = y.chunk(2, dim=1)
        s, t = self.net(a).chunk(2, dim=1)
        return torch.cat((a, b * torch.exp(-bounded(s, 2)) - t), dim=1)


class Split(nn.Module):
    """Half of the channels go on; the others become latents, standardised by what goes on.

    Args:
        channels: Channels in, an even number.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.prior = ZeroConv(channels // 2, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns what goes on, the latents, and the log-determinant of each item, (B,)."""
        rest, x = x.chunk(2, dim=1)
        mean, s = self.prior(rest).chunk(2, dim=1)
        s = bounded(s, 4)
        return rest, (x - mean) * torch.exp(-s), -s.flatten(1).sum(1)

    def inverse(self, rest: Tensor, z: Tensor) -> Tensor:
        """Returns all channels."""
        mean, s = self.prior(rest).chunk(2, dim=1)
        return torch.cat((rest, z * bounded(s, 4).exp() + mean), dim=1)


class Glow(nn.Module):
    """The flow f between images and standardised latents.

    Args:
        channels: Channels of the image.
        levels: Levels L; height and width are multiples of 2^L.
        steps: Flow steps K of each level.
        hidden: Channels inside a coupling's network.
    """

    initialized: Tensor

    def __init__(
        self, channels: int = 3, *, levels: int = 3, steps: int = 8, hidden: int = 128
    ) -> None:
        super().__init__()
        self.config: dict[str, Any] = {
            "channels": channels,
            "levels": levels,
            "steps": steps,
            "hidden": hidden,
        }
        if not 1 <= levels <= 16:  # images of 65,536 pixels
            raise ValueError(f"Glow: got {levels} levels, wanted 1 to 16")
        self.channels, self.multiple = channels, 2**levels
        self.register_buffer("initialized", torch.tensor(False))
        widths = [channels * 2 ** (i + 2) for i in range(levels)]
        self.levels = nn.ModuleList(
            nn.ModuleList(
                layer for _ in range(steps) for layer in (ActNorm(c), Mix(c), Coupling(c, hidden))
            )
            for c in widths
        )
        self.splits = nn.ModuleList(Split(c) for c in widths[:-1])
        self.top = ActNorm(widths[-1])

    @classmethod
    def tiny(cls, channels: int = 3) -> Self:
        """Returns a flow for tests: 0.04 million weights for colour."""
        return cls(channels, levels=2, steps=2, hidden=32)

    @classmethod
    def small(cls, channels: int = 3) -> Self:
        """Returns a flow for images of 32 to 64 pixels: 1.6 million weights for colour."""
        return cls(channels, levels=3, steps=8, hidden=128)

    @classmethod
    def base(cls, channels: int = 3) -> Self:
        """Returns a flow for images of 64 pixels: 5.9 million weights for colour."""
        return cls(channels, levels=3, steps=12, hidden=256)

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Returns the latents of an image and log |det df/dx|.

        Args:
            x: Image, with shape (B, channels, H, W), H and W multiples of 2^levels.
        Returns:
            The latents of each level, finest first, in the shapes of `latent_shapes`, and the
            log-determinant of each item, with shape (B,).
        Raises:
            ValueError: The image has another shape.
        """
        self.latent_shapes(tuple(x.shape[1:]))
        with torch.autocast(x.device.type, enabled=False):
            latents, logdet = [], x.new_zeros(len(x))
            for i, layers in enumerate(self.levels):
                x = F.pixel_unshuffle(x, 2)
                for layer in layers.children():
                    x, more = layer(x)
                    logdet = logdet + more
                if i < len(self.splits):
                    x, z, more = self.splits[i](x)
                    latents.append(z)
                    logdet = logdet + more
            x, more = self.top(x)
            return [*latents, x], logdet + more

    def inverse(self, latents: Sequence[Tensor]) -> Tensor:
        """Returns the image of latents.

        Args:
            latents: One tensor per level, finest first.
        Returns:
            The image, with shape (B, channels, H, W).
        """
        with torch.autocast(latents[0].device.type, enabled=False):
            x = self.top.inverse(latents[-1])
            for i in reversed(range(len(self.levels))):
                if i < len(self.splits):
                    split: Any = self.splits[i]
                    x = split.inverse(x, latents[i])
                layers: Any = self.levels[i]
                for layer in reversed(layers):
                    x = layer.inverse(x)
                x = F.pixel_shuffle(x, 2)
            return x

    def latent_shapes(self, shape: Sequence[int]) -> list[tuple[int, int, int]]:
        """Returns the shape of each level's latents, without the batch.

        Args:
            shape: Shape of one image, (C, H, W).
        Raises:
            ValueError: The flow takes no image of this shape.
        """
        fits = len(shape) == 3 and shape[0] == self.channels
        if not fits or shape[1] % self.multiple or shape[2] % self.multiple:
            raise ValueError(
                f"Glow: got an image of shape {tuple(shape)}, wants ({self.channels}, H, W) with "
                f"H and W multiples of {self.multiple}"
            )
        c, h, w = shape
        shapes = [(c * 2 ** (i + 1), h >> i + 1, w >> i + 1) for i in range(len(self.levels))]
        return [*shapes[:-1], (2 * shapes[-1][0], *shapes[-1][1:])]

    @torch.no_grad()
    def initialize(self, x: Tensor) -> None:
        """Standardises the input of every step on a batch; does nothing the second time.

        Args:
            x: Images, with shape (B, channels, H, W), in the precision of the weights.
        """
        if self.initialized:
            return
        norms = [layer for layer in self.modules() if isinstance(layer, ActNorm)]
        hooks = [
            layer.register_forward_pre_hook(lambda layer, inputs: layer.initialize(inputs[0]))
            for layer in norms
        ]
        try:
            self(x)
        finally:
            for hook in hooks:
                hook.remove()
        self.initialized.fill_(True)

    @property
    def least_pivot(self) -> float:
        """The smallest pivot of all mixing matrices: near 0 one of them is hardly invertible."""
        pivots = [m.log_diagonal.detach() for m in self.modules() if isinstance(m, Mix)]
        return float(torch.cat(pivots).min().exp())


def channelwise(values: Tensor) -> Tensor:
    """Returns one value per channel, shaped to broadcast against an image."""
    return values[:, None, None]


def times(matrix: Tensor, x: Tensor) -> Tensor:
    """Returns the product of a matrix and the channels of every pixel."""
    return (matrix @ x.flatten(2)).reshape(x.shape)


def bounded(raw: Tensor, most: float) -> Tensor:
    """Returns about `raw` where that is small, and always less than `most` in size."""
    return most * torch.tanh(raw / most)
