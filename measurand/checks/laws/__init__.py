"""The laws: what operators and priors must satisfy, as functions that users call on their own.

Each function returns the error it found, relative to the size of what it compared, so that a
caller decides what is small: rounding is about 1e-6 in float32 and 1e-14 in float64.
`operator_laws` and `prior_laws` run them all.
"""

from .law import Law
from .operators import (
    adjoint_error,
    independence_error,
    linearity_error,
    norm_error,
    operator_laws,
    prox_error,
    random_input,
    random_output,
    solve_error,
)
from .priors import gradient_error, minimum_error, normalization_error, prior_laws

__all__ = [
    "Law",
    "adjoint_error",
    "gradient_error",
    "independence_error",
    "linearity_error",
    "minimum_error",
    "norm_error",
    "normalization_error",
    "operator_laws",
    "prior_laws",
    "prox_error",
    "random_input",
    "random_output",
    "solve_error",
]
