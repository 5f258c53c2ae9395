"""Blurs of a camera by name: `ValidBlur` with the kernel of a Gaussian or of a motion."""

from typing import Self

from .base import Shape
from .boundaries import ValidBlur
from .kernels import gaussian_kernel, motion_kernel

__all__ = ["ValidGaussianBlur", "ValidMotionBlur"]


class ValidGaussianBlur(ValidBlur):
    """Blur by a Gaussian, as a camera sees it: the scene goes on beyond the frame.

    Args:
        shape: Shape (C, H, W) of one image, margins included.
        sigma: Standard deviation of the kernel, in pixels.
        size: Side of the kernel, in pixels; four deviations to each side when absent.
    """

    command = "gaussian-blur"

    def __init__(self, shape: Shape, sigma: float, size: int | None = None) -> None:
        super().__init__(shape, gaussian_kernel(sigma, size))

    @classmethod
    def image_shape(  # type: ignore[override]
        cls, y_shape: Shape, sigma: float, size: int | None = None
    ) -> Shape:
        return ValidBlur.image_shape(y_shape, gaussian_kernel(sigma, size))

    @classmethod
    def example(cls) -> Self:
        return cls((2, 8, 7), 0.6, 3)


class ValidMotionBlur(ValidBlur):
    """Blur by a straight motion, as a camera sees it: the scene goes on beyond the frame.

    Args:
        shape: Shape (C, H, W) of one image, margins included.
        length: Distance travelled during the exposure, in pixels.
        angle: Direction, in radians from the horizontal axis, counter-clockwise on the screen.
    """

    command = "motion-blur"

    def __init__(self, shape: Shape, length: float, angle: float = 0.0) -> None:
        super().__init__(shape, motion_kernel(length, angle))

    @classmethod
    def image_shape(  # type: ignore[override]
        cls, y_shape: Shape, length: float, angle: float = 0.0
    ) -> Shape:
        return ValidBlur.image_shape(y_shape, motion_kernel(length, angle))

    @classmethod
    def example(cls) -> Self:
        return cls((1, 8, 9), 4.5, 0.6)
