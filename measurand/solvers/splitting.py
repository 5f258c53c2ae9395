r"""Splitting methods: a step for the data, a step for the prior, in turn.

Both minimise `nll(x) + weight g(x)` for the g whose proximal map is the denoiser,
`D(v, sigma) = argmin sigma^2 g(x) + 1/2 ||x - v||^2`, through

    data     u = argmin nll(u) + ||u - v||^2 / (2 r^2),    r = sigma / sqrt(weight)
    prior    x = D(v, sigma)

HQS (half-quadratic splitting, DPIR) alternates them and lets sigma fall: at a fixed level it
converges to a biased point, whose bias goes with the level. ADMM carries a dual z, scaled by r^2,

    u = prox(x - z, r),   x = D(u + z, sigma),   z <- z + u - x,

and at any fixed level converges to the minimiser itself (for a Gaussian prior and weight 1 the
exact posterior mean). Learned denoisers are not proximal maps; with them both are fixed-point
iterations that work well when the level anneals.

Deviations. The weight of the data follows from `Measurement.sigma`; the paper's
`tau = sigma^2 / (lambda s^2)` on `1/2||Ax - y||^2` is the same as r above, with lambda = weight. z
is scaled by the square of the ratio of radii when the level changes (paper's code: carried over).

Defaults. What a problem wants depends on how its data see the image, and was measured on 24
problems (`benchmarks/defaults.py`). A data step of HQS leaves `1 / (1 + weight)` of the noise of
pixels that are seen, which is why its last level is 0.8 of it. k-space spreads an unseen line over
the whole image, which takes many steps to gather again. Where most of an image is seen, ADMM with
weight 1 is close to the posterior mean, and many steps wear away what fills a hole.

References:
    | Plug-and-Play Image Restoration with Deep Denoiser Prior (Zhang et al., 2021)
    | arXiv:2008.13751
    | Plug-and-Play Priors as a Score-Based Method (Park et al., 2025), arXiv:2412.11108
    | Plug-and-Play Priors for Model Based Reconstruction (Venkatakrishnan et al., 2013)
"""

from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from ..measurement import Measurement
from ..methods import Iterates, Method, Step
from ..priors.capabilities import Denoiser
from ..tensors import Generators, per_item
from ..validate import count, not_negative
from .levels import Annealed, Levels, determined

__all__ = ["ADMM", "HQS"]


# An iterative data step stops earlier than `residual` says where its error is certain to be below
# this share of its radius r, at a residual of at most five times as much.
ERROR = 0.1


def residual(k: int, steps: int) -> float:
    """Relative residual at which an iterative data step stops: from 1e-3 down to 1e-4 at last.

    The error of an early step fades in those that follow; that of the last step stays, where gamma
    is largest and iterations are few.
    """
    return 10 ** -(3 + (k + 1) / steps)


@dataclass(frozen=True)
class HQS(Method):
    """Half-quadratic splitting with annealed levels (DPIR).

    Differentiates through the prior: no.

    Args:
        steps: Number of denoiser calls; None is 16, for k-space 64.
        weight: Weight of the prior.
        levels: Noise level of each step; they follow from the noise and the prior's range.
    """

    command: ClassVar[str] = "hqs"

    steps: int | None = field(default=None, metadata={"start": 16})
    weight: float = 0.25
    levels: Levels = field(default_factory=lambda: Annealed(low=0.8))

    def __post_init__(self) -> None:
        count(self, "steps")
        not_negative(self, "weight")

    def settled(self, measurement: Measurement) -> Self:
        """Return the method with the number of steps that the data want."""
        steps = 64 if measurement.operator.out_dtype.is_complex else 16
        return self if self.steps else replace(self, steps=steps)

    def iterate(
        self, measurement: Measurement, prior: Denoiser, x: Tensor, generator: Generators
    ) -> Iterates:
        """Yields a `Step` (x: after the data step, x0: denoised)."""
        assert self.steps is not None  # settled
        levels = self.levels(measurement, prior, self.steps, self.weight)
        for k, (sigma, r) in enumerate(levels):
            u = measurement.prox(x, r, residual=residual(k, self.steps), error=ERROR)
            x = prior.denoise(u, sigma)
            yield Step(k, sigma, u, x)
        return x


@dataclass(frozen=True)
class ADMM(Method):
    """Plug-and-play ADMM: at a fixed level exact for the prior that the denoiser belongs to.

    Differentiates through the prior: no.

    Args:
        steps: Number of denoiser calls; None is 24, for k-space 48, and 12 where the data
            determine more than three quarters of the image (denoising, a hole).
        weight: Weight of the prior; None is 0.5, and 1 where the data determine so much.
        levels: Noise level of each step; `Constant` for the classical method.
    """

    command: ClassVar[str] = "admm"

    steps: int | None = field(default=None, metadata={"start": 24})
    weight: float | None = field(default=None, metadata={"start": 0.5})
    levels: Levels = field(default_factory=Annealed)

    def __post_init__(self) -> None:
        count(self, "steps")
        not_negative(self, "weight")

    def settled(self, measurement: Measurement) -> Self:
        """Return the method with the number of steps and the weight that the data want."""
        if self.steps is not None and self.weight is not None:
            return self
        most = determined(measurement) > 0.75
        steps = 12 if most else 48 if measurement.operator.out_dtype.is_complex else 24
        weight = 1.0 if most else 0.5
        return replace(
            self,
            steps=steps if self.steps is None else self.steps,
            weight=weight if self.weight is None else self.weight,
        )

    def iterate(
        self, measurement: Measurement, prior: Denoiser, x: Tensor, generator: Generators
    ) -> Iterates:
        """Yields a `Step` (x: after the data step, x0: denoised)."""
        assert self.steps is not None and self.weight is not None  # settled
        levels = self.levels(measurement, prior, self.steps, self.weight)
        z, last = torch.zeros_like(x), levels[0].r
        for k, (sigma, r) in enumerate(levels):
            if torch.as_tensor(r != last).any():  # z is the dual times r^2, and the dual stays
                z, last = z * per_item(r / last, z) ** 2, r
            # near the fixed point u is x, while x - z stays a radius away
            near = residual(k, self.steps)
            u = measurement.prox(x - z, r, x0=x, residual=near, error=ERROR)
            z = z + u
            x = prior.denoise(z, sigma)
            z = z - x
            yield Step(k, sigma, u, x)
        return x
