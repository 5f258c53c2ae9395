"""The scenes of the demo: crops of pictures that ship with scikit-image, and their physics."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..domains.kernels import Kernels
from ..operators import (
    BicubicDownsample,
    GaussianBlur,
    LinearOperator,
    Mask,
    MotionBlur,
    random_mask,
)

__all__ = ["BlindScene", "Scene", "blind_scene", "default_scenes", "photograph"]

SHAPE = (3, 256, 256)


@dataclass(frozen=True)
class Photograph:
    """A square of a photograph, in which something happens to it.

    Args:
        title: Name of the problem.
        text: What happened, in words.
        photo: Name of the picture in `skimage.data`.
        corner: First row and column of the crop.
        zoom: Top, left and side of the square to look at closely, in pixels.
    """

    title: str
    text: str
    photo: str
    corner: tuple[int, int]
    zoom: tuple[int, int, int]


@dataclass(frozen=True)
class Scene(Photograph):
    """A photograph and what happened to it.

    Args:
        operator: The physics.
        sigma: Noise standard deviation, in image units.
    """

    operator: LinearOperator
    sigma: float


@dataclass(frozen=True)
class BlindScene(Photograph):
    """A photograph and an unknown kernel.

    Args:
        kernel: The kernel, which the methods do not see, with shape (h, w).
        side: Height and width of the support that they assume, in pixels.
        sigma: Noise standard deviation, in image units.
    """

    kernel: Tensor
    side: int
    sigma: float


def blind_scene() -> BlindScene:
    """The blind case of the demo: the path of a shaken camera."""
    path = Kernels(25).shakes(1, torch.Generator().manual_seed(3))[0]
    return BlindScene(
        "Camera shake, kernel unknown",
        "the blur kernel is found too, noise of 2.6 of 255",
        "coffee",
        (100, 150),
        (92, 100, 64),
        path / path.sum(),
        64,
        0.02,
    )


def default_scenes() -> list[Scene]:
    """The four scenes of the demo."""
    mask = random_mask((1, *SHAPE[1:]), 0.7)
    return [
        Scene(
            "Motion blur",
            "camera moved 17 pixels, noise of 1.3 of 255",
            "astronaut",
            (0, 88),
            (66, 96, 64),
            MotionBlur(SHAPE, 17.0, 0.6),
            0.01,
        ),
        Scene(
            "Out of focus, noisy",
            "Gaussian blur of sd 1.6 pixels, noise of 5 of 255",
            "chelsea",
            (22, 110),
            (60, 32, 64),
            GaussianBlur(SHAPE, 1.6),
            0.04,
        ),
        Scene(
            "Super-resolution x 4",
            "64 x 64 pixels measured, noise of 1.3 of 255",
            "coffee",
            (110, 190),
            (148, 140, 64),
            BicubicDownsample(SHAPE, 4),
            0.01,
        ),
        Scene(
            "70 % missing",
            "three pixels in ten measured, noise of 2.6 of 255",
            "rocket",
            (150, 190),
            (170, 84, 64),
            Mask(SHAPE, mask),
            0.02,
        ),
    ]


def photograph(name: str, corner: tuple[int, int]) -> Tensor:
    """A crop of a picture of `skimage.data`, with shape (1, 3, 256, 256) in [-1, 1]."""
    try:
        from skimage import data
    except ImportError as error:
        raise ImportError(
            "the demo needs scikit-image: install the extra, pip install 'measurand[demo]'"
        ) from error
    top, left = corner
    piece = getattr(data, name)()[top : top + SHAPE[1], left : left + SHAPE[2], :3]
    return torch.tensor(piece).permute(2, 0, 1)[None].float() / 127.5 - 1.0
