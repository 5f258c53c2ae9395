"""A new kind of trained network is a class that its folder names: everything finds it there."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from test_cli import files, picture, run
from torch import nn

from measurand import priors, unfolded
from measurand.batches import Batch
from measurand.domains import Photographs
from measurand.nets import Glow
from measurand.priors.trained import Fitted, Trained
from measurand.problems import GaussianBlurs, MissingPixels
from measurand.recipes import FlowRecipe, PriorRecipe, train_recipe
from measurand.solvers import PosteriorMean
from measurand.training.quality import restoration_psnr
from measurand.weights import store
from measurand.weights.store import kinds, load, save, saveable
from measurand.weights.tensorfile import DamagedFile


class Shrink(Trained):
    """A denoiser of one number: it draws images to zero."""

    kind = "shrink"

    def __init__(self, channels):
        super().__init__()
        self.channels, self.dtype, self.range, self.card = channels, torch.float32, (-1, 1), {}
        self.a = nn.Parameter(torch.full((1,), 0.5))

    def denoise(self, v, sigma, condition=None):
        return self.a * v

    def to_card(self):
        return {"kind": self.kind, "channels": self.channels}

    @classmethod
    def from_card(cls, card):
        return cls(card["channels"])

    @classmethod
    def summary(cls, card):
        return f"shrink of {card['channels']} channels"

    def fitted(self, images, *, tile=1024, name=""):
        if images.shape[0] != self.channels:
            raise ValueError(f"{name} shrinks {self.channels} channels")
        return Fitted(self, ["everything is shrunk"])

    def remarks(self, measurement, x):
        return {"shrunk": float(x.abs().mean())}


class Measured(Shrink):
    """The same, which can be measured."""

    kind = "measured"

    def quality(self, on):
        return on.each("size", "mean size of the images", lambda x, generator: x.abs().mean())


@pytest.fixture
def named(monkeypatch):
    """What the two lines in the folder's `__init__` do."""
    for cls in (Shrink, Measured):
        monkeypatch.setattr(priors, cls.__name__, cls, raising=False)
        monkeypatch.setattr(priors, "__all__", [*priors.__all__, cls.__name__])


def test_a_kind_that_no_folder_names_is_not_ours(tmp_path):
    save(tmp_path / "s.safetensors", Shrink(3))
    with pytest.raises(DamagedFile, match="'shrink', not weights of ours"):
        load(tmp_path / "s.safetensors")


