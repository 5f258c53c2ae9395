"""Variants of the cases of tomography (`test_cases_scan`): angles, axis, counts and units."""

import numpy as np
import pytest
import torch
from cases import FEW, drawn, error_of, record, refused, rng
from test_cli import run

from measurand.operators import ParallelCT, even_angles

pytestmark = pytest.mark.usefixtures("here")
SIZE, VIEWS, WATER = 48, 60, 0.02
TV = ["--prior", "total-variation", "--method", "fista", "--method.steps", 60, "--quiet"]
CT = ["--operator", "parallel-ct", "--operator.angles"]


def slab():
    i, j = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    return (
        WATER * ((j / 0.8) ** 2 + (i / 0.6) ** 2 < 1)
        + WATER * ((j - 0.3) ** 2 + (i + 0.1) ** 2 < 0.02)
    ).astype("f4")


def sinogram(**options):
    a = ParallelCT((1, SIZE, SIZE), even_angles(VIEWS), **options)
    p = a(torch.from_numpy(slab())[None, None])[0, 0]
    p = (p + 0.003 * drawn(p.shape)).numpy()
    np.save("p.npy", p), np.save("angles.npy", even_angles(VIEWS))
    return p


def restored(file="p.npy", angles="angles.npy", *words):
    command = ["reconstruct", file, *CT, angles, *TV, "--sigma", 0.003, *words, "--out", "r"]
    assert run(*command) == 0
    return np.load("r/estimate.npy")


@pytest.mark.parametrize("name", ["angles.txt", "angles.csv", "theta.TXT"])
@pytest.mark.parametrize("degrees", [False, True])
def test_angles_may_be_a_table_of_text(name, degrees):
    sinogram()
    angles = np.asarray(even_angles(VIEWS)) * (180 / np.pi if degrees else 1)
    np.savetxt(name, angles, header="angle", delimiter=",")
    words = ["--operator.degrees"] if degrees else []
    assert error_of(restored("p.npy", name, *words), slab()) < 0.15


def test_a_table_that_is_none_is_named(capsys):
    sinogram()
    for text, words in (("angle\n1.0", "wanted a table of numbers"), ("", "holds no number")):
        open("a.txt", "w").write(text)
        command = ["reconstruct", "p.npy", *CT, "a.txt", *TV, "--out", "r"]
        assert words in refused(capsys, *command)


@pytest.mark.parametrize("given", [[], ["--shape", 1, SIZE, SIZE]])
@pytest.mark.parametrize("axis", [1.5, -0.7, 3.0])
def test_the_axis_that_is_advised_can_be_said(axis, given):
    sinogram(axis=axis, detectors=76)
    restored()
    (note,) = [note for note in record()["notes"] if "--operator.axis" in note]
    found = note.split()[-1]
    assert float(found) == pytest.approx(axis, abs=0.1)
    estimate = restored("p.npy", "angles.npy", "--operator.axis", found, *given)
    if given:
        assert error_of(estimate, slab()) < 0.15
    else:
        assert len(estimate) == int((76 - 2 * abs(float(found))) / np.sqrt(2))


@pytest.mark.parametrize("bins", [68, 69, 71, 75])
def test_any_number_of_bins_will_do(bins):
    sinogram(detectors=bins)
    estimate = restored()
    assert len(estimate) == int(bins / np.sqrt(2))


def test_a_wrong_number_of_angles_is_named(capsys):
    np.save("p.npy", sinogram()[:-1])
    command = ["reconstruct", "p.npy", *CT, "angles.npy", *TV, "--sigma", 0.003, "--out", "r"]
    assert "59 rows of the data are views, and 60 angles are said" in refused(capsys, *command)
    np.save("p.npy", np.stack([sinogram()] * 5, 1))  # projections: views, slices, bins
    assert "np.swapaxes(a, 0, 1)" in refused(capsys, *command)


@pytest.mark.parametrize("flat_too", [False, True])
def test_dead_bins_are_not_measured(flat_too):
    p = sinogram()
    flat = np.full(p.shape[1], 5e4)
    counts = np.random.default_rng(0).poisson(flat * np.exp(-p)).astype("u2")
    dead = [20, 21, 41]
    counts[:, dead] = 0
    flat[dead] = 0 if flat_too else flat[dead]
    np.save("c.npy", counts), np.save("flat.npy", flat)
    estimate = restored("c.npy", "angles.npy", "--flat", "flat.npy", "--sigma", 0.01)
    assert error_of(estimate, slab()) < 0.2
    assert any("3 bins of the detector without light" in note for note in record()["notes"])


@pytest.mark.parametrize("water, said", [(WATER, False), (10 * WATER, True), (WATER / 10, True)])
def test_water_in_another_unit_is_said(water, said):
    sinogram()
    restored("p.npy", "angles.npy", "--water", water)
    assert any("is --water per the same unit" in note for note in record()["notes"]) == said


def notes_of(p, *words):
    np.save("p.npy", p)
    on = ["--operator", "parallel-ct", "--operator.angles", "angles.npy", "--value-range", 0, 0.1]
    assert run("reconstruct", "p.npy", *on, *words, *FEW, "--out", "r") == 0
    return " ".join(record()["notes"])


def test_line_integrals_of_the_wrong_sign_and_dead_bins_are_said():
    p = sinogram()
    bins, views = p.shape[-1], p.shape[-2]
    assert "negative" not in notes_of(p) and "zero everywhere" not in notes_of(p)
    assert "save -a" in notes_of(-p)
    hole = np.where(np.arange(bins) == bins // 2, 0, p)
    assert f"number {bins // 2};" in notes_of(hole)
    hole = np.where(np.arange(views)[:, None] == 7, 0, p)
    assert "views that are zero everywhere" in notes_of(hole)


def test_angles_of_another_order_are_said():
    p, a = sinogram(), np.load("angles.npy")
    assert "angles:" not in notes_of(p)
    np.save("angles.npy", rng(1).permutation(a))
    assert "another order" in notes_of(p)
