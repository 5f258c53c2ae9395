"""Exact priors against independent computations: densities, quadrature, dense algebra, moments."""

import math

import pytest
import torch
from scipy import fft as scipy_fft
from scipy.stats import multivariate_normal

from measurand.measurement import Measurement
from measurand.noises import ComplexGaussian
from measurand.noises import Gaussian as GaussianNoise
from measurand.operators.base import LinearOperator
from measurand.priors import CosineGaussian, FourierGaussian, Gaussian, GaussianMixture
from measurand.priors.capabilities import Denoiser, Density, Proximable
from measurand.priors.dense import matrix
from measurand.tensors import generators, randn_like

F64, C128 = torch.float64, torch.complex128


class Matrix(LinearOperator):
    """A dense matrix on flattened images, one for all or one per item."""

    items = ("entries",)

    def __init__(self, entries, in_shape):
        kind = torch.complex64 if entries.is_complex() else torch.float32
        super().__init__(in_shape, (entries.shape[1],), kind, kind)
        self.register_buffer("entries", entries)

    def forward(self, x):
        return (self.entries @ x.flatten(1).unsqueeze(-1)).squeeze(-1)

    def adjoint(self, y):
        return (self.entries.mH @ y.unsqueeze(-1)).squeeze(-1).reshape(-1, *self.in_shape)

    @classmethod
    def example(cls):
        return cls(torch.ones(1, 2, 4), (1, 2, 2))


