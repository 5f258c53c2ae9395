r"""Averages of a model's weights while it trains.

The power-function average after step t is

    w_t = beta_t w_{t-1} + (1 - beta_t) theta_t,    beta_t = (1 - 1/t)^(gamma + 1),

a window t^gamma that grows with the run. Its standard deviation, relative to the length of the
run, is r with `r^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))`: no tuning with the run's length.

References:
    | Analyzing and improving the training dynamics of diffusion models (Karras et al., 2024)
    | arXiv:2312.02696, equations 122-127
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["EMA"]


class EMA:
    """Power-function average of a model's parameters.

    Args:
        model: Whose parameters to follow.
        width: Standard deviation of the averaging window, relative to the steps done so far.
        every: Steps between updates.
    """

    def __init__(self, model: nn.Module, width: float = 0.05, every: int = 4) -> None:
        # (gamma + 1) / width^2 = (gamma + 2)^2 (gamma + 3), in powers of gamma
        t = width**-2
        roots = np.roots([1, 7, 16 - t, 12 - t])
        self.gamma = float(roots.real[np.abs(roots.imag) < 1e-9].max())
        self.width, self.every = width, every
        self.source = dict(model.named_parameters())
        self.values = {k: p.detach().clone() for k, p in self.source.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after `step` steps, 1 being the first."""
        if step % self.every == 0:
            # paper: beta = (1 - 1/t)^(gamma + 1) at each t; here: a step of length `every`
            weight = 1 - (1 - self.every / step) ** (self.gamma + 1)
            torch._foreach_lerp_(list(self.values.values()), list(self.source.values()), weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside the block, and its own after it."""
        own = {k: p.detach().clone() for k, p in self.source.items()}
        try:
            self.copy(self.values)
            yield
        finally:
            self.copy(own)

    @torch.no_grad()
    def copy(self, values: Mapping[str, Tensor]) -> None:
        """Writes `values` into the model's parameters."""
        for k, p in self.source.items():
            p.copy_(values[k])
