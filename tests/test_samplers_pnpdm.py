"""PnP-DM: the posterior, the split target at fixed coupling, and the weights of modes."""

import math

import pytest
import torch
from known_answers import (
    first_mode,
    gaussian_problem,
    mixture_problem,
    one_generator,
    split_target,
    spread_errors,
)

from measurand.measurement import Measurement
from measurand.noises import Gaussian
from measurand.operators import Identity
from measurand.priors import CosineGaussian
from measurand.samplers import EulerFlow, EulerSDE, HeunFlow, PnPDM, ReverseSDE

N = 6000


@pytest.mark.parametrize(
    "method",
    [PnPDM(), PnPDM.quick(), PnPDM(rho_min=0.1, reverse=ReverseSDE(12, 3.0))],
    ids=["default", "quick", "matched"],
)
def test_posterior_of_the_gaussian_problem(method):
    prior, m = gaussian_problem()
    draws = method(m.repeat(N), prior, generator=one_generator())
    mean, covariance, trace = spread_errors(draws, prior.given(m))
    assert mean <= 0.1
    assert covariance <= 0.10
    assert abs(trace - 1) <= 0.10


@pytest.mark.slow
def test_posterior_with_the_euler_scheme_of_the_paper():
    prior, m = gaussian_problem()
    method = PnPDM(reverse=EulerSDE(steps=40, sigma_max=10.0))
    draws = method(m.repeat(N), prior, generator=one_generator())
    mean, covariance, _ = spread_errors(draws, prior.given(m))
    assert mean <= 0.1 and covariance <= 0.10


def test_split_target_tends_to_the_posterior():
    """The bias is that of the target, known without a draw; it vanishes as rho^2."""
    prior, m = gaussian_problem()
    exact = prior.given(m)
    bias = []
    for rho in (0.5, 0.2, 0.1):
        covariance = split_target(prior, m, rho).covariance[0]
        bias.append(float((covariance - exact.covariance[0]).norm() / exact.covariance[0].norm()))
    assert bias[0] > 0.3 and bias[1] < 0.1 and bias[2] < 0.03


@pytest.mark.parametrize("rho", [0.5, 0.2])
def test_chain_at_fixed_coupling_samples_the_split_target(rho):
    prior, m = gaussian_problem()
    method = PnPDM(sweeps=60, rho_max=rho, rho_min=rho, reverse=ReverseSDE(40, 10.0))
    start = prior.given(m).sample(N, one_generator(3))
    draws = method(m.repeat(N), prior, x0=start, generator=one_generator())
    mean, covariance, _ = spread_errors(draws, split_target(prior, m, rho))
    assert mean <= 3 / math.sqrt(N)
    assert covariance <= 0.05


@pytest.mark.parametrize("flow", [EulerFlow(40, 10.0), HeunFlow(40, 10.0)], ids=["euler", "heun"])
def test_a_flow_as_the_prior_step_is_flagged_and_shrinks_the_spread(flow):
    prior, m = gaussian_problem()
    with pytest.warns(UserWarning, match="not a posterior sample") as warned:
        draws = PnPDM(sweeps=60, reverse=flow)(m.repeat(2000), prior, generator=one_generator())
    assert warned[0].filename == __file__  # it points at the call
    _, covariance, trace = spread_errors(draws, prior.given(m))
    assert trace <= 0.85 and covariance > 0.10


def test_no_measurement_leaves_the_prior():
    prior, m = gaussian_problem(torch.zeros(1, 6, dtype=torch.float64))
    method = PnPDM(sweeps=60, reverse=ReverseSDE(40, 10.0))
    mean, covariance, _ = spread_errors(
        method(m.repeat(N), prior, generator=one_generator()), prior
    )
    assert mean <= 3 / math.sqrt(N) and covariance <= 0.05


def test_exact_data_are_met():
    sigma = 0.01
    prior, m = gaussian_problem(torch.eye(6, dtype=torch.float64), sigma)
    draws = PnPDM(rho_min=sigma)(m.repeat(200), prior, generator=one_generator())
    assert (draws - m.y).square().mean().sqrt() <= 3 * sigma


def test_fixed_coupling_has_the_mode_weights_of_the_split_target():
    prior, m = mixture_problem()
    exact = split_target(prior, m, 0.5).weights[0, 0].item()
    assert exact == pytest.approx(0.629, abs=1e-3)
    method = PnPDM(sweeps=300, rho_max=0.5, rho_min=0.5, reverse=ReverseSDE(10, 10.0))
    draws = method(m.repeat(2000), prior, generator=one_generator())
    assert first_mode(draws) == pytest.approx(exact, abs=0.03)


def test_slower_annealing_moves_mode_weights_towards_the_exact_ones():
    """The annealed chain freezes the weights it had while the coupling was loose."""
    prior, m = mixture_problem()
    exact = prior.given(m).weights[0, 0].item()
    reverse = ReverseSDE(10, 10.0)
    fast = PnPDM(sweeps=60, rho_max=3.0, decay=0.9, reverse=reverse)
    slow = PnPDM(sweeps=350, rho_max=3.0, decay=0.99, reverse=reverse)
    w_fast, w_slow = (
        first_mode(method(m.repeat(2000), prior, generator=one_generator()))
        for method in (fast, slow)
    )
    assert w_fast < exact - 0.1  # approximate, and the docs say so
    assert w_fast + 0.04 < w_slow < exact + 0.03


def test_levels_and_budget():
    method = PnPDM()
    assert method.levels[0] == 3.0 and method.levels[-1] == 0.05 and len(method.levels) == 60
    assert method.levels[1] == pytest.approx(2.7)
    assert PnPDM.quick().nfe == 134


@pytest.mark.parametrize("noise", [0.1, 0.4])
def test_the_quick_preset_is_as_wide_as_the_posterior_of_denoising(noise):
    """Of images with a spectrum like that of photographs; an earlier preset had half of it."""
    k = torch.arange(16, dtype=torch.float64)
    spectrum = 1 / (1 + k[:, None].square() + k.square()) ** 1.3
    spectrum = 0.25 * spectrum / spectrum.mean()
    prior = CosineGaussian(torch.zeros(1, 1, 16, 16, dtype=torch.float64), spectrum[None, None])
    x = prior.sample(1, one_generator(0))
    y = x + noise * torch.randn(x.shape, generator=one_generator(2), dtype=x.dtype)
    m = Measurement(Identity((1, 16, 16)), Gaussian(noise), y)
    exact = float(prior.given(m).variances.mean())
    draws = PnPDM.quick()(m.repeat(400), prior, generator=one_generator())
    # wider than exact by the coupling that is left, 0.05 beside the noise
    assert 0.93 * exact < float(draws.var(0).mean()) < 1.25 * exact
