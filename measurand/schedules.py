r"""Noise levels: the grids along which solvers anneal and samplers descend.

A level is the standard deviation `sigma` of `v = x + sigma n` (variance exploding), in image
units. Grids are decreasing and end at their last positive level; a method that goes on to zero
says so in its loop.
"""

import torch
from torch import Tensor

__all__ = ["edm_grid", "log_grid"]


def log_grid(high: float, low: float, n: int) -> Tensor:
    """Levels spaced evenly in their logarithm, `high (low/high)^(i/(n-1))`.

    Args:
        high: First level.
        low: Last level.
        n: Number of levels; one level is `low`.
    Returns:
        The levels, with shape (n,).
    """
    _check("log_grid", high, low, n)
    if n == 1:
        return torch.tensor([float(low)])
    i = torch.arange(n, dtype=torch.float64) / (n - 1)
    return (high * (low / high) ** i).float()


def edm_grid(sigma_max: float, sigma_min: float, n: int, rho: float = 7.0) -> Tensor:
    """Levels spaced evenly in `sigma^(1/rho)`: dense where sigma is small.

    Args:
        sigma_max: First level.
        sigma_min: Last level.
        n: Number of levels.
        rho: Exponent; 1 is a linear grid, infinity a logarithmic one.
    Returns:
        The levels, with shape (n,).
    References:
        | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022)
        | arXiv:2206.00364
    """
    _check("edm_grid", sigma_max, sigma_min, n)
    if n == 1:
        return torch.tensor([float(sigma_max)])
    i = torch.arange(n, dtype=torch.float64) / (n - 1)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return ((high + i * (low - high)) ** rho).float()


def _check(name: str, high: float, low: float, n: int) -> None:
    if not (high >= low > 0 and n >= 1):
        raise ValueError(
            f"{name}: got levels {high} -> {low} in {n} steps, wanted high >= low > 0"
        )
