r"""Iterative linear algebra for operators that are known only by their action.

`cg` solves `M x = b` for a symmetric positive definite M by conjugate gradients, each item of a
batch with its own step lengths. Its derivative is implicit: with `x = M^-1 b`,

    dx = M^-1 (db - dM x),

so the backward pass is one more solve with the same M, then one application of M at the solution;
no iteration is recorded. It reaches everything `apply` closes over (weights, kernels, masks).
"""

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .tensors import generators, inner, norm, per_item, randn_like

__all__ = ["Unconverged", "cg", "enough", "hutchinson_trace", "power_method"]

Apply = Callable[[Tensor], Tensor]


class Unconverged(UserWarning):
    """Conjugate gradients ended with a larger error than was asked for."""


def enough(x: Tensor) -> float:
    """The relative error that is asked of a solution of x's precision: 1e-4, or 1e-6 in double."""
    return 1e-6 if torch.finfo(x.dtype).bits == 64 else 1e-4


def cg(
    apply: Apply,
    b: Tensor,
    *,
    x0: Tensor | None = None,
    tol: float | Tensor = 1e-6,
    max_iter: int = 200,
    least: float | Tensor | None = None,
    precondition: Apply | None = None,
) -> Tensor:
    """The solution of `M x = b`, for M symmetric positive definite.

    An item stops when `||M x - b|| <= tol ||b||`. Of an ill-conditioned M that says little about
    x. With a lower bound `least` of the eigenvalues it stops when `||M x - b|| <= tol least ||x||`
    instead, where the error of x is below `tol ||x||` for certain. Differentiable, once, in `b`
    and in what `apply` closes over; a second derivative raises.

    Args:
        apply: The map `x -> M x`, acting on each item of a batch by itself.
        b: Right-hand side, with shape (B, ...).
        x0: Where to start; zero when absent.
        tol: Relative residual at which an item is finished; with `least`, relative error. A number
            or one per item.
        max_iter: Largest number of iterations. To end there with more than ten times what was
            asked for gives a warning.
        least: Positive lower bound of the eigenvalues of M, a scalar or one per item.
        precondition: The map `r -> P^-1 r` of a symmetric positive definite P, acting on each item
            by itself: iterations go with the spread of the eigenvalues of `P^-1 M`. Where to stop
            is asked of the same residual, without P.
    Returns:
        The solution, with the shape of `b`; NaN for an item whose residual is not a number.
        Rounding adds an error of the order of `eps ||M|| / least`, relative to x.
    References:
        | Methods of Conjugate Gradients for Solving Linear Systems (Hestenes & Stiefel, 1952)
    """
    with torch.no_grad():
        x = _iterate(apply, b, x0, tol, max_iter, least, precondition)
    if not torch.is_grad_enabled():
        return x
    residual = b - apply(x)
    if not residual.requires_grad:
        return x

    bound = least.detach() if isinstance(least, Tensor) else least

    def again(grad: Tensor) -> Tensor:
        return cg(apply, grad, tol=tol, max_iter=max_iter, least=bound, precondition=precondition)

    return _Implicit.apply(residual, x, again)


class _Implicit(torch.autograd.Function):
    """Returns x in the forward pass and maps a gradient g to M^-1 g in the backward pass."""

    @staticmethod
    def forward(ctx: object, residual: Tensor, x: Tensor, solve: Apply) -> Tensor:
        ctx.solve = solve  # type: ignore[attr-defined]
        return x.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: object, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.solve(grads[0]), None, None  # type: ignore[attr-defined]


