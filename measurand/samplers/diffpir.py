r"""DiffPIR: denoise, meet the data by a proximal step, add noise again.

At level t, with `D` the denoiser and `sigma` the noise of the measurement,

    x_hat = argmin_u  nll(u) + lam ||u - D(x, t)||^2 / (2 t^2)  =  prox(D(x, t), t / sqrt(lam))
    e     = (x - x_hat) / t
    x'    = x_hat + t' (sqrt(1 - zeta) e + sqrt(zeta) n),

so half-quadratic splitting becomes a sampler: zeta is the share of fresh noise, and the network is
never differentiated. At lam = zeta = 1 the mean of the draws is good and they look right; their
*spread depends on lam, zeta and the number of steps* and is not a posterior spread.

Deviations: paper: the levels are every k-th (or quadratically spaced) one of a 1000-step schedule;
here: an EDM grid between two levels.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from ..measurement import Measurement
from ..methods import Iterates, Sampler, Step
from ..priors.capabilities import Denoiser
from ..schedules import edm_grid
from ..tensors import Generators, randn_like
from ..validate import count, positive, share

__all__ = ["DiffPIR"]


@dataclass(frozen=True)
class DiffPIR(Sampler):
    """Denoising diffusion for plug-and-play restoration.

    Each step denoises, meets the data by `prox(D(x, t), t / sqrt(lam))` and adds noise again.
    Draws look right; their spread is not that of the posterior.

    Differentiates through the prior: no.

    Args:
        steps: Number of levels, of one denoiser call each.
        lam: Weight of the denoised image against the data; 1 is the Gaussian model.
        zeta: Share of fresh noise in a step, between 0 and 1.
        sigma_max: First level, in image units.
        sigma_min: Last level, in image units.
    References:
        | Denoising Diffusion Models for Plug-and-Play Image Restoration (Zhu et al., 2023)
        | arXiv:2305.08995
    """

    command: ClassVar[str] = "diffpir"

    steps: int = 20
    lam: float = 1.0
    zeta: float = field(default=1.0, metadata={"search": (0.0, 1.0)})
    sigma_max: float = 3.0
    sigma_min: float = 0.01

    def __post_init__(self) -> None:
        count(self, "steps")
        positive(self, "lam", "sigma_max", "sigma_min")
        share(self, "zeta")

    @property
    def levels(self) -> list[float]:
        """The noise level of every step."""
        return edm_grid(self.sigma_max, self.sigma_min, self.steps).tolist()

    @property
    def nfe(self) -> int:
        """Number of denoiser calls of one draw."""
        return self.steps

    def iterate(
        self, measurement: Measurement, prior: Denoiser, x: Tensor, generator: Generators
    ) -> Iterates:
        """Yields a `Step` after every step."""
        x = torch.add(x, randn_like(x, generator), alpha=self.sigma_max)
        for i, (t, t_next) in enumerate(pairwise((*self.levels, 0.0))):
            x_hat = measurement.prox(prior.denoise(x, t), t / math.sqrt(self.lam))
            if t_next > 0:
                keep = t_next / t * math.sqrt(1 - self.zeta)
                noise = randn_like(x, generator).mul_(t_next * math.sqrt(self.zeta))
                x = noise.add_(x, alpha=keep).add_(x_hat, alpha=1 - keep)
            else:
                x = x_hat
            yield Step(i, t, x, x_hat)
        return x
