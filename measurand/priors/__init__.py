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
    CountedPosterior,
    Denoiser,
    Density,
    Latent,
    Posterior,
    Proximable,
    Rescaled,
    Tiled,
    require,
    score,
)
from .diffusers import from_diffusers
from .edm import EDMDenoiser
from .gaussian import CosineGaussian, FourierGaussian, Gaussian
from .grey import Grey
from .mixture import GaussianMixture
from .variation import (
    ANISOTROPIC,
    ISOTROPIC,
    ClosedFormTotalVariation,
    TotalVariation,
    Variation,
    VariationInfo,
    tv_norm,
    tv_prox,
    tv_prox_exact,
)
from .wavelets import Wavelets

__all__ = [
    "ANISOTROPIC",
    "CallableDenoiser",
    "ClosedFormTotalVariation",
    "CosineGaussian",
    "Counted",
    "CountedPosterior",
    "Denoiser",
    "Density",
    "EDMDenoiser",
    "FourierGaussian",
    "FromFlow",
    "FromImage",
    "FromNoise",
    "FromScore",
    "FromVelocity",
    "Gaussian",
    "GaussianMixture",
    "Grey",
    "ISOTROPIC",
    "Latent",
    "LinearVP",
    "Posterior",
    "Proximable",
    "Rescaled",
    "Straight",
    "TableVP",
    "Tiled",
    "TotalVariation",
    "VE",
    "Variation",
    "VariationInfo",
    "Wavelets",
    "from_diffusers",
    "require",
    "score",
    "tv_norm",
    "tv_prox",
    "tv_prox_exact",
]
