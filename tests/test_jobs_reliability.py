"""The collections of faults at full count lose none: every row has its home among the tests."""

import json
import re
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.fixture
def reliability(monkeypatch):
    """The program of that name, from the folder of the benchmarks."""
    monkeypatch.syspath_prepend(HERE.parent / "benchmarks")
    return pytest.importorskip("reliability")


def test_every_fault_of_the_results_is_injected_where_its_collection_looks(reliability):
    assert reliability.homeless() == set()
    for name, files in reliability.COLLECTIONS.items():
        text = "".join((HERE / f"{file}.py").read_text() for file in files)
        injected = [{"fault": fault} for fault in re.findall(r' injected\("(.*?)"', text)]
        assert injected and reliability.lost(name, injected) == set()


def test_a_report_is_read_and_a_lost_row_is_seen(reliability, tmp_path, monkeypatch):
    (tmp_path / "report.xml").write_text("""<testsuites><testsuite>
        <testcase classname="tests.test_b" name="b" time="1.26"><properties>
            <property name="fault" value="12: b"/><property name="injected" value="20"/>
        </properties></testcase>
        <testcase classname="tests.test_a" name="a[all]" time="2"><properties>
            <property name="fault" value="4: a"/><property name="injected" value="50"/>
        </properties><failure/></testcase>
        <testcase classname="tests.test_a" name="c"><properties>
            <property name="fault" value="5: c"/><property name="injected" value="5"/>
        </properties><skipped/></testcase>
        <testcase classname="tests.test_a" name="d"/>
    </testsuite></testsuites>""")
    found = reliability.rows(tmp_path / "report.xml")
    assert [list(row.values()) for row in found] == [
        ["4: a", 50, "not all", 2.0, "test_a::a[all]"],
        ["12: b", 20, 20, 1.3, "test_b::b"],
    ]
    monkeypatch.setattr(reliability, "RESULTS", tmp_path)
    assert reliability.lost("jobs", found) == set()
    faults = json.dumps({"faults": [{"fault": "4: a"}, {"fault": "5: c"}]})
    (tmp_path / "reliability_jobs.json").write_text(faults)
    assert reliability.lost("jobs", found) == {"5: c"}
