"""The command line, as a user meets it: files in, files out, one line for every mistake."""

import json
import os
import re
import subprocess
import sys
from dataclasses import is_dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from measurand import commands
from measurand.cli import COMMANDS, HELP, arranged, main
from measurand.commands import command_named, seconds
from measurand.data.files import read_image
from measurand.domains import Body
from measurand.nets import ConvUNet, Glow
from measurand.priors.edm import EDMDenoiser
from measurand.priors.flow import FlowPrior
from measurand.recipes import natural_color
from measurand.training.quality import denoising_psnr
from measurand.unfolded import FlowProximal, UnfoldedDR, proximal_folds
from measurand.weights.store import load_prior, save
from measurand.weights.tensorfile import load_tensors

ROOT = Path(__file__).resolve().parents[1]


def tiny(path, channels=3, seed=0, **card):
    """A small network of no quality: enough to see that everything is passed on."""
    torch.manual_seed(seed)
    net = ConvUNet(channels, widths=(4, 8), blocks=1, features=8)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.02)
    save(
        path, EDMDenoiser(net, channels=channels, card={"name": "tiny", "licence": "none", **card})
    )
    return path


def picture(path, *shape, dtype=np.uint8):
    """A smooth coloured picture."""
    h, w = shape[:2]
    i, j = np.mgrid[:h, :w] / max(h, w)
    planes = [np.sin(3 * i + k) * np.cos(4 * j - k) for k in range(*shape[2:] or (1,))]
    u = (np.stack(planes, -1) + 1) / 2 * np.iinfo(dtype).max
    u = u.astype(dtype) if len(shape) == 3 else u[..., 0].astype(dtype)
    if path.suffix == ".npy":
        np.save(path, u)
    else:
        Image.fromarray(u).save(path)
    return path


def run(*words):
    return main([str(word) for word in words])


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())


