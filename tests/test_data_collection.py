"""The front door: whatever lies in a folder comes out as images; damage is named or skipped."""

import json
import os
import resource
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from scans import brain, dicom, fastmri, nifti, originals

from measurand.data.collection import images
from measurand.data.sources import SkippedFiles, UnreadableFile

COUNTS = {
    "frames.dcm": 3, "scan.h5": 2, "slice.dcm": 1, "stack.h5": 3, "stack.npy": 3,
    "stack.npz": 3, "volume.nii": 5, "volume.nii.gz": 5,
}  # fmt: skip


def zipped(folder, path):
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder).as_posix())
    return path


def test_every_format_by_itself_and_all_together(tmp_path):
    folder = tmp_path / "all"
    alone = {path.name: images(path) for path in originals(folder)}
    assert {name: len(found) for name, found in alone.items()} == COUNTS
    kinds = {name: found.images[0].dtype.name for name, found in alone.items()}
    assert kinds == {
        "frames.dcm": "uint8", "scan.h5": "complex64", "slice.dcm": "float32",
        "stack.h5": "uint8", "stack.npy": "float16", "stack.npz": "uint8",
        "volume.nii": "float32", "volume.nii.gz": "float32",
    }  # fmt: skip
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(folder / "a.png")
    Image.fromarray(np.zeros((4, 5), np.uint8)).save(folder / "b.png")
    (folder / "ages.csv").write_text("a,b")
    (folder / ".DS_Store").write_bytes(b"x")
    for path in (folder, zipped(folder, tmp_path / "all.zip")):
        found = images(path)
        assert len(found) == sum(COUNTS.values()) + 2 and found.skipped == []
        assert found.images[0].shape == (4, 5, 3) and found.images[1].shape == (4, 5)
        assert found.origins[0].endswith("a.png") and len(found.origins) == len(found)
        assert found.summary == f"{len(found)} images from 10 files or series"
        for name, own in alone.items():
            part = [x for x, o in zip(found.images, found.origins, strict=True) if name == own
                    or o.endswith("/" + name) or o.endswith(" " + name)]  # fmt: skip
            assert len(part) == COUNTS[name]
            for a, b in zip(part, own.images, strict=True):
                np.testing.assert_array_equal(a, b)


def test_under_and_keys(tmp_path):
    for part, k in (("train", 1), ("val", 2)):
        (tmp_path / part).mkdir()
        np.save(tmp_path / part / "x.npy", np.full((k, 6, 6), k, np.uint8))
    assert len(images(tmp_path)) == 3 and len(images(tmp_path, under="val")) == 2
    assert len(images(tmp_path, under="test")) == 0
    archive = zipped(tmp_path, tmp_path / "a.zip")
    assert len(images(archive, under="val")) == 2 and len(images(archive, under="va")) == 0
    np.savez(tmp_path / "two.npz", a=np.zeros((3, 6, 6)), b=np.zeros((4, 6, 6)))
    with h5py.File(tmp_path / "two.h5", "w") as h5:
        h5["a"], h5["kspace"] = np.zeros((3, 6, 6)), np.zeros((4, 6, 6), np.complex64)
    assert len(images(f"{tmp_path}/two.npz:b")) == 4
    assert len(images(f"{tmp_path}/two.h5:a")) == 3
    with pytest.raises(UnreadableFile, match="which array"):
        images(tmp_path / "two.npz")


def test_a_series_without_endings_by_its_content(tmp_path):
    for k in range(3):
        dicom(tmp_path / f"IM{k}", np.full((4, 4), k, np.int16), position=-1.0 * k)
    found = images(tmp_path)
    assert [x[0, 0] for x in found.images] == [2 - 1024, 1 - 1024, -1024]
    assert set(found.origins) == {str(tmp_path / "IM2")}
    assert len(images(tmp_path / "IM1")) == 1


def test_bad_files_stop_or_are_skipped(tmp_path):
    folder = tmp_path / "all"
    originals(folder)
    for name in ("volume.nii.gz", "frames.dcm", "scan.h5", "stack.npz"):
        (folder / name).write_bytes((folder / name).read_bytes()[:150])
    for path in (folder, zipped(folder, tmp_path / "all.zip")):
        with pytest.raises(UnreadableFile, match="scan.h5: cannot be read"):
            images(path)
        with pytest.warns(UserWarning, match="^skipped 4 of 8 files: .*and 1 more"):
            found = images(path, skip_bad=True)
        assert len(found) == sum(COUNTS.values()) - 13 == 12
        assert sorted(Path(name.split(": ")[-1]).name for name, _ in found.skipped) == [
            "frames.dcm", "scan.h5", "stack.npz", "volume.nii.gz",
        ]  # fmt: skip
        assert all(reason for _, reason in found.skipped)
        assert found.summary.startswith("12 images from 4 files or series; skipped 4 of 8 files")


@pytest.mark.filterwarnings("ignore:skipped")
def test_what_is_there_in_part_is_not_used_in_part(tmp_path):
    voxels = np.ones((4, 5, 6), np.float32)
    voxels[0, 0, 5] = np.nan  # in the last slice
    found = images(nifti(tmp_path / "a.nii", voxels), skip_bad=True)
    assert len(found) == 0 and "NaN" in found.skipped[0][1]
    y = brain()[1]
    y[1, 0, 0, 0] = np.inf
    found = images(fastmri(tmp_path / "a.h5", y), skip_bad=True)
    assert len(found) == 0 and len(found.skipped) == 1


