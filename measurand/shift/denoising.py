"""The loss of a network on what was measured, for training and for a look at held-out data."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..batches import Batch
from ..priors.capabilities import Range
from ..priors.edm import EDMDenoiser
from .coordinates import Coordinates
from .ranking import RATIO

__all__ = ["Problem", "measured"]

LEVELS = 8  # at which held-out measurements are denoised
MEAN, STD = -1.2, 1.2  # of ln(sigma), sigma of images in [-1, 1]


@dataclass(frozen=True)
class Problem:
    """The measurements as a problem of denoising.

    Args:
        data: Their coordinates.
        weights: Weight of each coordinate, with shape (1, ...).
        spread: Whether noise is added where nothing is seen.
        sigma_range: Lowest and highest noise level of the prior.
        scale: Half of the range of the images.
    """

    data: Coordinates
    weights: Tensor
    spread: bool
    sigma_range: Range
    scale: float

    def drawn(
        self, items: Tensor, generator: torch.Generator, level: float | None = None
    ) -> Batch:
        """Return noisy images of some items, with targets and weights.

        Args:
            items: Numbers of the items, with shape (B,).
            generator: Draws noise, and levels where none is given.
            level: A quantile of the distribution of levels, as a normal number.
        """
        part = self.data[items.to(self.data.known.device)]
        normal = torch.empty(len(items), device=part.sd.device).normal_(generator=generator)
        sigma = self.scale * (MEAN + STD * (normal if level is None else level + 0 * normal)).exp()
        low, high = self.sigma_range
        # not below the noise of the best coordinate: nothing would count
        sigma = sigma.to(part.sd.dtype).clamp_min(low).maximum(RATIO * part.least).clamp_max(high)
        noise = part.analysis(part.noise(generator))
        seen = part.seen(sigma, RATIO)
        target = part.target(sigma, noise)
        return Batch(
            {
                "v": part.noisy(sigma, noise, seen, self.spread),
                "sigma": sigma,
                "target": torch.where(seen, target, torch.zeros_like(target)),
                "weights": torch.where(seen, self.weights, 0.0),
            }
        )

    def loss(self, model: EDMDenoiser, batch: Batch) -> Tensor:
        """Return the weighted loss of each item, with shape (B,)."""
        sigma, s = batch["sigma"], model.sigma_data
        error = self.data.analysis(model(batch["v"], sigma)) - batch["target"]
        square = (batch["weights"] * error.abs().square()).flatten(1)
        level = (sigma**2 + s**2) / (sigma * s) ** 2
        return level * square.mean(1) / self.data.parts

    def looks(self, items: Tensor, generator: torch.Generator, size: int) -> list[Batch]:
        """Return batches of held-out items, at fixed levels with fixed noise."""
        middle = (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS
        return [
            self.drawn(some, generator, level)
            for level in torch.special.ndtri(middle).tolist()
            for some in items.split(size)
        ]


@torch.no_grad()
def measured(model: EDMDenoiser, problem: Problem, looks: Sequence[Batch]) -> float:
    """Return the mean loss of held-out batches."""
    losses = torch.cat([problem.loss(model, look) for look in looks])
    return float(losses.double().mean())