@pytest.mark.parametrize("words", [["--help"], [], ["--version"], ["nonsense"]])
def test_help_imports_neither_torch_nor_tyro(words):
    code = (
        "import sys; from measurand.cli import main; code = main(sys.argv[1:]); "
        "bad = [m for m in ('torch', 'tyro', 'numpy') if m in sys.modules]; "
        "print('IMPORTED', bad); raise SystemExit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert "IMPORTED []" in done.stdout
    assert done.returncode == (2 if words == ["nonsense"] else 0)
    if words == ["nonsense"]:
        assert "no command 'nonsense'; there are: demo" in done.stderr


@pytest.mark.parametrize("said", [None, "ACTIVE"])
def test_threads_wait_without_spinning_unless_told(said):
    code = (
        "import os; from measurand.cli import main; main(['priors', '--json']); "
        "import torch; print(os.environ['OMP_WAIT_POLICY'])"
    )
    env = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    env |= {} if said is None else {"OMP_WAIT_POLICY": said}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.split()[-1] == (said or "PASSIVE")


@pytest.mark.parametrize("before", ["", "import torch; "])
def test_nobody_looks_for_garbage_among_the_libraries(before):
    code = (
        f"{before}import gc; from measurand.cli import main; main(['priors', '--json']); "
        "print(gc.get_freeze_count(), gc.isenabled())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    frozen, enabled = done.stdout.split()[-2:]
    assert enabled == "True"  # the command itself is collected as ever,
    # and of a program that loaded torch itself nothing is taken out of its hands
    assert int(frozen) == 0 if before else int(frozen) > 100_000


def test_a_command_is_a_file_and_a_line_of_the_help():
    files = {path.stem for path in Path(commands.__file__).parent.glob("*.py")}
    assert files - {"__init__", "beside", "measured", "parse", "shared", "skipped"} == set(
        COMMANDS
    )
    for name, words in COMMANDS.items():
        assert re.search(f"^  {name} +{re.escape(words)}$", HELP, re.M)
        assert is_dataclass(command_named(name))


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as done:
        run(command, "--help")
    assert done.value.code == 0
    out = capsys.readouterr().out
    assert "usage: measurand" in out
    assert ("(required)" in out) is (command not in ("demo", "priors"))


def test_operators_and_methods_appear_with_their_docstrings(capsys):
    with pytest.raises(SystemExit):
        run("reconstruct", "--help")
    out = capsys.readouterr().out
    for name in ("operator:gaussian-blur", "operator:mask", "operator:sense", "method:pnpdm"):
        assert name in out
    with pytest.raises(SystemExit):
        run("reconstruct", "a.png", "--operator", "gaussian-blur", "--method", "diffpir", "--help")
    out = capsys.readouterr().out
    assert "--operator.sigma" in out and "--method.zeta" in out


def test_choices_may_stand_anywhere_on_the_line():
    wanted = "a.png --sigma 0.1 operator:blur --operator.kernel k.npy method:hqs --method.steps 3"
    for line in (
        wanted,
        "a.png --method.steps 3 --operator.kernel k.npy --method hqs --operator blur --sigma 0.1",
        "a.png --method=hqs --method.steps 3 --operator=blur --operator.kernel k.npy --sigma 0.1",
    ):
        words = arranged(line.split())
        assert words[-6:] == wanted.split()[-6:] and set(words) == set(wanted.split())
    nested = arranged("a.png method:pnpdm method.reverse:euler-sde operator:identity".split())
    assert nested == "a.png operator:identity method:pnpdm method.reverse:euler-sde".split()


def test_simulate_then_reconstruct_with_metrics(here, capsys):
    truth, prior = picture(here / "t.png", 33, 28, 3), tiny(here / "p.safetensors")
    assert run("simulate", truth, "--operator", "gaussian-blur", "--operator.sigma", 1.2,
               "--sigma", 0.05, "--out", "m") == 0  # fmt: skip
    assert files("m") == ["measurement.npz", "measurement.png", "run.json"]
    capsys.readouterr()
    assert run("reconstruct", "m/measurement.npz", "--operator", "gaussian-blur",
               "--operator.sigma", 1.2, "--sigma", 0.05, "--prior", prior, "--method", "diffpir",
               "--method.steps", 4, "--draws", 5, "--truth", truth, "--json",
               "--out", "r") == 0  # fmt: skip
    printed = json.loads(capsys.readouterr().out)
    draws = [f"draws/{i:02d}.npz" for i in range(5)]
    assert files("r") == ["comparison.png", *draws, "estimate.npz", "run.json", "sd.npy"]
    record = json.loads((here / "r" / "run.json").read_text())
    assert record == {k: v for k, v in printed.items() if k != "out"}
    assert record["method"]["steps"] == 4 and record["operator"]["sigma"] == 1.2
    assert record["nfe"] == 4 and record["seed"] == 0 and len(record["prior"]["sha256"]) == 64
    assert {"psnr", "ssim", "nmse", "crps"} <= set(record["metrics"])
    assert {"command", "versions", "device", "seconds"} <= set(record)
    every = torch.stack([read_image(f"r/{name}").x[0] for name in draws])
    mean = read_image("r/estimate.npz").x[0]
    torch.testing.assert_close(every.mean(0), mean, atol=1e-6, rtol=1e-5)
    np.testing.assert_allclose(np.load("r/sd.npy"), every.std(0).numpy(), atol=1e-6)


def test_the_truth_has_a_value_range_of_its_own(here, capsys):
    i, j = np.mgrid[:20, :24] / 24
    np.save(here / "f.npy", 1 + np.sin(3 * i) * np.cos(4 * j))  # in [0, 2]
    assert run("simulate", "f.npy", "--value-range", 0, 2, "--operator", "identity",
               "--sigma", 0.01, "--out", "m") == 0  # fmt: skip
    tv = ["--operator", "identity", "--sigma", 0.01, "--prior", "total-variation:0.01",
          "--method", "fista", "--method.steps", 3, "--truth", "f.npy"]  # fmt: skip
    assert run("reconstruct", "m/measurement.npz", *tv, "--truth-range", 0, 2, "--out", "a") == 0
    assert run("reconstruct", "m/measurement.npz", *tv, "--out", "b") == 0
    assert run("reconstruct", "f.npy", *tv, "--value-range", 0, 2, "--out", "c") == 0
    a, b, c = (json.loads((here / n / "run.json").read_text()) for n in "abc")
    assert a["metrics"]["psnr"] > 40 and c["metrics"]["psnr"] > 40 and a["notes"] == []
    (note,) = b["notes"]
    assert note.startswith("truth: samples span") and "taken as an image in [-1, 1]" in note
    assert f"note: {note}" in capsys.readouterr().out


def test_a_real_truth_of_a_complex_image_has_phase_zero(here, capsys):
    truth = picture(here / "t.png", 16, 16)
    np.save(here / "mask.npy", np.ones(16))
    mri = ["--operator", "cartesian-mri", "--operator.mask", "mask.npy", "--sigma", 0.01]
    assert run("simulate", truth, *mri, "--out", "m") == 0
    tv = ["--prior", "total-variation:0.01", "--method", "fista", "--method.steps", 5]
    common = ["reconstruct", "m/measurement.npz", *mri, *tv]
    assert run(*common, "--truth", truth, "--out", "r") == 0
    record = json.loads((here / "r" / "run.json").read_text())
    assert record["metrics"]["psnr"] > 35 and (here / "r" / "comparison.png").exists()
    assert record["notes"][-1] == "truth: real, compared as a complex image of phase zero"
    np.save(here / "c.npy", np.ones((1, 16, 16), np.complex64))
    capsys.readouterr()
    assert run("reconstruct", truth, "--operator", "identity", "--sigma", 0.1, *tv,
               "--truth", "c.npy", "--out", "q") == 2  # fmt: skip
    assert "c.npy: got a complex truth" in capsys.readouterr().err
    assert not (here / "q").exists()


def test_a_second_run_into_a_folder_leaves_nothing_of_the_first(here, capsys):
    y, prior = picture(here / "y.png", 16, 16, 3), tiny(here / "p.safetensors")
    common = ["reconstruct", y, "--operator", "identity", "--sigma", 0.2, "--quiet"]
    sampler = ["--prior", prior, "--method", "diffpir", "--method.steps", 2, "--draws", 2]
    tv = ["--prior", "total-variation", "--method", "fista", "--method.steps", 2]
    assert run(*common, *sampler, "--out", "r") == 0
    assert run(*common, *tv, "--out", "r") == 0
    assert files("r") == ["comparison.png", "estimate.png", "run.json"]
    assert run("simulate", y, "--operator", "identity", "--out", "m") == 0
    assert run(*common, *tv, "--out", "m") == 2
    assert "something else than results of `measurand reconstruct`" in capsys.readouterr().err
    assert files("m") == ["measurement.npz", "measurement.png", "run.json"]


def test_the_same_seed_gives_the_same_bits(here):
    y, prior = picture(here / "y.png", 24, 24, 3), tiny(here / "p.safetensors")
    common = ["reconstruct", y, "--operator", "identity", "--sigma", 0.2, "--prior", prior,
              "--method", "diffpir", "--method.steps", 3, "--quiet"]  # fmt: skip
    for name, seed, draws in (("a", 4, 2), ("b", 4, 2), ("c", 5, 2), ("d", 4, 6)):
        assert run(*common, "--seed", seed, "--draws", draws, "--out", name) == 0
    same = [(here / n / "draws" / "01.png").read_bytes() for n in "abcd"]
    assert same[0] == same[1] == same[3] and same[0] != same[2]


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("y.png", (17, 23, 3), np.uint8),
        ("y.jpg", (20, 20, 3), np.uint8),
        ("y.png", (17, 23), np.uint16),
        ("y.npy", (17, 23), np.uint16),
    ],
)
def test_the_estimate_has_the_format_and_depth_of_the_file(here, name, shape, dtype):
    y = picture(here / name, *shape, dtype=dtype)
    assert run("reconstruct", y, "--operator", "identity", "--prior", "total-variation",
               "--method", "fista", "--method.steps", 5, "--quiet", "--out", "r") == 0  # fmt: skip
    estimate = here / "r" / f"estimate{y.suffix}"
    got = np.load(estimate) if y.suffix == ".npy" else np.asarray(Image.open(estimate))
    assert got.shape == shape and got.dtype == dtype
    record = json.loads((here / "r" / "run.json").read_text())
    assert record["sigma_estimated"] and any("noise estimated" in n for n in record["notes"])


