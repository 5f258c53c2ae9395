"""The numbers of the page on `check` are those of the result files."""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "check.md").read_text()
RESULTS = ROOT / "benchmarks" / "results"


def row(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def test_the_table_of_set_ups():
    found = json.loads((RESULTS / "checks.json").read_text())
    for kind in ("right", "wrong"):
        counts = found[f"{kind} set-ups"]
        assert row(kind, counts["set-ups"], counts["judged rightly"]) in PAGE
        assert counts["set-ups"] >= 30
    missed = [r for r in found["rows"] if not r["right"]]
    assert round(len(missed) / len(found["rows"]), 4) == found["wrong verdicts"]
    assert len(missed) <= 0.05 * len(found["rows"])
    for r in missed:
        assert row(r["set-up"], r["expected"], r["came"]) in PAGE


def test_the_table_of_noise_levels():
    found = json.loads((RESULTS / "noise_levels.json").read_text())
    assert found["all"]["cases"] == len(found["rows"]) == 200
    for kind, counts in {**found["kinds"], "all": found["all"]}.items():
        assert row(kind, *counts.values()) in PAGE
    assert found["all"]["off, without a word"] <= 2
