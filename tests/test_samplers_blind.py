"""Blind-PnPDM: the joint posterior by another Gibbs sampler, shifts, seeds, what does not fit."""

from typing import Self

import pytest
import torch
from torch import Tensor

from measurand.blind import BlindMeasurement, Unknowns
from measurand.measurement import Measurement
from measurand.noises import Gaussian as GaussianNoise
from measurand.operators import (
    Identity,
    LinearOperator,
    OperatorFamily,
    UnknownBlur,
    gaussian_kernel,
)
from measurand.priors import CallableDenoiser, FourierGaussian, Gaussian
from measurand.samplers import BlindDPS, BlindPnPDM, HeunFlow, HeunSDE, PluginBlindPnPDM
from measurand.tensors import generators, per_item

F64 = torch.float64
N, TAPS = 24, 5


class Matrices(LinearOperator):
    """Dense matrices, one per item."""

    items = ("matrix",)

    def __init__(self, matrix: Tensor) -> None:
        super().__init__(matrix.shape[2:], matrix.shape[1:2])
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bij,bj->bi", self.matrix, x)

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.einsum("bij,bi->bj", self.matrix, y)

    def solve(self, b: Tensor, gamma: float | Tensor, **_: object) -> Tensor:
        eye = per_item(gamma, self.matrix) * torch.eye(self.matrix.shape[2]).to(b)
        return torch.linalg.solve(self.matrix.mT @ self.matrix + eye, b)

    @classmethod
    def example(cls) -> Self:
        return cls(torch.eye(3)[None])


