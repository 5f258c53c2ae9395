r"""A search for the least of a function that costs much and has no derivative.

Points live in units of a box: coordinate i of the box is [0, 1], and a coordinate may leave it as
far as `reach` allows. The search is a generator: it yields a point, is sent the loss there, and
holds nothing else, so that budgets, caches and failures are the caller's (who sends infinity for
a failure). Three phases:

* start: the point given, a good guess;
* explore: points of a Sobol sequence, shifted by one seeded random vector modulo 1; every second
  one is drawn half-way towards the start;
* refine: one coordinate after the other from the best point. Walk downhill in growing steps until
  the loss rises, then try the vertex of the parabola through the last three points; the next
  sweep has shorter steps.

A coordinate along which nothing changes is left out; the end is reached when every step is short.
For a smooth loss of few unknowns 30 to 60 points suffice. The same seed and losses give the same
points.

References:
    | Randomization of Number Theoretic Methods for Multiple Integration (Cranley & Patterson,
      1976)
    | Direct Search Solution of Numerical and Statistical Problems (Hooke & Jeeves, 1961)
    | Algorithms for Minimization without Derivatives (Brent, 1973), chapter 5
"""

import math
from collections.abc import Generator, Sequence

import numpy as np

__all__ = ["Points", "search"]

Points = Generator[np.ndarray, float, None]

_GROWTH, _SHRINK, _LONGEST, _WALK = 1.6, 0.4, 0.5, 12


def search(
    start: Sequence[float] | np.ndarray,
    *,
    explore: int,
    seed: int = 0,
    reach: Sequence[tuple[float, float]] | None = None,
    step: float = 0.1,
    shortest: float = 1e-3,
) -> Points:
    """Points at which to look, each after the loss at the one before was sent.

    Args:
        start: The first point, in units of the box.
        explore: Number of exploring points.
        seed: Seed of the shift of the exploring points.
        reach: Least and largest value of each coordinate; the box where None.
        step: First step of the refinement, in units of the box.
        shortest: Step at which a coordinate is done.
    Yields:
        Points, as arrays with shape (d,).
    """
    point = np.asarray(start, float)
    d = len(point)
    limits = [(0.0, 1.0)] * d if reach is None else list(reach)
    best = yield point.copy()
    for u in _exploring(point.copy(), explore, seed):
        loss = yield u
        if loss < best:
            best, point = loss, u
    steps = np.full(d, step)
    while active := np.flatnonzero(steps > shortest).tolist():
        for i in active:
            point, best, steps[i] = yield from _line(point, best, i, steps[i], limits[i])


def _exploring(start: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Points of a shifted Sobol sequence, every second one half-way to the start."""
    from scipy.stats import qmc  # a third of a second, and only a search needs it

    d = len(start)
    if n < 1 or d == 0:
        return np.empty((0, d))
    points = qmc.Sobol(d, scramble=False).random_base2(max(1, math.ceil(math.log2(n))))[:n]
    points = (points + np.random.default_rng(seed).random(d)) % 1.0
    points[1::2] = (points[1::2] + start) / 2
    return points


def _line(
    point: np.ndarray, best: float, i: int, step: float, limits: tuple[float, float]
) -> Generator[np.ndarray, float, tuple[np.ndarray, float, float]]:
    """The least along coordinate i near a point, its loss, and the step of the next visit."""
    seen = {float(point[i]): best}
    first, same = best, True
    for sign in (1.0, -1.0):
        length = step
        for _ in range(_WALK):
            at = float(np.clip(point[i] + sign * length, *limits))
            if at in seen:  # the edge
                break
            trial = point.copy()
            trial[i] = at
            loss = seen[at] = yield trial
            same = same and loss == first
            if not loss < best:
                break
            best, point = loss, trial
            length = min(length * _GROWTH, _LONGEST)
        if seen[float(point[i])] < first:  # downhill was this way; the point behind is worse
            break
    if same:
        return point, best, 0.0
    vertex = _vertex(seen, float(point[i]))
    if vertex is not None and abs(vertex - point[i]) > 0.05 * step:
        trial = point.copy()
        trial[i] = vertex
        loss = yield trial
        if loss < best:
            best, point = loss, trial
    return point, best, step * _SHRINK


def _vertex(seen: dict[float, float], middle: float) -> float | None:
    """The lowest point of the parabola through a point and its neighbours on a line."""
    order = sorted(seen)
    k = order.index(middle)
    if k in (0, len(order) - 1):
        return None
    (a, b, c), (fa, fb, fc) = order[k - 1 : k + 2], [seen[at] for at in order[k - 1 : k + 2]]
    if not (math.isfinite(fa) and math.isfinite(fb) and math.isfinite(fc)):
        return None
    left, right = (b - a) * (fb - fc), (b - c) * (fb - fa)
    if left == right:
        return None
    found = b - 0.5 * ((b - a) * left - (b - c) * right) / (left - right)
    return found if a < found < c else None
