r"""Total variation: its value, its proximal map, and a closed form that approximates the map.

Notation. `TV(x) = sum over groups of |Dx|`, where D takes forward differences along d axes with
weights w_a (one unless given) and `Variation` says how they are gathered in groups: anisotropic,
isotropic, joint over channels. The maps below solve, exactly or nearly,

    prox(v) = argmin_x 1/2 ||x - v||^2 + tau TV(x).

In an algorithm tau is step times weight.

Closed form. With `L = 4 sum_a w_a^2 >= ||D||^2` and Pi the projection of each group on the ball of
radius tau,

    P(v) = v - D^T Pi(D v / L).

This is one gradient step of length tau on the Huber-smoothed TV of smoothing L tau, and the first
step of the exact algorithm (`dual`); in the undecimated Haar transform it is a shrinkage of the
details. It is itself the proximal map of a convex function, so it is firmly nonexpansive, and lies
within 2 d tau (anisotropic) or 4 sqrt(d) tau (isotropic) RMS of the exact map for unit weights.
Hence the error falls with the step of the method around it. In one shot at large tau it smooths
far too little: use `inner` steps or the exact map.

Exact. Accelerated projected gradient on the dual problem, stopped by the duality gap.

Deviation. The published map is written in Haar coefficients and for equal axes; the gradient form
needs no even sizes, and takes weights, groups over channels and complex images.

References:
    | Closed-Form Approximation of the Total Variation Proximal Operator (Chandler et al., 2025)
    | https://arxiv.org/abs/2412.07718
"""

import warnings
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..tensors import per_item
from .differences import ANISOTROPIC, ISOTROPIC, Grid, Variation
from .dual import Ascent, Box, Implicit, ascend, recorded_steps
from .fused import compiled, fits, one_pass

__all__ = [
    "ANISOTROPIC",
    "ISOTROPIC",
    "ClosedFormTotalVariation",
    "TotalVariation",
    "Variation",
    "VariationInfo",
    "tv_norm",
    "tv_prox",
    "tv_prox_exact",
]


_STRIP = 2**18  # values of a strip of rows that are worked on together


class VariationInfo(NamedTuple):
    """How an exact proximal map ended.

    Args:
        gap: Duality gap relative to the objective, with shape (B,).
        iterations: Steps taken by each item, with shape (B,).
        dual: The field p / tau, with shape (d, B, C, ...): a start for a similar problem.
    """

    gap: Tensor
    iterations: Tensor
    dual: Tensor


def tv_norm(x: Tensor, kind: Variation = ISOTROPIC) -> Tensor:
    """The total variation of each item, `sum over groups of |Dx|`. Differentiable.

    Args:
        x: Images, real or complex, with shape (B, C, ...).
        kind: Which total variation.
    Returns:
        One number per item, with shape (B,).
    """
    grid = Grid(kind, x)
    n2 = grid.squares(grid.differences(grid.enter(x)))
    # the derivative of a zero group is taken as zero, one of its subgradients
    return torch.where(n2 > 0, n2, 1).sqrt().mul(n2 > 0).transpose(0, 1).flatten(1).sum(1)


