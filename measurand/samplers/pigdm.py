r"""PiGDM: pseudo-inverse guidance, a Gaussian around the denoised estimate.

At level t the image is taken for `N(D(x, t), r^2 I)` given x, with `r^2 = t^2 s^2 / (t^2 + s^2)`
for images of standard deviation s. Then y given x is Gaussian too, and its score is known up to
the Jacobian `J = dD/dx`. Adding it to the prior's gives the denoiser of the posterior,

    D_y = D + t^2 J^H A^H (r^2 A A^H + sigma^2)^-1 (y - A D)
        = D + (t^2 / r^2) J^H (prox(D, r) - D),

because `prox(v, r) - v = r^2 A^H (r^2 A A^H + sigma^2)^-1 (y - A v)`: the proximal map of the
measurement is all it needs, whatever the operator. The reverse SDE runs on D_y.

Within a mode, mean and spread of the draws are usable.

Deviations. Paper: a DDIM step with eta = 1; here: the `transition` of the reverse SDE. Paper:
s = 1; here s is the field `spread`. Paper: from the highest level of the network; here from 3, see
`sigma_max`.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from ..measurement import Measurement
from ..methods import Iterates, Sampler, Step
from ..priors.capabilities import Denoiser
from ..schedules import log_grid
from ..tensors import Generators, randn_like
from ..validate import count, positive
from .reverse import transition

__all__ = ["PiGDM"]


@dataclass(frozen=True)
class PiGDM(Sampler):
    """Pseudo-inverse guided diffusion; for linear operators with Gaussian noise.

    Differentiates through the prior: yes, one vector-Jacobian product a step.

    Args:
        steps: Number of levels.
        sigma_max: First level, in image units. The factor `t^2 / r^2` multiplies what the
            Jacobian of a trained network has wrong, and grows with the level: from 10 upwards the
            draws may diverge.
        sigma_min: Last level, in image units.
        spread: Standard deviation s of the images, in image units.
    References:
        | Pseudoinverse-Guided Diffusion Models for Inverse Problems (Song et al., 2023)
    """

    command: ClassVar[str] = "pigdm"

    steps: int = 50
    sigma_max: float = 3.0
    sigma_min: float = 0.01
    spread: float = 1.0

    def __post_init__(self) -> None:
        count(self, "steps")
        positive(self, "sigma_max", "sigma_min", "spread")

    @property
    def levels(self) -> list[float]:
        """The noise level of every step."""
        return log_grid(self.sigma_max, self.sigma_min, self.steps).tolist()

    @property
    def nfe(self) -> int:
        """Number of denoiser calls of one draw, each with a gradient."""
        return self.steps

    def iterate(
        self, measurement: Measurement, prior: Denoiser, x: Tensor, generator: Generators
    ) -> Iterates:
        """Yields a `Step` after every step."""
        x = x + self.sigma_max * randn_like(x, generator)
        for i, (t, t_next) in enumerate(pairwise((*self.levels, 0.0))):
            r = t * self.spread / (t**2 + self.spread**2) ** 0.5
            with torch.enable_grad():
                v = x.detach().requires_grad_()
                x_hat = prior.denoise(v, t)
            fixed = x_hat.detach()
            (pull,) = torch.autograd.grad(x_hat, v, measurement.prox(fixed, r) - fixed)
            x_hat = torch.add(fixed, pull, alpha=(t / r) ** 2)
            x = transition(x, x_hat, t, t_next, generator) if t_next > 0 else x_hat
            yield Step(i, t, x, x_hat)
        return x
