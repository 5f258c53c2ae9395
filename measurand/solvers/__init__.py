"""Solvers: one estimate of the image."""

from ..start import first_guess
from .blind import BlindEdges, BlindTV
from .blind_hqs import BlindHQS
from .flow import FlowUnfolding
from .gradient import FISTA, PGM, RED, GradientRED
from .latent import RELD, EncodedRELD
from .levels import Annealed, Constant, Level, noise_in_image
from .posterior import PosteriorMean
from .splitting import ADMM, HQS

__all__ = [
    "ADMM",
    "FISTA",
    "HQS",
    "PGM",
    "RED",
    "RELD",
    "PosteriorMean",
    "Annealed",
    "BlindEdges",
    "BlindHQS",
    "BlindTV",
    "Constant",
    "EncodedRELD",
    "FlowUnfolding",
    "GradientRED",
    "Level",
    "first_guess",
    "noise_in_image",
]
