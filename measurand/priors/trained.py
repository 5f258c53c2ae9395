"""`Trained`, the base of the networks that have weight files.

A file, a command and a recipe ask it for all that depends on the kind of network, and know no kind
by name: a new one is a class in a file of its own that its folder's `__init__` names.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .brief import weights_in
from .capabilities import Range

__all__ = [
    "Evaluation",
    "Exported",
    "Fitted",
    "Images",
    "Score",
    "Trained",
    "dtype_named",
    "images_named",
    "numbers",
]


class Images(NamedTuple):
    """The images of a problem, for which a prior is wanted.

    Attributes:
        shape: Shape (C, H, W) of one image.
        dtype: Their dtype, real or complex.
        by: What asks for them, such as an operator, for messages.
        range: Lowest and highest value.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    by: str = "the measurement"
    range: Range = (-1.0, 1.0)

    @property
    def grey(self) -> bool:
        """Whether they are real and have one channel."""
        return self.shape[0] == 1 and not self.dtype.is_complex


class Fitted(NamedTuple):
    """A prior for the images of a problem.

    Attributes:
        prior: What a method is given.
        notes: What was done to the network, a sentence each.
    """

    prior: Any
    notes: list[str]


class Score(NamedTuple):
    """How good a network is on some images.

    Attributes:
        name: The quantity: "psnr", "bits".
        words: What was measured, with its unit.
        values: The numbers, by noise level or by kind of problem.
    """

    name: str
    words: str
    values: dict[str, float]


class Exported(NamedTuple):
    """The learned part of a network, to run without Python; see `export`.

    Attributes:
        blocks: Denoisers (v, sigma) -> estimate on real channels, one for each learned step.
        channels: Number of the real channels.
        about: What else the program in `cpp/` has to know, as text.
    """

    blocks: Sequence[nn.Module]
    channels: int
    about: dict[str, str]


class Evaluation(Protocol):
    """Held-out images, and the ways to measure a network on them; see `training.HeldOut`."""

    def denoised(self, prior: Any) -> list[Score]:
        """Returns how well a denoiser removes noise of several levels."""
        ...

    def restored(
        self, network: "Trained", restore: Callable[[Any, torch.Generator], Tensor]
    ) -> list[Score]:
        """Returns how well images are restored from simulated measurements of them.

        Args:
            network: Says the kinds of problems, and their noise.
            restore: Makes an image of a measurement.
        """
        ...

    def each(
        self, name: str, words: str, value: Callable[[Tensor, torch.Generator], Tensor]
    ) -> list[Score]:
        """Returns the mean of a number over the images.

        Args:
            name: The quantity.
            words: What is measured, with its unit.
            value: The number of an image (1, C, H, W).
        """
        ...