def test_super_resolution_finds_the_size_of_the_image(here):
    y, prior = picture(here / "y.png", 9, 11, 3), tiny(here / "p.safetensors")
    assert run("reconstruct", y, "--operator", "block-average", "--operator.factor", 2,
               "--sigma", 0.05, "--prior", prior, "--method.steps", 3, "--quiet",
               "--out", "r") == 0  # fmt: skip
    assert Image.open(here / "r" / "estimate.png").size == (22, 18)


def test_a_grey_picture_with_a_colour_prior_is_said(here, capsys):
    y, prior = picture(here / "y.png", 20, 20), tiny(here / "p.safetensors")
    assert run("reconstruct", y, "--operator", "identity", "--sigma", 0.1, "--prior", prior,
               "--method", "hqs", "--method.steps", 2, "--out", "r") == 0  # fmt: skip
    assert "3 equal channels" in capsys.readouterr().out
    assert Image.open(here / "r" / "estimate.png").mode == "L"


def test_large_images_are_tiled_and_the_physics_is_not(here):
    y, prior = picture(here / "y.png", 70, 50, 3), tiny(here / "p.safetensors")
    assert run("reconstruct", y, "--operator", "gaussian-blur", "--operator.sigma", 1.0,
               "--sigma", 0.1, "--prior", prior, "--method.steps", 2, "--tile", 32, "--quiet",
               "--out", "r") == 0  # fmt: skip
    notes = json.loads((here / "r" / "run.json").read_text())["notes"]
    assert any("tiles of 32" in note for note in notes)


