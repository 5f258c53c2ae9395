import copy

import pytest
import torch

from measurand.checks.laws import operator_laws
from measurand.linalg import cg
from measurand.measurement import moved
from measurand.operators import (
    SENSE,
    birdcage_maps,
    equispaced_lines,
    random_lines,
    variable_density_mask,
)
from measurand.operators.base import LinearOperator
from measurand.operators.lines import line_modes
from measurand.tensors import generators, inner, per_item, randn_like

SHAPE = (10, 12)


def noise(*shape, seed=0, dtype=torch.complex64):
    return randn_like(torch.empty(shape, dtype=dtype), generators(seed, shape[0]))


def coils(columns=True, masks=1, maps=1, shape=SHAPE):
    """Lines along either axis, with one mask or one set of maps for all items or for each."""
    width = shape if columns else shape[::-1]
    mask = random_lines(width, 2.0, 0.25, generator=generators(0, masks))
    mask = mask if columns else mask.mT
    sets = [birdcage_maps(shape, 3, radius) for radius in (1.4, 1.6, 1.9)[:maps]]
    return SENSE((1, *shape), torch.stack([s.reshape(3, *shape) for s in sets]), mask)


@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize(("masks", "maps"), [(1, 1), (3, 1), (1, 3), (3, 3)])
def test_modes_are_the_eigenvectors_of_the_normal_operator(columns, masks, maps):
    operator = coils(columns, masks, maps).double().decomposed()
    x = noise(3, 1, *SHAPE, dtype=torch.complex128)
    gamma = torch.tensor([1e-6, 0.02, 3.0], dtype=torch.float64)
    b = operator.gram(x) + per_item(gamma, x) * x
    assert torch.allclose(operator.solve(b, gamma), x, atol=1e-8)
    trace = operator._values.sum((1, 2)) / x[0].numel()
    for k, one in enumerate(trace):
        assert float(one) == pytest.approx(operator[k].trace_gram())


def test_norms_are_the_largest_eigenvalues():
    operator = coils(masks=3, maps=3).decomposed()
    for found, k in zip(operator.norms, range(3), strict=True):
        slow = LinearOperator.norm.func(operator[k])
        assert found == pytest.approx(slow, rel=1e-3) and found >= slow * (1 - 1e-6)
        assert operator[k].norm == pytest.approx(found, rel=1e-6)
    assert operator.norm == max(operator.norms)


def test_small_gamma_costs_no_iterations_and_stays_exact():
    """1e-4 is where conjugate gradients take hundreds of iterations in single precision."""
    operator = coils(shape=(24, 32)).decomposed()
    x = operator.double().solve(noise(2, 1, 24, 32).to(torch.complex128), 1e-4)
    assert operator.float()._vectors.dtype == torch.complex64
    found = operator.solve(noise(2, 1, 24, 32), 1e-4)
    assert float((found - x).norm() / x.norm()) < 1e-5
    wanted = cg(lambda v: operator.gram(v) + 1e-4 * v, noise(2, 1, 24, 32), tol=1e-7, max_iter=999)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-3


@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize(("masks", "items"), [(1, 1), (1, 4), (3, 3)])
def test_a_solve_does_not_copy_the_eigenvectors(columns, masks, items):
    """A conjugate of the eigenvectors takes ten times as long as the product with them."""
    operator, b = coils(columns, masks, shape=(40, 48)).decomposed(), noise(items, 1, 40, 48)
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as profile:
        operator.solve(b, 0.1)
    taken = max(event.cpu_memory_usage for event in profile.events())
    vectors = operator._vectors
    assert 0 < taken < 0.5 * vectors.numel() * vectors.element_size()


def test_an_item_does_not_depend_on_how_many_share_the_mask():
    operator, b = coils().decomposed(), noise(5, 1, *SHAPE)
    gamma = torch.linspace(0.01, 1, 5)
    together = operator.solve(b, gamma)
    for k in range(5):
        alone = operator.solve(b[k : k + 1], gamma[k : k + 1])
        assert torch.allclose(alone, together[k : k + 1], atol=1e-5)


