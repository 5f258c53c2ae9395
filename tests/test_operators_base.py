"""What all operators share: items, algebra, arrays at the door."""

import numpy as np
import pytest
import torch

from measurand.measurement import Measurement
from measurand.noises import Gaussian
from measurand.operators import (
    SENSE,
    Adjoint,
    CartesianMRI,
    Composed,
    FourierMask,
    Identity,
    Mask,
    ParallelCT,
    Scaled,
    Stacked,
    birdcage_maps,
    random_lines,
    variable_density_mask,
)
from measurand.tensors import generators, norm, per_item, randn_like


def two_masks():
    return Mask((1, 2, 2), torch.tensor([[[[1.0, 0], [0, 2]]], [[[0, 3], [1, 0]]]]))


def wrapped():
    A = two_masks()
    return [A, A.H, 2 * A, A @ Identity((1, 2, 2)), Stacked(Identity((1, 2, 2)), A)]


@pytest.mark.parametrize("operator", wrapped(), ids=str)
def test_items_are_numbered_and_end(operator):
    x = torch.ones(2, *operator.in_shape)
    each = list(operator)
    assert len(each) == 2 and all(one.batch == 1 for one in each)
    torch.testing.assert_close(torch.cat([one(x[:1]) for one in each]), operator(x))
    torch.testing.assert_close(operator[-1](x[:1]), operator(x)[1:])
    for wrong in (2, -3):
        with pytest.raises(IndexError, match=f"got item {wrong} of a batch of 2, wanted -2 to 1"):
            operator[wrong]


def test_an_operator_that_all_items_share_has_one():
    A = Identity((1, 2, 2))
    assert len(list(A)) == 1
    with pytest.raises(IndexError, match="item 1 of a batch of 1"):
        A[1]
    assert A[1:2].batch == 1  # the items of a measurement share it


def test_norms_are_those_of_the_items():
    A = two_masks()
    assert A.norms == [2.0, 3.0] and A.norm == 3.0
    for scaled in (Scaled(A, -2.0), A.H @ A):
        assert scaled.norms == pytest.approx([one.norm for one in scaled])
    assert A[1:].norms == [3.0] and A.repeat(2).norms == [2.0, 2.0, 3.0, 3.0]
    assert Identity((3,)).norms == [pytest.approx(1.0)]


def test_algebra_reads_from_both_sides():
    A, x = two_masks(), torch.ones(2, 1, 2, 2)
    torch.testing.assert_close((A * 2)(x), (2 * A)(x))
    assert isinstance(A * -0.5, Scaled) and isinstance(A.H, Adjoint)
    with pytest.raises(TypeError, match="unsupported operand"):
        A * A
    for empty in (Composed, Stacked):
        with pytest.raises(ValueError, match=f"{empty.__name__}: got no operators, wanted at"):
            empty()


def test_arrays_are_taken_like_tensors():
    mask, angles = np.arange(8) % 2 == 0, np.linspace(0, 3, 5)
    maps = birdcage_maps((6, 8), 3)
    pairs = [
        (CartesianMRI((1, 6, 8), mask), CartesianMRI((1, 6, 8), torch.from_numpy(mask))),
        (FourierMask((2, 6, 8), mask), FourierMask((2, 6, 8), torch.from_numpy(mask))),
        (SENSE((1, 6, 8), maps.numpy(), mask), SENSE((1, 6, 8), maps, torch.from_numpy(mask))),
        (ParallelCT((1, 6, 6), angles), ParallelCT((1, 6, 6), torch.from_numpy(angles))),
        (ParallelCT((1, 6, 6), [0.0, 0.5]), ParallelCT((1, 6, 6), torch.tensor([0.0, 0.5]))),
    ]
    for found, wanted in pairs:
        x = torch.ones_like(found.blank_input())
        assert torch.equal(found(x), wanted(x))
    with pytest.raises(ValueError, match="SENSE: got maps with shape"):
        SENSE((1, 6, 8), maps[0, 0].numpy(), mask)


def counted(operator):
    """The operator with a list of the calls of its `gram`."""
    calls, gram = [], operator.gram
    object.__setattr__(operator, "gram", lambda x: calls.append(1) or gram(x))
    return operator, calls


def coils(gamma=1e-4, n=1):
    mask = variable_density_mask((24, 32), 4.0, generator=generators(0, 1))
    A = SENSE((1, 24, 32), birdcage_maps((24, 32), 4), mask).double()
    x = randn_like(A.blank_input(n), generators(0, n))
    y = A(x)
    return A, x + 0.1 * randn_like(x, generators(1, n)), y, gamma


def test_a_prox_to_a_residual_starts_at_v_and_takes_fewer_iterations():
    A, v, y, gamma = coils()
    exact = A.prox(v, y, gamma)
    A, calls = counted(A)
    taken, errors = {}, {}
    for residual in (None, 1e-3, 1e-2, 1.01):
        calls.clear()
        found = A.prox(v, y, gamma, residual=residual)
        taken[residual] = len(calls)
        errors[residual] = float((found - exact).norm() / (v - exact).norm())
    assert torch.equal(found, v) and taken[1.01] <= 1  # the one that a gradient may need
    assert taken[1e-2] < taken[1e-3] < 0.6 * taken[None]
    assert errors[None] < 1e-5 < errors[1e-3] < errors[1e-2] < 0.5


