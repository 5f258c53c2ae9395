"""Blind reconstructions on the command line: folders of results, and what cannot be one."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import files, picture, run, tiny

from measurand.blind import BlindMeasurement
from measurand.checks import check_blind
from measurand.checks.questions import NOT
from measurand.jobs.arguments import build_for, families
from measurand.noises import Gaussian
from measurand.operators import UnknownBlur, UnknownDefocus, UnknownValidBlur
from measurand.priors import CallableDenoiser

METHOD = ["--method", "blind-pnpdm", "--method.sweeps", 2, "--method.search.turns", 1]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "photo.png", 40, 48, 3)
    tiny(tmp_path / "p.safetensors")
    return tmp_path


def blind(*words, operator="unknown-defocus", file="photo.png"):
    options = ["--operator.largest", 2] if operator == "unknown-defocus" else []
    return run(
        "reconstruct", file, "--operator", operator, *options, "--sigma", 0.05,
        "--prior", "p.safetensors", *METHOD, "--draws", 2, *words,
    )  # fmt: skip


def test_defocus_of_unknown_radius_gives_image_kernel_and_deviations(here):
    assert blind("--out", "r", "--quiet") == 0
    written = {"comparison.png", "estimate.png", "kernel.npy", "kernel.png", "run.json"}
    written |= {f"draws/{name}" for name in ("00.png", "01.png", "kernel_00.npy", "kernel_01.npy")}
    assert written <= set(files("r"))
    kernel = np.load("r/kernel.npy")
    assert kernel.min() >= 0 and kernel.sum() == pytest.approx(1, abs=1e-5)
    assert np.asarray(Image.open("r/estimate.png")).shape == (40, 48, 3)
    record = json.loads((here / "r" / "run.json").read_text())
    assert record["theta_prior"]["name"] == "OneOf" and len(record["misfits"]) == 2
    assert "UnknownDefocus" in record["operator"]["family"]


def test_a_truth_beside_an_unknown_kernel_is_compared(here):
    found = []
    for k, shift in enumerate((0, 3)):
        picture = np.asarray(Image.open("photo.png"))
        Image.fromarray(np.roll(picture, shift, 0)).save("truth.png")
        assert blind("--out", f"r{k}", "--quiet", "--truth", "truth.png") == 0
        record = json.loads((here / f"r{k}" / "run.json").read_text())
        (note,) = [note for note in record["notes"] if note.startswith("psnr after")]
        found.append((record["metrics"]["psnr"], float(note.split()[5]), note))
    (there, down, _), (moved, further, _) = found
    assert further == pytest.approx(down + 3, abs=0.25)  # the truth was moved, and is found
    assert moved == pytest.approx(there, abs=1.0)


@pytest.mark.parametrize(
    ("operator", "options", "family", "shape"),
    [
        ("unknown-blur", {"side": 9}, UnknownValidBlur, (3, 28, 32)),
        ("unknown-circular-blur", {"side": 9}, UnknownBlur, (3, 20, 24)),
        ("unknown-defocus", {"largest": 4.0}, UnknownDefocus, (3, 28, 32)),
    ],
)
def test_a_family_is_built_for_the_shape_of_the_data(operator, options, family, shape):
    made = build_for(families()[operator](**options), (3, 20, 24))
    assert type(made) is family and made.in_shape == shape and made.out_shape == (3, 20, 24)


def error_of(capsys, code, *words, **options):
    assert blind(*words, **options) == code
    _, err = capsys.readouterr()
    assert "Traceback" not in err and len(err.strip().splitlines()) <= 3
    return err


def test_what_cannot_be_reconstructed_is_named(here, capsys):
    side = ["--operator.side", 41]
    err = error_of(capsys, 2, *side, operator="unknown-blur")
    assert "a kernel of 41x41 for data of 40x48" in err
    err = error_of(capsys, 2, *side, operator="unknown-circular-blur")
    assert "a kernel of 41x41 for images of 40x48" in err
    assert "sigma = 0" in error_of(capsys, 2, "--sigma", 0)
    np.save("complex.npy", np.ones((1, 20, 20), np.complex64))
    assert "complex" in error_of(capsys, 2, file="complex.npy")
    np.save("holes.npy", np.where(np.eye(40), np.nan, 0.5).astype(np.float32))
    assert "missing" in error_of(capsys, 2, "--value-range", 0, 1, file="holes.npy")
    err = error_of(capsys, 2, "--theta-prior", "kernels-64")
    assert "UnknownDefocus" in err and "got a prior of 1 channels" in err
    err = error_of(capsys, 2, "--operator.side", 16, operator="unknown-blur")
    assert "64 pixels" in err


def test_grey_photographs_and_colour_priors_go_together_or_say_why_not(here):
    picture(here / "grey.png", 40, 48)
    assert blind("--out", "g", "--quiet", file="grey.png") == 0
    assert np.asarray(Image.open("g/estimate.png")).shape == (40, 48)


def test_a_blind_method_for_a_known_operator_is_named(here, capsys):
    words = ["--operator", "identity", "--sigma", 0.1, "--prior", "p.safetensors", *METHOD]
    assert run("reconstruct", "photo.png", *words) == 2
    err = capsys.readouterr().err
    assert "unknown-blur" in err and "Traceback" not in err


def verdicts(capsys, *words):
    code = run("check", *words, "--sigma", 0.05, "--prior", "p.safetensors", "--json")
    said = json.loads(capsys.readouterr().out)
    assert code == (0 if said["fits"] else 1)
    return {v["name"]: v for v in said["verdicts"]}


def test_check_knows_problems_with_an_unknown_operator(here, capsys):
    options = ["--operator", "unknown-defocus", "--operator.largest", 2]
    found = verdicts(capsys, "photo.png", *options)
    names = ("bilinear", "adjoint of theta", "prior of theta", "adjoint", "noise level")
    assert set(names) <= set(found)
    assert all(found[name]["verdict"] == "fits" for name in names[:4])
    found = verdicts(capsys, "photo.png", *options, "--theta-prior", "p.safetensors")
    assert found["prior of theta"]["verdict"] == "does not fit" and "noise level" not in found
    options = ["--operator", "unknown-circular-blur", "--operator.side", 16]
    found = verdicts(capsys, "photo.png", *options)
    assert "64 pixels" in found["prior of theta"]["found"]
    picture(here / "grey.png", 40, 48)
    assert run("check", "photo.png", "--operator", "identity", "--theta-prior", "kernels-64") == 2
    assert "operators with unknowns" in capsys.readouterr().err


def test_a_family_that_is_not_bilinear_is_found():
    class Wrong(UnknownBlur):
        def offset(self, x):
            return 0 * super().offset(x)

    family = Wrong((1, 20, 20), 5)
    blind = BlindMeasurement(family, Gaussian(0.1), torch.zeros(1, 1, 20, 20))
    (found, _) = check_blind(blind, None, CallableDenoiser(lambda v, sigma: v))
    assert found.name == "bilinear" and found.verdict == NOT
