"""Tuning on problems whose best settings are known, and the rules of the search around them."""

import math
from dataclasses import dataclass

import pytest
import torch
from known_answers import gaussian_problem
from scipy.optimize import brentq, minimize_scalar

from measurand.measurement import Measurement
from measurand.methods import Method, Step
from measurand.noises import Gaussian
from measurand.operators import Identity
from measurand.priors import TotalVariation
from measurand.samplers import DiffPIR
from measurand.solvers import ADMM, FISTA, HQS, PGM, Constant
from measurand.tensors import generators
from measurand.tuning.objectives import SURE, Discrepancy
from measurand.tuning.trials import tune


@dataclass(frozen=True)
class Tikhonov(Method):
    """Ridge regression: a method of a user's own."""

    needs = ()

    weight: float = 0.1

    def iterate(self, measurement, prior, x, generator):
        x = measurement.operator.solve(measurement.adjoint_y, self.weight)
        yield Step(0, 0.0, x, x)
        return x


@dataclass(frozen=True)
class Shift(Method):
    """Adds a number to the data; fails where it is large. For the rules of the search."""

    needs = ()

    a: float = 1.0
    b: float = 1.0
    calls = []

    def iterate(self, measurement, prior, x, generator):
        self.calls.append(self)
        if self.a > 1.8:
            raise FloatingPointError("too large")
        x = measurement.y + math.log(self.a / 0.7) + 0.3 * math.log(self.b / 1.5)
        yield Step(0, 0.0, x, x)
        return x


def blank(n=3, size=4):
    A = Identity((1, size, size))
    nothing = torch.zeros(1, 1, size, size)
    return [(Measurement(A, Gaussian(0.1), nothing), nothing)] * n


def noisy(n, size=16, sigma=0.3):
    """Noisy ramps with their truths."""
    A, noise = Identity((1, size, size)), Gaussian(sigma)
    ramps = [
        torch.linspace(-1, 1, size).expand(1, 1, size, size).roll(4 * k, -1) for k in range(n)
    ]
    return [
        (Measurement(A, noise, noise(x, generators(k, 1))), x.contiguous())
        for k, x in enumerate(ramps)
    ]


def test_the_weight_of_the_right_gaussian_prior_is_one():
    """ADMM ends at the posterior mean for weight 1 and nowhere else; it starts at 0.43."""
    prior, m = gaussian_problem()
    mean = prior.posterior_mean(m)
    method = ADMM(steps=60, weight=0.43, levels=Constant(0.3))
    found = tune(method, prior, [(m, mean)], only=["weight"], trials=25)
    assert found.method.weight == pytest.approx(1.0, abs=2e-3)
    assert found.prior is prior and found.method.steps == 60
    assert found.best.loss < found.default.loss - 30  # dB


def test_the_discrepancy_of_tikhonov_has_its_root_found():
    _, m = gaussian_problem(sigma=0.3)
    A, y = m.operator.matrix, m.y[0]

    def off(log_weight):
        x = torch.linalg.solve(A.mT @ A + math.exp(log_weight) * torch.eye(6), A.mT @ y)
        return float((A @ x - y).norm()) - 0.3 * 2

    root = math.exp(brentq(off, math.log(1e-4), math.log(1e3)))
    found = tune(Tikhonov(), None, [(m, None)], objective=Discrepancy(), trials=25)
    assert found.method.weight == pytest.approx(root, rel=1e-2)
    assert not 0.1 / 4 < root < 0.1 * 4  # outside of the box: the search had to leave it


def test_sure_finds_the_ridge_of_least_error_without_truth():
    """A shrinkage 1 / (1 + w) of white images of sd s: the best is w = sigma^2 / s^2."""
    A, noise = Identity((1, 64, 64)), Gaussian(0.5)
    x = 0.8 * torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    m = Measurement(A, noise, noise(x, generators(3, 1)))
    found = tune(Tikhonov(), None, [(m, None)], objective=SURE(), trials=25)
    wanted = minimize_scalar(
        lambda w: float((m.y / (1 + w) - x).square().sum()), bounds=(0.01, 4), method="bounded"
    ).x
    assert found.method.weight == pytest.approx(0.25 / 0.64, rel=0.1)
    assert found.method.weight == pytest.approx(wanted, rel=0.1)
    error = float((m.y / (1 + found.method.weight) - x).square().mean())
    assert found.best.loss == pytest.approx(error, rel=0.1)


def test_the_weight_of_total_variation_is_tuned_with_its_prior():
    prior, cases = TotalVariation(weight=0.3), noisy(2)
    found = tune(FISTA(steps=1), prior, cases, fixed=["steps"], trials=15)
    assert [s.name for s in found.settings] == ["prior.weight"]
    assert found.prior.weight == found.best.values["prior.weight"] > 0.3
    assert found.prior.tol == prior.tol and found.method == FISTA(steps=1)
    assert found.best.loss < found.default.loss - 1  # dB
    again = tune(found.method, found.prior, cases, fixed=["steps"], trials=1)
    assert again.default.losses == found.best.losses  # what is returned is what was measured


