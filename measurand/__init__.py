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
        checks,
        data,
        domains,
        jobs,
        methods,
        metrics,
        nets,
        noises,
        operators,
        priors,
        problems,
        recipes,
        samplers,
        schedules,
        shift,
        solvers,
        tensors,
        training,
        tuning,
        unfolded,
        weights,
    )
    from .adapters import as_operator, as_prior
    from .blind import BlindMeasurement
    from .figures import compare, save_image, show
    from .jobs.restore import restore
    from .measurement import Measurement
    from .metrics import psnr, ssim
    from .weights.store import load, load_prior, save

__version__ = "0.1.0"

__all__ = [
    "BlindMeasurement",
    "Measurement",
    "as_operator",
    "as_prior",
    "checks",
    "compare",
    "data",
    "domains",
    "jobs",
    "load",
    "load_prior",
    "methods",
    "metrics",
    "nets",
    "noises",
    "operators",
    "priors",
    "problems",
    "psnr",
    "recipes",
    "restore",
    "samplers",
    "save",
    "save_image",
    "schedules",
    "shift",
    "show",
    "solvers",
    "ssim",
    "tensors",
    "training",
    "tuning",
    "unfolded",
    "weights",
]

_HOMES = {
    "BlindMeasurement": "blind",
    "Measurement": "measurement",
    "as_operator": "adapters",
    "as_prior": "adapters",
    "compare": "figures",
    "load": "weights.store",
    "load_prior": "weights.store",
    "psnr": "metrics",
    "restore": "jobs.restore",
    "save": "weights.store",
    "save_image": "figures",
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
