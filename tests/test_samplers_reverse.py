"""Reverse SDE and probability flow against Gaussians and a mixture with known answers."""

import math

import pytest
import torch
from known_answers import (
    first_mode,
    gaussian_problem,
    mixture_problem,
    one_generator,
    spread_errors,
)

from measurand.priors import CallableDenoiser, Gaussian
from measurand.samplers import EulerFlow, EulerSDE, HeunFlow, HeunSDE, ReverseSDE, transition

N = 8000
ONE_SE = 1 / math.sqrt(N)
SDES = [ReverseSDE, EulerSDE, HeunSDE]


@pytest.mark.parametrize("kind", [*SDES, EulerFlow, HeunFlow])
def test_exact_posterior_denoiser(kind):
    prior, m = gaussian_problem()
    exact = prior.given(m)
    method = kind(steps=400 // kind.calls, sigma_max=100.0)
    start = torch.zeros(N, 6, dtype=torch.float64)
    mean, covariance, trace = spread_errors(
        method(None, exact, x0=start, generator=one_generator()), exact
    )
    assert mean <= 3 * ONE_SE
    assert covariance <= 0.05
    assert abs(trace - 1) <= 0.05


def test_a_measurement_asks_the_prior_for_its_posterior():
    prior, m = gaussian_problem()
    method = ReverseSDE(steps=20)
    draws = method(m, prior)
    x0 = torch.zeros(1, 6, dtype=torch.float64)
    assert torch.equal(draws, method(None, prior.given(m), x0=x0))
    assert not torch.equal(draws, method(None, prior, x0=x0))


@pytest.mark.parametrize("kind", SDES)
def test_draws_from_the_prior(kind):
    prior, _ = gaussian_problem()
    start = torch.zeros(N, 6, dtype=torch.float64)
    draws = kind(steps=200)(None, prior, x0=start, generator=one_generator())
    mean, covariance, _ = spread_errors(draws, prior)
    assert mean <= 3 * ONE_SE and covariance <= 0.05


@pytest.mark.parametrize("kind", SDES)
@pytest.mark.parametrize("rho", [1.0, 0.3, 0.1])
def test_prior_step_from_a_given_point(kind, rho):
    """p(x | z) ~ p(x) N(z; x, rho^2): mean C (C + rho^2)^-1 z, covariance (C^-1 + 1/rho^2)^-1."""
    prior, _ = gaussian_problem()
    z = prior.sample(1, one_generator(5))
    precision = torch.linalg.inv(prior.covariance[0]) + torch.eye(6) / rho**2
    exact = Gaussian(prior.denoise(z, rho), torch.linalg.inv(precision))
    method = kind(steps=120 if kind is EulerSDE else 30, sigma_max=rho)
    draws = method.descend(prior.denoise, z.expand(N, 6), method.levels(), one_generator())
    mean, covariance, _ = spread_errors(draws, exact)
    assert mean <= 3 * ONE_SE
    assert covariance <= 0.05


def test_a_flow_started_at_a_given_point_has_no_spread():
    prior, _ = gaussian_problem()
    z = prior.sample(1, one_generator(5)).expand(3, 6)
    for method in (EulerFlow(steps=30), HeunFlow(steps=30)):
        assert not method.stochastic
        draws = method.descend(prior.denoise, z, method.levels(1.0), one_generator())
        assert draws.std(0).max() == 0


@pytest.mark.parametrize("rho", [0.3, 0.1])
def test_drawing_again_and_again_wears_no_texture_away(rho):
    """Noise and prior step in turn leave every variance of the prior as it is, fine or coarse.

    Few coefficients carry the picture and most next to nothing, as in photographs; there the
    matched transition puts its fresh noise in the wrong place and loses texture at every turn.
    """
    variances = torch.full((1, 400), 1e-5, dtype=torch.float64)
    for start, stop, sd in ((0, 20, 0.03), (20, 40, 0.1), (40, 50, 0.3)):
        variances[:, start:stop] = sd**2
    prior = Gaussian(torch.zeros(1, 400, dtype=torch.float64), torch.diag(variances[0]))

    def kept(method) -> torch.Tensor:
        generator = one_generator()
        x = prior.sample(100, generator)
        for _ in range(12):
            z = x + rho * torch.randn(x.shape, generator=generator, dtype=x.dtype)
            x = method.descend(prior.denoise, z, method.levels(rho), generator)
        share = (x.square().mean(0) / variances[0])[:50]
        return torch.stack([share[:20].mean(), share[20:40].mean(), share[40:].mean()])

    heun, matched = kept(HeunSDE(12, 3.0)), kept(ReverseSDE(24, 3.0))
    assert bool(((heun - 1).abs() <= 0.15).all())
    assert bool((matched < heun).all()) and matched.min() < 0.85


def test_transition_is_exact_for_a_white_gaussian_at_any_step():
    """One step from level t to t' of N(0, c): mean (c + t'^2)/(c + t^2) x, and its variance."""
    c, t, t_next = 0.36, 2.0, 0.5
    x = torch.randn(1, 200_000, generator=one_generator(), dtype=torch.float64)
    x *= math.sqrt(c + t**2) / x.square().mean().sqrt()
    moved = transition(x, c / (c + t**2) * x, t, t_next, one_generator(2))
    gain = (c + t_next**2) / (c + t**2)
    rest = moved - gain * x
    assert rest.mean().abs() < 4e-3
    exact = gain * (t**2 - t_next**2)
    assert rest.square().mean().item() == pytest.approx(exact, rel=0.01)
    assert (rest * x).mean().abs() < 0.01


@pytest.mark.parametrize(("kind", "order"), [(EulerFlow, 1), (HeunFlow, 2)])
def test_order_of_convergence(kind, order):
    """The flow of N(m, c) is m + (x - m) sqrt(c / (c + t^2)) at level zero."""
    prior, _ = gaussian_problem()
    x = 3 * torch.randn(5, 6, generator=one_generator(), dtype=torch.float64)
    low = 1e-4
    coefficients = prior.analysis(x)
    exact = prior.synthesis(coefficients * (prior.variances / (prior.variances + 9)).sqrt())

    def error(steps: int) -> float:
        method = kind(steps=steps, sigma_max=3.0, sigma_min=low)
        ends = method.descend(prior.denoise, x, method.levels())
        return float((ends - exact).norm())

    ratio = error(100) / error(200)
    assert 2**order * 0.8 <= ratio <= 2**order * 1.25


@pytest.mark.parametrize("kind", SDES)
def test_mixture_weights_with_the_exact_score(kind):
    prior, m = mixture_problem()
    exact = prior.given(m)
    assert exact.weights[0, 0].item() == pytest.approx(0.761, abs=1e-3)
    start = torch.zeros(4000, 4, dtype=torch.float64)
    draws = kind(steps=100, sigma_max=20.0)(None, exact, x0=start, generator=one_generator())
    assert first_mode(draws) == pytest.approx(0.761, abs=0.03)


@pytest.mark.parametrize("kind", [*SDES, EulerFlow, HeunFlow])
def test_levels_begin_exactly_at_the_start(kind):
    method = kind(steps=20, sigma_max=10.0, sigma_min=0.01)
    counts = []
    for sigma in (10.0, 7.3, 1.0, 0.3, 0.1, 0.02):
        levels = method.levels(sigma)
        assert levels[0] == sigma
        assert levels == sorted(levels, reverse=True)
        assert len(levels) == 1 or levels[-1] == pytest.approx(0.01)
        counts.append(method.nfe(sigma))
    assert counts == sorted(counts, reverse=True) and counts[0] > 4 * counts[-1]
    assert len(method.levels()) == 20
    assert method.levels(0.005) == [0.005]  # below sigma_min: one call of the denoiser
    assert method.nfe(0.005) == 1


def test_errors_teach():
    prior, m = gaussian_problem()
    plain = CallableDenoiser(lambda v, sigma: v)
    with pytest.raises(TypeError, match=r"CallableDenoiser, which knows nothing of measurements"):
        ReverseSDE()(m, plain)
    with pytest.raises(ValueError, match="neither a measurement nor x0"):
        ReverseSDE()(None, prior)
    with pytest.raises(TypeError, match="wanted a Denoiser"):
        ReverseSDE()(None, object(), x0=torch.zeros(1, 6))
