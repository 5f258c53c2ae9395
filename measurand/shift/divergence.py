r"""The divergence of a prior from a reference, in the domain of the measurements.

Of two densities p and q of images, smoothed to p_sigma and q_sigma by white noise,

    KL(p || q) = int_0^inf E_{u ~ p_sigma} |s_p(u) - s_q(u)|^2 sigma dsigma,   s = (D - u)/sigma^2

and of measurements `y = A x`, A = U Sigma V^H, with P = Sigma^+ Sigma from draw to draw,

    total = int gap(sigma) sigma dsigma,
    gap(sigma) = E sum_k E[P_k]^(2 a) P_k |V^H (s_p(u) - s_q(u))|_k^2,
    u = V (P (Sigma^+ U^H y + extra n) + (1 - P) c_missing)

with exponent a = -1/2, every coordinate counted as often as if it were always seen. The noise n
is the same for both models, and added where something is seen. Noisy data are completed to sigma,
and count from the level of their own noise on (`coordinates`).

Levels run downwards. What stands where nothing is seen may also be the prior's own estimate
(`fills`): some times at each level `c_missing <- V^H D(u)`, from the level above on. Networks were
never trained on grey holes, and their answers to them can drown the rest. Of Gaussians, with no
noise there, D(u) is in the limit the posterior mean given P x + noise, and the total with a = 0
the mean over P of the divergence of what is seen.

Exact for priors that factorise in the basis V; else biased, low for correlated Gaussians, high for
mixtures: a score of drift to rank by, not calibrated nats. Grows with the size of the image; never
compare across sizes. Where a coordinate is never seen, the sum is over the others (`partial`).

Deviations. Paper: W = E[P]^(-3/2); here a = -1/2, since on Gaussians with independent coordinates
only this is the divergence. Its code compares denoised images, each normalised by itself, with
weight and mask of one; here the scores themselves. Its integral is one over sigma; here the rule
of trapezoids runs over ln(sigma), where the integrand vanishes at both ends.

References:
    | Unsupervised Detection of Distribution Shift in Inverse Problems using Diffusion Models
    | (Shoushtari et al., 2025), arXiv:2505.11482
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from ..measurement import Measurement
from ..priors.capabilities import Denoiser, Range, require
from ..tensors import Generators, as_generators
from ..validate import count, not_negative, positive, share
from .coordinates import REAL, Coordinates, coordinates, in_range, weights

__all__ = ["Curve", "Divergence", "answer", "batches", "bootstrap", "grid", "integral"]

EXACT = 4096  # unknowns up to which the truncation is computed, from dense matrices


@runtime_checkable
class KnownDivergence(Protocol):
    """Knows its Kullback-Leibler divergence from a density of its kind, under noise."""

    def divergence(self, other: "KnownDivergence", sigma: float = 0.0) -> float: ...

    @property
    def shape(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Curve:
    """A divergence, and how it comes together over the noise levels.

    Args:
        total: The integral, in nats.
        interval: Its bootstrap interval over the measurements; (0, inf) of a single one.
        levels: Noise levels, ascending, with shape (L,).
        gap: The weighted squared distance of the scores at each level, with shape (L,).
        per_dimension: The total over the number of real unknowns that are seen.
        keep: Share of the coordinates that a measurement sees, in the mean.
        coverage: Share of the coordinates that some measurement sees at each level, where noisy
            coordinates count from their own level on, with shape (L,).
        partial: Whether some coordinate is never seen: the total is then of the others.
        truncation: The part above the last level, `KL(p_sigma || q_sigma)`, which is not in the
            total; known for exact Gaussians, else None.
    """

    total: float
    interval: tuple[float, float]
    levels: Tensor
    gap: Tensor
    per_dimension: float
    keep: float
    coverage: Tensor
    partial: bool
    truncation: float | None

    @property
    def cumulative(self) -> Tensor:
        """The integral up to each level, with shape (L,)."""
        each = torch.cumulative_trapezoid(self.gap * self.levels.square(), self.levels.log())
        return torch.cat((each.new_zeros(1), each))


@dataclass(frozen=True)
class Divergence:
    """The divergence of a prior from a reference that fits the measurements.

    `KL(reference || prior) = int gap(sigma) sigma dsigma`, from measurements alone.

    Args:
        exponent: a of the weight `E[P]^(2 a)` of a coordinate; -1/2 is the divergence where
            coordinates are independent, -3/2 that of the paper, 0 no weight.
        nodes: Number of noise levels.
        low: Lowest noise level, of images in [-1, 1]; in another range in proportion.
        high: Highest noise level, likewise.
        spread: Whether noise is also added where nothing is seen, as the released code does.
        fills: Evaluations of a network at each level, before the one that counts, that put its own
            estimate where nothing is seen; 0 leaves there the middle of the range.
        fixed: Whether it is meant that all measurements see the same coordinates only.
        range: Lowest and highest value of the images measured; None for those of the reference.
        confidence: Of the interval.
        resamples: Of the bootstrap.
        batch: Images per call of a network.
    References:
        | Unsupervised Detection of Distribution Shift in Inverse Problems using Diffusion Models
        | (Shoushtari et al., 2025), arXiv:2505.11482
    """

    exponent: float = -0.5
    nodes: int = 40
    low: float = 0.02
    high: float = 80.0
    spread: bool = False
    fills: int = 0
    fixed: bool = False
    range: Range | None = None
    confidence: float = 0.95
    resamples: int = 1000
    batch: int = 32

    def __post_init__(self) -> None:
        count(self, "nodes", "resamples", "batch")
        positive(self, "low", "high")
        share(self, "confidence", zero=False)
        not_negative(self, "fills")
        ends = (-1.0, 1.0) if self.range is None else self.range
        if not (
            isinstance(ends, tuple) and len(ends) == 2 and -math.inf < ends[0] < ends[1] < math.inf
        ):
            raise ValueError(
                f"Divergence: got range = {ends!r}, wanted the lowest and the highest value"
            )
        if self.nodes < 2 or not self.low < self.high or not math.isfinite(self.exponent):
            raise ValueError(
                f"Divergence: got {self.nodes} nodes from {self.low} to {self.high} and exponent "
                f"{self.exponent}, wanted two nodes or more, ascending, and a finite exponent"
            )

    @torch.no_grad()
    def __call__(
        self,
        measurements: Sequence[Measurement],
        prior: Denoiser,
        reference: Denoiser,
        *,
        generator: Generators = None,
        callback: Callable[[int], None] | None = None,
    ) -> Curve:
        """Return the divergence of a prior, with its curve.

        Args:
            measurements: Of images that the reference fits; each may be a batch.
            prior: The prior in question.
            reference: The prior of these images.
            generator: One generator, one per item of all measurements, or None for seed 0.
            callback: Called after each level with the number of levels that are done.
        """
        pair = (prior, reference)
        for each in pair:
            require(each, Denoiser, by=self)
        values = self.range or reference.range or prior.range or (-1.0, 1.0)
        data = coordinates(list(measurements), pair, values, fixed=self.fixed, by=self)
        q, p = (in_range(each, values) for each in pair)
        levels = grid(self, data, values)
        gaps = torch.zeros(len(levels), len(data), dtype=torch.float64)
        coverage = torch.zeros_like(levels)
        draws = as_generators(generator, data.known)
        missing = [data.filler(self.fills > 0) for _ in pair]
        for i in reversed(range(len(levels))):
            sigma = float(levels[i])
            seen = data.seen(sigma)
            weight = weights(seen, self.exponent)
            coverage[i] = (weight > 0).double().mean()
            for at, part, noise in batches(data, draws, self.batch):
                c_q, c_p = (
                    answer(self, each, part, sigma, noise, seen[at], own, at)
                    for each, own in zip((q, p), missing, strict=True)
                )
                gap = torch.where(seen[at], weight * (c_p - c_q).abs().double().square(), 0.0)
                gaps[i, at] = gap.flatten(1).sum(1).cpu() / sigma**4
            if callback is not None:
                callback(len(levels) - i)
        check_finite(self, gaps)
        totals = integral(gaps * levels[:, None].square(), levels)
        seen_ever = data.sd.isfinite().any(0)
        total, unknowns = float(totals.mean()), int(seen_ever.sum()) * data.parts
        return Curve(
            total=total,
            interval=bootstrap(totals, self.resamples, self.confidence),
            levels=levels,
            gap=gaps.mean(1),
            per_dimension=total / unknowns,
            keep=data.keep,
            coverage=coverage,
            partial=not bool(seen_ever.all()),
            truncation=truncation(prior, reference, float(levels[-1])),
        )


def grid(settings: Divergence, data: Coordinates, range: Range, ratio: float = 1.0) -> Tensor:
    """Return the noise levels, from that of the cleanest coordinate on, with shape (L,).

    Args:
        settings: Number, lowest and highest level.
        data: The measurements.
        range: Lowest and highest value of the images.
        ratio: The least ratio of a level to the noise of a coordinate.
    """
    k = (range[1] - range[0]) / 2
    noise = ratio * float(data.least.min())
    low, high = max(k * settings.low, noise), k * settings.high
    if not low < high:
        raise ValueError(
            f"{type(settings).__name__}: the measurements have noise of {noise:.3g} in their best "
            f"coordinate, no less than the highest level {high:.3g}; wanted higher levels"
        )
    return torch.linspace(math.log(low), math.log(high), settings.nodes, dtype=REAL[1]).exp()


def batches(
    data: Coordinates, draws: torch.Generator | Sequence[torch.Generator], size: int
) -> Iterator[tuple[slice, Coordinates, Tensor]]:
    """Yield the items in batches, with the coordinates of white noise; all are drawn at once."""
    noise = data.noise(draws)
    for start in range(0, len(data), size):
        at = slice(start, start + size)
        yield at, data[at], data.analysis(noise[at])


def answer(
    settings: Divergence,
    prior: Denoiser,
    part: Coordinates,
    sigma: float,
    noise: Tensor,
    seen: Tensor,
    missing: Tensor,
    at: slice,
) -> Tensor:
    """Return the coordinates of the estimate of some items at a level.

    Args:
        settings: How it is asked.
        prior: The prior that is asked.
        part: The items.
        sigma: The level.
        noise: Coordinates of white noise.
        seen: P(sigma) of the items.
        missing: What the prior has put where nothing is seen, of all items; written where it
            fills.
        at: Which ones of all items these are.
    """
    for _ in range(settings.fills + 1):
        u = replace(part, missing=missing[at]).noisy(sigma, noise, seen, settings.spread)
        c = part.analysis(prior.denoise(u, sigma))
        if settings.fills:
            missing[at] = c
    return c


def integral(values: Tensor, levels: Tensor) -> Tensor:
    """Return the integral of values (L, ...) over the logarithm of the levels (L,)."""
    return torch.trapezoid(values, levels.log(), dim=0)


def bootstrap(values: Tensor, resamples: int, confidence: float) -> tuple[float, float]:
    """Return the interval of a mean over items, from resamples with seed 0."""
    n = len(values)
    if n < 2:
        return 0.0, math.inf
    draws = torch.randint(n, (resamples, n), generator=torch.Generator().manual_seed(0))
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=values.dtype)
    low, high = torch.quantile(values[draws].mean(1), tails).tolist()
    return low, high


def truncation(prior: Denoiser, reference: Denoiser, sigma: float) -> float | None:
    """Return `KL(reference || prior)` of the images with noise, where both know it."""
    if not (isinstance(reference, KnownDivergence) and isinstance(prior, KnownDivergence)):
        return None
    if math.prod(reference.shape) > EXACT:
        return None
    return reference.divergence(prior, sigma)


def check_finite(by: object, values: Tensor) -> None:
    """Raise a `FloatingPointError` unless all values are finite."""
    if not bool(values.isfinite().all()):
        raise FloatingPointError(f"{type(by).__name__}: a prior gave values that are not finite")