def _iterate(
    apply: Apply,
    b: Tensor,
    x0: Tensor | None,
    tol: float | Tensor,
    max_iter: int,
    least: float | Tensor | None,
    precondition: Apply | None,
) -> Tensor:
    if x0 is None:
        x, r = torch.zeros_like(b), b.clone()
    else:
        x = x0.detach().clone()
        r = b - apply(x)
    p, rr = torch.zeros_like(b), inner(r, r)
    before = torch.full_like(rr, torch.inf)  # the first direction is the residual alone
    tol = per_item(tol, b).reshape(-1).detach()
    bound = None if least is None else per_item(least, b).reshape(-1).detach()
    size = norm(b)  # what the residual is measured by
    tiny = torch.finfo(rr.dtype).tiny
    for _ in range(max_iter):
        if bound is not None:
            size = bound * norm(x)
        active = rr.sqrt() > tol * size
        if not active.any():
            lost = ~torch.isfinite(rr)  # NaN is not above the bound, and no solution either
            return x.masked_fill_(per_item(lost, x) != 0, torch.nan) if bool(lost.any()) else x
        z = r if precondition is None else precondition(r)
        rz = rr if precondition is None else inner(r, z)
        beta = torch.where(active, rz / before.clamp_min(tiny), 0.0)
        p.mul_(per_item(beta, b)).add_(z)
        q = apply(p)
        # a finished item takes a step of length zero: its neighbours do not change it
        alpha = torch.where(active, rz / inner(p, q).clamp_min(tiny), 0.0)
        step = per_item(alpha, b)
        x.addcmul_(step, p)
        r.addcmul_(step, q, value=-1)
        rr, before = torch.where(active, inner(r, r), rr), rz
    size = size if bound is None else bound * norm(x)
    reached = rr.sqrt() / size.clamp_min(tiny)
    worst = int((reached / tol).argmax())
    if not bool((reached <= 10 * tol).all()):
        what = "residual" if bound is None else "error of at most"
        warnings.warn(
            f"cg: relative {what} {float(reached[worst]):.1e} after {max_iter} iterations, wanted "
            f"{float(tol.expand_as(reached)[worst]):.1e}; "
            "allow more iterations (max_iter) or a larger gamma",
            Unconverged,
            stacklevel=3,
        )
    return x


def power_method(gram: Apply, like: Tensor, *, iterations: int = 60, tol: float = 1e-6) -> float:
    """The norm ||A|| from the action of `A^H A`, by a Lanczos-accelerated power method.

    The largest eigenvalue of the Krylov space of a random start is found from its three-term
    recurrence; it converges much faster than plain powers when the leading eigenvalues are close.
    Three vectors are kept: those before lose their orthogonality by rounding, which repeats
    eigenvalues already found and leaves the largest as it is.

    Args:
        gram: The map `x -> A^H A x` on a batch of one.
        like: A tensor with the shape and dtype of one input, with shape (1, ...).
        iterations: Largest number of steps.
        tol: Relative change of the estimate at which to stop.
    Returns:
        The largest singular value of A; NaN where the map returns what is not finite.
    References:
        | The Lanczos and Conjugate Gradient Algorithms in Finite Precision Arithmetic
        | (Meurant & Strakos, 2006)
    """
    v = randn_like(like, generators(0, 1, like.device))
    v = v / norm(v)
    before = torch.zeros_like(v)
    diagonal: list[float] = []
    off: list[float] = []
    estimate, length = 0.0, 0.0
    calm = 0
    for _ in range(iterations):
        w = gram(v).sub(before, alpha=length)
        diagonal.append(float(inner(v, w)))
        w.sub_(v, alpha=diagonal[-1])
        small = torch.diag(torch.tensor(diagonal, dtype=torch.float64))
        length = float(norm(w))
        if not (math.isfinite(diagonal[-1]) and math.isfinite(length)):
            return math.nan
        side = torch.tensor(off, dtype=torch.float64)
        small = small + torch.diag(side, 1) + torch.diag(side, -1)
        top = float(torch.linalg.eigvalsh(small)[-1])
        calm = calm + 1 if abs(top - estimate) <= tol * abs(top) else 0
        estimate = top
        if calm == 2 or length <= 1e-7 * max(top, 1e-30):
            break
        off.append(length)
        before, v = v, w.div_(length)
    return max(estimate, 0.0) ** 0.5


def hutchinson_trace(apply: Apply, like: Tensor, *, probes: int = 16, seed: int = 0) -> float:
    """An unbiased estimate of `tr M / n` from the action of M on random signs.

    Args:
        apply: The map `x -> M x`.
        like: A tensor with the shape and dtype of one input, with shape (1, ...).
        probes: Number of sign vectors.
        seed: Seed of the probes.
    Returns:
        The mean of `<s, M s> / n` over the probes.
    References:
        | A Stochastic Estimator of the Trace of the Influence Matrix (Hutchinson, 1990)
    """
    blank = torch.zeros_like(like.real, device="cpu")  # the same probes on every device
    signs = torch.cat([randn_like(blank, [g]).sign() for g in generators(seed, probes)])
    signs = signs.to(like)
    found = torch.stack([inner(s[None], apply(s[None]))[0] for s in signs])
    return float(found.mean()) / like.numel()