def test_masks_and_kernels_come_from_files_and_from_functions(here):
    y = picture(here / "y.png", 20, 24, 3)
    np.save(here / "mask.npy", np.random.default_rng(0).random((20, 24)) > 0.5)
    np.savez(here / "kernels.npz", a=np.ones((3, 3)) / 9, b=np.eye(5) / 5)
    tv = ["--sigma", 0.05, "--prior", "total-variation:3", "--method", "fista",
          "--method.steps", 3, "--quiet"]  # fmt: skip
    for i, choice in enumerate((
        ["mask", "--operator.mask", "mask.npy"],
        ["mask", "--operator.mask", "random_mask:0.4"],
        ["blur", "--operator.kernel", "kernels.npz:b"],
        ["reflective-blur", "--operator.kernel", "gaussian_kernel:1.5"],
    )):  # fmt: skip
        assert run("reconstruct", y, "--operator", *choice, *tv, "--out", f"r{i}") == 0
        assert (here / f"r{i}" / "estimate.png").exists()


def test_an_unfolded_network_reconstructs_in_one_evaluation_or_by_draws(here, capsys):
    torch.manual_seed(0)
    net = ConvUNet(3, widths=(4, 8), blocks=1, features=8)
    network = UnfoldedDR([EDMDenoiser(net, channels=3)], 2)
    network.card = {"name": "tiny", "licence": "none"}
    save(here / "u.safetensors", network)
    picture(here / "a.png", 24, 20, 3)
    common = ["reconstruct", "a.png", "--operator", "mask", "--operator.mask", "random_mask:0.5"]
    common += ["--sigma", 0.05, "--quiet"]
    words = [*common, "--prior", "u.safetensors", "--method", "posterior-mean", "--out", "m"]
    assert run(*words) == 0
    record = json.loads((here / "m" / "run.json").read_text())
    assert record["nfe"] == 2 and record["method"]["class"] == "PosteriorMean"
    words = [*common, "--prior", "u.safetensors", "--method", "diff-unfolding", "--draws", 2]
    assert run(*words, "--method.steps", 3, "--out", "d") == 0
    record = json.loads((here / "d" / "run.json").read_text())
    assert record["nfe"] == 12 and "sd.npy" in " ".join(files("d"))
    picture(here / "grey.png", 24, 20)
    words = ["reconstruct", "grey.png", "--operator", "gaussian-blur", "--operator.sigma", 1.0]
    words += ["--sigma", 0.05, "--prior", "u.safetensors", "--method", "posterior-mean"]
    assert run(*words, "--out", "g") == 0
    assert "note: grey image: shown to u as 3 equal channels" in capsys.readouterr().out
    assert json.loads((here / "g" / "run.json").read_text())["nfe"] == 2
    capsys.readouterr()
    assert run(*common, "--prior", "u.safetensors", "--method", "hqs", "--out", "h") == 2
    assert "use --method diff-unfolding or posterior-mean" in capsys.readouterr().err
    tiny(here / "p.safetensors")
    assert run(*common, "--prior", "p.safetensors", "--method", "posterior-mean") == 2
    assert "PosteriorMean wants a Posterior (given(measurement)" in capsys.readouterr().err