def test_gradients_are_those_of_finite_differences():
    for operator in (coils(shape=(3, 4)), coils(False, 2, shape=(3, 4))):
        operator = operator.double().decomposed()
        b = noise(2, 1, 3, 4, dtype=torch.complex128).requires_grad_()
        gamma = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(operator.solve, (b, gamma))


def test_learned_maps_get_their_gradient_from_the_iterative_solver():
    maps = birdcage_maps(SHAPE, 3).requires_grad_()
    operator = SENSE((1, *SHAPE), maps, random_lines(SHAPE, 2.0, 0.25)).decomposed()
    operator.solve(noise(1, 1, *SHAPE), 0.1).abs().square().sum().backward()
    assert float(maps.grad.norm()) > 0


def test_a_decomposed_operator_obeys_the_laws_in_single_precision():
    operator = coils().decomposed()
    assert operator.blank_input().dtype == torch.complex64
    assert all(law.holds for law in operator_laws(operator))


def test_only_lines_decompose():
    points = SENSE((1, *SHAPE), birdcage_maps(SHAPE, 3), variable_density_mask(SHAPE, 2.0))
    with pytest.raises(ValueError, match="not one of lines"):
        points.decomposed()


def test_a_decomposition_goes_where_the_operator_goes():
    operator = coils(masks=3, maps=3)
    whole = operator.decomposed()
    assert operator._vectors is None
    b = noise(3, 1, *SHAPE)
    wanted = whole.solve(b, 0.05)
    assert torch.allclose(wanted, operator.solve(b, 0.05, tol=1e-7), atol=1e-3)
    assert torch.equal(whole.to("cpu").solve(b, 0.05), wanted)
    twice = whole.repeat(2)
    assert len(twice._vectors) == 6
    again = twice.solve(b.repeat_interleave(2, 0), 0.05)
    assert torch.allclose(again[::2], wanted, atol=1e-6)
    one = whole[1:2]
    assert one._vectors is not None
    assert torch.allclose(one.solve(b[1:2], 0.05), wanted[1:2], atol=1e-5)
    copied = copy.deepcopy(whole)
    whole.double()  # in place, and decomposed anew
    assert whole._vectors.dtype == torch.complex128 and whole._values.dtype == torch.float64
    assert torch.allclose(whole.solve(b.to(torch.complex128), 0.05).to(b), wanted, atol=1e-5)
    assert torch.equal(copied.solve(b, 0.05), wanted)
    assert moved(copied, "meta")._vectors.device.type == "meta"  # as measurements are
    assert copied._vectors.device.type == "cpu"


def test_decomposed_in_inference_mode_and_differentiated_later():
    with torch.inference_mode():
        operator = coils().decomposed()
    b = noise(1, 1, *SHAPE).requires_grad_()
    operator.solve(b, 0.1).abs().sum().backward()
    assert float(b.grad.norm()) > 0


def test_rows_are_independent():
    """What the closed form rests on: an image row reaches only itself."""
    operator = SENSE((1, *SHAPE), birdcage_maps(SHAPE, 3), equispaced_lines(SHAPE, 2.0, 0.2))
    x = torch.zeros(1, 1, *SHAPE, dtype=torch.complex64)
    x[0, 0, 4] = noise(12)
    back = operator.gram(x)
    assert float(back[0, 0, 4].norm()) > 0.1
    back[0, 0, 4] = 0
    assert float(back.norm()) < 1e-6
    modes = line_modes(operator.maps, torch.ones(1, 1, 1, 12))
    assert torch.allclose(modes.values, operator.maps.abs().square().sum(1).sort()[0])


def counted(operator):
    """The operator, and a list that grows with every application of A^H A."""
    calls, gram = [], operator.gram
    object.__setattr__(operator, "gram", lambda x: calls.append(1) or gram(x))
    return operator, calls


