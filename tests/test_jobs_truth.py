"""Truths that cannot be those of the data, in other units or turned, are said."""

import numpy as np
import pytest
import torch
from cases import FEW, as_tensor, disc, drawn, record, scan, scene
from test_cli import run

from measurand.operators import ParallelCT, even_angles

OTHERS = {"np.rot90": np.rot90, "mask.T": np.transpose, "mask[::-1]": lambda a: a[::-1]}


def doubts():
    return [note for note in record()["notes"] if "explains the data far better" in note]


@pytest.mark.parametrize("turn", OTHERS)
def test_a_truth_that_is_turned_is_said(here, turn):
    x = scene(40, 40)
    np.save("y.npy", x + 0.02 * drawn(x.shape).numpy())
    words = ["reconstruct", "y.npy", "--operator", "identity", *FEW, "--out", "r", "--truth"]
    np.save("t.npy", OTHERS[turn](x))
    assert run(*words, "t.npy") == 0 and "truth" in doubts()[0]
    np.save("t.npy", x)
    assert run(*words, "t.npy") == 0 and not doubts()


@pytest.mark.parametrize("times", [1, 50, 1e-3])
def test_a_truth_in_other_units_is_said(here, times):
    x, a = disc(), even_angles(60)
    y = ParallelCT((1, 48, 48), a)(as_tensor(x))
    np.save("y.npy", (y + 0.05 * drawn(y.shape))[0, 0].numpy())
    np.save("a.npy", np.asarray(a))
    np.save("t.npy", times * x)
    words = ["--operator", "parallel-ct", "--operator.angles", "a.npy", "--value-range", 0, 2]
    assert run("reconstruct", "y.npy", *words, *FEW, "--truth", "t.npy", "--out", "r") == 0
    assert bool(doubts()) == (times != 1)
    if times != 1:
        said = float(doubts()[0].removeprefix("truth: ").split()[0])
        assert said == pytest.approx(1 / times, rel=0.1)


@pytest.mark.parametrize("times", [1, 1e6])
def test_a_complex_truth_in_other_units_is_said(here, times):
    x, _, _, y = scan()
    np.save("y.npy", (y + 0.01 * drawn(y.shape) * (y != 0)).numpy()[0])
    np.save("t.npy", times * x[0].numpy())
    words = ["--operator", "sense", *FEW, "--truth", "t.npy"]
    assert run("reconstruct", "y.npy", *words, "--out", "r") == 0
    assert bool(doubts()) == (times != 1)


def test_complex_pictures_are_measured_by_tune_in_units_of_the_prior(here, capsys):
    x, maps, mask, _ = scan()
    np.save("maps.npy", maps.numpy())
    np.save("mask.npy", mask.numpy())
    words = ["--operator", "sense", "--operator.maps", "maps.npy", "--operator.mask", "mask.npy"]
    words += ["--method", "fista", "--method.steps", 10, "--prior", "total-variation"]
    found = []
    for k, unit in enumerate((1.0, 1e-6)):
        np.save("x.npy", unit * x[0].numpy())
        more = ["--simulate", "--sigma", 0.01 * unit, "--trials", 2, "--out", f"t{k}"]
        assert run("tune", "x.npy", *words, *more) == 0
        said = capsys.readouterr().out
        found.append(next(line for line in said.splitlines() if "dB" in line))
    assert found[0] == found[1] and "divided by 1e-06" in said


def test_simulate_says_what_it_took_an_image_of_tomography_for(here, capsys):
    np.save("x.npy", disc() / 2)
    np.save("a.npy", np.asarray(even_angles(20)))
    words = ["--operator", "parallel-ct", "--operator.angles", "a.npy", "--sigma", 1e-6]
    assert run("simulate", "x.npy", *words, "--out", "s") == 0
    assert "0 is -1 and 1 is 1; --value-range -1 1" in capsys.readouterr().out
    assert run("simulate", "x.npy", *words, "--value-range", -1, 1, "--out", "u") == 0
    y = torch.from_numpy(np.load("u/measurement.npz")["y"])[None]
    right = ParallelCT((1, 48, 48), even_angles(20))(as_tensor(disc() / 2))
    assert float((y - right).norm() / right.norm()) < 1e-3


def test_tune_takes_counts_of_a_tomograph(here, capsys):
    x, a, flat = disc() / 24, even_angles(40), np.full((1, 68), 8000.0)
    p = ParallelCT((1, 48, 48), a)(as_tensor(x))[0, 0].numpy()
    np.save("y.npy", np.random.default_rng(0).poisson(flat * np.exp(-p)).astype(np.uint16))
    np.save("flat.npy", flat)
    np.save("a.npy", np.asarray(a))
    np.save("x.npy", x)
    words = ["tune", "y.npy", "--operator", "parallel-ct", "--operator.angles", "a.npy"]
    words += ["--value-range", 0, 0.1, "--truth", "x.npy", "--trials", 2, "--out", "t"]
    words += ["--method", "fista", "--method.steps", 20, "--prior", "total-variation"]
    assert run(*words, "--flat", "flat.npy") == 0
    said = capsys.readouterr().out
    assert "line integrals" in said and float(said.split(" dB")[0].split()[-1]) > 20
    assert run(*words[:2], *words[2:6], "--simulate", "--sigma", 0.1, "--flat", "flat.npy") == 2
    assert "--flat, --dark and --water are for measured files" in capsys.readouterr().err


WAYS = {
    "blue, green, red": lambda x: x[..., ::-1],
    "a shift by one row": lambda x: np.roll(x, 1, 0),
    "its power 2.2": lambda x: x ** (1 / 2.2),
}


@pytest.mark.parametrize("way", WAYS)
def test_truths_of_other_conventions_are_said(here, way):
    x = scene(40, 40)
    x = np.stack([x, x.T, x[::-1] ** 2], -1)
    np.save("y.npy", x + 0.005 * drawn(x.shape).numpy())
    np.save("t.npy", WAYS[way](x).astype("f4"))
    words = ["--operator", "identity", "--value-range", 0, 1, *FEW, "--truth", "t.npy"]
    assert run("reconstruct", "y.npy", *words, "--out", "r") == 0
    assert way in doubts()[0]
