r"""Gradient methods: one application of A and one of its adjoint per step, any operator.

PGM and FISTA minimise `nll(x) + g(x)` by a gradient step on the data and a proximal one on the
prior,

    x <- P(x - step grad nll(x)),    P = prox_{step g},   step = 1/L,   L = ||A||^2 / sigma^2.

FISTA extrapolates along the last change, and converges like 1/k^2 instead of 1/k. A prior that
has no `prox` but denoises plugs its denoiser in for P. Since `D(., s)` is the proximal map of the
prior with weight s^2, its level is `s = sqrt(step)`; a Gaussian prior gives its posterior mean.

RED (regularisation by denoising) solves `grad nll(x) + weight (x - D(x, s)) / s^2 = 0`, that is:
the pull of the data equals `weight` times the score of the image at level s. It takes the prior's
step by gradient and the data's by its proximal map,

    u = x + step (D(x, s) - x),   x = prox of the data at u with radius r = s sqrt(step / weight),

`GradientRED` takes both by gradient, for operators without a fast proximal map. With a Gaussian
prior, G = C (C + s^2)^-1, both end at the solution of

    (A^H A / sigma^2 + weight (1 - G) / s^2) x = A^H y / sigma^2 + weight (1 - G) m / s^2.

References:
    | A Fast Iterative Shrinkage-Thresholding Algorithm (Beck & Teboulle, 2009)
    | The Little Engine that Could: Regularization by Denoising (Romano et al., 2017)
    | arXiv:1611.02862
    | Plug-and-Play Priors as a Score-Based Method (Park et al., 2025), arXiv:2412.11108
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..measurement import Measurement
from ..methods import Iterates, Method, Step
from ..noises import Gaussian
from ..priors.capabilities import Denoiser, Proximable, require
from ..tensors import Generators, per_item
from ..validate import count, not_negative, positive, share
from .levels import Annealed, Constant, Levels, determined, item_values

__all__ = ["FISTA", "PGM", "RED", "GradientRED"]


@dataclass(frozen=True)
class PGM(Method):
    """Proximal gradient method (ISTA), or its plug-and-play form with a denoiser.

    Differentiates through the prior: no.

    Args:
        steps: Number of iterations.
        step: Length of a step; None is sigma^2 / ||A||^2, for Gaussian noise.
        level: Noise level of the denoiser, in image units; None uses the prior's `prox`, or where
            it has none its denoiser at sqrt(step).
    """

    needs: ClassVar[tuple[type, ...]] = (Proximable, Denoiser)
    command: ClassVar[str] = "pgm"

    steps: int = 200
    step: float | None = None
    level: float | None = None

    def __post_init__(self) -> None:
        count(self, "steps")
        positive(self, "step", "level")

    def iterate(
        self, measurement: Measurement, prior: Any, x: Tensor, generator: Generators
    ) -> Iterates:
        """Yields a `Step` (x: after the data step, x0: after the prior's)."""
        step, level, prior_step = _prepare(self, measurement, prior)
        for k in range(self.steps):
            v = x - per_item(step, x) * measurement.gradient(x)
            x = prior_step(v)
            yield Step(k, level, v, x)
        return x


@dataclass(frozen=True)
class FISTA(Method):
    """Accelerated proximal gradient method, or its plug-and-play form with a denoiser.

    `min nll(x) + g(x)` by `x <- prox_{step g}(z - step grad nll(z))`, z ahead of x along its last
    change.

    Differentiates through the prior: no.

    Args:
        steps: Number of iterations.
        step: Length of a step; None is sigma^2 / ||A||^2, for Gaussian noise.
        level: Noise level of the denoiser, in image units; None uses the prior's `prox`, or where
            it has none its denoiser at sqrt(step).
    References:
        | A Fast Iterative Shrinkage-Thresholding Algorithm (Beck & Teboulle, 2009)
    """

    needs: ClassVar[tuple[type, ...]] = (Proximable, Denoiser)
    command: ClassVar[str] = "fista"

    steps: int = 100
    step: float | None = None
    level: float | None = None

    def __post_init__(self) -> None:
        count(self, "steps")
        positive(self, "step", "level")

    def iterate(
        self, measurement: Measurement, prior: Any, x: Tensor, generator: Generators
    ) -> Iterates:
        """Yields a `Step` (x: after the data step, x0: after the prior's)."""
        step, level, prior_step = _prepare(self, measurement, prior)
        z, t = x, 1.0
        for k in range(self.steps):
            v = z - per_item(step, z) * measurement.gradient(z)
            last, x = x, prior_step(v)
            t_last, t = t, (1 + math.sqrt(1 + 4 * t**2)) / 2
            z = torch.lerp(last, x, 1 + (t_last - 1) / t)
            yield Step(k, level, v, x)
        return x


@dataclass(frozen=True)
class RED(Method):
    """Regularisation by denoising, with the proximal map of the data.

    Differentiates through the prior: no.

    Args:
        steps: Number of denoiser calls.
        weight: Weight of the prior; 1 is the posterior of the image with noise of the level. None
            is 2 where the data determine more than three quarters of the image (denoising, a
            hole), else 0.28.
        step: Share of the denoiser's correction that a step takes, in (0, 1].
        levels: Noise level of each step; `Constant()`, the noise of the measurement in the image,
            for the classical method, which does not get far from where it starts.
    """

    command: ClassVar[str] = "red"

    steps: int = 32
    weight: float | None = field(default=None, metadata={"start": 0.28})
    step: float = field(default=1.0, metadata={"search": (0.0, 1.0)})
    levels: Levels = field(default_factory=lambda: Annealed(high=0.4))

    def __post_init__(self) -> None:
        count(self, "steps")
        not_negative(self, "weight")
        share(self, "step", zero=False)

    def settled(self, measurement: Measurement) -> Self:
        """Return the method with the weight that the data want."""
        if self.weight is not None:
            return self
        return replace(self, weight=2.0 if determined(measurement) > 0.75 else 0.28)

    def iterate(
        self, measurement: Measurement, prior: Denoiser, x: Tensor, generator: Generators
    ) -> Iterates:
        """Yields a `Step` (x: after the data step, x0: denoised)."""
        assert self.weight is not None  # settled
        levels = self.levels(measurement, prior, self.steps, self.weight / self.step)
        for k, (sigma, r) in enumerate(levels):
            x_hat = prior.denoise(x, sigma)
            x = measurement.prox(torch.lerp(x, x_hat, self.step), r)
            yield Step(k, sigma, x, x_hat)
        return x


@dataclass(frozen=True)
class GradientRED(Method):
    """Regularisation by denoising, by steepest descent: any differentiable likelihood.

    Differentiates through the prior: no.

    Args:
        steps: Number of denoiser calls.
        weight: Weight of the prior; 1 is the posterior of the image with noise of the level.
        step: Length of a step; None is 1 / (||A||^2/sigma^2 + weight/level^2), for Gaussian noise.
        levels: Noise level of each step; the noise of the measurement in the image.
    """

    command: ClassVar[str] = "gradientred"

    steps: int = 200
    weight: float = 0.28
    step: float | None = None
    levels: Levels = field(default_factory=Constant)

    def __post_init__(self) -> None:
        count(self, "steps")
        not_negative(self, "weight")
        positive(self, "step")

    def check(self, measurement: Measurement, prior: Denoiser) -> None:
        """Raise an error where neither the noise nor the user says the step and the level."""
        super().check(measurement, prior)
        told = self.step is not None and self.levels != Constant()
        if not (told or isinstance(measurement.noise, Gaussian)):
            raise ValueError(
                f"GradientRED: {measurement.noise} tells neither the step nor the level of the "
                "denoiser; say both, such as GradientRED(step=1e-3, levels=Constant(level=0.1)) "
                "with solvers.levels.Constant"
            )

    def iterate(
        self, measurement: Measurement, prior: Denoiser, x: Tensor, generator: Generators
    ) -> Iterates:
        """Yields a `Step` (x: the iterate, x0: denoised)."""
        for k, (sigma, _) in enumerate(self.levels(measurement, prior, self.steps, self.weight)):
            pull = per_item(self.weight / sigma**2, x)
            step = per_item(
                _longest_step(self, measurement) if self.step is None else self.step, x
            )
            if self.step is None:
                step = 1 / (1 / step + pull)
            x_hat = prior.denoise(x, sigma)
            x = x - step * (measurement.gradient(x) + pull * (x - x_hat))
            yield Step(k, sigma, x, x_hat)
        return x


def _prepare(
    method: PGM | FISTA, measurement: Measurement, prior: Proximable | Denoiser
) -> tuple[float | Tensor, float | Tensor, Callable[[Tensor], Tensor]]:
    """The step, the level and the prior's map of a proximal gradient method."""
    step = _longest_step(method, measurement) if method.step is None else method.step
    level = step**0.5 if method.level is None else method.level
    if method.level is not None:
        require(prior, Denoiser, by=method)
    if method.level is None and isinstance(prior, Proximable):
        return step, level, lambda v: prior.prox(v, step)
    denoiser: Denoiser = prior  # type: ignore[assignment]
    return step, level, lambda v: denoiser.denoise(v, level)


def _longest_step(method: object, measurement: Measurement) -> float | Tensor:
    """The step 1/L of a Gaussian likelihood, L the Lipschitz constant of its gradient."""
    noise, name = measurement.noise, type(method).__name__
    if not isinstance(noise, Gaussian):
        raise ValueError(
            f"{name}: the gradient of the likelihood under {noise} has no Lipschitz constant: "
            f"say the step, such as {name}(step=1e-3)"
        )
    if noise.noise_free:
        raise ValueError(
            f"{name}: data without noise have no likelihood to descend on; say a small noise, "
            "Gaussian(sigma=0.01), or take a method with a proximal map of the data (HQS, ADMM)"
        )
    return item_values(measurement, lambda sigma, norm: (sigma / max(norm, 1e-30)) ** 2)
