r"""The exact Gaussian prior, for which every question has a known answer.

For `x ~ N(m, C)` with `C = Q diag(c) Q^H`, each of these is one filter between Q^H and Q:

    denoiser    E[x | v = x + sigma n] = m + C (C + sigma^2)^-1 (v - m)
    score       grad log p_sigma(v)    = -(C + sigma^2)^-1 (v - m)
    prox        argmin -tau log p(x) + 1/2 ||x - v||^2 = the denoiser at sigma^2 = tau
    draw        m + C^(1/2) n

`Gaussian` takes any covariance and keeps its eigenvectors; those of `spectral` are diagonal in an
orthonormal transform and scale to images. A linear measurement `y = A x + s n`
leaves a Gaussian behind, so `prior.given(measurement)` is again a `Gaussian`:

    S = A C A^H + s^2,   mean m + C A^H S^-1 (y - A m),   covariance C - C A^H S^-1 A C,

with the dense matrix of A. Where A is too large for a matrix, `posterior_mean` and
`posterior_sample` solve with S by conjugate gradients; the draw is that of Matheron,
`x' + C A^H S^-1 (y - A x' - s n')` for `x'` from the prior.

Complex images are circular: `C` is Hermitian, and n has unit variance in each real component, as
noise has everywhere here.

References:
    | Pattern Recognition and Machine Learning, section 2.3 (Bishop, 2006)
    | Bayesian Learning for Inverse Problems by Posterior Sampling (Hoffman & Ribak, 1991)
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from ..linalg import cg
from ..operators.base import LinearOperator
from ..tensors import Generators, as_generators, inner, per_item, randn_like
from .brief import one_line
from .dense import affordable, apply, columns, matrix

__all__ = ["EigenGaussian", "Gaussian", "LinearGaussian"]


class LinearGaussian(Protocol):
    """What an exact posterior needs to know of a measurement."""

    y: Tensor
    operator: LinearOperator

    @property
    def sigma(self) -> Tensor: ...

    def __len__(self) -> int: ...


class EigenGaussian(nn.Module, ABC):
    """`N(mean, Q diag(variances) Q^H)`; a subclass knows Q.

    The mean and the variances have a leading axis of 1, or of B for one distribution per item.
    """

    not_by_name: ClassVar[str] = "is made of a mean and a covariance: use it in Python"

    mean: Tensor
    variances: Tensor
    range: tuple[float, float] | None = None

    def __init__(self, mean: Tensor, variances: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("variances", variances)

    @abstractmethod
    def analysis(self, x: Tensor) -> Tensor:
        """The coefficients `Q^H x` of a batch."""

    @abstractmethod
    def synthesis(self, coefficients: Tensor) -> Tensor:
        """The batch `Q c`, with shape (B, *shape)."""

    @property
    def dtype(self) -> torch.dtype:
        """Kind and precision of the images."""
        return self.mean.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image, without the batch axis."""
        return tuple(self.mean.shape[1:])

    @property
    def covariance(self) -> Tensor:
        """The dense covariance, with shape (1 or B, n, n)."""
        n = affordable(math.prod(self.shape), math.prod(self.shape))
        eye = torch.eye(n, dtype=self.dtype, device=self.mean.device).reshape(n, *self.shape)
        # row j of the batch is C e_j: the transpose of C
        found = [self.synthesis(c * self.analysis(eye)).reshape(n, n) for c in self.variances]
        return torch.stack(found).mT

    def covariance_times(self, x: Tensor) -> Tensor:
        """The product `C x`, with the shape of `x`."""
        return self.synthesis(self.variances * self.analysis(x))

    def denoise(self, v: Tensor, sigma: float | Tensor, condition: Tensor | None = None) -> Tensor:
        """The posterior mean `E[x | v = x + sigma n]`.

        Args:
            v: Noisy image, with shape (B, *shape).
            sigma: Noise standard deviation, a scalar or one per item.
            condition: Not used.
        Returns:
            The estimate, with the shape of `v`.
        """
        return self.prox(v, sigma**2)

    forward = denoise
    __repr__ = one_line

    def extra_repr(self) -> str:
        return f"shape={self.shape}"

    def prox(self, v: Tensor, tau: float | Tensor) -> Tensor:
        """The proximal map of `-log p`, `argmin_x -tau log p(x) + 1/2 ||x - v||^2`.

        Args:
            v: Where to stay near, with shape (B, *shape).
            tau: Weight, a scalar or one per item.
        Returns:
            The minimiser, with the shape of `v`.
        """
        c = self.analysis(v - self.mean)
        total = self.variances + per_item(tau, c)
        gain = self.variances / total.clamp_min(torch.finfo(total.dtype).tiny)
        return self.mean + self.synthesis(gain * c)

    def score(self, v: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """The score `grad log p_sigma(v)` of the image with noise, with the shape of `v`."""
        c = self.analysis(v - self.mean)
        return -self.synthesis(c / (self.variances + per_item(sigma, c).square()))

    def log_prob(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """The log-density of the image, or of the image with noise.

        Args:
            x: Image, with shape (B, *shape).
            sigma: Noise standard deviation, a scalar or one per item.
        Returns:
            One number per item, with shape (B,). A singular covariance has a density only where
            sigma > 0.
        """
        c = self.analysis(x - self.mean)
        total = (self.variances + per_item(sigma, c).square()).expand(c.shape)
        return _log_normal(inner(c / total, c), total.log().flatten(1).sum(1), x[0])

    def divergence(self, other: "EigenGaussian", sigma: float = 0.0) -> float:
        """The Kullback-Leibler divergence `KL(p_sigma || q_sigma)` from this density p to q.

        Builds dense covariances: for small images.

        Args:
            other: The density q, of images of the same shape and kind.
            sigma: Noise standard deviation in both.
        """
        if (other.shape, other.dtype.is_complex) != (self.shape, self.dtype.is_complex):
            raise ValueError(
                f"divergence: got densities of images {self.shape} and {other.shape}, wanted one "
                "shape and kind"
            )
        if max(len(self.mean), len(self.variances), len(other.mean), len(other.variances)) > 1:
            raise ValueError("divergence: got several densities, wanted one and one")
        wide = torch.complex128 if self.dtype.is_complex else torch.float64
        eye = torch.eye(math.prod(self.shape), dtype=wide, device=self.mean.device)
        p = self.covariance[0].to(wide) + sigma**2 * eye
        q = other.covariance[0].to(wide) + sigma**2 * eye
        lower = torch.linalg.cholesky(q)
        # with 1 + e the eigenvalues of q^-1 p: e - log(1 + e) keeps its digits where p is near q
        half = torch.linalg.solve_triangular(lower, p - q, upper=False)
        change = torch.linalg.solve_triangular(lower, half.mH, upper=False)
        e = torch.linalg.eigvalsh((change + change.mH) / 2)
        away = (self.mean[0] - other.mean[0]).to(wide).reshape(-1, 1)
        white = torch.linalg.solve_triangular(lower, away, upper=False)
        parts = 2 if self.dtype.is_complex else 1
        return float(parts * (e - e.log1p()).sum() + white.abs().square().sum()) / 2

    def sample(self, n: int = 1, generator: Generators = None) -> Tensor:
        """Draws, with shape (n, *shape)."""
        return self.color(randn_like(self.mean[:1].expand(n, *self.shape), generator))

    def color(self, noise: Tensor) -> Tensor:
        """The draws `m + C^(1/2) n` that belong to given white noise, with its shape."""
        return self.mean + self.synthesis(self.variances.sqrt() * self.analysis(noise))

    def given(self, measurement: LinearGaussian) -> "Gaussian":
        """The exact posterior under a linear measurement with Gaussian noise.

        Builds the dense matrix of the operator: for small problems.

        Args:
            measurement: What was seen.
        Returns:
            The posterior, one Gaussian per item, with `mean` (B, *shape) and `covariance`.
        """
        return self.condition(measurement)[0]

    def log_evidence(self, measurement: LinearGaussian) -> Tensor:
        """The log-density `log p(y)` of the data under the prior, with shape (B,)."""
        return self.condition(measurement)[1]

    def posterior_mean(
        self, measurement: LinearGaussian, *, tol: float = 1e-8, max_iter: int = 1000
    ) -> Tensor:
        """The exact posterior mean by conjugate gradients, for images.

        Args:
            measurement: What was seen, linear with Gaussian noise.
            tol: Relative residual at which to stop.
            max_iter: Largest number of iterations.
        Returns:
            The mean, with shape (B, *shape).
        """
        start = self.mean.expand(len(measurement), *self.shape)
        return self._correct(start, measurement.y, measurement, tol, max_iter)

    def posterior_sample(
        self,
        measurement: LinearGaussian,
        generator: Generators = None,
        *,
        tol: float = 1e-8,
        max_iter: int = 1000,
    ) -> Tensor:
        """Exact posterior draws by conjugate gradients, one per item, for images.

        Args:
            measurement: What was seen, linear with Gaussian noise.
            generator: One generator, one per item, or None for seed 0.
            tol: Relative residual at which to stop.
            max_iter: Largest number of iterations.
        Returns:
            The draws, with shape (B, *shape).
        """
        y = measurement.y
        generator = as_generators(generator, y)
        x = self.sample(len(y), generator)
        noise = per_item(measurement.sigma, y) * randn_like(y, generator)
        return self._correct(x, y - noise, measurement, tol, max_iter)

    def _correct(
        self, x: Tensor, y: Tensor, measurement: LinearGaussian, tol: float, max_iter: int
    ) -> Tensor:
        """The point `x + C A^H S^-1 (y - A x)`."""
        operator, variance = measurement.operator, per_item(measurement.sigma, y).square()

        def evidence_covariance(z: Tensor) -> Tensor:
            return operator(self.covariance_times(operator.H(z))) + variance * z

        z = cg(evidence_covariance, y - operator(x), tol=tol, max_iter=max_iter)
        return x + self.covariance_times(operator.H(z))

    def condition(self, measurement: LinearGaussian) -> tuple["Gaussian", Tensor]:
        """The posterior and the log-evidence: what `given` and `log_evidence` return."""
        sigma = measurement.sigma.to(self.mean.real.dtype).reshape(-1, 1)
        if not bool((sigma > 0).all()):
            raise ValueError(f"{type(self).__name__}.given: got sigma = 0, wanted noise")
        A = matrix(measurement.operator, self.dtype)  # noqa: N806 (the field's symbol)
        C = self.covariance  # noqa: N806
        mean = self.mean.flatten(1)
        y = columns(measurement.y, self.dtype)
        CAh = C @ A.mH  # noqa: N806
        S = A @ CAh  # noqa: N806
        S = S + torch.diag_embed((sigma**2).expand(-1, S.shape[-1])).to(S.dtype)  # noqa: N806
        lower = torch.linalg.cholesky(S)
        residual = (y - apply(A, mean)).unsqueeze(-1)
        white = torch.linalg.solve_triangular(lower, residual, upper=False)
        gain = torch.cholesky_solve(CAh.mH, lower).mH  # C A^H S^-1
        mean = mean + (gain @ residual).squeeze(-1)
        logdet = 2 * lower.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
        evidence = _log_normal(inner(white, white), logdet, y[0])
        # Joseph's form: symmetric and positive whatever the rounding
        left = torch.eye(A.shape[-1], dtype=C.dtype, device=C.device) - gain @ A
        covariance = left @ C @ left.mH + sigma.unsqueeze(-1) ** 2 * (gain @ gain.mH)
        return Gaussian(mean.reshape(-1, *self.shape), covariance), evidence

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """A tiny instance for images of shape (1, 8, 8), on which the laws are tested."""


class Gaussian(EigenGaussian):
    """The normal distribution with any mean and covariance.

    Args:
        mean: Mean, with shape (1 or B, *shape); real or complex.
        covariance: Symmetric (Hermitian) positive semi-definite matrix of the flattened image,
            per real component, with shape (n, n), or (1 or B, n, n).
    """

    basis: Tensor

    def __init__(self, mean: Tensor, covariance: Tensor) -> None:
        n = mean[0].numel()
        if covariance.ndim not in (2, 3) or covariance.shape[-2:] != (n, n):
            raise ValueError(
                f"Gaussian: got a mean with shape {tuple(mean.shape)} and a covariance with shape "
                f"{tuple(covariance.shape)}, wanted ({n}, {n}), or one of them per item"
            )
        variances, basis = torch.linalg.eigh((covariance + covariance.mH) / 2)
        rounding = 1e3 * torch.finfo(variances.dtype).eps * variances.abs().max()
        if not bool((covariance - covariance.mH).abs().max() <= rounding):
            raise ValueError("Gaussian: the covariance is not symmetric (Hermitian) and finite")
        if bool(variances.min() < -rounding):
            raise ValueError(
                f"Gaussian: the covariance has an eigenvalue {float(variances.min()):.3g}, wanted "
                "none below zero"
            )
        super().__init__(mean, variances.clamp_min(0).reshape(-1, n))
        self.register_buffer("basis", basis.reshape(-1, n, n).to(mean.dtype))

    def analysis(self, x: Tensor) -> Tensor:
        return apply(self.basis.mH, x.flatten(1))

    def synthesis(self, coefficients: Tensor) -> Tensor:
        return apply(self.basis, coefficients.to(self.dtype)).reshape(-1, *self.shape)

    @property
    def covariance(self) -> Tensor:
        return (self.basis * self.variances.unsqueeze(-2)) @ self.basis.mH

    @classmethod
    def example(cls) -> Self:
        place = torch.arange(64.0)
        covariance = 0.2 * torch.exp(-(place - place[:, None]).abs() / 4)
        return cls(0.1 * torch.ones(1, 1, 8, 8), covariance)


def _log_normal(quadratic: Tensor, logdet: Tensor, like: Tensor) -> Tensor:
    """The log-density of a normal vector; a complex one is two real ones of equal variance."""
    parts = 2 if like.is_complex() else 1
    return -0.5 * (quadratic + parts * (logdet + like.numel() * math.log(2 * math.pi)))
