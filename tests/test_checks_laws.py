"""Every operator the package names obeys every law, in both precisions."""

import pickle

import pytest
import torch

import measurand.operators as operators
from measurand.checks.laws import (
    adjoint_error,
    norm_error,
    operator_laws,
    prox_error,
    random_input,
    random_output,
)
from measurand.operators.base import LinearOperator
from measurand.tensors import norm

CLASSES = [
    getattr(operators, name)
    for name in operators.__all__
    if isinstance(getattr(operators, name), type)
    and issubclass(getattr(operators, name), LinearOperator)
    and getattr(operators, name) is not LinearOperator
]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_laws(cls, double):
    operator = cls.example()
    if double:
        operator = operator.double()
    failed = [law for law in operator_laws(operator) if not law.holds]
    assert not failed


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_prox_lowers_the_gradient_as_far_as_it_is_asked(cls):
    """Every operator takes the option, and closed forms ignore it."""
    operator = cls.example().double()
    v, y = random_input(operator, operator.batch), random_output(operator, operator.batch)
    gamma = 1e-3 * operator.norm**2
    exact = operator.prox(v, y, gamma)
    start = norm(operator.adjoint(operator(v) - y))
    proximal = [operator.prox(v, y, gamma, residual=residual) for residual in (0.5, 0.1, 1e-3)]
    for p, residual in zip(proximal, (0.5, 0.1, 1e-3), strict=True):
        gradient = norm(operator.adjoint(operator(p) - y) + gamma * (p - v))
        assert (gradient <= 1.001 * residual * start).all()
    if torch.equal(proximal[0], exact):
        assert all(torch.equal(p, exact) for p in proximal)
    else:
        assert distance(proximal[2], exact) < 0.2 * distance(proximal[0], exact)


def distance(a, b):
    return float(norm(a - b).max())


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_prox_gradients_and_autograd(cls):
    operator = cls.example().double()
    blank = operator.blank_input(operator.batch)
    x = torch.randn(blank.shape, dtype=torch.float64).to(blank.dtype).requires_grad_()
    w = torch.randn(operator(x).shape, dtype=torch.float64).to(operator(x).dtype)
    (grad,) = torch.autograd.grad((operator(x) * w.conj()).real.sum(), x)
    torch.testing.assert_close(grad, operator.adjoint(w), rtol=1e-8, atol=1e-8)

    gamma = torch.full((len(x),), 0.3 * operator.norm**2, dtype=torch.float64, requires_grad=True)
    out = operator.prox(x, w, gamma)
    u = torch.randn(out.shape, dtype=torch.float64).to(out.dtype)
    g_x, g_gamma = torch.autograd.grad((out * u.conj()).real.sum(), (x, gamma))
    with torch.no_grad():
        back = operator.solve(u, gamma)
        shape = (-1, *[1] * (x.ndim - 1))
        torch.testing.assert_close(g_x, gamma.reshape(shape) * back, rtol=1e-4, atol=1e-5)
        slope = (back * (x - out).conj()).real.flatten(1).sum(1)
        torch.testing.assert_close(g_gamma, slope, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_another_process_can_use_it(cls):
    operator = cls.example()
    there = pickle.loads(pickle.dumps(operator))
    x = random_input(operator, operator.batch)
    assert torch.equal(there(x), operator(x)) and torch.equal(there.H.H(x), operator(x))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_wrong_inputs_are_named(cls):
    operator = cls.example()
    x = operator.blank_input(operator.batch)
    with pytest.raises(ValueError, match="wanted"):
        operator(x[..., :-1])
    with pytest.raises(ValueError, match="wanted"):
        operator(x.real.to(torch.complex64) if not x.is_complex() else x.real)
    with pytest.raises(ValueError, match="wanted"):
        operator(x.real.half())


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
@pytest.mark.parametrize("gamma", [0.0, -1.0, float("nan"), torch.zeros(1)], ids=str)
def test_a_weight_that_is_not_positive_is_named(cls, gamma):
    operator = cls.example()
    v, y = random_input(operator, operator.batch), random_output(operator, operator.batch)
    for call in (
        lambda: operator.solve(v, gamma),
        lambda: operator.prox(v, y, gamma),
        lambda: operator.sample(v, y, gamma, 0.1, torch.Generator()),
    ):
        with pytest.raises(ValueError, match="gamma"):
            call()


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.__name__)
def test_samples_have_the_promised_mean_and_spread(cls):
    """The mean of draws tends to the prox, and `A^H A + gamma` whitens their deviation."""
    operator = cls.example().double()[0]
    n, sigma, gamma = 3000, 0.3, 0.2 * operator.norm**2
    many = operator.blank_input(n)
    v = torch.randn(many[:1].shape, dtype=torch.float64).to(many.dtype).expand_as(many)
    y = operator(v[:1]).expand(n, *operator.out_shape) * 0.5
    draws = operator.sample(v, y, gamma, sigma, torch.Generator().manual_seed(0))
    deviation = draws - operator.prox(v[:1], y[:1], gamma)
    # E <d, (A^H A + gamma) d> = sigma^2 times the number of real unknowns
    energy = (deviation * (operator.gram(deviation) + gamma * deviation).conj()).real
    unknowns = many[0].numel() * (2 if many.is_complex() else 1)
    ratio = energy.flatten(1).sum(1).mean() / (sigma**2 * unknowns)
    assert abs(float(ratio) - 1) < 5 * (2 / (n * unknowns)) ** 0.5
    spread = deviation.abs().square().mean(0).sqrt()
    z = deviation.mean(0).abs() / spread.clamp_min(1e-12) * n**0.5
    assert float(z.max()) < 5


def test_a_broken_operator_is_caught():
    class Wrong(operators.Identity):
        def adjoint(self, y):
            return 0.9 * y

        @property
        def norm(self):
            return 1.5

        def solve(self, b, gamma, **_):
            return b / (1.1 + gamma)

    wrong = Wrong((1, 4, 4))
    assert adjoint_error(wrong) > 1e-3
    assert norm_error(wrong) > 0.1
    assert prox_error(wrong, 0.5) > 1e-3
    assert {law.name for law in operator_laws(wrong) if not law.holds} >= {
        "adjoint",
        "norm",
        "solve",
    }
