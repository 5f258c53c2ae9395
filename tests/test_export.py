import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from measurand.export import export
from measurand.measurement import Measurement
from measurand.nets import ConvUNet
from measurand.noises import Gaussian
from measurand.operators import BlockAverage, Blur, Mask, motion_kernel
from measurand.priors.edm import EDMDenoiser
from measurand.samplers import DiffUnfolding
from measurand.solvers import PosteriorMean
from measurand.tensors import randn_like
from measurand.unfolded import UnfoldedDR, UnfoldedHQS

CPP = Path(__file__).resolve().parents[1] / "cpp"
SIZE = (21, 30)  # odd and even, both whole blocks of three
needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to compile with")
needs_cmake = pytest.mark.skipif(shutil.which("cmake") is None, reason="no cmake to build with")


def network(blocks=1, channels=3, dtype=torch.float32):
    """Two steps or more, whose numbers all differ from those at the start of training."""
    torch.manual_seed(0)
    priors = []
    for _ in range(blocks):
        real = channels * (2 if dtype.is_complex else 1)
        net = ConvUNet(real, widths=(8, 16), blocks=1, features=16)
        for p in net.parameters():
            torch.nn.init.normal_(p, std=0.1)
        priors.append(EDMDenoiser(net, channels=channels, dtype=dtype))
    made = UnfoldedDR(priors, max(2, blocks), sigma_data=0.4)
    for p in (*made.radius.parameters(), made.alpha, made.beta):
        torch.nn.init.normal_(p, std=0.5)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """An exported network of three different blocks, one compile for all tests."""
    made = network(3)
    return made, export(made, tmp_path_factory.mktemp("export") / "net.pt2", size=SIZE, batch=4)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """The program of `cpp/`, built."""
    build = tmp_path_factory.mktemp("cpp")
    prefix = torch.utils.cmake_prefix_path
    for words in (["-S", CPP, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}"], ["--build", build]):
        found = subprocess.run(["cmake", *words], capture_output=True, text=True)
        assert found.returncode == 0, found.stdout + found.stderr
    return build / "measurand-run"


def test_portable_programs_compute_what_the_priors_do(package):
    made, files = package
    portable = [path for path in files if "portable" in path.name]
    assert [path.name for path in portable] == [f"net-portable-{k}.pt2" for k in range(3)]
    for path, prior in zip(portable, made.priors, strict=True):
        about = {"depth": "", "size": ""}
        program = torch.export.load(path, extra_files=about)
        assert (about["depth"], about["size"], about["channels"]) == ("3", "21 30", "3")
        for n in (1, 3, 4):
            v, r = torch.randn(n, 3, *SIZE), torch.rand(n) + 0.05
            assert torch.allclose(program.module()(v, r), prior.denoise(v, r), atol=1e-5)


@needs_compiler
def test_compiled_blocks_compute_what_the_priors_do(package):
    from torch._inductor.package import load_package

    made, files = package
    for k, prior in enumerate(made.priors):
        block = load_package(str(files[-1]), f"block{k}")
        for n in (1, 3):
            v, r = torch.randn(n, 3, *SIZE), torch.rand(n) + 0.05
            assert torch.allclose(block(v, r), prior.denoise(v, r), atol=1e-5)


def test_a_complex_prior_is_exported_on_its_real_channels(tmp_path):
    prior = network(channels=1, dtype=torch.complex64).priors[0]
    (file,) = export(prior, tmp_path / "p.pt2", size=(16, 16), batch=1, compiled=False)
    v = torch.randn(1, 1, 16, 16, dtype=torch.complex64)
    z = torch.export.load(file).module()(torch.view_as_real(v[:, 0]).movedim(-1, 1), torch.ones(1))
    wanted = prior.denoise(v, 1.0)
    assert torch.allclose(torch.complex(z[:, :1], z[:, 1:]), wanted, atol=1e-5)


def test_other_steps_and_senseless_sizes_are_refused(tmp_path):
    made = UnfoldedHQS([network().priors[0]], 2)
    with pytest.raises(ValueError, match="got UnfoldedHQS, wants UnfoldedDR or a prior"):
        export(made, tmp_path / "h.pt2", size=SIZE)
    with pytest.raises(ValueError, match="batch of 0"):
        export(network(), tmp_path / "b.pt2", size=SIZE, batch=0)
    assert not list(tmp_path.iterdir())


def blur():
    kernel = motion_kernel(5.0, 0.7, 7)[:, :6]
    return Blur((3, *SIZE), kernel), "kernel", kernel


def mask():
    seen = (torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(1)) > 0.6).float()
    return Mask((3, *SIZE), seen), "mask", seen


def super_resolution():
    return BlockAverage((3, *SIZE), 3), "factor", None


