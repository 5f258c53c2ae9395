"""The physics: linear operators, one file per kind of measurement."""

from .base import Adjoint, Composed, Identity, LinearOperator, Scaled, Stacked

__all__ = ["Adjoint", "Composed", "Identity", "LinearOperator", "Scaled", "Stacked"]
