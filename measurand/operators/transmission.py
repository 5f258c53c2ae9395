r"""From counts to attenuation: the arithmetic around a transmission tomograph.

A detector that counts F without the object and D in the dark counts I behind it, and by the law of
Beer and Lambert the line integrals of the attenuation mu along its lines are

    p = -ln((I - D) / (F - D)).

Of p, a tomograph (`tomography`) makes mu: in 1/mm where its pixels are in mm, in 1/pixel where
their side is 1. Hounsfield units compare mu with that of water,

    HU = 1000 (mu / mu_water - 1),

so air is -1000 and water 0 at any energy. Water has about 0.019 per mm at 70 keV, a common mean
energy of medical scanners.
"""

import math
import warnings
from typing import Any

import torch
from torch import Tensor

__all__ = ["attenuation", "hounsfield", "line_integrals"]


def line_integrals(counts: Any, flat: Any, dark: Any = 0.0, *, least: float = 0.5) -> Tensor:
    """Return the line integrals of attenuation behind detector counts, float32 without unit.

    `p = -ln((I - D) / (F - D))`. Where nothing is left of `I - D` (photon starvation, dead bins),
    the logarithm has no value: it is raised to `least`, and a warning says how often.

    Args:
        counts: Counts I behind the object, with shape (..., angles, detectors).
        flat: Counts F without it; one number, or of a shape that spreads to that of the counts,
            such as (detectors,). Several frames are averaged before.
        dark: Counts D without light, likewise.
        least: Counts above the dark that are certain at least: half a count, or the noise of the
            read-out.
    Raises:
        ValueError: Shapes do not fit, values are not finite, the flat field is nowhere well above
            the dark one, or the counts are above the flat field (exchanged?).
    """
    i, f, d = (_real(name, a) for name, a in (("counts", counts), ("flat", flat), ("dark", dark)))
    for name, field in (("flat", f), ("dark", d)):
        sizes = zip(field.shape[::-1], i.shape[::-1], strict=False)
        if field.ndim > i.ndim or any(n not in (1, m) for n, m in sizes):
            raise ValueError(
                f"line_integrals: got {name} of shape {tuple(field.shape)} and counts of shape "
                f"{tuple(i.shape)}, wanted one that spreads to them, such as ({i.shape[-1]},); of "
                f"several frames take the mean, {name}.mean(0)"
            )
    if not 0 < least < math.inf:
        raise ValueError(f"line_integrals: got least = {least}, wanted a positive count")
    light = torch.broadcast_to(f - d, i.shape)
    dead = int((light <= least).sum())
    if dead:
        raise ValueError(
            f"line_integrals: the flat field is {float(light.min()):.4g} to "
            f"{float(light.max()):.4g} above the dark one, at most {least:g} for {dead} of "
            f"{light.numel()} samples; wanted counts, more everywhere. Leave dead bins out; of "
            "data that are no counts say the smallest that can be measured (least)"
        )
    left = i - d
    low = int((left < least).sum())
    p = -torch.log(left.clamp(min=least) / light)
    if float(p.median()) < -0.1:
        raise ValueError(
            "line_integrals: most counts are above the flat field by 10 % and more; wanted less "
            "light behind the object than without it: are counts and flat field exchanged?"
        )
    if low:
        warnings.warn(
            f"line_integrals: {low} of {left.numel()} counts are less than {least:g} above the "
            f"dark, down to {float(left.min()):.4g}: raised to {least:g}, a line integral of "
            f"{float(p[left < least].mean()):.3g}; they carry no information (mask them, or count "
            "longer)",
            stacklevel=2,
        )
    return p.float()


def hounsfield(mu: Tensor, *, water: float) -> Tensor:
    """Return attenuation in Hounsfield units, `1000 (mu / water - 1)`.

    Args:
        mu: Linear attenuation, of any shape.
        water: That of water at the energy of the scan, in the unit of mu: 0.019 per mm at 70 keV.
    """
    return 1000 * (mu / _water("hounsfield", water) - 1)


def attenuation(hu: Tensor, *, water: float) -> Tensor:
    """Return the attenuation of Hounsfield units, `water (1 + hu / 1000)`: undoes `hounsfield`.

    Args:
        hu: Hounsfield units, of any shape.
        water: Attenuation of water, in the unit that is wanted.
    """
    return _water("attenuation", water) * (1 + hu / 1000)


def _water(name: str, water: float) -> float:
    if not 0 < water < math.inf:
        raise ValueError(
            f"{name}: got water = {water}, wanted its attenuation in the unit of the image, such "
            "as 0.019 per mm"
        )
    return water


def _real(name: str, values: Any) -> Tensor:
    tensor = torch.as_tensor(values)
    if tensor.is_complex() or not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"line_integrals: got {name} that are complex or not finite")
    return tensor.double()
