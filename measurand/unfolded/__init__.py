"""Networks whose layers are the steps of an optimisation method, with the physics inside."""

from .posterior_score import UnfoldedDR, UnfoldedHQS, UnfoldedPGM

__all__ = ["UnfoldedDR", "UnfoldedHQS", "UnfoldedPGM"]
