"""Conjugate gradients against dense solves, their implicit derivatives, norms and traces."""

import pytest
import torch

from measurand.linalg import cg, hutchinson_trace, power_method


def spd(n, seed, low=0.1):
    g = torch.Generator().manual_seed(seed)
    a = torch.randn(n, n, dtype=torch.float64, generator=g)
    return a @ a.T / n + low * torch.eye(n, dtype=torch.float64)


def test_cg_matches_dense_solves_item_by_item():
    m = torch.stack([spd(12, 0), spd(12, 1, low=5.0)])
    b = torch.randn(2, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    x = cg(lambda v: (m @ v[..., None])[..., 0], b, tol=1e-12)
    torch.testing.assert_close(x, torch.linalg.solve(m, b), rtol=1e-9, atol=1e-9)
    alone = cg(lambda v: (m[:1] @ v[..., None])[..., 0], b[:1], tol=1e-12)
    torch.testing.assert_close(x[:1], alone, rtol=1e-12, atol=1e-12)


def test_cg_starts_warm_and_handles_zero():
    m, calls = spd(10, 3), []

    def apply(v):
        calls.append(1)
        return v @ m

    b = torch.randn(1, 10, dtype=torch.float64)
    exact = torch.linalg.solve(m, b[0])[None]
    with torch.no_grad():
        cg(apply, b, x0=exact, tol=1e-8)
    assert len(calls) == 1
    assert torch.equal(cg(apply, torch.zeros_like(b)), torch.zeros_like(b))


def test_cg_differentiates_implicitly():
    base = spd(5, 4)
    b = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    w = torch.randn(5, 5, dtype=torch.float64, requires_grad=True)

    def solve(b, w):
        m = base + 0.01 * (w + w.T)
        return cg(lambda v: v @ m, b, tol=1e-13)

    assert torch.autograd.gradcheck(solve, (b, w))
    (grad,) = torch.autograd.grad(solve(b, w).sum(), w, create_graph=True)
    with pytest.raises(RuntimeError, match="grad"):
        torch.autograd.grad(grad.sum(), b)


def test_cg_says_when_it_did_not_converge():
    m = torch.diag(torch.logspace(0, 8, 200, dtype=torch.float64))
    with pytest.warns(UserWarning, match="relative residual"):
        cg(lambda v: v @ m, torch.ones(1, 200, dtype=torch.float64), tol=1e-10, max_iter=5)


def test_power_method_and_trace():
    a = torch.randn(30, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    gram = a.T @ a
    found = power_method(lambda v: v @ gram, torch.zeros(1, 20, dtype=torch.float64))
    assert abs(found / float(torch.linalg.matrix_norm(a, 2)) - 1) < 1e-6
    trace = hutchinson_trace(
        lambda v: v @ gram, torch.zeros(1, 20, dtype=torch.float64), probes=4000
    )
    assert abs(trace / float(gram.trace() / 20) - 1) < 0.05
    assert power_method(lambda v: 0 * v, torch.zeros(1, 4)) == 0.0


def test_with_a_bound_of_the_spectrum_the_tolerance_is_that_of_the_solution():
    values = torch.logspace(0, -5, 100, dtype=torch.float64)
    exact = torch.stack([torch.ones(100), torch.linspace(-1, 1, 100)]).double()
    b = exact * values
    calls = []

    def apply(v):
        calls.append(1)
        return v * values

    error = {}
    for least in (None, 1e-5, torch.tensor([1e-5, 1e-5])):
        x = cg(apply, b, tol=1e-3, max_iter=1000, least=least)
        error[least] = float(((x - exact).norm(dim=1) / exact.norm(dim=1)).max())
    assert error.pop(None) > 0.05  # a small residual, and no solution
    assert all(found < 1e-3 for found in error.values())
    calls.clear()
    with torch.no_grad():
        cg(apply, b, x0=exact, tol=1e-3, least=1e-5)
    assert len(calls) == 1
    assert torch.equal(cg(apply, 0 * b, least=1e-5), 0 * b)


def test_cg_with_a_bound_warns_within_ten_times_its_tolerance():
    values = torch.logspace(0, -6, 400, dtype=torch.float64)
    b = torch.ones(1, 400, dtype=torch.float64)
    with pytest.warns(UserWarning, match="relative error of at most"):
        cg(lambda v: v * values, b, tol=1e-4, max_iter=100, least=1e-6)


def test_power_method_takes_as_many_steps_as_it_is_given():
    d = torch.cat([torch.linspace(0, 1, 200), torch.linspace(0.99, 1, 100)]).double()
    like = torch.zeros(1, 300, dtype=torch.float64)
    few, many = (power_method(lambda v: d * v, like, iterations=n, tol=0.0) for n in (5, 150))
    calls = []
    power_method(lambda v: calls.append(1) or d * v, like, iterations=90, tol=0.0)
    assert few < many <= 1 + 1e-12 and len(calls) == 90


def test_cg_with_a_preconditioner_takes_fewer_iterations_to_the_same_solution():
    m = torch.stack([spd(60, 0, low=1e-3), spd(60, 1, low=1e-2)])
    near = torch.linalg.inv(m + 0.02 * spd(60, 2))
    b = torch.randn(2, 60, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    exact, taken = torch.linalg.solve(m, b), {}
    for name, how in (("plain", None), ("near", lambda r: (near @ r[..., None])[..., 0])):
        calls = []

        def apply(v, calls=calls):
            calls.append(1)
            return (m @ v[..., None])[..., 0]

        with torch.no_grad():
            x = cg(apply, b, tol=1e-8, least=1e-3, precondition=how)
        taken[name] = len(calls)
        assert float((x - exact).norm() / exact.norm()) < 1e-8
    assert taken["near"] < 0.5 * taken["plain"]


def test_cg_with_a_preconditioner_differentiates_and_leaves_neighbours_alone():
    m, scale = spd(12, 4), torch.linspace(0.5, 2, 12, dtype=torch.float64)
    b = torch.randn(3, 12, dtype=torch.float64) * torch.tensor([[1.0], [1e3], [0.0]])

    def solve(b):
        return cg(lambda v: v @ m, b, tol=1e-13, precondition=lambda r: scale * r)

    assert torch.autograd.gradcheck(solve, (b[:1].clone().requires_grad_(),))
    together = solve(b)
    for k in range(3):
        torch.testing.assert_close(together[k : k + 1], solve(b[k : k + 1]), rtol=1e-11, atol=0)
    assert not together[2].any()


def test_cg_takes_one_tolerance_per_item():
    m = spd(40, 5, low=1e-3)
    b = torch.randn(2, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    tol = torch.tensor([1e-2, 1e-8])
    with torch.no_grad():
        x = cg(lambda v: v @ m, b, tol=tol)
        assert torch.equal(x[:1], cg(lambda v: v @ m, b[:1], tol=1e-2))
    reached = (x @ m - b).norm(dim=1) / b.norm(dim=1)
    assert bool((reached <= tol * 1.001).all()) and float(reached[0]) > 1e-4
    with pytest.warns(UserWarning, match="wanted 1.0e-08"):
        cg(lambda v: v @ m, b, tol=tol, max_iter=4)
