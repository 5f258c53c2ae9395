r"""Reverse diffusion: draws from whatever a denoiser denoises.

Noise `v = x + t n` is added until nothing is left of the image and then taken away again, level
by level. With the denoiser `D(v, t) = E[x | v]` and its score `(D - v) / t^2`, two processes have
the law of `x + t n` at every level t (Karras et al., 2022):

    reverse SDE               dv = 2 (v - D) / t dt + sqrt(2 t) dw      t running down to 0
    probability flow (ODE)    dv =   (v - D) / t dt

Both end in a draw from the prior when they begin at pure noise. They differ when they begin at a
given `z`: the SDE started at level rho in z ends in a draw of `p(x | z) ~ p(x) N(z; x, rho^2)`,
which is what a Gibbs sampler needs; the flow ends in *one* point of that law, the same for the
same z. **A flow is not a posterior sampler of a given z.**

One step from t to t'. If D did not change in between, the transition of the SDE would be Gaussian
with mean `D + w (v - D)`, `w = t'^2 / t^2`, and variance `(1 - w) t'^2`. The uncertainty of x
around D, of variance `(1 - r) t^2` per pixel, `r = E ||v - D||^2 / (n t^2)`, adds
`(1 - w)^2 (1 - r) t^2`, so that the transition has (Bao et al., 2022, here with r measured on the
item itself)

    mean  D + w (v - D),      variance per pixel  (t^2 - t'^2) (1 - (1 - w) r).

For a Gaussian image this mean is exact at any step size, and so is the total variance:
`ReverseSDE` needs a few steps where the Euler scheme (`EulerSDE`, the one of PnP-DM) needs tens.
But the same noise for every pixel is too little where x is uncertain (texture, edges) and too much
elsewhere, and a chain that makes this step again and again slowly loses its texture. `HeunSDE`
calls D at both ends of a step and gives every part of the image its own variance.

A denoiser may be a prior, or a *posterior*: an exact Gaussian one, or the unfolded network of a
measurement. All of them run under `torch.no_grad`.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..measurement import Measurement
from ..methods import Iterates, Sampler, Step, finished, finite
from ..priors.capabilities import Denoiser, Posterior, require
from ..schedules import edm_grid
from ..tensors import Generators, as_generators, inner, per_item, randn_like
from ..validate import count, positive

__all__ = ["EulerFlow", "EulerSDE", "HeunFlow", "HeunSDE", "Reverse", "ReverseSDE", "transition"]

Denoise = Callable[[Tensor, float], Tensor]


def transition(x: Tensor, x_hat: Tensor, t: float, t_next: float, generator: Generators) -> Tensor:
    """One step of the reverse SDE, with the exact mean and total variance of a Gaussian image.

    x' = x_hat + w (x - x_hat) + sqrt((t^2 - t'^2) (1 - (1 - w) r)) n,   w = (t'/t)^2,
    r = min(1, ||x - x_hat||^2 / (n t^2)).

    Args:
        x: Noisy image at level t, with shape (B, ...).
        x_hat: Its denoised estimate `D(x, t)`, with the shape of `x`.
        t: Noise level, in image units.
        t_next: Next level, below t.
        generator: One generator, one per item, or None for seed 0.
    Returns:
        The noisy image at level `t_next`, with the shape of `x`.
    References:
        | Analytic-DPM: an Analytic Estimate of the Optimal Reverse Variance (Bao et al., 2022)
        | arXiv:2201.06503
    """
    w = (t_next / t) ** 2
    away = x - x_hat
    size = x[0].numel() * (2 if x.is_complex() else 1)
    r = (inner(away, away) / (size * t**2)).clamp(max=1)
    sd = ((t**2 - t_next**2) * (1 - (1 - w) * r)).sqrt()
    return randn_like(x, generator).mul_(per_item(sd, x)).add_(away, alpha=w).add_(x_hat)


def heun(denoise: Denoise, x: Tensor, t: float, t_next: float) -> tuple[Tensor, Tensor]:
    """One step of Heun's scheme for the probability flow, and the estimate `D(x, t)`."""
    x_hat = denoise(x, t)
    slope = (x - x_hat) / t
    predicted = x.add(slope, alpha=t_next - t)
    slope_next = (predicted - denoise(predicted, t_next)) / t_next
    return x.add(slope + slope_next, alpha=(t_next - t) / 2), x_hat


@dataclass(frozen=True)
class Reverse(Sampler):
    """A reverse process: a grid of levels and the step from one to the next.

    Args:
        steps: Number of levels between `sigma_max` and `sigma_min`, both included.
        sigma_max: First level, in image units.
        sigma_min: Last level; from there the denoiser goes to zero.
    """

    needs: ClassVar[tuple[type, ...]] = (Posterior,)  # a Denoiser, without a measurement
    stochastic: ClassVar[bool] = True
    calls: ClassVar[int] = 1  # denoiser calls of a step

    steps: int = 100
    sigma_max: float = 80.0
    sigma_min: float = 0.01

    def __post_init__(self) -> None:
        count(self, "steps")
        positive(self, "sigma_max", "sigma_min")

    @abstractmethod
    def step(
        self, denoise: Denoise, x: Tensor, t: float, t_next: float, generator: Generators
    ) -> tuple[Tensor, Tensor]:
        """The state at level `t_next` and the estimate `D(x, t)`, from the state at level t."""

    def levels(self, sigma: float | None = None) -> list[float]:
        """The grid from `sigma_max`, or its share of steps from any other level down.

        The number of levels is proportional to the logarithm of the range that is left, so that a
        start at a small sigma is cheap.

        Args:
            sigma: First level, exactly; `sigma_max` where None.
        Returns:
            Decreasing levels, the last one `sigma_min` (only `sigma` where that is smaller).
        """
        start = self.sigma_max if sigma is None else sigma
        if start <= self.sigma_min:
            return [start]
        if self.sigma_max <= self.sigma_min:
            raise ValueError(
                f"{type(self).__name__}: got sigma_max = {self.sigma_max} and sigma_min = "
                f"{self.sigma_min}, wanted the first to be the larger"
            )
        share = math.log(start / self.sigma_min) / math.log(self.sigma_max / self.sigma_min)
        n = max(1, round(self.steps * share))
        return [start, *edm_grid(start, self.sigma_min, n).tolist()[1:]]

    def nfe(self, sigma: float | None = None) -> int:
        """Number of denoiser calls of a descent from `sigma_max`, or from `sigma`."""
        return self.calls * (len(self.levels(sigma)) - 1) + 1

    @property
    def rounds(self) -> int:
        """Number of steps that a call reports."""
        return len(self.levels())

    def check(self, measurement: Measurement | None, prior: Any) -> None:
        """Raise a `TypeError` where there is a measurement, and the prior knows no posterior."""
        if measurement is None:
            return  # `iterate` asks for a denoiser
        if not isinstance(prior, Posterior):
            raise TypeError(
                f"{type(self).__name__}: got a measurement and a {type(prior).__name__}, which "
                "knows nothing of measurements; wanted a prior with `given(measurement)`, or None "
                "as the measurement for draws from the prior; DPS, PiGDM, DiffPIR, DAPS and PnPDM "
                "marry any denoiser to a measurement"
            )
        super().check(measurement, prior)

    def start(self, measurement: Measurement | None, x0: Tensor | None) -> Tensor:
        """Return the mean of the first state; x0 gives the shape where nothing was measured."""
        if measurement is not None:
            return super().start(measurement, x0)
        if x0 is None:
            raise ValueError(
                f"{type(self).__name__}: got neither a measurement nor x0, wanted a shape in x0"
            )
        return x0

    def iterate(
        self, measurement: Measurement | None, prior: Any, x: Tensor, generator: Generators
    ) -> Iterates:
        """Yields a `Step` after every step.

        Args:
            measurement: What was seen, one item per draw; None for draws from the denoiser itself.
            prior: What knows the posterior of a measurement; without one, a denoiser.
            x: Mean of the first state.
            generator: One generator, or one per item.
        """
        denoiser = prior if measurement is None else prior.given(measurement)
        require(denoiser, Denoiser, by=self, images=x.dtype)
        x = x + self.sigma_max * randn_like(x, generator)
        return (yield from self.descent(denoiser.denoise, x, self.levels(), generator))

    def descent(
        self, denoise: Denoise, x: Tensor, levels: list[float], generator: Generators
    ) -> Iterates:
        """Yields a `Step` after every level of a grid; returns the clean image at its end.

        Args:
            denoise: The denoiser, `(x, level) -> estimate`.
            x: State at the first level, with shape (B, ...).
            levels: Decreasing noise levels.
            generator: One generator, or one per item.
        """
        for i, (t, t_next) in enumerate(pairwise(levels)):
            x, x_hat = self.step(denoise, x, t, t_next, generator)
            yield Step(i, t, x, x_hat)
        x = denoise(x, levels[-1])  # the step to level zero: no noise, no division by zero
        yield Step(len(levels) - 1, levels[-1], x, x)
        return x

    def descend(
        self,
        denoise: Denoise,
        x: Tensor,
        levels: list[float],
        generator: Generators = None,
        by: object = None,
    ) -> Tensor:
        """The clean image at the end of a `descent`.

        Args:
            denoise: The denoiser, `(x, level) -> estimate`.
            x: State at the first level, with shape (B, ...).
            levels: Decreasing noise levels.
            generator: One generator, one per item, or None for seed 0.
            by: The method of which this is a part, for the message of an error; None for this one.
        Returns:
            The clean image, with the shape of `x`; a `FloatingPointError` where it is not finite.
        """
        steps = self.descent(denoise, x, levels, as_generators(generator, x))
        return finite(finished(steps), by=self if by is None else by)


@dataclass(frozen=True)
class ReverseSDE(Reverse):
    """Reverse SDE by Gaussian transitions of matched mean and variance (see `transition`)."""

    def step(
        self, denoise: Denoise, x: Tensor, t: float, t_next: float, generator: Generators
    ) -> tuple[Tensor, Tensor]:
        x_hat = denoise(x, t)
        return transition(x, x_hat, t, t_next, generator), x_hat


@dataclass(frozen=True)
class EulerSDE(Reverse):
    """Reverse SDE by the Euler-Maruyama scheme, as the code of PnP-DM has it."""

    def step(
        self, denoise: Denoise, x: Tensor, t: float, t_next: float, generator: Generators
    ) -> tuple[Tensor, Tensor]:
        x_hat = denoise(x, t)
        noise = randn_like(x, generator).mul_(math.sqrt(2 * t * (t - t_next)))
        return noise.add_(x).add_(x - x_hat, alpha=2 * (t_next - t) / t), x_hat


@dataclass(frozen=True)
class HeunSDE(Reverse):
    """Reverse SDE of second order: lift the state by fresh noise, then follow the flow down.

    v = x + sqrt(t^2 - t'^2) n is at level s = sqrt(2 t^2 - t'^2), and x' is one step of Heun's
    scheme for the flow from (v, s) to t'. For small steps the noise is that of the SDE. At large
    ones every part of the image, fine or coarse, keeps nearly its own variance, so that drawing
    again and again, as a Gibbs sampler does, wears no texture away.

    References:
        | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
          algorithm 2
        | arXiv:2206.00364
    """

    calls: ClassVar[int] = 2

    def step(
        self, denoise: Denoise, x: Tensor, t: float, t_next: float, generator: Generators
    ) -> tuple[Tensor, Tensor]:
        fresh = t**2 - t_next**2
        v = randn_like(x, generator).mul_(math.sqrt(fresh)).add_(x)
        return heun(denoise, v, math.sqrt(t**2 + fresh), t_next)


@dataclass(frozen=True)
class EulerFlow(Reverse):
    """Probability flow by the Euler scheme (DDIM): deterministic, not a posterior sampler."""

    needs: ClassVar[tuple[type, ...]] = (Posterior,)
    stochastic: ClassVar[bool] = False

    def step(
        self, denoise: Denoise, x: Tensor, t: float, t_next: float, generator: Generators
    ) -> tuple[Tensor, Tensor]:
        x_hat = denoise(x, t)
        return torch.lerp(x_hat, x, t_next / t), x_hat


@dataclass(frozen=True)
class HeunFlow(Reverse):
    """Probability flow by Heun's scheme (EDM): deterministic, not a posterior sampler."""

    needs: ClassVar[tuple[type, ...]] = (Posterior,)
    stochastic: ClassVar[bool] = False
    calls: ClassVar[int] = 2

    def step(
        self, denoise: Denoise, x: Tensor, t: float, t_next: float, generator: Generators
    ) -> tuple[Tensor, Tensor]:
        return heun(denoise, x, t, t_next)
