"""Bad input: a clear error that names what it got, and nothing half-written.

Row 6 of the fault table (values that are no numbers) and row 15 (inputs of the wrong domain), as a
user meets them. Weight files (row 7) are in test_checkpoints, mutated pictures (row 9) in
test_data_files.
"""

import os

import numpy as np
import pytest
import torch
from test_cli import files, picture, run, tiny

from measurand.data.form import Form
from measurand.data.writing import write_image
from measurand.jobs.restore import restore
from measurand.measurement import Measurement
from measurand.noises import Gaussian
from measurand.operators import Blur, GaussianBlur, Identity, Mask
from measurand.priors import CallableDenoiser
from measurand.samplers import DAPS, DiffPIR, PiGDM, PnPDM, ReverseSDE
from measurand.solvers import ADMM, HQS, RED

BLUR = ["--operator", "gaussian-blur", "--operator.sigma", 1.0]
TV = ["--prior", "total-variation", "--method", "fista", "--method.steps", 3]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "y.png", 20, 24, 3)
    return tmp_path


def refused(capsys, folder, *words):
    """The message of a command that must fail and leave nothing behind."""
    before = files(folder)
    assert run(*words, "--out", "r") == 2
    out = capsys.readouterr()
    assert files(folder) == before and not (folder / "r").exists()
    message = out.err.strip().split("\n")[-1]
    assert message.startswith("measurand: ") and "Traceback" not in out.err
    return message


def test_numbers_that_are_none_in_the_data(here, capsys):
    for bad in (np.inf, -np.inf):
        u = np.random.default_rng(0).random((12, 12))
        u[3, 4] = bad
        np.save(here / "u.npy", u)
        message = refused(capsys, here, "reconstruct", "u.npy", *BLUR, "--sigma", 0.1, *TV)
        assert "u.npy" in message and "1 of 144 samples are NaN or infinite" in message
        (here / "u.npy").unlink()


@pytest.mark.parametrize(
    ("what", "bad"), [("kernel", np.nan), ("kernel", np.inf), ("mask", np.inf)]
)
def test_numbers_that_are_none_in_kernel_and_mask(here, capsys, what, bad):
    """A mask may be NaN: what is not a number was not measured."""
    u = np.ones((5, 5) if what == "kernel" else (20, 24))
    u[2, 2] = bad
    np.save(here / "u.npy", u)
    operator = {"kernel": "blur", "mask": "mask"}[what]
    message = refused(
        capsys, here, "reconstruct", "y.png", "--operator", operator, f"--operator.{what}",
        "u.npy", "--sigma", 0.1, *TV,
    )  # fmt: skip
    assert what in message and "finite" in message


def broken_network(v, sigma):
    return v * torch.nan


def sometimes_broken(v, sigma):
    out = 0.9 * v.clone()
    if torch.as_tensor(sigma).max() < 0.3:
        out[0, 0, 0, 0] = torch.inf
    return out


QUICK = PnPDM(sweeps=3, rho_max=0.5, reverse=ReverseSDE(steps=4, sigma_max=1.0))


@pytest.mark.parametrize("network", [broken_network, sometimes_broken])
@pytest.mark.parametrize(
    "method",
    [HQS(steps=4), ADMM(steps=4), RED(steps=4), DiffPIR(steps=8), PiGDM(steps=8), QUICK,
     DAPS(steps=4, flow_steps=2)],
    ids=lambda m: type(m).__name__,
)  # fmt: skip
def test_a_network_that_returns_no_numbers_never_makes_an_image(network, method):
    operator = GaussianBlur((1, 12, 12), 1.0)
    m = Measurement(operator, Gaussian(0.1), torch.rand(1, 1, 12, 12))
    with pytest.raises(FloatingPointError, match=type(method).__name__):
        restore(m, CallableDenoiser(network, range=(-1.0, 1.0)), method, draws=2)


def test_a_broken_network_on_the_command_line(here, capsys):
    from measurand.weights.tensorfile import load_tensors, save_tensors

    tensors, card = load_tensors(tiny(here / "p.safetensors"))
    name = "stem.weight"  # is not in 8 bits
    tensors[name].flatten()[0] = torch.nan
    save_tensors(here / "p.safetensors", tensors, card)
    message = refused(
        capsys, here, "reconstruct", "y.png", *BLUR, "--sigma", 0.1, "--prior", "p.safetensors",
        "--method.steps", 2,
    )  # fmt: skip
    assert "not finite" in message or "NaN" in message


