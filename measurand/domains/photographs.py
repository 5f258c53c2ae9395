"""Photographs of everyday things, in colour or grey, from folders and zips of pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.photos import KINDS, pictures
from .material import OfFiles

__all__ = ["Photographs", "luminance"]


@dataclass(frozen=True)
class Photographs(OfFiles):
    """Photographs in [-1, 1]: x = u / 127.5 - 1 of the 8-bit samples u.

    Args:
        grey: One channel, the luminance.
    """

    grey: bool = False
    dtype = torch.float32
    reads = f"pictures ({KINDS})"

    @property
    def channels(self) -> int:
        return 1 if self.grey else 3

    @property
    def facts(self) -> dict[str, Any]:
        return {"units": "8-bit samples u as u / 127.5 - 1" + ", luminance" * self.grey}

    def read(self, path: Path, under: str, skip_bad: bool = False) -> list[NDArray[np.uint8]]:
        found = pictures(path, under=under, skip_bad=skip_bad)
        return [luminance(x) for x in found] if self.grey else found

    def image(self, stored: Tensor, generator: torch.Generator | None) -> Tensor:
        return stored.float() / 127.5 - 1


def luminance(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601) of a picture (H, W, 3), rounded."""
    return (picture @ np.array([0.299, 0.587, 0.114]) + 0.5).astype(np.uint8)
