"""Records are strict JSON, whatever numbers come into them."""

import json
import math
from pathlib import Path

import measurand
from measurand.records import json_text


def strict(text):
    """What a reader gets that knows no NaN."""

    def refused(word):
        raise AssertionError(word)

    return json.loads(text, parse_constant=refused)


def test_numbers_that_are_none_are_null_at_any_depth():
    record = {"a": [1.0, math.nan, (math.inf, 2)], "b": {"c": -math.inf, "d": "NaN"}, "e": True}
    found = strict(json_text(record, indent=1))
    assert found == {"a": [1.0, None, [None, 2]], "b": {"c": None, "d": "NaN"}, "e": True}


def test_whatever_is_written_goes_through_it():
    """The others are digests, a check that a card is JSON, and the header of a weight file."""
    package = Path(measurand.__file__).parent
    files = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for line in path.read_text().splitlines()
        if "json.dump" in line and "sha256(json.dumps(" not in line and "allow_nan" not in line
    }
    assert files <= {"weights/store.py", "weights/tensorfile.py"}
