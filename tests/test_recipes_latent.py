"""An autoencoder is trained, then a denoiser of its codes; the commands know what comes out."""

import json
from dataclasses import replace

import pytest
import torch
from test_cli import picture, run
from test_recipes import data  # noqa: F401 (a fixture)

from measurand.priors import Autoencoder, LatentPrior
from measurand.recipes import autoencoder_color, latent_color, train_recipe
from measurand.weights.store import load

FIRST = replace(autoencoder_color, name="code", widths=(8, 8), batch=4, crops=(16, 32), warmup=2)
SECOND = replace(
    latent_color, name="both", widths=(8, 8), blocks=1, batch=4, crops=(16, 32), warmup=2
)


@pytest.fixture
def first(data, tmp_path):  # noqa: F811
    (file, _) = train_recipe(FIRST, [data], tmp_path / "a", steps=8, quiet=True).values()
    return file


def test_an_autoencoder_then_a_denoiser_of_its_codes(data, first, tmp_path):  # noqa: F811
    code = load(first, Autoencoder, dtype=torch.float32)
    assert code.card["licence"] == FIRST.licence and code.card["held_out_psnr"]["psnr"] > 5
    assert code.error > 0 and len(code.noise) == 8 and len(code.noise[0]) == FIRST.code_channels
    (file, _) = train_recipe(
        SECOND, [data], tmp_path / "b", steps=8, quiet=True, init=first
    ).values()
    prior = load(file, LatentPrior, dtype=torch.float32)
    assert set(prior.card["held_out_psnr"]) == {"ceiling", "0.1", "0.3", "1"}
    assert prior.card["init"]["file"] == first.stem and len(prior.denoiser.gains) == 29
    frozen, kept = code.net.state_dict(), prior.autoencoder.net.state_dict()
    assert all(torch.equal(frozen[k], kept[k]) for k in frozen)
    assert prior.code_noise(0.1) > 0
    # a denoiser that goes on from weights of its kind
    (more, _) = train_recipe(
        SECOND, [data], tmp_path / "c", steps=2, quiet=True, init=file
    ).values()
    assert isinstance(load(more), LatentPrior)
    (more, _) = train_recipe(
        FIRST, [data], tmp_path / "d", steps=2, quiet=True, init=first
    ).values()
    ahead = load(more, Autoencoder, dtype=torch.float32)
    assert ahead.card["held_out_psnr"]["psnr"] > code.card["held_out_psnr"]["psnr"] - 0.5


def test_what_a_denoiser_cannot_start_from_is_said(data, first, tmp_path):  # noqa: F811
    with pytest.raises(ValueError, match="recipe both: got no --init, wants the weight file of"):
        train_recipe(SECOND, [data], tmp_path / "b", steps=1)
    with pytest.raises(ValueError, match="holds EDMDenoiser, wanted Autoencoder or LatentPrior"):
        SECOND.new("natural-color")
    other = replace(FIRST, code_channels=3)
    with pytest.raises(ValueError, match="another network than recipe code, in: autoencoder"):
        other.new(first)


def test_the_commands_know_the_kind(data, first, here, capsys):  # noqa: F811
    (file, _) = train_recipe(SECOND, [data], here / "b", steps=4, quiet=True, init=first).values()
    assert run("priors", file) == 0
    assert "denoiser of the codes of color images, ceiling" in capsys.readouterr().out
    picture(here / "a.png", 30, 41, 3)
    assert run("evaluate", file, "--data", "a.png", "--json") == 0
    ceiling = json.loads(capsys.readouterr().out)["ceiling"]["ceiling"]
    words = ["reconstruct", "a.png", "--operator", "identity", "--sigma", 0.1, "--quiet"]
    words += ["--prior", file, "--method.steps", 3]
    assert run(*words, "--method", "reld", "--out", "r") == 0
    record = json.loads((here / "r" / "run.json").read_text())
    assert record["nfe"] == 2 and 0 < record["metrics"]["ceiling"] < 60 and ceiling > 0
    assert run(*words, "--method", "encoded-reld", "--out", "e") == 0
    assert run(*words, "--method", "hqs", "--out", "h") == 2
    assert "use --method encoded-reld or reld" in capsys.readouterr().err
    picture(here / "grey.png", 12, 16)
    words[1] = "grey.png"
    assert run(*words, "--method", "reld", "--out", "g") == 0
    note = json.loads((here / "g" / "run.json").read_text())["notes"][0]
    assert "shown to both-0.05 as 3 equal channels" in note
    code = run("check", "a.png", "--operator", "identity", "--sigma", 0.1, "--prior", file)
    out = capsys.readouterr().out
    assert code in (0, 1) and "the prior accepts images real" in out and "noise level" in out
    assert run("export", file, "--size", 8, 8, "--portable-only") == 2
    assert "got LatentPrior, wants" in capsys.readouterr().err
