r"""Tuning: the settings of a method, and the weight of its prior, for a problem at hand.

`tune` restores a few cases with the settings as they are, then with others that `search` proposes,
and keeps the best by an objective (`objectives`). The settings that take part follow from the
fields of the method (`settings.space`); those of a prior that is a dataclass, such as the weight
of total variation, take part under the name `prior.weight`.

A trial restores the cases one after the other and is given up as soon as the mean of its losses
so far is above the median of what the other trials had at that point (the median rule). What
raises a numerical error, or returns what is not finite, is a failed trial. The settings as they
are run to the end, and only trials that did can be the best: *on the cases given, tuned is never
worse than before*. On others it may be: some images held back will tell.

The seed decides the exploring points, and every trial sees the same random numbers in the method
and in the objective, so that losses are comparable and the same seed gives the same trials. A
limit in seconds, or Ctrl-C after the first trial, only ends the sequence earlier.

References:
    | Google Vizier: A Service for Black-Box Optimization (Golovin et al., 2017), section 3.3
"""

import math
import statistics
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..jobs.restore import restore
from ..measurement import Measurement
from .objectives import PSNR, Case, Objective
from .search import search
from .settings import Setting, changed, space

__all__ = ["Trial", "Tuned", "tune"]

PRIOR = "prior."
Values = dict[str, float | None]


