r"""BlindDPS: two reverse diffusions that share one gradient of the residual.

Image and parameters descend through their noise levels side by side. With the denoised estimates
`X = D_x(x, t)` and `Theta = D_theta(theta, s)`, each step is the ancestral step of its prior and a
pull towards the data,

    x'     = ancestral(x)     - zeta grad_x || y - A(Theta) X ||_2,
    theta' = ancestral(theta) - zeta_theta grad_theta || y - A(Theta) X ||_2,

each gradient through its network. The levels of the parameters are those of the image times
`scale`: kernels are small in the units of their network.

The spread of the draws is not a posterior spread (see `dps`).

Deviations: variance exploding coordinates, as everywhere here (paper: variance preserving); the
kernel denoiser keeps the sum (paper: division by the sum, and an l1 term holds the kernel sparse);
the result is projected on the simplex.

References:
    | Parallel Diffusion Models of Operator and Image for Blind Inverse Problems (Chung et al.,
      2023)
    | arXiv:2211.10656
"""

from dataclasses import dataclass
from itertools import pairwise

import torch

from ..blind import BlindMeasurement, Unknowns
from ..methods import Iterates, Step, finite
from ..schedules import edm_grid
from ..tensors import Generators, norm, randn_like
from ..validate import count, not_negative, positive
from .blind import BlindSampler, Priors
from .dps import ancestral

__all__ = ["BlindDPS"]


@dataclass(frozen=True)
class BlindDPS(BlindSampler):
    """Blind diffusion posterior sampling, a baseline: draws from a start of pure noise.

    Differentiates through the priors: yes, once a step.

    Args:
        steps: Number of levels.
        sigma_max: First level of the image, in image units.
        sigma_min: Last level.
        scale: Levels of the parameters, in levels of the image.
        zeta: Length of the pull of the image towards the data, in image units.
        zeta_theta: Length of the pull of the parameters, in units of theta.
    References:
        | Parallel Diffusion Models of Operator and Image for Blind Inverse Problems (Chung et al.,
          2023)
        | arXiv:2211.10656
    """

    steps: int = 300
    sigma_max: float = 20.0
    sigma_min: float = 0.01
    scale: float = 0.1
    zeta: float = 0.3
    zeta_theta: float = 0.03

    def __post_init__(self) -> None:
        count(self, "steps")
        positive(self, "sigma_max", "sigma_min", "scale")
        not_negative(self, "zeta", "zeta_theta")

    @property
    def nfe(self) -> int:
        """Number of calls of each denoiser, each with a gradient."""
        return self.steps

    def iterate(
        self, measurement: BlindMeasurement, prior: Priors, start: Unknowns, generator: Generators
    ) -> Iterates:
        """Yields a `Step` after every step."""
        family = measurement.family
        levels = [*edm_grid(self.sigma_max, self.sigma_min, self.steps).tolist(), 0.0]
        x = start.x + levels[0] * randn_like(start.x, generator)
        theta = start.theta + self.scale * levels[0] * randn_like(start.theta, generator)
        for i, (t, t_next) in enumerate(pairwise(levels)):
            with torch.enable_grad():
                v, w = x.detach().requires_grad_(), theta.detach().requires_grad_()
                x_hat = prior.x.denoise(v, t)
                theta_hat = prior.theta.denoise(w, self.scale * t)
                misfit = norm(measurement.residual(x_hat, theta_hat)).sum()
                pull, pull_theta = torch.autograd.grad(misfit, (v, w))
            x_hat, theta_hat = x_hat.detach(), theta_hat.detach()
            x = ancestral(x, x_hat, t, t_next, generator)
            theta = ancestral(theta, theta_hat, self.scale * t, self.scale * t_next, generator)
            x, theta = x - self.zeta * pull, theta - self.zeta_theta * pull_theta
            finite(theta, by=self)  # small beside an image, and no operator can be made of NaN
            yield Step(i, t, Unknowns(x, theta), Unknowns(x_hat, theta_hat))
        return Unknowns(*family.aligned(x, family.project(theta)))
