"""What a measured file says: the data, the operator, the noise, and how to write an image.

`measured` reads the file of a measurement, `truth_in` that of the true image behind it. Both bring
samples to the units in which the image lives in [-1, 1] (complex ones: to magnitudes near 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.arrays import ARRAYS, split_key
from ..data.files import Form, Stored, read_image, read_stored
from ..measurement import Measurement
from ..noise_estimate import noise_seen
from ..noises import ComplexGaussian, Gaussian
from ..operators import LinearOperator
from ..solvers import first_guess
from .arguments import build, build_for

__all__ = ["Measured", "measured", "noise_of", "operator_for", "truth_in"]


def operator_for(
    twin: Any, shape: tuple[int, int, int] | None, seen: tuple[int, ...]
) -> LinearOperator:
    """The operator of images of a shape, or where none is said, of measurements of a shape.

    Args:
        twin: The operator as the command line knows it (`arguments.twins`).
        shape: Shape (C, H, W) of the image; None where it follows from the measurement.
        seen: Shape of one measurement.
    """
    return build(twin, shape) if shape is not None else build_for(twin, seen)


class Measured(NamedTuple):
    """What a measured file says.

    Attributes:
        operator: The operator A.
        y: The data as the image in [-1, 1] makes them, or a complex image of magnitudes near 1.
        sigma: Noise level of y.
        form: How to write an image of this kind.
        notes: What was decided on the way.
    """

    operator: LinearOperator
    y: Tensor
    sigma: float
    form: Form
    notes: list[str]


def measured(
    file: str | Path,
    operator_of: Callable[[tuple[int, ...]], LinearOperator],
    sigma: float | None,
    value_range: tuple[float, float] | None,
) -> Measured:
    """What a measured file says of the image x behind it, which lives in [-1, 1].

    Where samples u of an image have the range [low, high], so that `u = low + w (x + 1) / 2` with
    w = high - low, data `v = A u` are brought to `y = A x` by

        y = 2 v / w - (high + low) / w A 1,

    which for an operator of gain one is the same map as that of an image, and else is not. Data
    of another kind than images (`LinearOperator.pictures`) keep their values where no range is
    said, and sigma is in their units. Complex data are divided by the size of their image, the
    99.5 % quantile of the magnitudes of the initialization; `form` has it as its unit.

    Args:
        file: The measurement.
        operator_of: Gives the operator for the shape of one measurement.
        sigma: Noise level; estimated from the data when None.
        value_range: Samples of an image that mean black and white.
    Raises:
        ValueError: File, operator and noise level do not fit; the message says in what.
    """
    stored = read_stored(file)
    operator = operator_of(tuple(stored.x.shape[1:]))
    if stored.x.shape[1:] != operator.out_shape:
        raise ValueError(
            f"{file}: got a measurement of shape {tuple(stored.x.shape[1:])}, {operator} measures "
            f"{operator.out_shape}"
        )
    if stored.x.is_complex() != operator.out_dtype.is_complex:
        kinds = ("real", "complex")
        raise ValueError(
            f"{file}: got {kinds[stored.x.is_complex()]} data, {operator} measures "
            f"{kinds[operator.out_dtype.is_complex]} ones"
        )
    # what was not measured is not data, whatever stands there
    stored = replace(stored, x=operator.observed(stored.x))
    if stored.x.is_complex():
        return _complex(file, stored, operator, sigma)
    own = value_range or stored.range or ((-1.0, 1.0) if not operator.pictures else None)
    picture = stored.image(own)
    form, notes = picture.form, list(picture.notes)
    ones = operator(torch.ones(1, *operator.in_shape).to(operator.in_dtype))
    width = form.high - form.low
    y = operator.observed(picture.x + (form.high + form.low) / width * (1 - ones))
    scale = 1.0
    if not operator.pictures:
        scale = 2 / width
        suffix = form.suffix if form.suffix in (*ARRAYS, ".tif", ".tiff") else ".tif"
        form = replace(form, suffix=suffix, dtype="<f4", further=0, alpha=None)
        said = f"[{form.low:g}, {form.high:g}]"
        notes.append(
            f"data in units of their own; the image in {said} is [-1, 1] to the prior, sigma is "
            "in units of the data (--value-range LOW HIGH says what the image's range is)"
        )
    if sigma is not None:
        return Measured(operator, y, scale * sigma, form, notes)
    if not bool((operator.observed(torch.ones_like(y)) != 0).all()):
        raise ValueError(f"--sigma: the noise of {operator} cannot be seen in the data; say it")
    estimate = noise_seen(y)
    sigma = float(estimate.sigma)
    kept = np.dtype(stored.form.dtype)
    if kept.kind == "u":  # rounding to whole samples is noise too
        step = 1.0 if not operator.pictures else 2.0 / np.iinfo(kept).max
        sigma = max(sigma, scale * step / math.sqrt(12.0))
    told = f" ({127.5 * sigma:.2g} of 255)" if operator.pictures else ""
    notes.append(f"noise estimated: sigma {sigma / scale:.4g}{told}")
    notes += [f"noise estimated: {doubt} (--sigma says it)" for doubt in estimate.doubts]
    return Measured(operator, y, sigma, form, notes)


def _complex(
    file: str | Path, stored: Stored, operator: LinearOperator, sigma: float | None
) -> Measured:
    """Complex data, in units in which the image is as large as those of the priors."""
    picture = stored.image()
    if sigma is None:
        raise ValueError(f"--sigma: the noise of {operator} cannot be seen in the data; say it")
    # in double precision: scanners have values whose squares single precision does not hold
    largest = float(picture.x.abs().max())
    if largest == 0:
        raise ValueError(f"{file}: every value that was measured is zero")
    y = picture.x / largest
    guess = first_guess(Measurement(operator, ComplexGaussian(1.0), y)).abs().flatten()
    size = float(guess.kthvalue(max(1, round(0.995 * guess.numel()))).values) or 1.0
    unit = largest * size
    notes = [
        *picture.notes,
        f"divided by {unit:.4g}, so that the magnitudes of the image are near 1; the estimate is "
        "in the units of the file",
    ]
    return Measured(operator, y / size, sigma / unit, replace(picture.form, unit=unit), notes)


def truth_in(
    file: str | Path,
    measurement: Measured,
    measured_file: str | Path,
    *,
    said: tuple[float, float] | None,
    of_file: tuple[float, float] | None,
) -> tuple[Tensor, tuple[str, ...]]:
    """The true image behind a measurement, as much of it as lies in its frame, and notes.

    A real truth of complex images is one without a phase, as `simulate` measures it: metrics
    compare complex numbers.

    Args:
        file: The truth.
        measurement: What was made of the measured file: says the shape, the kind and the units.
        measured_file: The measured file.
        said: Samples of the truth that mean black and white; those of the measured file where
            None, if both are files of one kind or the data have units of their own.
        of_file: What was said of the measured file.
    Raises:
        ValueError: It is no image of this measurement.
    """
    operator, form = measurement.operator, measurement.form
    if said is None and not operator.pictures:
        said = form.low, form.high
    elif said is None and _kind(file) == _kind(measured_file):
        said = of_file
    picture = read_image(file, value_range=said)
    x, notes = picture.x, [f"truth: {note}" for note in picture.notes]
    if x.shape[1:] == operator.in_shape:
        x = operator.framed(x)
    inside = tuple(operator.framed(torch.empty(0, *operator.in_shape)).shape[1:])
    if x.shape[1:] != inside:
        beyond = "" if inside == operator.in_shape else f" or {operator.in_shape}"
        raise ValueError(
            f"{file}: got a truth of shape {tuple(x.shape[1:])}, wanted {inside}{beyond}"
        )
    if x.is_complex() and not operator.in_dtype.is_complex:
        raise ValueError(f"{file}: got a complex truth, the images of {operator} are real")
    if operator.in_dtype.is_complex and not x.is_complex():
        notes.append("truth: real, compared as a complex image of phase zero")
    return x.to(operator.in_dtype) / form.unit, tuple(notes)


def _kind(file: str | Path) -> str:
    return split_key(file)[0].suffix.lower()


def noise_of(sigma: float, y: Tensor) -> Gaussian:
    """Gaussian noise for a real or a complex measurement."""
    return ComplexGaussian(sigma) if y.is_complex() else Gaussian(sigma)