def test_flows_reconstruct_unfolded_or_as_a_proximal_map(here, capsys):
    torch.manual_seed(0)
    prior = FlowPrior(Glow.tiny(3), shape=(3, 16, 16))
    x = torch.rand(4, 3, 16, 16)
    prior.flow.initialize(x)
    prior.calibrate(x)
    save(here / "f.safetensors", prior)
    save(here / "n.safetensors", FlowProximal(prior, proximal_folds(prior, 2)))
    picture(here / "a.png", 22, 18, 3)  # sides that the flow does not divide
    common = ["reconstruct", "a.png", "--operator", "mask", "--operator.mask", "random_mask:0.5"]
    common += ["--sigma", 0.05, "--quiet"]
    words = [*common, "--prior", "n.safetensors", "--method", "flow-unfolding", "--out", "n"]
    assert run(*words) == 0
    record = json.loads((here / "n" / "run.json").read_text())
    assert record["method"]["class"] == "FlowUnfolding" and record["prior"]["channels"] == 3
    assert record["metrics"]["bits"] > 0 and record["prior"]["trained_on"] == ""
    picture(here / "thin.png", 3, 18, 3)  # narrower than what the flow halves
    words[1], words[-1] = "thin.png", "thin"
    assert run(*words) == 0
    assert json.loads((here / "thin" / "run.json").read_text())["metrics"] == {}
    assert "thin/estimate.png" in files(here)
    words = [*common, "--prior", "f.safetensors", "--method", "fista", "--method.steps", 3]
    assert run(*words, "--out", "f") == 0
    record = json.loads((here / "f" / "run.json").read_text())
    assert any("proximal map of f by one Gauss-Newton step" in note for note in record["notes"])
    capsys.readouterr()
    assert run(*common, "--prior", "n.safetensors", "--method", "hqs") == 2
    assert "use --method flow-unfolding" in capsys.readouterr().err
    assert run(*common, "--prior", "f.safetensors", "--method", "flow-unfolding") == 2
    assert "FlowUnfolding wants a Restorer (restore(measurement)" in capsys.readouterr().err
    words = ["check", "a.png", "--operator", "gaussian-blur", "--operator.sigma", 1.0]
    run(*words, "--sigma", 0.05, "--prior", "n.safetensors")  # it has learned nothing yet
    out = capsys.readouterr().out
    assert all(name in out for name in ("the prior accepts", "value range", "noise level"))


def test_complex_data_are_reconstructed_and_written_as_complex(here):
    rng = np.random.default_rng(0)
    np.save(here / "mask.npy", np.ones(16))
    k = rng.normal(size=(1, 12, 16)) + 1j * rng.normal(size=(1, 12, 16))
    np.save(here / "k.npy", k.astype(np.complex64))
    assert run("reconstruct", "k.npy", "--operator", "cartesian-mri", "--operator.mask",
               "mask.npy", "--sigma", 0.1, "--prior", "total-variation", "--method", "fista",
               "--method.steps", 3, "--quiet", "--out", "r") == 0  # fmt: skip
    x = np.load(here / "r" / "estimate.npy")
    assert x.dtype == np.complex64 and x.shape == (1, 12, 16)


def test_check_prints_verdicts_and_says_by_its_exit_code(here, capsys):
    y = picture(here / "y.png", 32, 32, 3)
    words = ["check", y, "--operator", "gaussian-blur", "--operator.sigma", 1.0, "--prior",
             "total-variation"]  # fmt: skip
    assert run(*words, "--sigma", 0.9) == 1
    out = capsys.readouterr().out
    assert "does not fit  noise level" in out and "-> a noise level near" in out
    assert run(*words, "--sigma", 0.9, "--json") == 1
    record = json.loads(capsys.readouterr().out)
    assert not record["fits"] and {v["name"] for v in record["verdicts"]} >= {"adjoint", "shape"}


