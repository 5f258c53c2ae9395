"""The package at work: `measurand demo`."""

from .run import demo
from .scenes import Scene, photograph, scenes

__all__ = ["Scene", "demo", "photograph", "scenes"]
