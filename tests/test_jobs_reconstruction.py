"""What is done to one scan of many, and that it is what is done to one file alone."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import files, picture, run, tiny

from measurand.jobs.arguments import files_of, twins
from measurand.jobs.manifest import Scan
from measurand.jobs.reading import Reading
from measurand.jobs.reconstruction import Reconstruction
from measurand.jobs.restore import restore
from measurand.samplers import DiffPIR
from measurand.solvers import FISTA

FAST = ["--sigma", 0.1, "--prior", "total-variation", "--method", "fista", "--method.steps", 3]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    for i, size in enumerate(((16, 20), (18, 18), (16, 20))):
        picture(tmp_path / "scans" / f"s{i}.png", *size, 3)
    np.savez("k.npz", a=np.ones((3, 3)) / 9)
    return tmp_path


def many(*words):
    return run("reconstruct", "scans", "--operator", "identity", *FAST, *words)


def record(path):
    return json.loads((Path(path) / "run.json").read_text())


def test_a_scan_of_many_is_the_file_alone_with_its_seed(here):
    prior = tiny(here / "p.safetensors")
    common = ["--operator", "blur", "--operator.kernel", "k.npz:a", "--sigma", 0.2]
    common += ["--prior", prior, "--method", "diffpir", "--method.steps", 3, "--draws", 2]
    common += ["--quiet"]
    assert run("reconstruct", "scans", *common, "--out", "many", "--seed", 3) == 0
    seeds = [record(f"many/s{i}")["seed"] for i in range(3)]
    assert len(set(seeds)) == 3 and 3 not in seeds
    for i, seed in enumerate(seeds):
        assert run("reconstruct", f"scans/s{i}.png", *common, "--seed", seed, "--out", "one") == 0
        for name in ("estimate.png", "draws/01.png", "sd.npy"):
            assert (here / f"many/s{i}" / name).read_bytes() == (here / "one" / name).read_bytes()
        shutil.rmtree("one")


def test_a_folder_of_scans_on_the_command_line(here, capsys):
    (here / "scans" / "broken.png").write_bytes(b"x")
    assert many("--out", "r", "--truth", "scans") == 1
    out, err = capsys.readouterr()
    assert "failed: broken:" in err and "broken.png: cannot be read" in err
    assert out.splitlines()[1].split()[:3] == ["done", "now", "3"] and "psnr" in out
    (here / "scans" / "broken.png").unlink()
    assert many("--out", "r", "--truth", "scans", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["kept"] == printed["scans"] == 3 and printed["failed"] == {}
    assert 10 < printed["metrics"]["psnr"] < 60 and printed["out"] == "r"
    wanted = [f"s{i}/{name}" for i in range(3) for name in ("estimate.png", "run.json")]
    assert files("r") == ["job.json", *wanted]
    assert many("--out", "f", "--figures", "--shard", "2/3", "--quiet") == 0
    assert capsys.readouterr().out == ""
    assert files("f") == ["job.json", *(f"s1/{n}" for n in ("comparison.png", "estimate.png",
                                                            "run.json"))]  # fmt: skip


def test_what_does_not_fit_together_is_said_before_anything_is_done(here, capsys):
    def said(*words):
        assert run(*words) == 2
        return capsys.readouterr().err

    assert many("--out", "r", "--quiet") == 0
    before = files(here)
    assert "method.steps was 3, is 4" in said(
        "reconstruct", "scans", "--operator", "identity", *FAST[:-1], 4, "--out", "r"
    )
    alone = ["reconstruct", "scans/s0.png", "--operator", "identity", *FAST, "--out", "o"]
    for extra in (["--shard", "1/2"], ["--replace"], ["--figures"], ["--executor", "pool"]):
        assert f"{extra[0]} is for many scans" in said(*alone, *extra)
    assert "wanted I/N" in said("reconstruct", "scans", "--operator", "identity", *FAST,
                                "--shard", "3/2")  # fmt: skip
    assert "there are: " in said(
        "reconstruct", "scans", "--operator", "identity", "--sigma", 0.1, "--prior", "nothing"
    )
    assert files(here) == before


def test_settings_are_contents_not_places(here):
    blur = twins()["blur"]
    one = Reconstruction(blur(kernel="k.npz:a"), FISTA(steps=2), prior="total-variation")
    elsewhere = one.anywhere()
    assert (
        elsewhere.operator.kernel == f"{here}/k.npz:a" and one.settings() == elsewhere.settings()
    )
    (here / "moved").mkdir()
    shutil.copy("k.npz", "moved/k2.npz")
    moved = Reconstruction(blur(kernel="moved/k2.npz:a"), FISTA(steps=2), prior="total-variation")
    assert moved.settings() == one.settings()
    np.savez("k.npz", a=np.eye(3) / 3)
    assert moved.settings() != one.settings()
    json.dumps(one.settings())


def test_the_draws_of_a_solver_and_the_device_decide_nothing(here):
    identity = twins()["identity"]()
    one = Reconstruction(identity, FISTA(), prior="total-variation")
    for change in ({"draws": 9}, {"device": "cuda"}):
        assert Reconstruction(identity, FISTA(), prior="total-variation", **change).settings() == (
            one.settings()
        )
    prior = str(tiny(here / "p.safetensors"))
    four, nine = (Reconstruction(identity, DiffPIR(), prior=prior, draws=n) for n in (4, 9))
    assert four.settings() != nine.settings() and len(four.settings()["prior"]) == 64


def test_twins_travel(here):
    for name, cls in twins().items():
        try:
            twin = cls()
        except TypeError:
            continue  # has options without defaults
        again = pickle.loads(pickle.dumps(twin))
        assert again == twin and type(again) is twins()[name]
    blur = twins()["blur"](kernel="k.npz:a")
    assert pickle.loads(pickle.dumps(blur)).kernel == "k.npz:a"
    assert files_of(blur) == {"kernel": Path("k.npz")}
    assert files_of(twins()["blur"](kernel="gaussian_kernel:1.5")) == {}


def test_operators_and_priors_are_made_once_for_files_alike(here, monkeypatch):
    from measurand.jobs import reconstruction

    built, loaded = [], []
    build_for, prior_loaded = reconstruction.build_for, reconstruction.prior_loaded
    monkeypatch.setattr(
        reconstruction, "build_for", lambda t, y: built.append(y) or build_for(t, y)
    )
    monkeypatch.setattr(
        reconstruction, "prior_loaded", lambda *a: loaded.append(a) or prior_loaded(*a)
    )
    how = Reconstruction(twins()["identity"](), FISTA(steps=1), Reading(0.1), "total-variation")
    restorer = how.ready()
    for i in range(3):
        (here / f"r{i}").mkdir()
        restorer(Scan(f"s{i}", f"scans/s{i}.png"), here / f"r{i}", 0)
    assert built == [(3, 16, 20), (3, 18, 18)] and len(loaded) == 1


def test_draws_of_several_images_are_those_of_each(here):
    """Image b of a file is drawn as if it were alone with the seed that b has in a batch."""
    tiny(here / "tiny.safetensors")
    u = np.random.default_rng(0).random((5, 12, 14), dtype=np.float32)
    np.save("stack.npy", u)
    twin, prior = twins()["identity"](), str(here / "tiny.safetensors")
    runner = Reconstruction(twin, DiffPIR(steps=2), Reading(0.1), prior, draws=3).ready()
    (here / "r").mkdir()
    record = runner(Scan("stack", "stack.npy"), here / "r", 7)
    draws = np.stack([np.load(here / f"r/draws/0{i}.npy") for i in range(3)])
    assert draws.shape == (3, 5, 12, 14) and record["images"] == 5
    assert np.abs(np.load(here / "r/estimate.npy") - draws.mean(0)).max() < 1e-6
    opened = runner.problem(Scan("stack", "stack.npy"))
    m = opened.measurement
    batch = restore(m, opened.prior, DiffPIR(steps=2), draws=3, seed=7)
    assert np.abs((batch.draws[:, :, 0].numpy() + 1) / 2 - draws).max() < 1e-5


def test_metrics_are_those_of_the_file_that_is_written(here):
    """An estimate beyond the range of its file is clipped there, and so in the metrics."""
    truth = np.zeros((16, 16), np.uint8)
    truth[4:12, 4:12] = 255
    Image.fromarray(truth).save("truth.png"), Image.fromarray(255 - truth).save("y.png")
    how = Reconstruction(
        twins()["mask"](mask="gain.npy"), FISTA(steps=20), Reading(0.5), "total-variation:1e-9"
    )
    np.save("gain.npy", np.full((16, 16), -0.5, np.float32) + 0.9)
    (here / "r").mkdir()
    record = how.ready()(Scan("y", "y.png", "truth.png"), here / "r", 0)
    written = np.asarray(Image.open(here / "r/estimate.png"), np.float64)
    mse = ((written - truth) ** 2).mean() / 255**2
    assert record["metrics"]["psnr"] == pytest.approx(-10 * np.log10(mse), abs=1e-3)


def test_a_kernel_stays_in_place_also_in_a_folder_of_scans(here):
    """Other settings: a folder of results made without the word is not taken for it."""
    kernel = np.zeros((7, 7))
    kernel[0, 3] = 1.0
    np.save("k.npy", kernel)
    common = ["reconstruct", "scans", *FAST, "--quiet", "--operator", "circular-blur"]
    words = [*common, "--operator.kernel", "k.npy:in-place"]
    assert run(*words, "--out", "kept") == 0
    assert run(*common, "--operator.kernel", "k.npy", "--out", "kept") == 2
    assert run(*common, "--operator.kernel", "k.npy", "--out", "moved") == 0
    kept, moved = (
        np.asarray(Image.open(f"{name}/s1/estimate.png")).astype(float)
        for name in ("kept", "moved")
    )
    errors = [np.abs(kept - np.roll(moved, k, 0))[6:-6].mean() for k in (0, 3)]
    assert errors[1] < 0.5 and errors[0] > 10
