r"""Fourier samples of a real picture, as an interferometer or a lens of few apertures takes them.

    A x = M F x,      x real, M a mask of zeros and ones, F the centred orthonormal transform

The normal operator is `Re F^H M F = F^H S F` with S the mask averaged with its mirror image
through the zero frequency (values 0, 1/2, 1): a frequency is known from its opposite. The real
part of the complex solution is another, wrong, image.
"""

from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..tensors import Generators, generators, per_item, randn_like, weight_of
from .base import LinearOperator, Shape
from .diagonal import Diagonal, fourier_of_real
from .kspace import fft2c, ifft2c, random_lines, sampling_weights

__all__ = ["FourierMask"]


class FourierMask(LinearOperator):
    """Masked Fourier samples of a real image, `A x = M F x`, each channel by itself.

    Args:
        in_shape: Shape of one image, (C, H, W).
        mask: Array or tensor of zeros and ones (boolean or not), with shape (W,), (H, W), or
            (B, 1, H or 1, W or 1) for one mask per item; index (H // 2, W // 2) is the zero
            frequency.
    """

    items: ClassVar[tuple[str, ...]] = ("mask", "_half")
    mask: Tensor
    _half: Tensor

    def __init__(self, in_shape: Shape, mask: Any) -> None:
        super().__init__(in_shape, in_shape, torch.float32, torch.complex64)
        weights = sampling_weights(mask, self.in_shape, str(self))
        self.register_buffer("mask", weights)
        half = self._share()[..., : self.in_shape[-1] // 2 + 1].clone()
        self.register_buffer("_half", half, persistent=False)
        self.to(weights.device)

    def forward(self, x: Tensor) -> Tensor:
        return self.mask * fft2c(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return ifft2c(self.mask * y).real

    def observed(self, y: Tensor) -> Tensor:
        return torch.where(self.mask != 0, y, torch.zeros_like(y))

    def gram(self, x: Tensor) -> Tensor:
        return self._shaped(x, self._half)

    def solve(self, b: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        return self._shaped(b, 1 / (self._half + weight_of(gamma, b)))

    def prepare(self, y: Tensor) -> Tensor:
        """The adjoint `A^H y`, for `prox` and `sample`."""
        return self.adjoint(y)

    def prox(
        self,
        v: Tensor,
        y: Tensor,
        gamma: float | Tensor,
        *,
        prepared: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        # frequencies that were not measured stay exactly those of v, however small gamma is
        back = self.prepare(y) if prepared is None else prepared
        known = (self._half > 0) / (self._half + weight_of(gamma, v))
        return v + self._shaped(back - self.gram(v), known)

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
        mean = self.prox(v, y, gamma, prepared=prepared)
        spread = per_item(sigma, v) / (self._half + weight_of(gamma, v)).sqrt()
        return mean + self._shaped(randn_like(v, generator), spread)

    def _shaped(self, x: Tensor, spectrum: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * spectrum, s=self.in_shape[-2:])

    def diagonal(self) -> Diagonal:
        return fourier_of_real(self._share().sqrt().expand(-1, *self.in_shape))

    def _share(self) -> Tensor:
        """S, the mask averaged with its mirror image, zero frequency first."""
        mask = self.mask.expand(-1, -1, *self.in_shape[-2:])
        natural = torch.fft.ifftshift(mask, dim=(-2, -1))
        return (natural + natural.flip(-2, -1).roll((1, 1), (-2, -1))) / 2

    @property
    def norm(self) -> float:  # type: ignore[override]
        return float(self._half.max()) ** 0.5

    def trace_gram(self) -> float:
        return float(self.mask.expand(-1, -1, *self.in_shape[-2:])[0].mean())

    @classmethod
    def example(cls) -> Self:
        return cls((2, 6, 9), random_lines((6, 9), 2.0, 0.2, generator=generators(0, 2)))
