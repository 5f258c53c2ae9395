r"""Training of an unfolded posterior score: score matching over many operators.

    E  lambda(s_t) e^-w ||z_K - x||^2 / n + w,      lambda = (s_t^2 + s_data^2) / (s_t s_data)^2,

where w is a learned logarithm of the error to expect: how much y tells differs between problems.
It sees what the radii see and not the name of a task, so that it needs no list of tasks.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ..tensors import inner, per_item, to_channels
from .physics import features
from .posterior_score import Unfolded

__all__ = ["posterior_loss"]


HEAVIEST = 1e4  # largest lambda, which grows as s_t^-2


def posterior_loss(network: Unfolded, batch: Mapping[str, Any]) -> Tensor:
    """Returns the weighted error of each item, with shape (B,).

    lambda(s_t) e^-w ||z_K - x||^2 / n + w, and "early" times the same of the steps before, so that
    gradients reach the first steps while training is young.

    Args:
        network: An unfolded network.
        batch: "x" images (B, ...), "sigma" levels s_t (B,), "noise" of x's shape, standard normal
            in each real channel, "measurement" of x, settled; for all items alike, "early", 0.1
            or 0, and where it is not the network's own, "depth", the number of steps.
    """
    x, sigma, measurement = batch["x"], batch["sigma"], batch["measurement"]
    s = network.sigma_data
    depth = batch.get("depth", network.depth)
    found = network.steps(x + per_item(sigma, x) * batch["noise"], sigma, measurement, depth)
    weight = ((sigma**2 + s**2) / (sigma * s) ** 2).clamp_max(HEAVIEST)
    w = 8 * network.spread(features(sigma, measurement))[:, 0]

    def error(z: Tensor) -> Tensor:
        away = z - x
        return weight * inner(away, away) / to_channels(x)[0].numel()

    total = (-w).exp() * error(found[-1]) + w
    if batch["early"] > 0:
        total = total + (-w).exp() * batch["early"] * sum(error(z) for z in found[:-1])
    return total
