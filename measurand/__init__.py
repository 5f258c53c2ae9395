"""Priors that know what images look like, married to the physics of a measurement."""

from . import noises, operators, schedules, tensors
from .measurement import Measurement

__version__ = "0.1.0"

__all__ = ["Measurement", "noises", "operators", "schedules", "tensors"]
