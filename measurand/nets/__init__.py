"""Neural networks as plain functions: no physics, no noise levels but their input."""

from .unet import ConvUNet

__all__ = ["ConvUNet"]