def random(*shape, seed=0, dtype=F64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def random_covariance(n, seed=0, dtype=F64):
    a = random(n, n, seed=seed, dtype=dtype)
    return a @ a.mH / n + 0.1 * torch.eye(n, dtype=dtype)


def symmetric_spectrum(*shape):
    f = torch.meshgrid(*[torch.fft.fftfreq(n, dtype=F64) for n in shape], indexing="ij")
    return 1 / (0.05 + sum(axis**2 for axis in f)) ** 1.5


def example_priors():
    mean = random(1, 2, 3, 4, seed=1)
    return {
        "dense": Gaussian(mean, random_covariance(24)),
        "fourier": FourierGaussian(mean, symmetric_spectrum(3, 4)),
        "cosine": CosineGaussian(mean, random(2, 3, 4).square()),
    }


PRIORS = example_priors()


@pytest.fixture(params=PRIORS)
def prior(request):
    return PRIORS[request.param]


def test_they_are_denoisers_densities_and_proximable(prior):
    assert isinstance(prior, Denoiser) and isinstance(prior, Density)
    assert isinstance(prior, Proximable)
    assert prior.range is None and prior.dtype == F64 and prior.shape == (2, 3, 4)


def test_basis_is_orthonormal(prior):
    x = random(3, *prior.shape)
    c = prior.analysis(x)
    assert torch.allclose(prior.synthesis(c), x, atol=1e-12)
    assert torch.allclose(c.abs().square().flatten(1).sum(1), x.square().flatten(1).sum(1))


def test_cosine_transform_is_scipys():
    x = random(2, 1, 5, 6)
    prior = CosineGaussian(torch.zeros(1, 1, 5, 6, dtype=F64), torch.ones(5, 6, dtype=F64))
    expected = scipy_fft.dctn(x.numpy(), axes=(2, 3), norm="ortho")
    assert torch.allclose(prior.analysis(x), torch.from_numpy(expected), atol=1e-12)


@pytest.mark.parametrize("sigma", [0.0, 0.3, 5.0])
def test_density_score_and_denoiser_against_dense_formulas(prior, sigma):
    x = random(3, *prior.shape, seed=2)
    mean, C = prior.mean.flatten(), prior.covariance[0]
    noisy = C + sigma**2 * torch.eye(24, dtype=F64)
    oracle = multivariate_normal(mean.numpy(), noisy.numpy())
    found = prior.log_prob(x, sigma)
    assert torch.allclose(found, torch.from_numpy(oracle.logpdf(x.flatten(1).numpy())), rtol=1e-9)

    x.requires_grad_()
    (gradient,) = torch.autograd.grad(prior.log_prob(x, sigma).sum(), x)
    assert torch.allclose(prior.score(x, sigma), gradient, atol=1e-10)

    x = x.detach()
    expected = mean + (x.flatten(1) - mean) @ torch.linalg.solve(noisy, C)
    assert torch.allclose(prior.denoise(x, sigma).flatten(1), expected, atol=1e-10)
    # Tweedie
    assert torch.allclose(prior.denoise(x, sigma), x + sigma**2 * gradient, atol=1e-10)
    assert torch.allclose(prior.prox(x, sigma**2), prior.denoise(x, sigma), atol=1e-12)


def test_one_level_per_item(prior):
    x, sigmas = random(3, *prior.shape), torch.tensor([0.1, 0.7, 2.0], dtype=F64)
    together = prior.denoise(x, sigmas)
    for i, sigma in enumerate(sigmas.tolist()):
        assert torch.allclose(together[i], prior.denoise(x[i : i + 1], sigma)[0], atol=1e-12)


def test_draws_have_the_mean_and_covariance(prior):
    n = 20_000
    x = prior.sample(n, torch.Generator().manual_seed(3)).flatten(1)
    C = prior.covariance[0]
    error = (x.mean(0) - prior.mean.flatten()) / C.diagonal().clamp_min(1e-3).sqrt()
    assert error.abs().max() < 5 / math.sqrt(n)
    assert torch.linalg.norm(torch.cov(x.T) - C) < 0.05 * torch.linalg.norm(C)


def test_draws_belong_to_their_items(prior):
    five = prior.sample(5, generators(7, 5))
    two = prior.sample(2, generators(7, 5)[3:])
    assert torch.allclose(five[3:], two, rtol=0, atol=1e-12)


@pytest.mark.parametrize("per_item", [False, True])
def test_posterior_against_the_information_form(prior, per_item):
    batch = 3
    A = Matrix(random(batch if per_item else 1, 7, 24, seed=4), prior.shape)
    sigma = torch.tensor([0.3, 0.5, 0.9]) if per_item else 0.3
    m = Measurement(A, GaussianNoise(sigma), random(batch, 7, seed=5))
    posterior = prior.given(m)
    precision = torch.linalg.inv(prior.covariance[0] + 1e-9 * torch.eye(24, dtype=F64))
    for i in range(batch):
        M, s = m[i].operator.entries[0], float(m[i].sigma.max())
        C = torch.linalg.inv(precision + M.T @ M / s**2)
        mean = C @ (precision @ prior.mean.flatten() + M.T @ m.y[i] / s**2)
        got = posterior.covariance[i if len(posterior.covariance) > 1 else 0]
        assert torch.allclose(got, C, atol=1e-6)
        assert torch.allclose(posterior.mean[i].flatten(), mean, atol=1e-6)
    assert torch.allclose(prior.posterior_mean(m, tol=1e-13), posterior.mean, atol=1e-9)


def test_evidence_is_the_density_of_the_data(prior):
    A = Matrix(random(1, 7, 24, seed=4), prior.shape)
    m = Measurement(A, GaussianNoise(0.5), random(3, 7, seed=5))
    M = A.entries[0]
    S = M @ prior.covariance[0] @ M.T + 0.25 * torch.eye(7, dtype=F64)
    oracle = multivariate_normal((M @ prior.mean.flatten()).numpy(), S.numpy())
    assert torch.allclose(prior.log_evidence(m), torch.from_numpy(oracle.logpdf(m.y.numpy())))


def test_posterior_draws_without_a_matrix_agree_with_the_posterior(prior):
    n = 8_000
    A = Matrix(random(1, 7, 24, seed=4), prior.shape)
    m = Measurement(A, GaussianNoise(0.5), random(1, 7, seed=5)).repeat(n)
    posterior = prior.given(m[0])
    x = prior.posterior_sample(m, torch.Generator().manual_seed(0), tol=1e-9).flatten(1)
    error = (x.mean(0) - posterior.mean.flatten()) * math.sqrt(n)
    assert (error.abs() / posterior.covariance[0].diagonal().clamp_min(1e-3).sqrt()).max() < 5
    gap = torch.linalg.norm(torch.cov(x.T) - posterior.covariance[0])
    assert gap < 0.06 * torch.linalg.norm(posterior.covariance[0])


def test_a_posterior_is_a_prior_for_the_next_measurement():
    prior = PRIORS["dense"]
    A = Matrix(random(1, 10, 24, seed=4), prior.shape)
    y = random(2, 10, seed=5)
    whole = prior.given(Measurement(A, GaussianNoise(0.4), y))
    first, second = (
        Measurement(Matrix(A.entries[:, rows], prior.shape), GaussianNoise(0.4), y[:, rows])
        for rows in (slice(4), slice(4, 10))
    )
    steps = prior.given(first).given(second)
    assert torch.allclose(steps.mean, whole.mean, atol=1e-10)
    assert torch.allclose(steps.covariance, whole.covariance, atol=1e-10)


def complex_problem():
    mean = random(1, 1, 2, 2, seed=1, dtype=C128)
    C = random_covariance(4, dtype=C128)
    A = Matrix(random(1, 3, 4, seed=4, dtype=C128), (1, 2, 2))
    y = random(2, 3, seed=5, dtype=C128)
    return Gaussian(mean, C), Measurement(A, ComplexGaussian(0.4), y)


def as_real(M):
    """A complex matrix acting on (real parts, imaginary parts)."""
    return torch.cat((torch.cat((M.real, -M.imag), -1), torch.cat((M.imag, M.real), -1)), -2)


def stacked(x):
    flat = x.flatten(1)
    return torch.cat((flat.real, flat.imag), 1)


def test_complex_prior_is_a_real_one_of_twice_the_size():
    prior, m = complex_problem()
    real = Gaussian(stacked(prior.mean), as_real(prior.covariance[0]))
    x = random(3, 1, 2, 2, seed=8, dtype=C128)
    assert torch.allclose(prior.log_prob(x, 0.3), real.log_prob(stacked(x), 0.3))
    assert torch.allclose(stacked(prior.denoise(x, 0.3)), real.denoise(stacked(x), 0.3))
    A = Matrix(as_real(m.operator.entries[0])[None], (8,))
    expected = real.given(Measurement(A, GaussianNoise(0.4), stacked(m.y)))
    posterior = prior.given(m)
    assert torch.allclose(stacked(posterior.mean), expected.mean, atol=1e-10)
    assert torch.allclose(as_real(posterior.covariance[0]), expected.covariance[0], atol=1e-10)
    evidence = real.log_evidence(Measurement(A, GaussianNoise(0.4), stacked(m.y)))
    assert torch.allclose(prior.log_evidence(m), evidence)
    assert torch.allclose(prior.posterior_mean(m, tol=1e-13), posterior.mean, atol=1e-9)


def test_complex_draws_have_unit_noise_per_component():
    prior, _ = complex_problem()
    x = stacked(prior.sample(20_000, torch.Generator().manual_seed(0)))
    expected = as_real(prior.covariance[0])
    assert torch.linalg.norm(torch.cov(x.T) - expected) < 0.04 * torch.linalg.norm(expected)


class Fourier(LinearOperator):
    """Real images, complex data: the first columns of k-space."""

    def __init__(self):
        super().__init__((1, 3, 4), (1, 3, 2), torch.float32, torch.complex64)

    def forward(self, x):
        return torch.fft.fft2(x, norm="ortho")[..., :2]

    def adjoint(self, y):
        full = torch.nn.functional.pad(y, (0, 2))
        return torch.fft.ifft2(full, norm="ortho").real

    @classmethod
    def example(cls):
        return cls()


def test_real_images_with_complex_data():
    A = Fourier()
    M = matrix(A, F64)[0]
    x = random(2, 1, 3, 4, seed=6)
    data = A(x)
    pairs = torch.view_as_real(data).flatten(1)
    assert torch.allclose(x.flatten(1) @ M.T, pairs, atol=1e-12)
    prior = Gaussian(torch.zeros(1, 1, 3, 4, dtype=F64), random_covariance(12))
    m = Measurement(A, ComplexGaussian(0.2), data)
    assert torch.allclose(prior.posterior_mean(m, tol=1e-13), prior.given(m).mean, atol=1e-9)


def test_bad_covariances_are_refused():
    mean = torch.zeros(1, 3, dtype=F64)
    with pytest.raises(ValueError, match="eigenvalue"):
        Gaussian(mean, torch.diag(torch.tensor([1.0, 1.0, -0.5], dtype=F64)))
    with pytest.raises(ValueError, match="symmetric"):
        Gaussian(mean, torch.eye(3, dtype=F64) + torch.tensor([[0, 1.0, 0], [0] * 3, [0] * 3]))
    with pytest.raises(ValueError, match=r"wanted \(3, 3\)"):
        Gaussian(mean, torch.eye(4, dtype=F64))
    with pytest.raises(ValueError, match="opposite"):
        FourierGaussian(torch.zeros(1, 1, 4, 4), torch.rand(4, 4))
    with pytest.raises(ValueError, match="spectrum"):
        CosineGaussian(torch.zeros(1, 1, 4, 4), -torch.ones(4, 4))
    with pytest.raises(ValueError, match="too large"):
        _ = FourierGaussian(torch.zeros(1, 3, 256, 256), torch.ones(256, 256)).covariance


def test_singular_covariance_denoises_and_conditions():
    u = random(4, 1)
    prior = Gaussian(torch.zeros(1, 4, dtype=F64), u @ u.T)
    v = random(2, 4, seed=3)
    expected = v @ u @ u.T / (u.T @ u + 0.09)
    assert torch.allclose(prior.denoise(v, 0.3), expected, atol=1e-12)
    assert torch.isfinite(prior.denoise(v, 0.0)).all()
    A = Matrix(random(1, 2, 4, seed=4), (4,))
    m = Measurement(A, GaussianNoise(0.5), random(2, 2, seed=5))
    assert torch.allclose(prior.given(m).mean, prior.posterior_mean(m, tol=1e-13), atol=1e-10)


# -- mixtures ----------------------------------------------------------------------------------


def mixture(dtype=F64):
    parts = [
        Gaussian(random(1, 3, seed=k, dtype=dtype), (0.2 + 0.3 * k) * random_covariance(3, seed=k))
        for k in range(3)
    ]
    return GaussianMixture(torch.tensor([0.5, 0.3, 0.2], dtype=F64), parts)


@pytest.mark.parametrize("sigma", [0.0, 0.4, 3.0])
def test_mixture_density_score_and_denoiser(sigma):
    prior, x = mixture(), random(5, 3, seed=9)
    density = sum(
        float(w)
        * multivariate_normal(
            part.mean[0].numpy(), (part.covariance[0] + sigma**2 * torch.eye(3)).numpy()
        ).pdf(x.numpy())
        for w, part in zip(prior.weights, prior.parts, strict=True)
    )
    assert torch.allclose(prior.log_prob(x, sigma).exp(), torch.from_numpy(density), rtol=1e-9)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(prior.log_prob(x, sigma).sum(), x)
    assert torch.allclose(prior.score(x, sigma), gradient, atol=1e-10)
    assert torch.allclose(prior.denoise(x, sigma), x + sigma**2 * gradient, atol=1e-10)


def test_mixture_denoiser_is_the_posterior_mean_by_quadrature():
    means, sds = [-1.0, 0.5], [0.2, 0.4]
    parts = [
        Gaussian(torch.tensor([[m]], dtype=F64), torch.tensor([[s**2]], dtype=F64))
        for m, s in zip(means, sds, strict=True)
    ]
    prior = GaussianMixture(torch.tensor([0.7, 0.3], dtype=F64), parts)
    grid = torch.linspace(-6, 6, 20_001, dtype=F64)[:, None]
    for v in (-1.2, -0.4, 0.1, 2.0):
        posterior = (prior.log_prob(grid) - (grid[:, 0] - v) ** 2 / (2 * 0.6**2)).exp()
        expected = (posterior @ grid[:, 0]) / posterior.sum()
        found = prior.denoise(torch.tensor([[v]], dtype=F64), 0.6)
        assert abs(float(found - expected)) < 1e-10


def test_mixture_draws():
    prior = mixture()
    x = prior.sample(30_000, torch.Generator().manual_seed(1))
    C = prior.covariance[0]
    assert (x.mean(0) - prior.mean[0]).abs().max() < 5 * float(C.diagonal().max().sqrt()) / 173
    assert torch.linalg.norm(torch.cov(x.T) - C) < 0.05 * torch.linalg.norm(C)
    # which component was drawn, where they are far apart
    far = [Gaussian(torch.full((1, 1), 100.0 * k), torch.eye(1)) for k in range(3)]
    draws = GaussianMixture(torch.tensor([0.2, 0.5, 0.3]), far).sample(
        20_000, torch.Generator().manual_seed(2)
    )
    shares = torch.bincount((draws[:, 0] / 100).round().long(), minlength=3) / 20_000
    assert torch.allclose(shares, torch.tensor([0.2, 0.5, 0.3]), atol=0.015)
    four, two = prior.sample(4, generators(3, 4)), prior.sample(2, generators(3, 4)[2:])
    assert torch.allclose(four[2:], two, rtol=0, atol=1e-12)


def test_mixture_posterior_by_importance_weighting():
    prior, n = mixture(), 400_000
    A = Matrix(random(1, 2, 3, seed=4), (3,))
    m = Measurement(A, GaussianNoise(0.5), random(2, 2, seed=5))
    posterior = prior.given(m)
    assert posterior.weights.shape == (2, 3)
    assert torch.allclose(posterior.weights.sum(1), torch.ones(2, dtype=F64))
    x = prior.sample(n, torch.Generator().manual_seed(0))
    for i in range(2):
        one = m[i].repeat(n)
        w = torch.softmax(-one.nll(x), 0)
        mean = w @ x
        C = (x - mean).T @ ((x - mean) * w[:, None])
        spread = posterior.covariance[i].diagonal().sqrt()
        assert ((mean - posterior.mean[i]) / spread).abs().max() < 0.03
        assert torch.linalg.norm(C - posterior.covariance[i]) < 0.05 * torch.linalg.norm(C)


def test_mixture_posterior_is_bayes_rule_pointwise():
    prior = mixture()
    A = Matrix(random(2, 2, 3, seed=4), (3,))
    m = Measurement(A, GaussianNoise(torch.tensor([0.5, 0.8])), random(2, 2, seed=5))
    posterior = prior.given(m)
    x, other = random(2, 3, seed=6), random(2, 3, seed=7)
    # log posterior differences equal log prior minus nll differences, whatever the evidence
    left = posterior.log_prob(x) - posterior.log_prob(other)
    right = (prior.log_prob(x) - m.nll(x)) - (prior.log_prob(other) - m.nll(other))
    assert torch.allclose(left, right, atol=1e-8)


def test_mixture_weights_of_the_reference_problem_are_near_the_evidence():
    left = Gaussian(torch.full((1, 4), -1.0, dtype=F64), 0.09 * torch.eye(4, dtype=F64))
    right = Gaussian(torch.full((1, 4), 1.0, dtype=F64), 0.09 * torch.eye(4, dtype=F64))
    prior = GaussianMixture(torch.tensor([1.0, 1.0], dtype=F64), [left, right])
    A = Matrix(torch.eye(4, dtype=F64)[None, :1], (4,))
    m = Measurement(A, GaussianNoise(1.0), torch.tensor([[0.5]], dtype=F64))
    # p(y | mode) = N(y; -+1, 1 + 0.09): the log odds are 2 y m / (1.09)
    expected = torch.sigmoid(torch.tensor(2 * 0.5 / (float(m.sigma) ** 2 + 0.09), dtype=F64))
    assert torch.allclose(prior.given(m).weights[0, 1], expected, atol=1e-12)


# -- images ------------------------------------------------------------------------------------


def test_stationary_prior_scales_to_images_and_has_the_wiener_filter_as_posterior():
    n, sigma = 64, 0.1
    spectrum = symmetric_spectrum(n, n)
    prior = FourierGaussian(torch.zeros(1, 1, n, n, dtype=F64), spectrum)
    transfer = torch.exp(
        -20
        * sum(
            f**2
            for f in torch.meshgrid(
                torch.fft.fftfreq(n, dtype=F64), torch.fft.fftfreq(n, dtype=F64), indexing="ij"
            )
        )
    )

    class Filter(LinearOperator):
        def forward(self, x):
            return torch.fft.ifft2(transfer * torch.fft.fft2(x)).real

        adjoint = forward

        @classmethod
        def example(cls):
            return cls((1, n, n), (1, n, n))

    A = Filter.example()
    x = prior.sample(2)
    m = Measurement(A, GaussianNoise(sigma), A(x) + sigma * randn_like(x, generators(1, 2)))
    s2 = float(m.sigma) ** 2
    wiener = spectrum * transfer / (spectrum * transfer**2 + s2)
    expected = torch.fft.ifft2(wiener * torch.fft.fft2(m.y)).real
    assert torch.allclose(prior.posterior_mean(m, tol=1e-12), expected, atol=1e-8)
    draw = prior.posterior_sample(m, tol=1e-10)
    variance = (spectrum * s2 / (spectrum * transfer**2 + s2)).mean()
    assert abs(float((draw - expected).square().mean() / variance) - 1) < 0.1
