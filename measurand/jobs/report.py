"""What a run says of its images once they are there: metrics, what they leave, and a figure."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..figures import compare
from ..measurement import Measurement
from ..metrics import coverage, crps, nmse, psnr, ssim

__all__ = ["comparison", "finite_metrics", "metrics_of", "unexplained"]

_UNEXPLAINED = 5.0  # times the noise: neither a strong prior nor a few steps leave so much


def finite_metrics(metrics: dict[str, float]) -> tuple[dict[str, float], list[str]]:
    """Return the metrics that are numbers, and a sentence for each that is none."""
    lost = [name for name, value in metrics.items() if not math.isfinite(value)]
    kept = {name: value for name, value in metrics.items() if name not in lost}
    return kept, [
        f"{name} is {metrics[name]:g} and is left out: the estimate is the truth, or the truth is "
        "zero everywhere"
        for name in lost
    ]


def metrics_of(x: Tensor, truth: Tensor, draws: Tensor | None) -> dict[str, float]:
    """What is known of images (N, C, H, W) as written, once the truth is: means over them.

    The PSNR of complex images is that of their magnitudes, with the largest of the truth as their
    range, as fastMRI has it.

    Args:
        x: The images.
        truth: The true ones, with the same shape.
        draws: Draws of each, with shape (N, S, C, H, W); None for a solver.
    """
    if x.is_complex():
        size, true = x.abs(), truth.abs()
        pairs = zip(size.split(1), true.split(1), strict=True)
        value = torch.cat([psnr(a, b, data_range=float(b.max()) or 1.0) for a, b in pairs])
    else:
        value = psnr(x, truth, data_range=2.0)
    found = {"psnr": float(value.mean()), "nmse": float(nmse(x, truth).mean())}
    if not x.is_complex():
        if min(x.shape[2:]) >= 7:
            found["ssim"] = float(ssim(x, truth, data_range=2.0).mean())
        if draws is not None and (count := draws.shape[1]) >= 3:
            level = (count - 1) / (count + 1)
            found["crps"] = float(crps(draws, truth).mean())
            covered = coverage(draws, truth, level=level).mean()
            found[f"coverage of {100 * level:.0f} %"] = float(covered)
    return found


def comparison(path: str | Path, panels: Sequence[tuple[str, Tensor]], *, title: str) -> list[str]:
    """Write the figure of a run, whose results are there already and stay without it.

    Args:
        path: The PNG to write.
        panels: Titles and images (1, C, H, W) in [-1, 1] or complex: the measurement, the
            estimate, and, by these names, "standard deviation" and "truth". Of several slices
            the one in the middle.
        title: A line above them.
    Returns:
        Why it could not be drawn, in a sentence; nothing where it was.
    """
    slices = max(len(x) for _, x in panels)
    images = {name: x[len(x) // 2 :][:1] for name, x in panels}
    title += f", slice {slices // 2 + 1} of {slices}" if slices > 1 else ""
    truth, spread = images.pop("truth", None), images.pop("standard deviation", None)
    complex_ = any(x.is_complex() for x in images.values())
    window = None if complex_ else (-1.0, 1.0)
    try:
        compare(images, truth=truth, deviation=spread, window=window, title=title).save(path)
    except Exception as error:  # whatever a font, a name or a missing package does
        return [f"{Path(path).name} could not be drawn: {' '.join(str(error).split())}"]
    return []


def unexplained(measurement: Measurement, x: Tensor) -> list[str]:
    """Return a note where estimates leave much more of the data than their noise.

    Args:
        measurement: The data of N items.
        x: The estimates.
    """
    operator, worst = measurement.operator, 0.0
    for item in range(len(measurement)):
        one = measurement[item : item + 1]
        sigma = float(one.sigma.max()) * (2**0.5 if one.y.is_complex() else 1.0)
        seen = one.operator.observed(torch.ones_like(one.y)) != 0
        left = one.residual(x[item : item + 1])[seen].abs().double().square().mean().sqrt()
        worst = max(worst, float(left) / sigma if sigma > 0 else 0.0)
    if worst < _UNEXPLAINED:
        return []
    return [
        f"the estimate leaves {worst:.3g} times the noise of the data (root mean square): "
        f"--sigma, or the files and options of {type(operator).__name__}, may be those of other "
        "data (measurand check)"
    ]
