"""What happened to an image: kinds of measurements, from which training and benchmarks draw."""

from .random import (
    BrainCoils,
    Denoising,
    FourierLines,
    GaussianBlurs,
    MissingBox,
    MissingPixels,
    MotionBlurs,
    Problems,
    SuperResolution,
    drawn,
    problem_of,
)

__all__ = [
    "BrainCoils",
    "Denoising",
    "FourierLines",
    "GaussianBlurs",
    "MissingBox",
    "MissingPixels",
    "MotionBlurs",
    "Problems",
    "SuperResolution",
    "drawn",
    "problem_of",
]
