"""DPS: the prior without data, the gradient step by hand, and a spread that is not one."""

import math

import pytest
import torch
from known_answers import gaussian_problem, one_generator, spread_errors

from measurand.measurement import Measurement
from measurand.noises import Gaussian as GaussianNoise
from measurand.samplers import DPS

N = 2000


def test_levels_are_those_of_the_variance_preserving_schedule():
    levels = DPS().levels
    beta = torch.linspace(1e-4, 2e-2, 1000, dtype=torch.float64)
    remaining = (1 - beta).cumprod(0)
    discrete = ((1 - remaining) / remaining).sqrt().flip(0)
    assert len(levels) == 1000
    torch.testing.assert_close(
        torch.tensor(levels, dtype=torch.float64), discrete, rtol=0.06, atol=0
    )


def test_no_measurement_leaves_the_prior():
    prior, m = gaussian_problem(torch.zeros(1, 6, dtype=torch.float64))
    draws = DPS()(m.repeat(5000), prior, generator=one_generator())
    mean, covariance, _ = spread_errors(draws, prior)
    assert mean <= 3 / math.sqrt(5000) and covariance <= 0.05


def test_order_of_the_table():
    """The more it pulls, the narrower the draws and the farther off the mean."""
    prior, m = gaussian_problem()
    exact = prior.given(m)
    weak, middle, strong = (
        spread_errors(DPS(zeta=z)(m.repeat(N), prior, generator=one_generator()), exact)
        for z in (0.01, 0.03, 0.3)
    )
    assert weak[0] < middle[0] < strong[0] <= 1.3 * 0.57
    assert weak[1] < middle[1] < strong[1]
    assert 0.55 <= strong[1] <= 1.03  # table: .79
    assert weak[2] > middle[2] > strong[2]
    assert 0.8 <= weak[2] <= 1.5 and strong[2] < 0.5


def test_exact_data_are_met_to_the_length_of_a_pull():
    sigma = 0.01
    prior, m = gaussian_problem(torch.eye(6, dtype=torch.float64), sigma)
    draws = DPS(zeta=sigma * math.sqrt(6))(m.repeat(50), prior, generator=one_generator())
    assert (draws - m.y).square().mean().sqrt() <= 3 * sigma


def test_the_pull_is_the_gradient_of_the_residual_norm():
    """One step from x: D = g x, so grad ||y - A D(x)|| = -g A^T (y - g A x) / ||y - g A x||."""
    prior, m = gaussian_problem()
    method = DPS(steps=1, zeta=0.2)
    (level,) = method.levels
    x0 = torch.linspace(-1, 1, 6, dtype=torch.float64)[None]
    seen = []
    end = method(m, prior, x0=x0, generator=one_generator(), callback=seen.append)
    start = x0 + level * torch.randn(1, 6, dtype=torch.float64, generator=one_generator())
    residual = m.residual(prior.denoise(start, level))
    # the Jacobian C (C + t^2)^-1 of the denoiser is symmetric
    gain = prior.variances / (prior.variances + level**2)
    pull = prior.synthesis(gain * prior.analysis(m.operator.H(residual))) / residual.norm()
    expected = prior.denoise(start, level) + 0.2 * math.sqrt(1 + level**2) * pull
    torch.testing.assert_close(end, expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(seen[0].x, end)


@pytest.mark.parametrize("sigma", [0.01, 3.0])
def test_the_noise_of_the_measurement_is_not_used(sigma):
    prior, m = gaussian_problem()
    other = Measurement(m.operator, GaussianNoise(sigma), m.y)
    assert torch.equal(DPS(steps=20)(m, prior), DPS(steps=20)(other, prior))
