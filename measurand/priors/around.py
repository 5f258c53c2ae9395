"""What priors around other priors share: images of the same kind, in the same range."""

from typing import Any

import torch
from torch import nn

from .brief import one_line
from .capabilities import Range

__all__ = ["Around"]


class Around(nn.Module):
    """A prior around another one, whose images are those of the one inside.

    Args:
        prior: The one inside.
    """

    def __init__(self, prior: Any) -> None:
        super().__init__()
        self.prior = prior

    @property
    def range(self) -> Range | None:
        """The values that the images have."""
        return self.prior.range

    @property
    def dtype(self) -> torch.dtype:
        """Kind of the images."""
        return self.prior.dtype

    __repr__ = one_line
