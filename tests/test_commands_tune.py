"""`measurand tune`, and `reconstruct` with what it wrote."""

import json

import numpy as np
import pytest
from PIL import Image
from test_cli import files, picture, run, tiny

from measurand.data.files import read_image
from measurand.metrics import psnr
from measurand.solvers import FISTA, HQS
from measurand.tuning.settings import read_settings

BLUR = ["--operator", "circular-gaussian-blur", "--operator.sigma", 1.2]
SMALL = ["--method", "fista", "--method.steps", 4, "--prior", "total-variation"]


def measured(here, n=2):
    """Pictures and their measurements."""
    truths = [picture(here / f"t{k}.png", 24, 20 + k, 3) for k in range(n)]
    for k, truth in enumerate(truths):
        assert run("simulate", truth, *BLUR, "--sigma", 0.1, "--seed", k, "--out", f"m{k}",
                   "--quiet") == 0  # fmt: skip
    return truths, [here / f"m{k}" / "measurement.npz" for k in range(n)]


def test_what_tune_writes_reconstruct_takes(here, capsys):
    truths, seen = measured(here)
    assert run("tune", *seen, "--truth", *truths, *BLUR, "--sigma", 0.1, *SMALL, "--trials", 8,
               "--out", "t", "--json") == 0  # fmt: skip
    printed = json.loads(capsys.readouterr().out)
    assert files("t") == ["settings.json", "trials.json"]
    settings = read_settings("t/settings.json")
    assert settings.method == FISTA(steps=4)  # said on the command line: not searched
    weight = settings.prior["weight"]
    assert list(printed["best"]) == ["prior.weight"] and printed["best"]["prior.weight"] == weight
    record = json.loads((here / "t" / "trials.json").read_text())
    assert len(record["trials"]) == 8 and record["settings"][0]["name"] == "prior.weight"
    first, best = record["trials"][0], min(record["trials"], key=lambda t: t["loss"] or 0)
    usual = 0.1 / 0.1 * (0.1 / 0.04) ** 0.5  # of a blur, which determines little
    assert first["values"]["prior.weight"] == pytest.approx(usual, rel=0.05)
    assert best["values"]["prior.weight"] == weight and best["loss"] < first["loss"]

    words = ["reconstruct", seen[0], *BLUR, "--sigma", 0.1, "--truth", truths[0]]
    assert run(*words, "--settings", "t/settings.json", "--out", "r", "--json") == 0
    run_json = json.loads(capsys.readouterr().out)
    assert run_json["method"] == {"class": "FISTA", "steps": 4, "step": None, "level": None}
    assert run_json["prior"] == {"name": "total-variation", "weight": weight}
    assert [note[:5] for note in run_json["notes"]] == ["shape"]  # which axes are channels
    assert run_json["metrics"]["psnr"] == pytest.approx(-best["losses"][0], abs=1e-4)
    assert run(*words, *SMALL, "--out", "d", "--json") == 0
    default = json.loads(capsys.readouterr().out)
    assert default["metrics"]["psnr"] == pytest.approx(-first["losses"][0], abs=1e-4)


def test_the_truth_has_a_value_range_of_its_own(here, capsys):
    truths, seen = measured(here, 1)
    u = read_image(truths[0]).x[0].movedim(0, -1).numpy()
    np.save(here / "truth.npy", 50 * (u + 1))  # percent
    common = ["--sigma", 0.1, *SMALL, "--trials", 2, "--json"]
    losses = []
    for k, words in enumerate(
        (["--truth", *truths], ["--truth", "truth.npy", "--truth-range", 0, 100])
    ):
        assert run("tune", *seen, *words, *BLUR, *common, "--out", f"t{k}") == 0
        losses.append(json.loads((here / f"t{k}" / "trials.json").read_text())["trials"][0])
    assert losses[0]["losses"] == pytest.approx(losses[1]["losses"], abs=1e-4)


