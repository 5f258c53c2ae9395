"""PiGDM: the posterior within its band, and exact where its Gaussian is."""

import math

import pytest
import torch
from known_answers import gaussian_problem, one_generator, spread_errors

from measurand.priors import Gaussian
from measurand.samplers import PiGDM

N = 8000


@pytest.mark.parametrize(
    "method", [PiGDM(steps=400, sigma_max=100.0), PiGDM()], ids=["400", "default"]
)
def test_posterior_of_the_gaussian_problem(method):
    prior, m = gaussian_problem()
    draws = method(m.repeat(N), prior, generator=one_generator())
    mean, covariance, trace = spread_errors(draws, prior.given(m))
    assert mean <= 0.17 and covariance <= 0.20 and abs(trace - 1) <= 0.15


@pytest.mark.parametrize("spread", [1.0, 0.5])
def test_exact_for_white_images_of_its_spread(spread):
    """For x ~ N(0, s^2) the Gaussian around D(x, t) has exactly the variance r^2."""
    _, m = gaussian_problem()
    prior = Gaussian(
        torch.zeros(1, 6, dtype=torch.float64), spread**2 * torch.eye(6, dtype=torch.float64)
    )
    exact = prior.given(m)
    method = PiGDM(steps=60, sigma_max=100.0, spread=spread)
    estimates = []
    draws = method(m.repeat(N), prior, generator=one_generator(), callback=estimates.append)
    mean, covariance, _ = spread_errors(draws, exact)
    assert mean <= 3 / math.sqrt(N) and covariance <= 0.05
    # the first estimate, from a state that knows nothing, is the posterior mean
    torch.testing.assert_close(
        estimates[0].x0[:5], exact.mean.expand(5, 6), rtol=0, atol=0.05 * spread
    )


def test_no_measurement_leaves_the_prior():
    prior, m = gaussian_problem(torch.zeros(1, 6, dtype=torch.float64))
    draws = PiGDM(steps=100, sigma_max=100.0)(m.repeat(N), prior, generator=one_generator())
    mean, covariance, _ = spread_errors(draws, prior)
    assert mean <= 3 / math.sqrt(N) and covariance <= 0.05


def test_the_pull_is_that_of_the_paper():
    """One step: D + t^2 J^T A^T (r^2 A A^T + sigma^2)^-1 (y - A D) with dense matrices."""
    prior, m = gaussian_problem()
    t = 2.0
    method = PiGDM(steps=1, sigma_max=t, sigma_min=t)
    x = 2 * torch.randn(1, 6, dtype=torch.float64, generator=one_generator())
    end = method(m, prior, generator=one_generator())
    A, C, eye = m.operator.matrix, prior.covariance[0], torch.eye(6, dtype=torch.float64)
    D = prior.denoise(x, t)
    r2 = t**2 / (1 + t**2)
    white = torch.linalg.inv(r2 * A @ A.mT + m.sigma.double() ** 2 * eye[:4, :4])
    J = C @ torch.linalg.inv(C + t**2 * eye)
    expected = D + t**2 * ((m.y - D @ A.mT) @ white @ A) @ J
    torch.testing.assert_close(end, expected, rtol=1e-6, atol=1e-8)
