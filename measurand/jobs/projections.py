"""What comes to a tomograph's data at the door: counts, units of attenuation, the rotation axis.

    counts    `--flat` and `--dark` make line integrals of them (`operators.line_integrals`)
    units     `--water MU`, the attenuation of water in the units of the image (per mm where pixels
              are in mm), makes the image one in Hounsfield units
    signs     line integrals that are negative, and bins or views of zeros, are said
    angles    compared with the moments of the data (`checks.questions.projections`)
    axis      compared with what the data say (`operators.rotation_axis`)

What was decided is said in notes.
"""

import warnings
from dataclasses import replace

import torch
from torch import Tensor

from ..checks.questions.projections import angles
from ..checks.questions.verdict import FITS
from ..data.arrays import ARRAYS
from ..data.files import read_array, read_stored
from ..data.form import Stored
from ..data.ranges import HOUNSFIELD, Range
from ..data.sources import split_key
from ..measurement import Measurement
from ..operators import LinearOperator, ParallelCT, line_integrals, rotation_axis
from ..operators.transmission import attenuation

__all__ = ["attenuations", "off_axis", "other_angles", "projections", "water_path"]

_APART = 0.5  # bins that an axis may be off without a word
_COUNT = 0.5  # what less than is no light
_SOME = 2**22  # line integrals that are looked at
_MOST_DEAD = 0.25  # share of the bins of a detector that is still one


def projections(stored: Stored, flat: str, dark: str | None) -> tuple[Stored, list[str]]:
    """Return the line integrals behind the counts of a file, and what was decided.

    Args:
        stored: The counts, with shape (N, 1, angles, detectors).
        flat: File of the counts without the object; several frames are averaged.
        dark: File of the counts without light; None where they are zero.
    """
    if stored.x.is_complex() or stored.missing:
        raise ValueError(f"{stored.name}: --flat is for counts that are real and complete")
    fields = [_field(name) for name in (flat, dark) if name]
    f, d = fields[0], fields[1] if dark else torch.zeros(())
    x, f, dead = _without_dead(stored.x, f, d)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        p = line_integrals(x, f, d)
    p[dead] = torch.nan
    notes = [f"counts taken as line integrals, -ln((I - D) / (F - D)), F from {flat}"]
    form = replace(stored.form, dtype="<f4")
    notes += [str(w.message) for w in told]
    if bool(dead.any()):
        bins = int(dead.any(-2).sum())
        notes.append(f"{bins} bins of the detector without light in any view: not measured")
    return replace(stored, x=p.double(), form=form), notes


