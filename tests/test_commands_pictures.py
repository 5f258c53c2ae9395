"""deblur, denoise and upscale: a picture in, a picture beside it out."""

import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from test_cli import picture, run
from test_jobs_folders import files

from measurand.cli import main
from measurand.data.files import read_image
from measurand.operators import ValidBlur, disk_kernel, gaussian_kernel, motion_kernel

TV = ["--prior", "total-variation"]


def said(capsys):
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "kernel"),
    [
        (["--gaussian", 1.2], gaussian_kernel(1.2)),
        (["--defocus", 2.5], disk_kernel(2.5)),
        (["--motion", "6:90"], motion_kernel(6.0, np.pi / 2)),
        (["--psf", "psf.tif"], gaussian_kernel(1.0, 7)),
    ],
)
def test_a_blur_of_a_camera_is_taken_out(here, capsys, words, kernel):
    """Blurred without wrap-around: the result is nearer to the truth, up to its edges."""
    h, w = kernel.shape[-2:]
    blocks = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * 1.8 - 0.9
    x = blocks.repeat_interleave(6, 2).repeat_interleave(6, 3)[..., : 39 + h, : 47 + w]
    x = x.contiguous()
    A = ValidBlur(tuple(x.shape[1:]), kernel)  # noqa: N806
    u = ((A(x)[0].movedim(0, -1).numpy() + 1) * 127.5).round().astype("u1")
    Image.fromarray(u).save("p.png")
    tifffile.imwrite("psf.tif", (kernel.numpy() * 6e5 + 50).round().astype("u2"))
    assert run("deblur", "p.png", *words, *TV, "--sigma", 0.01) == 0
    assert "note: boundary: the scene goes on beyond the frame" in capsys.readouterr().out
    found, truth = read_image("p-deblurred.png").x, A.framed(x)
    assert found.shape == truth.shape
    edge = torch.ones(truth.shape[-2:], dtype=torch.bool)
    edge[4:-4, 4:-4] = False
    for part in (edge, ~edge):
        error = (found - truth)[..., part].square().mean()
        assert error < 0.7 * (read_image("p.png").x - truth)[..., part].square().mean()


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.npy", "g.png", "f.npy"])
def test_the_form_of_the_input_stays(here, name):
    u = np.asarray(Image.open(picture(here / "s.png", 20, 24, 3)))
    values = {
        "a.png": u, "a.jpg": u, "a.tif": u.astype("u2") * 257, "a.npy": u, "g.png": u[..., 0],
        "f.npy": (u / 255).astype("f4"),
    }[name]  # fmt: skip
    if name.endswith(".npy"):
        np.save(name, values)
    elif name.endswith(".tif"):
        tifffile.imwrite(name, values)
    else:
        Image.fromarray(values).save(name)
    before = read_image(name)
    for ending, factor, words in (("denoised", 1, ["denoise"]), ("upscaled", 2, ["upscale"])):
        assert run(*words, name, *TV, "--sigma", 0.05, "--quiet") == 0
        stem, suffix = name.split(".")
        after = read_image(f"{stem}-{ending}.{suffix}")
        assert after.x.shape[2:] == tuple(factor * n for n in before.x.shape[2:])
        for field in ("suffix", "dtype", "axes", "low", "high"):
            assert getattr(after.form, field) == getattr(before.form, field)


def test_a_result_is_replaced_by_that_of_the_same_input_only(here, capsys):
    picture(here / "a.png", 16, 18, 3)
    words = ["denoise", "a.png", *TV, "--quiet", "--sigma"]
    assert run(*words, 0.1) == 0 and run(*words, 0.2) == 0
    assert files(".") == ["a-denoised.json", "a-denoised.png", "a.png"]
    record = json.loads((here / "a-denoised.json").read_text())
    assert record["sigma"] == 0.2 and record["inputs"] == [str(here / "a.png")]
    own = picture(here / "b-denoised.png", 8, 8, 3).read_bytes()  # somebody else's
    picture(here / "b.png", 16, 18, 3)
    assert run("denoise", "b.png", *TV, "--sigma", 0.1) == 0
    assert (here / "b-denoised.png").read_bytes() == own
    assert capsys.readouterr().out.splitlines()[-1].startswith("b-denoised-2.png")
    np.savez("z.npz", u=np.zeros((8, 9)), v=np.ones((8, 9)))
    for key in "uv":
        assert run("denoise", f"z.npz:{key}", *TV, "--quiet", "--sigma", 0.1) == 0
    assert {"z-denoised.npz", "z-denoised-2.npz"} <= set(files("."))


def test_a_folder_of_results_is_that_of_reconstruct(here, capsys):
    picture(here / "a.png", 16, 18, 3)
    for _ in range(2):
        assert run("deblur", "a.png", "--motion", "4:0", *TV, "--sigma", 0.1, "--out", "r") == 0
    assert files("r") == ["comparison.png", "estimate.png", "run.json"]
    assert files(".") == ["a.png", *[f"r/{name}" for name in files("r")]]
    command = json.loads((here / "r" / "run.json").read_text())["command"]
    before = (here / "r" / "estimate.png").read_bytes()
    assert command[1] == "reconstruct" and main(command[1:]) == 0
    assert (here / "r" / "estimate.png").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["deblur", "a.png"], "got none of --psf, --defocus, --gaussian, --motion; wanted one"),
        (["deblur", "a.png", "--gaussian", 1, "--defocus", 2], "got --defocus and --gaussian of"),
        (["deblur", "a.png", "--gaussian", 0], "--gaussian: got 0, wanted a positive number"),
        (["deblur", "a.png", "--defocus", "nan"], "--defocus: got nan, wanted a positive"),
        (["deblur", "a.png", "--motion", "12"], "--motion: got '12', wanted LENGTH:DEGREES"),
        (["deblur", "a.png", "--motion", "-3:1"], "wanted a positive length and a finite angle"),
        (["deblur", "a.png", "--psf", "no.tif"], "kernel: no.tif: no such file"),
        (["denoise", "no.png"], "no.png: no such file"),
        (["upscale", "."], "upscale: got ., wanted a picture"),
        (["denoise", "a.png", "--prior", "nothing"], "no weights are called 'nothing'"),
    ],
)
def test_one_line_says_what_is_wrong(here, capsys, words, message):
    picture(here / "a.png", 16, 18, 3)
    assert run(*words) == 2
    assert message in said(capsys)
    assert files(".") == ["a.png"]


def test_what_was_chosen_is_printed_and_kept(here, capsys):
    picture(here / "a.png", 16, 18)
    assert run("denoise", "a.png") == 0
    out = capsys.readouterr().out
    assert "note: noise estimated: sigma" in out
    assert "note: prior natural-gray, method admm: the best that ship for a grey picture" in out
    record = json.loads((here / "a-denoised.json").read_text())
    assert record["prior"]["name"].startswith("natural-gray@")
    assert record["method"]["class"] == "ADMM" and record["sigma_estimated"]
    assert any(note.startswith("prior natural-gray") for note in record["notes"])
