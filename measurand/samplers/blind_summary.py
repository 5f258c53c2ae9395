"""What several chains of a blind problem say: the best one, their modes, mean and deviation."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..blind import BlindMeasurement, Unknowns
from ..methods import Method
from ..operators.families import BlurFamily
from ..solvers.blind_hqs import louder
from ..solvers.splitting import HQS

__all__ = ["BlindSummary", "correlation", "summary"]

# chains are compared by images made as if the noise were so many times as large
LOUDER, COMPARING = 3.0, HQS(steps=8)


class BlindSummary(NamedTuple):
    """What several chains say of one item.

    Attributes:
        x: The image, with shape (1, C, H, W): the mean, over the chains of the best mode, of their
            draws, or of the estimates with their kernels where `summary` was given a prior.
        kernel: Mean of the kernel over them, with shape (1, 1, side, side).
        sd: Standard deviation of the image; None where one chain is in the mode.
        kernel_sd: Standard deviation of the kernel.
        best: Number of the chain with the smallest misfit.
        misfit: Its misfit, in noise deviations; with a prior that of the cautious estimate.
        misfits: Those of all chains.
        modes: Numbers of the chains in each mode, the best mode first.
    """

    x: Tensor
    kernel: Tensor
    sd: Tensor | None
    kernel_sd: Tensor | None
    best: int
    misfit: float
    misfits: list[float]
    modes: list[list[int]]


@torch.no_grad()
def summary(
    measurement: BlindMeasurement,
    draws: Unknowns,
    prior: Any = None,
    *,
    solver: Method = HQS(),  # noqa: B008 (frozen)
    alike: float = 0.9,
) -> list[BlindSummary]:
    """Return, item by item, the best chain, the modes, and mean and deviation of the best mode.

    Chains are ordered by their misfit. Each joins the first mode whose kernel is like its own, up
    to a shift by whole pixels, and is moved to it; the spread of a mode says nothing of others.

    The mean of a few draws keeps a share of their spread. With a prior, the image is a mean of
    estimates instead: of those that `solver` makes of the data with the kernel of each chain. The
    chains are then ordered by the misfit of another estimate, made as if the noise were three
    times as large: a draw fits the data with any kernel, and so does an estimate that trusts
    them; one that the prior shapes does so with the right kernel only.

    Args:
        measurement: What was seen, of B items with an unknown blur.
        draws: Draws of `measurement.repeat(n)`, n per item.
        prior: The prior of the image, for estimates; None for the mean of the draws.
        solver: What makes them of a known kernel.
        alike: Least correlation of two kernels of one mode.
    """
    family: Any = measurement.family
    if not isinstance(family, BlurFamily):
        raise TypeError(f"summary: got {family}, wanted a BlurFamily")
    n, rest = divmod(len(draws.x), len(measurement))
    if rest or n < 1:
        raise ValueError(
            f"summary: got {len(draws.x)} draws of {len(measurement)} items, wanted the same "
            "number for each"
        )
    every = measurement.repeat(n)
    compared = draws
    if prior is not None:
        possible = family.project(draws.theta)
        compared = Unknowns(COMPARING(louder(every.at(possible), LOUDER), prior), possible)
    misfits = every.misfit(*compared).reshape(-1, n)
    found = []
    for item, own in enumerate(misfits.tolist()):
        modes: list[list[int]] = []
        moved: dict[int, Sequence[Tensor]] = {}  # draw and parameters of a chain
        for chain in sorted(range(n), key=own.__getitem__):
            at = slice(item * n + chain, item * n + chain + 1)
            one = (draws.x[at], draws.theta[at])
            for mode in modes:
                shift, value = correlation(
                    family.kernel(moved[mode[0]][1]), family.kernel(draws.theta[at])
                )
                if value >= alike:
                    mode.append(chain)
                    moved[chain] = family.moved([shift], *one)
                    break
            else:
                modes.append([chain])
                moved[chain] = one
        x, theta = (torch.cat([moved[c][i] for c in modes[0]]) for i in range(2))
        k, several, estimates = family.kernel(theta), len(x) > 1, x
        if prior is not None:
            same = measurement[item].repeat(len(x))
            estimates = solver(same.at(family.project(theta)), prior)
        found.append(
            BlindSummary(
                estimates.mean(0, keepdim=True),
                k.mean(0, keepdim=True),
                x.std(0, keepdim=True) if several else None,
                k.std(0, keepdim=True) if several else None,
                modes[0][0],
                own[modes[0][0]],
                own,
                modes,
            )
        )
    return found


def correlation(reference: Tensor, kernel: Tensor) -> tuple[list[int], float]:
    """Return the shift that moves a kernel (1, 1, h, w) nearest to another, and the correlation.

    The correlation is `<a, b> / (||a|| ||b||)` at the best shift by whole pixels, 1 where the two
    are equal; the kernels may differ in size.
    """
    h, w = (reference.shape[i] + kernel.shape[i] for i in (-2, -1))
    spectrum = torch.fft.rfft2(reference, (h, w)) * torch.fft.rfft2(kernel, (h, w)).conj()
    every = torch.fft.irfft2(spectrum, (h, w))[0, 0]
    best = int(every.argmax())
    rows, columns = divmod(best, w)
    shift = [rows - h if rows > h // 2 else rows, columns - w if columns > w // 2 else columns]
    return shift, float(every.flatten()[best] / (reference.norm() * kernel.norm()))
