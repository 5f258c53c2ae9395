"""Draws and mean of an unfolded network, with the exact denoiser of a Gaussian posterior."""

import math

import pytest
import torch
from known_answers import gaussian_problem

from measurand.priors import CallableDenoiser, Counted
from measurand.samplers import DiffUnfolding, EulerFlow
from measurand.solvers import PosteriorMean

N = 4096


class Exact:
    """A prior that knows posteriors, whatever their batch."""

    def __init__(self, prior, measurement):
        self.prior, self.measurement, self.asked = prior, measurement, []
        self.range, self.dtype = None, prior.dtype

    def given(self, measurement):
        self.asked.append(Counted(self.prior.given(self.measurement)))
        return self.asked[-1]


def test_draws_have_the_mean_and_the_variance_of_the_posterior():
    prior, measurement = gaussian_problem()
    exact, truth = Exact(prior, measurement), prior.given(measurement)
    draws = DiffUnfolding()(measurement.repeat(N), exact)
    variance = truth.covariance.diagonal(dim1=-2, dim2=-1).reshape(6)
    away = (draws.mean(0) - truth.mean[0]).abs() / (variance / N).sqrt()
    assert float(away.max()) < 3
    assert float((draws.var(0) / variance - 1).abs().max()) < 0.12
    assert sum(counted.calls for counted in exact.asked) == DiffUnfolding().nfe == 2 * 20


@pytest.mark.parametrize("levels", [{"sigma_start": 0.005}, {"sigma_start": 100.0}])
def test_levels_that_make_no_draw_are_refused(levels):
    prior, measurement = gaussian_problem()
    with pytest.raises(ValueError, match="above sigma_min 0.01 and not above sigma_max 80"):
        DiffUnfolding(**levels)(measurement, Exact(prior, measurement))


def test_eulers_scheme_with_few_steps_loses_variance():
    prior, measurement = gaussian_problem()
    truth = prior.given(measurement)
    flow = EulerFlow(10, 80.0, 0.01)
    draws = flow(None, truth, x0=torch.zeros(N, 6, dtype=torch.float64))
    assert (
        float((draws.var(0) / truth.covariance.diagonal(dim1=-2, dim2=-1).reshape(6)).max()) < 0.85
    )


def test_one_evaluation_finds_the_mean():
    prior, measurement = gaussian_problem()
    truth = prior.given(measurement)
    seen = []
    found = PosteriorMean(sigma_max=1e4)(
        measurement, Exact(prior, measurement), callback=seen.append
    )
    assert torch.allclose(found, truth.mean, atol=1e-3)
    assert len(seen) == 1 and math.isclose(seen[0].level, 1e4)


@pytest.mark.parametrize("method", [PosteriorMean(), DiffUnfolding()])
def test_a_prior_that_knows_no_posterior_is_refused(method):
    _, measurement = gaussian_problem()
    with pytest.raises(TypeError, match=r"wanted a Posterior \(given\(measurement\)"):
        method(measurement, CallableDenoiser(lambda v, s: v, dtype=torch.float64))


@pytest.mark.parametrize("method", [PosteriorMean(), DiffUnfolding()])
@pytest.mark.parametrize("x0", [torch.zeros(1, 5).double(), torch.zeros(1, 6)])
def test_a_start_of_another_kind_is_refused(method, x0):
    prior, measurement = gaussian_problem()
    with pytest.raises(ValueError, match="got x0 with shape"):
        method(measurement, Exact(prior, measurement), x0=x0)
