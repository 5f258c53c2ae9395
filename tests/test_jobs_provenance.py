"""Results that are no longer what a run wrote, or made of other inputs than there are now."""

import json
import os

import pytest
from test_cli import picture

from measurand.cli import main

BLUR = ["--operator", "gaussian-blur", "--operator.sigma", "1", "--sigma", "0.05"]
TV = ["--prior", "total-variation", "--method", "fista", "--method.steps", "3", "--quiet"]


def run(capsys, *words):
    code = main(list(words))
    return code, *capsys.readouterr()


def flip(path, place=-20):
    """Changes one bit of a file; size and time stay."""
    stat, raw = path.stat(), bytearray(path.read_bytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.fixture
def result(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "a.png", 20, 24, 3)
    assert run(capsys, "reconstruct", "a.png", *BLUR, *TV, "--out", "res")[0] == 0
    return tmp_path / "res"


def test_what_is_as_it_was_written_passes(result, capsys):
    code, out, _ = run(capsys, "verify", "res")
    assert code == 0 and out == "1 results, 1 as they were written, 0 not\n"
    moved = result.rename(result.parent / "elsewhere")
    (moved / "run.json").write_text(
        json.dumps(json.loads((moved / "run.json").read_text()))  # another layout, the same record
    )
    (result.parent / "a.png").rename(result.parent / "b.png")
    code, out, _ = run(capsys, "verify", "elsewhere")
    assert code == 0 and "a.png: not there any more" in out


@pytest.mark.parametrize(
    ("file", "words"), [("estimate.png", "estimate.png: changed"), ("../a.png", "a.png: changed")]
)
def test_a_flipped_bit_is_found(result, capsys, file, words):
    flip(result / file)
    code, out, _ = run(capsys, "verify", "res", "--json")
    found = json.loads(out)
    assert code == 1 and found["damaged"] == 1
    assert len(found["rows"][0]["faults"]) == 1 and words in found["rows"][0]["faults"][0]


def test_records_and_files_that_are_missing_or_of_others_are_told(result, capsys):
    text = (result / "run.json").read_text()
    (result / "run.json").write_text(text.replace('"seed": 0', '"seed": 1'))
    (result / "comparison.png").unlink()
    (result / "notes.txt").write_text("mine")
    code, out, _ = run(capsys, "verify", "res")
    assert code == 1
    for words in ("run.json: changed", "comparison.png: missing", "notes.txt: not of this run"):
        assert words in out
    (result / "run.json").write_text(text[:-50])
    code, out, _ = run(capsys, "verify", "res")
    assert code == 1 and "run.json: cannot be read" in out
    del (record := json.loads(text))["outputs"]
    (result / "run.json").write_text(json.dumps(record))
    code, out, _ = run(capsys, "verify", "res")
    assert code == 0 and "without digests" in out


def test_a_folder_of_scans_is_compared_scan_by_scan(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    for name in "abc":
        picture(tmp_path / "scans" / f"{name}.png", 20, 24, 3)
    assert run(capsys, "reconstruct", "scans", *BLUR, *TV, "--out", "res")[0] == 0
    assert run(capsys, "verify", "res")[:2] == (0, "3 results, 3 as they were written, 0 not\n")
    flip(tmp_path / "res" / "b" / "estimate.png")
    flip(tmp_path / "scans" / "c.png")
    code, out, _ = run(capsys, "verify", "res")
    assert (
        code == 1 and out.count("changed") == 2 and out.endswith("1 as they were written, 2 not\n")
    )
    code, _, err = run(capsys, "verify", "scans")
    assert code == 2 and "scans: holds no results" in err
