"""Penalties: priors of a formula and a weight, `g(x) = weight phi(x)`, with a proximal map.

Whether the command line can name a prior is said by the prior: `not_by_name` is empty, and then
`--prior total-variation:2.5` is `TotalVariation(weight=2.5)`; or it says in words why not.
"""

from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

__all__ = ["Penalty"]


@runtime_checkable
class Penalty(Protocol):
    """Knows its term of the objective, `value(x)` with shape (B,), and the map `prox(v, tau)`.

    Attributes:
        not_by_name: Why the command line cannot name it; empty where it can.
        approximate: Whether `prox` is an approximation of the proximal map of `value`.
        weight: Factor of the penalty.
    """

    not_by_name: ClassVar[str]

    @classmethod
    def usual_weight(cls, noise: float, determined: float) -> float:
        """Return the weight where nobody says one.

        Args:
            noise: Standard deviation of the noise as it stands in the image.
            determined: Share of the image that the data determine, 1 for plain denoising.
        """
        ...

    @property
    def approximate(self) -> bool: ...

    @property
    def weight(self) -> float: ...

    def value(self, x: Tensor) -> Tensor: ...

    def prox(self, v: Tensor, tau: float | Tensor) -> Tensor: ...