@pytest.mark.parametrize("columns", [True, False])
@pytest.mark.parametrize(("masks", "maps"), [(1, 1), (3, 1), (3, 3)])
def test_averaged_rows_leave_a_few_iterations_of_hundreds(columns, masks, maps):
    shape = (70, 96)  # rows and columns, in blocks that do not divide the rows
    operator = coils(columns, masks, maps, shape).double()
    x = noise(3, 1, *shape, dtype=torch.complex128)
    gamma = torch.tensor([1e-5, 1e-4, 1e-2], dtype=torch.float64)
    b = operator.gram(x) + per_item(gamma, x) * x
    operator, calls = counted(operator)
    found = operator.solve(b, gamma)
    assert float((found - x).norm() / x.norm()) < 1e-6
    taken = len(calls)
    calls.clear()
    object.__setattr__(operator, "preconditioner", lambda gamma: None)
    operator.solve(b, gamma)
    assert taken <= 100 and len(calls) > 10 * taken, (taken, len(calls))


@pytest.mark.parametrize("columns", [True, False])
def test_averaged_rows_precondition_symmetrically_and_item_by_item(columns):
    operator = coils(columns, masks=3, shape=(70, 96)).double()
    gamma = torch.tensor([1e-3, 0.1, 2.0], dtype=torch.float64)
    a, b = (noise(3, 1, 70, 96, seed=s, dtype=torch.complex128) for s in (0, 1))
    p = operator.preconditioner(gamma)
    assert torch.allclose(inner(a, p(b)), inner(p(a), b), rtol=1e-10)
    assert bool((inner(a, p(a)) > 0).all())
    for k in range(3):
        alone = operator[k].preconditioner(gamma[k : k + 1])(a[k : k + 1])
        assert torch.allclose(alone, p(a)[k : k + 1], rtol=1e-9, atol=1e-9)


def test_averaged_rows_go_where_the_operator_goes():
    operator = coils(masks=3, shape=(70, 96))
    b = noise(6, 1, 70, 96)
    p = operator.preconditioner(0.01)(b[::2])
    twice = operator.repeat(2)
    assert len(vars(twice)["_averaged"].vectors) == 6  # not found anew
    assert torch.allclose(
        twice.preconditioner(0.01)(b)[2:3], operator[1].preconditioner(0.01)(b[2:3])
    )
    other = copy.deepcopy(operator).double()
    wide = other.preconditioner(0.01)(b[::2].to(torch.complex128))
    assert wide.dtype == torch.complex128 and float((wide.to(p) - p).norm() / p.norm()) < 1e-3
    with torch.inference_mode():
        fresh = coils()
        fresh.solve(noise(1, 1, *SHAPE), 0.1)
    x = noise(1, 1, *SHAPE).requires_grad_()
    fresh.solve(x, 0.1).abs().sum().backward()
    assert float(x.grad.norm()) > 0


def test_only_fixed_lines_are_preconditioned():
    points = SENSE((1, *SHAPE), birdcage_maps(SHAPE, 3), variable_density_mask(SHAPE, 2.0))
    assert points.preconditioner(0.1) is None
    learned = birdcage_maps(SHAPE, 3).requires_grad_()
    lines = SENSE((1, *SHAPE), learned, random_lines(SHAPE, 2.0, 0.25))
    assert lines.preconditioner(0.1) is None


def test_maps_that_end_at_the_body_take_few_iterations_too():
    """Estimated maps are zero outside, along an edge that differs from row to row."""
    i, j = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 80), indexing="ij")
    inside = (i / 0.8) ** 2 + (j / 0.6) ** 2 < 1
    maps = birdcage_maps((96, 80), 6) * inside
    mask = random_lines((96, 80), 3.0, 0.1, generator=generators(0, 1))
    operator, calls = counted(SENSE((1, 96, 80), maps, mask).double())
    b = operator.adjoint(noise(1, 6, 96, 80, dtype=torch.complex128))
    taken = []
    for how in (operator.preconditioner, lambda gamma: None):
        object.__setattr__(operator, "preconditioner", how)
        calls.clear()
        x = operator.solve(b, 1e-4, residual=1e-3)
        taken.append(len(calls))
        assert not x[..., ~inside].any()
        assert float((operator.gram(x) + 1e-4 * x - b).norm() / b.norm()) < 1e-3
    assert taken[0] < 0.2 * taken[1]
