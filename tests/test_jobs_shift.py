"""The command that asks which prior fits: files in, an order out, and what it refuses."""

import json

import numpy as np
import pytest
import torch
from shifted import seeded

from measurand.cli import main
from measurand.nets import ConvUNet
from measurand.priors.edm import EDMDenoiser
from measurand.weights.store import save

SIDE, N = 16, 10


def smoother(path, mean):
    """A network that answers its mean alone: it knows nothing but the level of grey."""
    torch.manual_seed(0)
    net = ConvUNet(1, widths=(4, 8), blocks=1, features=8)
    for p in net.parameters():
        torch.nn.init.zeros_(p)
    prior = EDMDenoiser(net, channels=1, mean=mean, sigma_data=0.3)
    save(path, EDMDenoiser(net, channels=1, mean=mean, sigma_data=0.3, card={"licence": "none"}))
    return prior


@pytest.fixture
def scans(tmp_path, monkeypatch):
    """Masked images of mean 0.5, with a mask each, and priors of mean 0.5 and -0.5."""
    monkeypatch.chdir(tmp_path)
    for folder in ("y", "m"):
        (tmp_path / folder).mkdir()
    for k in range(N):
        x = 0.5 + 0.3 * torch.randn(1, SIDE, SIDE, generator=seeded(k))
        mask = (torch.rand(1, SIDE, SIDE, generator=seeded(100 + k)) < 0.6).float()
        y = (x + 0.05 * torch.randn(x.shape, generator=seeded(200 + k))) * mask
        np.save(tmp_path / "y" / f"{k}.npy", y.numpy())
        np.save(tmp_path / "m" / f"{k}.npy", mask[0].numpy())
    smoother(tmp_path / "right.safetensors", 0.5)
    smoother(tmp_path / "wrong.safetensors", -0.5)
    return tmp_path


def run(*words):
    return main(["shift", "y", "--operator", "mask", "--value-range", "-1", "1", "--sigma", "0.05",
                 "--nodes", "12", *map(str, words)])  # fmt: skip


PRIORS = ("--priors", "wrong.safetensors", "right.safetensors")


def test_the_prior_of_the_images_comes_first(scans, capsys):
    assert run("--operator.mask", "m", *PRIORS, "--reference", "right.safetensors",
               "--out", "r", "--device", "cpu") == 0  # fmt: skip
    assert capsys.readouterr().out.splitlines()[-2] == "right.safetensors fits best"
    record = json.loads((scans / "r" / "shift.json").read_text())
    assert [rank["name"] for rank in record["order"]] == ["right.safetensors", "wrong.safetensors"]
    assert record["order"][1]["interval"][0] > 0
    curve = record["divergence"]["wrong.safetensors"]
    assert set(record["divergence"]) == {"wrong.safetensors"}
    assert curve["total"] == pytest.approx(curve["cumulative"][-1]) and curve["total"] > 0
    # KL of Gaussians of variance 0.09 whose means differ by 1, less what lies below the noise
    known = SIDE**2 * 0.5 * (1 / (0.3**2 + 0.05**2))
    assert curve["total"] == pytest.approx(known, rel=0.15)
    assert (scans / "r" / "shift.png").read_bytes()[:4] == b"\x89PNG"
    # a rerun with other words replaces it; a folder of something else is refused
    assert run("--operator.mask", "m", *PRIORS, "--out", "r", "--json", "--limit", 8) == 0
    assert len(json.loads(capsys.readouterr().out)["files"]) == 8
    (scans / "other").mkdir()
    (scans / "other" / "thesis.txt").write_text("mine")
    assert run("--operator.mask", "m", *PRIORS, "--out", "other") == 2
    assert "something else" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--operator.mask", "m/0.npy", *PRIORS), "another image's"),
        (("--operator.mask", "m", "--priors", "right.safetensors"), "two or more"),
        (("--operator.mask", "m", "--priors", "right.safetensors", "wavelets"), "no denoiser"),
        (("--operator.mask", "m", *PRIORS, "--out", "y"), "is read"),
        (("--operator.mask", "m", *PRIORS, "--out", "m"), "is read"),
        (("--operator.mask", "m", *PRIORS, "--limit", "0"), "at least one"),
    ],
)
def test_what_says_nothing_is_refused(scans, capsys, words, said):
    assert run(*words) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1
    assert not (scans / "runs").exists() or not any((scans / "runs").glob("[!.]*"))


def test_one_mask_for_all_when_it_is_meant(scans, capsys):
    """What a single mask hides of all of them is unknown: said, unless it is meant."""
    for k in range(N):
        mask, y = np.load("m/0.npy"), np.load(f"y/{k}.npy")
        np.save(f"y/{k}.npy", y * mask)
    assert run("--operator.mask", "m/0.npy", *PRIORS) == 2
    assert "same" in capsys.readouterr().err
    assert run("--operator.mask", "m/0.npy", "--fixed", *PRIORS, "--reference",
               "right.safetensors", "--out", "r") == 0  # fmt: skip
    assert "(partial)" in capsys.readouterr().out


def test_a_missing_mask_is_named(scans, capsys):
    (scans / "m" / "3.npy").unlink()
    assert run("--operator.mask", "m", *PRIORS) == 2
    assert "no mask there is called like 3" in capsys.readouterr().err