def _without_dead(x: Tensor, f: Tensor, d: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Counts and flat field with any light where a bin has none in all views, and where that is.

    Counts that are dead everywhere, or do not fit to the fields, are left to `line_integrals`.
    """
    none = torch.zeros_like(x, dtype=torch.bool)
    try:
        dark = torch.broadcast_to(d.double(), x.shape)
        light = torch.broadcast_to(f.double(), x.shape) - dark
    except RuntimeError:
        return x, f, none
    dead = ((light < _COUNT) | (x - dark < _COUNT)).all(-2, keepdim=True).expand(x.shape)
    if not 0 < float(dead.double().mean()) < _MOST_DEAD:
        return x, f, none
    return torch.where(dead, dark + 1, x), torch.where(dead, dark + 1, dark + light), dead


def _field(name: str) -> torch.Tensor:
    """The mean of the frames of a field, in samples as they are stored."""
    if split_key(name)[0].suffix.lower() in ARRAYS:
        field = torch.as_tensor(read_array(name)).double()
    else:
        field = read_stored(name).x.double().mean((0, 1))  # not in the range of a picture
    return field.mean(0) if field.ndim == 3 or (field.ndim == 2 and len(field) > 1) else field


def attenuations(water: float, window: Range | None) -> tuple[Range, Range]:
    """Return the range of images in attenuations, and the same in Hounsfield units.

    Args:
        water: Attenuation of water.
        window: Range of the prior's images in Hounsfield units; None for the usual one.
    """
    if not 0 < water < float("inf"):
        raise ValueError(f"--water: got {water:g}, wanted the attenuation of water, above 0")
    low, high = window or HOUNSFIELD.range or (0.0, 1.0)
    ends = [float(attenuation(torch.tensor(hu), water=water)) for hu in (low, high)]
    return (ends[0], ends[1]), (low, high)


def water_path(operator: ParallelCT, y: Tensor, water: float) -> list[str]:
    """Return a note where the attenuation of water can hardly be in the unit of the pixels.

    Args:
        operator: The tomograph.
        y: Line integrals, with shape (N, 1, angles, detectors).
        water: Attenuation of water, per unit of `operator.pixel`.
    """
    longest = float(torch.quantile(y.double().flatten()[-_SOME:], 0.999)) / water
    wide = operator.detectors * operator.spacing
    if 0.1 * wide <= longest <= 2 * wide:
        return []
    return [
        f"the data go up to the attenuation of {longest:.3g} of water, and the detector is "
        f"{wide:.3g} wide, in units of --operator.pixel: is --water per the same unit? (it is "
        "about 0.02 per mm, 0.2 per cm)"
    ]


def off_axis(operator: LinearOperator, y: torch.Tensor) -> list[str]:
    """Return notes where data are no line integrals, lack some, or have the axis elsewhere.

    Args:
        operator: The tomograph.
        y: Line integrals, with shape (N, 1, angles, detectors).
    """
    if not isinstance(operator, ParallelCT):
        return []
    return [*_unlikely(y), *_off_axis(operator, y)]


def other_angles(measurement: Measurement) -> list[str]:
    """Return a note where the projections cannot be those of an image from these angles.

    Args:
        measurement: Line integrals of N images, the middle one of which is asked.
    """
    middle = len(measurement) // 2
    verdict = angles(measurement[middle : middle + 1])
    return [f"angles: {verdict.found}; {verdict.advice}"] if verdict.verdict != FITS else []


def _unlikely(y: Tensor) -> list[str]:
    """Notes on line integrals (N, 1, angles, detectors) that are negative, or lack some."""
    notes = []
    typical = float(y.abs().median())
    if float((y < -0.5 * typical).double().mean()) > 0.4:
        notes.append(
            "most line integrals are negative, as ln(I / F) is; those of an attenuation are "
            "-ln(I / F): save -a"
        )
    zero = y == 0
    for axis, what in ((-2, "bins of the detector"), (-1, "views")):
        dead = zero.all(axis).flatten(0, -2).all(0)
        inside = dead.nonzero().flatten()
        live = (~dead).nonzero().flatten()
        if not len(inside) or not len(live):
            continue
        if axis == -2:  # what lies beyond the object is zero, too
            inside = inside[(inside > live[0]) & (inside < live[-1])]
        if 0 < len(inside) < 0.2 * len(dead):
            shown = ", ".join(str(int(k)) for k in inside[:4])
            notes.append(
                f"{what} that are zero everywhere among others that are not, {len(inside)}: "
                f"number {shown}; if they were not measured, save NaN there, or name a mask of "
                "the others (--seen)"
            )
    return notes


def _off_axis(operator: ParallelCT, y: Tensor) -> list[str]:
    profile = y.double().flatten(0, -2).mean(0)
    outer, third = max(1, len(profile) // 20), len(profile) // 3
    edge = float(torch.cat((profile[:outer], profile[-outer:])).mean())
    if edge > 0 and edge > 1.5 * float(profile[third : len(profile) - third].mean()):
        return [
            "the data are larger at the ends of the detector than in its middle, as counts and "
            "transmissions I / F are: line integrals are -ln(I / F); for counts say --flat FILE, "
            "for transmissions save -np.log(a)"
        ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = rotation_axis(y, operator.angles)
    except (ValueError, UserWarning):  # the views cannot tell
        return []
    if abs(found - operator.axis) <= _APART:
        return []
    return [
        f"the rotation axis is seen {found:.2f} bins from the middle of the detector, not "
        f"{operator.axis:g}: --operator.axis {found:.2f}"
    ]
