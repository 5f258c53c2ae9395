"""Neural networks as plain functions: no physics, no noise levels but their input."""

from .autoencoder import ConvAutoencoder
from .glow import Glow
from .unet import ConvUNet

__all__ = ["ConvAutoencoder", "ConvUNet", "Glow"]
