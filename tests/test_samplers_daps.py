"""DAPS: its bands of the table, exact data, and one level by hand."""

import math

import pytest
import torch
from known_answers import gaussian_problem, one_generator, spread_errors

from measurand.samplers import DAPS

N = 4000
TABLE = DAPS(steps=200, flow_steps=5, sigma_max=100.0, sigma_min=0.1, width=1.0)


@pytest.mark.parametrize(
    ("tau", "mean_error", "covariance_error", "trace_ratio"),
    [(None, 0.12, 0.45, 1.40), (0.01, 0.48, 0.72, 0.62)],
)
def test_within_the_bands_of_the_table(tau, mean_error, covariance_error, trace_ratio):
    prior, m = gaussian_problem()
    method = DAPS(**{**vars(TABLE), "tau": tau})
    draws = method(m.repeat(N), prior, generator=one_generator())
    mean, covariance, trace = spread_errors(draws, prior.given(m))
    assert mean <= 1.4 * mean_error
    assert 0.7 * covariance_error <= covariance <= 1.3 * covariance_error
    assert 0.7 * trace_ratio <= trace <= 1.3 * trace_ratio


def test_without_data_the_mean_is_that_of_the_prior_and_the_spread_too_large():
    """The draw of width t around the end of the flow is wider than the image given x."""
    prior, m = gaussian_problem(torch.zeros(1, 6, dtype=torch.float64))
    draws = TABLE(m.repeat(N), prior, generator=one_generator())
    mean, _, trace = spread_errors(draws, prior)
    assert mean <= 3 * math.sqrt(trace / N)
    assert 1.3 <= trace <= 1.8


def test_a_narrower_draw_is_closer_to_the_posterior():
    prior, m = gaussian_problem()
    exact = prior.given(m)
    wide, narrow = (
        spread_errors(DAPS(width=w)(m.repeat(N), prior, generator=one_generator()), exact)
        for w in (1.0, 0.6)
    )
    assert narrow[1] < 0.7 * wide[1] and 1.1 < narrow[2] < wide[2]


def test_one_level_by_hand():
    prior, m = gaussian_problem()
    method = DAPS(steps=1, flow_steps=2, sigma_max=2.0, sigma_min=2.0, flow_min=0.5, width=0.7)
    g = one_generator()
    x = 2.0 * torch.randn(1, 6, dtype=torch.float64, generator=g)
    x = prior.denoise(x, 2.0) + 0.5 / 2.0 * (x - prior.denoise(x, 2.0))
    expected = m.conditional_sample(prior.denoise(x, 0.5), 1.4, g)
    end = method(m, prior, generator=one_generator())
    torch.testing.assert_close(end, expected, rtol=1e-6, atol=1e-6)