class Trained(nn.Module, ABC):
    """A network with trained weights: what a weight file, a command and a recipe ask of it.

    Attributes:
        kind: The word by which a weight file names the class.
        storage: Precision of tensors on disk, but for those that `keeps` or `coded` names.
        any_operator: Whether operators other than those of its training are as well served.
        card: What is known of the weights: data, licence, training, results.
        channels: Channels of the images.
        dtype: Their dtype, real or complex.
    """

    kind: ClassVar[str]
    storage: ClassVar[torch.dtype] = torch.bfloat16
    any_operator: ClassVar[bool] = True

    card: dict[str, Any]
    channels: int
    dtype: torch.dtype

    @abstractmethod
    def to_card(self) -> dict[str, Any]:
        """Returns what it takes to build the network but for its weights, "kind" among it.

        Raises:
            TypeError: It has parts that a card cannot describe.
        """

    @classmethod
    @abstractmethod
    def from_card(cls, card: Mapping[str, Any]) -> "Trained":
        """Returns the network that a card describes, with untrained weights.

        Raises:
            ValueError, KeyError, TypeError: It is no card of this kind.
        """

    @classmethod
    @abstractmethod
    def summary(cls, card: Mapping[str, Any]) -> str:
        """Returns what the network of a card is, and how good, in a few words."""

    @abstractmethod
    def fitted(self, images: Images, *, tile: int = 1024, name: str = "") -> Fitted:
        """Returns a prior for the images of a problem.

        Args:
            images: What they are.
            tile: Larger images are shown to a denoiser in overlapping tiles of this size.
            name: What the network is called, for messages.
        Raises:
            ValueError: It knows nothing of such images; the message says why.
        """

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()}, {weights_in(self)})"

    def extra_repr(self) -> str:
        return f"channels={self.channels}, dtype={str(self.dtype).removeprefix('torch.')}"

    @property
    def weights(self) -> nn.Module:
        """The module whose tensors the file holds."""
        return self

    @property
    def fast(self) -> nn.Module | None:
        """The part that may run in bfloat16; None where all of it stays in its precision."""
        return None

    def keeps(self, name: str, x: Tensor) -> bool:
        """Returns whether a tensor of `weights` keeps its precision on disk."""
        return False

    def coded(self, name: str, x: Tensor) -> bool:
        """Returns whether a tensor of `weights` has 8 bits on disk; see `weights.quantized`."""
        return False

    @property
    def precision(self) -> torch.dtype:
        """Precision of the part that may run in bfloat16, or of all of it."""
        return next((self.fast or self).parameters()).dtype

    @property
    def evaluations(self) -> int:
        """Network evaluations of one call."""
        return 1

    @property
    def recipe(self) -> Mapping[str, Any]:
        """What the card says of the training; empty where it says nothing."""
        recipe = self.card.get("recipe")
        return recipe if isinstance(recipe, dict) else {}

    @property
    def window(self) -> tuple[float, float] | None:
        """Range of the images in Hounsfield units; None where they have no unit."""
        ends = self.card.get("window")
        return (float(ends[0]), float(ends[1])) if isinstance(ends, list | tuple) else None

    @property
    def problems(self) -> tuple[str, ...]:
        """The kinds of measurement problems that it was trained on, as the card writes them."""
        return ()

    def remarks(self, measurement: Any, x: Tensor) -> dict[str, float]:
        """Returns what the network can say of an image that was made with it, numbers by name.

        Args:
            measurement: What was seen.
            x: The image, with shape (B, C, H, W).
        """
        return {}

    def quality(self, on: Evaluation) -> list[Score]:
        """Returns how good the network is on held-out images.

        Raises:
            ValueError: There is no way to measure it.
        """
        raise ValueError(
            f"evaluate: there is no measure of the quality of a {type(self).__name__}"
        )

    def exported(self) -> Exported:
        """Returns the part that can run without Python.

        Raises:
            ValueError: There is none, or the program in `cpp/` does not know it.
        """
        raise ValueError(f"export: got {type(self).__name__}, wants UnfoldedDR or a prior")

    def matched(self, images: Images, name: str, *, grey: bool) -> bool:
        """Returns whether images are grey, to be shown to the network as several equal channels.

        Args:
            images: What they are.
            name: What the network is called, for messages.
            grey: Whether it can be shown grey images at all.
        Raises:
            ValueError: They are of another kind, or have other channels.
        """
        kinds = ("real", "complex")
        if images.dtype.is_complex != self.dtype.is_complex:
            raise ValueError(
                f"--prior {name} knows {kinds[self.dtype.is_complex]} images with "
                f"{self.channels} channels, {images.by} asks for "
                f"{kinds[images.dtype.is_complex]} ones; use --prior total-variation or a prior "
                "of these"
            )
        if self.channels == images.shape[0]:
            return False
        if not (images.grey and grey):
            advice = "; for a grey image use --prior natural-color --method hqs"
            raise ValueError(
                f"--prior {name} knows images with {self.channels} channels, {images.by} asks "
                f"for {images.shape[0]}{advice if images.grey else ''}"
            )
        return True


def dtype_named(name: str) -> torch.dtype:
    """Returns the dtype of images that a card names."""
    return {"float32": torch.float32, "complex64": torch.complex64}[name]


def images_named(channels: int, dtype: str | None = None) -> str:
    """Returns words for the images of a card."""
    if dtype == "complex64":
        return "complex images" if channels == 1 else f"complex images with {channels} channels"
    words = {1: "grey images", 3: "color images"}
    return words.get(channels, f"images with {channels} channels")


def numbers(values: Any) -> str:
    """Returns numbers as text, separated by spaces, from which they come back bit for bit."""
    flat = torch.as_tensor(values, dtype=torch.float64).flatten().tolist()
    return " ".join(f"{x:.17g}" for x in flat)
