"""DiffPIR: its bands of the table, its limits, and one step by hand."""

import math

import pytest
import torch
from known_answers import gaussian_problem, one_generator, spread_errors

from measurand.samplers import DiffPIR

N = 8000


@pytest.mark.parametrize(
    ("lam", "zeta", "covariance_error", "trace_ratio"),
    [(1, 1.0, 0.50, 0.49), (1, 0.1, 0.21, 1.06), (7, 1.0, 0.37, 0.88), (7, 0.3, 0.87, 1.65)],
)
def test_within_the_bands_of_the_table(lam, zeta, covariance_error, trace_ratio):
    prior, m = gaussian_problem()
    method = DiffPIR(steps=100, lam=lam, zeta=zeta, sigma_max=100.0)
    draws = method(m.repeat(N), prior, generator=one_generator())
    mean, covariance, trace = spread_errors(draws, prior.given(m))
    assert mean <= 0.4
    assert 0.7 * covariance_error <= covariance <= 1.3 * covariance_error
    assert 0.7 * trace_ratio <= trace <= 1.3 * trace_ratio


def test_without_data_and_fresh_noise_it_is_the_flow_of_the_prior():
    prior, m = gaussian_problem(torch.zeros(1, 6, dtype=torch.float64))
    method = DiffPIR(steps=400, zeta=0.0, sigma_max=80.0)
    draws = method(m.repeat(N), prior, generator=one_generator())
    mean, covariance, _ = spread_errors(draws, prior)
    assert mean <= 3 / math.sqrt(N) and covariance <= 0.05


def test_one_step_by_hand():
    prior, m = gaussian_problem()
    method = DiffPIR(steps=2, lam=3.0, zeta=0.4, sigma_max=2.0, sigma_min=0.5)
    seen = []
    method(m, prior, generator=one_generator(), callback=seen.append)
    g = one_generator()
    x = 2.0 * torch.randn(1, 6, dtype=torch.float64, generator=g)
    A, eye = m.operator.matrix, torch.eye(6, dtype=torch.float64)
    D, weight = prior.denoise(x, 2.0), 3.0 * m.sigma.double() ** 2 / 4
    x_hat = torch.linalg.solve(A.mT @ A + weight * eye, (m.y @ A + weight * D).mT).mT
    noise = torch.randn(1, 6, dtype=torch.float64, generator=g)
    eps = (x - x_hat) / 2.0
    expected = x_hat + 0.5 * (math.sqrt(0.6) * eps + math.sqrt(0.4) * noise)
    torch.testing.assert_close(seen[0].x0, x_hat, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(seen[0].x, expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(seen[1].x, seen[1].x0, rtol=0, atol=0)
