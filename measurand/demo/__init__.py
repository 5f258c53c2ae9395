"""The package at work: `measurand demo`."""

from .run import demo
from .scenes import Problem, photograph, problems

__all__ = ["Problem", "demo", "photograph", "problems"]
