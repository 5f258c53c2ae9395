r"""DAPS: decoupled annealing, each level a fresh draw around the end of a probability flow.

From x at level t,

    x_hat = probability flow from x, a few Euler steps
    x0    ~ exp(-nll(x0) - ||x0 - x_hat||^2 / (2 r^2)),  r = width t      `conditional_sample`
    x'    = x0 + t' n,

so that consecutive levels are not tied by small steps and early errors can be undone. The end of
the flow is already a draw where the data say nothing, and there a draw around it adds `r^2` to the
variance: the *spread is too large*, the mean fair.

Deviations. Paper: r = t, drawn by a few Langevin steps that hardly move at large t; here: the
exact Gaussian draw, with r = 0.3 t unless told otherwise (drawn exactly, r = t leaves the next
flow with 1.4 times the noise that it expects, which ruins photographs). Paper's code: the data are
trusted to `tau = 0.01` whatever their noise, which overfits noisy data; here: tau is the noise of
the measurement, unless it is given.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from ..measurement import Measurement
from ..methods import Iterates, Sampler, Step
from ..priors.capabilities import Denoiser
from ..schedules import edm_grid
from ..tensors import Generators, randn_like
from ..validate import count, not_negative, positive
from .reverse import EulerFlow

__all__ = ["DAPS"]


@dataclass(frozen=True)
class DAPS(Sampler):
    """Decoupled annealing posterior sampling; for linear operators with Gaussian noise.

    Differentiates through the prior: no.

    Args:
        steps: Number of levels.
        flow_steps: Number of denoiser calls at each level.
        sigma_max: First level, in image units.
        sigma_min: Last level, in image units.
        flow_min: Last level inside a flow, in image units.
        width: Standard deviation of the draw around the end of a flow, in units of the level.
        tau: Trusted noise of the data, in their units; that of the measurement where None.
    References:
        | Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing (Zhang et
          al., 2024)
        | arXiv:2407.01521
    """

    command: ClassVar[str] = "daps"

    steps: int = 50
    flow_steps: int = 5
    sigma_max: float = 3.0
    sigma_min: float = 0.02
    flow_min: float = 0.01
    width: float = 0.3
    tau: float | None = None

    def __post_init__(self) -> None:
        count(self, "steps", "flow_steps")
        positive(self, "sigma_max", "sigma_min", "flow_min", "width")
        not_negative(self, "tau")

    @property
    def levels(self) -> list[float]:
        """The noise level of every step."""
        return edm_grid(self.sigma_max, self.sigma_min, self.steps).tolist()

    @property
    def nfe(self) -> int:
        """Number of denoiser calls of one draw."""
        return self.steps * self.flow_steps

    def iterate(
        self, measurement: Measurement, prior: Denoiser, x: Tensor, generator: Generators
    ) -> Iterates:
        """Yields a `Step` after every level."""
        if self.tau is not None:
            noise = type(measurement.noise)(self.tau)
            measurement = Measurement(measurement.operator, noise, measurement.y)
        x = x + self.sigma_max * randn_like(x, generator)
        flow = EulerFlow()
        for i, (t, t_next) in enumerate(pairwise((*self.levels, 0.0))):
            grid = edm_grid(t, min(t, self.flow_min), self.flow_steps).tolist()
            x_hat = flow.descend(prior.denoise, x, grid, generator, by=self)
            x = measurement.conditional_sample(x_hat, self.width * t, generator)
            if t_next > 0:
                x.add_(randn_like(x, generator), alpha=t_next)
            yield Step(i, t, x, x_hat)
        return x
