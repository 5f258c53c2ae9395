"""Objectives: Stein's estimates against errors that are known, the discrepancy's root."""

import math

import numpy as np
import pytest
import torch
from known_answers import Matrix, gaussian_problem

from measurand.measurement import Measurement
from measurand.metrics import psnr
from measurand.noises import ComplexGaussian, Gaussian, Poisson
from measurand.operators import Identity, Mask
from measurand.priors import TotalVariation
from measurand.solvers import FISTA
from measurand.tensors import generators
from measurand.tuning.objectives import PSNR, SURE, Case, Discrepancy, ProjectedSURE


def picture(n=24):
    """A disk on a ramp, float64, (1, 1, n, n)."""
    i, j = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    disk = ((i - n / 2) ** 2 + (j - n / 3) ** 2 < (n / 4) ** 2).double()
    return (disk + 0.5 * i / n - 0.8)[None, None]


def draws(operator, noise, x, n):
    """Cases of one image seen n times."""
    mean = operator(x)
    return [Case(Measurement(operator, noise, noise(mean, [g])), x) for g in generators(5, n)]


def agrees(estimates, wanted, within=4.0, tight=0.2):
    """Whether the mean is as wanted, within standard errors that are themselves small."""
    error = np.std(estimates, ddof=1) / math.sqrt(len(estimates))
    assert error < tight * abs(wanted)
    assert abs(np.mean(estimates) - wanted) < within * error


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_sure_of_a_shrinkage_is_its_mean_squared_error(share):
    x, sigma = picture(), 0.4
    cases = draws(Identity((1, 24, 24)), Gaussian(sigma), x, 100)
    found = [SURE()(lambda m: share * m.y, case) for case in cases]
    agrees(found, float((1 - share) ** 2 * x.square().mean() + share**2 * sigma**2))


def test_sure_of_complex_images_counts_both_components():
    x = torch.complex(picture(), picture().flip(-1))
    A = Identity((1, 24, 24), dtype=torch.complex64)
    found = [SURE()(lambda m: 0.6 * m.y, case) for case in draws(A, ComplexGaussian(0.4), x, 100)]
    wanted = 0.4**2 * float(x.abs().square().mean()) / 2 + 0.6**2 * 0.4**2
    agrees(found, wanted)


@pytest.mark.parametrize("weight", [0.5, 4.0])
def test_sure_of_total_variation_is_its_mean_squared_error(weight):
    """Nothing is linear and nothing known but by simulation: means over 40 measurements."""
    x = picture(16)
    prior, method = TotalVariation(weight=weight, tol=1e-5), FISTA(steps=1)

    def restore(m):
        return method(m, prior)

    cases = draws(Identity((1, 16, 16)), Gaussian(0.2), x, 40)
    errors = [float((restore(c.measurement) - x).square().mean()) for c in cases]
    found = [SURE(seed=k)(restore, case) for k, case in enumerate(cases)]
    difference = np.array(found) - errors
    assert abs(difference.mean()) < 4 * difference.std(ddof=1) / math.sqrt(40)
    assert difference.std(ddof=1) / math.sqrt(40) < 0.15 * np.mean(errors)


def linear_problem():
    """The 6-pixel problem, one image, and the matrix of a linear restoration."""
    prior, m = gaussian_problem()
    truth = prior.sample(1, generators(2, 1))
    W = torch.linalg.solve(
        m.operator.matrix.mT @ m.operator.matrix + 0.2 * torch.eye(6).double(),
        m.operator.matrix.mT,
    )
    return m.operator, truth, W


def test_sure_through_an_operator_is_the_error_of_the_prediction():
    A, x, W = linear_problem()
    cases = draws(A, Gaussian(0.3), x, 600)
    found = [SURE(4, seed=k)(lambda m: m.y @ W.mT, case) for k, case in enumerate(cases)]
    H = A.matrix
    bias = float(((x @ (W @ H).mT - x) @ H.mT).square().sum())
    agrees(found, (bias + 0.09 * float((H @ W).square().sum())) / 4)


