r"""Point spread functions: what a bright point becomes.

A kernel is a small real array `k` with sum one, shape (h, w), whose centre is the pixel
`(h // 2, w // 2)`; a blur is `y[i] = sum_m k[m] x[i - (m - centre)]`. Each is the integral of a
continuous profile, so that widths and lengths may be any positive number of pixels:

    Gaussian   exp(-r^2 / (2 sigma^2)), sampled
    disk       1 for r <= radius, by the share of each pixel that the disk covers
    motion     a straight segment travelled at constant speed, each point spread over its four
               neighbours by linear interpolation
"""

import math

import torch
from torch import Tensor

__all__ = ["disk_kernel", "gaussian_kernel", "motion_kernel"]

_LARGEST = 2047  # side of a kernel: wider than any picture's blur, and made in seconds


def gaussian_kernel(sigma: float | Tensor, size: int | None = None) -> Tensor:
    """A Gaussian kernel, `exp(-r^2 / (2 sigma^2))` cut to a square and normalised.

    Args:
        sigma: Standard deviation, in pixels; one value, or one per item with shape (B,).
        size: Side of the square, in pixels; the odd number that reaches four deviations when
            absent.
    Returns:
        The kernel, with shape (size, size), or (B, 1, size, size) for one per item. Differentiable
        in `sigma`.
    """
    width = sigma if isinstance(sigma, Tensor) else torch.tensor(float(sigma))
    _require("gaussian_kernel", "sigma", width)
    if width.ndim > 1:
        raise ValueError(
            f"gaussian_kernel: got sigma with shape {tuple(width.shape)}, wanted () or (B,)"
        )
    side = 2 * math.ceil(4 * float(width.detach().max())) + 1 if size is None else size
    t = _positions(side, width.device)
    profile = torch.exp(-0.5 * (t / width.double()[..., None]) ** 2)
    profile = profile / profile.sum(-1, keepdim=True)
    kernel = profile[..., :, None] * profile[..., None, :]
    if width.ndim == 1:
        kernel = kernel[:, None]
    return kernel.to(width.dtype if width.is_floating_point() else torch.float32)


def disk_kernel(radius: float, size: int | None = None) -> Tensor:
    """A uniform disk: the blur of a lens out of focus.

    Args:
        radius: Radius of the disk, in pixels.
        size: Side of the square, in pixels; the smallest odd number that holds the disk when
            absent.
    Returns:
        The kernel, with shape (size, size).
    """
    _require("disk_kernel", "radius", torch.tensor(float(radius)))
    side = 2 * math.ceil(radius - 0.5) + 1 if size is None else size
    fine = 32  # lines per pixel, along each of which the covered share is exact
    t, kernel = _positions(side), torch.zeros(side, side, dtype=torch.float64)
    for line in range(fine):
        half = (radius**2 - (t + (line + 0.5) / fine - 0.5) ** 2).clamp_min(0).sqrt()[:, None]
        kernel += (torch.minimum(half, t + 0.5) - torch.maximum(-half, t - 0.5)).clamp_min(0)
    kernel = kernel + kernel.mT
    return (kernel / kernel.sum()).float()


def motion_kernel(length: float, angle: float = 0.0, size: int | None = None) -> Tensor:
    """A straight motion at constant speed.

    Args:
        length: Distance travelled during the exposure, in pixels.
        angle: Direction, in radians from the horizontal axis, counter-clockwise on the screen.
        size: Side of the square, in pixels; the smallest odd number that holds the path when
            absent.
    Returns:
        The kernel, with shape (size, size), symmetric about its centre.
    """
    _require("motion_kernel", "length", torch.tensor(float(length)))
    _require("motion_kernel", "angle", torch.tensor(abs(float(angle)) + 1.0))
    half = length / 2 * max(abs(math.cos(angle)), abs(math.sin(angle)))
    side = 2 * math.ceil(half) + 1 if size is None else size
    middle = -int(_positions(side)[0])
    points = 64 * math.ceil(length)
    path = ((torch.arange(points, dtype=torch.float64) + 0.5) / points - 0.5) * length
    rows, columns = middle - path * math.sin(angle), middle + path * math.cos(angle)
    kernel = torch.zeros(side, side, dtype=torch.float64)
    for i, j in ((rows.floor() + m, columns.floor() + n) for m in (0, 1) for n in (0, 1)):
        share = (1 - (rows - i).abs()) * (1 - (columns - j).abs())
        inside = (i >= 0) & (i < side) & (j >= 0) & (j < side)
        at = i[inside].long(), j[inside].long()
        kernel.index_put_(at, share[inside], accumulate=True)
    kernel = (kernel + kernel.flip(0, 1)) / 2 if side % 2 else kernel
    if not kernel.sum() > 0:
        raise ValueError(f"motion_kernel: size {size} holds no part of a path of {length} pixels")
    return (kernel / kernel.sum()).float()


def _positions(size: int, device: torch.device | None = None) -> Tensor:
    if not 1 <= size <= _LARGEST:
        raise ValueError(f"kernel: got a size of {size} pixels, wanted 1 to {_LARGEST}")
    return torch.arange(size, dtype=torch.float64, device=device) - size // 2


def _require(function: str, name: str, value: Tensor) -> None:
    if not bool(((value > 0) & value.isfinite()).all()):
        raise ValueError(
            f"{function}: got {name} = {value.tolist()}, wanted a positive, finite number"
        )