def test_pictures_are_measured_on_the_way(here, capsys):
    truths = [picture(here / f"t{k}.png", 24, 30, 3) for k in range(2)]
    prior = tiny(here / "p.safetensors")
    words = ["tune", *truths, "--simulate", "--crop", 16, *BLUR, "--sigma", 0.1, "--prior", prior,
             "--method.steps", 3, "--trials", 6, "--only", "weight", "levels.low", "--bounds",
             "weight=0.1:1"]  # fmt: skip
    assert run(*words, "--out", "a") == 0
    out = capsys.readouterr().out
    assert (
        "weight" in out and "levels.low" in out and " dB -> " in out and "a/settings.json" in out
    )
    assert run(*words, "--out", "b", "--quiet") == 0
    assert (here / "a/settings.json").read_text() == (here / "b/settings.json").read_text()
    found = read_settings("a/settings.json")
    assert type(found.method) is HQS and found.method.steps == 3
    assert 0.1 <= found.method.weight <= 1 and found.prior["name"] == str(prior)
    y = picture(here / "y.png", 16, 16, 3)
    assert run("reconstruct", y, "--operator", "identity", "--sigma", 0.2, "--settings",
               "a/settings.json", "--out", "r") == 0  # fmt: skip
    out = capsys.readouterr().out
    assert "note: the settings were found for {'class': 'GaussianBlur'" in out
    assert "note: the settings were found for noise of sigma 0.1" in out
    assert json.loads((here / "r/run.json").read_text())["prior"]["name"] == "p"
    tiny(here / "p.safetensors", seed=1)
    assert run("reconstruct", y, *BLUR, "--sigma", 0.1, "--settings", "a/settings.json", "--out",
               "r") == 0  # fmt: skip
    assert "is not the file for which the settings were found" in capsys.readouterr().out


@pytest.mark.parametrize("objective", ["sure", "projected-sure", "discrepancy"])
def test_no_truth_is_needed(here, objective):
    x = picture(here / "t.png", 24, 24, 3)
    assert run("simulate", x, "--operator", "identity", "--sigma", 0.3, "--out", "m",
               "--quiet") == 0  # fmt: skip
    assert run("tune", "m/measurement.npz", "--operator", "identity", "--sigma", 0.3, "--method",
               "fista", "--method.steps", 1, "--prior", "total-variation:0.05", "--objective",
               objective, "--trials", 14, "--out", "t", "--quiet") == 0  # fmt: skip
    weight = read_settings("t/settings.json").prior["weight"]
    assert weight > 1  # from 0.05, where nothing is smoothed
    words = [
        "reconstruct",
        "m/measurement.npz",
        "--operator",
        "identity",
        "--sigma",
        0.3,
        "--quiet",
    ]
    assert run(*words, "--settings", "t/settings.json", "--out", "r") == 0
    y, found, truth = (read_image(f).x for f in ("m/measurement.npz", "r/estimate.npz", x))
    gain = psnr(found, truth, data_range=2.0) - psnr(y, truth, data_range=2.0)
    assert float(gain) > 4


def test_mistakes_are_said_in_one_line_and_nothing_is_written(here, capsys):
    y = picture(here / "y.png", 16, 16)
    common = ["tune", y, "--operator", "identity", "--sigma", 0.1, *SMALL, "--out", "t"]
    for words, message in (
        ([], "PSNR: got no truth"),
        (["--truth", y, "--only", "wait"], "FISTA has no setting 'wait'; it has: steps"),
        (["--truth", y, "--bounds", "prior.weight=1"], "wanted NAME=LOW:HIGH"),
        (["--truth", y, y], "got 2 images for 1 measurements"),
        (["--truth", y, "--simulate"], "no --truth: the files are the truth"),
        (["--truth", y, "--crop", 8], "--crop: only pictures"),
        (["--simulate", "--crop", 80], "--crop: got 80 for a picture of 16 x 16"),
        (["--truth", y, "--fixed", "prior.weight"], "the search would be over: none"),
        (["--truth", y, "--time-budget", "soon"], "wanted a duration"),
    ):
        assert run(*common, *words) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert run("tune", "--operator", "identity") == 2
    assert "tune: got no file" in capsys.readouterr().err
    (here / "s.json").write_text(json.dumps({"method": {"class": "HQS", "wait": 1}}))
    words = ["reconstruct", y, "--operator", "identity", "--sigma", 0.1, "--settings", "s.json"]
    assert run(*words) == 2 and "method: no entry 'wait'" in capsys.readouterr().err
    assert run(*words, "--method", "hqs") == 2
    assert "leave --method out" in capsys.readouterr().err
    assert run(*words[:-1], "absent.json") == 2 and "absent.json" in capsys.readouterr().err
    assert not (here / "t").exists() and not (here / "runs").exists()


