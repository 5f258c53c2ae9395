"""What is done to one scan of many, and that it is what is done to one file alone."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_cli import files, picture, run, tiny

from measurand.jobs.arguments import files_of, twins
from measurand.jobs.manifest import Scan
from measurand.jobs.reconstruction import Reconstruction
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
    from measurand.jobs import measured, reconstruction

    built, loaded = [], []
    build_for, prior_loaded = measured.build_for, reconstruction.prior_loaded
    monkeypatch.setattr(measured, "build_for", lambda t, y: built.append(y) or build_for(t, y))
    monkeypatch.setattr(
        reconstruction, "prior_loaded", lambda *a: loaded.append(a) or prior_loaded(*a)
    )
    how = Reconstruction(twins()["identity"](), FISTA(steps=1), sigma=0.1, prior="total-variation")
    restorer = how.ready()
    for i in range(3):
        (here / f"r{i}").mkdir()
        restorer(Scan(f"s{i}", f"scans/s{i}.png"), here / f"r{i}", 0)
    assert built == [(3, 16, 20), (3, 18, 18)] and len(loaded) == 1


def test_draws_of_several_images_in_a_file_are_refused(here):
    tiny(here / "tiny.safetensors")
    how = Reconstruction(
        twins()["identity"](), DiffPIR(steps=2), sigma=0.1, prior=str(here / "tiny.safetensors")
    )
    runner = how.ready()
    opened = runner.problem(Scan("s0", "scans/s0.png"))
    twice = replace(opened, measurement=opened.measurement.repeat(2))
    (here / "r").mkdir()
    with pytest.raises(ValueError, match="got 2 images at once, and draws are made of one; save"):
        runner.solve(twice, here / "r", 0)
    assert not list((here / "r").iterdir())
