"""Random crops of many images, from one flat tensor on the device that trains.

Nothing is decoded, and nothing is copied between memories while training: pixel (i, j) of crop k
is read at

    start[image k] + (top_k + i') row[image k] + (left_k + j') channels,

with (i', j') the symmetry of the square that was drawn for k. The crops of a step are a pure
function of (seed, step): a run that is resumed sees what it would have seen. Aligned images, such
as a photograph and a radar image of one place, are cut at the same places.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["AlignedCrops", "Crops"]

Images = Sequence[NDArray[np.generic]]


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
        images: Images,
        *,
        seed: int = 0,
        turn: bool = True,
        mirror: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        self.pixels = Pixels(images, device)
        self.places = Places(self.pixels.sizes, seed, turn, mirror)

    def __len__(self) -> int:
        return len(self.pixels.sizes)

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
        return self.pixels.cut(self.places(step, n, size), size)


class AlignedCrops:
    """Random square crops of several aligned images, each cut at the same places.

    What has a direction of its own, such as a field of vectors, is not to be turned or mirrored.

    Args:
        images: By name, as many images each; the k-th of all have one height and width. Types
            and channels may differ from name to name.
        seed: Chooses the whole sequence, that of `Crops`.
        turn: Also swap rows and columns, and turn upside down.
        mirror: Also mirror left and right.
        device: Where the pixels lie.
    Raises:
        ValueError: Images of one name differ in type or channels, or those of two names in
            number or size.
    """

    def __init__(
        self,
        images: Mapping[str, Images],
        *,
        seed: int = 0,
        turn: bool = True,
        mirror: bool = True,
        device: torch.device | str = "cpu",
    ) -> None:
        self.pixels = {name: Pixels(each, device) for name, each in images.items()}
        first, *others = self.pixels
        sizes = self.pixels[first].sizes
        for name in others:
            if not np.array_equal(self.pixels[name].sizes, sizes):
                raise ValueError(
                    f"AlignedCrops: got images {first!r} of sizes {sizes.tolist()} and {name!r} "
                    f"of {self.pixels[name].sizes.tolist()}, wanted the same"
                )
        self.places = Places(sizes, seed, turn, mirror)

    def __len__(self) -> int:
        return len(self.places.sizes)

    def __call__(self, step: int, n: int, size: int) -> dict[str, Tensor]:
        """Returns the crops of one step by name, each with shape (n, C, size, size)."""
        places = self.places(step, n, size)
        return {name: pixels.cut(places, size) for name, pixels in self.pixels.items()}


class Place(NamedTuple):
    """Where crops are cut: image, first row and column, and the symmetry, with shape (n,) each."""

    image: NDArray[Any]
    top: NDArray[Any]
    left: NDArray[Any]
    turned: NDArray[Any]
    upset: NDArray[Any]
    mirrored: NDArray[Any]


class Places:
    """Random places of crops in images of given sizes (images, 2)."""

    def __init__(self, sizes: NDArray[Any], seed: int, turn: bool, mirror: bool) -> None:
        self.sizes, self.seed, self.turn, self.mirror = sizes, seed, turn, mirror

    def __call__(self, step: int, n: int, size: int) -> Place:
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
        return Place(image, top, left, turned, upset, mirrored)


class Pixels:
    """The pixels of many images, one flat tensor."""

    def __init__(self, images: Images, device: torch.device | str) -> None:
        kinds = {(image.dtype.name, *image.shape[2:]) for image in images}
        if len(kinds) != 1:
            raise ValueError(
                f"Crops: got {len(images)} images of the kinds {sorted(kinds)}, wants at least "
                "one image, and one type and number of channels"
            )
        self.sizes = np.array([image.shape[:2] for image in images])
        self.channels = images[0].shape[2] if images[0].ndim == 3 else 1
        lengths = self.sizes.prod(1) * self.channels
        self.starts = np.concatenate(([0], lengths.cumsum()[:-1]))
        flat = np.concatenate([image.reshape(-1) for image in images])
        self.flat = torch.from_numpy(flat).to(device)

    def cut(self, at: Place, size: int) -> Tensor:
        """Returns the crops at some places, with shape (n, C, size, size)."""
        row = self.sizes[at.image, 1] * self.channels
        first = self.starts[at.image] + at.top * row + at.left * self.channels
        down = np.where(at.turned, self.channels, row)
        right = np.where(at.turned, row, self.channels)
        first += np.where(at.upset, (size - 1) * down, 0)
        first += np.where(at.mirrored, (size - 1) * right, 0)
        down, right = np.where(at.upset, -down, down), np.where(at.mirrored, -right, right)
        corner, below, beside = (
            torch.from_numpy(v).to(self.flat.device)[:, None, None, None]
            for v in (first, down, right)
        )
        along = torch.arange(size, device=self.flat.device)
        channel = torch.arange(self.channels, device=self.flat.device)[:, None, None]
        return self.flat[corner + channel + below * along[:, None] + beside * along]
