r"""Measurements of single pixels: `y = m x`, pixel by pixel.

A mask of zeros and ones keeps some pixels (inpainting, dead detectors); other values weigh them
(vignetting, gains). What is not measured stands as zero in y, which has the shape of the image.
Everything is diagonal:

    prox(v, y, gamma) = (m y + gamma v) / (m^2 + gamma),
    covariance of a draw = sigma^2 / (m^2 + gamma).
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from ..tensors import Generators, as_generators, per_item, randn_like, weight_of
from .base import LinearOperator, Shape
from .diagonal import Diagonal

__all__ = ["Mask", "box_mask", "random_mask"]


class Mask(LinearOperator):
    """A product with a mask, `y = m x` pixel by pixel: missing pixels (zeros), or gains.

    Args:
        shape: Shape of one image, (C, H, W) or that of a volume.
        mask: Real array or tensor that broadcasts to the image; a leading axis more than the image
            has one mask per item, with shape (1 or B, 1 or C, H, W). Gradients flow to it where
            asked for.
        dtype: `torch.float32`, or `torch.complex64` for complex images.
    """

    items = ("mask",)
    mask: Tensor

    def __init__(self, shape: Shape, mask: Any, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(shape, shape, dtype, dtype)
        m = torch.as_tensor(mask)
        if m.is_complex():
            raise ValueError(f"{self}: got a mask of {m.dtype}, wanted a real one")
        if m.dtype != torch.float64 or not isinstance(mask, Tensor):
            m = m.float()
        rank = len(self.in_shape)
        m = m.reshape((1,) * (rank + 1 - m.ndim) + m.shape)
        fits = m.ndim == rank + 1 and all(
            n in (1, wanted) for n, wanted in zip(m.shape[1:], self.in_shape, strict=True)
        )
        if not fits or m.numel() == 0:
            raise ValueError(
                f"{self}: got a mask with shape {tuple(m.shape)}, wanted one that broadcasts to "
                f"(B, {', '.join(map(str, self.in_shape))})"
            )
        values = m.detach()
        if not bool(values.isfinite().all()):
            raise ValueError(f"{self}: got a mask with non-finite values, wanted finite ones")
        if not bool((values != 0).flatten(1).any(1).all()):
            raise ValueError(f"{self}: got an all-zero mask, wanted at least one pixel measured")
        self.register_buffer("mask", m)

    def forward(self, x: Tensor) -> Tensor:
        return x * self._weights(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self._weights(y)

    def observed(self, y: Tensor) -> Tensor:
        # selected, not multiplied: gains are in the data already, and NaN times zero is NaN
        return torch.where(self._weights(y) != 0, y, torch.zeros_like(y))

    def gram(self, x: Tensor) -> Tensor:
        return x * self._weights(x).square()

    def solve(self, b: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        """The solution of `(A^H A + gamma) x = b`, in closed form."""
        return b / (self._weights(b).square() + weight_of(gamma, b))

    def prox(self, v: Tensor, y: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        """The proximal map of the squared misfit, in closed form."""
        m, weight = self._weights(v), weight_of(gamma, v)
        return (m * y + weight * v) / (m.square() + weight)

    def sample(
        self,
        v: Tensor,
        y: Tensor,
        gamma: float | Tensor,
        sigma: float | Tensor,
        generator: Generators,
        *,
        prepared: Tensor | None = None,
    ) -> Tensor:
        """A draw of `N(prox(v, y, gamma), sigma^2 (A^H A + gamma)^-1)`, pixel by pixel."""
        sd = per_item(sigma, v) * (self._weights(v).square() + weight_of(gamma, v)).rsqrt()
        return self.prox(v, y, gamma) + sd * randn_like(v, generator)

    def diagonal(self) -> Diagonal:
        values = self.mask.detach().abs().expand(-1, *self.in_shape)
        return Diagonal(lambda x: x, lambda c: c, values)

    @cached_property
    def norm(self) -> float:
        return float(self.mask.detach().abs().max())

    def trace_gram(self) -> float:
        return float(self.mask[:1].detach().double().square().mean())

    def _weights(self, x: Tensor) -> Tensor:
        return self.mask.to(x.real.dtype if x.is_complex() else x.dtype)

    @classmethod
    def example(cls) -> Self:
        return cls((2, 3, 4), random_mask((2, 3, 4), 0.5, n=2))


def random_mask(
    shape: Shape, missing: float, *, n: int = 1, generator: Generators = None
) -> Tensor:
    """Masks in which each pixel is missing, in all channels, with a given probability.

    Args:
        shape: Shape of one image, (C, H, W) or that of a volume.
        missing: Probability that a pixel is not measured, in [0, 1).
        n: Number of masks.
        generator: One generator, one per mask, or None for seed 0.
    Returns:
        Zeros and ones, with shape (n, 1, H, W).
    """
    if not 0 <= missing < 1:
        raise ValueError(f"random_mask: got missing = {missing}, wanted a number in [0, 1)")
    mask = torch.empty(n, 1, *shape[1:])
    source = as_generators(generator, mask)
    own = [source] * n if isinstance(source, torch.Generator) else source
    for item, each in zip(mask, own, strict=True):
        item.copy_(torch.rand(item.shape, generator=each, device=each.device) >= missing)
    return mask


def box_mask(shape: Shape, size: Sequence[int], corner: Sequence[int] | None = None) -> Tensor:
    """A mask in which a box is missing.

    Args:
        shape: Shape of one image, (C, H, W) or that of a volume.
        size: Sides of the box, in pixels, one per spatial axis.
        corner: First pixel of the box along each axis; the box is in the middle when absent.
    Returns:
        Ones with zeros in the box, with shape (1, 1, H, W).
    """
    space = tuple(shape[1:])
    start = [(n - m) // 2 for n, m in zip(space, size, strict=False)] if corner is None else corner
    inside = len(size) == len(start) == len(space) and all(
        0 <= a and 0 < m and a + m <= n for a, m, n in zip(start, size, space, strict=True)
    )
    if not inside:
        raise ValueError(
            f"box_mask: got a box of {tuple(size)} at {tuple(start)}, wanted one inside {space}"
        )
    mask = torch.ones(1, 1, *space)
    box = mask
    for axis, (a, m) in enumerate(zip(start, size, strict=True), 2):
        box = box.narrow(axis, a, m)
    box.zero_()
    return mask