def test_evaluate_measures_denoising(here, capsys):
    prior = tiny(here / "p.safetensors", recipe={"domain": "Photographs(grey=False)"})
    (here / "set" / "test").mkdir(parents=True)
    for i in range(3):
        picture(here / "set" / "test" / f"{i}.png", 20, 20, 3)
    assert run("evaluate", prior, "--data", "set", "--under", "test", "--levels", 25, "--limit", 2,
               "--json") == 0  # fmt: skip
    record = json.loads(capsys.readouterr().out)
    assert record["images"] == 2 and 5 < record["psnr"]["25"] < 60
    assert run("evaluate", prior, "--data", "set/test/0.png", "--levels", 25, "--json") == 0
    assert json.loads(capsys.readouterr().out)["images"] == 1
    (here / "set" / "test" / "1.png").write_bytes(b"no picture")
    words = ["evaluate", prior, "--data", "set", "--levels", 25, "--json"]
    assert run(*words) == 2 and "1.png" in capsys.readouterr().err
    assert run(*words, "--skip-bad") == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["images"] == 2 and said.err.startswith("skipped 1 of 3 files")


def test_evaluate_measures_on_the_images_that_the_card_names(here, capsys):
    """A window that no recipe has: neither that of ct-body nor photographs."""
    domain = Body(window=(-1000, 1000))
    prior = tiny(here / "p.safetensors", channels=1, recipe={"domain": repr(domain)})
    hu = np.random.default_rng(0).uniform(-1000, 1000, (2, 24, 20)).astype(np.float32)
    np.save(here / "hu.npy", hu)
    images = domain.look(here / "hu.npy")
    wanted = denoising_psnr(load_prior(prior), images, levels=(25.0,))
    words = ["--data", "hu.npy", "--levels", 25, "--device", "cpu", "--json"]
    assert run("evaluate", prior, *words) == 0
    assert json.loads(capsys.readouterr().out)["psnr"] == wanted
    assert wanted != denoising_psnr(load_prior(prior), Body().look("hu.npy"), levels=(25.0,))
    for card, said in (({"recipe": {"domain": "Cells(side=3)"}}, "Cells"), ({}, "no domain")):
        other = tiny(here / "q.safetensors", channels=1, **card)
        assert run("evaluate", other, *words) == 2
        error = capsys.readouterr().err
        assert error.startswith("measurand: ") and error.count("\n") == 1
        assert said in error and "--domain" in error and "q.safetensors" in error
        assert run("evaluate", other, *words, "--domain", "Body(window=(-1000, 1000))") == 0
        assert json.loads(capsys.readouterr().out)["psnr"] == wanted


def test_export_writes_a_portable_program(here, capsys):
    tiny(here / "p.safetensors")
    words = ["export", "p.safetensors", "--size", 16, 24, "--portable-only"]
    assert run(*words) == 0
    file = Path(capsys.readouterr().out.strip())
    assert file == Path("exported/p-portable.pt2")
    v = torch.randn(3, 3, 16, 24)
    z = torch.export.load(file).module()(v, torch.full((3,), 0.2))
    assert torch.allclose(z, load_prior("p.safetensors", dtype=torch.float32).denoise(v, 0.2))
    assert run("export", "p.safetensors", "--size", 0, 24, "--portable-only") == 2


def test_priors_lists_what_ships(capsys):
    assert run("priors", "--json") == 0
    cards = json.loads(capsys.readouterr().out)
    assert run("priors") == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cards) and (cards or "no prior" in out)


def test_priors_says_how_good_they_are_where_the_card_does(here, capsys, monkeypatch):
    found = {"psnr": {"15": 33.914, "50": 28.1}, "calibration": {"0.02": 1.0, "0.5": 0.957}}
    files = [tiny(here / "old.safetensors"), tiny(here / "new.safetensors", **found)]
    assert run("priors", *files) == 0
    old, new = capsys.readouterr().out.split("new  ")
    assert "    PSNR in dB, by noise of 255: 15: 33.91, 50: 28.10\n" in new
    assert "    predicted over measured error, by sigma: 0.02: 1.00, 0.5: 0.96\n" in new
    assert "PSNR" not in old and "measured" not in old


