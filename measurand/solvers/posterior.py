r"""The mean of a posterior, by one evaluation of its denoiser.

At a level far above the image nothing is left of it in `x_s = x + s n`, so that
`E[x | x_s, y] = E[x | y]`: the estimate of least squared error, at the price of one evaluation.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ..fields import positive
from ..measurement import Measurement
from ..priors.denoiser import Posterior, require
from ..schedules import Callback, Step
from ..tensors import Generators, randn_like
from .start import finite, given_or_zeros

__all__ = ["PosteriorMean"]


@dataclass(frozen=True)
class PosteriorMean:
    """E[x given y] of an unfolded network or an exact prior, in one evaluation.

    Differentiates through the prior: no.

    Args:
        sigma_max: Level of the noise that the denoiser is given, far above the image.
    """

    command: ClassVar[str] = "posterior-mean"

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        positive(self, "sigma_max")

    @torch.no_grad()
    def __call__(
        self,
        measurement: Measurement,
        prior: Posterior,
        *,
        x0: Tensor | None = None,
        generator: Generators = None,
        callback: Callback = None,
    ) -> Tensor:
        """One estimate per item.

        Args:
            measurement: What was seen, with Gaussian noise.
            prior: What knows the denoiser of a posterior: an unfolded network.
            x0: Mean of the noisy image; zero where None, and it hardly matters.
            generator: One generator, one per item, or None for seed 0.
            callback: Called with a `Step` once.
        Returns:
            The estimate, with shape (B, ...).
        """
        require(prior, Posterior, by=self, images=measurement.operator.in_dtype)
        mean = given_or_zeros(x0, measurement, by=self)
        v = mean + self.sigma_max * randn_like(mean, generator)
        x = prior.given(measurement).denoise(v, self.sigma_max)
        if callback is not None:
            callback(Step(0, self.sigma_max, v, x))
        return finite(x, by=self)
