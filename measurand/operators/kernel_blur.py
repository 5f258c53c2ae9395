"""A blur as a linear operator of its kernel, the image known; and the simplex of kernels."""

import copy
from typing import Self

import torch
from torch import Tensor
from torch.nn import functional

from ..linalg import cg, enough
from ..tensors import weight_of
from .base import LinearOperator, Shape
from .convolution import fast_size

__all__ = ["KernelBlur", "simplex"]


class KernelBlur(LinearOperator):
    """The blur of known images, as an operator of the kernel: `u -> scale x * u`.

    Its normal operator sums over the channels, which share the kernel. On a periodic image it is
    the block Toeplitz matrix of the autocorrelation of the image, and a product with it takes
    transforms of twice the side of the kernel only; its circulant approximation (T. Chan)
    preconditions `solve`.

    Args:
        image: The images x, with shape (B, C, H, W).
        side: Height and width of the kernel, in pixels.
        scale: Factor.
        out_shape: Shape (C, h, w) of the data; smaller than the image where only that part of the
            blur is measured which nothing beyond its edges can reach; as the image where None.

    References:
        | An Optimal Circulant Preconditioner for Toeplitz Systems (T. Chan, 1988)
    """

    items = ("spectrum",)
    spectrum: Tensor

    def __init__(
        self, image: Tensor, side: int, scale: float = 1.0, out_shape: Shape | None = None
    ) -> None:
        shape = tuple(image.shape[1:])
        super().__init__((1, side, side), shape if out_shape is None else out_shape)
        self.size, self.side, self.scale = shape[-2:], side, scale
        self.valid = self.out_shape != shape
        if self.valid:  # nothing that wraps around is measured: the grid may have a fast size
            self.size = tuple(fast_size(n) for n in self.size)
        self.register_buffer("spectrum", torch.fft.rfft2(image, s=self.size))

    def forward(self, x: Tensor) -> Tensor:
        spread = functional.pad(x, (0, self.size[1] - self.side, 0, self.size[0] - self.side))
        spread = spread.roll((-(self.side // 2), -(self.side // 2)), (-2, -1))
        y = torch.fft.irfft2(torch.fft.rfft2(spread) * self.spectrum, self.size) * self.scale
        first = self.side - 1 - self.side // 2
        height, width = self.out_shape[1:]
        return y[..., first : first + height, first : first + width] if self.valid else y

    def adjoint(self, y: Tensor) -> Tensor:
        if self.valid:
            first = self.side - 1 - self.side // 2
            right, bottom = (self.size[i] - first - y.shape[i - 2] for i in (1, 0))
            y = functional.pad(y, (first, right, first, bottom))
        back = (torch.fft.rfft2(y) * self.spectrum.conj()).sum(1, keepdim=True)
        k = torch.fft.irfft2(back, self.size) * self.scale
        k = k.roll((self.side // 2, self.side // 2), (-2, -1))
        return k[..., : self.side, : self.side].contiguous()

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
        """The solution of `(A^H A + gamma) u = b`, by preconditioned conjugate gradients.

        In double precision: the mean of an image stands some 1e7 above its fine detail. The
        circulant M of the preconditioner is split, `u = M^-1/2 w`; errors are bounded as in
        `LinearOperator.solve`, those of w instead of u.
        """
        s, weight = self.side, weight_of(gamma, b.double())
        lags = self._autocorrelation()
        share = 1 - torch.arange(1 - s, s, device=b.device).abs().double() / s
        folded = lags * share[:, None] * share
        for axis in (-2, -1):  # lags -s + 1 to -1 are 1 to s - 1 on a circle of s pixels
            below, above = folded.split((s - 1, s), axis)
            folded = above + torch.cat((torch.zeros_like(above.narrow(axis, 0, 1)), below), axis)
        power = torch.fft.rfft2(folded).real.clamp_min(0)
        root = (power + weight).rsqrt()
        wrapped = functional.pad(lags, (0, 1, 0, 1)).roll((1 - s, 1 - s), (-2, -1))
        through = torch.fft.rfft2(wrapped)
        wide = copy.copy(self)
        wide._buffers = {**self._buffers, "spectrum": self.spectrum.to(torch.complex128)}

        def white(w: Tensor) -> Tensor:
            return torch.fft.irfft2(torch.fft.rfft2(w) * root, (s, s))

        def normal(u: Tensor) -> Tensor:
            if self.valid:
                return wide.gram(u)
            spread = torch.fft.rfft2(u, (2 * s, 2 * s)) * through
            return torch.fft.irfft2(spread, (2 * s, 2 * s))[..., :s, :s]

        def apply(w: Tensor) -> Tensor:
            u = white(w)
            return white(normal(u) + weight * u)

        # of the preconditioned system: eigenvalues are near 1, at least gamma / (power + gamma)
        least = (weight.flatten() / (power.flatten(1).amax(1) + weight.flatten())).detach()
        start = None
        if x0 is not None:
            start = torch.fft.irfft2(torch.fft.rfft2(x0.double()) / root, (s, s))
        w = cg(
            apply,
            white(b.double()),
            x0=start,
            tol=next(t for t in (residual, tol, enough(b)) if t is not None),
            max_iter=max_iter,
            least=least if residual is None else None,
        )
        return white(w).to(b.dtype)

    def _autocorrelation(self) -> Tensor:
        """`A^H A` at all lags below the side, with shape (B, 1, 2 side - 1, 2 side - 1)."""
        wide = self.spectrum.to(torch.complex128)
        power = (wide.real**2 + wide.imag**2).sum(1, keepdim=True)
        every = torch.fft.irfft2(power, self.size) * self.scale**2
        at = torch.arange(1 - self.side, self.side, device=power.device)
        return every[..., at[:, None] % self.size[0], at % self.size[1]]

    @classmethod
    def example(cls) -> Self:
        x = torch.randn(2, 2, 6, 7, generator=torch.Generator().manual_seed(0))
        return cls(x, 4, 0.5)


def simplex(k: Tensor) -> Tensor:
    """Return the nearest kernels (Euclidean) with values >= 0 and sum one.

    `max(k - t, 0)` with the t that makes the sum one, found by sorting the values.

    Args:
        k: Kernels, with shape (..., h, w).
    References:
        | Efficient Projections onto the l1-Ball (Duchi et al., 2008)
    """
    flat = k.flatten(-2).double()
    if not bool(torch.isfinite(flat).all()):
        raise FloatingPointError("simplex: got kernels that are not finite")
    flat = flat - flat.amax(-1, keepdim=True)  # the same nearest kernel, whatever the size
    ordered = flat.sort(-1, descending=True).values
    count = torch.arange(1, flat.shape[-1] + 1, device=k.device)
    level = (ordered.cumsum(-1) - 1) / count
    last = (ordered > level).long().mul(count).amax(-1, keepdim=True) - 1
    found = (flat - level.gather(-1, last)).clamp_min(0)
    found = found / found.sum(-1, keepdim=True)
    return found.unflatten(-1, k.shape[-2:]).to(k.dtype)
