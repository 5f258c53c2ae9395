r"""Descent on an objective without closed form, every item of a batch by itself.

L-BFGS: the direction is `-H grad`, with an inverse Hessian H that follows from the last steps s
and changes y of the gradient, and from a diagonal metric M where these tell nothing,

    H <- (1 - rho s y^T) H (1 - rho y s^T) + rho s s^T,   rho = 1 / <s, y>,
    H_0 = M <s, y> / <y, M y>.

References:
    | Numerical Optimization, algorithms 3.1 and 7.4 (Nocedal & Wright, 2006)
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ..tensors import inner, per_item

__all__ = ["descend"]


def descend(
    objective: Callable[[Tensor], Tensor], start: Tensor, metric: Tensor, steps: int
) -> Tensor:
    """A point of lower objective, by L-BFGS with a line search.

    Every item has its own curvature and step lengths; a step that would not lower its objective
    is not taken. The first direction is `-metric * gradient`, and every first length is one.

    Args:
        objective: Of a batch, with shape (B,).
        start: Where to start, with shape (B, ...).
        metric: Estimate of the diagonal of the inverse Hessian, with the shape of `start`.
        steps: Number of steps.
    Returns:
        The point, with the shape of `start`.
    """
    x, pairs = start, _Pairs(metric)
    value, gradient = _with_gradient(objective, x)
    for step in range(steps):
        direction = -pairs.inverse_hessian(gradient)
        slope, length = inner(gradient, direction), torch.ones_like(value)
        for _ in range(30):
            moved = x + per_item(length, x) * direction
            lower = objective(moved) <= value + 1e-4 * length * slope
            if bool(lower.all()):
                break
            length = torch.where(lower, length, length / 2)
        old_x, old_gradient = x, gradient
        x = torch.where(per_item(lower, x) > 0, moved, x)
        if step < steps - 1:
            value, gradient = _with_gradient(objective, x)
            pairs.add(x - old_x, gradient - old_gradient)
    return x


class _Pairs:
    """The last steps and changes of the gradient, and the inverse Hessian that they tell of."""

    def __init__(self, metric: Tensor, most: int = 10) -> None:
        self.metric, self.most = metric, most
        self.scale: Tensor | float = 1.0
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, s: Tensor, y: Tensor) -> None:
        curvature, power = inner(s, y), inner(y, self.metric * y)
        # a step along which the slope did not rise tells nothing, nor does one not taken
        told = curvature > 1e-10 * (inner(s, s) * inner(y, y)).sqrt()
        rho = torch.where(told, 1 / curvature, 0.0)
        self.scale = per_item(torch.where(told, curvature / power, 1.0), s)
        self.pairs = [*self.pairs, (s, y, rho)][-self.most :]

    def inverse_hessian(self, gradient: Tensor) -> Tensor:
        q, weights = gradient, []
        for s, y, rho in reversed(self.pairs):
            weights.append(per_item(rho * inner(s, q), q))
            q = q - weights[-1] * y
        r = self.scale * self.metric * q
        for (s, y, rho), weight in zip(self.pairs, reversed(weights), strict=True):
            r = r + (weight - per_item(rho * inner(y, r), r)) * s
        return r


def _with_gradient(objective: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        value = objective(x)
        return value.detach(), torch.autograd.grad(value.sum(), x)[0]
