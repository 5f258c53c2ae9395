"""The knowledge: priors, as capabilities that a method asks for."""

from .autoencoder import Autoencoder
from .capabilities import Denoiser, Density, Latent, Posterior, Proximable, Restorer, require
from .codes import CodedImages, CountedLatent, PixelCode
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
from .denoiser import CallableDenoiser, score
from .diffusers import from_diffusers, latent_from_diffusers
from .edm import EDMDenoiser
from .flow import FlowPrior, bits_per_dim, dequantization, latent_moments
from .flow_prox import FlowGain, FlowMAP, FlowShrink, ImageMAP
from .gaussian import Gaussian
from .grey import Grey
from .latent import LatentPrior
from .mixture import GaussianMixture
from .penalty import Penalty
from .spectral import CosineGaussian, FourierGaussian
from .trained import Trained
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
from .wrappers import Conditioned, Counted, CountedPosterior, Rescaled, Tiled

__all__ = [
    "ANISOTROPIC",
    "Autoencoder",
    "CallableDenoiser",
    "ClosedFormTotalVariation",
    "CodedImages",
    "Conditioned",
    "CosineGaussian",
    "Counted",
    "CountedLatent",
    "CountedPosterior",
    "Denoiser",
    "Density",
    "EDMDenoiser",
    "FlowPrior",
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
    "ImageMAP",
    "Latent",
    "LatentPrior",
    "FlowGain",
    "FlowMAP",
    "FlowShrink",
    "LinearVP",
    "Penalty",
    "PixelCode",
    "Posterior",
    "Proximable",
    "Rescaled",
    "Restorer",
    "Straight",
    "TableVP",
    "Tiled",
    "TotalVariation",
    "Trained",
    "VE",
    "Variation",
    "VariationInfo",
    "Wavelets",
    "bits_per_dim",
    "dequantization",
    "from_diffusers",
    "latent_from_diffusers",
    "latent_moments",
    "require",
    "score",
    "tv_norm",
    "tv_prox",
    "tv_prox_exact",
]
