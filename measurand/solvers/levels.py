r"""At which noise level the denoiser works in each step, and how strongly the data pull there.

A splitting method minimises `nll(x) + weight g(x)` by steps that alternate a denoiser of level
sigma with the proximal map of the data of radius r. A denoiser is the proximal map of the prior
with weight sigma^2, so that the two belong together through

    r = sigma / sqrt(weight)      (the quadratic weight is weight s^2 / sigma^2 on 1/2||Ax - y||^2)

Levels anneal, on a logarithmic grid, from a high one, which removes what the inversion of A
amplified, to the noise of the measurement as it stands in the image. Both ends follow from the
problem: the high one is a share of the prior's value range; the noise in the image is, for each
item by itself,

    s = sigma_y / (||A|| sqrt(max(1, n/m))),

for n unknowns and m data: a blur or a mask leaves it alone, a block average over 4 x 4 pixels
(norm 1/4, n/m = 16) too, and a tomograph's path lengths are divided out. No level is below `floor`
of the range, where a network has nothing left to remove; the data keep their own noise there, and
pull as strongly as they are exact. The first level is at least twice the last.

References:
    | Plug-and-Play Image Restoration with Deep Denoiser Prior (Zhang et al., 2021)
    | arXiv:2008.13751
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..measurement import Measurement
from ..priors.capabilities import Denoiser, Latent
from ..schedules import log_grid
from ..tensors import randn_like
from ..validate import not_negative, positive

__all__ = [
    "Annealed",
    "Constant",
    "Level",
    "Levels",
    "determined",
    "item_values",
    "noise_in_image",
]


class Level(NamedTuple):
    """One step of a schedule: numbers, or tensors of shape (B,) where items differ.

    Attributes:
        sigma: Level of the denoiser, in image units.
        r: Radius of the data step, in image units.
    """

    sigma: float | Tensor
    r: float | Tensor


@dataclass(frozen=True)
class Annealed:
    """Levels on a logarithmic grid from a high one to the noise of the measurement.

    Args:
        high: First level, as a share of the prior's value range.
        low: Last level, in multiples of the measurement's noise in the image.
        floor: Least level, in multiples of `low`, as a share of the prior's value range.
    """

    high: float = 0.3
    low: float = 1.0
    floor: float = 0.01

    def __post_init__(self) -> None:
        positive(self, "high", "low")
        not_negative(self, "floor")

    def __call__(
        self, measurement: Measurement, prior: Denoiser | Latent, steps: int, weight: float
    ) -> list[Level]:
        """The levels and radii of each step.

        Args:
            measurement: What was seen.
            prior: The denoiser or latent prior, for its value range.
            steps: Number of levels.
            weight: Weight of the prior.
        Returns:
            One `Level` per step, in decreasing order; with one value per item where the items of
            the measurement differ in noise or norm.
        """
        noise = _list(noise_in_image(measurement))
        return _joined([self._grid(s, prior, steps, weight) for s in noise], measurement)

    def _grid(
        self, noise: float, prior: Denoiser | Latent, steps: int, weight: float
    ) -> list[Level]:
        low = self.low * max(noise, self.floor * width(prior))
        grid = log_grid(max(self.high * width(prior), 2 * low), low, steps).tolist()
        return [Level(sigma, radius(sigma, weight)) for sigma in grid]


@dataclass(frozen=True)
class Constant:
    """One level for all steps: for denoisers that have no other, and for fixed-point theory.

    Args:
        level: The level, in image units; None is the noise of the measurement in the image, at
            least 0.01 of the prior's value range.
    """

    level: float | None = None

    def __post_init__(self) -> None:
        positive(self, "level")

    def __call__(
        self, measurement: Measurement, prior: Denoiser | Latent, steps: int, weight: float
    ) -> list[Level]:
        """The same level and radius for each step; see `Annealed`."""
        least = 0.01 * width(prior)
        if self.level is not None:
            sigmas = [self.level]
        else:
            sigmas = [max(noise, least) for noise in _list(noise_in_image(measurement))]
        return _joined([[Level(s, radius(s, weight))] * steps for s in sigmas], measurement)


Levels = Annealed | Constant


def radius(sigma: float, weight: float) -> float:
    """The radius `sigma / sqrt(weight)` of the data step; infinite without a prior."""
    return sigma / math.sqrt(weight) if weight > 0 else math.inf


def width(prior: Denoiser | Latent) -> float:
    """Width of the prior's value range; 2, that of [-1, 1], where it takes any."""
    return 2.0 if prior.range is None else prior.range[1] - prior.range[0]


def noise_in_image(measurement: Measurement) -> float | Tensor:
    """The noise of a measurement as it stands in the image, in image units.

    Args:
        measurement: What was seen, with Gaussian noise.
    Returns:
        `sigma / (||A|| sqrt(max(1, n/m)))`; with shape (B,) where the measurement has one sigma or
        one operator per item.
    """
    operator = measurement.operator
    unknowns = math.prod(operator.in_shape) * (2 if operator.in_dtype.is_complex else 1)
    data = math.prod(operator.out_shape) * (2 if operator.out_dtype.is_complex else 1)
    spread = math.sqrt(max(1.0, unknowns / data))
    return item_values(measurement, lambda sigma, norm: sigma / max(norm * spread, 1e-30))


def item_values(
    measurement: Measurement, value: Callable[[float, float], float]
) -> float | Tensor:
    """What follows from the noise and the norm of an item, `value(sigma, ||A||)`.

    Args:
        measurement: What was seen, with Gaussian noise.
        value: The function.
    Returns:
        A number, or where the measurement has one sigma or one operator per item a tensor with
        shape (B,): an item has the value that it has alone.
    """
    sigmas, norms = measurement.sigma.reshape(-1).tolist(), measurement.operator.norms
    n = max(len(sigmas), len(norms))
    found = [value(sigmas[i % len(sigmas)], norms[i % len(norms)]) for i in range(n)]
    return found[0] if n == 1 else _tensor(found, measurement)


def determined(measurement: Measurement) -> float:
    """The share of an image that its data determine, `tr(A^H A) / (n ||A||^2)`.

    1 for plain denoising, the share of measured pixels for a mask, little for a blur. From one
    random image, the mean over the items of the measurement.

    Args:
        measurement: What was seen.
    """
    operator = measurement.operator
    with torch.no_grad():
        v = randn_like(operator.blank_input(operator.batch), None)
        energy = operator(v).abs().double().square().flatten(1).sum(1)
        own = v.abs().double().square().flatten(1).sum(1)
        return float((energy / own / own.new_tensor(operator.norms).square()).mean())


def _tensor(values: list[float], measurement: Measurement) -> Tensor:
    """Values of items on the device of the data; in their precision, as networks want levels."""
    y = measurement.y
    return torch.tensor(values, dtype=y.real.dtype if y.is_complex() else y.dtype, device=y.device)


def _list(value: float | Tensor) -> list[float]:
    return value.tolist() if isinstance(value, Tensor) else [value]


def _joined(grids: list[list[Level]], measurement: Measurement) -> list[Level]:
    """The grids of all items as one."""
    if len(grids) == 1:
        return grids[0]
    return [
        Level(*(_tensor(list(values), measurement) for values in zip(*step, strict=True)))
        for step in zip(*grids, strict=True)
    ]
