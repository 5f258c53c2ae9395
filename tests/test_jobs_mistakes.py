"""What contradicts the data is refused by name, and its advice works."""

import json

import numpy as np
import pytest
import tifffile
import torch
from test_cli import run
from test_door import FAST, kspace, scanned, scene

TV = ["--prior", "total-variation", "--method", "fista", "--quiet", "--out", "r"]
IDENTITY = ["--operator", "identity"]
RNG = np.random.default_rng(5)


def refused(capsys, *words):
    assert run("reconstruct", *words) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("words", [["--gaussian", 20], ["--defocus", 80], ["--motion", "500:40"]])
def test_a_blur_far_wider_than_the_picture_is_refused(here, capsys, words):
    np.save("p.npy", (255 * scene()[0]).astype("u1"))
    assert run("deblur", "p.npy", *words, "--prior", "total-variation", "--quiet") == 2
    assert "pixels and a picture of 24 x 28, wanted a blur" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["inverted", "turned", "shifted"])
def test_the_mask_of_other_k_space_is_refused(here, capsys, wrong):
    _, y, _ = kspace(1)
    np.save("k.npy", y[0].numpy())
    seen = (y[0] != 0).any(0).numpy()
    masks = {"inverted": ~seen, "turned": seen.T, "shifted": np.fft.ifftshift(seen)}
    np.save("m.npy", masks[wrong])
    words = ["k.npy", "--operator", "sense", *TV, "--operator.mask", "m.npy"]
    assert "the mask is not that of the data" in refused(capsys, *words)
    np.save("m.npy", (np.abs(np.load("k.npy")) > 0).any(0))
    assert run("reconstruct", *words) == 0


def test_fewer_samples_than_there_are_may_be_taken(here):
    _, y, _ = kspace(1)
    seen = (y[0] != 0).any(0).numpy()
    np.save("k.npy", y[0].numpy())
    np.save("m.npy", seen & (np.arange(64) < 60))
    words = ["k.npy", "--operator", "sense", *TV, "--operator.mask", "m.npy"]
    assert run("reconstruct", *words) == 0


@pytest.mark.parametrize("option", ["mask", "seen"])
def test_an_inverted_mask_of_a_picture_is_refused(here, capsys, option):
    x = scene()[0]
    seen = RNG.random(x.shape) > 0.3
    np.save("y.npy", np.where(seen, x, 0).astype(np.float32)), np.save("m.npy", ~seen)
    words = ["--operator", "mask", "--operator.mask", "m.npy"]
    words = words if option == "mask" else [*IDENTITY, "--seen", "m.npy"]
    words = ["y.npy", *words, "--sigma", 0.01, *FAST, "--out", "r"]
    assert "save mask == 0" in refused(capsys, *words)
    np.save("m.npy", np.load("m.npy") == 0)
    assert run("reconstruct", *words) == 0
    assert np.abs(np.load("r/estimate.npy") - x).mean() < 0.03
    np.save("m.npy", seen[:9])
    assert run("reconstruct", *words) == 2  # of another size: named, not a traceback


def test_a_noise_level_in_other_units_is_refused(here, capsys):
    np.save("y.npy", scene()[0].astype(np.float32))
    words = ["y.npy", *IDENTITY, *FAST, "--out", "r", "--sigma"]
    assert "divide that of 255 by 127.5" in refused(capsys, *words, 25)
    assert run("reconstruct", *words, 25 / 127.5) == 0
    _, y, _ = kspace(1)
    np.save("k.npy", 1e-5 * y[0].numpy())
    words = ["k.npy", "--operator", "sense", *TV, "--sigma"]
    assert "units of the file" in refused(capsys, *words, 0.01)
    assert run("reconstruct", *words, 1e-7) == 0


@pytest.mark.parametrize("word", [["--noise.offset", 500], ["--noise.gain", 1e6]])
def test_a_detector_that_cannot_have_made_the_data_is_refused(here, capsys, word):
    tifffile.imwrite("c.tif", RNG.poisson(50 * scene()[0]).astype(np.uint16))
    words = ["c.tif", *IDENTITY, "--noise", "poisson", "--value-range", 0, 60, *TV]
    assert str(word[0]) in refused(capsys, *words, *word)


