"""The package at work: `measurand demo`."""

from .run import demo
from .scenes import Scene, default_scenes, photograph

__all__ = ["Scene", "default_scenes", "demo", "photograph"]