def test_the_same_seed_gives_the_same_trials_and_less_time_fewer_of_them():
    def shown(found):
        return [(t.values, t.losses, t.note) for t in found.trials]

    runs = [tune(Shift(), None, blank(), trials=n, seed=s) for n, s in ((12, 1), (12, 1), (12, 2))]
    assert shown(runs[0]) == shown(runs[1]) != shown(runs[2])
    hurried = tune(Shift(), None, blank(), trials=12, seed=1, seconds=1e-9)
    assert shown(hurried) == shown(runs[0])[:1]

    def interrupt(k, _):
        if k == 3:
            raise KeyboardInterrupt

    stopped = tune(Shift(), None, blank(), trials=12, seed=1, on_trial=interrupt)
    assert shown(stopped) == shown(runs[0])[:4]
    with pytest.raises(KeyboardInterrupt):  # nothing was found yet
        tune(Shift(), None, blank(), on_trial=lambda k, _: interrupt(3, k))
    told = []
    tune(Shift(), None, blank(), trials=5, on_trial=lambda k, t: told.append((k, t.values)))
    assert [k for k, _ in told] == list(range(5))


def test_samplers_see_the_same_noise_in_every_trial():
    prior, _ = gaussian_problem()
    _, m = gaussian_problem()
    cases = [(m, prior.posterior_mean(m))]
    method = DiffPIR(steps=3)
    one, two = (tune(method, prior, cases, trials=4, draws=2, seed=3) for _ in range(2))
    assert [t.losses for t in one.trials] == [t.losses for t in two.trials]
    other = tune(method, prior, cases, trials=4, draws=3, seed=3)
    assert other.default.losses != one.default.losses


@pytest.mark.parametrize("seed", range(4))
def test_tuned_is_never_worse_than_before(seed):
    best = Shift(a=0.7, b=1.5)  # exact already
    found = tune(best, None, [(m, x + 0.01) for m, x in blank()], trials=8, seed=seed)
    assert found.best.loss <= found.default.loss and len(found.trials) == 8
    assert found.default is found.trials[0] and found.default.values == {"a": 0.7, "b": 1.5}


def test_failures_and_hopeless_trials_are_kept_and_cost_little():
    Shift.calls.clear()
    cases = [(m, x + 0.01 * k) for k, (m, x) in enumerate(blank(4))]
    found = tune(Shift(), None, cases, trials=30, seed=0)
    failed = [t for t in found.trials if t.note.startswith("failed: too large")]
    short = [t for t in found.trials if t.note == "given up after 1 of 4"]
    assert failed and short and all(t.loss == math.inf for t in failed + short)
    assert all(t.values["a"] > 1.8 for t in failed)
    assert len(Shift.calls) <= len(failed) + len(short) + 4 * (30 - len(failed) - len(short))
    assert all(len(t.losses) == 1 for t in short) and math.isfinite(found.best.loss)
    firsts = [t.losses[0] for t in found.trials if t.losses]
    assert all(t.losses[0] > min(firsts) for t in short)
    assert found.method.a == pytest.approx(0.7 * (1.5 / found.method.b) ** 0.3, rel=0.05)


def test_a_default_that_fails_is_an_error():
    with pytest.raises(FloatingPointError, match="too large"):
        tune(Shift(a=3.0), None, blank())


def test_bounds_are_kept_and_let_none_be_searched():
    prior, m = gaussian_problem()
    cases = [(m, prior.posterior_mean(m))]
    longest = float(m.sigma) ** 2 / m.operator.norm**2
    bounds = {"step": (longest / 8, longest)}
    found = tune(PGM(steps=20), prior, cases, only=["step"], bounds=bounds, trials=12)
    assert found.default.values == {"step": None}
    tried = [t.values["step"] for t in found.trials[1:]]
    assert all(longest / 8 <= step <= longest * 1.001 for step in tried)
    bounds = {"weight": (0.5, 2.0)}
    outside = tune(HQS(weight=9.0), prior, cases, only=["weight"], bounds=bounds, trials=5)
    assert outside.default.values == {"weight": 9.0}
    assert all(0.5 <= t.values["weight"] <= 2 for t in outside.trials[1:])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cases": []}, "got 0 cases and 40 trials"),
        ({"trials": 0}, "got 3 cases and 0 trials"),
        ({"fixed": ["a", "b"]}, "the search would be over: none"),
        ({"fixed": ["c"]}, "Shift has no setting 'c'; it has: a, b"),
        ({"only": ["prior.weight"]}, "NoneType has no setting 'weight'"),
        ({"objective": Discrepancy()}, "can find one setting, the search would be over: a, b"),
        ({"cases": [(blank()[0][0], None)]}, "PSNR: got no truth"),
        ({"cases": [(blank()[0][0].repeat(2), None)]}, "wanted measurements of one item each"),
    ],
)
def test_what_cannot_be_tuned_is_said(options, message):
    cases = options.pop("cases", blank())
    with pytest.raises(ValueError, match=message):
        tune(Shift(), None, cases, **options)