def test_check_says_noise_in_units_of_the_file(here, capsys):
    _, y, a = kspace(1)
    np.save("k.npy", 1e-5 * y[0].numpy()), np.save("maps.npy", a.maps[0].numpy())
    words = ["check", "k.npy", "--operator", "sense", "--operator.maps", "maps.npy"]
    words += ["--prior", "total-variation", "--json"]
    assert run(*words, "--sigma", 6e-7) == 1
    verdicts = json.loads(capsys.readouterr().out)["verdicts"]
    advice = next(v["advice"] for v in verdicts if v["name"] == "noise level")
    said = float(advice.split("--sigma ")[1].split(")")[0])
    assert 0.5e-7 < said < 2e-7


def test_magnitudes_are_the_truth_of_k_space(here):
    x, y, _ = kspace(2)
    phase = torch.exp(1j * torch.linspace(-2, 2, 64))  # that a picture of phase zero has not
    _, _, a = kspace(1)
    y = a.observed(a(x * phase))
    np.save("k.npy", 1e-5 * y.numpy()), np.save("x.npy", 1e-5 * x.abs().numpy())
    words = ["k.npy", "--operator", "sense", *TV, "--sigma", 1e-8, "--truth", "x.npy"]
    assert run("reconstruct", *words) == 0
    record = json.loads(open("r/run.json").read())
    assert record["metrics"]["nmse"] < 0.02 and record["metrics"]["psnr"] > 25
    assert any("magnitudes" in note for note in record["notes"])


def test_k_space_that_is_real_incomplete_or_of_many_coils_is_named(here, capsys):
    _, y, _ = kspace(1)
    k = y[0].numpy()
    np.save("k.npy", np.stack([k.real, k.imag], -1))
    assert "a[..., 0] + 1j * a[..., 1]" in refused(capsys, "k.npy", "--operator", "sense", *TV)
    np.save("k.npy", k)
    single = ["k.npy", "--operator", "cartesian-mri", *TV]
    assert "--operator sense" in refused(capsys, *single)
    k[0, 0, 0] = np.nan
    np.save("k.npy", k)
    assert run("reconstruct", "k.npy", "--operator", "sense", *TV) == 0


def test_transmissions_are_no_line_integrals(here):
    scanned()
    flat = np.load("flat.npy")[0] - 50
    p = -np.log((np.load("counts.npy") - 50) / flat)
    words = ["--operator", "parallel-ct", "--shape", 1, 48, 48, "--operator.pixel", 2]
    words += ["--operator.angles", "a.npy", "--sigma", 0.02, *TV]
    np.save("a.npy", np.linspace(0, np.pi, 90, endpoint=False)[:, None])  # as MATLAB has it
    for name, data, doubt in (("p", p, False), ("t", np.exp(-p), True)):
        np.save(f"{name}.npy", data)
        assert run("reconstruct", f"{name}.npy", *words) == 0
        notes = json.loads(open("r/run.json").read())["notes"]
        assert any("-np.log(a)" in note for note in notes) == doubt


def test_a_sinogram_on_its_side_is_named(here, capsys):
    np.save("s.npy", RNG.random((47, 30), dtype=np.float32))
    words = ["--operator", "parallel-ct", "--operator.angles", "even_angles:30"]
    assert "np.swapaxes(a, -1, -2)" in refused(capsys, "s.npy", *words, "--sigma", 1, *TV)
    np.save("s.npy", np.swapaxes(np.load("s.npy"), -1, -2))
    assert run("reconstruct", "s.npy", *words, "--sigma", 0.1, *TV) == 0


def test_flat_and_dark_fields_may_be_tiffs(here):
    """Their samples are counts like those of the data, whatever their range as a picture."""
    scanned()
    words = ["counts.npy", "--operator", "parallel-ct", "--shape", 1, 48, 48, "--sigma", 0.02]
    words += ["--operator.angles", "even_angles:90", "--operator.pixel", 2, *TV]
    found = []
    for suffix in ("npy", "tif"):
        for name in ("flat", "dark"):
            tifffile.imwrite(f"{name}.tif", np.load(f"{name}.npy").round().astype(np.uint32))
        fields = ["--flat", f"flat.{suffix}", "--dark", f"dark.{suffix}"]
        assert run("reconstruct", *words, *fields) == 0
        found.append(np.load("r/estimate.npy"))
    assert np.abs(found[0] - found[1]).max() < 1e-3 * np.abs(found[0]).max()
