"""Questions of the residual of a quick reconstruction: edges, kernel, noise level."""

import torch
from torch import Tensor

from ...measurement import Measurement
from ...noise_estimate import noise_seen
from ...tensors import norm
from .verdict import DOUBTFUL, FITS, NOT, Verdict

__all__ = ["edges", "kernel", "noise_level"]


def edges(residual: Tensor, expected: Tensor) -> Verdict:
    """Whether the data wrap around as a periodic operator has it.

    Photographs blurred by a Gaussian of 1.6 pixels, a disk or a motion have ratios of 1.6 to 15,
    periodic images 1.0 to 1.1; a kernel of less than a pixel does no harm and stays below 1.6.
    """

    def ratio(r: Tensor) -> float:
        r = r.square()
        inside = r[..., 4:-4, 4:-4]
        rows, columns = (torch.cat((r[..., :2], r[..., -2:]), -1) for r in (r.mT, r))
        border = torch.cat((rows.flatten(), columns.flatten()))
        return float((border.mean() / inside.mean().clamp_min(1e-30)).sqrt())

    if min(residual.shape[-2:]) < 16:
        return Verdict("edges", FITS, "too small an image to tell")
    found = ratio(residual) / max(ratio(expected), 1e-3)
    words = f"residual at the border {found:.2f} x the one inside"
    if found < 1.2:
        return Verdict("edges", FITS, words)
    advice = (
        "the operator is periodic, the picture is not: --operator blur, gaussian-blur or "
        "motion-blur (operators.ValidBlur), which see beyond the frame"
    )
    return Verdict("edges", NOT if found > 1.5 else DOUBTFUL, words, advice)


def kernel(residual: Tensor, expected: Tensor) -> Verdict:
    """Whether the residual of a blur is as flat as that of simulated data, frequency by frequency.

    A kernel that is too wide, or turned, takes details away that the data have: they stay in the
    residual, at the frequencies where the kernel has its zeros. One that is too narrow explains
    any data, by an image that is too smooth, and is not seen here.
    """
    if min(residual.shape[-2:]) < 32:
        return Verdict("kernel width", FITS, "too small an image to tell")
    bands = (_bands(residual) / _bands(expected).clamp_min(1e-30)).sqrt()
    *worst, finest = bands.tolist()
    if not 0.8 <= finest <= 1.25:
        words = f"residual at the highest frequencies {finest:.2f} x that of simulated data"
        return Verdict("kernel width", FITS, f"{words}: a question of the noise first")
    limits = (1.35, 1.25, 1.25)
    words = "residual at middle frequencies " + ", ".join(f"{b:.2f}" for b in worst)
    words += " x that of simulated data"
    over = max(b / limit for b, limit in zip(worst, limits, strict=True))
    if over <= 1:
        return Verdict("kernel width", FITS, words)
    advice = (
        "the data have details that the kernel takes away: a narrower one, another direction, or "
        "the unknown one (--operator unknown-blur)"
    )
    return Verdict("kernel width", NOT if over > 1.2 else DOUBTFUL, words, advice)


def _bands(residual: Tensor) -> Tensor:
    """The mean energy in three bands from 0.06 to 0.3 cycles a pixel, and in the highest one."""
    rows, columns = residual.shape[-2:]
    window = [
        torch.hann_window(n, dtype=residual.dtype, device=residual.device) for n in (rows, columns)
    ]
    power = torch.fft.fft2(residual * window[0][:, None] * window[1]).abs().square().mean((0, 1))
    f = [torch.fft.fftfreq(n, device=residual.device) for n in (rows, columns)]
    radius = torch.hypot(f[0][:, None], f[1])
    bands = ((0.06, 0.12), (0.12, 0.2), (0.2, 0.3), (0.35, 0.5))
    return torch.stack([power[(radius >= a) & (radius < b)].mean() for a, b in bands])


def noise_level(
    measurement: Measurement, residual: Tensor, expected: Tensor, unit: float = 1.0
) -> Verdict:
    """The residual against the one that the claimed noise would leave, and the noise seen in y.

    Args:
        measurement: The measurement.
        residual: What a quick reconstruction leaves of the data.
        expected: The same of simulated data.
        unit: What noise levels are multiplied by in words: units of `--sigma` in one of y.
    """
    y, sigma = measurement.y, float(measurement.sigma.max())
    left, usual = float(norm(residual).mean()), float(norm(expected).mean())
    ratio = left / max(usual, 1e-30)
    words = f"claimed {unit * sigma:.3g}, residual {ratio:.2f} x the one that it would leave"
    seen: float | None = None
    doubts: tuple[str, ...] = ()
    whole = bool((measurement.operator.observed(torch.ones_like(y)) != 0).all())
    if whole and not y.is_complex() and y.ndim == 4 and min(y.shape[2:]) >= 16:
        estimate = noise_seen(y)
        seen, doubts = float(estimate.sigma.max()), estimate.doubts
        words += f", visible in y {unit * seen:.3g}" + (" or less (texture?)" if doubts else "")
    visible = None if doubts else seen
    if sigma == 0.0:
        if seen is None or seen < 0.01:
            return Verdict("noise level", FITS, words)
        words = f"claimed 0, visible in y {unit * seen:.3g}"
        advice = f"the data look noisy: --sigma {unit * seen:.2g}"
        return Verdict("noise level", DOUBTFUL, words, advice)
    better = unit * (sigma * ratio if visible is None or ratio > 1.0 else visible)
    advice = f"a noise level near {better:.2g} explains the data better (--sigma {better:.2g})"
    above = visible is not None and visible > 1.8 * sigma
    below = visible is not None and visible < sigma / 1.8
    if above and visible is not None:
        advice = f"the noise that is seen is {unit * visible:.2g} (--sigma {unit * visible:.2g})"
    if not 0.6 <= ratio <= 1.9 or above or below:
        return Verdict("noise level", NOT, words, advice)
    if not 0.8 <= ratio <= 1.5:
        return Verdict("noise level", DOUBTFUL, words, advice)
    fine = y[0].numel() > 0.5 * measurement.adjoint_y[0].numel()  # small copies are all texture
    if seen is not None and seen > 2.2 * sigma and fine:
        up_to = f"{unit * seen:.2g}"
        advice = f"a noise level up to {up_to} is seen in the data (--sigma {up_to})"
        return Verdict("noise level", DOUBTFUL, words, advice)
    return Verdict("noise level", FITS, words)
