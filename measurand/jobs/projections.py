"""What comes to a tomograph's data at the door: counts, units of attenuation, the rotation axis.

    counts    `--flat` and `--dark` make line integrals of them (`operators.line_integrals`)
    units     `--water MU`, the attenuation of water in the units of the image (per mm where pixels
              are in mm), makes the image one in Hounsfield units
    axis      compared with what the data say (`operators.rotation_axis`)

What was decided is said in notes.
"""

import warnings
from dataclasses import replace

import torch

from ..data.arrays import ARRAYS
from ..data.files import read_array, read_stored
from ..data.form import Stored
from ..data.ranges import HOUNSFIELD, Range
from ..data.sources import split_key
from ..operators import LinearOperator, ParallelCT, line_integrals, rotation_axis
from ..operators.transmission import attenuation

__all__ = ["attenuations", "off_axis", "projections"]

_APART = 0.5  # bins that an axis may be off without a word


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
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        p = line_integrals(stored.x, fields[0], fields[1] if dark else 0.0)
    notes = [f"counts taken as line integrals, -ln((I - D) / (F - D)), F from {flat}"]
    form = replace(stored.form, dtype="<f4")
    return replace(stored, x=p.double(), form=form), notes + [str(w.message) for w in told]


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


def off_axis(operator: LinearOperator, y: torch.Tensor) -> list[str]:
    """Return a note where data are no line integrals, or have the rotation axis elsewhere.

    Args:
        operator: The tomograph.
        y: Line integrals, with shape (N, 1, angles, detectors).
    """
    if not isinstance(operator, ParallelCT):
        return []
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
