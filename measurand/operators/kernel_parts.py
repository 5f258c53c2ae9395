"""What of an estimated kernel is kernel: its noise cut away, its loose specks, its centre."""

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["centred", "noise_of", "two_pixels", "without_specks"]


def without_specks(k: Tensor, share: float) -> Tensor:
    """Return a kernel without small values and without loose specks.

    Args:
        k: An estimate, with shape (h, w).
        share: Values below this share of the largest are cut.
    Returns:
        A kernel of sum one, in its place; its connected parts have a tenth of the sum each, or it
        is the largest part alone. Two equal pixels in the middle where no value is positive.
    """
    k = torch.where(k >= share * k.max(), k.clamp_min(0), 0.0)
    if not bool(k.sum() > 0):
        return two_pixels(k.shape[-1]).to(k)
    part = _parts(k > 0)
    light = torch.zeros(int(part.max()) + 1).to(k).index_add(0, part.flatten(), k.flatten())
    least = min(0.1 * float(k.sum()), float(light.max()))  # of specks alone the largest stays
    k = torch.where(light[part] >= least, k, 0.0)
    return k / k.sum()


def noise_of(k: Tensor) -> float:
    """Return the noise of an estimated kernel, a standard deviation: by its negative values.

    No kernel has any, so that they are noise; half of a normal distribution has its median at
    0.6745 deviations. Zero where there are none.
    """
    below = k[k < 0]
    return float(below.abs().median()) / 0.6745 if below.numel() else 0.0


def two_pixels(size: int) -> Tensor:
    """Return two equal pixels of sum one in the middle: nearly no blur, and no local minimum."""
    k = torch.zeros(size, size)
    k[size // 2, size // 2 - 1 : size // 2 + 1] = 0.5
    return k


def centred(k: Tensor) -> Tensor:
    """Return a kernel of sum one whose centroid is its centre pixel, to half a pixel."""
    k = k / k.sum()
    t = torch.arange(k.shape[-1], dtype=k.dtype, device=k.device) - k.shape[-1] // 2
    d = [-round(float((k.sum(axis) * t).sum())) for axis in (1, 0)]
    reach = max(abs(n) for n in d)
    wide = functional.pad(k, (reach,) * 4)
    (top, bottom), (left, right) = ((reach - n, reach - n + k.shape[-1]) for n in d)
    k = wide[top:bottom, left:right]
    return k / k.sum()


def _parts(mask: Tensor) -> Tensor:
    """Number of the connected part of each pixel (neighbours: eight); zero outside the mask."""
    h, w = mask.shape
    label = torch.arange(1, h * w + 1, dtype=torch.float64).reshape(h, w).to(mask.device) * mask
    while True:  # the largest number of a part spreads over it
        spread = functional.max_pool2d(label[None, None], 3, 1, 1)[0, 0] * mask
        if torch.equal(spread, label):
            return label.long()
        label = spread
