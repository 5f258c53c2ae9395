r"""Where a solver starts.

`first_guess` spreads the data back over the image and divides by how much of it each pixel saw,

    x = A^H y / A^H A 1,

the weighted average that one step of SIRT makes. For a blur it is the blurred image, for a block
average the nearest-neighbour enlargement, for a tomograph the normalised back-projection. Pixels
that saw (almost) nothing take their value from a coarser version of the same division, and that
one from a coarser one (push-pull interpolation), so that holes of any size fill smoothly. Where
the image is known to be empty (`LinearOperator.air`: coil maps that are zero outside the body)
nothing is filled in, and it stays zero. Where A does not see a constant at all (`A 1 = 0`:
differences, k-space without its centre) there is nothing to divide by, and the start is
`A^H y / ||A||^2`. Each item is treated by itself.

References:
    | Scattered Data Interpolation by push-pull: The Lumigraph (Gortler et al., 1996)
    | Simultaneous Iterative Reconstruction Technique (Gilbert, 1972)
"""

import torch
from torch import Tensor
from torch.nn import functional

from .measurement import Measurement
from .tensors import from_channels, per_item, to_channels

__all__ = ["first_guess"]

_SEEN = 0.1  # share of the best seen pixel from which a pixel counts as seen
_ROUNDING = 100.0  # times eps ||A||^2: what counts as not seen at all
_POOL = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}
_MODE = {1: "linear", 2: "bilinear", 3: "trilinear"}


@torch.no_grad()
def first_guess(measurement: Measurement) -> Tensor:
    """An image to start from, with the holes filled.

    Args:
        measurement: What was seen; linear.
    Returns:
        The image, with shape (B, *in_shape).
    """
    back, operator = measurement.adjoint_y, measurement.operator
    seen = operator.gram(torch.ones_like(back[: operator.batch]))
    seen = seen.real if seen.is_complex() else seen
    energy = per_item(torch.tensor([max(norm**2, 1e-30) for norm in operator.norms]), seen)
    peak = seen.flatten(1).amax(1).reshape(-1, *[1] * (seen.ndim - 1))
    # transforms leave some eps of a constant that A does not see
    blind = peak <= _ROUNDING * torch.finfo(seen.dtype).eps * energy
    quotient = (
        _damped(back, seen, peak)
        if operator.air() is not None
        else _divided(back, seen, peak, energy)
    )
    return torch.where(blind, back / energy, quotient) if bool(blind.any()) else quotient


def _damped(back: Tensor, seen: Tensor, peak: Tensor) -> Tensor:
    """The quotient `back / seen`, which falls to zero where little was seen."""
    tiny = torch.finfo(seen.dtype).tiny
    return back / seen.maximum(_SEEN * peak).clamp_min(tiny)


def _divided(back: Tensor, seen: Tensor, peak: Tensor, energy: Tensor) -> Tensor:
    """The quotient `back / seen` with the holes filled."""
    if bool((seen > _SEEN * peak).all()):
        return back / seen
    if back.ndim - 2 not in _POOL:
        whole = (seen > _SEEN * peak).flatten(1).all(1).reshape(peak.shape)
        return torch.where(whole, back / seen, back / energy)
    share = (seen / peak.clamp_min(torch.finfo(seen.dtype).tiny)).clamp_min(0)
    share = share.expand(back.shape)
    # what negative lobes of a kernel alone have reached, at the margins, was not seen
    back = torch.where(share > 0, back, 0)
    if back.is_complex():
        return from_channels(_fill(to_channels(back / peak), torch.cat((share, share), 1)))
    return _fill(back / peak, share)


def _fill(x: Tensor, seen: Tensor) -> Tensor:
    """The quotient `x / seen`, from coarser pixels where little was seen."""
    shape = x.shape[2:]
    if max(shape) == 1 or bool((seen > _SEEN).all()):
        return x / seen.clamp_min(torch.finfo(seen.dtype).tiny)
    whole = (seen > _SEEN).flatten(1).all(1).reshape(-1, *[1] * (seen.ndim - 1))
    halves = [2 if n > 1 else 1 for n in shape]
    pool = _POOL[len(shape)]
    coarse = _fill(pool(x, halves, ceil_mode=True), pool(seen, halves, ceil_mode=True))
    fine = functional.interpolate(coarse, size=shape, mode=_MODE[len(shape)], align_corners=False)
    # an item without holes is not smoothed because its neighbour has some
    return torch.where(whole, x / seen, (x + _SEEN**2 * fine) / (seen + _SEEN**2))