def test_train_makes_a_prior_that_reconstruct_takes(here, capsys):
    (here / "set").mkdir()
    for i in range(2):
        picture(here / "set" / f"{i}.png", 40, 40, 3)
    assert run("train", "natural-color", "--recipe.widths", 4, 8, "--recipe.blocks", 1,
               "--recipe.crops", 16, 32, "--recipe.batch", 2, "--data", "set", "--steps", 3,
               "--licence", "mine", "--device", "cpu", "--out", "t", "--quiet") == 0  # fmt: skip
    weights = next((here / "t").glob("*.safetensors"))
    y = picture(here / "y.png", 16, 16, 3)
    assert run("reconstruct", y, "--operator", "identity", "--sigma", 0.1, "--prior", weights,
               "--method.steps", 2, "--quiet", "--out", "r") == 0  # fmt: skip
    assert (
        run("train", "natural-color", "--data", "set", "--steps", 3, "--time-budget", "20m") == 2
    )
    assert "say how long" in capsys.readouterr().err


TINY = ["--recipe.widths", 4, 8, "--recipe.blocks", 1, "--recipe.crops", 16, 16, "--recipe.batch",
        2, "--steps", 2, "--licence", "mine", "--device", "cpu", "--quiet"]  # fmt: skip


def test_training_takes_single_pictures(here):
    picture(here / "a.png", 40, 40, 3)
    assert run("train", "natural-gray", "--data", "a.png", *TINY, "--out", "t") == 0
    assert json.loads((here / "t" / "run.json").read_text())["images"] == 1


def test_training_says_what_it_skips_in_a_plain_line(here, capsys):
    (here / "set").mkdir()
    for i in range(3):
        picture(here / "set" / f"{i}.png", 40, 40, 3)
    (here / "set" / "bad.png").write_bytes(b"no picture")
    words = ["train", "natural-color", "--data", "set", *TINY, "--out", "t"]
    assert run(*words) == 2
    assert "bad.png: cannot be read" in capsys.readouterr().err
    assert run(*words, "--skip-bad") == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("skipped 1 of 4 files: set/bad.png (cannot be read as a picture: ")


def test_training_says_what_is_wrong_with_its_data(here, capsys):
    np.save(here / "color.npy", np.zeros((2, 40, 40, 3), np.uint8))
    for recipe in ("ct-body", "mri-brain"):
        assert run("train", recipe, "--data", "color.npy", *TINY, "--out", "t") == 2
        assert "color.npy: got an image of shape (40, 40, 3)" in capsys.readouterr().err
    assert run("train", "natural-gray", "--data", "color.npy", *TINY, "--out", "t") == 2
    assert "color.npy: got a file of another kind, wanted" in capsys.readouterr().err
    assert run("train", "natural-gray", *TINY, "--out", "t") == 2
    assert "got no data" in (error := capsys.readouterr().err) and "--data" in error


def test_training_asks_under_which_licence_the_data_come(here, capsys):
    (here / "set").mkdir()
    picture(here / "set" / "a.png", 40, 40, 3)
    common = ["train", "natural-color", "--recipe.widths", 4, 8, "--recipe.blocks", 1, "--data",
              "set", "--recipe.crops", 16, 32, "--recipe.batch", 2, "--steps", 2, "--device",
              "cpu", "--quiet"]  # fmt: skip
    both = ["--licence", "mine", "--licence-of-recipe"]
    for words in ([], both, ["--licence", " "]):
        assert run(*common, *words, "--out", "t") == 2
        assert "licence" in capsys.readouterr().err and not (here / "t").exists()
    for name, words, wanted in (
        ("a", ["--licence", "my own, all rights mine"], "my own, all rights mine"),
        ("b", ["--licence-of-recipe"], natural_color.licence),
    ):
        assert run(*common, *words, "--out", name) == 0
        card = load_tensors(next((here / name).glob("*-0.05.safetensors")))[1]
        assert card["licence"] == card["recipe"]["licence"] == wanted
        assert (natural_color.licence in json.dumps(card)) == (name == "b")
    assert run("train", "kernels-32", "--recipe.widths", 4, 8, "--recipe.blocks", 1,
               "--recipe.batch", 2, "--recipe.attention", "--steps", 2, "--device", "cpu",
               "--quiet", "--out", "k") == 0  # fmt: skip


def test_durations():
    assert [seconds(t) for t in ("90", "90s", "20m", "1.5h")] == [90, 90, 1200, 5400]
    for text in ("", "m", "-3s", "soon"):
        with pytest.raises(ValueError, match="wanted a duration"):
            seconds(text)
