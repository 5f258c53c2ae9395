"""Adapters to and from scipy: the same numbers both ways, scipy's own solvers on ours."""

import numpy as np
import pytest
import torch
from scipy.sparse import random_array
from scipy.sparse.linalg import LinearOperator as Scipy
from scipy.sparse.linalg import aslinearoperator, eigsh, lsqr

from measurand.checks.laws import operator_laws
from measurand.operators import (
    SENSE,
    AutogradOperator,
    BlockAverage,
    CartesianMRI,
    FourierMask,
    Mask,
    ScipyOperator,
    birdcage_maps,
    random_lines,
    to_scipy,
)

MASK = random_lines((5, 6), 2.0, 0.3)
OPERATORS = {
    "real": BlockAverage((2, 4, 6), 2),
    "complex": SENSE((1, 5, 6), birdcage_maps((5, 6), 3), MASK),
    "real to complex": FourierMask((1, 5, 6), MASK),
    "complex to real": AutogradOperator(
        (1, 4, 4), lambda x: torch.fft.irfft(x, n=5), in_dtype=torch.complex64
    ),
}


@pytest.mark.parametrize("kind", OPERATORS)
def test_scipy_sees_a_linear_operator_with_its_adjoint(kind):
    operator = OPERATORS[kind].double()
    theirs = to_scipy(operator)
    rng = np.random.default_rng(0)

    def draw(n, k):
        real = rng.normal(size=(n, k))
        return real + 1j * rng.normal(size=(n, k)) if theirs.dtype.kind == "c" else real

    x, y = draw(theirs.shape[1], 3), draw(theirs.shape[0], 3)
    ax, ahy = theirs.matmat(x), theirs.rmatmat(y)
    # a full sesquilinear identity: no real part is needed any more
    np.testing.assert_allclose(np.vdot(ax, y), np.vdot(x, ahy), rtol=1e-12)
    np.testing.assert_allclose(theirs.matvec(x[:, 0]), ax[:, 0], atol=1e-14)
    np.testing.assert_allclose(theirs.rmatvec(y[:, 0]), ahy[:, 0], atol=1e-14)
    np.testing.assert_allclose(theirs.H @ y, ahy, atol=1e-14)
    blank = operator.blank_input()
    if kind in ("real", "complex"):
        image = torch.from_numpy(x[:, 0]).to(blank.dtype).reshape(blank.shape)
        np.testing.assert_allclose(ax[:, 0], operator(image).flatten().numpy(), atol=1e-14)
    if kind == "complex":
        np.testing.assert_allclose(theirs @ (1j * x), 1j * ax, atol=1e-13)


def test_solvers_of_scipy_run_on_ours():
    operator = OPERATORS["real to complex"].double()
    theirs, gamma = to_scipy(operator), 0.3
    torch.manual_seed(0)
    v = torch.randn(1, 1, 5, 6, dtype=torch.float64)
    y = torch.randn(1, 1, 5, 6, dtype=torch.complex128)
    step = (y - operator(v)).flatten()
    right = torch.view_as_real(step).flatten().numpy()
    solved = lsqr(theirs, right, damp=gamma**0.5, atol=1e-14, btol=1e-14)[0]
    wanted = operator.prox(v, y, gamma) - v
    np.testing.assert_allclose(solved, wanted.flatten().numpy(), atol=1e-8)
    sense = to_scipy(OPERATORS["complex"].double())
    top = eigsh(sense.H @ sense, k=1, return_eigenvectors=False)[0]
    assert OPERATORS["complex"].norm == pytest.approx(top**0.5, rel=1e-5)


def test_precision_and_batches():
    single = to_scipy(Mask((1, 3, 4), torch.ones(3, 4)))
    assert single.dtype == np.float32 and single.matvec(np.ones(12)).dtype == np.float32
    masks = random_lines((5, 6), 2.0, 0.3, generator=[torch.Generator(), torch.Generator()])
    with pytest.raises(ValueError, match="2 different items"):
        to_scipy(CartesianMRI((1, 5, 6), masks))


@pytest.mark.parametrize("complex_", [False, True])
def test_sparse_matrices_and_arrays_become_operators(complex_):
    rng = np.random.default_rng(1)
    sparse = random_array((8, 12), density=0.5, rng=rng)
    sparse = sparse + 1j * random_array((8, 12), density=0.5, rng=rng) if complex_ else sparse
    array = sparse.toarray()
    for matrix in (sparse, array, aslinearoperator(sparse)):
        operator = ScipyOperator((3, 4), (2, 4), matrix).double()
        assert operator.in_dtype.is_complex == complex_
        assert all(law.holds for law in operator_laws(operator))
        x = torch.randn(5, 3, 4, dtype=operator.blank_input().dtype)
        np.testing.assert_allclose(
            operator(x).flatten(1).numpy(), x.flatten(1).numpy() @ array.T, atol=1e-12
        )
        x = x[:1].clone().requires_grad_()
        assert torch.autograd.gradcheck(operator, x)
        assert operator.float()(x.detach().to(operator.blank_input().dtype)).dtype in (
            torch.float32,
            torch.complex64,
        )


def test_there_and_back_is_the_same_operator():
    operator = OPERATORS["complex"].double()
    again = ScipyOperator(operator.in_shape, operator.out_shape, to_scipy(operator)).double()
    x = torch.randn(2, *operator.in_shape, dtype=torch.complex128)
    y = torch.randn(2, *operator.out_shape, dtype=torch.complex128)
    torch.testing.assert_close(again(x), operator(x))
    torch.testing.assert_close(again.adjoint(y), operator.adjoint(y))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match=r"got a matrix of \(8, 12\), wanted \(8, 11\)"):
        ScipyOperator((11,), (8,), np.zeros((8, 12)))
    without = Scipy((3, 3), matvec=lambda v: v, dtype=float)
    with pytest.raises(ValueError, match="without adjoint"):
        ScipyOperator((3,), (3,), without)
