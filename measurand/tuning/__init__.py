"""Tuning: the settings of a method for a problem at hand.

settings     which there are, other values for them, and a file that holds them
objectives   what makes one better than another
search       where to look next
trials       `tune`: the best within a budget
"""

from .objectives import PSNR, SURE, Case, Discrepancy, Objective, ProjectedSURE
from .settings import Settings, read_settings, write_settings
from .trials import Trial, Tuned, tune

__all__ = [
    "PSNR",
    "SURE",
    "Case",
    "Discrepancy",
    "Objective",
    "ProjectedSURE",
    "Settings",
    "Trial",
    "Tuned",
    "read_settings",
    "tune",
    "write_settings",
]
