"""Unfolded networks: iterations of fixed length, trained end to end with the physics inside."""

from .flow_proximal import (
    FlowProximal,
    Fold,
    GainStep,
    GradientStep,
    ProximalStep,
    ShrinkStep,
    gradient_folds,
    proximal_folds,
    unfolding_loss,
)

__all__ = [
    "FlowProximal",
    "Fold",
    "GainStep",
    "GradientStep",
    "ProximalStep",
    "ShrinkStep",
    "gradient_folds",
    "proximal_folds",
    "unfolding_loss",
]
