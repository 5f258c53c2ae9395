"""Families of operators: both halves of a bilinear map, kernels on the simplex, shifts."""

import pytest
import torch

from measurand.blind import BlindMeasurement, Unknowns
from measurand.noises import Gaussian, Poisson
from measurand.operators import (
    Blur,
    KernelBlur,
    LinearOperator,
    UnknownBlur,
    UnknownValidBlur,
    disk_kernel,
    gaussian_kernel,
    simplex,
)

F64 = torch.float64


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


FAMILIES = [
    UnknownBlur((3, 16, 16), 5),
    UnknownBlur((2, 9, 12), 6),
    UnknownBlur((1, 8, 8), 8, alpha=0.3),
    UnknownValidBlur((3, 14, 15), 5),
    UnknownValidBlur((1, 13, 12), 6),
]


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
def test_linear_in_the_image_and_affine_in_the_parameters(family):
    x, theta = drawn(2, *family.in_shape), drawn(2, *family.theta_shape, seed=1)
    by_theta = family.at(theta)(x)
    by_image = family.at_image(x)(theta) + family.offset(x)
    assert by_theta.shape[1:] == family.out_shape
    torch.testing.assert_close(by_theta, by_image, rtol=1e-12, atol=1e-12)


def dense(operator: KernelBlur) -> torch.Tensor:
    """The matrix of an operator of one item."""
    basis = torch.eye(operator.side**2, dtype=F64).reshape(-1, *operator.in_shape)
    return torch.cat([operator(e[None]).reshape(1, -1) for e in basis]).T


@pytest.mark.parametrize("family", FAMILIES, ids=repr)
@pytest.mark.parametrize("gamma", [1e-4, 1.0, 100.0])
def test_solve_of_the_kernel_equals_a_dense_solve(family, gamma):
    operator = family.at_image(drawn(1, *family.in_shape))
    b, matrix = drawn(1, *family.theta_shape, seed=2), dense(operator)
    normal = matrix.T @ matrix + gamma * torch.eye(family.side**2, dtype=F64)
    wanted = torch.linalg.solve(normal, b.flatten())
    found = operator.solve(b, gamma).flatten()
    assert (found - wanted).norm() <= 1e-5 * wanted.norm()