def test_what_the_command_line_sets_stays_unless_it_is_asked_for(here, capsys):
    truth = picture(here / "t.png", 16, 16, 3)
    common = ["tune", truth, "--simulate", *BLUR, "--sigma", 0.1, "--prior",
              tiny(here / "p.safetensors"), "--method", "hqs", "--method.steps", 2,
              "--method.levels.high=0.1", "--trials", 2, "--json", "--out", "t"]  # fmt: skip
    for words, wanted in (
        ([], {"weight", "levels.low", "levels.floor"}),
        (["--fixed", "levels"], {"weight"}),
        (["--only", "steps"], {"steps"}),
        (["--bounds", "levels.high=0.05:0.2", "--fixed", "weight"],
         {"levels.high", "levels.low", "levels.floor"}),
    ):  # fmt: skip
        assert run(*common, *words) == 0
        assert set(json.loads(capsys.readouterr().out)["best"]) == wanted
        record = json.loads((here / "t" / "trials.json").read_text())
        start = record["trials"][0]["values"]
        assert start.get("steps", 2) == 2 and start.get("levels.high", 0.1) == 0.1


def test_grey_pictures_and_masks(here):
    np.save(here / "mask.npy", (np.arange(24 * 24).reshape(24, 24) % 3 == 0).astype(np.float32))
    truth = picture(here / "t.png", 24, 24)
    assert Image.open(truth).mode == "L"
    assert run("tune", truth, "--simulate", "--operator", "mask", "--operator.mask", "mask.npy",
               "--sigma", 0.05, *SMALL, "--trials", 3, "--time-budget", "60s", "--out", "t",
               "--quiet") == 0  # fmt: skip
    assert read_settings("t/settings.json").tuned["trials"] == 3


@pytest.mark.parametrize("how", ["poisson", "seen", "saturated"])
def test_counts_holes_and_saturation_are_those_of_reconstruct(here, capsys, how):
    """What tune judges is what reconstruct makes of the same words."""
    i, j = np.mgrid[:24, :28]
    x = 0.5 + 0.4 * np.sin(0.3 * i) * np.cos(0.25 * j)
    rng = np.random.default_rng(0)
    y = rng.poisson(400 * x) / 400 if how == "poisson" else x + rng.normal(0, 0.02, x.shape)
    bad = rng.random(x.shape) < 0.1
    y = y if how == "poisson" else np.where(bad, 1.4, y)
    np.save("x.npy", x), np.save("y.npy", y.astype(np.float32)), np.save("seen.npy", ~bad)
    words = {
        "poisson": ["--noise", "poisson", "--noise.gain", 1 / 400],
        "seen": ["--seen", "seen.npy", "--sigma", 0.04],
        "saturated": ["--saturated", 1.4, "--sigma", 0.04],
    }[how]
    common = ["y.npy", "--truth", "x.npy", "--operator", "identity", *SMALL, *words, "--json"]
    assert run("tune", *common, "--trials", 3, "--out", "t") == 0
    capsys.readouterr()
    default = json.loads((here / "t" / "trials.json").read_text())["trials"][0]
    assert run("reconstruct", *common, "--out", "r") == 0
    found = json.loads(capsys.readouterr().out)["metrics"]["psnr"]
    assert found == pytest.approx(-default["losses"][0], abs=0.05) and found > 20
    assert run("tune", "x.npy", "--simulate", "--operator", "identity", *SMALL, "--sigma", 0.1,
               *words[:2], "--out", "s") == 2  # fmt: skip


def test_a_truth_of_more_bits_than_the_measurement_keeps_its_white(here):
    """A PNG of 8 bits and its truth of 16: white is 255 in one and 65535 in the other."""
    u = (40000 * np.tri(20, 24)).astype("u2")
    Image.fromarray(u).save("t.png")
    Image.fromarray((u // 257).astype("u1")).save("y.png")
    assert run("tune", "y.png", "--truth", "t.png", "--operator", "identity", "--sigma", 0.01,
               *SMALL, "--trials", 2, "--out", "t", "--quiet") == 0  # fmt: skip
    trials = json.loads((here / "t" / "trials.json").read_text())["trials"]
    assert max(trial["loss"] for trial in trials) < -25
