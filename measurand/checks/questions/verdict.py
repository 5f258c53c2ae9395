"""What a question is answered with: a verdict, what was found, and what to do about it."""

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["DOUBTFUL", "FITS", "NOT", "Verdict", "fits"]

FITS, DOUBTFUL, NOT = "fits", "doubtful", "does not fit"


class Verdict(NamedTuple):
    """The answer to one question.

    Attributes:
        name: What was asked.
        verdict: "fits", "doubtful" or "does not fit".
        found: What was found, and what was wanted.
        advice: What to do about it; empty where it fits.
    """

    name: str
    verdict: str
    found: str
    advice: str = ""


def fits(verdicts: Sequence[Verdict]) -> bool:
    """Whether nothing was found that does not fit; doubts are allowed."""
    return all(v.verdict != NOT for v in verdicts)
