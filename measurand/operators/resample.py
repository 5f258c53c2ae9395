r"""Down-sampling by a whole factor s: `y = (k * x) decimated`, `A = S K`.

K is a circular blur and S keeps one pixel in s along each axis. Decimation folds the spectrum, so
`A A^H` is a circular blur of the small image, with eigenvalues

    g = F S F^-1 |K|^2   =   mean of |K|^2 over the s^2 frequencies that alias,

and the proximal map has the closed form

    prox(v, y, gamma) = v + A^H (A A^H + gamma)^-1 (y - A v),

whose corrections are computed from residuals: at small gamma the equal form that divides by gamma
loses percents in float32, this one nothing.

Block averaging has `A A^H = 1 / s^2` and needs no transform. Physical units: a constant image
stays the constant it is, so `||A|| = 1/s` for a block average, and about that for the others.

Alignment. A pixel of the small image stands for a block of s x s pixels of the large one. Block
average, bicubic and Gaussian are centred in the middle of the block, as area and antialiased
resizing in image programs are; a kernel of the caller's own is centred on the pixel `phase` of the
block, by default the first.

References:
    | Fast Single Image Super-Resolution Using a New Analytical Solution for l2-l2 Problems
    | (Zhao et al., 2016)
"""

import math
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from ..tensors import Generators, per_item, randn_like, weight_of
from .base import LinearOperator, Shape
from .convolution import Convolution, energy, filtered, irfft2, transfer_function

__all__ = [
    "BicubicDownsample",
    "BlockAverage",
    "Downsample",
    "GaussianDownsample",
    "bicubic_kernel",
    "gaussian_kernel_of_blocks",
]


