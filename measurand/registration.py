r"""Images up to a shift, which data of an unknown blur cannot tell.

A kernel off by half a pixel and an image off by the other half explain the same data. Before such
an image is compared with a truth, it is moved to where it is most like it,

    d = argmax of <S_d x, reference>,    (S_d x)^(f) = exp(-2 pi i <f, d>) x^(f),

by whole pixels (from the cross-correlation), then by quarters and sixteenths of one. The Fourier
shift is periodic: where the image is not, a margin of |d| pixels is of no use.
"""

import math

import torch
from torch import Tensor

__all__ = ["inner", "moved", "registered"]

_AROUND = (-2, -1, 0, 1, 2)


def registered(x: Tensor, reference: Tensor) -> tuple[Tensor, list[tuple[float, float]]]:
    """Return images moved to where they are most like others, and by how much.

    Args:
        x: Images, with shape (B, C, H, W); real.
        reference: What they are compared with, with shape (1 or B, C, H, W).
    Returns:
        The images, with the shape of `x`, and rows and columns, in pixels, down and right.
    """
    if x.ndim != 4 or x.shape[1:] != reference.shape[1:] or len(reference) not in (1, len(x)):
        raise ValueError(
            f"registered: got images of shape {tuple(x.shape)} and a reference of shape "
            f"{tuple(reference.shape)}, wanted (B, C, H, W) and the same or (1, C, H, W)"
        )
    shifts = [
        _shift(one, other)
        for one, other in zip(x.split(1), reference.expand_as(x).split(1), strict=True)
    ]
    return torch.cat([moved(one, *d) for one, d in zip(x.split(1), shifts, strict=True)]), shifts


def moved(x: Tensor, rows: float, columns: float) -> Tensor:
    """Return periodic images (..., H, W) moved down and right by any number of pixels."""
    h, w = x.shape[-2:]
    down = torch.fft.fftfreq(h, device=x.device)[:, None] * rows
    right = torch.fft.rfftfreq(w, device=x.device) * columns
    return torch.fft.irfft2(
        torch.fft.rfft2(x) * torch.exp(-2j * torch.pi * (down + right)), (h, w)
    )


def inner(x: Tensor, shifts: list[tuple[float, float]]) -> Tensor:
    """Return the middle of images, without the margin that a shift fills from the other side."""
    margin = math.ceil(max(abs(n) for d in shifts for n in d))
    h, w = x.shape[-2:]
    return x[..., margin : h - margin, margin : w - margin] if 2 * margin < min(h, w) else x


def _shift(x: Tensor, reference: Tensor) -> tuple[float, float]:
    """The shift that moves an image (1, C, H, W) to where it is most like another."""
    a, b = (torch.fft.rfft2(t - t.mean((-2, -1), keepdim=True)) for t in (x, reference))
    size = reference.shape[-2:]
    every = torch.fft.irfft2((a.conj() * b).sum((0, 1)), size)
    best = tuple(map(float, divmod(int(every.argmax()), size[1])))
    for step in (0.25, 0.0625):
        near = [(best[0] + i * step, best[1] + j * step) for i in _AROUND for j in _AROUND]
        best = max(near, key=lambda d: float((moved(x, *d) * reference).sum()))
    down, right = (d - n if d > n / 2 else d for d, n in zip(best, size, strict=True))
    return down, right
