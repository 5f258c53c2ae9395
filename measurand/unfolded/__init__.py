"""Unfolded networks: iterations of fixed length, trained end to end with the physics inside."""

from .flow_proximal import FlowProximal, unfolding_loss
from .folds import (
    Fold,
    GainStep,
    GradientStep,
    ProximalStep,
    ShrinkStep,
    gradient_folds,
    proximal_folds,
)
from .posterior_score import Unfolded, UnfoldedDR, UnfoldedHQS, UnfoldedPGM
from .score_matching import posterior_loss

__all__ = [
    "FlowProximal",
    "Fold",
    "GainStep",
    "GradientStep",
    "ProximalStep",
    "ShrinkStep",
    "Unfolded",
    "UnfoldedDR",
    "UnfoldedHQS",
    "UnfoldedPGM",
    "gradient_folds",
    "posterior_loss",
    "proximal_folds",
    "unfolding_loss",
]