class Downsample(Convolution):
    """Periodic: circular blur by any kernel, then one pixel in `factor` along each axis.

    A photograph is not periodic: its edges need `ValidDownsample`, which the command line calls
    `downsample`.

    Args:
        shape: Shape (C, H, W) of the large image; H and W are multiples of the factor.
        kernel: Array or tensor with its centre at (h // 2, w // 2), with shape (h, w); or
            (B, 1, h, w) or (B, C, h, w) for one per item. Gradients flow to it where asked for.
        factor: The factor s.
        phase: Row and column of the pixel that is kept, in each block of s x s.
    """

    command = "circular-downsample"

    def __init__(self, shape: Shape, kernel: Any, factor: int, phase: int = 0) -> None:
        super().__init__(shape, kernel, _reduced(type(self).__name__, shape, factor))
        if not 0 <= phase < factor:
            raise ValueError(f"{self}: got phase {phase}, wanted one of 0, ..., {factor - 1}")
        self.factor, self.phase = factor, phase

    def derive(self, kernel: Tensor) -> tuple[Tensor, Tensor]:
        s = self.factor
        k = transfer_function(kernel, *self.in_shape[-2:], phase=self.phase)
        k = k / math.prod(self.in_shape[-2:])
        power = (k.real**2 + k.imag**2) * math.prod(self.in_shape[-2:])
        autocorrelation = irfft2(power.to(k.dtype), self.in_shape[-2:])
        return k, torch.fft.rfft2(autocorrelation[..., ::s, ::s]).real.clamp_min(0)

    def forward(self, x: Tensor) -> Tensor:
        s = self.factor
        spectrum = torch.fft.rfft2(x).mul_(self.spectra(x)[0])
        rows = spectrum.unflatten(-2, (s, -1)).sum(-3)  # every s-th row: the spectrum folds
        return irfft2(rows, (self.out_shape[-2], x.shape[-1]))[..., ::s].contiguous()

    def adjoint(self, y: Tensor) -> Tensor:
        s = self.factor
        rows = functional.pad(y[..., None], (0, s - 1)).flatten(-2)
        back = self.spectra(y)[0].conj().unflatten(-2, (s, -1))
        spectrum = torch.fft.rfft2(rows).unsqueeze(-3) * back
        return irfft2(spectrum.flatten(-3, -2), self.in_shape[-2:])

    def solve(self, b: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        """The solution of `(A^H A + gamma) x = b`, in closed form."""
        weight = weight_of(gamma, b)
        inverse = 1 / (self.spectra(b)[1] + weight) / math.prod(self.out_shape[-2:])
        u = filtered(self.forward(b), inverse)
        rest = b - self.adjoint(u)  # gamma x, so that A rest = gamma u
        # rounding leaves in the rest a part that A sees, and the division would magnify it
        left = weight * u - self.forward(rest)
        return (rest + self.adjoint(filtered(left, inverse))) / weight

    def prox(self, v: Tensor, y: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        """The proximal map of the squared misfit, in closed form."""
        inverse = 1 / (self.spectra(v)[1] + weight_of(gamma, v)) / math.prod(self.out_shape[-2:])
        return v + self.adjoint(filtered(y - self.forward(v), inverse))

    @classmethod
    def image_shape(cls, y_shape: Shape, factor: int) -> Shape:  # type: ignore[override]
        return _enlarged(y_shape, factor)

    @cached_property
    def norm(self) -> float:
        return float(self.spectra(self.blank_input())[1].detach().max()) ** 0.5

    def trace_gram(self) -> float:
        return energy(self.kernel) / self.factor**2

    @classmethod
    def example(cls) -> Self:
        kernel = torch.tensor([[0.1, 0.2, 0.0, -0.1], [0.3, 0.4, 0.2, 0.1], [0.0, 0.1, 0.1, 0.0]])
        return cls((2, 6, 9), kernel, 3, phase=1)


class BicubicDownsample(Downsample):
    """Periodic: bicubic resizing with antialiasing.

    The kernel is Keys' cubic (a = -1/2), stretched by the factor. A photograph needs
    `ValidBicubicDownsample`, which the command line calls `bicubic-downsample`.

    Args:
        shape: Shape (C, H, W) of the large image; H and W are multiples of the factor.
        factor: The factor s.
    References:
        | Cubic Convolution Interpolation for Digital Image Processing (Keys, 1981)
    """

    command = "circular-bicubic-downsample"

    def __init__(self, shape: Shape, factor: int) -> None:
        _reduced(type(self).__name__, shape, factor)
        super().__init__(shape, bicubic_kernel(factor), factor, (factor - 1) // 2)

    @classmethod
    def example(cls) -> Self:
        return cls((1, 8, 10), 2)


class GaussianDownsample(Downsample):
    """Periodic: Gaussian blur, then decimation.

    A photograph needs `ValidGaussianDownsample`, which the command line calls
    `gaussian-downsample`.

    Args:
        shape: Shape (C, H, W) of the large image; H and W are multiples of the factor.
        factor: The factor s.
        sigma: Standard deviation of the blur, in pixels of the large image.
    """

    command = "circular-gaussian-downsample"

    def __init__(self, shape: Shape, factor: int, sigma: float) -> None:
        _reduced(type(self).__name__, shape, factor)
        fits = (min(shape[-2:]) - 2) / 2  # nobody asked for a size: at most the image
        kernel = gaussian_kernel_of_blocks(sigma, factor, most=fits)
        super().__init__(shape, kernel, factor, (factor - 1) // 2)

    @classmethod
    def example(cls) -> Self:
        return cls((1, 8, 6), 2, 0.9)


class BlockAverage(LinearOperator):
    """The mean of each block of `factor` x `factor` pixels.

    Args:
        shape: Shape (C, H, W) of the large image; H and W are multiples of the factor.
        factor: The factor s.
    """

    def __init__(self, shape: Shape, factor: int) -> None:
        super().__init__(shape, _reduced(type(self).__name__, shape, factor))
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, self.factor)

    def adjoint(self, y: Tensor) -> Tensor:
        return self._spread(y) / self.factor**2

    def solve(self, b: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        """The solution of `(A^H A + gamma) x = b`, in closed form."""
        weight = weight_of(gamma, b)
        mean = self.forward(b)
        rest = b - self._spread(mean)
        rest = rest - self._spread(self.forward(rest))  # once more: no rounding left to divide
        return rest / weight + self._spread(mean / (self.factor**-2 + weight))

    def prox(self, v: Tensor, y: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        """The proximal map of the squared misfit, in closed form."""
        gain = 1 / (1 + self.factor**2 * weight_of(gamma, v))
        return v + self._spread((y - self.forward(v)) * gain)

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
        noise = per_item(sigma, v) * randn_like(v, generator)
        # block means have variance sigma^2 / (1/s^2 + gamma), the rest sigma^2 / gamma
        change = (self.factor**-2 + weight).rsqrt() - weight.rsqrt()
        noise = noise * weight.rsqrt() + self._spread(self.forward(noise) * change)
        return self.prox(v, y, gamma) + noise

    @classmethod
    def image_shape(cls, y_shape: Shape, factor: int) -> Shape:  # type: ignore[override]
        return _enlarged(y_shape, factor)

    @cached_property
    def norm(self) -> float:
        return 1 / self.factor

    def trace_gram(self) -> float:
        return self.factor**-4

    def _spread(self, y: Tensor) -> Tensor:
        s = self.factor
        blocks = y[..., :, None, :, None].expand(*y.shape[:-1], s, y.shape[-1], s)
        return blocks.reshape(*y.shape[:-2], y.shape[-2] * s, y.shape[-1] * s)

    @classmethod
    def example(cls) -> Self:
        return cls((2, 4, 6), 2)


def bicubic_kernel(factor: int) -> Tensor:
    """Return Keys' cubic kernel (a = -1/2) stretched by a factor, centred on a block."""
    t = _block_positions(2 * factor, factor).abs() / factor
    near = 1 + t**2 * (1.5 * t - 2.5)
    far = 2 - t * (4 - t * (2.5 - 0.5 * t))
    return _product(torch.where(t < 1, near, torch.where(t < 2, far, 0.0)))


def gaussian_kernel_of_blocks(sigma: float, factor: int, *, most: float = math.inf) -> Tensor:
    """Return a Gaussian kernel centred on a block of `factor` x `factor` pixels.

    Args:
        sigma: Standard deviation, in pixels of the large image.
        factor: The side of a block.
        most: Pixels that it reaches to each side at most; four deviations otherwise.
    """
    if not 0 < sigma < float("inf"):
        raise ValueError(f"GaussianDownsample: got sigma = {sigma}, wanted a positive number")
    t = _block_positions(max(min(4 * sigma, most), 0.5), factor)
    return _product(torch.exp(-0.5 * (t / sigma) ** 2))


def _reduced(name: str, shape: Shape, factor: int) -> Shape:
    """The shape of the small image."""
    whole = len(shape) == 3 and isinstance(factor, int) and factor >= 1
    if not whole or shape[1] % factor or shape[2] % factor:
        raise ValueError(
            f"{name}: got shape {tuple(shape)} and factor {factor}, wanted (C, H, W) with H and W "
            "multiples of the factor (crop the image)"
        )
    return (shape[0], shape[1] // factor, shape[2] // factor)


def _enlarged(y_shape: Shape, factor: int) -> Shape:
    """The shape of the large image."""
    return (*y_shape[:-2], *(factor * n for n in y_shape[-2:]))


def _block_positions(reach: float, factor: int) -> Tensor:
    """Distances from the middle of a block, of all pixels nearer than `reach`.

    With as many pixels as the factor is odd or even, the kernel has its centre pixel h // 2 at
    the place (factor - 1) // 2 of the block.
    """
    half = (factor - 1) % 2 / 2
    n = int(reach - half)
    return torch.arange(-n, n + 1 + round(2 * half), dtype=torch.float64) - half


def _product(profile: Tensor) -> Tensor:
    profile = profile / profile.sum()
    return torch.outer(profile, profile).float()
