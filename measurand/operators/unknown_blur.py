r"""Blur by an unknown kernel, of a periodic image or of a photograph.

`A(theta) x = k * x`, with a kernel k of `side x side` pixels on the simplex
(k >= 0, sum one). A network sees kernels as images in [-1, 1], by one affine map for all of them,

    theta = u = 2 k / alpha - 1,         k = alpha (u + 1) / 2,

so that `B(x) u = alpha/2 x * u` and `b(x) = alpha/2 x * 1` (1 on the support of the kernel). A
scale that depends on the kernel (its largest value) would not be affine. u itself is free;
`project` puts its kernel on the simplex.

**Shifts.** A kernel moved by d pixels and an image moved by -d give the same data. `aligned` moves
both so that the kernel's centroid is at its centre pixel.
"""

import math
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from .base import LinearOperator, Shape
from .blur import Blur
from .boundaries import ValidBlur
from .families import BlurFamily
from .kernel_blur import KernelBlur, simplex
from .kernel_parts import noise_of, without_specks
from .kernels import gaussian_kernel

__all__ = ["UnknownBlur", "UnknownValidBlur"]

SPREAD = 0.038  # of the values of kernels of cameras, over all of the support, in units of alpha


class UnknownBlur(BlurFamily):
    """Blur of a periodic image by an unknown kernel: opposite edges touch.

    A photograph is not periodic: it needs `UnknownValidBlur`.

    Args:
        shape: Shape (C, H, W) of one image.
        side: Height and width of the kernel's support, in pixels, even or odd, at most those of
            the image. The centre is the pixel (side // 2, side // 2).
        alpha: Value of a kernel that theta = 1 stands for; that of the prior of kernels. Where
            None, 6.4 / side: 0.1 for `kernels-64`, 0.2 for `kernels-32`.
    """

    command = "unknown-circular-blur"

    def __init__(self, shape: Shape, side: int, alpha: float | None = None) -> None:
        name = type(self).__name__
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"{name}: got shape {tuple(shape)}, wanted (C, H, W)")
        if isinstance(side, bool) or side != int(side) or side < 2:
            raise ValueError(f"{name}: got side = {side}, wanted a whole number, at least 2")
        if side > min(shape[1:]):
            raise ValueError(
                f"{name}: got a kernel of {side}x{side} for images of {shape[1]}x{shape[2]}, "
                "wanted at most the size of the image"
            )
        if alpha is not None and not 0 < alpha < math.inf:
            raise ValueError(f"{name}: got alpha = {alpha}, wanted a positive number")
        super().__init__(shape, (1, side, side), self._measured(shape, side))
        self.side, self.alpha = int(side), 6.4 / side if alpha is None else float(alpha)

    @staticmethod
    def _measured(shape: Shape, side: int) -> Shape:
        return tuple(shape)

    def kernel(self, theta: Tensor) -> Tensor:
        """Return the kernels of some parameters, on the simplex.

        Args:
            theta: Parameters, with shape (B, 1, side, side).
        Returns:
            Kernels k >= 0 of sum one, of the same shape: the nearest to alpha (theta + 1) / 2.
        """
        return simplex(self._affine(theta))

    def theta(self, kernel: Tensor) -> Tensor:
        """Return the parameters of a kernel, 2 k / alpha - 1, padded with zeros to the support.

        Args:
            kernel: A kernel of at most side x side pixels, with its centre at (h // 2, w // 2) and
                shape (h, w) or (B, 1, h, w).
        """
        k = kernel if kernel.ndim == 4 else kernel[None, None]
        h, w = k.shape[-2:]
        if max(h, w) > self.side or k.shape[1] != 1:
            raise ValueError(
                f"{self}: got a kernel with shape {tuple(kernel.shape)}, wanted (h, w) or "
                f"(B, 1, h, w) of at most {self.side}x{self.side}"
            )
        top, left = self.side // 2 - h // 2, self.side // 2 - w // 2
        pad = (left, self.side - w - left, top, self.side - h - top)
        return 2 * functional.pad(k, pad) / self.alpha - 1

    def at(self, theta: Tensor) -> LinearOperator:
        return Blur(self.in_shape, self._affine(theta))

    def at_image(self, x: Tensor) -> "KernelBlur":
        return KernelBlur(x, self.side, self.alpha / 2, self.out_shape)

    def offset(self, x: Tensor) -> Tensor:
        return self.at_image(x)(x.new_ones(len(x), *self.theta_shape))

    def project(self, theta: Tensor) -> Tensor:
        return 2 * self.kernel(theta) / self.alpha - 1

    def fitted(self, x: Tensor, y: Tensor, sigma: Tensor, doubt: float) -> Tensor:
        """Return the kernel of least squares, without its noise and loose specks.

        With a ridge, `(X^T X + sigma^2 / s^2 + N doubt^2) k = X^T y` for the N values of the data:
        s is the spread of the values of kernels. The mean of the data is taken off both sides,
        which a kernel of sum one leaves as it is.
        """
        level = y.mean((-2, -1), keepdim=True)
        image = KernelBlur(x - level, self.side, out_shape=self.out_shape)
        ridge = (sigma / (SPREAD * self.alpha)) ** 2 + y[0].numel() * doubt**2
        k = image.solve(image.adjoint(y - level), ridge, residual=1e-3)[:, 0]
        least = [4 * noise_of(one) / max(float(one.max()), 1e-30) for one in k]
        clean = [
            without_specks(one, min(0.5, max(0.02, share)))
            for one, share in zip(k, least, strict=True)
        ]
        return self.theta(torch.stack(clean)[:, None])

    def aligned(self, x: Tensor, theta: Tensor, *copies: Tensor) -> tuple[Tensor, ...]:
        """Return image and kernel moved by whole pixels, the centroid of the kernel at its centre.

        The image moves on its periodic grid. What of the kernel would leave its support is lost.
        """
        away = [[-round(c) for c in self._centroid(k)] for k in self.kernel(theta)]
        return self.moved(away, x, theta, *copies)

    def moved(self, by: list[list[int]], *pairs: Tensor) -> tuple[Tensor, ...]:
        """Return kernels moved down and right by some pixels, and images moved back by the same.

        Args:
            by: Rows and columns, one pair of numbers per item.
            pairs: Images and parameters, in turns.
        """
        if not any(any(d) for d in by):
            return pairs
        found = []
        for i, batch in enumerate(pairs):
            if i % 2:
                items = [_shifted(u, d, fill=-1.0) for u, d in zip(batch, by, strict=True)]
            else:
                items = [
                    self._shifted_image(one, [-n for n in d])
                    for one, d in zip(batch, by, strict=True)
                ]
            found.append(torch.stack(items))
        return tuple(found)

    def start(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the data as the image, and a Gaussian kernel of three pixels."""
        k = gaussian_kernel(min(3.0, self.side / 6), self.side).to(y)
        theta = self.theta(k).expand(len(y), *self.theta_shape).clone()
        return self._widened(y), theta

    def periodic(self, y: Tensor) -> Tensor:
        """Return data on the grid of the image, periodic: here the data themselves."""
        return y

    def check_prior(self, prior: Any) -> None:
        name, known = type(self).__name__, getattr(prior, "card", {})
        if prior.range not in (None, (-1.0, 1.0)):
            raise ValueError(
                f"{name}: got a prior of kernels with range {prior.range}, wanted (-1, 1): put "
                "measurand.priors.Rescaled(prior) around it"
            )
        total = getattr(prior, "fixed_sum", None)
        trained = known.get("recipe", {}).get("crops") if isinstance(known, dict) else None
        if total is not None and trained and int(trained[0]) != self.side:
            raise ValueError(
                f"{name}: the prior was trained on kernels of {trained[0]} pixels, the family has "
                f"side = {self.side}; wanted the same"
            )
        alpha = known.get("alpha") if isinstance(known, dict) else None
        if alpha is not None and not math.isclose(alpha, self.alpha, rel_tol=1e-6):
            raise ValueError(
                f"{name}: got a prior of kernels with alpha = {alpha:g}, the family has "
                f"{self.alpha:g}; wanted the same: {name}(shape, side, alpha={alpha:g})"
            )
        if total is not None and not math.isclose(total, 2 / self.alpha, rel_tol=1e-4):
            raise ValueError(
                f"{name}: the prior's kernels have the sum {total * self.alpha / 2:g}, wanted one"
            )

    def default_prior(self) -> str:
        """Return `kernels-64`, the prior of kernels that ships."""
        return "kernels-64"

    def _affine(self, theta: Tensor) -> Tensor:
        return self.alpha / 2 * (theta + 1)

    def _centroid(self, k: Tensor) -> list[float]:
        """How far the centroid of a kernel (1, side, side) is from its centre, in pixels."""
        t = torch.arange(self.side, device=k.device, dtype=k.dtype) - self.side // 2
        return [float((k[0].sum(1) * t).sum()), float((k[0].sum(0) * t).sum())]

    def _shifted_image(self, x: Tensor, d: list[int]) -> Tensor:
        return x.roll(d, (-2, -1))

    def _widened(self, y: Tensor) -> Tensor:
        return y.clone()


class UnknownValidBlur(UnknownBlur):
    """Blur of a photograph by an unknown kernel, as a camera sees it: nothing wraps around.

    The image goes on beyond the frame, as far as the kernel reaches, and is estimated there too
    (see `ValidBlur`); `framed` is its part inside.

    Args:
        shape: Shape (C, H, W) of one image with its margins: side - 1 rows and columns more than
            the photograph.
        side: Height and width of the kernel's support, in pixels.
        alpha: As in `UnknownBlur`.
    """

    command = "unknown-blur"

    @staticmethod
    def _measured(shape: Shape, side: int) -> Shape:
        seen = shape[0], shape[1] - side + 1, shape[2] - side + 1
        if side > min(seen[1:]):
            raise ValueError(
                f"UnknownValidBlur: got a kernel of {side}x{side} for data of {seen[1]}x"
                f"{seen[2]}, wanted at most the size of the data"
            )
        return seen

    @classmethod
    def of(cls, y_shape: Shape, side: int, alpha: float | None = None) -> Self:
        """Return the family of photographs with shape (C, H, W)."""
        return cls(cls.image_shape(y_shape, side), side, alpha)

    @classmethod
    def image_shape(cls, y_shape: Shape, side: int) -> Shape:  # type: ignore[override]
        channels, height, width = y_shape
        return channels, height + side - 1, width + side - 1

    def at(self, theta: Tensor) -> LinearOperator:
        return ValidBlur(self.in_shape, self._affine(theta))

    def periodic(self, y: Tensor) -> Tensor:
        """Return data continued beyond the frame by ramps from each edge to the opposite one."""
        first = self.side - 1 - self.side // 2
        for axis in (-2, -1):
            y = y.movedim(axis, -1)
            w = torch.arange(1, self.side, dtype=y.dtype, device=y.device) / self.side
            ramp = y[..., -1:] * (1 - w) + y[..., :1] * w
            y = torch.cat((y, ramp), -1).roll(first, -1).movedim(-1, axis)
        return y

    def framed(self, x: Tensor) -> Tensor:
        first = self.side - 1 - self.side // 2
        height, width = self.out_shape[1:]
        return x[..., first : first + height, first : first + width]

    def _shifted_image(self, x: Tensor, d: list[int]) -> Tensor:
        rows, columns = (
            (torch.arange(n, device=x.device) - by).clamp(0, n - 1)
            for n, by in zip(x.shape[-2:], d, strict=True)
        )
        return x.index_select(-2, rows).index_select(-1, columns)

    def _widened(self, y: Tensor) -> Tensor:
        first = self.side - 1 - self.side // 2
        last = self.side - 1 - first
        return functional.pad(y, (first, last, first, last), mode="replicate")


def _shifted(u: Tensor, d: list[int], *, fill: float) -> Tensor:
    """A kernel (1, h, w) moved down and to the right, with `fill` where nothing comes from."""
    h, w = u.shape[-2:]
    reach = max(abs(d[0]), abs(d[1]))
    wide = functional.pad(u, (reach,) * 4, value=fill)
    return wide[..., reach - d[0] : reach - d[0] + h, reach - d[1] : reach - d[1] + w]
