"""What it is that a law was put to an object and how it came out."""

from typing import NamedTuple

__all__ = ["Law"]


class Law(NamedTuple):
    """One law put to an object.

    Attributes:
        name: What was checked.
        error: The relative error found.
        limit: The largest error that passes.
    """

    name: str
    error: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the error is within the limit (a NaN is not)."""
        return self.error <= self.limit