@dataclass(frozen=True)
class Trial:
    """Settings that were tried.

    Args:
        values: What was set, by name; the settings as they were in the first trial.
        losses: The loss of each case, as far as the trial went.
        cases: Number of cases there were.
        seconds: Wall time.
        note: Why it ended early; empty where it did not.
    """

    values: Values
    losses: tuple[float, ...]
    cases: int
    seconds: float
    note: str = ""

    @property
    def loss(self) -> float:
        """The mean loss; infinite where the trial did not run to the end."""
        if len(self.losses) < self.cases:
            return math.inf
        return statistics.fmean(self.losses)


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    Args:
        method: The method with the best settings.
        prior: The prior with the best settings.
        settings: What was searched.
        trials: Every trial, in order; the first is the settings as they were.
        objective: What was minimised.
    """

    method: Any
    prior: Any
    settings: tuple[Setting, ...]
    trials: tuple[Trial, ...]
    objective: Objective

    @property
    def default(self) -> Trial:
        """The trial of the settings as they were."""
        return self.trials[0]

    @property
    def best(self) -> Trial:
        """The trial of least loss; the first of several."""
        return min(self.trials, key=lambda trial: trial.loss)


def tune(
    method: Any,
    prior: Any,
    cases: Sequence[Case | tuple[Measurement, torch.Tensor | None]],
    *,
    objective: Objective | None = None,
    trials: int = 40,
    seconds: float | None = None,
    fixed: Collection[str] = (),
    only: Collection[str] | None = None,
    bounds: Mapping[str, tuple[float, float]] | None = None,
    span: float = 4.0,
    draws: int = 4,
    seed: int = 0,
    on_trial: Callable[[int, Trial], None] | None = None,
) -> Tuned:
    """The best settings of a method for some cases, within a budget.

    Args:
        method: A solver or a sampler; where the search begins.
        prior: Its prior; searched too where it is a dataclass.
        cases: Measurements of one item each, with the truth where it is known.
        objective: What to minimise; `PSNR` where None.
        trials: Largest number of trials, that of the settings as they are included.
        seconds: Wall time after which no trial begins.
        fixed: Settings that stay: `steps`, `levels.high`, all of `levels`, `prior.weight`.
        only: The only settings that are searched.
        bounds: Lower and upper end of some settings, as hard limits.
        span: Ratio of the ends of the other settings to their start; they may leave this range
            in the end, but for whole numbers, which cost time (`settings.space`).
        draws: Number of draws of a sampler, whose mean is judged.
        seed: Seed of the search and of the methods.
        on_trial: Called with the number of every trial, from 0, and the trial.
    Returns:
        The method and the prior with the best settings, and all trials.
    Raises:
        ValueError: There is nothing to search, a name is no setting, or a case does not suit the
            objective. Errors of the method with its settings as they are pass through.
    """
    objective = PSNR() if objective is None else objective
    if not cases or trials < 1:
        raise ValueError(f"tune: got {len(cases)} cases and {trials} trials, wanted some of each")
    every = [Case(*case) for case in cases]
    for case in every:
        if len(case.measurement) != 1:
            raise ValueError(f"tune: got {case.measurement}, wanted measurements of one item each")
        objective.check(case)
    found = _spaces(method, prior, fixed, only, bounds, span)
    if not found or len(found) > objective.most:
        names = ", ".join(setting.name for setting in found) or "none"
        raise ValueError(
            f"tune: {type(objective).__name__} can find "
            f"{'any number of settings' if objective.most == math.inf else 'one setting'}, the "
            f"search would be over: {names}; say which by `only`, or leave more of them free"
        )
    begun = time.perf_counter()
    done: list[Trial] = []

    def judged(values: Values) -> Trial:
        trial = _tried(method, prior, every, objective, values, done, draws, seed)
        done.append(trial)
        if on_trial is not None:
            on_trial(len(done) - 1, trial)
        return trial

    points = search(
        [setting.where(setting.start) for setting in found],
        explore=max(2, trials // 3),
        seed=seed,
        reach=[(s.where(s.reach[0]), s.where(s.reach[1])) for s in found],
    )
    start: Values = {setting.name: _value(method, prior, setting.name) for setting in found}
    seen = {tuple(start.values()): judged({}).loss}
    u = next(points)
    while len(done) < trials and (seconds is None or time.perf_counter() - begun < seconds):
        values: Values = {s.name: s.at(float(x)) for s, x in zip(found, u, strict=True)}
        key = tuple(values.values())
        try:
            if key not in seen:
                seen[key] = judged(values).loss
            u = points.send(seen[key])
        except (StopIteration, KeyboardInterrupt):
            break
    best = min(done, key=lambda trial: trial.loss).values
    first = replace(done[0], values=start)
    return Tuned(*_set(method, prior, best), found, (first, *done[1:]), objective)


def _spaces(
    method: Any,
    prior: Any,
    fixed: Collection[str],
    only: Collection[str] | None,
    bounds: Mapping[str, tuple[float, float]] | None,
    span: float,
) -> tuple[Setting, ...]:
    """The settings of a method and of its prior, those of the prior with `prior.` before them."""
    bounds = bounds or {}

    def part(names: Collection[str], prior_s: bool) -> list[str]:
        return [n.removeprefix(PRIOR) for n in names if n.startswith(PRIOR) == prior_s]

    found: list[Setting] = []
    for owner, prior_s in ((method, False), (prior, True)):
        some = space(
            owner,
            fixed=part(fixed, prior_s),
            only=None if only is None else part(only, prior_s),
            bounds={
                k.removeprefix(PRIOR): bounds[k] for k in bounds if k.startswith(PRIOR) == prior_s
            },
            span=span,
        )
        found += [replace(s, name=PRIOR + s.name) for s in some] if prior_s else some
    return tuple(found)


def _value(method: Any, prior: Any, name: str) -> float | None:
    """The value of a setting as it is."""
    owner, path = (prior, name.removeprefix(PRIOR)) if name.startswith(PRIOR) else (method, name)
    for part in path.split("."):
        owner = getattr(owner, part)
    return owner


def _set(method: Any, prior: Any, values: Values) -> tuple[Any, Any]:
    """Method and prior with some values."""
    own = {name: value for name, value in values.items() if not name.startswith(PRIOR)}
    of_prior = {n.removeprefix(PRIOR): v for n, v in values.items() if n.startswith(PRIOR)}
    return changed(method, own), changed(prior, of_prior) if of_prior else prior


def _tried(
    method: Any,
    prior: Any,
    cases: Sequence[Case],
    objective: Objective,
    values: Values,
    before: Sequence[Trial],
    draws: int,
    seed: int,
) -> Trial:
    """One trial: the cases in order, until the median rule or an error ends it."""
    begun, losses, note = time.perf_counter(), [], ""
    try:
        own, its_prior = _set(method, prior, values)
        for k, case in enumerate(cases, 1):

            def restored(m: Measurement) -> torch.Tensor:
                return restore(m, its_prior, own, draws=draws, seed=seed).estimate  # noqa: B023

            losses.append(objective(restored, case))
            if not losses[-1] < math.inf:
                raise FloatingPointError(f"{type(objective).__name__} is {losses[-1]}")
            if before and k < len(cases) and _behind(losses, before):
                note = f"given up after {k} of {len(cases)}"
                break
    except (ValueError, ArithmeticError, torch.linalg.LinAlgError) as error:
        if not before:
            raise
        note, losses = f"failed: {error}", []
    return Trial(values, tuple(losses), len(cases), time.perf_counter() - begun, note)


def _behind(losses: Sequence[float], before: Sequence[Trial]) -> bool:
    """Whether the mean so far is above the median of the other trials at the same point."""
    k = len(losses)
    others = [statistics.fmean(trial.losses[:k]) for trial in before if len(trial.losses) >= k]
    return len(others) >= 4 and statistics.fmean(losses) > statistics.median(others)
