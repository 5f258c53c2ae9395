"""A measurement: likelihood, prox, exact conditional draws, EM, the normalised problem."""

import pytest
import torch

from measurand.measurement import Measurement
from measurand.noises import ComplexGaussian, Gaussian, Poisson
from measurand.operators.base import Identity, LinearOperator, Scaled
from measurand.tensors import generators, per_item


class Dense(LinearOperator):
    """A matrix, one per item where it has three axes."""

    items = ("matrix",)

    def __init__(self, matrix):
        matrix = matrix if matrix.ndim == 3 else matrix[None]
        dtype = torch.complex64 if matrix.is_complex() else torch.float32
        super().__init__(matrix.shape[2:], matrix.shape[1:2], dtype, dtype)
        self.register_buffer("matrix", matrix)

    def forward(self, x):
        return (self.matrix @ x[..., None])[..., 0]

    def adjoint(self, y):
        return (self.matrix.mH @ y[..., None])[..., 0]

    @classmethod
    def example(cls):
        return cls(torch.ones(2, 3))


def matrix(rows, columns, seed=0, dtype=torch.float64):
    return torch.randn(rows, columns, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def problem(sigma=0.3, batch=2, dtype=torch.float64):
    a = Dense(matrix(4, 6, dtype=dtype)).double()
    x = matrix(batch, 6, 1, dtype)
    noise = (ComplexGaussian if dtype.is_complex else Gaussian)(sigma).double()
    return Measurement(a, noise, noise(a(x))), x


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradient_and_prox_solve_their_equations(dtype):
    m, x = problem(dtype=dtype)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(m.nll(x).sum(), x)
    torch.testing.assert_close(grad, m.gradient(x.detach()))
    r = torch.tensor([0.5, 2.0], dtype=torch.float64)
    p = m.prox(x.detach(), r)
    stationary = m.gradient(p) + (p - x.detach()) / per_item(r, p) ** 2
    assert float(stationary.abs().max()) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_conditional_sample_has_the_exact_covariance(dtype):
    m, x = problem(batch=1, dtype=dtype)
    n, r = 40_000, 0.7
    draws = m.repeat(n).conditional_sample(x.expand(n, -1), r, torch.Generator().manual_seed(3))
    a = m.operator.matrix[0]
    precision = a.mH @ a / m.sigma**2 + torch.eye(6) / r**2
    want = torch.linalg.inv(precision)
    d = draws - m.prox(x, r)
    # per real component: E d d^H of complex noise counts both components
    found = d.T @ d.conj() / n / (2 if dtype.is_complex else 1)
    assert (
        float((found - want).abs().square().sum().sqrt() / want.abs().square().sum().sqrt()) < 0.03
    )
    assert float(d.mean(0).abs().max()) < 0.03


def test_draws_do_not_depend_on_the_batch():
    m, x = problem(batch=3)
    g = generators(5, 3)
    whole = m.conditional_sample(x, 0.5, g)
    alone = m[1].conditional_sample(x[1:2], 0.5, generators(5, 3)[1:2])
    torch.testing.assert_close(whole[1:2], alone, rtol=1e-5, atol=1e-6)


def test_noise_free_data_are_met():
    m, x = problem(sigma=0.0)
    p = m.prox(torch.zeros_like(x), 3.0)
    assert float(m.residual(p).norm() / m.y.norm()) < 1e-4


def test_normalized_is_the_same_problem():
    m, x = problem()
    unit = m.normalized()
    assert unit.operator.norm == pytest.approx(1.0)
    torch.testing.assert_close(unit.nll(x), m.nll(x))
    torch.testing.assert_close(unit.prox(x, 0.4), m.prox(x, 0.4), rtol=1e-5, atol=1e-6)


def test_one_operator_per_item():
    a = Dense(torch.stack([matrix(4, 6, 0), matrix(4, 6, 9)])).double()
    x = matrix(2, 6, 1)
    m = Measurement(a, Gaussian(torch.tensor([0.1, 0.5])).double(), a(x))
    p = m.prox(torch.zeros_like(x), 1.0)
    torch.testing.assert_close(
        p[1:], m[1].prox(torch.zeros_like(x[1:]), 1.0), rtol=1e-4, atol=1e-5
    )
    assert len(m.repeat(3)) == 6 and m.repeat(3).operator.batch == 6
    torch.testing.assert_close(m.repeat(3)[3:4].y, m[1].y)


def counts(background=0.3):
    a = Dense(matrix(9, 5).abs()).double()
    x = matrix(2, 5, 1).abs() + 0.1
    noise = Poisson(gain=0.05, background=background).double()
    return Measurement(a, noise, noise(a(x))), x


def test_em_increases_the_likelihood_to_its_maximum():
    m, x = counts()
    z, last = torch.ones_like(x), m.nll(torch.ones_like(x))
    for _ in range(3000):
        z = m.em_step(z)
        now = m.nll(z)
        assert bool((now <= last + 1e-9).all())
        last = now
    slack = m.gradient(z)  # Karush-Kuhn-Tucker: zero where z > 0, not negative where z = 0
    assert float((slack * z).abs().max()) < 1e-2 and float(slack.min()) > -1e-2


def test_anchored_em_minimises_its_objective():
    m, x = counts()
    anchor, beta = x + 0.2, 40.0
    z = torch.ones_like(x)
    for _ in range(2000):
        z = m.em_step(z, anchor, beta)
    assert float((m.gradient(z) + beta * (z - anchor)).abs().max()) < 1e-6


def test_what_a_noise_cannot_do_is_said():
    gaussian, x = problem()
    poisson, _ = counts()
    with pytest.raises(TypeError, match="prox, gradient"):
        gaussian.em_step(x)
    with pytest.raises(TypeError, match="em_step"):
        poisson.prox(torch.ones(2, 5, dtype=torch.float64), 1.0)


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (torch.zeros(1, 3), "wanted"),
        (torch.full((1, 4), float("nan")), "not finite"),
        (torch.zeros(1, 4, dtype=torch.complex64), "real"),
    ],
)
def test_bad_data_are_named(y, match):
    with pytest.raises(ValueError, match=match):
        Measurement(Identity((4,)), Gaussian(0.1), y)


def test_scaled_keeps_prox_and_sample_exact():
    a = Dense(matrix(4, 6)).double()
    scaled = Scaled(a, -2.5).double()
    v, y = matrix(1, 6, 3), matrix(1, 4, 4)
    direct = Dense(-2.5 * matrix(4, 6)).double()
    torch.testing.assert_close(
        scaled.prox(v, y, 0.3), direct.prox(v, y, 0.3), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(scaled.solve(v, 0.3), direct.solve(v, 0.3), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        scaled.prox(v, y, 0.3, prepared=scaled.prepare(y)),
        direct.prox(v, y, 0.3),
        rtol=1e-5,
        atol=1e-6,
    )
