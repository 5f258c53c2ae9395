"""The Python of the pages runs as it stands, but for sizes that would take minutes."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import tiny

import measurand as ms
from measurand.tensors import generators
from measurand.weights.store import save

DOCS = Path(__file__).resolve().parents[1] / "docs"
SMALL = {"(3, 256, 256)": "(3, 24, 24)"}
EIGHT = {"m.repeat(8)": "m.repeat(2)", "PnPDM.quick()": "PnPDM(sweeps=2, rho_max=0.3)"}
PAGES = {
    "start.md": SMALL
    | EIGHT
    | {
        "draws=8": "draws=2",
        "[..., :256, :256]": "[..., :24, :24]",
        '"natural-color"': '"tiny.safetensors"',
    },
    "tune.md": {"HQS()": "HQS(steps=2)", "trials=40": "trials=5", "trials=20": "trials=5"}
    | {"FISTA()": "FISTA(steps=5)"},
    "deploy.md": {'"unfold-color"': '"unfolded.safetensors"', "(256, 256)": "(16, 16)"},
    "methods/samplers.md": EIGHT,
    "methods/diff_unfolding.md": {
        "m.repeat(8)": "m.repeat(2)",
        '"unfold-color"': '"unfolded.safetensors"',
    },
    "methods/score_pnp.md": {
        "HQS()": "HQS(steps=2)",
        "steps=40": "steps=2",
        "steps=100": "steps=2",
    },
    "methods/flow_unfolding.md": {"steps=20": "steps=2"},
    "methods/shift_kl.md": {
        "(64, 3, 64, 64)": "(8, 3, 16, 16)",
        "(3, 64, 64)": "(3, 16, 16)",
        "n=64": "n=8",
        "Divergence()": "Divergence(nodes=3)",
        '"natural-color"': '"tiny.safetensors"',
        '"faces-128"': '"tiny.safetensors"',
        "Adaptation()": "Adaptation(steps=4, every=2)",
    },
    "methods/reld.md": {"64, 64)": "24, 24)"},
    "methods/blind.md": SMALL
    | {
        "side=64": "side=16",
        "[..., :256, :256]": "[..., :24, :24]",
        "repeat(4)": "repeat(2)",
        "BlindPnPDM.quick()": "BlindPnPDM(sweeps=2, search=None)",
        '"natural-color"': '"tiny.safetensors"',
        'ms.load("kernels-64")': "ms.priors.EDMDenoiser.example()",
    },
    "methods/total_variation.md": SMALL | {"steps=100": "steps=3"},
}
ELSEWHERE = {
    "many.md": "test_many_page.py",
    "train.md": "test_train_page.py",
    "data.md": "test_data_collection.py",
}


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


@pytest.fixture
def given(tmp_path, monkeypatch):
    """What the pages speak of without making it."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save("picture.png")
    tiny(tmp_path / "tiny.safetensors")
    network = ms.unfolded.UnfoldedDR([ms.load_prior("tiny.safetensors", dtype=torch.float32)], 2)
    network.card = {}
    save(tmp_path / "unfolded.safetensors", network)
    noise = ms.noises.Gaussian(sigma=0.04)

    def measured(seed):
        A = ms.operators.GaussianBlur((3, 24, 24), sigma=1.6)  # noqa: N806
        x = torch.rand(1, 3, 24, 24, generator=generators(seed, 1)[0]) * 2 - 1
        return ms.Measurement(A, noise, noise(A(x), generators(seed + 1, 1))), x

    m, x = measured(0)
    (m1, x1), (m2, x2) = measured(2), measured(4)
    names = {"ms": ms, "noise": noise, "A": m.operator, "m": m, "x": x, "y": m.y}
    names |= {"m1": m1, "x1": x1, "m2": m2, "x2": x2}
    return names | {"prior": ms.load_prior("tiny.safetensors")}


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page(page, given, tmp_path, capsys):
    if page == "methods/score_pnp.md":
        pytest.importorskip("diffusers")
        from test_priors_diffusers import save

        save(tmp_path / "folder")
        given |= {"unet": lambda x, t: 0 * x, "edm": lambda v, s: v, "f": lambda v, s: 0.9 * v}
    code = "".join(blocks(page))
    for long, short in PAGES[page].items():
        assert long in code, long
        code = code.replace(long, short)
    names = dict(given)
    if page == "start.md":
        names = {}  # the first page takes nothing for granted
    exec(code, names)
    out = capsys.readouterr().out
    if page == "start.md":
        assert "adjoint" in out and "holds" in out and "FAILS" not in out
        assert names["result"].draws.shape == (2, 1, 3, 24, 24) and names["gray"].range == (-1, 1)
    images = {"start.md": ("restored", "mean", "sd", "smooth"), "tune.md": ("x_hat",)}
    images |= {"methods/samplers.md": ("mean", "sd"), "methods/score_pnp.md": ("x",)}
    images |= {"methods/total_variation.md": ("tv", "fast", "x_hat")}
    images |= {"methods/diff_unfolding.md": ("mean",)}
    images |= {"methods/flow_unfolding.md": ("x_hat", "pnp")}
    if page == "deploy.md":
        assert [path.name for path in names["files"]] == ["unfold-color-portable.pt2"]
    for name in images.get(page, ()):
        assert names[name].shape == (1, 3, 24, 24) and bool(names[name].isfinite().all()), name


def test_every_page_with_python_is_run_by_a_test():
    pages = {str(p.relative_to(DOCS)) for p in DOCS.rglob("*.md") if "_build" not in p.parts}
    written = {page for page in pages if blocks(page)}
    assert written == set(PAGES) | set(ELSEWHERE)
    for page, test in ELSEWHERE.items():
        assert page in (Path(__file__).parent / test).read_text()


def test_pages_are_finished():
    for page in [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]:
        if "_build" in page.parts:
            continue
        text = page.read_text()
        assert "{{" not in text, page
        for figure in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
            assert (page.parent / figure).is_file(), (page, figure)
