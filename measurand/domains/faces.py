"""Faces: whole aligned pictures of one size, mirrored but never turned."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.photos import KINDS, pictures
from .material import OfFiles

__all__ = ["Faces"]


@dataclass(frozen=True)
class Faces(OfFiles):
    """Square colour pictures in [-1, 1], shrunk as a whole to one size.

    Args:
        side: Height and width, in pixels.
    """

    side: int = 64
    channels = 3
    turn = False
    dtype = torch.float32
    reads = f"pictures ({KINDS})"

    @property
    def facts(self) -> dict[str, Any]:
        return {"units": "8-bit samples u as u / 127.5 - 1", "side": self.side}

    def read(self, path: Path, under: str, skip_bad: bool = False) -> list[NDArray[np.uint8]]:
        return [self.whole(x) for x in pictures(path, under=under, skip_bad=skip_bad)]

    def image(self, stored: Tensor, generator: torch.Generator | None) -> Tensor:
        return stored.float() / 127.5 - 1

    def whole(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns the central square of a picture at the size of the domain."""
        from PIL import Image

        height, width = picture.shape[:2]
        n = min(height, width)
        top, left = (height - n) // 2, (width - n) // 2
        square = Image.fromarray(picture[top : top + n, left : left + n])
        return np.array(square.resize((self.side, self.side), Image.Resampling.LANCZOS))
