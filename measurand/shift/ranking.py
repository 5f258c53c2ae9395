r"""Which of several priors fits measurements best, without a reference.

A denoiser that fits has the smallest error. Of the true density p and a candidate m, at a level
sigma, `E|D_m - x|^2 = E|D_p - x|^2 + E|D_m - D_p|^2`, so that

    loss_m = int E|D_m(u) - x|^2 / sigma^3 dsigma = KL(p || m) + const

with one constant for all candidates: differences of losses are differences of divergences, in
nats. In ln(sigma) the weight is 1 / sigma^2, with which a level counts for one per coordinate at
most. On measurements, in the coordinates of `divergence`,

    loss_m = int E sum_k E[P_k]^(2 a) P_k (|V^H D_m(u) - t|_k^2 - d_k^2 - d_k^4/extra_k^2)
             / sigma^2  dln(sigma)

with targets t whose noise tells nothing about u (`coordinates`), minus its variance: unbiased with
noisy data, so that a prior is not rewarded for reproducing noise. Coordinates count from sqrt(2)
times their own noise on. As the divergence it is exact for priors that factorise in the basis V.

References:
    | Information-Theoretic Diffusion (Kong et al., 2023), arXiv:2302.03792
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from ..measurement import Measurement
from ..priors.capabilities import Denoiser, Range, require
from ..tensors import Generators, as_generators
from .coordinates import coordinates, in_range, weights
from .divergence import Divergence, answer, batches, bootstrap, check_finite, grid, integral

__all__ = ["Rank", "ranked"]

RATIO = 2**0.5  # of a level to the noise of the coordinates that count


class Rank(NamedTuple):
    """A prior and how well it fits, in nats per real unknown that is seen.

    Attributes:
        name: Name of the prior.
        loss: Its denoising loss over all levels; only differences mean something.
        excess: Its loss less that of the best prior.
        interval: Bootstrap interval of the excess, from pairs over the measurements; where it
            holds zero, the order is not certain.
    """

    name: str
    loss: float
    excess: float
    interval: tuple[float, float]


@torch.no_grad()
def ranked(
    measurements: Sequence[Measurement],
    priors: Mapping[str, Denoiser],
    *,
    settings: Divergence | None = None,
    generator: Generators = None,
    callback: Callable[[int], None] | None = None,
) -> list[Rank]:
    """Return priors by how well they fit measurements, the best one first.

    Args:
        measurements: The measurements; each may be a batch.
        priors: The candidates, by name.
        settings: Levels, weights and batches, `Divergence(fills=2, spread=True)` when absent;
            where it names no range of the images, the priors have to agree on one.
        generator: One generator, one per item of all measurements, or None for seed 0.
        callback: Called after each level with the number of levels that are done.
    """
    if not priors:
        raise ValueError("ranked: got no priors, wanted at least one")
    settings = Divergence(fills=2, spread=True) if settings is None else settings
    for prior in priors.values():
        require(prior, Denoiser, by=settings)
    values = settings.range or common(priors)
    data = coordinates(
        list(measurements), list(priors.values()), values, fixed=settings.fixed, by=settings
    )
    inside = {name: in_range(prior, values) for name, prior in priors.items()}
    levels = grid(settings, data, values, RATIO)
    losses = torch.zeros(len(priors), len(levels), len(data), dtype=torch.float64)
    draws = as_generators(generator, data.known)
    missing = [data.filler(settings.fills > 0) for _ in inside]
    for i in reversed(range(len(levels))):
        sigma = float(levels[i])
        seen = data.seen(sigma, RATIO)
        weight = weights(seen, settings.exponent)
        for at, part, noise in batches(data, draws, settings.batch):
            target, excess = part.target(sigma, noise), data.parts * part.excess(sigma)
            for j, prior in enumerate(inside.values()):
                c = answer(settings, prior, part, sigma, noise, seen[at], missing[j], at)
                error = (c - target).abs().double().square()
                error = torch.where(seen[at], weight * (error - excess), 0.0)
                losses[j, i, at] = error.flatten(1).sum(1).cpu() / sigma**2
        if callback is not None:
            callback(len(levels) - i)
    check_finite(settings, losses)
    unknowns = int(data.sd.isfinite().any(0).sum()) * data.parts
    each = integral(losses.transpose(0, 1), levels) / unknowns  # (priors, items)
    means = each.mean(1)
    best = int(means.argmin())
    ranks = [
        Rank(
            name,
            float(means[j]),
            float(means[j] - means[best]),
            bootstrap(each[j] - each[best], settings.resamples, settings.confidence),
        )
        for j, name in enumerate(priors)
    ]
    return sorted(ranks, key=lambda rank: rank.loss)


def common(priors: Mapping[str, Denoiser]) -> Range:
    """Return the value range of priors; those that take any have no say."""
    ranges = {name: prior.range for name, prior in priors.items() if prior.range is not None}
    if len(set(ranges.values())) > 1:
        listed = ", ".join(f"{name} {range}" for name, range in ranges.items())
        raise ValueError(
            f"ranked: got priors of images of different ranges ({listed}); say which one the "
            "measurements are of: settings=Divergence(range=(-1, 1))"
        )
    return next(iter(ranges.values()), (-1.0, 1.0))
