"""The knowledge: priors, as capabilities that a method asks for."""

from .conventions import (
    VE,
    FromFlow,
    FromImage,
    FromNoise,
    FromScore,
    FromVelocity,
    LinearVP,
    Straight,
    TableVP,
)
from .denoiser import (
    CallableDenoiser,
    Counted,
    Denoiser,
    Density,
    Latent,
    Proximable,
    Rescaled,
    Tiled,
    require,
    score,
)
from .gaussian import CosineGaussian, FourierGaussian, Gaussian
from .mixture import GaussianMixture

__all__ = [
    "CallableDenoiser",
    "CosineGaussian",
    "Counted",
    "Denoiser",
    "Density",
    "FourierGaussian",
    "FromFlow",
    "FromImage",
    "FromNoise",
    "FromScore",
    "FromVelocity",
    "Gaussian",
    "GaussianMixture",
    "Latent",
    "LinearVP",
    "Proximable",
    "Rescaled",
    "Straight",
    "TableVP",
    "Tiled",
    "VE",
    "require",
    "score",
]
