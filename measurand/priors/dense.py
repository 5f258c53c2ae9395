"""Dense matrices of small operators: what exact answers are made of."""

import math

import torch
from torch import Tensor

from ..operators.base import LinearOperator

__all__ = ["affordable", "apply", "columns", "matrix"]

_LARGEST = 2**27  # entries of a dense matrix: 1 GB in float64


def matrix(operator: LinearOperator, dtype: torch.dtype = torch.float64) -> Tensor:
    """The dense matrix of an operator between flattened images.

    Args:
        operator: The operator; small.
        dtype: Kind and precision in which to build it: that of the operator's images. Where the
            images are real and the data complex, the data become pairs of real numbers.
    Returns:
        The matrix, with shape (1 or B, m, n): one per item where the operator has one per item.
    """
    if dtype.is_complex != operator.in_dtype.is_complex:
        raise ValueError(f"matrix: got images of {dtype} for {operator}")
    if dtype.is_complex and not operator.out_dtype.is_complex:
        raise ValueError(f"matrix: {operator} is not linear over the complex numbers")
    n = math.prod(operator.in_shape)
    affordable(n, math.prod(operator.out_shape))
    eye = torch.eye(n, dtype=dtype, device=operator.blank_input().device)
    eye = eye.reshape(n, *operator.in_shape)
    rows = [columns(operator[i].forward(eye), dtype) for i in range(operator.batch)]
    return torch.stack(rows).mT


def columns(y: Tensor, dtype: torch.dtype) -> Tensor:
    """Data as vectors over the field of the images, with shape (B, m)."""
    if y.is_complex() and not dtype.is_complex:
        y = torch.view_as_real(y.contiguous())
    return y.flatten(1).to(dtype)


def apply(matrix: Tensor, x: Tensor) -> Tensor:
    """The products of a batch of vectors (B, n) with one matrix, or with one per item."""
    if len(matrix) == 1:
        return x @ matrix[0].mT
    return (matrix @ x.unsqueeze(-1)).squeeze(-1)


def affordable(n: int, m: int) -> int:
    """The size n, after a check that an n x m matrix may be built."""
    if n * m > _LARGEST:
        raise ValueError(
            f"a dense {n} x {m} matrix is too large; posterior_mean and posterior_sample do "
            "without one"
        )
    return n
