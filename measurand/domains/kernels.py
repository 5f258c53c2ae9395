r"""Blur kernels, made without end: camera shake, anisotropic Gaussians, disks, and mixtures.

A kernel k is non-negative, has sum one and its centroid at the pixel (side // 2, side // 2). The
network sees `u = 2 k / alpha - 1` with one alpha for all kernels, so that k is affine in u and a
blur stays a linear measurement of u. The four kinds are equally likely:

    shake      a camera's path: a velocity that drifts at random and is pulled back to its mean,
               seen through a spot of 0.6 to 1.2 pixels
    Gaussian   standard deviations from 1 to 0.12 side along two axes at any angle
    disk       radius from 1.5 to 0.2 side, with an edge half a pixel wide
    mixture    a convex combination of a shake and a Gaussian

References:
    | Modeling the Performance of Image Restoration From Motion Blur (Boracchi & Foi, 2012)
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..batches import Batch
from .material import Material, Paths, generator_of

__all__ = ["Kernels"]


@dataclass(frozen=True)
class Kernels:
    """Blur kernels as images.

    Args:
        side: Height and width, in pixels.
        alpha: Value of a kernel that becomes u = 1.
    """

    side: int = 32
    alpha: float = 0.2
    channels = 1
    dtype = torch.float32

    @property
    def fixed_sum(self) -> float:
        """Sum of u + 1 of every kernel: that of sum one."""
        return 2 / self.alpha

    @property
    def facts(self) -> dict[str, Any]:
        return {"units": "kernel k of sum one as 2 k / alpha - 1", "alpha": self.alpha}

    def open(
        self, data: Paths, held_out: Paths, *, seed: int, device: torch.device, skip_bad: bool
    ) -> Material:
        """Returns batches of kernels; there are no files to read.

        Raises:
            ValueError: Data were given.
        """
        if len(data) or len(held_out):
            raise ValueError("Kernels: got files, wants none: kernels are made, not read")

        def batch(step: int, n: int, size: int) -> Batch:
            return Batch({"x": self.scaled(self.draw(n, generator_of(seed, step, device)))})

        shown = self.scaled(self.draw(64, generator_of(seed + 1, 0, device)))
        return Material(batch, tuple(Batch({"x": x}) for x in shown.split(1)), 0)

    def look(self, path: Path, under: str = "", *, skip_bad: bool = False) -> list[Tensor]:
        """Raises a ValueError: there are no files of kernels to look at."""
        raise ValueError(f"{path}: kernels are made, not read; their quality is in the card")

    def scaled(self, kernel: Tensor) -> Tensor:
        """Returns u = 2 k / alpha - 1."""
        return 2 * kernel / self.alpha - 1

    def kernel(self, u: Tensor) -> Tensor:
        """Returns k = alpha (u + 1) / 2."""
        return self.alpha * (u + 1) / 2

    def draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Returns n random kernels, with shape (n, 1, side, side)."""
        device = generator.device
        kind = torch.randint(4, (n, 1, 1), generator=generator, device=device)
        share = torch.rand((n, 1, 1), generator=generator, device=device)
        shake = normalised(self.shakes(n, generator))
        gaussian = normalised(self.gaussians(n, generator))
        disk = normalised(self.disks(n, generator))
        share = torch.where(kind == 0, 1.0, torch.where(kind == 1, 0.0, share))
        kernel = torch.where(kind == 2, disk, share * shake + (1 - share) * gaussian)
        return kernel[:, None]

    def shakes(self, n: int, generator: torch.Generator, points: int = 96) -> Tensor:
        """Returns paths of a shaken camera, each through a Gaussian spot, (n, side, side)."""
        device = generator.device

        def uniform(low: float, high: float) -> Tensor:
            number = torch.rand((n, 1, 1), generator=generator, device=device)
            return low + (high - low) * number

        drift = torch.randn((n, 1, 2), generator=generator, device=device)
        push = torch.randn((n, points, 2), generator=generator, device=device)
        straight, memory = uniform(0, 1.5), uniform(0.8, 0.99)
        velocity, path = drift, []
        for i in range(points):
            velocity = memory * velocity + (1 - memory**2).sqrt() * push[:, i : i + 1]
            path.append(velocity + straight * drift)
        where = torch.cat(path, 1).cumsum(1)
        where = where - where.mean(1, keepdim=True)
        reach = where.abs().amax((1, 2), keepdim=True)
        where = where / reach * uniform(1.5, 0.42 * self.side)
        spot = uniform(0.6, 1.2)
        t = self.positions(device)
        rows, columns = (
            torch.exp(-0.5 * ((t - where[..., i, None]) / spot) ** 2) for i in range(2)
        )
        return rows.mT @ columns

    def gaussians(self, n: int, generator: torch.Generator) -> Tensor:
        """Returns anisotropic Gaussians, (n, side, side)."""
        device = generator.device
        low, high = 0.0, math.log(0.12 * self.side)
        u = torch.rand((3, n, 1, 1), generator=generator, device=device)
        first, second = (low + (high - low) * u[:2]).exp()
        angle = math.pi * u[2]
        t = self.positions(device)
        y, x = t[:, None], t
        along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
        return torch.exp(-0.5 * ((along / first) ** 2 + (across / second) ** 2))

    def disks(self, n: int, generator: torch.Generator) -> Tensor:
        """Returns disks with a soft edge, (n, side, side)."""
        u = torch.rand((n, 1, 1), generator=generator, device=generator.device)
        radius = 1.5 + (0.2 * self.side - 1.5) * u
        t = self.positions(generator.device)
        return torch.sigmoid(4 * (radius - torch.hypot(t[:, None], t)))

    def positions(self, device: torch.device | str) -> Tensor:
        """Returns the distance of each row from the centre, in pixels."""
        return torch.arange(self.side, dtype=torch.float32, device=device) - self.side // 2


def normalised(kernel: Tensor) -> Tensor:
    """Returns kernels of sum one."""
    return kernel / kernel.sum((-2, -1), keepdim=True)
