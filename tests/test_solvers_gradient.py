"""PGM, FISTA and RED against exact solutions."""

import itertools

import pytest
import torch
from scipy.optimize import nnls

from measurand.measurement import Measurement
from measurand.noises import Gaussian as GaussianNoise
from measurand.noises import Poisson
from measurand.operators import GaussianBlur
from measurand.operators.base import Identity, Scaled
from measurand.priors import CallableDenoiser, Counted, FourierGaussian, TotalVariation
from measurand.solvers import FISTA, PGM, RED, Constant, GradientRED
from measurand.tensors import generators, randn_like

F64 = torch.float64
SHAPE = (1, 8, 8)


def spectrum(*shape):
    f = torch.meshgrid(*[torch.fft.fftfreq(n, dtype=F64) for n in shape], indexing="ij")
    return 0.05 / (0.05 + sum(axis**2 for axis in f)) ** 1.5


def problem(sigma=0.1, n=2, scale=1.0):
    mean = torch.full((1, *SHAPE), 0.2, dtype=F64)
    prior = FourierGaussian(mean, spectrum(8, 8))
    A = Scaled(GaussianBlur(SHAPE, 0.7).double(), scale)
    x = prior.sample(n, generators(0, n))
    y = A(x) + sigma * scale * randn_like(x, generators(1, n))
    return Measurement(A, GaussianNoise(sigma * scale), y), prior


def distance(x, reference):
    return float((x - reference).norm() / reference.norm())


class NonNegative:
    """The indicator of x >= 0."""

    def prox(self, v, tau):
        return v.clamp_min(0)


class Lasso:
    """g(x) = weight sum |x|."""

    def __init__(self, weight):
        self.weight = weight

    def prox(self, v, tau):
        return v.sign() * (v.abs() - tau * self.weight).clamp_min(0)


@pytest.mark.parametrize("scale", [1.0, 25.0])
@pytest.mark.parametrize(("method", "steps"), [(PGM, 800), (FISTA, 500)])
def test_exact_posterior_mean_with_prox_and_with_denoiser(method, steps, scale):
    m, prior = problem(scale=scale)
    exact = prior.given(m).mean
    assert distance(method(steps=steps)(m, prior), exact) < 1e-6
    # the level sqrt(step) is the one at which a denoiser is the same map
    plugged = CallableDenoiser(prior.denoise, range=None)
    assert distance(method(steps=steps)(m, plugged), exact) < 1e-6


def test_fista_is_faster_than_pgm():
    m, prior = problem(sigma=0.03)
    exact = prior.given(m).mean
    error = {method: distance(method(steps=60)(m, prior), exact) for method in (PGM, FISTA)}
    assert error[FISTA] < error[PGM] / 2


def test_nonnegative_least_squares_against_scipy():
    m, _ = problem(n=1)
    found = FISTA(steps=1500)(m, NonNegative())
    eye = torch.eye(64, dtype=F64).reshape(64, *SHAPE)
    A = m.operator(eye).reshape(64, 64).T
    expected, _ = nnls(A.numpy(), m.y.flatten().numpy())
    assert torch.allclose(found.flatten(), torch.from_numpy(expected), atol=1e-5)


@pytest.mark.parametrize("method", [PGM(steps=2500), FISTA(steps=1500)])
def test_lasso_satisfies_its_optimality_conditions(method):
    weight = 20.0
    m, _ = problem(n=1)
    x = method(m, Lasso(weight))
    slope = -m.gradient(x)
    on = x.abs() > 1e-6
    assert 0 < on.sum() < on.numel()
    assert (slope[on] - weight * x[on].sign()).abs().max() < 1e-3 * weight
    assert slope[~on].abs().max() <= weight * (1 + 1e-6)


def test_total_variation_without_an_operator_is_its_proximal_map():
    m, _ = problem()
    m = Measurement(Identity(SHAPE), m.noise, m.y)
    prior = TotalVariation(weight=15.0, tol=1e-10)
    expected = prior.prox(m.y, float(m.sigma) ** 2)
    assert distance(expected, m.y) > 0.1
    assert distance(FISTA(steps=5)(m, prior), expected) < 1e-6


def test_total_variation_reaches_the_minimum_of_likelihood_plus_weight_tv():
    m, _ = problem(n=1)
    prior = TotalVariation(weight=15.0, tol=1e-5)

    def objective(x):
        return float(m.nll(x) + prior.value(x))

    x = FISTA(steps=40)(m, prior)
    assert objective(x) < 0.9 * objective(m.y)
    for k in range(20):
        away = randn_like(x, generators(k, 1))
        assert objective(x) < objective(x + 1e-2 * away)
        assert objective(x) < objective(torch.lerp(x, m.y, 0.01 * (k + 1)))


def test_pgm_never_increases_the_objective_nor_the_fixed_point_residual():
    m, prior = problem()
    steps = []
    PGM(steps=200)(m, prior, callback=steps.append)
    xs = torch.stack([s.x0 for s in steps])
    changes = (xs[1:] - xs[:-1]).flatten(2).norm(dim=-1)
    assert (changes[1:] <= changes[:-1] * (1 + 1e-12)).all()
    objective = torch.stack([m.nll(x) - prior.log_prob(x) for x in xs])
    assert (objective.diff(dim=0) <= 1e-9).all()
    assert changes[-1].max() < 1e-3 * changes[0].max()