def tv_prox(
    v: Tensor, tau: float | Tensor, kind: Variation = ISOTROPIC, *, inner: int = 0
) -> Tensor:
    """The closed-form approximation of the proximal map of `tau TV`, refined where asked.

    `P(v) = v - D^T Pi(D v / L)`, from where `inner` accelerated steps on the dual problem go on
    towards the exact map. Differentiable through every step.

    Args:
        v: Images, real or complex, with shape (B, C, ...).
        tau: Weight of TV, at least 0: a number, or one per item with shape (B,).
        kind: Which total variation.
        inner: Number of refining steps; each costs about one closed form.
    Returns:
        The images, with the shape and dtype of `v`. Of images of a million values and more, the
        last bits depend on whether numba is installed (`fused`).
    References:
        | Closed-Form Approximation of the Total Variation Proximal Operator
        | (Chandler et al., 2025) https://arxiv.org/abs/2412.07718
    """
    if inner < 0:
        raise ValueError(f"tv_prox: got inner {inner}, wanted a count")
    grid = Grid(kind, v)
    real = grid.enter(v)
    radius = _radius(tau, real)
    if torch.is_grad_enabled() and (real.requires_grad or radius.requires_grad):
        return grid.leave(recorded_steps(grid, real, radius, inner + 1))
    if inner == 0 and fits(grid, v) and (run := compiled()):
        return one_pass(run, grid, v, radius)
    if v.device.type != "cpu" or kind.periodic or v.numel() <= 4 * _STRIP:
        return _stepped(v, tau, kind, inner)
    # strips that stay in the cache of a processor; each step sees one row more on either side
    height, out = v.shape[2], torch.empty_like(v)
    rows = max(1, _STRIP * height // v.numel())
    for top in range(0, height, rows):
        above, bottom = min(top, inner + 1), min(top + rows, height)
        strip = v[:, :, top - above : bottom + inner + 1]
        out[:, :, top:bottom] = _stepped(strip, tau, kind, inner)[
            :, :, above : above + bottom - top
        ]
    return out


def _stepped(v: Tensor, tau: float | Tensor, kind: Variation, inner: int) -> Tensor:
    """The closed form and `inner` steps after it, without a graph."""
    grid = Grid(kind, v)
    real = grid.enter(v)
    state = Ascent(grid, real, _radius(tau, real))
    for _ in range(inner + 1):
        state.step()
    return grid.leave(state.primal(state.p))


def tv_prox_exact(
    v: Tensor,
    tau: float | Tensor,
    kind: Variation = ISOTROPIC,
    *,
    tol: float = 1e-6,
    max_iter: int = 20000,
    box: Box | None = None,
    start: Tensor | None = None,
) -> tuple[Tensor, VariationInfo]:
    """The proximal map `argmin_x tau TV(x) + 1/2 ||x - v||^2`, to a known accuracy.

    An item stops when its duality gap is at most `tol` times its objective, or at most what the
    precision can tell; then `1/2 ||x - prox(v)||^2 <= gap`. Differentiable, once, in `v` and
    `tau`, by implicit differentiation at the solution: ask for a small `tol` (1e-10 in float64)
    where gradients matter.

    Args:
        v: Images, real or complex, with shape (B, C, ...).
        tau: Weight of TV, at least 0: a number, or one per item with shape (B,).
        kind: Which total variation.
        tol: Relative duality gap at which an item is finished.
        max_iter: Largest number of steps; to end there unfinished gives a warning.
        box: Smallest and largest value allowed in x; for real images.
        start: A dual field to start from, `info.dual` of a similar problem.
    Returns:
        The images, with the shape and dtype of `v`, and a `VariationInfo`.
    References:
        | Fast Gradient-Based Algorithms for Constrained Total Variation Image Denoising and
        | Deblurring Problems (Beck & Teboulle, 2009)
    """
    if box is not None and (v.is_complex() or not box[0] <= box[1]):
        raise ValueError(f"tv_prox_exact: got box {box} for {v.dtype}, wanted (low, high), real")
    if max_iter < 1:
        raise ValueError(f"tv_prox_exact: got max_iter {max_iter}, wanted at least 1")
    grid = Grid(kind, v)
    real = grid.enter(v)
    radius = _radius(tau, real)
    if start is not None and start.shape != (len(grid.axes), *v.shape):
        raise ValueError(
            f"tv_prox_exact: got a start with shape {tuple(start.shape)}, wanted "
            f"{(len(grid.axes), *v.shape)}"
        )
    with torch.no_grad():
        field = None if start is None else grid.enter_field(start) * radius
        found = ascend(Ascent(grid, real, radius, box, field), tol, max_iter)
        dual = found.p / radius.clamp_min(torch.finfo(radius.dtype).tiny)
    if not found.finished:
        warnings.warn(
            f"tv_prox_exact: relative gap {float(found.gap.max()):.1e} after {max_iter} steps, "
            f"wanted {tol:.1e}; allow more (max_iter)",
            stacklevel=2,
        )
    x = found.x
    if torch.is_grad_enabled() and (real.requires_grad or radius.requires_grad):
        x = Implicit.apply(real, radius, x, found.p, grid, box)
    return grid.leave(x), VariationInfo(found.gap, found.iterations, grid.leave_field(dual))


@dataclass(frozen=True)
class TotalVariation(Variation):
    """The prior `g(x) = weight TV(x)`, with its exact proximal map.

    `TV(x)` is the sum of the lengths of the gradient, as `Variation` has it.

    Args:
        weight: Factor of TV; larger is smoother.
        tol: Relative duality gap to which the proximal map is computed.
        max_iter: Largest number of dual steps; to end there unfinished gives a warning.
        box: Smallest and largest value allowed in an image.
    """

    not_by_name: ClassVar[str] = ""
    approximate: ClassVar[bool] = False

    weight: float = 1.0
    tol: float = field(default=1e-4, metadata={"search": None})  # accuracy, not taste
    max_iter: int = field(default=20000, metadata={"search": None})
    box: Box | None = None

    def __post_init__(self) -> None:
        _check_weight(self, self.weight)

    def value(self, x: Tensor) -> Tensor:
        """The prior's term of the objective, `weight TV(x)`; infinite outside the box.

        Args:
            x: Images, with shape (B, C, ...).
        Returns:
            One number per item, with shape (B,).
        """
        g = self.weight * tv_norm(x, self)
        if self.box is None:
            return g
        outside = ((x < self.box[0]) | (x > self.box[1])).flatten(1).any(1)
        return torch.where(outside, torch.inf, g)

    def prox(self, v: Tensor, tau: float | Tensor) -> Tensor:
        """The exact map `argmin_x tau weight TV(x) + 1/2 ||x - v||^2`. Differentiable, once.

        Args:
            v: Images, real or complex, with shape (B, C, ...).
            tau: A number, or one per item with shape (B,).
        Returns:
            The images, with the shape and dtype of `v`.
        """
        x, _ = tv_prox_exact(
            v, self.weight * tau, self, tol=self.tol, max_iter=self.max_iter, box=self.box
        )
        return x

    @classmethod
    def example(cls) -> Self:
        """A tiny instance for images of shape (1, 8, 8), on which the laws are tested."""
        return cls(weight=0.3, tol=1e-6)


@dataclass(frozen=True)
class ClosedFormTotalVariation(Variation):
    """The prior `g(x) = weight TV(x)`, with the closed-form approximation of its proximal map.

    Good where `tau weight` is small against the contrasts of the image, as in a proximal gradient
    method of small step; `TotalVariation` is good anywhere.

    Args:
        weight: Factor of TV; larger is smoother.
        inner: Accelerated dual steps that refine the closed form.
    """

    not_by_name: ClassVar[str] = ""
    approximate: ClassVar[bool] = True

    weight: float = 1.0
    inner: int = field(default=0, metadata={"search": None})  # accuracy, not taste

    def __post_init__(self) -> None:
        _check_weight(self, self.weight)

    def value(self, x: Tensor) -> Tensor:
        """The prior's term of the objective, `weight TV(x)`.

        Args:
            x: Images, with shape (B, C, ...).
        Returns:
            One number per item, with shape (B,).
        """
        return self.weight * tv_norm(x, self)

    def prox(self, v: Tensor, tau: float | Tensor) -> Tensor:
        """The closed-form map, `tv_prox(v, tau weight)`. Differentiable.

        Args:
            v: Images, real or complex, with shape (B, C, ...).
            tau: A number, or one per item with shape (B,).
        Returns:
            The images, with the shape and dtype of `v`.
        """
        return tv_prox(v, self.weight * tau, self, inner=self.inner)

    @classmethod
    def example(cls) -> Self:
        """A tiny instance for images of shape (1, 8, 8), on which the laws are tested."""
        return cls(weight=0.3)


def _check_weight(prior: Variation, weight: float) -> None:
    if not 0 <= weight < float("inf"):
        raise ValueError(f"{type(prior).__name__}: got weight {weight}, wanted a number >= 0")


def _radius(tau: float | Tensor, v: Tensor) -> Tensor:
    radius = per_item(tau, v)
    # on a device it is not looked at: that would stall the queue
    if radius.device.type == "cpu" and not (radius.detach() >= 0).all():
        raise ValueError(f"total variation: got tau {tau}, wanted a number >= 0, or one per item")
    return radius