def test_projected_sure_is_the_error_of_the_part_that_the_data_tell():
    A, x, W = linear_problem()
    cases = draws(A, Gaussian(0.3), x, 600)
    found = [
        ProjectedSURE(4, seed=k, spread=1.5)(lambda m: m.y @ W.mT, case)
        for k, case in enumerate(cases)
    ]
    H, eye = A.matrix, torch.eye(6).double()
    P = torch.linalg.solve(H.mT @ H + (0.3 / 1.5) ** 2 * eye, H.mT @ H)
    bias = float(((x @ (W @ H).mT - x) @ P.mT).square().sum())
    agrees(found, (bias + 0.09 * float((P @ W).square().sum())) / 6)


@pytest.mark.parametrize("objective", [SURE(), ProjectedSURE(), Discrepancy()])
def test_what_no_image_reaches_does_not_count(objective):
    x = picture()
    A = Mask((1, 24, 24), (torch.arange(24) % 3 > 0).float())
    y = Gaussian(0.2)(A(x), generators(0, 1))

    def restore(m):
        return 0.5 * m.adjoint_y

    once = objective(restore, Case(Measurement(A, Gaussian(0.2), y)))
    masked = objective(restore, Case(Measurement(A, Gaussian(0.2), A(y))))
    assert once == pytest.approx(masked) and once != 0


def test_the_discrepancy_is_zero_where_the_residual_is_the_noise():
    A, noise = Identity((1, 8, 8)), Gaussian(0.3)
    y = torch.zeros(1, 1, 8, 8)
    case = Case(Measurement(A, noise, y))
    assert Discrepancy()(lambda m: m.y + 0.3, case) == pytest.approx(0.0, abs=1e-10)
    off = Discrepancy()(lambda m: m.y + 0.6, case)
    assert off == pytest.approx(math.log(2) ** 2) == Discrepancy()(lambda m: m.y + 0.15, case)
    assert Discrepancy(factor=2.0)(lambda m: m.y + 0.6, case) == pytest.approx(0.0, abs=1e-10)
    assert "factor of 2.0000" in Discrepancy().words(off)


def test_the_loss_of_psnr_is_its_negative():
    x = picture()
    case = Case(Measurement(Identity((1, 24, 24)), Gaussian(0.1), x), x)
    loss = PSNR()(lambda m: m.y + 0.1, case)
    assert -loss == pytest.approx(float(psnr(x + 0.1, x, data_range=2.0)))
    assert PSNR().words(loss) == f"{-loss:.3f} dB"


def test_cases_that_do_not_suit_are_refused():
    x, A = picture(8), Identity((1, 8, 8))
    with pytest.raises(ValueError, match="PSNR: got no truth, wanted one of shape"):
        PSNR().check(Case(Measurement(A, Gaussian(0.1), x)))
    with pytest.raises(ValueError, match=r"got a truth of shape \(1, 8, 8\)"):
        PSNR().check(Case(Measurement(A, Gaussian(0.1), x), x[0]))
    for objective in (SURE(), ProjectedSURE(), Discrepancy()):
        with pytest.raises(ValueError, match="got noise-free data, wanted a known sigma above 0"):
            objective.check(Case(Measurement(A, Gaussian(0.0), x)))
        with pytest.raises(ValueError, match="wanted Gaussian noise"):
            objective.check(Case(Measurement(A, Poisson(), x.abs())))


def test_stein_needs_real_weights_where_the_matrix_is_one():
    """The identity holds for any matrix: with A = 2 the errors of A x are four times as large."""
    x = picture(8)
    twice = Matrix(2 * torch.eye(64).double())
    case = Case(Measurement(twice, Gaussian(0.2), 2 * x.reshape(1, -1)))
    plain = Case(Measurement(Matrix(torch.eye(64).double()), Gaussian(0.1), x.reshape(1, -1)))
    found = SURE()(lambda m: 0.3 * m.y / 2, case)
    assert found == pytest.approx(4 * SURE()(lambda m: 0.3 * m.y, plain))
