"""Folders and manifests: every scan once, by a name of its own, or an error that says where."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from measurand.jobs.manifest import Scan, is_many, read_manifest, scans_in, shard, shard_named


@pytest.fixture
def folder(tmp_path):
    for name in ("b.png", "a.npy", "c.tif", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_text("x")
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "d.png").write_text("x")
    return tmp_path


def manifest(path, text):
    path.write_text(text)
    return path


def test_a_folder_is_the_measured_files_in_it(folder):
    scans = scans_in(folder)
    assert [scan.name for scan in scans] == ["a", "b", "c"]
    assert scans[0].file == str(folder / "a.npy") and scans[0].truth is None
    assert is_many(folder) and not is_many(folder / "b.png") and is_many(folder / "m.csv")


def test_truths_of_a_folder_go_by_name(folder, tmp_path_factory):
    truths = tmp_path_factory.mktemp("truths")
    for name in ("a.png", "b.png", "other.png"):
        (truths / name).write_text("x")
    with pytest.raises(ValueError, match=r"nothing there is called like 'c\.tif'"):
        scans_in(folder, truth=truths)
    (truths / "c.png").write_text("x")
    assert [scan.truth for scan in scans_in(folder, truth=truths)] == [
        str(truths / f"{name}.png") for name in "abc"
    ]
    with pytest.raises(ValueError, match="wants a folder of truths"):
        scans_in(folder, truth=folder / "a.npy")


def test_two_files_of_one_name_are_an_error_that_says_the_way_out(folder):
    (folder / "a.png").write_text("x")
    with pytest.raises(ValueError, match=r"a\.npy and .*a\.png are both called 'a'.*'name'"):
        scans_in(folder)


def test_a_folder_without_scans_says_what_it_wanted(tmp_path):
    with pytest.raises(ValueError, match=r"no measured file directly in this folder.*\.png"):
        scans_in(tmp_path)


def test_csv_and_json_lines_say_the_same(tmp_path):
    rows = [
        {"file": "in/x.png", "truth": "t/x.png", "name": "patient-3/x"},
        {"file": "in/k.npz:slice_2"},
        {"file": "/far/y.h5:a/b", "truth": ""},
    ]
    lines = "\n".join(json.dumps(row) for row in rows) + "\n\n"
    text = "\ufefffile, truth, name\n" + "\n".join(
        ",".join(row.get(key, "") for key in ("file", "truth", "name")) for row in rows
    )
    found = read_manifest(manifest(tmp_path / "m.jsonl", lines))
    assert found == read_manifest(manifest(tmp_path / "m.csv", text))
    assert found == (
        Scan("k-slice_2", str(tmp_path / "in/k.npz:slice_2")),
        Scan("patient-3/x", str(tmp_path / "in/x.png"), str(tmp_path / "t/x.png")),
        Scan("y-a-b", "/far/y.h5:a/b"),
    )
    assert found[0].inputs == {"file": tmp_path / "in/k.npz"}
    assert scans_in(tmp_path / "m.csv") == found


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "", "wanted a column 'file'"),
        ("m.csv", "a,b\n1,2", "wanted a column 'file'"),
        ("m.csv", "file,name\na.png\n", "line 2: got 1 values, wanted 2: file, name"),
        ("m.csv", 'file\n"a.png', "line 2: "),
        ("m.csv", "file\n", "names no scan"),
        ("m.csv", "file,name\n,x", "line 2: names no file"),
        ("m.csv", "file\na.png\nb/a.png", "both called 'a'"),
        ("m.csv", "file,name\na.png,p\nb.png,p/q", "results of 'p/q' would lie in those of 'p'"),
        ("m.csv", "file,name\na.png,../out", "is no folder of results"),
        ("m.csv", "file,name\na.png,/out", "is no folder of results"),
        ("m.csv", "file,name\na.png,.partial", "is no folder of results"),
        ("m.jsonl", "{", "line 1: not JSON"),
        ("m.jsonl", '"a.png"', "line 1: got"),
        ("m.jsonl", '\n{"file": 3}', "line 2: file is 3, wanted a text"),
    ],
)
def test_a_manifest_that_is_none_names_the_line(tmp_path, name, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_manifest(manifest(tmp_path / name, text))
    assert str(tmp_path / name) in str(caught.value)


def test_a_manifest_that_is_no_text(tmp_path):
    (tmp_path / "m.csv").write_bytes(b"file\n\xff\xfe\x00")
    with pytest.raises(ValueError, match="not a text in UTF-8"):
        read_manifest(tmp_path / "m.csv")
    with pytest.raises(ValueError, match="a column of it"):
        scans_in(tmp_path / "m.csv", truth=tmp_path)


@given(st.integers(0, 40), st.integers(1, 12))
def test_the_shards_are_the_whole_and_of_one_size(count, n):
    scans = tuple(Scan(f"{i:02d}", "") for i in range(count))
    parts = [shard(scans, i, n) for i in range(1, n + 1)]
    assert sorted(sum(parts, ()), key=lambda scan: scan.name) == list(scans)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_shards_by_name():
    assert shard_named("2/8") == (2, 8)
    for text in ("0/3", "4/3", "2", "a/b", "-1/3", "1/0", "1/2/3"):
        with pytest.raises(ValueError, match="wanted I/N with I from 1 to N"):
            shard_named(text)
    with pytest.raises(ValueError, match="got 0/2"):
        shard((), 0, 2)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"a":' * 100_000, "9" * 5000, '["x"]'])
def test_a_line_that_no_parser_should_see_is_named(line, tmp_path):
    (tmp_path / "scans.jsonl").write_text(f'{{"file": "a.png"}}\n{line}\n')
    with pytest.raises(ValueError, match="scans.jsonl, line 2: "):
        scans_in(tmp_path / "scans.jsonl")
