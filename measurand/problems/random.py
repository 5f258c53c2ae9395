r"""Kinds of measurement problems, from which training and benchmarks draw.

A kind makes an operator with one random instance per item of a batch: another width, direction or
mask for each. `drawn` picks one kind of a mix, measures a batch of images with it and adds noise,

    y = A x + s n,      ln s uniform between two levels,

as a pure function of the generator. A new kind is a frozen dataclass with `operator`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, is_dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..literal import instance
from ..measurement import Measurement
from ..noises import ComplexGaussian, Gaussian
from ..operators import (
    SENSE,
    BlockAverage,
    Blur,
    FourierMask,
    Identity,
    LinearOperator,
    Mask,
    birdcage_maps,
    gaussian_kernel,
    motion_kernel,
    random_lines,
)

__all__ = [
    "BrainCoils",
    "Denoising",
    "FourierLines",
    "GaussianBlurs",
    "MissingBox",
    "MissingPixels",
    "MotionBlurs",
    "Problems",
    "SuperResolution",
    "drawn",
    "problem_of",
]

Shape = tuple[int, ...]


class Problems(Protocol):
    """A kind of measurement problem."""

    def operator(self, shape: Shape, n: int, generator: torch.Generator) -> LinearOperator:
        """Returns n random operators on images of a shape (C, H, W), as one."""
        ...


@dataclass(frozen=True)
class Denoising:
    """The image itself, with noise."""

    def operator(self, shape: Shape, n: int, generator: torch.Generator) -> LinearOperator:
        return Identity(shape)


@dataclass(frozen=True)
class GaussianBlurs:
    """Circular blur by a Gaussian.

    Args:
        low: Smallest standard deviation, in pixels.
        high: Largest standard deviation.
        elongated: Another standard deviation across, at any angle; else round.
    """

    low: float = 0.5
    high: float = 4.0
    elongated: bool = False

    def operator(self, shape: Shape, n: int, generator: torch.Generator) -> LinearOperator:
        sigma = uniform(n, self.low, self.high, generator)
        side = min(*shape[-2:], 2 * math.ceil(4 * self.high) + 1)
        side = side - 1 + side % 2
        if not self.elongated:
            return Blur(shape, gaussian_kernel(sigma, side))
        across = uniform(n, self.low, self.high, generator)
        angle = uniform(n, 0.0, math.pi, generator)
        t = torch.arange(side, device=generator.device) - side // 2
        sigma, across, angle = (x[:, None, None] for x in (sigma, across, angle))
        u = t * angle.cos() + t[:, None] * angle.sin()
        v = t[:, None] * angle.cos() - t * angle.sin()
        kernel = torch.exp(-0.5 * ((u / sigma) ** 2 + (v / across) ** 2))
        return Blur(shape, (kernel / kernel.sum((1, 2), keepdim=True))[:, None])


@dataclass(frozen=True)
class MotionBlurs:
    """Circular blur by a straight motion in any direction.

    Args:
        low: Shortest path, in pixels.
        high: Longest path.
    """

    low: float = 5.0
    high: float = 31.0

    def operator(self, shape: Shape, n: int, generator: torch.Generator) -> LinearOperator:
        fits = min(shape[-2:]) - 1 + min(shape[-2:]) % 2  # an odd kernel, of odd side
        high = min(self.high, fits - 1)
        if high < self.low:
            raise ValueError(f"{self}: no path of {self.low:g} pixels fits into images {shape}")
        length = uniform(n, self.low, high, generator).tolist()
        angle = uniform(n, 0.0, math.pi, generator).tolist()
        side = 2 * math.ceil(max(length) / 2) + 1
        kernels = [motion_kernel(*pair, side) for pair in zip(length, angle, strict=True)]
        return Blur(shape, torch.stack(kernels)[:, None].to(generator.device))


@dataclass(frozen=True)
class MissingPixels:
    """Pixels that are missing at random, in all channels.

    Args:
        low: Smallest probability to be missing.
        high: Largest probability.
        grain: Largest side of the squares that are missing or not, in pixels: 1, 2, 4, ... as
            likely, up to this.
    """

    low: float = 0.1
    high: float = 0.92
    grain: int = 1

    def operator(self, shape: Shape, n: int, generator: torch.Generator) -> LinearOperator:
        missing = uniform(n, self.low, self.high, generator)[:, None, None, None]
        height, width = shape[-2:]
        octave = uniform(n, 0, self.grain.bit_length(), generator).int().tolist()
        noise = []
        for k in octave:
            # one square more than fits, so that the grid begins anywhere
            coarse = (1, 1, (height >> k) + 2, (width >> k) + 2)
            u = torch.rand(coarse, generator=generator, device=generator.device)
            u = u.repeat_interleave(1 << k, -2).repeat_interleave(1 << k, -1)
            top, left = (2**k * uniform(2, 0, 1, generator)).int().tolist()
            noise.append(u[..., top : top + height, left : left + width])
        mask = torch.cat(noise) >= missing
        mask[..., 0, 0] |= ~mask.flatten(1).any(1)[:, None]  # at least one pixel is seen
        return Mask(shape, mask.float())


@dataclass(frozen=True)
class MissingBox:
    """A square that is missing, anywhere.

    Args:
        low: Smallest side, as a share of the image's.
        high: Largest side.
    """

    low: float = 0.2
    high: float = 0.4

    def operator(self, shape: Shape, n: int, generator: torch.Generator) -> LinearOperator:
        height, width = shape[-2:]
        share, u, v = (uniform(n, a, b, generator)[:, None] for a, b in self.bounds)
        inside = []
        for size, place in ((height, u), (width, v)):
            side = (share * size).round()
            start = (place * (size - side)).round()
            i = torch.arange(size, device=generator.device)
            inside.append((i >= start) & (i < start + side))
        box = inside[0][:, None, :, None] & inside[1][:, None, None, :]
        return Mask(shape, (~box).float())

    @property
    def bounds(self) -> tuple[tuple[float, float], ...]:
        """Bounds of the side and of the place along each axis."""
        return (self.low, self.high), (0.0, 1.0), (0.0, 1.0)


@dataclass(frozen=True)
class SuperResolution:
    """Averages over blocks.

    Args:
        factor: Side of a block, in pixels.
    """

    factor: int = 4

    def operator(self, shape: Shape, n: int, generator: torch.Generator) -> LinearOperator:
        return BlockAverage(shape, self.factor)


@dataclass(frozen=True)
class FourierLines:
    """Random lines of the Fourier transform of a real image, and all around the centre.

    Args:
        low: Smallest factor of undersampling.
        high: Largest factor.
        center: Share of the lines that are always measured.
    """

    low: float = 2.0
    high: float = 6.0
    center: float = 0.08

    def operator(self, shape: Shape, n: int, generator: torch.Generator) -> LinearOperator:
        return FourierMask(shape, lines(self, shape, n, generator))


@dataclass(frozen=True)
class BrainCoils:
    """Random lines of k-space, measured with several coils around a head; complex images.

    One operator for all items; small images get one whose solves are closed (`SENSE.decomposed`),
    which pays for the solves of one training step.

    Args:
        low: Smallest acceleration.
        high: Largest acceleration.
        center: Share of the lines that are always measured.
        coils: Number of coils.
    """

    low: float = 2.0
    high: float = 6.0
    center: float = 0.08
    coils: int = 8

    def operator(self, shape: Shape, n: int, generator: torch.Generator) -> LinearOperator:
        maps = birdcage_maps(shape[-2:], self.coils).to(generator.device)
        operator = SENSE(shape, maps, self.mask(shape, generator))
        small = max(shape[-2:]) <= 192 and generator.device.type == "cpu"
        return operator.decomposed() if small and operator.mask.shape[-2] == 1 else operator

    def mask(self, shape: Shape, generator: torch.Generator) -> Tensor:
        """Returns which points of k-space are measured; other patterns override it."""
        return lines(self, shape, 1, generator)


def drawn(
    mix: Sequence[Problems], x: Tensor, sigma: tuple[float, float], generator: torch.Generator
) -> Measurement:
    """Returns measurements of a batch of images by one kind of a mix, each kind as likely.

    Args:
        mix: Kinds of problems.
        x: Images, with shape (B, C, H, W), real or complex.
        sigma: Smallest and largest noise level, in units of the image: the operators' norms are
            taken out of it.
        generator: Draws the kind, the operators and the noise.
    """
    device = generator.device
    which = int(torch.randint(len(mix), (), generator=generator, device=device))
    operator = mix[which].operator(tuple(x.shape[1:]), len(x), generator)
    level = uniform(len(x), math.log(sigma[0]), math.log(sigma[1]), generator).exp()
    kind = ComplexGaussian if operator.out_dtype.is_complex else Gaussian
    noise = kind(level * torch.tensor(operator.norms, device=device))
    return Measurement(operator, noise, noise(operator(x), generator))


def uniform(n: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Returns n numbers between two, with shape (n,)."""
    u = torch.rand(n, generator=generator, device=generator.device)
    return low + (high - low) * u


def lines(
    kind: FourierLines | BrainCoils, shape: Shape, n: int, generator: torch.Generator
) -> Tensor:
    """Returns masks of random lines, each of another acceleration."""
    factors = uniform(n, kind.low, kind.high, generator).tolist()
    masks = [random_lines(shape, factor, kind.center, generator=generator) for factor in factors]
    return torch.cat(masks).to(generator.device)


def problem_of(text: str) -> Problems:
    """Returns the kind of problem of which this is the `repr`, as a card has it.

    Raises:
        ValueError: It names no kind of this file, or fields that the kind does not have.
    """
    named = {name: globals()[name] for name in __all__}
    kinds = {k: v for k, v in named.items() if isinstance(v, type) and is_dataclass(v)}
    return instance(text, kinds, "problem")
