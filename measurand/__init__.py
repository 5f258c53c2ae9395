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
        methods,
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
    from .adapters import as_operator, as_prior
    from .checkpoints import load_prior, load_unfolded, load_weights, save_weights
    from .figures import compare, save_image, show
    from .measurement import Measurement
    from .metrics import psnr, ssim

__version__ = "0.1.0"

__all__ = [
    "Measurement",
    "as_operator",
    "as_prior",
    "compare",
    "data",
    "load_prior",
    "load_unfolded",
    "load_weights",
    "methods",
    "metrics",
    "nets",
    "noises",
    "operators",
    "priors",
    "psnr",
    "samplers",
    "save_image",
    "save_weights",
    "schedules",
    "show",
    "solvers",
    "ssim",
    "tensors",
    "unfolded",
]

_HOMES = {
    "Measurement": "measurement",
    "as_operator": "adapters",
    "as_prior": "adapters",
    "compare": "figures",
    "load_prior": "checkpoints",
    "load_unfolded": "checkpoints",
    "load_weights": "checkpoints",
    "psnr": "metrics",
    "save_image": "figures",
    "save_weights": "checkpoints",
    "show": "figures",
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
