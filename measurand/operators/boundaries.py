r"""Blur of images that are not periodic.

    ReflectiveBlur  the image goes on as in a mirror that stands on its edge: right for photographs
                    that are blurred here. Diagonal under the cosine transform (DCT-II) when the
                    kernel is symmetric along both axes, conjugate gradients otherwise.
    ValidBlur       nothing is assumed beyond the edge: only those pixels are measured that the
                    unknown outside cannot reach. Right for photographs that came blurred.

Both are a circular blur of a grid so wide that what wraps around falls on pixels nobody sees.

References:
    | Deblurring Images: Matrices, Spectra, and Filtering (Hansen, Nagy & O'Leary, 2006)
    | A Fast Cosine Transform in One and Two Dimensions (Makhoul, 1980)
"""

import math
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from ..linalg import cg, enough
from ..tensors import Generators, per_item, randn_like, weight_of
from .base import Shape
from .convolution import Convolution, FramedBlur, filtered, irfft2, transfer_function

__all__ = ["ReflectiveBlur", "ValidBlur"]


class ValidBlur(FramedBlur):
    """Blur as a camera sees it: the scene goes on beyond the frame, and nobody knows how.

    `y = k * x` in each channel. Only those pixels are measured that the unknown outside cannot
    reach: H - h + 1 rows and W - w + 1 columns, the first of them centred on pixel h - 1 - h // 2
    of the image. `ValidBlur.image_shape(y.shape[1:], kernel)` is the image of data at hand.

    Args:
        shape: Shape (C, H, W) of one image, margins included.
        kernel: Array or tensor with shape (h, w); or (B, 1, h, w) or (B, C, h, w).
    """

    command = "blur"

    def __init__(self, shape: Shape, kernel: Any) -> None:
        size = torch.as_tensor(kernel).shape[-2:]
        inner = [n - m + 1 for n, m in zip(shape[-2:], size, strict=False)]
        super().__init__(shape, kernel, (shape[0], *(max(n, 1) for n in inner)))

    def derive(self, kernel: Tensor) -> tuple[Tensor, Tensor]:
        k = transfer_function(kernel, *self.grid)
        return k / math.prod(self.grid), k.real**2 + k.imag**2

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
        """The solution of `(A^H A + gamma) x = b`, by conjugate gradients.

        Preconditioned by the circular blur, `x = M^-1/2 z` with `M = F^-1 (|K|^2 + gamma) F`, from
        which A^H A differs at the margins only. Iterated is the spectrum of z, in which M is
        diagonal: an iteration takes the two transforms of A and A^H and no others. The error that
        `tol` bounds is that of z, and so is the residual, which has to fall to 1/4 of `residual`:
        while it falls fast, the margins of x still change.
        """
        k, power = self.spectra(b)
        grid, weight = self.grid, weight_of(gamma, b)
        n, root = math.prod(grid), (power + weight).rsqrt()
        # of a half-spectrum the inner columns count twice: with c = sqrt(count / n) in front, its
        # inner products are those of images
        column = torch.arange(k.shape[-1], device=b.device)
        count = torch.where((column == 0) | (2 * column == grid[1]), 1.0, 2.0).to(b.dtype)
        scale = (count / n).sqrt()
        through, ridge = k * (root / scale), weight * root**2
        back = through.conj() * count

        def apply(z: Tensor) -> Tensor:
            seen = self._only_seen(irfft2(z * through, grid))
            return torch.fft.rfft2(seen).mul_(back).add_(z * ridge)

        start = None if x0 is None else torch.fft.rfft2(x0, s=grid) * (scale / root)
        shrunk = None if residual is None else residual / 4
        goal = next(t for t in (shrunk, tol, enough(b)) if t is not None)
        z = cg(
            apply,
            torch.fft.rfft2(b, s=grid) * (scale * root),
            x0=start,
            tol=goal,
            max_iter=max_iter,
            least=ridge.detach().flatten(1).amin(1) if residual is None else None,
        )
        return self.cut(irfft2(z * (root / (n * scale)), grid))

    @classmethod
    def image_shape(cls, y_shape: Shape, kernel: Any) -> Shape:  # type: ignore[override]
        height, width = torch.as_tensor(kernel).shape[-2:]
        return (*y_shape[:-2], y_shape[-2] + height - 1, y_shape[-1] + width - 1)

    def framed(self, x: Tensor) -> Tensor:
        return self.seen(x)

    def seen(self, image: Tensor) -> Tensor:
        top, left = _reach(self.kernel)
        return image[..., top : top + self.out_shape[1], left : left + self.out_shape[2]]

    def _only_seen(self, image: Tensor) -> Tensor:
        """An image of the whole grid, made zero where nothing is measured; in place."""
        top, left = _reach(self.kernel)
        for axis, first, size in ((-2, top, self.out_shape[1]), (-1, left, self.out_shape[2])):
            image.narrow(axis, 0, first).zero_()
            image.narrow(axis, first + size, image.shape[axis] - first - size).zero_()
        return image

    @classmethod
    def example(cls) -> Self:
        kernel = torch.tensor([[0.1, 0.3, -0.2, 0.1], [0.2, 0.4, 0.1, 0.0], [0.0, 0.3, 0.2, 0.1]])
        return cls((2, 7, 8), kernel)


