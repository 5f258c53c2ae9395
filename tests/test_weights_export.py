import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from measurand.cli import main
from measurand.measurement import Measurement
from measurand.nets import ConvUNet
from measurand.noises import Gaussian
from measurand.operators import BlockAverage, Blur, Mask, motion_kernel
from measurand.priors.edm import EDMDenoiser
from measurand.samplers import DiffUnfolding
from measurand.solvers import PosteriorMean
from measurand.tensors import randn_like
from measurand.unfolded import UnfoldedDR, UnfoldedHQS
from measurand.weights.export import compile_portable, export, verified
from measurand.weights.tensorfile import DamagedFile

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


@pytest.fixture(scope="module")
def installed(runtime, tmp_path_factory):
    """The folder that is carried to a machine without Python; its large libraries are links."""
    folder = tmp_path_factory.mktemp("carried") / "measurand"
    for component, how in (("program", "COPY"), ("libraries", "ABS_SYMLINK")):
        words = ["cmake", "--install", runtime.parent, "--prefix", folder]
        found = subprocess.run(
            [*words, "--component", component],
            capture_output=True,
            text=True,
            env=os.environ | {"CMAKE_INSTALL_MODE": how},
        )
        assert found.returncode == 0, found.stdout + found.stderr
    return folder


def test_portable_programs_compute_what_the_priors_do(package):
    made, files = package
    portable = [path for path in files if "portable" in path.name]
    assert [path.name for path in portable] == [f"net-portable-{k}.pt2" for k in range(3)]
    for path, prior in zip(portable, made.priors, strict=True):
        about = {"depth": "", "size": ""}
        program = torch.export.load(path, extra_files=about)
        assert path.stem.endswith(f"-{about['block']}")
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


def test_portable_files_that_are_not_one_whole_network_are_refused(package, tmp_path, capsys):
    def said(*files, out="new/x.pt2"):
        with pytest.raises(ValueError) as error:
            compile_portable(files, tmp_path / out)
        assert not (tmp_path / "new").exists()
        return str(error.value)

    first, second, third, compiled = package[1]
    (other,) = export(network(), tmp_path / "other", size=SIZE, compiled=False)
    (prior,) = export(network().priors[0], tmp_path / "prior", size=SIZE, compiled=False)
    (tmp_path / "junk.pt2").write_bytes(b"no archive")
    (tmp_path / "cut.pt2").write_bytes(first.read_bytes()[:-100])
    assert "got blocks [0, 2] of 3" in said(third, first)
    assert "got blocks [0, 1, 1] of 3" in said(first, second, second)
    assert "got blocks [0, 0] of 1" in said(prior, prior)
    assert "got blocks [] of 1" in said()
    assert "of one network" in said(other, second, third)
    assert f"{compiled} is no portable file of `measurand export`" in said(compiled)
    for name in (tmp_path / "junk.pt2", tmp_path / "cut.pt2"):
        assert f"{name} is no file of `measurand export`, or one without its digest" in said(name)
    with pytest.raises(FileNotFoundError, match="gone.pt2 is not there"):
        compile_portable([tmp_path / "gone.pt2"], tmp_path / "new/x.pt2")
    before = other.read_bytes()
    assert "wants another name" in said(other, out=other.name)
    assert other.read_bytes() == before

    capsys.readouterr()
    for words, wanted in (
        ([other, "--out", other], "wants another name"),
        ([other, "--size", 8, 8], "only --out and --quiet"),
        ([other, "--portable-only"], "only --out and --quiet"),
        ([other, "natural-color", "--size", 8, 8], "wants one name or file of weights"),
        (["natural-color"], "wants --size"),
        ([], "got nothing"),
    ):
        assert main(["export", *map(str, words)]) == 2
        error = capsys.readouterr().err
        assert wanted in error and error.count("\n") == 1


