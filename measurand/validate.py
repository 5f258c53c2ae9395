"""Checks of the numbers that a method holds, for the `__post_init__` of its dataclass.

Each takes the method and names of its fields, and raises a `ValueError` that names the field, its
value and what was wanted. Numbers are bounded so that single precision holds their squares: noise
levels become variances. A field that holds None has been left to the method and passes, which the
type of the field allows or not. How fields must stand to each other (levels that fall) is seen
when they are used: a search changes them one by one.
"""

import math
from collections.abc import Callable

__all__ = ["count", "not_negative", "positive", "share"]

LEAST, MOST = 1e-18, 1e18


def count(owner: object, *names: str) -> None:
    """The fields are whole numbers, at least 1."""
    _check(owner, names, lambda n: n == int(n) and n >= 1, "a whole number, at least 1")


def positive(owner: object, *names: str) -> None:
    """The fields are numbers above zero, from 1e-18 to 1e18."""
    wanted = f"a positive number, from {LEAST:g} to {MOST:g}"
    _check(owner, names, lambda x: LEAST <= x <= MOST, wanted)


def not_negative(owner: object, *names: str) -> None:
    """The fields are numbers, zero or above, at most 1e18."""
    _check(owner, names, lambda x: 0 <= x <= MOST, f"a number >= 0, at most {MOST:g}")


def share(owner: object, *names: str, zero: bool = True) -> None:
    """The fields are numbers from 0 to 1; with `zero` False, above 0."""
    wanted = "a number from 0 to 1" if zero else "a number above 0, at most 1"
    _check(owner, names, lambda x: 0 <= x <= 1 and (zero or x > 0), wanted)


def _check(
    owner: object, names: tuple[str, ...], fits: Callable[[float], bool], wanted: str
) -> None:
    for name in names:
        value = getattr(owner, name)
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and fits(value)):
            raise ValueError(f"{type(owner).__name__}: got {name} = {value!r}, wanted {wanted}")
