r"""Filtered back-projection of parallel beams.

Filtered back-projection inverts A for many angles. With p the projections over half a turn,

    x = sum_theta w_theta (h * p_theta)(x cos(theta) + y sin(theta)),    sum_theta w_theta = pi,

and h the ramp filter limited to the bandwidth of the detector: `h[0] = 1 / (4 d^2)`,
`h[n] = -1 / (pi n d)^2` for n odd, 0 for n even, d the spacing. Sampling h in space, not |f| in
frequency, keeps the mean of the image right.

The weight of a view is the part of the half turn that is nearer to it than to any other view:
views that face each other see the same lines, so angles count modulo pi. A whole turn, a few
degrees too many, angles of any spacing and in any order therefore need no special case. A gap of
which nothing was measured (limited angle) is left to nobody.
"""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .tomography import ParallelCT, radians

__all__ = ["angular_weights", "cut_off", "fbp", "hann"]

_SAME = 1e-5  # radians; what differs by less is one direction
_NEAR = 4  # gaps on either side that a gap is compared with,
_GAP = 4.0  # and how many times the widest of them it is at least where views are missing
_END = 0.15  # of the height of views; what their ends are at most if the object is seen whole


def hann(frequency: Tensor) -> Tensor:
    """The Hann window over frequencies from 0 to 1 (half the sampling rate), `cos^2(pi f / 2)`."""
    return torch.cos(math.pi / 2 * frequency).square()


def angular_weights(angles: Any, *, degrees: bool = False) -> Tensor:
    """Return the part of the half turn that each view stands for, in radians.

    Half of the gaps to both neighbours, angles taken modulo pi; views of one direction share its
    part. A gap that is more than four times as wide as those around it was not measured, and
    counts as the widest of these: the sum is pi only where there is no such gap.

    Args:
        angles: Angles of the views, in radians, with shape (angles,), in any order.
        degrees: Whether the angles are degrees.
    Returns:
        The weights, with shape (angles,), float64.
    """
    angles = radians("angular_weights", torch.as_tensor(angles), degrees)
    half = np.mod(angles.double().cpu().numpy(), math.pi)
    half = np.where(half > math.pi - _SAME, half - math.pi, half)  # 0 and pi are one direction
    order = np.argsort(half, kind="stable")
    fresh = np.diff(half[order], prepend=-math.pi) > _SAME
    directions, group = half[order][fresh], np.cumsum(fresh) - 1
    gaps = np.diff(directions, append=directions[0] + math.pi)  # from each to the next
    around = [k for k in range(-_NEAR, _NEAR + 1) if k % len(gaps)]
    if around:
        widest = np.max([np.roll(gaps, k) for k in around], axis=0)
        gaps = np.where(gaps > _GAP * widest, widest, gaps)
    part = (gaps + np.roll(gaps, 1)) / 2 / np.bincount(group)
    weights = np.empty(len(half))
    weights[order] = part[group]
    return torch.from_numpy(weights)


def cut_off(y: Tensor) -> str:
    """Return what says that views do not see the whole object; empty where nothing does.

    Args:
        y: Projections, with shape (..., angles, detectors).
    """
    views = y.detach().double().reshape(-1, y.shape[-1])
    ends, high = (views[:, [0, -1]].mean(0), float(views.amax(1).mean()))
    if float(ends.abs().max()) <= _END * high or y.shape[-1] < 8:
        return ""
    return (
        f"views have {float(ends[0]):.3g} and {float(ends[1]):.3g} at the ends of the detector "
        f"and {high:.3g} at most; where this is no constant background, the object is cut off"
    )


def fbp(
    operator: ParallelCT, y: Tensor, *, window: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Filtered back-projection, in the units of the image.

    Views may have any angles (`angular_weights`); each has to see the whole object, and a warning
    says where they seem not to (a detector that covers one half, a region of interest): methods
    that solve for the image need less.

    Args:
        operator: The projector that measured y.
        y: Projections, with shape (B, C, angles, detectors).
        window: What the ramp is multiplied with, a function of the frequency in units of half
            the sampling rate, such as `hann`; the pure ramp when absent.
    Returns:
        The image, with shape (B, C, H, W).
    References:
        | Principles of Computerized Tomographic Imaging (Kak & Slaney, 1988), chapter 3
    """
    if y.shape[1:] != operator.out_shape:
        raise ValueError(
            f"fbp: got projections with shape {tuple(y.shape)}, wanted (B, "
            f"{', '.join(map(str, operator.out_shape))})"
        )
    if told := cut_off(y):
        warnings.warn(f"fbp: {told}, and the image is wrong around and beyond", stacklevel=2)
    size, d = 2 ** math.ceil(math.log2(2 * operator.detectors)), operator.spacing
    n = torch.arange(size, dtype=torch.float64)
    n = torch.minimum(n, size - n)
    h = torch.where(n % 2 == 1, -1 / (math.pi * n.clamp(min=1) * d) ** 2, 0.0)
    h[0] = 1 / (4 * d**2)
    ramp = torch.fft.rfft(h).real * d
    if window is not None:
        ramp = ramp * window(torch.linspace(0, 1, len(ramp), dtype=torch.float64))
    spectrum = torch.fft.rfft(y, n=size) * ramp.to(y.device, y.dtype)
    filtered = torch.fft.irfft(spectrum, n=size)[..., : operator.detectors]
    # a pixel's weights sum to pixel^2 / spacing in every projection
    weights = angular_weights(operator.angles) * d / operator.pixel**2
    return operator.adjoint(filtered * weights.to(y.device, y.dtype)[:, None])
