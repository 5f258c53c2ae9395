"""The faults of the tests at full count: injected, and survived.

Runs the tests behind `--slow` and reads their report. A test notes which fault it injects and how
often; it passes only if every one was survived.

    python benchmarks/reliability.py jobs            writes results/reliability_jobs.json
    python benchmarks/reliability.py                 all collections, one after the other

It writes nothing, and says so, where a fault of the last results is no longer injected or a test
that injects one is in no collection: a row that is lost is not a fault survived.
"""

import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from machine import RESULTS, write

TESTS = Path(__file__).resolve().parents[1] / "tests"

# the rows of the fault table that each gathers, and the tests where they live
COLLECTIONS = {
    "training": (
        "test_training_loop",
        "test_training_states",
        "test_weights_tensorfile",
        "test_weights_quantized",
    ),  # 1 2 3 6 7
    "inputs": ("test_data_files", "test_data_hostile", "test_faults"),  # 9 15
    "api": ("test_injections",),  # 6
    "data_collection": ("test_data_collection",),  # 9
    "jobs": (
        "test_jobs_batch",
        "test_jobs_task",
        "test_jobs_executors",
    ),  # 4 5 12
    "several": ("test_jobs_several", "test_cli_interrupts"),  # 3 4 12
    "cpp": ("test_cpp_damage",),  # 9; takes a C++ compiler and cmake
    "ranks": ("test_training_distributed",),  # 12
}


def rows(report: Path) -> list[dict[str, Any]]:
    """The faults that the tests of a report noted, in the order of the fault table."""
    found = []
    for case in ET.parse(report).getroot().iter("testcase"):
        noted = {p.get("name"): p.get("value") for p in case.iter("property")}
        if "fault" not in noted or case.find("skipped") is not None:
            continue
        passed = case.find("failure") is None and case.find("error") is None
        count = int(noted["injected"] or 0)
        found.append(
            {
                "fault": noted["fault"],
                "injected": count,
                "survived": count if passed else "not all",
                "seconds": round(float(case.get("time", 0)), 1),
                "test": f"{case.get('classname', '').split('.')[-1]}::{case.get('name')}",
            }
        )
    return sorted(found, key=lambda row: int(row["fault"].split(":")[0]))


def lost(name: str, found: list[dict[str, Any]]) -> set[str]:
    """The faults of the last results that are not among these rows."""
    path = RESULTS / f"reliability_{name}.json"
    before = json.loads(path.read_text())["faults"] if path.exists() else []
    return {row["fault"] for row in before} - {row["fault"] for row in found}


def homeless() -> set[str]:
    """The test files that inject faults and are in no collection."""
    named = {file for files in COLLECTIONS.values() for file in files}
    found = {p.stem for p in TESTS.glob("test_*.py") if " injected(" in p.read_text()}
    return found - named


def collect(name: str) -> bool:
    """Runs a collection and writes its results; whether all was survived."""
    files = [str(TESTS / f"{file}.py") for file in COLLECTIONS[name]]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--slow", "-m", "slow", "-p", "no:xdist",
             "-o", "junit_family=xunit1", f"--junitxml={report}", *files]
        )  # fmt: skip
        found = rows(report)
    for row in found:
        print(row)
    if gone := lost(name, found):
        print(f"{name}: not injected any more, nothing is written: {', '.join(sorted(gone))}")
        return False
    print(write(f"reliability_{name}", {"faults": found}))
    return all(row["survived"] == row["injected"] for row in found)


def main() -> None:
    names = sys.argv[1:] or list(COLLECTIONS)
    if unknown := set(names) - set(COLLECTIONS):
        sys.exit(f"no collection {', '.join(sorted(unknown))}; there are {', '.join(COLLECTIONS)}")
    if files := homeless():
        sys.exit(f"in no collection: {', '.join(sorted(files))}")
    if not all([collect(name) for name in names]):
        sys.exit("not all was survived, or counted")


if __name__ == "__main__":
    main()