def circulant(x: Tensor, columns: int) -> Tensor:
    """Matrices (B, N, columns) whose column j is x moved by j - columns // 2."""
    return torch.stack([x.roll(j - columns // 2, -1) for j in range(columns)], -1)


class Taps(OperatorFamily):
    """The convolution of a periodic signal with five taps."""

    def __init__(self) -> None:
        super().__init__((N,), (TAPS,))

    def at(self, theta: Tensor) -> LinearOperator:
        wide = torch.cat((theta, theta.new_zeros(len(theta), N - TAPS)), 1).roll(-(TAPS // 2), 1)
        return Matrices(torch.stack([wide.roll(j, 1) for j in range(N)], -1))

    def at_image(self, x: Tensor) -> LinearOperator:
        return Matrices(circulant(x, TAPS))


def bilinear_problem() -> tuple[Gaussian, Gaussian, BlindMeasurement]:
    """A smooth periodic signal, five taps that are nearly known, noise 0.1."""
    i = torch.arange(N, dtype=F64)
    gap = (i[:, None] - i).abs()
    gap = torch.minimum(gap, N - gap)
    prior = Gaussian(
        torch.zeros(1, N, dtype=F64), torch.exp(-0.5 * (gap / 1.5) ** 2) + 0.01 * torch.eye(N)
    )
    taps = torch.tensor([[0.1, 0.2, 0.4, 0.2, 0.1]], dtype=F64)
    theta_prior = Gaussian(taps, 0.05**2 * torch.eye(TAPS, dtype=F64))
    generator = torch.Generator().manual_seed(0)
    x, theta = prior.sample(1, generator), theta_prior.sample(1, generator)
    family, noise = Taps(), GaussianNoise(0.1)
    return (
        prior,
        theta_prior,
        BlindMeasurement(family, noise, noise(family.at(theta)(x), generator)),
    )


def conditional(
    prior: Gaussian, matrix: Tensor, y: Tensor, sigma: float, generator: torch.Generator
) -> Tensor:
    """A draw of the exact Gaussian posterior of `y = matrix x + sigma n`, item by item."""
    inverse = torch.linalg.inv(prior.covariance[0])
    precision = matrix.mT @ matrix / sigma**2 + inverse
    right = torch.einsum("bij,bi->bj", matrix, y) / sigma**2 + prior.mean @ inverse
    factor = torch.linalg.cholesky(precision)
    mean = torch.cholesky_solve(right[..., None], factor)
    noise = torch.randn(mean.shape, generator=generator, dtype=F64)
    return (mean + torch.linalg.solve_triangular(factor.mT, noise, upper=True))[..., 0]


def two_block_gibbs(prior, theta_prior, blind, sweeps: int, burn: int) -> list[Unknowns]:
    """The exact sampler of p(x, theta | y), written apart from the package."""
    generator, sigma = torch.Generator().manual_seed(5), float(blind.sigma)
    theta, kept = theta_prior.mean.expand(len(blind), -1), []
    for sweep in range(sweeps):
        x = conditional(prior, blind.family.at(theta).matrix, blind.y, sigma, generator)
        theta = conditional(theta_prior, circulant(x, TAPS), blind.y, sigma, generator)
        if sweep >= burn:
            kept.append(Unknowns(x, theta))
    return kept


def moments(draws: list[Unknowns], part: str) -> tuple[Tensor, Tensor]:
    every = torch.cat([getattr(draw, part) for draw in draws])
    return every.mean(0), every.std(0)


def test_both_unknowns_have_the_posterior_of_an_exact_two_block_sampler():
    prior, theta_prior, one = bilinear_problem()
    blind = one.repeat(100)
    exact = two_block_gibbs(prior, theta_prior, blind, 200, 50)
    grid = HeunSDE(steps=8, sigma_max=0.5, sigma_min=0.003)
    method = BlindPnPDM(
        sweeps=250,
        rho_max=0.1,
        rho_min=0.1,
        theta_rho_max=0.02,
        theta_rho_min=0.02,
        reverse=grid,
        theta_reverse=HeunSDE(steps=8, sigma_max=0.1, sigma_min=0.0005),
        projected=False,
        search=None,
    )
    kept = []

    def keep(step):
        if step.step >= 50:
            kept.append(step.x0)

    start = Unknowns(exact[0].x, exact[0].theta)
    method(blind, prior, theta_prior, x0=start, callback=keep)
    for part in ("x", "theta"):
        (mean, sd), (wanted, wanted_sd) = moments(kept, part), moments(exact, part)
        assert ((mean - wanted) / wanted_sd).square().mean().sqrt() <= 0.5, part
        ratio = (sd / wanted_sd).mean()
        assert 0.75 <= ratio <= 1.3, part


@pytest.mark.parametrize("rho", [0.3, 0.1, 0.03])
def test_prior_step_of_the_parameters_is_a_draw_and_a_flow_is_not(rho):
    _, theta_prior, _ = bilinear_problem()
    wide = Gaussian(
        theta_prior.mean,
        0.1 * torch.tensor([[0.7 ** abs(i - j) for j in range(5)] for i in range(5)], dtype=F64),
    )
    n = 40000
    v = wide.mean.expand(n, -1) + 0.2
    precision = torch.linalg.inv(wide.covariance[0]) + torch.eye(5, dtype=F64) / rho**2
    covariance = torch.linalg.inv(precision)
    mean = wide.mean[0] + covariance @ (v[0] - wide.mean[0]) / rho**2
    for reverse, right in (
        (HeunSDE(30, rho, 1e-3 * rho), True),
        (HeunFlow(30, rho, 1e-3 * rho), False),
    ):
        draws = reverse.descend(
            wide.denoise, v, reverse.levels(rho), torch.Generator().manual_seed(0)
        )
        error = (torch.cov(draws.T) - covariance).norm() / covariance.norm()
        assert (error <= 0.05) == right
        if right:
            off = (draws.mean(0) - mean) / (covariance.diagonal() / n).sqrt()
            # the scheme's own bias is a hundredth of a deviation, 2 standard errors here
            assert off.abs().max() <= 3 + 0.01 * n**0.5


def image_problem(
    items: int = 1,
) -> tuple[FourierGaussian, CallableDenoiser, BlindMeasurement, Unknowns]:
    """A Gaussian image of 32 pixels and a kernel prior that knows a blur of some width."""
    f = torch.meshgrid(*[torch.fft.fftfreq(32, dtype=F64)] * 2, indexing="ij")
    variances = 0.02 / (0.01 + sum(axis**2 for axis in f)) ** 1.3
    prior = FourierGaussian(torch.zeros(1, 1, 32, 32, dtype=F64), variances)
    family = UnknownBlur((1, 32, 32), 9, alpha=0.4)
    mean = family.theta(gaussian_kernel(1.2, 9).double())
    sd = 0.3 * (mean + 1) + 1e-3

    def denoise(v: Tensor, sigma: float | Tensor) -> Tensor:
        w = sd**2 / (sd**2 + torch.as_tensor(sigma) ** 2)
        return mean + w * (v - mean)

    theta_prior = CallableDenoiser(denoise, range=(-1.0, 1.0), dtype=F64)
    generator = torch.Generator().manual_seed(2)
    x = prior.sample(1, generator)
    theta = family.project(mean + sd * torch.randn(mean.shape, generator=generator, dtype=F64))
    x, theta = family.aligned(x, theta)
    noise = GaussianNoise(0.05)
    y = noise(family.at(theta)(x), generator)
    return prior, theta_prior, BlindMeasurement(family, noise, y).repeat(items), Unknowns(x, theta)


def likeness(a: Tensor, b: Tensor) -> float:
    """The cosine of the angle between two kernels."""
    return float((a * b).sum() / (a.norm() * b.norm()))


QUICK = {
    "sweeps": 20,
    "rho_max": 0.5,
    "rho_min": 0.05,
    "theta_rho_max": 0.05,
    "theta_rho_min": 0.003,
    "search": None,
    "reverse": HeunSDE(steps=5, sigma_max=1.0, sigma_min=0.01),
    "theta_reverse": HeunSDE(steps=4, sigma_max=0.3, sigma_min=0.001),
}
METHODS = [BlindPnPDM(**QUICK), PluginBlindPnPDM(**QUICK)]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_the_residual_falls_to_the_noise_and_the_kernel_is_on_the_simplex(method):
    prior, theta_prior, blind, truth = image_problem(4)
    misfits = []

    def watch(step):
        misfits.append(float(blind.misfit(*step.x0).mean()))

    found = method(blind, prior, theta_prior, callback=watch)
    assert all(b <= 1.05 * a for a, b in zip(misfits, misfits[1:], strict=False))
    assert misfits[-1] < misfits[0]
    final = blind.misfit(*found)
    assert ((final >= 0.8) & (final <= 1.25)).all()
    k = blind.family.kernel(found.theta)
    assert k.min() >= 0
    torch.testing.assert_close(k.sum((2, 3)), torch.ones(4, 1, dtype=F64), rtol=0, atol=1e-6)
    true = blind.family.kernel(truth.theta)
    # the pixels of a kernel are independent in this prior: the mean of draws is what is near
    mean = k.mean(0, keepdim=True)
    plain = blind.family.kernel(blind.family.start(blind.y)[1][:1])
    assert likeness(mean, true) > max(0.9, likeness(plain, true))


def test_a_start_that_is_moved_ends_where_the_other_does():
    prior, theta_prior, blind, _ = image_problem()
    family = blind.family
    kernel = torch.zeros(family.side, family.side, dtype=F64)
    center = family.side // 2
    kernel[center - 1 : center + 2, center - 1 : center + 2] = 1 / 9  # moved, it is whole
    start = Unknowns(family.start(blind.y)[0], family.theta(kernel))
    moved = Unknowns(*family.moved([[2, -1]], *start))
    torch.testing.assert_close(blind.misfit(*moved), blind.misfit(*start))
    once = family.aligned(*moved)
    torch.testing.assert_close(once[0], start.x)
    torch.testing.assert_close(once[1], start.theta)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_same_seed_same_bits_and_items_alone_as_among_neighbours(method):
    prior, theta_prior, blind, _ = image_problem(3)
    seeds = generators(3, 3)
    together = method(blind, prior, theta_prior, generator=seeds)
    again = method(blind, prior, theta_prior, generator=generators(3, 3))
    assert torch.equal(together.x, again.x) and torch.equal(together.theta, again.theta)
    alone = method(blind[1], prior, theta_prior, generator=generators(3, 3)[1:2])
    torch.testing.assert_close(together.x[1:2], alone.x, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(together.theta[1:2], alone.theta, rtol=1e-6, atol=1e-6)
    assert (together.x[0] - together.x[2]).abs().max() > 1e-3


def test_blind_dps_comes_near_the_data_and_the_kernel():
    prior, theta_prior, blind, truth = image_problem()
    family = blind.family
    method = BlindDPS(steps=80, sigma_max=10.0, zeta=2.0, zeta_theta=0.03)
    found = method(blind, prior, theta_prior)
    assert blind.misfit(*found) < blind.misfit(*family.start(blind.y))
    k = family.kernel(found.theta)
    assert k.min() >= 0 and likeness(k, family.kernel(truth.theta)) > 0.9
    again = method(blind, prior, theta_prior)
    assert torch.equal(found.x, again.x) and not found.x.requires_grad
    free = BlindDPS(steps=80, sigma_max=10.0, zeta=0.0, zeta_theta=0.0)(blind, prior, theta_prior)
    assert blind.misfit(*free) > 3 * blind.misfit(*found)  # without the pull, the priors alone


def test_what_does_not_fit_is_named():
    prior, theta_prior, blind, _ = image_problem()
    method = BlindPnPDM.quick()
    with pytest.raises(TypeError, match="wanted two"):
        method(blind, prior)
    with pytest.raises(TypeError, match="wanted measurand.BlindMeasurement"):
        m = Measurement(Identity((1, 32, 32)), GaussianNoise(0.1), torch.zeros(1, 1, 32, 32))
        method(m, prior, theta_prior)
    with pytest.raises(TypeError, match="wanted a Denoiser"):
        method(blind, prior, object())
    half = CallableDenoiser(lambda v, sigma: v, range=(0.0, 1.0))
    with pytest.raises(ValueError, match=r"range \(0.0, 1.0\), wanted \(-1, 1\)"):
        method(blind, prior, half)
    bright = BlindMeasurement(blind.family, blind.noise, blind.y + 100)
    with pytest.raises(ValueError, match=r"the prior's images lie in \[0, 1\]"):
        method(bright, half, theta_prior)
    with pytest.raises(ValueError, match="got x0.theta with shape"):
        x, theta = blind.family.start(blind.y)
        method(blind, prior, theta_prior, x0=Unknowns(x, theta[..., :3]))
    with pytest.raises(ValueError, match="sweeps"):
        BlindPnPDM(sweeps=0)
