"""The denoiser of a posterior, on which the samplers of a prior run: E[x given x_t, y].

By Tweedie's formula, with y, it is the score of the noisy posterior,
`grad log p(x_t | y) = (E[x | x_t, y] - x_t) / s_t^2`.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..measurement import Measurement
from ..tensors import per_item

__all__ = ["PosteriorDenoiser"]


SMALLEST = 1e-4  # least s_t, relative to sigma_data: its weight is s_t^-2


@dataclass(frozen=True)
class PosteriorDenoiser:
    """The denoiser of a posterior: `denoise(x_t, s_t) = E[x given x_t, y]`.

    Args:
        network: The unfolded network, called as `network(x_t, sigma, measurement)`.
        measurement: What was seen, with noise.
    """

    network: Any
    measurement: Measurement

    @property
    def range(self) -> tuple[float, float] | None:
        """Lowest and highest value of the images."""
        return self.network.range

    @property
    def dtype(self) -> torch.dtype:
        """Kind of the images."""
        return self.network.dtype

    def denoise(self, v: Tensor, sigma: float | Tensor, condition: Tensor | None = None) -> Tensor:
        """Returns E[x given v = x + sigma n, y].

        Args:
            v: Noisy image, with shape (B, ...).
            sigma: Noise level, a number or one per item; 0 counts as the smallest of all.
            condition: Not used.
        Raises:
            ValueError: There are as many images as measurements, or one of these.
        """
        if len(self.measurement) not in (1, len(v)):
            raise ValueError(
                f"{type(self.network).__name__}: got {len(v)} images for {self.measurement}, "
                "wants one for each item; measurement.repeat(n) has n of each"
            )
        level = per_item(sigma, v).flatten().expand(len(v))
        level = level.clamp_min(SMALLEST * self.network.sigma_data)
        return self.network(v, level, self.measurement)

    __call__ = denoise
