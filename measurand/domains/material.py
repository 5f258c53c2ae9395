"""What a domain gives to a training run: batches without end, and images held out.

A new domain is one file here: a frozen dataclass that says what its images are (`channels`,
`dtype`, `range`), and opens a user's files, or makes images itself.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..batches import Batch
from ..data.crops import Crops
from ..data.sources import folders_in
from ..files import sha256

__all__ = ["Domain", "Material", "OfFiles", "central", "generator_of", "parts"]

Paths = Sequence[str | os.PathLike[str]]
Images = list[NDArray[Any]]

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Material:
    """The images of one training run.

    Args:
        batch: (step, n, size) -> n items, a pure function: "x" images (n, C, size, size), where
            there are images, and what is aligned with them, or measurements.
        held_out: Items that are not trained on, each a batch of one: images of any size, or
            measurements.
        images: How many there are to train on; 0 where they are made without end.
        side: Height and width of a square that half of them hold; None where any size is made.
        digest: SHA-256 of the samples to train on; empty where images are made.
    """

    batch: Callable[[int, int, int], Batch]
    held_out: tuple[Batch, ...]
    images: int
    side: int | None = None
    digest: str = ""


class Domain(Protocol):
    """What the images of a prior are."""

    @property
    def channels(self) -> int:
        """Channels of an image; of a complex image 1, which a network sees as two."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """float32 or complex64."""
        ...

    @property
    def fixed_sum(self) -> float | None:
        """Sum over an image of what is above its ground, where all have one; see `EDMDenoiser`."""
        ...

    @property
    def facts(self) -> dict[str, Any]:
        """What the card says of values and units."""
        ...

    def look(self, path: Path, under: str = "", *, skip_bad: bool = False) -> list[Tensor]:
        """Returns the images of some files as a network sees them, centres of 256 pixels.

        Args:
            path: A folder, a zip or a file.
            under: Only what is in this folder of it; all when empty.
            skip_bad: Leave out files that cannot be read, with a warning.
        Returns:
            Images, each (1, C, H, W).
        """
        ...

    def open(
        self, data: Paths, held_out: Paths, *, seed: int, device: torch.device, skip_bad: bool
    ) -> Material:
        """Returns the images of some files to train on.

        Args:
            data: Folders, zips and files. Where one has a folder `train`, at its top or deeper
                beside `val` or `test`, only this one is used for training, and `val` is held out.
            held_out: Further files to hold out.
            seed: Chooses crops and everything random.
            device: Where the batches are made.
            skip_bad: Leave out files that cannot be read, with a warning.
        Raises:
            ValueError: There is no image in the data, or a folder or zip has folders named `val`
                or `test`, which are never trained on, and not one `train` beside them.
        """
        ...


class OfFiles(ABC):
    """A domain whose images are read from files: random crops, each symmetry as likely as another.

    What is left to say is how files are read, and what a stored sample means.
    """

    fixed_sum: ClassVar[float | None] = None
    turn: ClassVar[bool] = True  # whether crops are turned by quarters, and not only mirrored
    reads: ClassVar[str] = "images"  # what is in the files, for messages

    @abstractmethod
    def read(self, path: Path, under: str, skip_bad: bool = False) -> Images:
        """Returns the images of some files as they are stored, each (H, W) or (H, W, C)."""

    @abstractmethod
    def image(self, stored: Tensor, generator: torch.Generator | None) -> Tensor:
        """Returns stored crops (n, C, h, w) as images, augmented where there is a generator."""

    def look(self, path: Path, under: str = "", *, skip_bad: bool = False) -> list[Tensor]:
        """Returns the images of some files as a network sees them; see `Domain.look`."""
        return central(self, self.read(path, under, skip_bad))

    def open(
        self, data: Paths, held_out: Paths, *, seed: int, device: torch.device, skip_bad: bool
    ) -> Material:
        """Returns the images of some files to train on, and up to 16 spread over those held out.

        See `Domain.open`.
        """
        if not len(data):
            name = type(self).__name__
            raise ValueError(f"{name}: got no data, wants {self.reads} to train on (--data)")
        nothing = f"got no image to train on, wanted {self.reads}"
        training: Images = []
        kept: Images = [x for path in held_out for x in self.read(Path(path), "", skip_bad)]
        for path in map(Path, data):
            part, known = parts(path)
            found = self.read(path, part, skip_bad)
            if part and not found:
                raise ValueError(f"{path}: {nothing} in its folder '{part}'")
            training += found
            kept += self.read(path, known, skip_bad) if known else []
        if not training:
            raise ValueError(f"{', '.join(map(str, data))}: {nothing}")
        crops = Crops(training, seed=seed, turn=self.turn, device=device)

        def batch(step: int, n: int, size: int) -> Batch:
            return Batch({"x": self.image(crops(step, n, size), generator_of(seed, step, device))})

        spread = kept[:: max(1, len(kept) // 16)][:16]
        shown = (Batch({"x": x.to(device)}) for x in central(self, spread))
        side = int(np.median([min(x.shape[:2]) for x in training]))
        digest = sha256(
            "".join(f"{x.shape}{sha256(np.ascontiguousarray(x).data)}" for x in training)
        )
        return Material(batch, tuple(shown), len(training), side, digest)


def parts(path: Path) -> tuple[str, str]:
    """Returns the folders of a folder or zip to train on and to hold out, "" where there is none.

    A folder `train` counts at the top, and deeper where `val` or `test` lies beside it; what they
    have inside are names of classes. Capitals do not matter.

    Raises:
        ValueError: There are `val` or `test`, and no `train` beside, or several.
    """
    folders = [PurePosixPath(name) for name in folders_in(path)]
    named = {at: at.name.casefold() for at in folders if at.name.casefold() in PARTS}
    named = {at: name for at, name in named.items() if not any(p in named for p in at.parents)}
    beside = {at.parent for at, name in named.items() if name != "train"}
    training = [at for at, name in named.items() if name == "train"]
    training = [at for at in training if at.parent in beside or len(at.parts) == 1]
    if not training and not beside:
        return "", ""
    if len(training) != 1:
        met = ", ".join(f"'{at}'" for at in list(named)[:4])
        raise ValueError(
            f"{path}: has folders {met}, wanted one 'train' with those named 'val' and 'test' "
            "beside it; or say which to train on (--data) and which to hold out (--held-out)"
        )
    held_out = [at for at, n in named.items() if n == "val" and at.parent == training[0].parent]
    return str(training[0]), str(held_out[0]) if held_out else ""


def central(domain: OfFiles, stored: Images, size: int = 256) -> list[Tensor]:
    """Returns the central parts of stored images as images, each (1, C, h, w)."""
    shown = []
    for x in stored:
        top, left = (max(0, (n - size) // 2) for n in x.shape[:2])
        part = torch.tensor(x[top : top + size, left : left + size].copy())
        part = part if part.ndim == 3 else part[..., None]
        shown.append(domain.image(part.movedim(-1, 0)[None], None))
    return shown


def generator_of(
    seed: int, step: int, device: torch.device | str, *, stream: int = 0
) -> torch.Generator:
    """Returns the generator of one step: stream 0 for its images, 1 for what is done to them."""
    # hashed, because the generator of a CPU looks at the lower 32 bits of a seed alone
    state = np.random.SeedSequence((seed, stream, step)).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]))