def flipped(content, count):
    """A file with one bit changed, at places spread over all of it."""
    for k in range(count):
        changed = bytearray(content)
        changed[(2 * k + 1) * len(content) // (2 * count)] ^= 1 << k % 8
        yield bytes(changed)


def test_no_bit_of_a_package_can_change(package, tmp_path):
    whole = package[1][0].read_bytes()
    path = tmp_path / "net-portable.pt2"
    path.write_bytes(whole)
    assert verified(path) == path
    for content in (*flipped(whole, 60), whole[:-1] + b"0", whole[:-9], whole + b"\0", b""):
        path.write_bytes(content)
        with pytest.raises(DamagedFile, match="net-portable.pt2 is (damaged|no file)"):
            verified(path)
    with pytest.raises(DamagedFile, match="net-portable.pt2"):  # before torch opens it
        compile_portable([path], tmp_path / "net.pt2")


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
def test_a_machine_with_the_portable_files_alone_makes_the_same_package(
    package, runtime, tmp_path, capsys
):
    files = package[1]
    for path in files[:-1]:
        shutil.copy(path, tmp_path)
    # 2, 0, 1: they say themselves in which order they belong
    words = [str(tmp_path / files[k].name) for k in (2, 0, 1)]
    assert main(["export", *words]) == 0
    made = tmp_path / files[-1].name  # net.pt2 beside net-portable-2.pt2
    assert capsys.readouterr().out.split() == [str(made)]
    generator = torch.Generator().manual_seed(3)
    for name in ("y", "n", "n2"):
        x = torch.randn(2, 3, *SIZE, generator=generator)
        np.save(tmp_path / f"{name}.npy", x.numpy())
    np.save(tmp_path / "k.npy", np.full((3, 3), 1 / 9))
    options = ["--y", "y.npy", "--sigma", "0.1", "--noise", "n.npy", "--kernel", "k.npy"]
    options += ["--draw", "n2.npy", "--steps", "3", "--out", "x.npy"]
    images = []
    for path in (files[-1], made):
        subprocess.run([runtime, path, *options], cwd=tmp_path, check=True)
        images.append(np.load(tmp_path / "x.npy"))
    assert np.abs(images[0] - images[1]).max() < 1e-6


@needs_compiler
@needs_cmake
def test_the_installed_folder_needs_nothing_of_the_wheel(package, installed, tmp_path):
    program = installed / "measurand-run"
    found = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
    places = dict(line.split()[:3:2] for line in found.stdout.splitlines() if " => " in line)
    ours = {name for name, path in places.items() if str(installed) in path}
    assert {"libc10.so", "libtorch.so", "libtorch_cpu.so"} <= ours
    assert any(name.startswith("libgomp") for name in ours)
    assert ours == {path.name for path in (installed / "lib").iterdir()}
    wheel = str(Path(torch.__file__).parent)
    assert not any(path.startswith(wheel) for path in places.values())
    found = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True)
    (path,) = [line for line in found.stdout.splitlines() if "PATH" in line]
    assert path.endswith("[$ORIGIN/lib]")
    np.save(tmp_path / "y.npy", np.zeros((1, 3, *SIZE), np.float32))
    words = ["--y", "y.npy", "--sigma", "0.1", "--noise", "y.npy", "--out", "x.npy"]
    words += ["--mask", "m.npy"]
    np.save(tmp_path / "m.npy", np.ones(SIZE, np.float32))
    subprocess.run([program, package[1][-1], *words], cwd=tmp_path, env={}, check=True)
    assert np.load(tmp_path / "x.npy").shape == (1, 3, *SIZE)


@needs_compiler
@needs_cmake
def test_the_program_explains_itself(runtime):
    def ran(*words):
        return subprocess.run([runtime, *words], capture_output=True, text=True)

    for words in (["--help"], ["-h"], ["net.pt2", "--y", "y.npy", "--help"]):
        found = ran(*words)
        assert found.returncode == 0 and not found.stderr
        assert found.stdout.startswith("usage: measurand-run PACKAGE.pt2 --y")
    source = (CPP / "main.cpp").read_text()
    known = source.split('known = " ')[1].split('"')[0].split()
    assert len(known) == 11 and all(f"\n  --{name} " in found.stdout for name in known)
    bare = ran()
    assert (bare.returncode, bare.stdout, bare.stderr) == (2, "", found.stdout)


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
    assert "--threads 100000000: wanted a number from 1 to 1024" in said(threads="100000000")
    assert "--threads 0: wanted" in said(threads="0")
    assert "--repeat: wanted a whole number" in said(repeat="1.5")
    for name in (tmp_path / "junk.pt2", package[1][0]):  # the second is the portable program
        assert f"{name}: no compiled package" in said(package=name)
    for content in flipped(package[1][-1].read_bytes(), 30):
        (tmp_path / "flip.pt2").write_bytes(content)
        assert "flip.pt2: " in said(package=tmp_path / "flip.pt2")
    os.mkfifo(tmp_path / "pipe")  # which would be waited for
    assert "pipe: cannot be read" in said(package=tmp_path / "pipe")
    assert "pipe: cannot be read" in said(y="pipe")
    (tmp_path / "long.npy").write_bytes(whole + b"\0")
    assert "long.npy: is longer than its header says" in said(y="long.npy")
    (tmp_path / "vast.npy").write_bytes(
        whole.replace(b"(1, 3, 21", b"(9223372036854775807, 3, 21")
    )
    assert "vast.npy: ends too early" in said(y="vast.npy")
    (tmp_path / "raw.npy").write_bytes(whole.replace(b"<f4", b"\xff\n4"))
    assert "raw.npy: holds '??4'" in said(y="raw.npy")
    assert "gone.pt2" in said(package=tmp_path / "gone.pt2")
    assert json.loads(ran(repeat="2").stdout)["seconds"] > 0
    assert np.load(tmp_path / "x.npy").shape == (1, 3, *SIZE)