def test_a_new_kind_is_found_by_every_command(named, here, capsys):
    network = Shrink(3)
    network.card = {"licence": "mine", "recipe": {"domain": "Photographs(grey=False)"}}
    network.a.data.fill_(0.25)
    save(here / "s.safetensors", network)
    again = load("s.safetensors")
    assert type(again) is Shrink and float(again.a) == 0.25 and again.card["licence"] == "mine"

    assert run("priors", "s.safetensors") == 0
    assert "shrink of 3 channels; Photographs; 0.0 MB; licence: mine" in capsys.readouterr().out

    picture(here / "a.png", 12, 16, 3)
    words = ["reconstruct", "a.png", "--operator", "identity", "--sigma", 0.1, "--quiet"]
    words += ["--prior", "s.safetensors", "--method", "hqs", "--method.steps", 2]
    assert run(*words, "--out", "r") == 0
    record = json.loads((here / "r" / "run.json").read_text())
    assert record["notes"] == ["everything is shrunk"] and record["metrics"]["shrunk"] > 0
    assert record["nfe"] == 2 and record["prior"]["precision"] == "float32"
    picture(here / "grey.png", 12, 16)
    words[1] = "grey.png"
    assert run(*words, "--out", "g") == 2
    assert "s shrinks 3 channels" in capsys.readouterr().err

    assert run("evaluate", "s.safetensors", "--data", "a.png") == 2
    assert "no measure of the quality of a Shrink" in capsys.readouterr().err
    save(here / "m.safetensors", Measured(3))
    photographs = ["--domain", "Photographs()", "--data", "a.png"]
    assert run("evaluate", "m.safetensors", *photographs, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["measured"] == {"size": "mean size of the images"}
    assert 0 < record["size"]["size"] < 1

    assert run("export", "s.safetensors", "--size", 8, 8, "--portable-only") == 2
    assert "got Shrink, wants UnfoldedDR or a prior" in capsys.readouterr().err
    assert not (here / "exported").exists()
    assert run("check", "a.png", "--operator", "identity", "--sigma", 0.1, "--prior",
               "s.safetensors") in (0, 1)  # fmt: skip
    assert "the prior accepts images real" in capsys.readouterr().out


def test_kinds_are_those_that_the_folders_name():
    found = kinds()
    assert set(found) >= {"edm", "flow", "unfolded", "flow-unfolded"}
    for folder in (priors, unfolded):
        for name in folder.__all__:
            cls = getattr(folder, name)
            if isinstance(cls, type) and issubclass(cls, Trained) and cls is not Trained:
                assert issubclass(cls, found[cls.kind]), f"{name}: another class is of its kind"


def test_what_cannot_be_saved_is_refused():
    with pytest.raises(TypeError, match="got a Conv2d, wants a network that a weight file"):
        saveable(nn.Conv2d(3, 3, 1))
    with pytest.raises(TypeError, match="Conv2d, not a ConvUNet"):
        saveable(priors.EDMDenoiser(nn.Conv2d(3, 3, 1)))
    grey = unfolded.UnfoldedDR.tiny(3).in_grey()
    with pytest.raises(TypeError, match="a step has a Grey, not an EDMDenoiser"):
        saveable(grey)
    network = Shrink(np.ones(3))
    with pytest.raises(TypeError, match="not JSON serializable"):
        saveable(network)


@dataclass(frozen=True)
class Cardless(PriorRecipe):
    """A recipe whose network no file can hold."""

    def new(self, init=None):
        return nn.Conv2d(3, 3, 1)

    def problem(self, material, step, n, size):
        raise AssertionError("trained before it was known whether it can be saved")


def test_a_recipe_whose_network_has_no_card_is_refused_before_the_first_step(here):
    picture(here / "a.png", 40, 40, 3)
    recipe = Cardless("cardless", "mine", Photographs(), crops=(16, 16))
    with pytest.raises(TypeError, match="got a Conv2d, wants a network that a weight file"):
        train_recipe(recipe, [here / "a.png"], here / "run", steps=1)
    assert files(here / "run") == []


def test_evaluate_says_what_it_measured_of_each_kind(here, capsys):
    (here / "set").mkdir()
    for k in range(2):
        picture(here / f"set/{k}.png", 24, 28, 3)
    images = Photographs().look(here / "set")

    def measured(network, *words):
        save(here / "n.safetensors", network)
        assert run("evaluate", "n.safetensors", "--data", "set", *words, "--json") == 0
        record = json.loads(capsys.readouterr().out)
        assert record["images"] == 2
        return record

    torch.manual_seed(0)
    mix = (GaussianBlurs(1.0, 2.0), MissingPixels())
    trained = {"domain": "Photographs()", "sigma_y": [0.02, 0.05]}
    network = unfolded.UnfoldedDR.tiny()
    network.card = {"recipe": {**trained, "mix": list(map(repr, mix))}}
    record = measured(network, "--device", "cpu")
    again = load("n.safetensors")

    def restore(measurement, generator):
        return PosteriorMean()(measurement, again, generator=generator)

    assert record["psnr"] == restoration_psnr(restore, mix, images, sigma=(0.02, 0.05))
    assert "simulated measurements with a noise of 0.02 to 0.05" in record["measured"]["psnr"]
    other = ["--problems", "Denoising()", "--noise-range", 0.1, 0.1]
    assert set(measured(network, *other)["psnr"]) == {"Denoising()"}
    assert run("evaluate", "n.safetensors", "--data", "set", "--levels", 25) == 2
    assert "--levels and --calibration are for denoisers" in capsys.readouterr().err
    network.card = {"recipe": {"domain": "Photographs()"}}
    save(here / "n.safetensors", network)
    assert run("evaluate", "n.safetensors", "--data", "set") == 2
    assert "its card names no problems that it was trained on" in capsys.readouterr().err

    flow = priors.FlowPrior(Glow.tiny(3), shape=(3, 16, 16), card={"recipe": trained})
    x = torch.rand(8, 3, 16, 16)
    flow.flow.initialize(x)
    flow.calibrate(x)
    record = measured(flow, "--device", "cpu")
    assert record["measured"]["bits"].startswith("bits per pixel value")
    bits = FlowRecipe("f", "mine", Photographs()).quality(
        load("n.safetensors"), [Batch({"x": x}) for x in images], None
    )
    assert record["bits"] == bits and 0 < bits["bits"] < 50
    assert run("evaluate", "n.safetensors", "--data", "set", "--noise-range", 0.1, 0.1) == 2
    assert "--problems and --noise-range are for unfolded networks" in capsys.readouterr().err

    folds = unfolded.FlowProximal(flow, unfolded.proximal_folds(flow, 2))
    folds.card = {"recipe": {**trained, "kind": "Denoising()"}}
    assert set(measured(folds)["psnr"]) == {"Denoising()"}
    assert run("evaluate", "n.safetensors", "--data", "set") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "n.safetensors on 2 images of set" and out[1].startswith("PSNR in dB of")
    assert out[2].startswith("  Denoising(): ")


def test_a_damaged_card_and_an_unknown_kind_leave_the_list_of_priors(here, capsys, monkeypatch):
    monkeypatch.setattr(store, "WEIGHTS", here)
    save(here / "a@1.safetensors", unfolded.UnfoldedDR.tiny())
    save(here / "b@1.safetensors", Shrink(3))  # of a later version, perhaps
    (here / "c@1.safetensors").write_bytes((here / "a@1.safetensors").read_bytes()[:-1])
    network = Measured(3)
    network.kind = "flow"  # a card without what a flow says
    save(here / "d@1.safetensors", network)
    assert run("priors") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:3] for line in lines] == ["a@1", "b@1", "c@1", "d@1"]
    assert "unfolded network of 2 steps for color images" in lines[0]
    assert "of a kind unknown here, 'shrink'" in lines[1] and "licence: not said" in lines[1]
    assert "cannot be read" in lines[2] and "c@1.safetensors" in lines[2]
    assert "its card is not one of ours (KeyError" in lines[3]
    assert run("priors", "--json") == 0
    assert "error" in json.loads(capsys.readouterr().out)["c@1"]
    with pytest.raises(DamagedFile, match="card is not one of ours"):
        load("d@1")