def test_a_prox_to_a_residual_leaves_the_neighbours_of_an_item_alone():
    A, v, y, gamma = coils(n=3)
    gamma = torch.tensor([1e-4, 1e-1, 1e-3], dtype=torch.float64)
    y = y * torch.tensor([1.0, 30.0, 0.01], dtype=torch.float64).reshape(3, 1, 1, 1)
    together = A.prox(v, y, gamma, residual=1e-2)
    for i in range(3):
        at = slice(i, i + 1)
        alone = A.prox(v[at], y[at], gamma[at], residual=1e-2)
        torch.testing.assert_close(alone, together[at], rtol=1e-9, atol=1e-9)


def test_multiples_pass_a_residual_on():
    A, v, y, gamma = coils()
    found = (3.0 * A).prox(v, 3.0 * y, 9.0 * gamma, residual=1e-2)
    torch.testing.assert_close(found, A.prox(v, y, gamma, residual=1e-2), rtol=1e-6, atol=1e-6)
    closed = Scaled(Identity((2, 3)), 2.0)
    v, y = torch.randn(2, 1, 2, 3)
    assert torch.equal(closed.prox(v, y, 0.1, residual=0.1), closed.prox(v, y, 0.1))


def test_the_default_prox_asks_a_solve_of_its_own_for_nothing_new():
    """Operators written before the option: a `solve` or `prox` without it works as it did."""

    class Own(Identity):
        def solve(self, b, gamma):
            return b / (1 + gamma)

    class Closed(Own):
        def prox(self, v, y, gamma, *, prepared=None):
            return (y + gamma * v) / (1 + gamma)

    v, y = torch.randn(2, 1, 2, 3)
    for A in (Own((2, 3)), Closed((2, 3)), Scaled(Closed((2, 3)), 1.0)):
        torch.testing.assert_close(A.prox(v, y, 0.5), (y + 0.5 * v) / 1.5)
        torch.testing.assert_close(Measurement(A, Gaussian(0.1), y).prox(v, 0.1), (y + v) / 2)


def test_a_prox_to_a_residual_differentiates():
    A, v, y, gamma = coils()
    grads = {}
    for residual in (None, 1e-5):
        w = v.clone().requires_grad_()
        A.prox(w, y, gamma, residual=residual).abs().square().sum().backward()
        grads[residual] = w.grad
    assert float((grads[1e-5] - grads[None]).norm() / grads[None].norm()) < 1e-2


@pytest.mark.parametrize("lines", [False, True])
def test_a_prox_with_an_error_stops_where_it_is_certain_to_be_smaller(lines):
    A, v, y, _ = coils(n=3)
    if lines:
        A = SENSE(A.in_shape, A.maps, random_lines((24, 32), 3.0, 0.1)).double()
        y = A(v - 0.1 * randn_like(v, generators(1, 3)))
    gamma = torch.tensor([1e-3, 1e-2, 1e-1], dtype=torch.float64)
    error = torch.tensor([0.05, 0.03, 0.02], dtype=torch.float64)
    exact = A.prox(v, y, gamma)
    A, calls = counted(A)
    taken = []
    for options in ({}, {"residual": 1e-4}, {"error": error}, {"residual": 1e-4, "error": error}):
        calls.clear()
        found = A.prox(v, y, gamma, **options)
        taken.append(len(calls))
        rms = torch.view_as_real(found - exact).flatten(1).square().mean(1).sqrt()
        if options.keys() == {"error"}:
            assert bool((rms < error).all()) and (lines or float(rms.max()) > 0)
            for k in range(3):
                at = slice(k, k + 1)
                alone = A.prox(v[at], y[at], gamma[at], error=error[at])
                torch.testing.assert_close(alone, found[at], rtol=1e-9, atol=1e-9)
    assert lines or taken[3] < taken[1] <= taken[0]  # so few rows are solved exactly
    # never more than five times the gradient that was asked for, so that every step moves
    found = A.prox(v, y, gamma, residual=0.1, error=1e3)
    start = norm(A.adjoint(A(v) - y))
    left = norm(A.adjoint(A(found) - y) + per_item(gamma, v) * (found - v))
    assert bool((left <= 0.5 * start).all())


def test_a_prox_starts_where_it_is_told():
    A, v, y, gamma = coils()
    exact = A.prox(v, y, gamma)
    far = exact + 0.1 * randn_like(v, generators(2, 1))
    found = A.prox(v, y, gamma, x0=far)
    assert float((found - exact).norm()) < 1e-4 * float((v - exact).norm())
    A, calls = counted(A)
    for c in (1.0, 3.0):
        calls.clear()
        with torch.no_grad():
            near = (c * A).prox(v, c * y, c * c * gamma, x0=exact, error=1e-5)
        assert not calls and torch.allclose(near, exact, atol=1e-5)
    at = A.prox(v, A(v), gamma, error=1e-3)
    assert torch.equal(at, v)  # nothing to correct


def test_a_prox_with_an_error_differentiates():
    A, v, y, gamma = coils()
    w = v.clone().requires_grad_()
    A.prox(w, y, gamma, error=1e-6, x0=v).abs().square().sum().backward()
    assert bool(torch.isfinite(torch.view_as_real(w.grad)).all()) and float(w.grad.norm()) > 0