@needs_compiler
@needs_cmake
@pytest.mark.parametrize("problem", [blur, mask, super_resolution])
@pytest.mark.parametrize("sigma", [0.05, 0.0, 3.0])
def test_the_program_without_python_finds_the_same_images(
    problem, sigma, package, runtime, tmp_path
):
    made, files = package
    operator, option, array = problem()
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 3, *SIZE, generator=generator) * 2 - 1
    noise = Gaussian(sigma)
    m = Measurement(operator, noise, noise(operator(x), generator))
    seeds = [torch.Generator().manual_seed(k) for k in (5, 6)]
    first = randn_like(x, seeds)
    second = randn_like(x, seeds)
    for name, value in (("y", m.y), ("n", first), ("n2", second), ("a", array)):
        if value is not None:
            np.save(tmp_path / f"{name}.npy", value.numpy())
    words = [runtime, files[-1], "--y", "y.npy", "--sigma", str(sigma), "--noise", "n.npy"]
    words += [f"--{option}", "3" if array is None else "a.npy"]
    draw = ["--draw", "n2.npy", "--steps", "4"]
    seeds = [[torch.Generator().manual_seed(k) for k in (5, 6)] for _ in range(2)]
    wanted = (
        PosteriorMean()(m, made, generator=seeds[0]),
        DiffUnfolding(steps=4)(m, made, generator=seeds[1]),
    )
    for more, image in zip(([], draw), wanted, strict=True):
        found = subprocess.run(
            [*words, *more, "--out", "x.npy"], cwd=tmp_path, capture_output=True, text=True
        )
        assert found.returncode == 0, found.stderr
        away = torch.from_numpy(np.load(tmp_path / "x.npy")) - image
        assert float(away.abs().max()) < 1e-4


@needs_compiler
@needs_cmake
def test_the_program_names_what_is_wrong(package, runtime, tmp_path):
    y = np.zeros((1, 3, *SIZE), np.float32)
    for name, value in {
        "y": y,
        "small": y[..., :8, :8],
        "one": y[:, :1],
        "many": y.repeat(5, 0),
        "two": y.repeat(2, 0),
        "huge": np.full_like(y, 1e38),
        "nan": np.full_like(y, np.nan),
        "c": y.astype(np.complex64),
        "f": np.asfortranarray(y),
        "k": np.ones((3, 3)),
        "k3": np.ones((3, 3, 3)),
        "zero": np.zeros((3, 3)),
        "large": np.ones((3, 99)),
        "masks": np.ones((2, 3, *SIZE)),
        "mask": np.ones((8, 8)),
    }.items():
        np.save(tmp_path / f"{name}.npy", value)
    whole = (tmp_path / "y.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-5])
    (tmp_path / "head.npy").write_bytes(whole[:40])
    (tmp_path / "odd.npy").write_bytes(whole.replace(b"(1, 3, 21", b"(1, 3,-21"))
    (tmp_path / "junk.pt2").write_bytes(b"no package")
    usual = {"y": "y.npy", "sigma": "0.1", "noise": "y.npy", "out": "x.npy", "kernel": "k.npy"}

    def ran(package=package[1][-1], **changed):
        words = [str(runtime), str(package)]
        for key, value in {**usual, **changed}.items():
            words += [] if value is None else [f"--{key}", value]
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)

    def said(**changed):
        found = ran(**changed)
        assert found.returncode == 2 and not (tmp_path / "x.npy").exists()
        assert found.stderr.count("\n") == 1, found.stderr  # one line, no trace
        return found.stderr

    assert "gone.npy: cannot be read" in said(y="gone.npy")
    assert "cut.npy: ends too early" in said(y="cut.npy")
    assert "head.npy: damaged header" in said(y="head.npy")
    assert "odd.npy: damaged shape (1, 3,-21, 30)" in said(y="odd.npy")
    assert "the result is not finite" in said(y="huge.npy")
    assert "nan.npy: holds NaN" in said(y="nan.npy")
    assert "c.npy: holds '<c8', wanted float32" in said(noise="c.npy")
    assert "f.npy: in Fortran order" in said(noise="f.npy")
    assert "small.npy: has shape" in said(noise="small.npy")
    assert "two.npy: has shape" in said(draw="two.npy")
    assert "of 21 x 30, those behind y are not" in said(y="small.npy", noise="small.npy")
    assert "of 21 x 30, those behind y are not" in said(kernel=None, factor="2")
    assert "wanted shape (B, 3, H, W) with B of at most 4" in said(y="one.npy", noise="one.npy")
    assert "with B of at most 4" in said(y="many.npy", noise="many.npy")
    assert "the kernel wants a shape (h, w)" in said(kernel="k3.npy")
    assert "the kernel is zero everywhere" in said(kernel="zero.npy")
    assert "the kernel is larger than the image" in said(kernel="large.npy")
    assert "one for all items" in said(kernel=None, mask="masks.npy")
    assert "the mask has another size" in said(kernel=None, mask="mask.npy")
    assert "by one of --kernel, --mask and --factor" in said(kernel=None)
    assert "by one of --kernel, --mask and --factor" in said(factor="4")
    assert "no option --colour" in said(colour="1")
    assert "wants --sigma" in said(sigma=None)
    for sigma in ("-0.1", "0,05", "nan", "abc", "1e30"):
        assert f"--sigma {sigma}: wanted a number" in said(sigma=sigma)
    assert "--steps 0: wanted" in said(draw="y.npy", steps="0")
    assert "--repeat -1: wanted" in said(repeat="-1")
    assert "--repeat: wanted a whole number" in said(repeat="1.5")
    for name in (tmp_path / "junk.pt2", package[1][0]):  # the second is the portable program
        assert f"{name}: no compiled package" in said(package=name)
    assert "gone.pt2" in said(package=tmp_path / "gone.pt2")
    assert json.loads(ran(repeat="2").stdout)["seconds"] > 0
    assert np.load(tmp_path / "x.npy").shape == (1, 3, *SIZE)
