"""Gaussian priors with a spectrum: independent coefficients of a transform, at the cost of an FFT.

`N(m, Q diag(f) Q^H)` as in `gaussian`, where Q^H is the orthonormal Fourier transform
(`FourierGaussian`: the image repeats beyond its border) or the cosine transform
(`CosineGaussian`: it is mirrored there). The spectrum f has the variance of each coefficient.

References:
    | Discrete Cosine Transform (Ahmed, Natarajan & Rao, 1974)
"""

import math
from typing import Self

import torch
from torch import Tensor

from .gaussian import EigenGaussian

__all__ = ["CosineGaussian", "FourierGaussian"]


class FourierGaussian(EigenGaussian):
    """A stationary normal distribution: independent Fourier coefficients, periodic boundary.

    The transform is the orthonormal Fourier transform over all axes but the channels.

    Args:
        mean: Mean, with shape (1 or B, C, H, W), or with more or fewer spatial axes.
        spectrum: Variance of each coefficient (frequency zero first), in a shape that broadcasts
            against the mean; for real images equal at opposite frequencies.
    """

    def __init__(self, mean: Tensor, spectrum: Tensor) -> None:
        super().__init__(mean, _spectrum("FourierGaussian", mean, spectrum))
        axes = self._axes
        mirrored = self.variances.flip(axes).roll([1] * len(axes), axes)
        if not mean.is_complex() and not torch.allclose(mirrored, self.variances, rtol=1e-4):
            raise ValueError(
                "FourierGaussian: the spectrum of real images must be the same at opposite "
                "frequencies, f(k) = f(-k); this one is not"
            )

    @property
    def _axes(self) -> list[int]:
        return list(range(2, self.mean.ndim))

    def analysis(self, x: Tensor) -> Tensor:
        return torch.fft.fftn(x, dim=self._axes, norm="ortho")

    def synthesis(self, coefficients: Tensor) -> Tensor:
        x = torch.fft.ifftn(coefficients, dim=self._axes, norm="ortho")
        return x if self.dtype.is_complex else x.real

    @classmethod
    def example(cls) -> Self:
        k = torch.fft.fftfreq(8)
        return cls(0.1 * torch.ones(1, 1, 8, 8), 0.3 / (1 + 40 * (k**2 + k[:, None] ** 2)))


class CosineGaussian(EigenGaussian):
    """A normal distribution with independent cosine coefficients: mirrored boundary.

    The transform is the orthonormal DCT-II over all axes but the channels.

    Args:
        mean: Mean, with shape (1 or B, C, H, W), or with more or fewer spatial axes.
        spectrum: Variance of each coefficient (frequency zero first), in a shape that broadcasts
            against the mean.
    """

    def __init__(self, mean: Tensor, spectrum: Tensor) -> None:
        super().__init__(mean, _spectrum("CosineGaussian", mean, spectrum))
        for axis, n in enumerate(mean.shape[2:]):
            self.register_buffer(f"cosines_{axis}", _cosines(n, mean), persistent=False)

    def analysis(self, x: Tensor) -> Tensor:
        for axis in range(x.ndim - 2):
            cosines = getattr(self, f"cosines_{axis}")
            x = (x.transpose(axis + 2, -1) @ cosines.mT).transpose(axis + 2, -1)
        return x

    def synthesis(self, coefficients: Tensor) -> Tensor:
        x = coefficients
        for axis in range(x.ndim - 2):
            x = (x.transpose(axis + 2, -1) @ getattr(self, f"cosines_{axis}")).transpose(
                axis + 2, -1
            )
        return x

    @classmethod
    def example(cls) -> Self:
        k = torch.arange(8.0) / 8
        return cls(0.1 * torch.ones(1, 1, 8, 8), 0.3 / (1 + 10 * (k**2 + k[:, None] ** 2)))


def _spectrum(name: str, mean: Tensor, spectrum: Tensor) -> Tensor:
    """The variances of a transform, with a batch axis and as many axes as the mean."""
    if spectrum.is_complex() or not bool((spectrum >= 0).all() and spectrum.isfinite().all()):
        raise ValueError(f"{name}: got a spectrum that is not real, finite and >= 0")
    spectrum = spectrum.reshape(*[1] * (mean.ndim - spectrum.ndim), *spectrum.shape)
    return spectrum.expand(len(spectrum), *mean.shape[1:])


def _cosines(n: int, like: Tensor) -> Tensor:
    """The orthonormal DCT-II matrix."""
    k = torch.arange(n, dtype=torch.float64)
    rows = torch.cos(math.pi * (k + 0.5) * k[:, None] / n) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows.to(like)
