r"""The laws of operators: what every A must satisfy.

adjoint      Re<A u, w> = Re<u, A^H w>
linear       A(a u + b w) = a A u + b A w
norm         ||A u|| <= ||A|| ||u||, with equality for some u
solve        (A^H A + gamma) solve(b, gamma) = b
prox         A^H (A p - y) + gamma (p - v) = 0 at p = prox(v, y, gamma)
independent  the rows of a batch do not see each other
"""

import torch
from torch import Tensor

from ...operators.base import LinearOperator
from ...tensors import generators, inner, norm, per_item, randn_like
from .law import Law

__all__ = [
    "adjoint_error",
    "independence_error",
    "linearity_error",
    "norm_error",
    "operator_laws",
    "prox_error",
    "random_input",
    "random_output",
    "solve_error",
]


def random_input(operator: LinearOperator, n: int, seed: int = 0) -> Tensor:
    """White noise in the operator's domain, with shape `(n, *in_shape)`."""
    blank = operator.blank_input(n)
    return randn_like(blank, generators(seed, n, blank.device))


def random_output(operator: LinearOperator, n: int, seed: int = 1) -> Tensor:
    """White noise in the operator's range, with shape `(n, *out_shape)`."""
    blank = operator.H.blank_input(n)
    return randn_like(blank, generators(seed, n, blank.device))


def adjoint_error(operator: LinearOperator, *, seed: int = 0) -> float:
    """The largest `|Re<A u, w> - Re<u, A^H w>| / (||A u|| ||w||)` over a few random pairs.

    Args:
        operator: The operator A.
        seed: Seed of the pairs.
    Returns:
        The relative error.
    """
    n = max(4, operator.batch)
    operator = _batched(operator, n)
    u, w = random_input(operator, n, seed), random_output(operator, n, seed + 1)
    au, ahw = operator(u), operator.H(w)
    size = (norm(au) * norm(w)).clamp_min(norm(u) * norm(ahw)).clamp_min(1e-30)
    return float(((inner(au, w) - inner(u, ahw)).abs() / size).max())


def linearity_error(operator: LinearOperator, *, seed: int = 0) -> float:
    """The largest relative difference between `A(2u - 3w)` and `2 A u - 3 A w`."""
    n = operator.batch
    u, w = random_input(operator, n, seed), random_input(operator, n, seed + 1)
    together, apart = operator(2 * u - 3 * w), 2 * operator(u) - 3 * operator(w)
    size = (2 * norm(operator(u)) + 3 * norm(operator(w))).clamp_min(1e-30)
    return float((norm(together - apart) / size).max())


def norm_error(operator: LinearOperator, *, iterations: int = 300, seed: int = 0) -> float:
    """How far plain power iterations stand from the cached norm, relative to it.

    A second opinion on `operator.norm`: the iterations only approach the norm from below, so a
    cached norm that is too small shows at once, one that is too large as a gap that stays.

    Args:
        operator: The operator A.
        iterations: Number of applications of `A^H A`.
        seed: Seed of the start.
    Returns:
        The relative difference.
    """
    x = random_input(operator, operator.batch, seed)
    found = torch.zeros(len(x))
    for _ in range(iterations):
        x = operator.gram(x / per_item(norm(x).clamp_min(1e-30), x))
        found = norm(x).sqrt()
    return abs(float(found.max()) - operator.norm) / max(operator.norm, 1e-30)


def solve_error(operator: LinearOperator, gamma: float, *, seed: int = 0) -> float:
    """The largest `||(A^H A + gamma) x - b|| / ||b||` at `x = solve(b, gamma)`."""
    b = random_input(operator, operator.batch, seed)
    x = operator.solve(b, gamma)
    return float((norm(operator.gram(x) + gamma * x - b) / norm(b)).max())


def prox_error(operator: LinearOperator, gamma: float, *, seed: int = 0) -> float:
    """The largest gradient of `1/2||A p - y||^2 + gamma/2||p - v||^2` at `p = prox(v, y, gamma)`.

    Relative to the gradient at v, `||A^H (A v - y)||`.

    Args:
        operator: The operator A.
        gamma: The weight.
        seed: Seed of v and y.
    Returns:
        The relative error.
    """
    n = operator.batch
    v, y = random_input(operator, n, seed), random_output(operator, n, seed + 1)
    p = operator.prox(v, y, gamma)
    left = operator.adjoint(operator(p) - y) + gamma * (p - v)
    start = norm(operator.adjoint(operator(v) - y)) + gamma * norm(v)
    return float((norm(left) / start).max())


def independence_error(operator: LinearOperator, *, seed: int = 0) -> float:
    """The largest relative difference between a batch and its items done one by one."""
    n = max(3, operator.batch)
    operator = _batched(operator, n)
    x, y = random_input(operator, n, seed), random_output(operator, n, seed + 1)
    rows = [slice(i, i + 1) for i in range(n)]
    worst = 0.0
    for done, alone in (
        (operator(x), [operator[at](x[at]) for at in rows]),
        (operator.H(y), [operator[at].H(y[at]) for at in rows]),
        (operator.solve(x, 0.7), [operator[at].solve(x[at], 0.7) for at in rows]),
    ):
        worst = max(worst, float((norm(done - torch.cat(alone)) / norm(done)).max()))
    return worst


def operator_laws(operator: LinearOperator, *, seed: int = 0) -> list[Law]:
    """Every law, put to an operator in the precision that it has.

    Args:
        operator: The operator.
        seed: Seed of all random vectors.
    Returns:
        The laws with the errors found; `all(law.holds for law in ...)` is the verdict.
    """
    double = operator.blank_input().real.dtype == torch.float64
    rounding, solver = (1e-10, 1e-5) if double else (1e-5, 1e-4)
    with torch.no_grad():
        gamma = 0.1 * operator.norm**2
        return [
            Law("adjoint", adjoint_error(operator, seed=seed), rounding),
            Law("linear", linearity_error(operator, seed=seed), rounding),
            Law("norm", norm_error(operator, seed=seed), 1e-2),
            Law("solve", solve_error(operator, gamma, seed=seed), solver),
            Law("prox", prox_error(operator, gamma, seed=seed), solver),
            Law("batch rows independent", independence_error(operator, seed=seed), solver),
        ]


def _batched(operator: LinearOperator, n: int) -> LinearOperator:
    """The operator for at least n items."""
    return operator if operator.batch in (1, n) else operator.repeat(-(-n // operator.batch))[:n]
