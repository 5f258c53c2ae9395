"""The package at work: `measurand demo`."""

from .run import demo
from .scenes import BlindScene, Scene, blind_scene, default_scenes, photograph

__all__ = ["BlindScene", "Scene", "blind_scene", "default_scenes", "demo", "photograph"]
