r"""Problems with known answers, on which samplers are judged before any picture is.

`gaussian_problem`: a correlated Gaussian image of 6 pixels, prior covariance `0.7^|i - j|`, four
measurements with noise 0.3. The posterior is Gaussian.

`mixture_problem`: two modes in 4 dimensions, of equal weight and variance 0.12, and a measurement
that favours one of them: its exact posterior weight is 0.761. The split target of PnP-DM at
coupling rho, `p(x) N(y; A x, sigma^2 + rho^2 A A^T)`, weighs it 0.692 / 0.629 / 0.550 at rho
0.3 / 0.5 / 1.

`spread_errors` gives the three numbers of the table in docs/methods/samplers.md.
"""

from typing import Self

import torch
from torch import Tensor

from measurand.measurement import Measurement
from measurand.noises import Gaussian as GaussianNoise
from measurand.operators.base import LinearOperator
from measurand.priors import Gaussian, GaussianMixture
from measurand.tensors import per_item

ROWS = (
    (-0.1, -0.3, -0.3, -0.1, -0.1, -0.1),
    (0.4, 0.5, 0.0, 0.2, 0.2, 0.5),
    (0.7, -0.2, -0.4, -0.1, -0.8, -0.1),
    (-0.1, 1.0, -0.2, 0.4, 0.1, 0.4),
)
DATA = (-0.25, 0.49, -0.19, 1.23)
MODE = (0.8, 1.1, 0.0, 0.0)


class Matrix(LinearOperator):
    """A dense matrix between vectors, real or complex; its answers are exact.

    Args:
        matrix: The matrix, with shape (m, n).
    """

    def __init__(self, matrix: Tensor) -> None:
        kind = torch.complex64 if matrix.is_complex() else torch.float32
        super().__init__((matrix.shape[1],), (matrix.shape[0],), kind, kind)
        self.register_buffer("matrix", matrix)
        values, basis = torch.linalg.eigh(matrix.mH @ matrix)
        self.register_buffer("values", values.clamp_min(0))
        self.register_buffer("basis", basis)

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix.mT

    def adjoint(self, y: Tensor) -> Tensor:
        return y @ self.matrix.conj()

    def solve(self, b: Tensor, gamma: float | Tensor, **_: object) -> Tensor:
        return (b @ self.basis.conj() / (self.values + per_item(gamma, b))) @ self.basis.mT

    @classmethod
    def example(cls) -> Self:
        return cls(torch.eye(3)[:2])


def one_generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian_problem(
    matrix: Tensor | None = None, sigma: float = 0.3
) -> tuple[Gaussian, Measurement]:
    """The Gaussian prior and the measurement of the 6-pixel problem, in float64."""
    i = torch.arange(6, dtype=torch.float64)
    prior = Gaussian(torch.zeros(1, 6, dtype=torch.float64), 0.7 ** (i[:, None] - i).abs())
    if matrix is None:
        matrix, y = torch.tensor(ROWS, dtype=torch.float64), torch.tensor([DATA])
    else:
        y = torch.linspace(-1, 1, len(matrix)).reshape(1, -1)
    return prior, Measurement(Matrix(matrix), GaussianNoise(sigma), y.double())


def mixture_problem() -> tuple[GaussianMixture, Measurement]:
    """The mixture prior and the measurement of the two-mode problem, in float64."""
    mode, eye = torch.tensor([MODE], dtype=torch.float64), torch.eye(4, dtype=torch.float64)
    prior = GaussianMixture(
        torch.tensor([0.5, 0.5], dtype=torch.float64),
        [Gaussian(mode, 0.12 * eye), Gaussian(-mode, 0.12 * eye)],
    )
    y = torch.tensor([[0.152, 0.1]], dtype=torch.float64)
    return prior, Measurement(Matrix(eye[[0, 2]]), GaussianNoise(0.3), y)


def first_mode(x: Tensor) -> float:
    """The share of draws that lie in the first mode of the two-mode problem."""
    return float((x @ torch.tensor(MODE, dtype=x.dtype) > 0).double().mean())


def split_target(
    prior: Gaussian | GaussianMixture, measurement: Measurement, rho: float
) -> Gaussian | GaussianMixture:
    """What PnP-DM at a fixed coupling samples: the posterior under noise `sigma^2 + rho^2 A A^T`.

    The data and the matrix are whitened by the Cholesky factor of that covariance, which makes
    them a measurement with unit noise again.
    """
    A = measurement.operator.matrix
    eye = torch.eye(len(A), dtype=A.dtype)
    covariance = measurement.sigma.double() ** 2 * eye + rho**2 * A @ A.mT
    white = torch.linalg.inv(torch.linalg.cholesky(covariance))
    return prior.given(
        Measurement(Matrix(white @ A), GaussianNoise(1.0), measurement.y @ white.mT)
    )


def spread_errors(x: Tensor, exact: Gaussian) -> tuple[float, float, float]:
    """How far draws are from a Gaussian.

    Args:
        x: Draws, with shape (N, n).
        exact: The distribution they should have.
    Returns:
        The error of the mean in standard deviations (root mean square over pixels), the relative
        error of the covariance in the Frobenius norm, and the ratio of the traces (1 is right).
    """
    mean, covariance = exact.mean[0], exact.covariance[0]
    off = (x.mean(0) - mean) / covariance.diagonal().sqrt()
    found = torch.cov(x.T)
    error = (found - covariance).norm() / covariance.norm()
    ratio = found.trace() / covariance.trace()
    return float(off.square().mean().sqrt()), float(error), float(ratio)
