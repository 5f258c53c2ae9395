r"""DPS: diffusion posterior sampling, the gradient of the residual through the network.

The score of `y` at level t is approximated by that of the denoised estimate, `D(x, t)`. One step
is the ancestral step of the prior followed by a pull towards the data, in the variance preserving
coordinates `u = x / sqrt(1 + t^2)` of the paper,

    u' = ancestral(u) - zeta grad_u || y - A D ||_2,

the norm and not its square, so that zeta is the length of the pull where D is the identity. With
`x = u sqrt(1 + t^2)` the factor `sqrt((1 + t^2)(1 + t'^2))` appears below. The ancestral step is

    x' = D + w (x - D) + t' sqrt(1 - w) n,    w = (t'/t)^2.

The *spread of the draws is not a posterior spread*: zeta has no relation to the noise of the
measurement, and it depends on the size of the image.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from ..measurement import Measurement
from ..methods import Iterates, Sampler, Step
from ..priors.capabilities import Denoiser
from ..tensors import Generators, norm, randn_like
from ..validate import count, not_negative

__all__ = ["DPS"]


@dataclass(frozen=True)
class DPS(Sampler):
    """Diffusion posterior sampling; for any operator that autograd can differentiate.

    Each step is one of the prior, and a pull of length zeta along `grad ||y - A D(x, t)||`. The
    spread of draws is not that of the posterior.

    Differentiates through the prior: yes, once a step.

    Args:
        steps: Number of levels, of the linear variance preserving schedule (sigma 152 to 0.01).
        zeta: Length of the pull towards the data, in image units. Paper: 0.3 for blur and
            super-resolution, 0.5 for random inpainting.
    References:
        | Diffusion Posterior Sampling for General Noisy Inverse Problems (Chung et al., 2023)
        | arXiv:2209.14687
    """

    command: ClassVar[str] = "dps"

    steps: int = 1000
    zeta: float = 0.3

    def __post_init__(self) -> None:
        count(self, "steps")
        not_negative(self, "zeta")

    @property
    def levels(self) -> list[float]:
        """Noise levels `sqrt(exp(b t^2 / 2 + a t) - 1)`, a = 0.1, b = 19.9, t from 1 to 0.001."""
        t = torch.linspace(1.0, 1e-3, self.steps, dtype=torch.float64)
        return (9.95 * t**2 + 0.1 * t).expm1().sqrt().tolist()

    @property
    def nfe(self) -> int:
        """Number of denoiser calls of one draw, each with a gradient."""
        return self.steps

    def iterate(
        self, measurement: Measurement, prior: Denoiser, x: Tensor, generator: Generators
    ) -> Iterates:
        """Yields a `Step` after every step."""
        levels = self.levels
        x = x + levels[0] * randn_like(x, generator)
        for i, (t, t_next) in enumerate(pairwise((*levels, 0.0))):
            with torch.enable_grad():
                v = x.detach().requires_grad_()
                x_hat = prior.denoise(v, t)
                misfit = norm(measurement.residual(x_hat)).sum()
                (pull,) = torch.autograd.grad(misfit, v)
            x_hat = x_hat.detach()
            x = ancestral(x, x_hat, t, t_next, generator)
            x.sub_(pull, alpha=self.zeta * math.sqrt((1 + t**2) * (1 + t_next**2)))
            yield Step(i, t, x, x_hat)
        return x


def ancestral(x: Tensor, x_hat: Tensor, t: float, t_next: float, generator: Generators) -> Tensor:
    """The ancestral step of a denoising diffusion from level t to t_next."""
    w = (t_next / t) ** 2
    noise = randn_like(x, generator).mul_(t_next * math.sqrt(1 - w))
    return noise.add_(x, alpha=w).add_(x_hat, alpha=1 - w)
