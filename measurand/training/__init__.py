"""Training: one loop for every trainable thing, and what it needs."""

from .ema import EMA
from .gradients import Gradients
from .loop import Plan, Progress, adamw, train
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
