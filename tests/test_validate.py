"""The fields of every method are checked when it is made, by name, value and what was wanted."""

import math

import pytest

from measurand.samplers import DAPS, DPS, DiffPIR, HeunSDE, PiGDM, PnPDM
from measurand.solvers import ADMM, FISTA, HQS, PGM, RED, Annealed, Constant, GradientRED


@pytest.mark.parametrize(
    ("kind", "name", "bad", "wanted"),
    [
        *[(kind, "steps", 0, "at least 1") for kind in (PGM, FISTA, RED, GradientRED, HQS, ADMM)],
        *[(kind, "steps", 2.5, "whole") for kind in (DPS, PiGDM, DiffPIR, DAPS, HeunSDE)],
        *[(kind, "weight", -0.1, ">= 0") for kind in (RED, GradientRED, HQS, ADMM)],
        *[(kind, "step", 0.0, "positive") for kind in (PGM, FISTA, GradientRED)],
        *[(kind, "level", -1.0, "positive") for kind in (PGM, FISTA, Constant)],
        *[(kind, "sigma_max", math.inf, "positive") for kind in (PiGDM, DiffPIR, DAPS, HeunSDE)],
        *[(kind, "sigma_min", 0.0, "positive") for kind in (PiGDM, DiffPIR, DAPS, HeunSDE)],
        (RED, "step", 1.5, "above 0, at most 1"),
        (Annealed, "high", 0.0, "positive"),
        (Annealed, "low", math.nan, "positive"),
        (Annealed, "floor", -0.01, ">= 0"),
        (DPS, "zeta", -0.3, ">= 0"),
        (PiGDM, "spread", 0.0, "positive"),
        (DiffPIR, "zeta", 2, "from 0 to 1"),
        (DiffPIR, "lam", -1, "positive"),
        (DAPS, "flow_steps", 0, "at least 1"),
        (DAPS, "width", "wide", "positive"),
        (DAPS, "tau", -0.1, ">= 0"),
        (PnPDM, "sweeps", 0, "at least 1"),
        (PnPDM, "decay", 0.0, "above 0"),
        (PnPDM, "rho_min", 0.0, "positive"),
    ],
)
def test_a_bad_field_is_named(kind, name, bad, wanted):
    with pytest.raises(ValueError) as caught:
        kind(**{name: bad})
    said = str(caught.value)
    assert said.startswith(f"{kind.__name__}: got {name} = {bad!r}, wanted ") and wanted in said


def test_what_stands_at_the_limit_passes():
    assert DiffPIR(zeta=0.0).zeta == 0.0 and DiffPIR(zeta=1).zeta == 1
    assert HQS(weight=0.0, steps=1).steps == 1
    assert RED(step=1.0).step == 1.0 and DAPS(tau=0.0).tau == 0.0 and PGM(step=None).step is None


def test_levels_that_do_not_fall_are_named_when_they_are_used():
    with pytest.raises(ValueError, match="HeunSDE: got sigma_max = 0.1 and sigma_min = 0.1"):
        HeunSDE(sigma_max=0.1, sigma_min=0.1).levels(1.0)
    with pytest.raises(ValueError, match="wanted high >= low"):
        _ = DiffPIR(sigma_max=0.01, sigma_min=0.1).levels
