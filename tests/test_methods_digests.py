"""Every method returns and tells what it did when `method_digests.json` was written."""

import json
from dataclasses import is_dataclass

import method_digests
import pytest

from measurand import samplers, solvers
from measurand.unfolded import FlowProximal, UnfoldedDR

KEPT = json.loads(method_digests.FILE.read_text())
RUNS = {name: run for name, *run in method_digests.runs()}
HERE = method_digests.machine() == KEPT["machine"]


def test_every_run_has_a_digest():
    assert set(RUNS) == set(KEPT["runs"])


def test_every_method_has_a_run():
    named = {name: getattr(f, name) for f in (solvers, samplers) for name in f.__all__}
    frozen = {name for name, value in named.items() if is_dataclass(value)}
    run = {type(method).__name__ for method, *_ in RUNS.values()}
    # methods of two unknowns have another call: test_samplers_blind has their seeds
    single = {name for name in frozen if "Blind" not in name}
    assert single - {"Annealed", "Constant", "Reverse"} == run


@pytest.mark.parametrize("name", RUNS)
def test_results_and_steps_are_those_of_the_file(name):
    found, kept = method_digests.digest(*RUNS[name]), KEPT["runs"][name]
    limit = 3e-5 if isinstance(RUNS[name][1], UnfoldedDR | FlowProximal) else 1e-11
    assert found["numbers"] == pytest.approx(kept["numbers"], rel=limit, abs=limit)
    if HERE:
        assert found["bits"] == kept["bits"]
