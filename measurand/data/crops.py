"""Random crops of many images, from one flat tensor on the device that trains.

Nothing is decoded, and nothing is copied between memories while training: pixel (i, j) of crop k
is read at

    start[image k] + (top_k + i') row[image k] + (left_k + j') channels,

with (i', j') the symmetry of the square that was drawn for k. The crops of a step are a pure
function of (seed, step): a run that is resumed sees what it would have seen.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Crops"]


class Crops:
    """Random square crops of many images, a pure function of (seed, step).

    Args:
        images: Images, each (H, W) or (H, W, C), all of one type and number of channels.
        seed: Chooses the whole sequence.
        turn: Also swap rows and columns, and turn upside down.
        mirror: Also mirror left and right; with both, all eight symmetries of the square.
        device: Where the pixels lie.
    Raises:
        ValueError: There is no image, or they differ in type or channels.
    """

    def __init__(
        self,
        images: Sequence[NDArray[np.generic]],
        *,
        seed: int = 0,
        turn: bool = True,
        mirror: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        kinds = {(image.dtype.name, *image.shape[2:]) for image in images}
        if len(kinds) != 1:
            raise ValueError(
                f"Crops: got {len(images)} images of the kinds {sorted(kinds)}, wants at least "
                "one image, and one type and number of channels"
            )
        self.seed, self.turn, self.mirror = seed, turn, mirror
        self.sizes = np.array([image.shape[:2] for image in images])
        self.channels = images[0].shape[2] if images[0].ndim == 3 else 1
        lengths = self.sizes.prod(1) * self.channels
        self.starts = np.concatenate(([0], lengths.cumsum()[:-1]))
        flat = np.concatenate([image.reshape(-1) for image in images])
        self.flat = torch.from_numpy(flat).to(device)

    def __len__(self) -> int:
        return len(self.sizes)

    def __call__(self, step: int, n: int, size: int) -> Tensor:
        """Returns the crops of one step as they are stored, with shape (n, C, size, size).

        Every crop of every image is equally likely.

        Args:
            step: Number of the batch.
            n: Number of crops.
            size: Height and width, in pixels.
        Raises:
            ValueError: Every image is smaller than the crop.
        """
        rooms = (self.sizes - size + 1).clip(0)
        weights = rooms.prod(1)
        if not weights.any():
            largest = "{} x {}".format(*self.sizes[self.sizes.min(1).argmax()])
            raise ValueError(
                f"Crops: no image holds a square of {size} x {size} pixels, the largest has "
                f"{largest}"
            )
        random = np.random.default_rng((self.seed, step))
        image = random.choice(len(weights), n, p=weights / weights.sum())
        top, left = random.integers(rooms[image].T)
        turned = self.turn & (random.random(n) < 0.5)
        upset = self.turn & (random.random(n) < 0.5)
        mirrored = self.mirror & (random.random(n) < 0.5)
        row = self.sizes[image, 1] * self.channels
        first = self.starts[image] + top * row + left * self.channels
        down, right = np.where(turned, self.channels, row), np.where(turned, row, self.channels)
        first += np.where(upset, (size - 1) * down, 0) + np.where(mirrored, (size - 1) * right, 0)
        down, right = np.where(upset, -down, down), np.where(mirrored, -right, right)
        corner, below, beside = (
            torch.from_numpy(v).to(self.flat.device)[:, None, None, None]
            for v in (first, down, right)
        )
        along = torch.arange(size, device=self.flat.device)
        channel = torch.arange(self.channels, device=self.flat.device)[:, None, None]
        return self.flat[corner + channel + below * along[:, None] + beside * along]