def test_images_that_do_not_fit_are_bad_files(tmp_path):
    def check(name, image):
        if image.ndim != 2:
            raise UnreadableFile(f"{name}: colour")

    originals(tmp_path / "all")
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "all" / "a.png")
    dicom(tmp_path / "all" / "c.dcm", np.zeros((4, 5, 3), np.uint8), series="7")
    for path in (tmp_path / "all", zipped(tmp_path / "all", tmp_path / "all.zip")):
        with pytest.raises(UnreadableFile, match="a.png: colour"):
            images(path, check=check)
        with pytest.warns(SkippedFiles, match="^skipped 2 of 10 files: .*c.dcm .colour"):
            found = images(path, skip_bad=True, check=check)
        assert len(found) == sum(COUNTS.values())
    with pytest.raises(UnreadableFile, match="c.dcm: colour"):
        images(tmp_path / "all" / "c.dcm", check=check)


def test_unknown_and_absent_files_are_named(tmp_path):
    (tmp_path / "letter.doc").write_text("x")
    with pytest.raises(UnreadableFile, match=r"letter.doc: got a file of unknown kind.*\.nii"):
        images(tmp_path / "letter.doc")
    for name in ("gone", "gone.zip", "gone.npz:x", "gone.h5"):
        with pytest.raises(FileNotFoundError, match=name.split(":")[0]):
            images(tmp_path / name)
    assert len(images(tmp_path)) == 0


def test_a_missing_package_is_no_bad_file(tmp_path, monkeypatch):
    nifti(tmp_path / "a.nii", np.ones((4, 5, 6), np.uint8))
    dicom(tmp_path / "b.dcm", np.ones((4, 5), np.int16))
    for package, path in (("nibabel", "a.nii"), ("pydicom", "b.dcm")):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(ImportError, match=rf"{package}.*measurand\[medical\]"):
                images(tmp_path / path, skip_bad=True)


def test_real_collections(shared_data):
    faces = images(shared_data / "faces_utk128.zip", under="val")
    assert len(faces) == 300 and {x.shape for x in faces.images} == {(128, 128, 3)}
    classic = images(shared_data / "natural_testsets.zip")
    assert len(classic) == 60 and sum(x.ndim == 2 for x in classic.images) >= 12


# Damage (row 9 of the fault table): in a process of its own, under a limit of memory and of time
# for each file, so that a crash and a hang of a parser are failures like any other.

EXACT = {"volume.nii.gz", "stack.npz"}  # a check sum guards the samples


def damaged(content, rng):
    broken = bytearray(content)
    if rng.random() < 0.25:
        del broken[rng.integers(0, len(broken)) :]
    else:
        early = len(broken) if rng.random() < 0.5 else min(len(broken), 1000)
        for at in rng.integers(0, early, rng.integers(1, 8)):
            broken[at] ^= 1 << rng.integers(0, 8)
    return bytes(broken)


def attack(folder, count):
    """Reads `count` damaged versions of every file; prints how many of each were refused."""
    kinds = {path: (path.read_bytes(), images(path).images) for path in originals(Path(folder))}
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * 2**30,) * 2)
    refused = {}
    for path, (content, whole) in kinds.items():
        print("now", path.name, file=sys.stderr)
        refused[path.name] = 0
        rng = np.random.default_rng(sum(path.name.encode()))
        for _ in range(count):
            path.write_bytes(damaged(content, rng))
            signal.alarm(10)
            try:
                found = images(path).images
            except UnreadableFile as error:
                assert path.name in str(error), error
                refused[path.name] += 1
                continue
            assert all(x.size and np.isfinite(x).all() for x in found)
            if path.name in EXACT:
                assert len(found) == len(whole)
                assert all(np.array_equal(a, b) for a, b in zip(found, whole, strict=True))
    signal.alarm(0)  # the end of a process may be slow, where others compute
    print(json.dumps(refused))


def refused_of(tmp_path, count):
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = f"from test_data_collection import attack; attack({str(tmp_path)!r}, {count})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr[-2000:]}"
    refused = json.loads(done.stdout.split("\n")[-2])
    assert set(refused) == set(COUNTS)
    return refused


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits by /proc and setrlimit")
def test_damaged_files_are_read_or_refused(tmp_path):
    assert min(refused_of(tmp_path, 40).values()) > 8


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_damaged_files_are_read_or_refused_in_thousands(tmp_path, injected):
    injected("9: damaged data files, by reader", 1000 * len(COUNTS))
    assert min(refused_of(tmp_path, 1000).values()) > 200


def test_the_page_says_what_runs(tmp_path, monkeypatch):
    """Every block of code of docs/data.md, in order, in a folder with the files that it names."""
    page = Path(__file__).parents[1] / "docs" / "data.md"
    blocks = [part.split("```")[0] for part in page.read_text().split("```python\n")[1:]]
    assert len(blocks) == 2
    originals(tmp_path / "scans")
    fastmri(tmp_path / "volume.h5", brain()[1])
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks:
        exec(block, names)
    assert len(names["found"]) == sum(COUNTS.values())
    assert names["x"][0].shape == names["r"][0].shape == names["head"].image
