"""A folder of results replaces an older one as a whole, and nothing else."""

import json
import os

import pytest
from test_cli import files

from measurand.jobs.folders import staged


def filled(folder, by="reconstruct", **content):
    with staged(folder, by=by) as stage:
        for name, text in content.items():
            path = stage / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        (stage / "run.json").write_text(json.dumps({"command": ["measurand", by, "y.png"]}))


def test_a_folder_of_results_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    with pytest.raises(RuntimeError), staged(tmp_path / "r", by="reconstruct") as folder:
        (folder / "a.txt").write_text("half")
        raise RuntimeError
    assert files(tmp_path) == []
    with staged(tmp_path / "r", by="reconstruct") as folder:
        (folder / "a.txt").write_text("one")
        assert not (tmp_path / "r").exists()
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "r").stat().st_mode & 0o777 == 0o777 & ~mask
    assert [p.name for p in tmp_path.iterdir()] == ["r"] and files(tmp_path) == ["r/a.txt"]

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    with (
        pytest.raises(OSError, match="cannot write results.*No space left"),
        staged(tmp_path / "q", by="reconstruct"),
    ):
        pass


def test_a_second_run_replaces_the_first_as_a_whole(tmp_path):
    filled(tmp_path / "r", draws__00="old", sd="old")
    filled(tmp_path / "r", estimate="new")
    assert files(tmp_path) == ["r/estimate", "r/run.json"]
    (tmp_path / "empty").mkdir()
    filled(tmp_path / "empty", estimate="new")
    (tmp_path / "link").symlink_to("r")
    filled(tmp_path / "link", estimate="newer")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "r/estimate").read_text() == "newer"


OTHERS = [None, "{", "[]", '{"command": 3}', '{"command": ["measurand", "simulate", "x.png"]}']


@pytest.mark.parametrize("record", OTHERS)
def test_a_folder_of_something_else_is_left_alone(tmp_path, record):
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "thesis.txt").write_text("x")
    if record is not None:
        (tmp_path / "r" / "run.json").write_text(record)
    before = files(tmp_path)
    with (
        pytest.raises(OSError, match="something else than results of `measurand rec.*--out"),
        staged(tmp_path / "r", by="reconstruct"),
    ):
        raise AssertionError("nothing may be done")
    assert files(tmp_path) == before


def test_what_appeared_while_the_run_lasted_is_left_alone(tmp_path):
    with pytest.raises(OSError), staged(tmp_path / "r", by="reconstruct") as stage:
        (stage / "estimate").write_text("x")
        (tmp_path / "r").mkdir()
        (tmp_path / "r" / "thesis.txt").write_text("x")
    assert files(tmp_path) == ["r/thesis.txt"]


def test_a_disk_that_fails_leaves_the_first_run(tmp_path, monkeypatch):
    filled(tmp_path / "r", estimate="old")
    rename = os.replace

    def full(source, target):
        if str(source).endswith("results"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space"):
        filled(tmp_path / "r", estimate="new")
    assert files(tmp_path) == ["r/estimate", "r/run.json"]
    assert (tmp_path / "r/estimate").read_text() == "old"
