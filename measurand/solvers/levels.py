r"""At which noise level the denoiser works in each step, and how strongly the data pull there.

A splitting method minimises `nll(x) + weight g(x)` by steps that alternate a denoiser of level
sigma with the proximal map of the data of radius r. A denoiser is the proximal map of the prior
with weight sigma^2, so that the two belong together through

    r = sigma / sqrt(weight)      (the quadratic weight is weight s^2 / sigma^2 on 1/2||Ax - y||^2)

Levels anneal, on a logarithmic grid, from a high one, which removes what the inversion of A
amplified, to the noise of the measurement as it stands in the image. Both ends follow from the
problem: the high one is a share of the prior's value range; the noise in the image is

    s = sigma_y / (||A|| sqrt(max(1, n/m))),

for n unknowns and m data: a blur or a mask leaves it alone, a block average over 4 x 4 pixels
(norm 1/4, n/m = 16) too, and a tomograph's path lengths are divided out. Almost noise-free data
are treated as if s were `floor` of the range: neither a network nor a boundary is that exact.

References:
    | Plug-and-Play Image Restoration with Deep Denoiser Prior (Zhang et al., 2021)
    | arXiv:2008.13751
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

from ..measurement import Measurement
from ..priors.denoiser import Denoiser
from ..schedules import log_grid

__all__ = ["Annealed", "Constant", "Level", "Levels", "noise_in_image"]


class Level(NamedTuple):
    """One step of a schedule.

    Attributes:
        sigma: Level of the denoiser, in image units.
        r: Radius of the data step, in image units.
    """

    sigma: float
    r: float


@dataclass(frozen=True)
class Annealed:
    """Levels on a logarithmic grid from a high one to the noise of the measurement.

    Args:
        high: First level, as a share of the prior's value range.
        low: Last level, in multiples of the measurement's noise in the image.
        floor: Least noise assumed of a measurement, as a share of the prior's value range.
    """

    high: float = 49 / 255
    low: float = 1.0
    floor: float = 0.01

    def __call__(
        self, measurement: Measurement, prior: Denoiser, steps: int, weight: float
    ) -> list[Level]:
        """The levels and radii of each step.

        Args:
            measurement: What was seen.
            prior: The denoiser, for its value range.
            steps: Number of levels.
            weight: Weight of the prior.
        Returns:
            One `Level` per step, in decreasing order.
        """
        noise = noise_in_image(measurement)
        assumed = max(noise, self.floor * width(prior))
        low = self.low * assumed
        grid = log_grid(max(self.high * width(prior), low), low, steps).tolist()
        trust = noise / assumed if noise > 0 else 1.0
        return [Level(sigma, trust * radius(sigma, weight)) for sigma in grid]


@dataclass(frozen=True)
class Constant:
    """One level for all steps: for denoisers that have no other, and for fixed-point theory.

    Args:
        level: The level, in image units; None is the noise of the measurement in the image, at
            least 0.01 of the prior's value range.
    """

    level: float | None = None

    def __call__(
        self, measurement: Measurement, prior: Denoiser, steps: int, weight: float
    ) -> list[Level]:
        """The same level and radius for each step; see `Annealed`."""
        sigma = self.level
        if sigma is None:
            sigma = max(noise_in_image(measurement), 0.01 * width(prior))
        return [Level(sigma, radius(sigma, weight))] * steps


Levels = Annealed | Constant


def radius(sigma: float, weight: float) -> float:
    """The radius `sigma / sqrt(weight)` of the data step; infinite without a prior."""
    return sigma / math.sqrt(weight) if weight > 0 else math.inf


def width(prior: Denoiser) -> float:
    """Width of the prior's value range; 2, that of [-1, 1], where it takes any."""
    return 2.0 if prior.range is None else prior.range[1] - prior.range[0]


def noise_in_image(measurement: Measurement) -> float:
    """The noise of a measurement as it stands in the image, in image units.

    Args:
        measurement: What was seen, with Gaussian noise.
    Returns:
        `sigma / (||A|| sqrt(max(1, n/m)))`, of the noisiest item.
    """
    operator = measurement.operator
    unknowns = math.prod(operator.in_shape) * (2 if operator.in_dtype.is_complex else 1)
    data = math.prod(operator.out_shape) * (2 if operator.out_dtype.is_complex else 1)
    gain = operator.norm * math.sqrt(max(1.0, unknowns / data))
    return float(measurement.sigma.max()) / max(gain, 1e-30)
