r"""Blur by a point spread function, of a periodic image: `y = k * x`.

Diagonal in Fourier space, so that all is in closed form: with `K = F k` and `^` for spectra,

    prox(v, y, gamma) = F^-1 [ (conj(K) y^ + gamma v^) / (|K|^2 + gamma) ],

and a draw of its posterior adds `F^-1 [ sigma n^ / sqrt(|K|^2 + gamma) ]`, n white. See
`ValidBlur` for photographs that came blurred, `ReflectiveBlur` for those that are blurred here.

Accuracy. `conj(K) y^ + gamma v^` could be had with one transform from `A^H y + gamma v`, but the
rounding errors of that transform are white, and where K is small they are divided by gamma. With
y and v transformed apart they grow as `gamma^-1/2` only. The transform of y is the same in every
step of a method: `prepare` makes it once.

References:
    | Deblurring Images: Matrices, Spectra, and Filtering (Hansen, Nagy & O'Leary, 2006)
"""

import math
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from ..tensors import Generators, per_item, randn_like, weight_of
from .base import Shape
from .convolution import Convolution, energy, filtered, irfft2, share, transfer_function
from .diagonal import Diagonal, fourier_of_real
from .kernels import gaussian_kernel, motion_kernel

__all__ = ["Blur", "GaussianBlur", "MotionBlur"]


class Blur(Convolution):
    """Periodic: the blur by any kernel of an image whose opposite edges touch.

    `y = k * x` in each channel, the data as large as the image; `solve`, `prox` and `sample` are
    closed forms. A photograph or a micrograph is not periodic: its edges need `ValidBlur`, which
    the command line calls `blur`.

    Args:
        shape: Shape (C, H, W) of one image.
        kernel: Array or tensor with its centre at (h // 2, w // 2), with shape (h, w); or
            (B, 1, h, w) or (B, C, h, w) for one per item. Gradients flow to it where asked for.
    """

    command = "circular-blur"

    def __init__(self, shape: Shape, kernel: Any) -> None:
        super().__init__(shape, kernel, shape)

    def derive(self, kernel: Tensor) -> tuple[Tensor, Tensor]:
        k = transfer_function(kernel, *self.in_shape[-2:])
        return k / math.prod(self.in_shape[-2:]), k.real**2 + k.imag**2

    def forward(self, x: Tensor) -> Tensor:
        return filtered(x, self.spectra(x)[0])

    def adjoint(self, y: Tensor) -> Tensor:
        return filtered(y, self.spectra(y)[0].conj())

    def gram(self, x: Tensor) -> Tensor:
        return filtered(x, self.spectra(x)[1] * share(x))

    def solve(self, b: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        """The solution of `(A^H A + gamma) x = b`, in closed form."""
        return filtered(b, share(b) / (self.spectra(b)[1] + weight_of(gamma, b)))

    def prox(
        self,
        v: Tensor,
        y: Tensor,
        gamma: float | Tensor,
        *,
        prepared: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """The proximal map of the squared misfit, in closed form.

        Args:
            v: Point to stay near, with shape (B, C, H, W).
            y: Measurement, with shape (B, C, H, W).
            gamma: Positive weight, a scalar or one per item.
            prepared: `prepare(y)`, the spectrum of `A^H y`, which saves a transform.
        Returns:
            The minimiser, with the shape of `v`.
        """
        weight = weight_of(gamma, v)
        return irfft2(self._prox_spectrum(v, y, weight, prepared), v.shape[-2:])

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
        """A draw of `N(prox(v, y, gamma), sigma^2 (A^H A + gamma)^-1)`, from one white image."""
        weight = weight_of(gamma, v)
        sd = share(v) * per_item(sigma, v) * (self.spectra(v)[1] + weight).rsqrt()
        mean = self._prox_spectrum(v, y, weight, prepared)
        return irfft2(mean + torch.fft.rfft2(randn_like(v, generator)).mul_(sd), v.shape[-2:])

    def prepare(self, y: Tensor) -> Tensor:
        """The spectrum of `A^H y` over H W, for `prox` and `sample`.

        Args:
            y: Measurement, with shape (B, C, H, W).
        Returns:
            The half-spectrum, with shape (B, C, H, W // 2 + 1).
        """
        return torch.fft.rfft2(y).mul_(self.spectra(y)[0].conj())

    def _prox_spectrum(
        self, v: Tensor, y: Tensor, gamma: Tensor, prepared: Tensor | None
    ) -> Tensor:
        resolvent = 1 / (self.spectra(v)[1] + gamma)
        data = self.prepare(y) if prepared is None else prepared
        return torch.fft.rfft2(v).mul_(gamma * share(v)).add_(data).mul_(resolvent)

    def diagonal(self) -> Diagonal:
        point = self.blank_input(self.batch)
        point[..., 0, 0] = 1
        with torch.no_grad():
            values = torch.fft.fft2(self.forward(point)).abs()
        return fourier_of_real(values)

    @cached_property
    def norm(self) -> float:
        return float(self.spectra(self.blank_input())[1].detach().max()) ** 0.5

    def trace_gram(self) -> float:
        return energy(self.kernel)

    @classmethod
    def example(cls) -> Self:
        kernels = torch.tensor([[[[0.1, 0.5, 0.2]]], [[[0.0, 0.3, -0.6]]]])
        return cls((2, 7, 6), kernels.expand(2, 2, 4, 3) * torch.tensor([1, 3, -2, 1])[:, None])


class GaussianBlur(Blur):
    """Periodic: the blur by a Gaussian of an image whose opposite edges touch.

    A photograph is not periodic: its edges need `ValidGaussianBlur`, which the command line calls
    `gaussian-blur`.

    Args:
        shape: Shape (C, H, W) of one image.
        sigma: Standard deviation of the kernel, in pixels. For one per item:
            `Blur(shape, gaussian_kernel(sigmas))`.
        size: Side of the kernel, in pixels; four deviations to each side, or what fits into the
            image, when absent.
    """

    command = "circular-gaussian-blur"

    def __init__(self, shape: Shape, sigma: float, size: int | None = None) -> None:
        super().__init__(shape, _fitting(gaussian_kernel(sigma, size), shape, size))

    @classmethod
    def example(cls) -> Self:
        return cls((2, 7, 6), 0.8)


class MotionBlur(Blur):
    """Periodic: the blur by a straight motion of an image whose opposite edges touch.

    A photograph is not periodic: its edges need `ValidMotionBlur`, which the command line calls
    `motion-blur`.

    Args:
        shape: Shape (C, H, W) of one image.
        length: Distance travelled during the exposure, in pixels.
        angle: Direction, in radians from the horizontal axis, counter-clockwise on the screen.
    """

    command = "circular-motion-blur"

    def __init__(self, shape: Shape, length: float, angle: float = 0.0) -> None:
        super().__init__(shape, motion_kernel(length, angle))

    @classmethod
    def example(cls) -> Self:
        return cls((1, 8, 9), 4.5, 0.6)


def _fitting(kernel: Tensor, shape: Shape, size: int | None) -> Tensor:
    """A kernel whose size nobody asked for, cut to the image and normalised again."""
    if size is not None:
        return kernel
    cuts = [max(0, (k - n + 1) // 2) for k, n in zip(kernel.shape[-2:], shape[-2:], strict=True)]
    k = kernel[..., cuts[0] : kernel.shape[-2] - cuts[0], cuts[1] : kernel.shape[-1] - cuts[1]]
    return k / k.sum((-2, -1), keepdim=True)
