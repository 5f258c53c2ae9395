"""Priors that know what images look like, married to the physics of a measurement.

A measurement is `y = A(x) + noise`; a prior knows what images look like; a method marries the two
and returns the image, or draws of it:

    operator + noise + y  ->  Measurement
    denoiser | proximable | density  ->  prior
    method(measurement, prior)  ->  image(s)

The parts are imported when they are first used, so that `measurand --help` is there at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import (
        data,
        metrics,
        nets,
        noises,
        operators,
        priors,
        samplers,
        schedules,
        solvers,
        tensors,
        unfolded,
    )
    from .checkpoints import load, load_prior, save
    from .measurement import Measurement
    from .metrics import psnr, ssim

__version__ = "0.1.0"

__all__ = [
    "Measurement",
    "data",
    "load",
    "load_prior",
    "metrics",
    "nets",
    "noises",
    "operators",
    "priors",
    "psnr",
    "samplers",
    "save",
    "schedules",
    "solvers",
    "ssim",
    "tensors",
    "unfolded",
]

_HOMES = {
    "Measurement": "measurement",
    "load": "checkpoints",
    "load_prior": "checkpoints",
    "psnr": "metrics",
    "save": "checkpoints",
    "ssim": "metrics",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: Any = import_module(f".{_HOMES.get(name, name)}", __name__)
    if name in _HOMES:
        found = getattr(found, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
