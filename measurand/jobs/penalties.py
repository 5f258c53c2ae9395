"""Priors that need no weight file: `--prior total-variation`, `wavelets:2.5`.

They appear because they are listed in `priors.__all__`, under the name of their class; a prior
that the command line cannot make says why (`not_by_name`).
"""

from functools import cache
from pathlib import Path
from typing import Any

import torch

from .. import priors
from ..measurement import Measurement
from ..priors import Penalty
from ..solvers.levels import determined, noise_in_image
from .arguments import kebab

__all__ = ["penalty_named", "usual_weight"]


@cache
def by_name() -> dict[str, Any]:
    """Return the classes of priors by their name on the command line."""
    classes = {kebab(name): getattr(priors, name) for name in priors.__all__}
    return {name: cls for name, cls in classes.items() if hasattr(cls, "not_by_name")}


def penalty_named(text: str) -> tuple[type[Any], float | None] | None:
    """Return the prior that a text such as `wavelets:2.5` names, and its weight where it is said.

    Args:
        text: What was given as --prior.
    Returns:
        The class of a `Penalty` and the weight; None where the text names no class of
        `measurand.priors`, and is the name of weights or of a file.
    Raises:
        ValueError: The command line cannot make this prior, or the weight is no number.
    """
    name, _, number = text.partition(":")
    cls = by_name().get(name)
    if cls is None or (cls.not_by_name and Path(text).exists()):
        return None
    if cls.not_by_name:
        raise ValueError(f"--prior {text}: {cls.__name__} {cls.not_by_name}")
    try:
        return cls, float(number) if number else None
    except ValueError as error:
        raise ValueError(f"--prior {text}: wanted {name} or {name}:WEIGHT") from error


def usual_weight(kind: type[Penalty], measurement: Measurement) -> float:
    """Return the weight of a penalty where nobody says one, see `Penalty.usual_weight`.

    The noise is that in the image (`solvers.noise_in_image`), and at least 0.001; the share of the
    image that data determine is `solvers.levels.determined`.

    Args:
        kind: The class of the penalty.
        measurement: What was seen, with Gaussian noise.
    """
    noise = torch.as_tensor(noise_in_image(measurement))
    return kind.usual_weight(max(float(noise.max()), 1e-3), determined(measurement))
