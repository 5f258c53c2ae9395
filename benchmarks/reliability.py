"""The faults of the tests at full count: injected, and survived.

Runs the tests behind `--slow` and reads their report. A test notes which fault it injects and how
often; it passes only if every one was survived.

    python benchmarks/reliability.py               writes results/reliability.json
    python benchmarks/reliability.py training      only test files whose name has this word
"""

import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

from machine import write

TESTS = Path(__file__).resolve().parents[1] / "tests"


def main() -> None:
    words = sys.argv[1:]
    files = [str(p) for p in sorted(TESTS.glob("test_*.py"))]
    files = [p for p in files if not words or any(word in Path(p).name for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "--slow", "-m", "slow",
             "-o", "junit_family=xunit1", f"--junitxml={report}", *files]
        )  # fmt: skip
        cases = ET.parse(report).getroot().iter("testcase")
    rows = []
    for case in cases:
        noted = {p.get("name"): p.get("value") for p in case.iter("property")}
        if "fault" not in noted:
            continue
        passed = case.find("failure") is None and case.find("error") is None
        count = int(noted["injected"] or 0)
        rows.append(
            {
                "fault": noted["fault"],
                "injected": count,
                "survived": count if passed else "not all",
                "seconds": round(float(case.get("time", 0)), 1),
                "test": f"{case.get('classname', '').split('.')[-1]}::{case.get('name')}",
            }
        )
        print(rows[-1])
    name = "_".join(["reliability", *words])
    print(write(name, {"faults": sorted(rows, key=lambda row: row["fault"])}))


if __name__ == "__main__":
    main()