class ReflectiveBlur(Convolution):
    """Blur of an image that is mirrored at its edges: `b a | a b c | c b`.

    For images that were blurred so by a program; what a camera sees is `ValidBlur`.

    Args:
        shape: Shape (C, H, W) of one image.
        kernel: Array or tensor with shape (h, w); or (B, 1, h, w) or (B, C, h, w).
    """

    def __init__(self, shape: Shape, kernel: Any) -> None:
        super().__init__(shape, kernel, shape)

    def derive(self, kernel: Tensor) -> tuple[Tensor, ...]:
        (height, width), (h, w) = self.in_shape[-2:], kernel.shape[-2:]
        grid = height + h - 1, width + w - 1
        k = transfer_function(kernel, *grid) / math.prod(grid)
        if not _is_symmetric(kernel):
            return (k,)
        # on the mirrored image, of period (2H, 2W), the spectrum is real and a DCT-II
        return k, transfer_function(kernel, 2 * height, 2 * width).real[..., :height, :width]

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self._mirrors(x)
        wide = x.index_select(-2, rows).index_select(-1, columns)
        wide = filtered(wide, self.spectra(x)[0])
        top, left = _reach(self.kernel)
        return wide[..., top : top + x.shape[-2], left : left + x.shape[-1]].contiguous()

    def adjoint(self, y: Tensor) -> Tensor:
        rows, columns = self._mirrors(y)
        height, width = y.shape[-2:]
        top, left = _reach(self.kernel)
        right, bottom = len(columns) - left - width, len(rows) - top - height
        wide = functional.pad(y, (left, right, top, bottom))
        wide = filtered(wide, self.spectra(y)[0].conj())
        tall = wide.new_zeros(*wide.shape[:-1], width).index_add(-1, columns, wide)
        return y.new_zeros(y.shape).index_add(-2, rows, tall)

    def solve(self, b: Tensor, gamma: float | Tensor, **options: Any) -> Tensor:
        """The solution of `(A^H A + gamma) x = b`: in closed form if the kernel is symmetric."""
        k = self._eigenvalues(b)
        if k is None:
            return super().solve(b, gamma, **options)
        return _idct2(_dct2(b) / (k**2 + weight_of(gamma, b)))

    def prox(self, v: Tensor, y: Tensor, gamma: float | Tensor, **options: Any) -> Tensor:
        """The proximal map of the squared misfit: closed if the kernel is symmetric."""
        k = self._eigenvalues(v)
        if k is None:
            return super().prox(v, y, gamma, **options)
        weight = weight_of(gamma, v)
        return _idct2((k * _dct2(y) + weight * _dct2(v)) / (k**2 + weight))

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
        """A draw of `N(prox(v, y, gamma), sigma^2 (A^H A + gamma)^-1)`."""
        k = self._eigenvalues(v)
        if k is None:
            return super().sample(v, y, gamma, sigma, generator, prepared=prepared)
        # the DCT is orthonormal: white coefficients are a white image
        sd = per_item(sigma, v) * (k**2 + weight_of(gamma, v)).rsqrt()
        return self.prox(v, y, gamma) + _idct2(sd * randn_like(v, generator))

    def _eigenvalues(self, x: Tensor) -> Tensor | None:
        """The spectrum under the DCT, where the kernel is symmetric."""
        # the derivative of the closed form by the kernel would see its symmetric part only
        if self.kernel.requires_grad:
            return None
        spectra = self.spectra(x)
        return spectra[1] if len(spectra) > 1 else None

    def _mirrors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Where each row and column of the extended image comes from."""
        found = []
        for n, m, before in zip(
            x.shape[-2:], self.kernel.shape[-2:], _reach(self.kernel), strict=True
        ):
            at = torch.arange(-before, n + m - 1 - before, device=x.device) % (2 * n)
            found.append(torch.minimum(at, 2 * n - 1 - at))
        return found[0], found[1]

    @classmethod
    def example(cls) -> Self:
        return cls((2, 6, 7), torch.tensor([[0.0, 0.2, 0.1], [0.3, 0.5, 0.3], [0.1, 0.2, -0.4]]))


def _reach(kernel: Tensor) -> tuple[int, int]:
    """How many pixels a kernel reaches up and to the left of its centre."""
    h, w = kernel.shape[-2:]
    return h - 1 - h // 2, w - 1 - w // 2


def _is_symmetric(kernel: Tensor) -> bool:
    h, w = kernel.shape[-2:]
    k = functional.pad(kernel.detach(), (0, 1 - w % 2, 0, 1 - h % 2))
    return k.equal(k.flip(-1)) and k.equal(k.flip(-2))


def _dct2(x: Tensor) -> Tensor:
    """The orthonormal DCT-II over the last two axes."""
    return _dct(_dct(x).mT).mT


def _idct2(c: Tensor) -> Tensor:
    return _idct(_idct(c).mT).mT.contiguous()


def _dct(x: Tensor) -> Tensor:
    # Makhoul 1980: the DCT-II of x is the DFT of its even samples followed by its odd ones
    # reversed, turned by a quarter-sample phase
    spectrum = torch.fft.fft(torch.cat((x[..., ::2], x[..., 1::2].flip(-1)), -1))
    return (spectrum * _turn(x)).real * _scale(x)


def _idct(c: Tensor) -> Tensor:
    n = c.shape[-1]
    c = c / _scale(c)
    # by symmetry, the spectrum is (c_k - i c_{n-k}) turned back, with c_n = 0
    mirrored = functional.pad(c[..., 1:].flip(-1), (1, 0))
    half = (torch.complex(c, -mirrored) * _turn(c).conj())[..., : n // 2 + 1]
    folded = torch.fft.irfft(half, n=n)
    x = torch.empty_like(folded)
    x[..., ::2], x[..., 1::2] = folded[..., : (n + 1) // 2], folded[..., (n + 1) // 2 :].flip(-1)
    return x


def _turn(x: Tensor) -> Tensor:
    n = x.shape[-1]
    angle = torch.arange(n, dtype=x.dtype, device=x.device) * (-math.pi / (2 * n))
    return torch.polar(torch.ones_like(angle), angle)


def _scale(x: Tensor) -> Tensor:
    n = x.shape[-1]
    scale = torch.full((n,), (2 / n) ** 0.5, dtype=x.dtype, device=x.device)
    scale[0] = (1 / n) ** 0.5
    return scale
