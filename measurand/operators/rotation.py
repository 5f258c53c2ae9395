r"""Where the rotation axis of a tomograph is seen on its detector, found from the projections.

Seen from the axis (`tomography`), an object that lies within the distance R of it has projections
p(theta, s) whose Fourier transform over s is, at the frequency omega, a trigonometric polynomial
in theta: degrees |k| > omega R decay faster than exponentially (the double wedge of a sinogram).
And a view from the other side is the mirror image. Measured about the middle of the detector, q,
with the axis at a,

    P(theta) = q(theta) e^{i omega a},    P(theta + pi) = conj(P(theta)),

so only at the right a do the measured views and their mirror images together lie in the space of
these polynomials. With r the part of the stacked (q e^{i omega a}, conj(q) e^{-i omega a}) outside
of that space,

    norm(r)^2 = const + 2 Re(e^{-2 i omega a} z),

where z does not depend on a: the sum over frequencies is a trigonometric polynomial in a, whose
smallest value is found on a grid and refined. Angles may have any spacing, over half a turn or a
whole one. A constant background of a view has no such frequencies and does no harm.

References:
    | Reliable method for calculating the center of rotation in parallel-beam tomography (Vo et
      al., 2014), which measures the double wedge of evenly spaced views
    | doi 10.1364/OE.22.019078
"""

import math
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .fbp import cut_off
from .tomography import radians

__all__ = ["rotation_axis"]

Array = NDArray[Any]
_DEGREE = 128  # of the polynomials at most: more frequencies add little and take long
_GAP = math.radians(20)


def rotation_axis(sinogram: Any, angles: Any, *, degrees: bool = False) -> float:
    """Return where the rotation axis is seen, in bins from the middle of the detector.

    That is what `ParallelCT(axis=...)` takes. Every view has to see the whole object, the axis be
    in the middle half of the detector, and the angles leave no gap wider than 20 degrees
    (modulo 180).

    Args:
        sinogram: Line integrals (not counts), with shape (..., angles, detectors): all slices
            have the same axis.
        angles: Angles of the views, in radians, with shape (angles,).
        degrees: Whether the angles are degrees.
    Raises:
        ValueError: Shapes do not fit, values are not finite, or views are too few.
    """
    p = np.asarray(torch.as_tensor(sinogram).detach().cpu().double())
    theta = radians("rotation_axis", torch.as_tensor(angles), degrees).double().cpu().numpy()
    if p.ndim < 2 or theta.ndim != 1 or p.shape[-2] != len(theta):
        turned = "; transpose them?" if p.shape[-1:] == theta.shape else ""
        raise ValueError(
            f"rotation_axis: got projections of shape {p.shape} and angles of shape "
            f"{theta.shape}, wanted (..., angles, detectors) and (angles,){turned}"
        )
    if not (np.isfinite(p).all() and np.isfinite(theta).all()):
        raise ValueError("rotation_axis: got projections or angles that are not finite")
    _span(theta)
    if told := cut_off(torch.from_numpy(p)):
        warnings.warn(f"rotation_axis: {told}, and the axis may be wrong", stacklevel=2)
    n = p.shape[-1]
    q = np.fft.fft(p.reshape(-1, *p.shape[-2:]), axis=-1)
    omega = 2 * math.pi / n * np.arange(n // 2)
    q = q[..., : n // 2] * np.exp(1j * omega * (n - 1) / 2)  # about the middle of the detector
    views = np.concatenate([theta, theta + math.pi])
    # an orthonormal basis of all degrees; its first columns are one of the lower degrees
    most = min(_DEGREE, int(0.75 * len(theta)))
    powers = [0, *(k for degree in range(1, most + 1) for k in (degree, -degree))]
    upper, lower = np.split(np.linalg.qr(np.exp(1j * np.outer(views, powers)))[0], 2)
    z = np.zeros(n // 2, complex)
    for m in range(1, n // 2):
        x = omega[m] * n / 2
        degree = math.ceil(x + x ** (1 / 3) + 1)
        if degree > most:
            break
        size = 2 * degree + 1
        seen = q[..., m] @ upper[:, :size].conj()
        mirrored = q[..., m].conj() @ lower[:, :size].conj()
        z[m] = -(seen.conj() * mirrored).sum()
    if not z.any():
        raise ValueError(
            f"rotation_axis: got {len(theta)} views, wanted at least 12 that see something"
        )
    return _smallest(z, omega, n)


def _smallest(z: Array, omega: Array, n: int) -> float:
    """Return the a in [-n / 4, n / 4] of the smallest Re(sum_m z_m e^{-2 i omega_m a})."""

    def cost(a: Array) -> Array:
        return (np.exp(-2j * np.outer(a, omega)) @ z).real

    best, step = 0.0, 0.5
    near = np.arange(-n / 4, n / 4 + step, step)
    while step > 1e-4:
        best = float(near[np.argmin(cost(near))])
        near = best + step * np.linspace(-1, 1, 21)
        step /= 10
    return best


def _span(theta: Array) -> None:
    """Checks that views, taken modulo half a turn, leave no wide gap."""
    half = np.sort(np.mod(theta, math.pi))
    gap = float(np.diff(half, append=half[0] + math.pi).max())
    if gap > _GAP:
        raise ValueError(
            f"rotation_axis: got views that leave a gap of {math.degrees(gap):.3g} degrees, "
            f"wanted {math.degrees(_GAP):.3g} at most (modulo 180): the axis can "
            "hardly be told from a shift of the object"
        )
