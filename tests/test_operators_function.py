"""Operators made from functions: the adjoint by autograd against dense matrices."""

import numpy as np
import pytest
import torch
from torch import nn

from measurand.checks.laws import adjoint_error, operator_laws
from measurand.operators import AutogradOperator, FunctionOperator
from measurand.operators.function import linear_pair

REAL, COMPLEX = torch.float32, torch.complex64


def dense(function, n, shape, dtype):
    return function(torch.eye(n, dtype=dtype).reshape(n, *shape)).flatten(1).T


@pytest.mark.parametrize(
    ("function", "dtype"),
    [
        (lambda x: torch.nn.functional.avg_pool2d(x, 2), REAL),
        (lambda x: torch.fft.fft(x)[..., 1:] * (1 - 2j), REAL),
        (lambda x: torch.fft.fft(x) * (0.3 + 1j), COMPLEX),
        (lambda x: torch.fft.irfft(x, n=5), COMPLEX),
    ],
    ids=["real", "real to complex", "complex", "complex to real"],
)
def test_autograd_adjoint_is_the_matrix_adjoint(function, dtype):
    shape = (2, 4, 4)
    operator = AutogradOperator(shape, function, in_dtype=dtype).double()
    laws = operator_laws(operator)
    assert all(law.holds for law in laws), laws
    y = torch.randn(1, *operator.out_shape, dtype=torch.complex128)
    y = y if operator.out_dtype.is_complex else y.real
    wide = operator.blank_input().dtype
    if dtype == REAL:
        matrix = dense(operator, 32, shape, wide)
        wanted = (matrix.mH @ y.flatten().to(matrix.dtype)).real
        torch.testing.assert_close(operator.adjoint(y).flatten(), wanted)
    else:  # columns of the real operator of twice the size
        basis = torch.cat([torch.eye(32, dtype=wide), 1j * torch.eye(32, dtype=wide)])
        columns = operator(basis.reshape(64, *shape)).flatten(1)
        parts = (columns.conj() * y.flatten()).real.sum(1)
        torch.testing.assert_close(operator.adjoint(y).flatten(), torch.complex(*parts.chunk(2)))


def test_gradients_reach_what_the_function_closes_over():
    layer = nn.Conv2d(1, 2, 3, bias=False).double()
    operator = AutogradOperator((1, 5, 5), lambda x: layer.to(x.dtype)(x)).double()
    x = torch.randn(1, 1, 5, 5, dtype=torch.float64, requires_grad=True)
    y = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    # <A x, y> and <x, A^H y> have one derivative in the weights
    (left,) = torch.autograd.grad((operator(x) * y).sum(), layer.weight)
    (right,) = torch.autograd.grad((x * operator.adjoint(y)).sum(), layer.weight)
    torch.testing.assert_close(left, right)
    assert torch.autograd.gradcheck(operator.adjoint, y)
    with torch.no_grad():
        assert not operator.adjoint(y).requires_grad


def test_functions_of_another_library_are_differentiable_to_any_order():
    matrix = np.random.default_rng(0).normal(size=(4, 6))

    def forward(x):
        return torch.from_numpy(x.detach().double().numpy() @ matrix.T).to(x.dtype)

    def adjoint(y):
        return torch.from_numpy(y.detach().double().numpy() @ matrix).to(y.dtype)

    operator = FunctionOperator((6,), (4,), forward, adjoint).double()
    assert all(law.holds for law in operator_laws(operator))
    x = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(operator, x)
    assert torch.autograd.gradgradcheck(lambda x: operator(x).pow(3), x)
    value = linear_pair(x, forward, adjoint)
    torch.testing.assert_close(value, operator(x))


def test_a_wrong_adjoint_is_found_by_the_check():
    operator = FunctionOperator((3, 3), (3, 3), lambda x: 2 * x, lambda y: 2.1 * y)
    assert adjoint_error(operator) > 1e-3


def test_wrong_functions_are_named():
    for make, message in (
        (lambda: AutogradOperator((2, 3), lambda x: x + 1), "zero to zero"),
        (lambda: AutogradOperator((2, 3), lambda x: x.abs() / x), "zero to zero"),
        (lambda: FunctionOperator((3,), (2,), lambda x: x, lambda y: y), "forward returned shape"),
        (
            lambda: FunctionOperator((3,), (2,), lambda x: x[:, :2], lambda y: y),
            "adjoint returned shape",
        ),
        (
            lambda: FunctionOperator((3,), (3,), lambda x: x, lambda y: y + 0j),
            "adjoint returned .* wanted .* torch.float32",
        ),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="ndarray"):
        AutogradOperator((2, 3), lambda x: x.numpy())
    cut = AutogradOperator((2, 3), lambda x: x.detach())
    with pytest.raises(ValueError, match="cut the graph"):
        cut.adjoint(torch.zeros(1, 2, 3))


def test_device_and_precision_are_followed(device):
    for dtype in (torch.float32, torch.float64):
        operator = AutogradOperator((1, 4, 4), lambda x: x.cumsum(-1)).to(device, dtype)
        x = torch.ones(2, 1, 4, 4, device=device, dtype=dtype)
        assert operator.adjoint(operator(x)).dtype == dtype
        assert operator.adjoint(operator(x)).device.type == device.type


def test_inference_mode_does_not_forbid_the_adjoint():
    operator = AutogradOperator((1, 4, 4), lambda x: x.cumsum(-1) * 2)
    y = torch.ones(2, 1, 4, 4)
    wanted = operator.adjoint(y)
    with torch.inference_mode():
        assert torch.equal(operator.adjoint(y), wanted)
        assert torch.equal(operator.adjoint(y * 1), wanted)
        assert torch.equal(operator.gram(y * 1), operator.adjoint(operator(y)))
