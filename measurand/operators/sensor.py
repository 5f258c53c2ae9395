r"""Down-sampling as a camera sees it: the scene goes on beyond the frame, and nobody knows how.

`A = S K`: K blurs, S keeps one pixel in s. Only blocks of s x s pixels whose blur the unknown
outside cannot reach are measured, so that the image has margins as wide as the kernel. All of the
kernel lies inside, so `A A^H` is a convolution of the small image with

    r = k correlated with itself, one sample in s,         zero beyond its edges,

and the proximal map is solved for as few unknowns as there are data,

    prox(v, y, gamma) = v + A^H u,      (A A^H + gamma) u = y - A v,

by conjugate gradients that the circular convolution with r preconditions; it differs at the edges
only, and a few iterations are enough. See `resample` for the periodic ones, in closed form.
"""

import math
from typing import Any, Self

import torch
from torch import Tensor

from ..linalg import cg, enough
from ..tensors import weight_of
from .base import Shape
from .convolution import FramedBlur, fast_size, filtered, padded_filtered, transfer_function
from .resample import bicubic_kernel, gaussian_kernel_of_blocks

__all__ = ["ValidBicubicDownsample", "ValidDownsample", "ValidGaussianDownsample"]


class ValidDownsample(FramedBlur):
    """Blur by any kernel, then one pixel in `factor` along each axis, as a camera sees it.

    Args:
        shape: Shape (C, H, W) of the large image, margins included; of what is left over at the
            bottom and on the right nothing is measured.
        kernel: Array or tensor with its centre at (h // 2, w // 2), with shape (h, w); or
            (B, 1, h, w) or (B, C, h, w) for one per item. Gradients flow to it where asked for.
        factor: The factor s.
        phase: Row and column of the pixel that is kept, in each block of s x s.
    """

    command = "downsample"

    def __init__(self, shape: Shape, kernel: Any, factor: int, phase: int = 0) -> None:
        sides = torch.as_tensor(kernel).shape[-2:]
        if factor < 1 or not 0 <= phase < factor:
            raise ValueError(
                f"{type(self).__name__}: got factor {factor} and phase {phase}, wanted a factor "
                "of at least 1 and a phase of 0, ..., factor - 1"
            )
        margins = [_margins(n, factor, phase) for n in sides]
        blocks = [(n - sum(m)) // factor for n, m in zip(shape[-2:], margins, strict=False)]
        if min(blocks) < 1:
            raise ValueError(
                f"{type(self).__name__}: got shape {tuple(shape)}, wanted an image of at least "
                + " x ".join(str(factor + sum(m)) for m in margins)
                + " pixels, a block and the margins that the kernel reaches"
            )
        super().__init__(shape, kernel, (shape[0], *blocks))
        self.factor, self.phase = factor, phase
        self.margins = margins[0][0], margins[1][0]

    def derive(self, kernel: Tensor) -> tuple[Tensor, ...]:
        s, (height, width) = self.factor, self.out_shape[-2:]
        k = transfer_function(kernel, *self.grid) / math.prod(self.grid)
        sides = [2 * n - 1 for n in kernel.shape[-2:]]
        power = torch.fft.rfft2(kernel, s=sides).abs().square()
        around = torch.fft.irfft2(power, s=sides)  # r at all distances, zero first
        reach = [(n - 1) // s for n in kernel.shape[-2:]]
        rows, columns = (
            [s * d % n for d in range(-m, m + 1)] for m, n in zip(reach, sides, strict=True)
        )
        r = around[..., rows, :][..., columns]
        wide = fast_size(height + reach[0]), fast_size(width + reach[1])
        return k, _spectrum(r, wide) / math.prod(wide), _spectrum(r, (height, width)).clamp_min(0)

    def solve(
        self,
        b: Tensor,
        gamma: float | Tensor,
        *,
        x0: Tensor | None = None,
        tol: float | None = None,
        residual: float | Tensor | None = None,
        max_iter: int = 1000,
    ) -> Tensor:
        """The solution of `(A^H A + gamma) x = b`, as in the module (`x0` is not needed)."""
        weight = weight_of(gamma, b)
        u = self._inverse(self.forward(b), gamma, residual, tol, max_iter)
        rest = b - self.adjoint(u)  # gamma x, so that A rest = gamma u
        # what is left of that is divided by gamma: once more
        left = weight * u - self.forward(rest)
        return (rest + self.adjoint(self._inverse(left, gamma, residual, tol, max_iter))) / weight

    def prox(
        self,
        v: Tensor,
        y: Tensor,
        gamma: float | Tensor,
        *,
        residual: float | Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """The proximal map of the squared misfit: of its options only `residual` has a use."""
        return v + self.adjoint(self._inverse(y - self.forward(v), gamma, residual))

    def _inverse(
        self,
        b: Tensor,
        gamma: float | Tensor,
        residual: float | Tensor | None,
        tol: float | None = None,
        max_iter: int = 1000,
    ) -> Tensor:
        """The solution of `(A A^H + gamma) u = b`."""
        _, wide, circular = self.spectra(b)
        weight, size = weight_of(gamma, b), b.shape[-2:]
        root = (circular + weight).rsqrt() / math.prod(size)
        grid = fast_size(size[0] + self._reach(0)), fast_size(size[1] + self._reach(1))

        def apply(z: Tensor) -> Tensor:
            u = filtered(z, root)
            seen = padded_filtered(u, wide, grid)[..., : size[0], : size[1]]
            return filtered(seen + weight * u, root)

        shrunk = None if residual is None else residual / 4
        goal = next(t for t in (shrunk, tol, enough(b)) if t is not None)
        least = (
            None
            if residual is not None
            else (weight / (circular + weight)).detach().flatten(1).amin(1)
        )
        return filtered(
            cg(apply, filtered(b, root), tol=goal, max_iter=max_iter, least=least), root
        )

    def _reach(self, axis: int) -> int:
        return (self.kernel.shape[axis - 2] - 1) // self.factor

    def seen(self, image: Tensor) -> Tensor:
        s, (top, left) = self.factor, (m + self.phase for m in self.margins)
        rows, columns = self.out_shape[-2:]
        return image[..., top : top + s * rows : s, left : left + s * columns : s]

    @classmethod
    def image_shape(  # type: ignore[override]
        cls, y_shape: Shape, kernel: Any, factor: int, phase: int = 0
    ) -> Shape:
        sides = torch.as_tensor(kernel).shape[-2:]
        sizes = (
            factor * n + sum(_margins(k, factor, phase))
            for n, k in zip(y_shape[-2:], sides, strict=True)
        )
        return (*y_shape[:-2], *sizes)

    def framed(self, x: Tensor) -> Tensor:
        (top, left), (rows, columns) = self.margins, self.out_shape[-2:]
        return x[..., top : top + self.factor * rows, left : left + self.factor * columns]

    @classmethod
    def example(cls) -> Self:
        kernel = torch.tensor([[0.1, 0.2, 0.0, -0.1], [0.3, 0.4, 0.2, 0.1], [0.0, 0.1, 0.1, 0.0]])
        return cls((2, 9, 12), kernel, 2, phase=1)


class ValidBicubicDownsample(ValidDownsample):
    """Bicubic resizing with antialiasing, of a scene that goes on beyond the frame.

    Args:
        shape: Shape (C, H, W) of the large image, margins included.
        factor: The factor s.
    References:
        | Cubic Convolution Interpolation for Digital Image Processing (Keys, 1981)
    """

    command = "bicubic-downsample"

    def __init__(self, shape: Shape, factor: int) -> None:
        super().__init__(shape, bicubic_kernel(factor), factor, (factor - 1) // 2)

    @classmethod
    def image_shape(cls, y_shape: Shape, factor: int) -> Shape:  # type: ignore[override]
        phase = (factor - 1) // 2
        return ValidDownsample.image_shape(y_shape, bicubic_kernel(factor), factor, phase)

    @classmethod
    def example(cls) -> Self:
        return cls((1, 14, 16), 2)


class ValidGaussianDownsample(ValidDownsample):
    """Gaussian blur, then decimation, of a scene that goes on beyond the frame.

    Args:
        shape: Shape (C, H, W) of the large image, margins included.
        factor: The factor s.
        sigma: Standard deviation of the blur, in pixels of the large image.
    """

    command = "gaussian-downsample"

    def __init__(self, shape: Shape, factor: int, sigma: float) -> None:
        kernel = gaussian_kernel_of_blocks(sigma, factor)
        super().__init__(shape, kernel, factor, (factor - 1) // 2)

    @classmethod
    def image_shape(  # type: ignore[override]
        cls, y_shape: Shape, factor: int, sigma: float
    ) -> Shape:
        kernel = gaussian_kernel_of_blocks(sigma, factor)
        return ValidDownsample.image_shape(y_shape, kernel, factor, (factor - 1) // 2)

    @classmethod
    def example(cls) -> Self:
        return cls((1, 12, 14), 3, 0.9)


def _margins(side: int, factor: int, phase: int) -> tuple[int, int]:
    """How far a kernel reaches beyond the blocks, before the first and behind the last."""
    before, behind = side - 1 - side // 2, side // 2
    return max(before - phase, 0), max(phase + behind - factor + 1, 0)


def _spectrum(r: Tensor, size: tuple[int, ...]) -> Tensor:
    """The real spectrum of a symmetric kernel, wrapped around a periodic grid."""
    for axis, n in ((-2, size[0]), (-1, size[1])):
        m = r.shape[axis]
        at = torch.arange(-(m // 2), m // 2 + 1, device=r.device) % n
        shape = [*r.shape]
        shape[axis] = n
        r = r.new_zeros(shape).index_add(axis, at, r)
    return torch.fft.rfft2(r).real
