"""The demo and its pictures, on small problems with a small network."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import tiny

from measurand.demo import BlindScene, Scene, default_scenes, demo, photograph
from measurand.demo.page import Panel, Row, overview, page
from measurand.figures import heat, pixels
from measurand.jobs.report import comparison
from measurand.nets import Glow
from measurand.operators import GaussianBlur, Mask
from measurand.priors.flow import FlowPrior
from measurand.samplers import BlindPnPDM, HeunSDE, PnPDM, ReverseSDE
from measurand.solvers import HQS, BlindHQS
from measurand.unfolded import FlowProximal, UnfoldedDR, proximal_folds
from measurand.weights.store import load_prior, save


@pytest.fixture
def small(monkeypatch):
    """Two problems of 32 x 32 pixels, and samplers of a few steps."""
    monkeypatch.setattr("measurand.demo.scenes.SHAPE", (3, 32, 32))
    short = PnPDM(sweeps=2, rho_max=0.5, reverse=ReverseSDE(steps=2, sigma_max=1.0))
    monkeypatch.setattr(PnPDM, "quick", classmethod(lambda cls: short))
    shape = (3, 32, 32)
    mask = (torch.arange(32) % 2).expand(1, 32, 32)
    return [
        Scene("Blur", "words", "chelsea", (60, 140), (8, 8, 12), GaussianBlur(shape, 1.0), 0.02),
        Scene("Holes", "more", "coffee", (60, 140), (8, 8, 12), Mask(shape, mask), 0.02),
    ]


@pytest.fixture
def weights(tmp_path):
    """Small networks of every kind that the demo shows."""
    torch.manual_seed(0)
    prior = tiny(tmp_path / "p.safetensors")
    network = UnfoldedDR([load_prior(prior, dtype=torch.float32)], 2)
    save(tmp_path / "u.safetensors", network)
    flow = FlowPrior(Glow.tiny(3), shape=(3, 16, 16))
    x = torch.rand(4, 3, 16, 16)
    flow.flow.initialize(x)
    flow.calibrate(x)
    flows = str(tmp_path / "f.safetensors")
    save(flows, FlowProximal(flow, proximal_folds(flow, 2)))
    unfolded = str(tmp_path / "u.safetensors")
    return {"prior": str(prior), "unfolded": unfolded, "flows": (flows, flows)}


def test_the_demo_writes_a_page_a_picture_and_a_table(tmp_path, small, weights):
    words = demo(tmp_path / "out", **weights, quiet=True, chosen=small)
    files = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert files == ["index.html", "overview.png", "results.json"]
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    for found in record["results"]:
        scores = found["methods"]
        assert list(scores) == ["TV", "HQS", "Unfolding", "Flow", "DiffPIR", "PnP-DM"]
        assert found["best"] == max(scores, key=lambda name: scores[name]["psnr"])
        assert f"best by PSNR, {found['problem']}: {found['best']}" in words
        assert all(s["psnr"] > 5 and s["seconds"] >= 0 for s in scores.values())
        assert scores["HQS"]["nfe"] in (8, 16) and scores["TV"]["nfe"] == 0
        assert scores["Unfolding"]["nfe"] == 2  # a call for each step
    assert str(tmp_path / "out" / "index.html") in words
    text = (tmp_path / "out" / "index.html").read_text()
    assert text.count("<section") == 2 and text.count("<figure") == 18
    assert not re.findall(r"(?:src|href)=\"(?!data:)", text), "the page needs nothing else"
    assert text.count("data:image/png;base64,") == 2 * (9 + 7)  # images; errors and a scale


def test_the_blind_case_shows_the_kernel_beside_the_true_one(
    tmp_path, small, weights, monkeypatch
):
    short = BlindPnPDM(
        sweeps=2,
        theta_rho_max=0.1,
        reverse=HeunSDE(2, 1.0, 0.02),
        search=BlindHQS(turns=1, solver=HQS(steps=2)),
    )
    monkeypatch.setattr("measurand.demo.blind.METHOD", short)
    kernel = torch.zeros(9, 9)
    kernel[4, 2:7] = 0.2
    scene = BlindScene("Shaken", "unknown", "coffee", (60, 140), (8, 8, 12), kernel, 16, 0.02)
    kernels = tiny(tmp_path / "k.safetensors", channels=1, alpha=0.4)
    words = demo(
        tmp_path / "out", **weights, kernels=str(kernels), quiet=True, chosen=small[:1],
        blind=[scene],
    )  # fmt: skip
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    (found,) = record["blind"]
    assert list(found["methods"]) == ["Blind TV", "Blind edges", "edges, then HQS", "Blind PnP-DM"]
    assert all(0 < s["kernel"] <= 1 and s["psnr"] > 5 for s in found["methods"].values())
    text = (tmp_path / "out" / "index.html").read_text()
    assert "kernel found" in text and "true kernel" in text and text.count("<figure") == 18
    assert f"best by PSNR, Shaken: {found['best']}" in words and "kernel 0." in words


def test_the_same_seed_gives_the_same_numbers(tmp_path, small, weights):
    found = []
    for name in "ab":
        demo(tmp_path / name, **weights, quiet=True, chosen=small[:1])
        results = json.loads((tmp_path / name / "results.json").read_text())["results"]
        found.append([(s["psnr"], s["ssim"]) for s in results[0]["methods"].values()])
    assert found[0] == found[1]


def test_the_photographs_ship_and_the_problems_fit_them():
    for problem in default_scenes():
        x = photograph(problem.photo, problem.corner)
        assert x.shape == (1, 3, 256, 256) and x.min() >= -1 and x.max() <= 1 and x.std() > 0.2
        assert problem.operator(x).isfinite().all()
        top, left, side = problem.zoom
        assert max(top, left) + side <= 256


def test_images_of_every_kind_can_be_looked_at():
    assert pixels(torch.tensor([[[[-1.0, 1.0, 5.0]]]])).tolist() == [
        [[0] * 3, [255] * 3, [255] * 3]
    ]
    assert pixels(torch.zeros(1, 3, 4, 5)).shape == (4, 5, 3)
    assert pixels(torch.ones(1, 4, 4, 5, dtype=torch.complex64)).max() == 255
    assert pixels(torch.zeros(1, 2, 6, 4, 5)).shape == (4, 5, 3)
    scale = heat(torch.tensor([[[[0.0, 0.5, 1.0, 9.0]]]]), 1.0).astype(int)
    assert scale[0, 0].sum() < 10 and (scale[0, 2] == scale[0, 3]).all()
    assert scale[0, 0].sum() < scale[0, 1].sum() < scale[0, 2].sum()


def test_overview_shows_pixels_as_they_are(tmp_path):
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    error = torch.full((1, 1, 64, 64), 0.1)
    panels = [Panel("a", x), Panel("b", x, "1 dB", error, best=True), Panel("sd", error, map=True)]
    row = Row("title", "text", panels, (4, 4, 16))
    assert row.scale == pytest.approx(0.1)
    overview(tmp_path / "o.png", [row, row], title="T", footer="F")
    seen = np.asarray(Image.open(tmp_path / "o.png").convert("RGB")).astype(int)
    wanted = pixels(x).astype(int)[24:60, 24:60]  # beside the frame of the enlarged square
    windows = np.lib.stride_tricks.sliding_window_view(seen, (36, 36, 3))[:, :, 0]
    near = np.abs(windows[..., ::7, ::7, :] - wanted[::7, ::7]).max((-1, -2, -3)) <= 1
    assert near.sum() == 4  # two images in each of two rows, unsmoothed
    page(
        tmp_path / "p.html",
        [row],
        title="<T>",
        intro="i",
        table=[["", "m"], ["x & y", "1"]],
        best=[[False, True]],
        footer="f",
    )
    text = (tmp_path / "p.html").read_text()
    assert "&lt;T&gt;" in text and "x &amp; y" in text and "<td class=best>1</td>" in text


def test_comparison_adds_an_error_map_where_the_truth_is_known(tmp_path):
    x = torch.zeros(1, 1, 20, 30)
    panels = [("measured", x), ("estimate", x), ("standard deviation", x + 0.1)]
    comparison(tmp_path / "a.png", panels, title="t")
    comparison(tmp_path / "b.png", [*panels, ("truth", x + 0.2)], title="t")
    a, b = (Image.open(tmp_path / n).size for n in ("a.png", "b.png"))
    assert b[0] > a[0] and b[1] > 1.5 * a[1]  # one more image, and a row of errors