def test_no_image_of_no_numbers_is_ever_written(tmp_path):
    for suffix in (".png", ".jpg", ".tif", ".npy", ".npz", ".h5"):
        with pytest.raises(ValueError, match="NaN or infinite"):
            write_image(tmp_path / f"a{suffix}", torch.full((1, 3, 4, 4), torch.nan), Form(suffix))
    assert files(tmp_path) == []


def test_a_kernel_larger_than_the_image(here, capsys):
    np.save(here / "k.npy", np.ones((21, 5)) / 105)
    message = refused(
        capsys, here, "reconstruct", "y.png", "--operator", "circular-blur",
        "--operator.kernel", "k.npy", "--sigma", 0.1, *TV,
    )  # fmt: skip
    assert "kernel" in message and "21" in message and "20" in message


def test_a_mask_of_zeros(here, capsys):
    np.save(here / "m.npy", np.zeros((20, 24)))
    message = refused(
        capsys, here, "reconstruct", "y.png", "--operator", "mask", "--operator.mask", "m.npy",
        "--sigma", 0.1, *TV,
    )  # fmt: skip
    assert "mask" in message and "zero" in message


def test_complex_where_real_is_needed_and_the_reverse(here, capsys):
    np.save(here / "k.npy", np.ones((1, 12, 12), np.complex64))
    message = refused(capsys, here, "reconstruct", "k.npy", *BLUR, "--sigma", 0.1, *TV)
    assert "complex" in message and "real" in message
    np.save(here / "m.npy", np.ones(24))
    message = refused(
        capsys, here, "reconstruct", "y.png", "--operator", "cartesian-mri", "--operator.mask",
        "m.npy", "--sigma", 0.1, *TV,
    )  # fmt: skip
    assert "Traceback" not in message


def test_channels_that_the_prior_does_not_know(here, capsys):
    np.save(here / "two.npy", np.random.default_rng(0).random((12, 12, 1)))
    tiny(here / "four.safetensors", channels=4)
    message = refused(
        capsys, here, "reconstruct", "y.png", *BLUR, "--sigma", 0.1, "--prior", "four.safetensors"
    )
    assert "4 channels" in message and "3" in message


def test_a_range_that_cannot_be_guessed(here, capsys):
    np.save(here / "u.npy", np.random.default_rng(0).random((12, 12)) * 3000)
    message = refused(capsys, here, "reconstruct", "u.npy", *BLUR, "--sigma", 0.1, *TV)
    assert "--value-range" in message


def test_an_unknown_prior_names_the_known_ones(here, capsys):
    message = refused(
        capsys, here, "reconstruct", "y.png", *BLUR, "--sigma", 0.1, "--prior", "natural-colour"
    )
    assert "natural-colour" in message and "there are: " in message


def test_a_truncated_weight_file_and_an_unreadable_picture(here, capsys):
    whole = tiny(here / "p.safetensors").read_bytes()
    (here / "p.safetensors").write_bytes(whole[:-100])
    words = ["reconstruct", "y.png", *BLUR, "--sigma", 0.1, "--prior", "p.safetensors"]
    assert "p.safetensors" in refused(capsys, here, *words)
    (here / "y.png").write_bytes((here / "y.png").read_bytes()[:200])
    assert "y.png: cannot be read" in refused(capsys, here, *words)


def test_a_truth_of_another_size(here, capsys):
    picture(here / "t.png", 20, 20, 3)
    message = refused(
        capsys, here, "reconstruct", "y.png", *BLUR, "--sigma", 0.1, *TV, "--truth", "t.png"
    )
    assert "(3, 20, 20)" in message and "(3, 20, 24)" in message


def test_a_method_that_cannot_use_the_prior(here, capsys):
    message = refused(
        capsys,
        here,
        "reconstruct",
        "y.png",
        *BLUR,
        "--sigma",
        0.1,
        "--prior",
        "total-variation",
        "--method",
        "hqs",
    )
    assert "HQS" in message and "Denoiser" in message and "use --method fista" in message
    message = refused(
        capsys, here, "tune", "y.png", *BLUR, "--sigma", 0.1, "--prior", "total-variation",
        "--objective", "sure", "--trials", 3,
    )  # fmt: skip
    assert "use --method fista" in message


