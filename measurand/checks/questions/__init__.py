"""The questions of `compatibility`, each a function of what it needs, and their verdicts.

A verdict says what was found and what was wanted, and what to do about it where it does not fit.
"""

from .verdict import DOUBTFUL, FITS, NOT, Verdict, fits

__all__ = ["DOUBTFUL", "FITS", "NOT", "Verdict", "fits"]
