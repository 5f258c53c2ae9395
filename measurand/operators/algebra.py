r"""Sums and normal operators: what `A + B`, `A - B`, `-A` and `A.N` are.

    (A + B) x = A x + B x,    (A + B)^H y = A^H y + B^H y
    A.N = A^H A,              which is its own adjoint

Products, multiples and stacks of operators are in `base`, since every operator has them.
"""

from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from .base import Identity, LinearOperator, Scaled, _Wrapping

__all__ = ["Normal", "Sum"]


class Sum(_Wrapping):
    """The sum of operators between the same spaces.

    Args:
        operators: The terms; multiples and differences are terms with a factor (`A - 2 * B`).
    """

    def __init__(self, *operators: LinearOperator) -> None:
        if not operators:
            raise ValueError("Sum: got no operators, wanted at least one")
        first = operators[0]
        spaces = (first.in_shape, first.out_shape, first.in_dtype, first.out_dtype)
        for other in operators[1:]:
            if (other.in_shape, other.out_shape, other.in_dtype, other.out_dtype) != spaces:
                raise ValueError(f"Sum: {first} and {other} are between different spaces")
        super().__init__(*spaces)
        self._hold(*operators)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([part.forward(x) for part in self.inner]).sum(0)

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.stack([part.adjoint(y) for part in self.inner]).sum(0)

    def observed(self, y: Tensor) -> Tensor:
        # measured is what any of the terms sees
        ones = torch.ones_like(y)
        seen = torch.stack([part.observed(ones) != 0 for part in self.inner]).any(0)
        return torch.where(seen, y, torch.zeros_like(y))

    @classmethod
    def example(cls) -> Self:
        return cls(Identity((2, 3, 4)), Scaled(Identity((2, 3, 4)), -3.0))


class Normal(_Wrapping):
    """The normal operator `A^H A`, computed as the operator computes it (`gram`).

    Args:
        operator: The operator A.
    """

    def __init__(self, operator: LinearOperator) -> None:
        super().__init__(
            operator.in_shape, operator.in_shape, operator.in_dtype, operator.in_dtype
        )
        self._hold(operator)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner[0].gram(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner[0].gram(y)

    @cached_property
    def norms(self) -> list[float]:
        return [norm**2 for norm in self.inner[0].norms]

    @cached_property
    def norm(self) -> float:
        return max(self.norms)

    @classmethod
    def example(cls) -> Self:
        return cls(Scaled(Identity((1, 3, 4)), -0.5))
