r"""Images up to a shift, which data of an unknown blur cannot tell.

A kernel off by half a pixel and an image off by the other half explain the same data. Before such
an image is compared with a truth, it is moved to where it is most like it,

    d = argmin of ||S_d x - reference||^2,    (S_d x)^(f) = exp(-2 pi i <f, d>) x^(f),

by whole pixels (first by the cross-correlation), then by quarters and sixteenths of one. A
periodic image is moved and compared as a whole. Any other is continued by its mirror image, which
has no jump that would ring, and compared in its middle: `inner` leaves out what the shift brings
in from beyond the frame.
"""

import math

import torch
from torch import Tensor

__all__ = ["inner", "moved", "registered"]

_AROUND = (-2, -1, 0, 1, 2)
_MARGIN = 4  # pixels beside those that a shift brings in, where the mirror image is felt

Shift = tuple[float, float]


def registered(x: Tensor, reference: Tensor, *, periodic: bool) -> tuple[Tensor, list[Shift]]:
    """Return images moved to where they are most like others, and by how much.

    Args:
        x: Images, with shape (B, C, H, W); real.
        reference: What they are compared with, with shape (1 or B, C, H, W).
        periodic: Whether opposite edges touch.
    Returns:
        The images, with the shape of `x`, and rows and columns, in pixels, down and right.
    """
    if x.ndim != 4 or x.shape[1:] != reference.shape[1:] or len(reference) not in (1, len(x)):
        raise ValueError(
            f"registered: got images of shape {tuple(x.shape)} and a reference of shape "
            f"{tuple(reference.shape)}, wanted (B, C, H, W) and the same or (1, C, H, W)"
        )
    pairs = zip(x.split(1), reference.expand_as(x).split(1), strict=True)
    shifts = [_shift(one, other, periodic) for one, other in pairs]
    found = [moved(one, *d, periodic=periodic) for one, d in zip(x.split(1), shifts, strict=True)]
    return torch.cat(found), shifts


def moved(x: Tensor, rows: float, columns: float, *, periodic: bool) -> Tensor:
    """Return images (..., H, W) moved down and right by any number of pixels."""
    height, width = x.shape[-2:]
    if not periodic:
        x = torch.cat((x, x.flip(-2)), -2)
        x = torch.cat((x, x.flip(-1)), -1)
    h, w = x.shape[-2:]
    down = torch.fft.fftfreq(h, device=x.device)[:, None] * rows
    right = torch.fft.rfftfreq(w, device=x.device) * columns
    turn = torch.exp(-2j * torch.pi * (down + right))
    return torch.fft.irfft2(torch.fft.rfft2(x) * turn, (h, w))[..., :height, :width]


def inner(x: Tensor, shifts: list[Shift]) -> Tensor:
    """Return the middle of images that are not periodic, without what shifts bring in.

    Where no shift moves anything, or nothing would be left, the whole.
    """
    largest = max(abs(n) for d in shifts for n in d)
    margin = math.ceil(largest) + _MARGIN if largest else 0
    h, w = x.shape[-2:]
    return x[..., margin : h - margin, margin : w - margin] if 2 * margin < min(h, w) else x


def _shift(x: Tensor, reference: Tensor, periodic: bool) -> Shift:
    """The shift that moves an image (1, C, H, W) to where it is most like another."""

    def error(d: Shift) -> float:
        pair = moved(x, *d, periodic=periodic), reference
        if not periodic:
            pair = inner(pair[0], [d]), inner(pair[1], [d])
        return float((pair[0] - pair[1]).square().mean())

    size = reference.shape[-2:]
    a, b = (t - t.mean((-2, -1), keepdim=True) for t in (x, reference))
    if not periodic:  # the seam between opposite edges would pull towards no shift
        h, w = (torch.hann_window(n + 2, periodic=False)[1:-1].to(x) for n in size)
        a, b = a * h[:, None] * w, b * h[:, None] * w
    every = torch.fft.irfft2((torch.fft.rfft2(a).conj() * torch.fft.rfft2(b)).sum((0, 1)), size)
    rows, columns = divmod(int(every.argmax()), size[1])
    best: Shift = (
        float(rows - size[0] if rows > size[0] // 2 else rows),
        float(columns - size[1] if columns > size[1] // 2 else columns),
    )
    for step in (1.0, 0.25, 0.0625):
        while True:
            near = [(best[0] + i * step, best[1] + j * step) for i in _AROUND for j in _AROUND]
            last, best = best, min(near, key=error)
            if step < 1 or best == last:
                break
    return best
