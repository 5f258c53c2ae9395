"""What a measured file says: the data, the operator, the noise, and how to write an image.

`measured` reads the file of a measurement, `truth.truth_in` that of the true image behind it. Both
bring samples to the units in which the image lives in [-1, 1] (complex ones: to magnitudes near
1).
A file of several images is as many items of one measurement.
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

from ..data.arrays import ARRAYS
from ..data.files import read_stored
from ..data.form import Form, Stored
from ..data.ranges import Range, in_hounsfield
from ..measurement import Measurement
from ..noise_estimate import noise_seen
from ..noises import ComplexGaussian, Gaussian
from ..operators import SENSE, CartesianMRI, LinearOperator, ParallelCT
from ..operators.convolution import FramedBlur
from ..solvers import first_guess
from .arguments import build, build_for, counted, turned
from .holes import behind, without_holes
from .kspace import estimated, kspace_noise
from .mistakes import check_counts, check_level, check_selection, check_width, narrow, unmeasured
from .noise_kinds import Poisson
from .projections import attenuations, off_axis, projections, water_path
from .reading import Reading

__all__ = ["Measured", "magnitude", "measured", "noise_of", "operator_for"]

_HOLES = 0.5  # share of unmeasured data beyond which they do not tell their noise


def operator_for(
    twin: Any, shape: tuple[int, int, int] | None, stored: Stored
) -> tuple[LinearOperator, list[str]]:
    """The operator of images of a shape, or of the measurements of a file; and what it told.

    Args:
        twin: The operator as the command line knows it (`arguments.twins`).
        shape: Shape (C, H, W) of the image; None where it follows from the measurement.
        stored: The measurements.
    """
    given, notes = estimated(twin, stored.x, stored.name)
    seen = tuple(stored.x.shape[1:])
    if shape is not None:
        return build(counted(twin, seen), shape, given), notes
    return build_for(twin, seen, given), notes


class Measured(NamedTuple):
    """What a measured file says.

    Attributes:
        measurement: Data y = A x + noise of N items, of images in [-1, 1] or complex ones of
            magnitudes near 1.
        form: How to write images of this kind.
        notes: What was decided on the way.
        unit: Units of the file in one of y; of pictures 1.
        ct: Whether the images are in Hounsfield units.
    """

    measurement: Measurement
    form: Form
    notes: list[str]
    unit: float = 1.0
    ct: bool = False


def measured(
    file: str | Path,
    operator_of: Callable[[Stored], tuple[LinearOperator, list[str]]],
    how: Reading = Reading(),  # noqa: B008
    window_of: Callable[[LinearOperator, bool], Range | None] = lambda operator, ct: None,
) -> Measured:
    """What a measured file says of the images x behind it, which live in [-1, 1].

    Where samples u of an image have the range [low, high], so that `u = low + w (x + 1) / 2` with
    w = high - low, data `v = A u` are brought to `y = A x` by

        y = 2 v / w - (high + low) / w A 1,

    which for an operator of gain one is the same map as that of an image, and else is not. Data
    of another kind than images (`LinearOperator.pictures`) keep their values where no range is
    said: their images are in units of their own. Data that are NaN, or that the file or the user
    calls missing or saturated, are not measured: A has a mask behind it.

    Args:
        file: The file.
        operator_of: Makes the operator for the measurements of a file, and says what they told
            of it.
        how: What the user says of the file.
        window_of: Gives the range of the images in the domain of the prior of an operator and of
            images that are, or are not, in Hounsfield units; None where it has no unit. Asked when
            the file has been read.
    Raises:
        ValueError: File, operator and noise level do not fit; the message says in what.
    """
    stored, counted = read_stored(file), list[str]()
    if how.flat is not None:
        stored, counted = projections(stored, how.flat, how.dark)
    operator, told = operator_of(stored)
    if (how.flat or how.water) and not isinstance(operator, ParallelCT):
        raise ValueError(f"--flat and --water are for tomographs, {operator} is none")
    if stored.x.shape[1:] != operator.out_shape:
        raise ValueError(
            f"{file}: got a measurement of shape {tuple(stored.x.shape[1:])}, {operator} measures "
            f"{operator.out_shape}{turned(tuple(stored.x.shape[1:]), operator.out_shape)}"
        )
    if stored.x.is_complex() != operator.out_dtype.is_complex:
        kinds = ("real", "complex")
        raise ValueError(
            f"{file}: got {kinds[stored.x.is_complex()]} data, {operator} measures "
            f"{kinds[operator.out_dtype.is_complex]} ones"
            + (
                "; where an axis holds real and imaginary parts, save a[..., 0] + 1j * a[..., 1]"
                if operator.out_dtype.is_complex
                else ""
            )
        )
    if operator.batch not in (1, len(stored.x)):
        raise ValueError(
            f"{file}: got {len(stored.x)} measurements, and masks, maps or kernels of "
            f"{operator.batch}, wanted one for all or one for each; of several sets of coil maps "
            "(ESPIRiT) save the first, maps[0]"
        )
    if isinstance(operator, FramedBlur):
        check_width(operator, stored.name)
    check_selection(stored.name, stored.x, operator.observed(torch.ones_like(stored.x)) != 0)
    # what was not measured is not data, whatever stands there
    stored = replace(stored, x=operator.observed(stored.x))
    stored, operator, notes = without_holes(stored, operator, how)
    notes = [*counted, *told, *notes]
    if stored.x.is_complex():
        return _complex(file, stored, operator, how, notes)
    ct = how.water is not None or (
        operator.pictures
        and in_hounsfield(stored.x.numpy(), np.dtype(stored.form.dtype), stored.unit)
    )
    window, stated, shown_in = window_of(operator, ct), how.value_range, None
    if how.water is not None:
        stated, shown_in = attenuations(how.water, window)
    if not operator.pictures and window and not (stated or stored.range):
        raise ValueError(
            f"{file}: the prior is of images in Hounsfield units; say which values of the image "
            f"behind the data are {window[0]:g} and {window[1]:g} HU (--water MU, the attenuation "
            "of water in units of the image, or --value-range LOW HIGH), or take another prior "
            "(--prior total-variation)"
        )
    if operator.pictures:
        seen = operator.observed(torch.ones_like(stored.x)) != 0
        notes += narrow(stored.x, seen, how.value_range) + unmeasured(stored.x, seen)
    own = stated or stored.range or ((-1.0, 1.0) if not operator.pictures else None)
    picture = stored.image(own, window)
    form, notes = picture.form, [*picture.notes, *notes]
    ones = operator(torch.ones(len(picture.x), *operator.in_shape).to(operator.in_dtype))
    width = form.high - form.low
    y = operator.observed(picture.x + (form.high + form.low) / width * (1 - ones))
    if not operator.pictures:
        suffix = form.suffix if form.suffix in (*ARRAYS, ".tif", ".tiff") else ".tif"
        form = replace(form, suffix=suffix, dtype="<f4", further=0, alpha=None, template=None)
        shown = f"[{form.low:g}, {form.high:g}]"
        if shown_in is not None:
            form = replace(form, low=shown_in[0], high=shown_in[1])
            shown += ", written in Hounsfield units,"
        notes.append(
            f"data in units of their own; the image in {shown} is [-1, 1] to the prior, sigma is "
            "in units of the data (--value-range LOW HIGH says what the image's range is)"
        )
        notes += off_axis(operator, stored.x)
        if how.water is not None and isinstance(operator, ParallelCT):
            notes += water_path(operator, stored.x, how.water)
    scale = 1.0 if operator.pictures else 2 / width
    if isinstance(how.noise, Poisson):
        white = Measured(_white(operator, y, 2 / width), form, notes, 1 / scale, ct)
        return _counted(how.noise, stored, white)
    seen = operator.observed(torch.ones_like(y)) != 0
    if how.level is not None:
        if not operator.pictures or how.level > 1:  # of the range of 2
            said = "units of the data"
            if operator.pictures:
                said = "units in which the image is [-1, 1]: divide that of 255 by 127.5"
            check_level(stored.name, y, seen, scale * how.level, 1 / scale, said)
        return Measured(_white(operator, y, scale * how.level), form, notes, 1 / scale, ct)
    if float((~seen).float().mean()) > _HOLES:
        raise ValueError(f"--sigma: the noise of {operator} cannot be seen in the data; say it")
    estimate = noise_seen(y, seen)
    sigma = estimate.sigma
    if np.dtype(stored.form.dtype).kind == "u":  # rounding to whole samples is noise too
        sigma = sigma.clamp_min(2 / width / math.sqrt(12.0))
    ends = sorted({float(sigma.min()) / scale, float(sigma.max()) / scale})
    words = "noise estimated: sigma " + " to ".join(f"{end:.4g}" for end in ends)
    if operator.pictures:
        mean = " in the mean" if len(ends) > 1 else ""
        words += f" ({127.5 * float(sigma.mean()):.2g} of 255{mean})"
    notes.append(words)
    notes += [f"noise estimated: {doubt} (--sigma says it)" for doubt in estimate.doubts]
    seen_noise = sigma if len(y) > 1 else float(sigma)
    return Measured(_white(operator, y, seen_noise), form, notes, 1 / scale, ct)


def _white(operator: LinearOperator, y: Tensor, sigma: float | Tensor) -> Measurement:
    return Measurement(operator, noise_of(sigma, y), y)


def _counted(noise: Poisson, stored: Stored, found: Measured) -> Measured:
    """Data whose noise is that of counts, weighed so that it is white.

    What was found has as its level that of a sample of the file.
    """
    operator, y = found.measurement.operator, found.measurement.y
    seen = operator.observed(torch.ones_like(y)) != 0
    deviation = noise.deviation(stored.x, seen)
    check_counts(stored.name, noise, stored.x[seen], deviation[seen])
    least = float(deviation[seen].min())
    weights = torch.where(seen, least / deviation, 0.0).float()
    sigma = least * float(found.measurement.sigma)
    told = f"Poisson noise: sigma {least:.4g} to {float(deviation[seen].max()):.4g} samples"
    weighed = _white(behind(weights, operator), weights * y, sigma)
    return found._replace(measurement=weighed, notes=[*found.notes, told])


def _complex(
    file: str | Path, stored: Stored, operator: LinearOperator, how: Reading, notes: list[str]
) -> Measured:
    """Complex data, in units in which the images are as large as those of the priors."""
    picture = stored.image()
    if isinstance(how.noise, Poisson):
        raise ValueError("--noise poisson: complex data are no counts")
    level = how.level
    if level is None:
        level = kspace_noise(picture.x) if isinstance(operator, SENSE | CartesianMRI) else None
        if level is None:
            raise ValueError(
                f"--sigma: the noise of {operator} cannot be seen in the data; say it"
            )
        notes.append(f"noise estimated at the highest frequencies: sigma {level:.4g}")
    # in double precision: scanners have values whose squares single precision does not hold
    largest = float(picture.x.abs().max())
    if largest == 0:
        raise ValueError(f"{file}: every value that was measured is zero")
    y = picture.x / largest
    if how.level is not None:
        seen = operator.observed(torch.ones_like(y)) != 0
        check_level(stored.name, y, seen, level / largest, largest, "units of the file")
    size = magnitude(first_guess(Measurement(operator, ComplexGaussian(1.0), y)), stored.name)
    unit = largest * size
    told = [
        *picture.notes,
        *notes,
        f"divided by {unit:.4g}, so that the magnitudes of the image are near 1; the estimate is "
        "in the units of the file",
    ]
    form = replace(picture.form, unit=unit)
    return Measured(_white(operator, y / size, level / unit), form, told, unit)


def magnitude(x: Tensor, name: str) -> float:
    """Return the 99.5 % quantile of the magnitudes of complex images, their largest where it is 0.

    Args:
        x: The images.
        name: Their file, for the message.
    Raises:
        ValueError: They are zero everywhere.
    """
    sizes = x.abs().flatten()
    size = float(sizes.kthvalue(max(1, round(0.995 * sizes.numel()))).values) or float(sizes.max())
    if size == 0:
        raise ValueError(f"{name}: the image is zero everywhere")
    return size


def noise_of(sigma: float | Tensor, y: Tensor) -> Gaussian:
    """Gaussian noise for a real or a complex measurement."""
    return ComplexGaussian(sigma) if y.is_complex() else Gaussian(sigma)