def test_kernel_likelihood_has_the_mean_and_covariance_of_the_dense_reference():
    family, sigma, rho = UnknownBlur((3, 16, 16), 5, alpha=0.4), 0.3, 0.5
    x = drawn(1, *family.in_shape)
    theta = drawn(1, *family.theta_shape, seed=3)
    y = family.at(theta)(x) + sigma * drawn(1, *family.out_shape, seed=4)
    blind = BlindMeasurement(family, Gaussian(sigma), y)
    near, n = drawn(1, *family.theta_shape, seed=5), 20000
    matrix, start = dense(family.at_image(x)), near.flatten()
    precision = matrix.T @ matrix / sigma**2 + torch.eye(25, dtype=F64) / rho**2
    right = matrix.T @ (y - family.offset(x)).flatten() / sigma**2 + start / rho**2
    mean, covariance = torch.linalg.solve(precision, right), torch.linalg.inv(precision)
    known = blind.at_image(x)
    assert (known.prox(near, rho).flatten() - mean).norm() <= 1e-5 * mean.norm()
    generator = torch.Generator().manual_seed(1)
    parts = [
        blind.repeat(2000)
        .at_image(x.expand(2000, -1, -1, -1))
        .conditional_sample(near.expand(2000, -1, -1, -1), rho, generator)
        for _ in range(n // 2000)
    ]
    draws = torch.cat(parts).flatten(1)
    off = (draws.mean(0) - mean) / (covariance.diagonal() / n).sqrt()
    assert off.abs().max() <= 3.5
    assert (torch.cov(draws.T) - covariance).norm() <= 0.05 * covariance.norm()


def test_image_likelihood_has_the_mean_and_covariance_of_the_dense_reference():
    family, sigma, rho, n = UnknownBlur((1, 8, 8), 5), 0.2, 0.3, 20000
    theta = family.theta(gaussian_kernel(0.9, 5).double())
    y, v = drawn(1, 1, 8, 8), drawn(1, 1, 8, 8, seed=1)
    blind = BlindMeasurement(family, Gaussian(sigma), y)
    operator = family.at(theta)
    basis = torch.eye(64, dtype=F64).reshape(64, 1, 8, 8)
    matrix = operator(basis).reshape(64, 64).T
    precision = matrix.T @ matrix / sigma**2 + torch.eye(64, dtype=F64) / rho**2
    covariance = torch.linalg.inv(precision)
    mean = covariance @ (matrix.T @ y.flatten() / sigma**2 + v.flatten() / rho**2)
    known = blind.repeat(n).at(theta)
    draws = known.conditional_sample(
        v.expand(n, -1, -1, -1), rho, torch.Generator().manual_seed(2)
    ).flatten(1)
    off = (draws.mean(0) - mean) / (covariance.diagonal() / n).sqrt()
    assert off.square().mean().sqrt() <= 1.2 and off.abs().max() <= 4
    # of 64 dimensions, n draws alone leave sqrt(64 / n) = 5.7 % of a white covariance
    assert (torch.cov(draws.T) - covariance).norm() <= 0.06 * covariance.norm()


def test_conjugate_gradients_draw_the_image_of_the_closed_form():
    """Perturb and optimise, with the same perturbation in both."""
    family = UnknownBlur((1, 8, 8), 5)
    operator = family.at(family.theta(gaussian_kernel(0.9, 5).double()))
    v, y = drawn(3, 1, 8, 8, seed=1), drawn(3, 1, 8, 8, seed=2)
    closed = operator.prox(v, y, 0.1)
    iterated = v + LinearOperator.solve(operator, operator.adjoint(y - operator(v)), 0.1, tol=1e-8)
    assert (closed - iterated).norm() <= 1e-5 * closed.norm()


def test_both_domains_of_the_kernel_give_the_same_kernel():
    family, sigma, rho = UnknownBlur((3, 16, 16), 5, alpha=0.4), 0.1, 0.3
    x, k0 = drawn(1, 3, 16, 16), drawn(1, 1, 5, 5, seed=1)
    y = drawn(1, 3, 16, 16, seed=2)
    blind = BlindMeasurement(family, Gaussian(sigma), y)
    u = blind.at_image(x).prox(2 * k0 / 0.4 - 1, rho)
    r = rho * 0.2  # the same coupling in units of the kernel
    direct = KernelBlur(x, 5)
    k = direct.prox(k0, y, (sigma / r) ** 2)
    torch.testing.assert_close(0.2 * (u + 1), k, rtol=0, atol=1e-6)


def test_simplex_is_the_nearest_point():
    k = 0.2 * drawn(4, 1, 6, 6)
    p = simplex(k)
    torch.testing.assert_close(p.sum((-2, -1)), torch.ones(4, 1, dtype=F64), rtol=0, atol=1e-6)
    assert p.min() >= 0
    torch.testing.assert_close(simplex(p), p)
    # optimality: no other kernel q of the simplex lies behind p, <k - p, q - p> <= 0
    for seed in range(5):
        q = drawn(4, 1, 6, 6, seed=seed).exp()
        q = q / q.sum((-2, -1), keepdim=True)
        assert ((k - p) * (q - p)).sum((1, 2, 3)).max() <= 1e-12


def test_kernel_and_theta_are_inverse_and_a_delta_is_the_identity():
    for side in (5, 6):
        family = UnknownBlur((2, 12, 12), side)
        k = disk_kernel(1.7).double()
        theta = family.theta(k)
        assert family.kernel(theta).sum().item() == pytest.approx(1, abs=1e-6)
        torch.testing.assert_close(family.project(theta), theta, rtol=0, atol=1e-5)
        x = drawn(1, 2, 12, 12)
        torch.testing.assert_close(family.at(theta)(x), Blur((2, 12, 12), k)(x))
        delta = family.theta(torch.ones(1, 1, dtype=F64))
        torch.testing.assert_close(family.at(delta)(x), x)


@pytest.mark.parametrize("side", [15, 16])
def test_moved_pairs_have_the_same_data_and_are_brought_back(side):
    family = UnknownBlur((3, 32, 32), side)
    x, k = drawn(1, 3, 32, 32), gaussian_kernel(1.0, 7).double()
    theta = family.theta(k)
    moved_x, moved = family.moved([[3, -2]], x, theta)
    torch.testing.assert_close(moved_x, x.roll((-3, 2), (-2, -1)))
    torch.testing.assert_close(family.at(moved)(moved_x), family.at(theta)(x))
    back_x, back = family.aligned(moved_x, moved)
    torch.testing.assert_close(back_x, x)
    torch.testing.assert_close(back, theta)


def test_of_a_photograph_nothing_wraps_around():
    family = UnknownValidBlur.of((3, 20, 22), 7)
    assert family.in_shape == (3, 26, 28) and family.out_shape == (3, 20, 22)
    x, theta = family.start(drawn(2, 3, 20, 22))
    assert x.shape[1:] == family.in_shape and theta.shape == (2, 1, 7, 7)
    torch.testing.assert_close(family.framed(x), drawn(2, 3, 20, 22))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((3, 32, 32), 33), "at most the size of the image"),
        (((32, 32), 5), r"wanted \(C, H, W\)"),
        (((3, 32, 32), 1), "at least 2"),
        (((3, 32, 32), 5.5), "whole number"),
        (((3, 32, 32), 5, -0.1), "alpha"),
    ],
)
def test_families_that_are_none(arguments, message):
    with pytest.raises(ValueError, match=f"UnknownBlur: .*{message}"):
        UnknownBlur(*arguments)


