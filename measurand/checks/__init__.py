"""Checks: what every operator and prior must satisfy, and whether those of a problem fit."""

from .blind import check_blind
from .compatibility import check_fit
from .laws import (
    Law,
    adjoint_error,
    gradient_error,
    independence_error,
    linearity_error,
    minimum_error,
    norm_error,
    normalization_error,
    operator_laws,
    prior_laws,
    prox_error,
    solve_error,
)
from .questions import Verdict, fits

__all__ = [
    "Law",
    "Verdict",
    "adjoint_error",
    "check_blind",
    "check_fit",
    "fits",
    "gradient_error",
    "independence_error",
    "linearity_error",
    "minimum_error",
    "norm_error",
    "normalization_error",
    "operator_laws",
    "prior_laws",
    "prox_error",
    "solve_error",
]
