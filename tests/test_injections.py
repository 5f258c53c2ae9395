"""Numbers that are none, everywhere: finite images, or an error that names the culprit."""

import math

import pytest
import torch
from injections import CLASSES, Injection, injections, measured, outcome, run, small

from measurand.jobs.restore import restore
from measurand.linalg import cg
from measurand.measurement import Measurement
from measurand.noises import Gaussian
from measurand.operators import FunctionOperator, Identity
from measurand.operators.kernel_blur import simplex
from measurand.priors import CallableDenoiser
from measurand.samplers import DiffPIR
from measurand.solvers import HQS


def survived(every):
    """The number of injections, all of which ended as they should."""
    bad = [f"{one.name}: {said}" for one in every if (said := outcome(one))]
    assert not bad, "\n".join(bad)
    return len(every)


def test_bad_numbers_end_in_finite_images_or_in_named_errors():
    every = list(injections())
    assert survived(every[::41]) > 70


@pytest.mark.slow
def test_bad_numbers_end_in_finite_images_or_in_named_errors_in_thousands(injected):
    every = list(injections())
    injected("6: bad numbers through every method of the Python API", len(every))
    assert survived(every) > 3000


def test_an_injection_can_fail():
    """What the check would not let pass: a result that is lost, and errors that help nobody."""

    def broken():
        raise RuntimeError("index -1 is out of bounds for dimension 2")

    assert outcome(Injection("", lambda: torch.tensor([1.0, math.nan]), ("a",))).startswith("not")
    assert "by another" in outcome(Injection("", broken, ("index",)))
    refused = Injection("", lambda: Measurement(Identity((1, 2, 2)), Gaussian(0.1), None), ("a",))
    assert outcome(refused) == ""
    assert "names none of zebra" in outcome(Injection("", refused.call, ("zebra",)))


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_method_is_injected_into(cls):
    assert any(one.name.startswith(f"{cls.__name__}: ") for one in injections())


def test_an_operator_that_returns_nan_now_and_then_is_named():
    asked = []

    def sometimes(x):
        asked.append(1)
        return x * torch.nan if len(asked) > 6 else x

    operator = FunctionOperator((1, 8, 8), (1, 8, 8), sometimes, lambda y: y)
    with pytest.raises(FloatingPointError, match=r"FunctionOperator\(.*NaN or infinite"):
        run(small(HQS), measured(operator=operator))


def test_conjugate_gradients_do_not_take_nan_for_a_solution():
    """NaN is not above any bound: an item ended at once, with zeros as its solution."""
    b = torch.ones(3, 4)
    b[1, 2] = torch.nan
    x = cg(lambda x: 2 * x, b)
    assert bool(x[1].isnan().all()) and bool((x[[0, 2]] == 0.5).all())
    assert bool(cg(lambda x: 2 * x, 1e30 * b[:1], least=1.0).isnan().all())  # its norm overflows


def test_draws_whose_mean_or_deviation_overflows_are_refused():
    """Each draw is finite; their sum, or the square of their distance, is not."""
    for values, what in (([3e38, 3e38], "mean"), ([3e38, -3e38], "standard deviation")):

        def far(v, sigma, values=values):
            return torch.full_like(v, values.pop())

        prior = CallableDenoiser(far, range=None)
        m = Measurement(Identity((1, 4, 4)), Gaussian(1e15), torch.zeros(1, 1, 4, 4))
        with pytest.raises(FloatingPointError, match=what):
            restore(m, prior, DiffPIR(steps=1), draws=2, batch=1)


def test_the_nearest_kernel_does_not_depend_on_the_size_of_the_values():
    k = torch.tensor([[1e20, 0.0], [0.0, 0.0]])
    assert torch.equal(simplex(k), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    with pytest.raises(FloatingPointError, match="not finite"):
        simplex(k * math.nan)
