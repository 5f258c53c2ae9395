r"""A lens out of focus, by how much is unknown: blur by a disk of one of J radii.

The radius r acts on the data in no linear way, the choice of one of J radii does:

    A(theta) x = sum_j theta_j (d_j * x),        theta one of the J unit vectors,

with the uniform disk d_j of radius r_j. That is bilinear in theta and x, so that both likelihood
steps of a blind sampler stay Gaussian, and the prior is exact: for a unit vector seen in noise,
`v = theta + sigma n`, with equally likely radii,

    E[theta | v] = softmax(v / sigma^2).

Nothing wraps around: the scene goes on beyond the frame (see `ValidBlur`).
"""

from typing import Any, Self

import torch
from torch import Tensor

from .base import LinearOperator, Shape
from .boundaries import ValidBlur
from .families import BlurFamily
from .kernels import disk_kernel
from .unknown_blur import UnknownValidBlur

__all__ = ["OneOf", "UnknownDefocus"]


class OneOf:
    """The prior of a choice: unit vectors of J components, all equally likely.

    Attributes:
        range: Range of the components.
        dtype: Their dtype.
    """

    range = (0.0, 1.0)
    dtype = torch.float32

    def denoise(self, v: Tensor, sigma: float | Tensor, condition: Tensor | None = None) -> Tensor:
        """Return `E[theta | v] = softmax(v / sigma^2)`, with the shape (B, J) of `v`."""
        level = torch.as_tensor(sigma, dtype=v.dtype, device=v.device).reshape(-1, 1)
        return torch.softmax(v / level**2, -1)


class UnknownDefocus(BlurFamily):
    """Blur of a photograph by a disk of unknown radius, as a camera out of focus makes it.

    Args:
        shape: Shape (C, H, W) of one image with its margins: `2 ceil(largest - 1/2)` rows and
            columns more than the photograph.
        largest: Largest radius, in pixels.
        step: Radii are the multiples of this from 1/2 up, in pixels.
    """

    command = "unknown-defocus"
    couplings = (0.3, 0.05)

    def __init__(self, shape: Shape, largest: float = 10.0, step: float = 0.5) -> None:
        if not (step > 0 and 1 <= largest <= 1000):
            raise ValueError(
                f"UnknownDefocus: got largest = {largest} and step = {step}, wanted a largest "
                "radius of 1 to 1000 pixels, and a positive step"
            )
        side = len(disk_kernel(largest))
        self.frame = UnknownValidBlur(shape, side)  # margins are those of any blur of this size
        n = int((largest - 0.5) / step + 1e-9) + 1
        super().__init__(shape, (n,), self.frame.out_shape)
        self.radii = [0.5 + step * j for j in range(n)]
        self.side = side
        self.disks = torch.stack([disk_kernel(r, side) for r in self.radii])[:, None]

    def kernel(self, theta: Tensor) -> Tensor:
        return self._mixed(self.project(theta))

    def theta(self, kernel: Tensor) -> Tensor:
        """Return the disk that is nearest to a kernel, by their correlation."""
        k = self.frame.kernel(self.frame.theta(kernel)).flatten(1)
        disks = self.disks.to(k).flatten(1)
        like = k @ (disks / disks.norm(dim=1, keepdim=True)).T
        return torch.nn.functional.one_hot(like.argmax(1), len(disks)).to(k)

    def radius(self, theta: Tensor) -> Tensor:
        """Return the radii, in pixels, with shape (B,)."""
        return torch.tensor(self.radii, device=theta.device)[theta.argmax(1)]

    def at(self, theta: Tensor) -> LinearOperator:
        return ValidBlur(self.in_shape, self._mixed(theta))

    def at_image(self, x: Tensor) -> "Blurred":
        every = ValidBlur(self.in_shape, self.disks.to(x))
        return Blurred(torch.stack([every[j](x) for j in range(len(self.disks))], 1))

    def project(self, theta: Tensor) -> Tensor:
        """Return the unit vector of the largest component."""
        return torch.nn.functional.one_hot(theta.argmax(1), theta.shape[1]).to(theta)

    def start(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the data as the image, and the smallest disk."""
        theta = torch.zeros(len(y), *self.theta_shape).to(y)
        theta[:, 0] = 1
        return self.frame.start(y)[0], theta

    def fitted(self, x: Tensor, y: Tensor, sigma: Tensor, doubt: float) -> Tensor:
        """Return the radius of the least squared residual, all being equally likely."""
        blurred = self.at_image(x).columns
        size = self.disks.square().sum((1, 2, 3)).to(y)
        cost = (y[:, None] - blurred).square().flatten(2).sum(2) + y[0].numel() * doubt**2 * size
        return torch.nn.functional.one_hot(cost.argmin(1), len(size)).to(y)

    def periodic(self, y: Tensor) -> Tensor:
        return self.frame.periodic(y)

    def framed(self, x: Tensor) -> Tensor:
        return self.frame.framed(x)

    def default_prior(self) -> OneOf:
        """Return the exact prior of equally likely radii."""
        return OneOf()

    @classmethod
    def image_shape(cls, y_shape: Shape, largest: float) -> Shape:  # type: ignore[override]
        return UnknownValidBlur.image_shape(y_shape, len(disk_kernel(largest)))

    def _mixed(self, theta: Tensor) -> Tensor:
        return torch.einsum("bj,jchw->bchw", theta, self.disks.to(theta))


class Blurred(LinearOperator):
    """Sums of blurred images, `theta -> sum_j theta_j b_j`: a matrix of J columns.

    Args:
        columns: The blurred images b_j, with shape (B, J, C, H, W).
    """

    items = ("columns",)
    columns: Tensor

    def __init__(self, columns: Tensor) -> None:
        super().__init__(tuple(columns.shape[1:2]), tuple(columns.shape[2:]))
        self.register_buffer("columns", columns)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bj,bj...->b...", x, self.columns.expand(len(x), *[-1] * 4))

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.einsum("bjchw,bchw->bj", self.columns.expand(len(y), *[-1] * 4), y)

    def solve(self, b: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        """The solution of `(A^H A + gamma) theta = b`, dense and in double precision."""
        matrix = self.columns.flatten(2).double()
        weight = torch.as_tensor(gamma, dtype=torch.float64, device=b.device).reshape(-1, 1, 1)
        normal = matrix @ matrix.mT + weight * torch.eye(matrix.shape[1]).to(matrix)
        return torch.linalg.solve(normal, b.double()[..., None])[..., 0].to(b.dtype)

    @classmethod
    def example(cls) -> Self:
        return cls(torch.randn(2, 3, 1, 5, 4, generator=torch.Generator().manual_seed(0)))