def test_measurements_that_are_none():
    family = UnknownBlur((3, 16, 16), 5)
    y = torch.zeros(1, 3, 16, 16)
    with pytest.raises(ValueError, match="sigma = 0"):
        BlindMeasurement(family, Gaussian(0.0), y)
    with pytest.raises(TypeError, match="Poisson"):
        BlindMeasurement(family, Poisson(), y)
    with pytest.raises(TypeError, match="wanted an OperatorFamily"):
        BlindMeasurement(Blur((3, 16, 16), gaussian_kernel(1.0)), Gaussian(0.1), y)
    with pytest.raises(ValueError, match="complex"):
        BlindMeasurement(family, Gaussian(0.1), y.to(torch.complex64))
    with pytest.raises(ValueError, match=r"got y with shape \(1, 1, 16, 16\)"):
        BlindMeasurement(family, Gaussian(0.1), y[:, :1])
    with pytest.raises(ValueError, match="1 of 768 values of y are not finite"):
        bad = y.clone()
        bad[0, 0, 0, 0] = float("nan")
        BlindMeasurement(family, Gaussian(0.1), bad)
    with pytest.raises(ValueError, match="3 standard deviations for 1 items"):
        BlindMeasurement(family, Gaussian(torch.tensor([0.1, 0.2, 0.3])), y)


def test_items_of_a_blind_measurement():
    family = UnknownBlur((1, 8, 8), 3)
    y = torch.arange(2 * 64.0).reshape(2, 1, 8, 8)
    blind = BlindMeasurement(family, Gaussian(torch.tensor([0.1, 0.2])), y)
    many = blind.repeat(3)
    assert len(many) == 6 and torch.equal(many.y[3:], y[1:].expand(3, -1, -1, -1))
    assert torch.equal(many[4].y, y[1:]) and many[4].sigma.item() == pytest.approx(0.2)
    pair = Unknowns(*family.start(y))
    expected = (y - family.at(pair.theta)(pair.x)).square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(blind.misfit(*pair), expected / torch.tensor([0.1, 0.2]))