def test_fewer_draws_than_one(here, capsys):
    for words in (["reconstruct", "y.png"], ["tune", "y.png", "--objective", "sure"]):
        message = refused(capsys, here, *words, *BLUR, "--sigma", 0.1, "--draws", 0)
        assert message == "measurand: --draws: got 0, wanted at least 1"


def test_a_npy_that_is_no_array(here, capsys):
    (here / "text.npy").write_text("hello, this is no array at all")
    (here / "empty.npy").write_text("")
    np.save(here / "objects.npy", np.array([{}, None]), allow_pickle=True)
    for name, why in (("text", "magic string"), ("empty", "magic"), ("objects", "never read")):
        message = refused(capsys, here, "reconstruct", f"{name}.npy", *BLUR, "--sigma", 0.1, *TV)
        assert f"{name}.npy: cannot be read as .npy" in message and why in message
        assert "allow_pickle" not in message


def test_an_output_that_cannot_be_written(here, capsys):
    (here / "file").write_text("x")
    for out in ("file", "file/inside"):
        before = files(here)
        assert run("reconstruct", "y.png", *BLUR, "--sigma", 0.1, *TV, "--out", out) == 2
        assert f"cannot write results to {here / out}" in capsys.readouterr().err
        assert files(here) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(here, capsys):
    (here / "locked").mkdir(mode=0o500)
    for out in ("locked", "locked/inside"):
        assert run("reconstruct", "y.png", *BLUR, "--sigma", 0.1, *TV, "--out", out) == 2
        assert "cannot write results" in capsys.readouterr().err


def accepted_or_named(operator, y, sigma):
    """A small problem is solved with finite values, or refused with an error of ours."""
    try:
        m = Measurement(operator(), Gaussian(sigma), y)
        x = HQS(steps=2)(m, CallableDenoiser(lambda v, s: 0.9 * v, range=(-1.0, 1.0)))
    except (ValueError, TypeError, FloatingPointError) as error:
        assert len(str(error)) > 20
        return None
    assert x.shape == y.shape and x.isfinite().all()
    return x


def odd_inputs(count, seed=0):
    """Problems as nobody should pose them, and some that are only small or odd."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        h, w, c = rng.integers(1, 12), rng.integers(1, 12), rng.integers(1, 5)
        y = torch.from_numpy(rng.normal(size=(1, c, h, w))).float()
        change = rng.integers(0, 8)
        if change == 1:
            y = y.half()
        elif change == 2:
            y = torch.complex(y, y)
        elif change == 3:
            y = y.transpose(2, 3).contiguous().transpose(2, 3)  # strided
        elif change == 4:
            y = y[..., :0]
        elif change == 5:
            y = y[0]
        elif change == 6:
            y = y.double()
        shape = (int(c), int(h), int(w))
        kernel = torch.rand(int(rng.integers(1, 14)), int(rng.integers(1, 14)))
        mask = (torch.rand(shape[1:]) > rng.choice([0.5, 1.0])).float()
        operators = [
            lambda shape=shape: Identity(shape),
            lambda shape=shape, kernel=kernel: Blur(shape, kernel / kernel.sum()),
            lambda shape=shape, mask=mask: Mask(shape, mask),
        ]
        yield operators[rng.integers(0, 3)], y, float(rng.choice([0.0, 0.1, 10.0]))


def count_accepted(count):
    return sum(accepted_or_named(*problem) is not None for problem in odd_inputs(count))


def test_odd_inputs_are_solved_or_refused_by_name():
    assert 5 < count_accepted(40) < 40


@pytest.mark.slow
def test_odd_inputs_are_solved_or_refused_by_name_in_hundreds(injected):
    injected("15: odd and wrong-domain inputs", 1000)
    assert 100 < count_accepted(1000) < 1000


def test_one_pixel_and_odd_sizes(here):
    for size in ((1, 1), (1, 7), (5, 3)):
        picture(here / "s.png", *size, 3)
        assert run("reconstruct", "s.png", "--operator", "identity", "--sigma", 0.1, "--prior",
                   tiny(here / "p.safetensors"), "--method.steps", 2, "--quiet",
                   "--out", "r") == 0  # fmt: skip
