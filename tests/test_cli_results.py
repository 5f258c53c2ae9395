"""Exit code 0: the result is there, and every number that is written is finite."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_cli import files, picture, run
from test_records import strict

from measurand.data.files import read_image
from measurand.data.form import Form
from measurand.data.writing import write_image
from measurand.figures import legible

TV = ["--operator", "identity", "--sigma", 0.1, "--prior", "total-variation", "--method", "fista",
      "--method.steps", 2]  # fmt: skip

ODD = [
    "a$b\\frac{$.png",
    "$x.png",
    "100%_{^.png",
    "new\nline.png",
    os.fsdecode(b"odd\xff\xfe.png"),
]


@pytest.mark.parametrize("name", ODD, ids=range(len(ODD)))
def test_a_name_that_is_no_formula_and_no_text_has_a_figure(here, name):
    try:
        picture(here / name, 16, 16, 3)
    except OSError:
        pytest.skip("no such names on this file system")
    assert run("reconstruct", name, *TV, "--out", "r", "--quiet") == 0
    assert files("r") == ["comparison.png", "estimate.png", "run.json"]
    assert strict((here / "r" / "run.json").read_text())["file"] == name


def test_what_no_font_has_is_written_as_an_escape():
    assert legible("a$b \u00e9") == "a$b \u00e9"
    assert legible("new\nline\x00") == "new\\nline\\x00"
    assert legible(os.fsdecode(b"odd\xff")) == "odd\\xff"


def test_a_figure_that_cannot_be_drawn_leaves_the_result(here, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("no font\nat all")

    monkeypatch.setattr("measurand.jobs.report.compare", broken)
    picture(here / "y.png", 16, 16, 3)
    assert run("reconstruct", "y.png", *TV, "--out", "r", "--quiet") == 0
    assert files("r") == ["estimate.png", "run.json"]
    notes = json.loads((here / "r" / "run.json").read_text())["notes"]
    assert "comparison.png could not be drawn: no font at all" in notes


def test_metrics_that_are_no_numbers_are_left_out_and_said(here, capsys):
    """Of an image of zeros the relative error is 0/0, and the PSNR of the truth infinite."""
    np.save("z.npy", np.zeros((16, 16)))
    (here / "in").mkdir()
    for name in ("in/a.npy", "in/b.npy"):
        np.save(name, np.zeros((16, 16)))
    assert run("reconstruct", "z.npy", *TV, "--value-range", 0, 1, "--truth", "z.npy", "--json",
               "--out", "r") == 0  # fmt: skip
    record = strict(capsys.readouterr().out)
    assert record == strict((here / "r" / "run.json").read_text()) | {"out": "r"}
    assert "psnr" not in record["metrics"] and any("psnr is inf" in s for s in record["notes"])
    assert run("reconstruct", "in", *TV, "--value-range", 0, 1, "--truth", "in", "--json",
               "--out", "s") == 0  # fmt: skip
    found = strict(capsys.readouterr().out)
    assert "psnr" not in found["metrics"] and "ssim" in found["metrics"]


def test_samples_beyond_single_precision_are_named_with_their_file(here, capsys):
    u = np.random.default_rng(0).random((16, 16))
    np.save("u.npy", u)
    u[3, 3] = 1e300
    np.save("big.npy", u)
    words = (("big.npy", 0, 1), ("u.npy", 0, 1e-320))
    for name, low, high in words:
        assert run("reconstruct", name, *TV, "--value-range", low, high, "--out", "r") == 2
        said = capsys.readouterr().err
        assert f"{name}: samples up to" in said and "single precision" in said
    assert files(here) == ["big.npy", "u.npy"]


def test_an_image_beyond_what_its_file_holds_is_not_written(tmp_path):
    x = torch.full((1, 1, 4, 4), 3.0)
    half = Form(".npy", "float16", axes="HW", low=0.0, high=60000.0)
    with pytest.raises(ValueError, match="beyond what float16 holds"):
        write_image(tmp_path / "a.npy", x, half)
    wide = Form(".npy", "float32", axes="", unit=3e38)
    with pytest.raises(ValueError, match="beyond what float32 holds"):
        write_image(tmp_path / "a.npy", x, wide)
    assert files(tmp_path) == []
    write_image(tmp_path / "a.npy", x / 3, half)
    assert read_image(tmp_path / "a.npy", value_range=(0, 6e4)).x.max() == 1
    write_image(tmp_path / "a.npy", x, replace(half, dtype="uint8", high=255.0))  # clipped
