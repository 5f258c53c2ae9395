"""Training: one loop for every trainable thing, and what it needs."""

from .ema import EMA
from .gradients import Gradients
from .loop import Progress, adamw, train
from .plan import Plan
from .quality import HeldOut, calibration, denoising_psnr, restoration_psnr

__all__ = [
    "EMA",
    "Gradients",
    "HeldOut",
    "Plan",
    "Progress",
    "adamw",
    "calibration",
    "denoising_psnr",
    "restoration_psnr",
    "train",
]
