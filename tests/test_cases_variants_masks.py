"""Variants of the cases of masks (`test_cases_photo`): pixels that were not measured."""

import numpy as np
import pytest
from cases import FEW, SMALL, drawn, record, refused, rng, scene
from test_cli import run

pytestmark = pytest.mark.usefixtures("here")
MASK = ["--operator", "mask", "--operator.mask"]
HOLES = {
    "few": lambda h, w: rng().random((h, w)) > 0.03,
    "many": lambda h, w: rng().random((h, w)) > 0.4,
    "block": lambda h, w: (np.arange(h)[:, None] > h // 2) | (np.arange(w) > w // 2),
    "lines": lambda h, w: (np.arange(w) % 4 != 0) & np.ones((h, 1), bool),
}


@pytest.mark.parametrize("how", ["mask", "nan", "seen", "not zeroed"])
@pytest.mark.parametrize("holes", HOLES)
def test_the_noise_between_holes_is_seen(holes, how):
    seen = HOLES[holes](96, 120)
    y = scene(48, 60).repeat(2, 0).repeat(2, 1) + 0.05 * drawn((96, 120)).numpy()
    if how != "not zeroed":
        y = np.where(seen, y, np.nan if how == "nan" else 0)
    np.save("y.npy", y.astype("f4")), np.save("m.npy", seen)
    words = {"nan": ["--operator", "identity"], "seen": ["--operator", "identity"]}
    words["seen"] = [*words["seen"], "--seen", "m.npy"]
    command = ["reconstruct", "y.npy", *words.get(how, [*MASK, "m.npy"]), *SMALL]
    assert run(*command, "--out", "r") == 0
    assert record()["sigma"] == pytest.approx(0.1, rel=0.15)


def masked(seen, mask, *words):
    """Restores a picture that is zero where nothing was seen; returns the exit code."""
    np.save("y.npy", np.where(seen, scene(*seen.shape), 0)), np.save("m.npy", mask)
    command = ["reconstruct", "y.npy", "--sigma", 0.01, *SMALL, *(words or (*MASK, "m.npy"))]
    return run(*command, "--out", "r")


@pytest.mark.parametrize("option", ["mask", "seen"])
@pytest.mark.parametrize(
    "turn, way",
    [
        (lambda a: a[::-1], "save mask[::-1] "),
        (lambda a: a[:, ::-1], "save mask[:, ::-1] "),
        (lambda a: a[::-1, ::-1], "save mask[::-1, ::-1] "),
        (lambda a: a.T, "save mask.T "),
        (lambda a: np.rot90(a), "save np.rot90(mask, -1) "),
        (lambda a: np.rot90(a, -1), "save np.rot90(mask) "),
        (lambda a: np.rot90(a, 2).T, "save np.rot90(mask, 2).T "),
        (lambda a: np.roll(a, 3, 1), "is it shifted, or another image"),
    ],
)
def test_the_mask_of_another_orientation_is_refused(turn, way, option, capsys):
    seen = HOLES["many"](40, 40)
    words = [] if option == "mask" else ["--operator", "identity", "--seen", "m.npy"]
    assert masked(seen, turn(seen), *words) == 2
    assert way in capsys.readouterr().err


def test_black_pixels_of_a_scene_are_no_mask():
    x = scene(40, 40)
    x[:, :16] = 0
    seen = HOLES["many"](40, 40)
    np.save("y.npy", x), np.save("m.npy", seen)
    words = ["reconstruct", "y.npy", "--sigma", 0.01, *SMALL, *MASK, "m.npy", "--out", "r"]
    assert run(*words) == 0


def test_a_mask_on_its_side_is_named(capsys):
    seen = HOLES["many"](40, 48)
    assert masked(seen, seen.T) == 2
    assert "48 rows and 40 columns, wanted 40 and 48" in capsys.readouterr().err


@pytest.mark.parametrize("shape", ["h w 1", "h w 3", "3 h w", "5 h w", "1 h w", "1 1 h w"])
def test_the_axis_of_channels_of_a_mask_may_be_anywhere(shape):
    seen = HOLES["many"](40, 48)
    assert masked(seen, seen) == 0
    wanted = np.load("r/estimate.npy")
    axes = shape.split()
    mask = np.ones([1 if a in "hw" else int(a) for a in axes]) * seen.reshape(
        [40 if a == "h" else 48 if a == "w" else 1 for a in axes]
    )
    assert masked(seen, mask.astype("u1") * 255) == 0
    assert np.array_equal(np.load("r/estimate.npy"), wanted)


def test_indices_are_no_mask(capsys):
    assert masked(np.ones((40, 48), bool), np.arange(3, 40, 4)) == 2
    assert "looks like indices, 3 to 39" in capsys.readouterr().err


def notes_on(y, *words):
    np.save("y.npy", y)
    assert run("reconstruct", "y.npy", "--sigma", 0.02, *words, *FEW, "--out", "r") == 0
    return [note for note in record()["notes"] if "exactly zero" in note]


def test_holes_that_nobody_calls_so_are_said():
    seen = HOLES["many"](40, 48)
    y = scene() * seen
    np.save("m.npy", seen)
    np.save("ones.npy", np.ones_like(seen))
    assert "--seen MASK" in notes_on(y, "--operator", "identity")[0]
    assert notes_on(y, "--operator", "mask", "--operator.mask", "ones.npy")
    assert not notes_on(y, "--operator", "mask", "--operator.mask", "m.npy")
    assert not notes_on(y, "--operator", "identity", "--seen", "m.npy")


@pytest.mark.parametrize(
    "rightly",
    [
        rng(1).poisson(0.8 * scene()).astype("f4") / 4 * 4,  # few counts
        (scene() + 0.3 * rng(2).normal(size=(40, 48)) - 0.5).clip(0, 1).astype("f4"),  # cut noise
        (rng(3).random((40, 48)) < scene()).astype("f4"),  # two values
        np.where(scene() > 0.4, scene(), 0).astype("f4"),  # a dark region
    ],
)
def test_zeros_of_a_picture_are_no_holes(rightly):
    assert not notes_on(rightly, "--operator", "identity", "--value-range", 0, 5)


def test_an_inverted_mask_over_noise_is_refused(capsys):
    seen = HOLES["many"](40, 48)
    np.save("m.npy", ~seen)
    np.save("y.npy", scene() * seen + 0.02 * rng(4).normal(size=(40, 48)))
    words = ["reconstruct", "y.npy", "--operator", "mask", "--operator.mask", "m.npy"]
    assert "noise around zero" in refused(capsys, *words, *FEW, "--value-range", 0, 1)
    np.save("m.npy", seen)
    assert run(*words, "--sigma", 0.02, "--value-range", 0, 1, *FEW, "--out", "r") == 0