def test_pgm_with_any_nonexpansive_denoiser_converges():
    m, _ = problem()
    kernel = GaussianBlur(SHAPE, 0.6).double()
    steps = []
    PGM(steps=400, level=0.1)(m, CallableDenoiser(lambda v, s: kernel(v)), callback=steps.append)
    xs = torch.stack([s.x0 for s in steps])
    changes = (xs[1:] - xs[:-1]).flatten(2).norm(dim=-1)
    assert (changes[1:] <= changes[:-1] + 1e-12).all()
    assert changes[-1].max() < 1e-6
    assert steps[0].level == 0.1


def red_solution(m, prior, sigma, weight):
    """The solution of the linear equation of RED with a Gaussian prior, densely."""
    n = 64
    eye = torch.eye(n, dtype=F64).reshape(n, *SHAPE)
    A = m.operator(eye).reshape(n, n).T
    C = prior.covariance[0]
    G = C @ torch.linalg.inv(C + sigma**2 * torch.eye(n, dtype=F64))
    pull = weight / sigma**2 * (torch.eye(n, dtype=F64) - G)
    s2 = float(m.sigma) ** 2
    right = m.y.flatten(1) @ A / s2 + prior.mean.flatten() @ pull.T
    return torch.linalg.solve(A.T @ A / s2 + pull, right.T).T.reshape(m.y.shape)


METHODS = [
    RED(steps=600, weight=0.28, levels=Constant()),
    RED(steps=600, weight=1.0, levels=Constant(0.3)),
    RED(steps=1200, weight=0.28, step=0.5, levels=Constant(0.2)),
    GradientRED(steps=2000, levels=Constant(0.2)),
    GradientRED(steps=2000, weight=1.0, levels=Constant(0.3)),
]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_red_balances_data_and_score(method):
    m, prior = problem()
    sigma = method.levels(m, prior, 1, method.weight)[0].sigma
    x = method(m, prior)
    residual = m.gradient(x) + method.weight / sigma**2 * (x - prior.denoise(x, sigma))
    assert residual.abs().max() * float(m.sigma) ** 2 < 1e-6
    assert distance(x, red_solution(m, prior, sigma, method.weight)) < 1e-8


def test_red_of_weight_one_is_the_posterior_of_the_noisy_image():
    """grad nll = score at level s: the posterior mean under N(m, C + s^2)."""
    m, prior = problem()
    found = RED(steps=600, weight=1.0, levels=Constant(0.2))(m, prior)
    widened = FourierGaussian(prior.mean, prior.variances[0] + 0.04)
    assert distance(found, widened.given(m).mean) < 1e-8


@pytest.mark.parametrize(
    "method", [PGM(steps=6), FISTA(steps=6), RED(steps=6), GradientRED(steps=6)], ids=str
)
def test_calls_callback_and_batch_independence(method):
    m, prior = problem(n=3)
    counted, seen = Counted(prior), []
    found = method(m, counted, callback=seen.append)
    assert counted.nfe == 6 and [s.step for s in seen] == list(range(6))
    for a, b in itertools.pairwise(seen):
        assert not torch.equal(a.x, b.x)
    for i in range(3):
        assert torch.allclose(method(m[i], counted), found[i : i + 1], atol=1e-12)


@pytest.mark.parametrize("method", [PGM(), FISTA(), RED(), GradientRED()], ids=str)
def test_wrong_priors_are_refused_with_a_name(method):
    m, _ = problem()
    with pytest.raises(TypeError, match=f"{type(method).__name__}: got a str; wanted "):
        method(m, "tv")
    with pytest.raises(FloatingPointError, match="not finite for 2 of 2 items"):
        method(m, CallableDenoiser(lambda v, s: v * torch.nan))


def test_counts_need_a_step():
    m, _ = problem()
    counts = Measurement(m.operator, Poisson(), m.y.abs() * 100)
    with pytest.raises(ValueError, match="FISTA: the gradient of the likelihood under Poisson"):
        FISTA()(counts, NonNegative())
    start = torch.full_like(m.y, 100.0)
    found = PGM(steps=300, step=20.0)(counts, NonNegative(), x0=start)
    assert (counts.nll(found) < counts.nll(start)).all()


def test_a_level_asks_for_a_denoiser():
    m, _ = problem()
    with pytest.raises(TypeError, match="PGM: got a NonNegative, which is a Proximable; want"):
        PGM(level=0.1)(m, NonNegative())


def test_what_errors_advise_works():
    """Data without noise, and counts: whoever follows the message has a result."""
    a = GaussianBlur((1, 16, 16), 1.0)
    x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    clean, tv = Measurement(a, GaussianNoise(0.0), a(x)), TotalVariation(weight=0.01)
    for method in (FISTA(steps=2), FISTA(steps=2, step=1.0), PGM(steps=2)):
        with pytest.raises(ValueError, match=r"Gaussian\(sigma=0.01\)"):
            method(clean, tv)
    assert FISTA(steps=2)(Measurement(a, GaussianNoise(0.01), clean.y), tv).isfinite().all()
    counts = Measurement(a, Poisson(), a(x))
    with pytest.raises(ValueError, match=r"FISTA\(step=1e-3\)"):
        FISTA(steps=2)(counts, tv)
    assert FISTA(steps=2, step=1e-3)(counts, tv).isfinite().all()
    prior = CallableDenoiser(lambda v, sigma: 0.9 * v)
    for unsaid in (GradientRED(steps=2), GradientRED(steps=2, step=1e-3)):
        with pytest.raises(ValueError, match=r"GradientRED\(step=1e-3, levels=Constant"):
            unsaid(counts, prior)
    said = GradientRED(steps=2, step=1e-3, levels=Constant(level=0.1))
    assert said(counts, prior).isfinite().all()
