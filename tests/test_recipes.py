import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from measurand.checkpoints import load_prior, load_tensors
from measurand.priors.edm import EDMDenoiser
from measurand.recipes import held_out_psnr, natural_color, train_recipe

TINY = replace(natural_color, name="tiny", widths=(8, 8), blocks=1, batch=4, crop=16, warmup=2)


@pytest.fixture
def data(tmp_path):
    """Six pictures, among them one to hold out."""
    random = np.random.default_rng(0)
    for k, name in enumerate(["train/a", "train/b", "train/c", "train/d", "train/e", "val/f"]):
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (33 + k, 40, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def test_a_run_leaves_weights_and_a_record(data, tmp_path, capfd):
    out = tmp_path / "runs" / "tiny"
    files = train_recipe(TINY, [data], out, steps=12)
    assert set(files) == {"tiny-0.05", "tiny-0.1"}
    asked = json.loads((out / "run.json").read_text())
    assert asked["pictures"] == 5 and asked["recipe"]["batch"] == 4
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == last["steps"] == 12 and last["patches"] == 48
    assert last["images_per_second"] > 0 and last["tflops"] > 0 and len(last["loss"]) == 4
    assert last["eta"] == 0 and 0 < last["psnr"]["25"] < 40
    assert "step=12" in capfd.readouterr().err
    prior = load_prior(files["tiny-0.05"])
    assert prior.card["licence"] == TINY.licence and prior.card["patches"] == 48
    assert prior.card["data"] == ["photos"] and prior.card["held_out_psnr"]["25"] > 0
    assert prior.denoise(torch.zeros(1, 3, 9, 11), 0.1).shape == (1, 3, 9, 11)


def test_init_starts_from_a_prior(data, tmp_path):
    (first, _) = train_recipe(TINY, [data], tmp_path / "a", steps=3, quiet=True).values()
    frozen = replace(TINY, lr=0.0)
    (second, _) = train_recipe(
        frozen, [data], tmp_path / "b", steps=4, init=first, quiet=True
    ).values()
    a, b = load_tensors(first)[0], load_tensors(second)[0]
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_no_licence_no_training(data, tmp_path):
    with pytest.raises(ValueError, match="tiny: states no licence"):
        train_recipe(replace(TINY, licence=" "), [data], tmp_path / "out", steps=1)
    assert not (tmp_path / "out").exists()


def test_no_pictures_no_training(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: got no picture to train on"):
        train_recipe(TINY, [tmp_path / "empty"], tmp_path / "out", steps=1)


def test_psnr_of_a_denoiser_that_does_nothing():
    """D(v) = v has the error of the noise: 20 log10(255 / level) dB."""

    class Identity(EDMDenoiser):
        def forward(self, v, sigma, condition=None):
            return v

    images = [np.full((300, 310, 3), 128, np.uint8)] * 2
    found = held_out_psnr(Identity(torch.nn.Conv2d(3, 3, 1)), images, levels=(15, 50))
    assert found == pytest.approx({"15": 24.61, "50": 14.15}, abs=0.05)
