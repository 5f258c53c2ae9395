"""Computed tomography of the body: axial slices in Hounsfield units."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.arrays import UnreadableFile, one_channel
from ..data.collection import images
from .material import OfFiles

__all__ = ["Body"]

_PICTURES = {".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".webp"}
_SPAN = 50.0  # HU; what lies closer together is in another unit


@dataclass(frozen=True)
class Body(OfFiles):
    """Slices x = 2 (HU - low) / (high - low) - 1, clipped to [-1, 1].

    The map is affine inside the window, so that attenuation `mu = mu_water (1 + HU / 1000)` is
    affine in x and a projection stays a linear measurement. While training, contrast and level
    vary by `scale`: scanners and energies differ.

    Args:
        window: Lowest and highest value, in Hounsfield units.
        scale: Largest relative change of (HU + 1000).
    """

    window: tuple[float, float] = (-1000.0, 2000.0)
    scale: float = 0.05
    channels = 1
    dtype = torch.float32

    @property
    def facts(self) -> dict[str, Any]:
        return {"units": "HU, [low, high] to [-1, 1]", "window": list(self.window)}

    def read(self, path: Path, under: str, skip_bad: bool = False) -> list[NDArray[Any]]:
        found = images(path, under=under, skip_bad=skip_bad, check=hounsfield).images
        return [np.clip(x, -1024, 3071).astype(np.int16) for x in found]

    def image(self, stored: Tensor, generator: torch.Generator | None) -> Tensor:
        """Returns stored Hounsfield units as images, with a random gain where training."""
        hu = stored.float()
        if generator is not None:
            u = torch.rand((len(hu), 1, 1, 1), generator=generator, device=hu.device)
            hu = (hu + 1000) * (1 + self.scale * (2 * u - 1)) - 1000
        low, high = self.window
        return (2 * (hu - low) / (high - low) - 1).clamp(-1, 1)


def hounsfield(name: str, image: NDArray[Any]) -> None:
    """Checks that an image of the file `name` can be in Hounsfield units.

    That is one real channel; where it is not blank, its values differ by 50 at least, and some are
    below water (0), as fat and air are, and the noise around water.

    Args:
        name: The file, for the message.
        image: What it holds.
    Raises:
        UnreadableFile: It cannot be; the message says what would be.
    """
    one_channel(name, image)
    if image.dtype == np.uint8:
        raise UnreadableFile(f"{name}: got samples of 8 bits, wanted Hounsfield units")
    if np.iscomplexobj(image):
        raise UnreadableFile(f"{name}: got complex values, wanted Hounsfield units")
    if PurePosixPath(name).suffix.lower() in _PICTURES:
        raise UnreadableFile(
            f"{name}: got a picture, whose samples are shares of white, wanted Hounsfield units: "
            "save them as .npy (of DeepLesion, the stored 16 bits minus 32768)"
        )
    low, high = float(image.min()), float(image.max())
    if low < high and (low >= 0 or (high - low < _SPAN and low > -_SPAN)):
        raise UnreadableFile(
            f"{name}: got values from {low:.4g} to {high:.4g}, wanted Hounsfield units, in which "
            "air is -1000 and water 0. Of attenuation, 1000 (mu / mu_water - 1) is that "
            "(operators.hounsfield); of stored samples without a rescale, u - 1024 most often"
        )
