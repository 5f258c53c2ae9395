"""Measured point spread functions: background, place and scale go, all else stays."""

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from measurand.jobs.operands import operand
from measurand.jobs.psf import psf
from measurand.operators import disk_kernel, gaussian_kernel, motion_kernel

COLOR, GREY = (3, 64, 64), (1, 64, 64)


def spot(side=33, at=(16, 16), sigma=2.0):
    i, j = np.mgrid[:side, :side]
    return np.exp(-((i - at[0]) ** 2 + (j - at[1]) ** 2) / (2 * sigma**2))


def test_background_place_and_scale_of_a_bead():
    noise = np.random.default_rng(0).normal(0, 1.5, (33, 33))
    counts = 1000 * spot(at=(11, 19)) + 100 + noise
    kernel, notes = psf("psf", counts, 1)
    wanted = np.pad(spot(at=(11, 19)), ((10, 0), (0, 6)))
    wanted /= wanted.sum()
    assert kernel.shape == (43, 39) and np.unravel_index(kernel.argmax(), (43, 39)) == (21, 19)
    assert np.abs(kernel - wanted).max() < 0.02 * wanted.max()
    assert kernel.sum() == pytest.approx(1)
    assert "background of 99.7 subtracted" in notes[0] and "mean of its border" in notes[0]
    assert notes[1].startswith("centred: moved by 5 rows and -3 columns (")
    assert notes[2].startswith("divided by its sum")


def test_a_faint_background_under_its_own_noise_is_seen():
    noise = np.random.default_rng(1).normal(0, 3, (65, 65))
    kernel, notes = psf("psf", 1000 * spot(65, (32, 32)) + 4 + noise, 1)
    true = spot(65, (32, 32)) / spot(65, (32, 32)).sum()
    assert "background" in notes[0] and kernel.max() == pytest.approx(true.max(), rel=0.05)


@pytest.mark.parametrize(
    "kernel",
    [
        gaussian_kernel(1.6).numpy(),
        gaussian_kernel(2.0, 7).numpy(),
        gaussian_kernel(9.0, 9).numpy(),
        disk_kernel(3.5).numpy(),
        motion_kernel(12, 0.4).numpy(),
        motion_kernel(9, 0.0).numpy(),
        np.ones((5, 5)),
        np.ones((2, 3)),
    ],
)
def test_kernels_without_a_background_keep_their_shape(kernel):
    for scale in (1 / kernel.sum(), 1000.0):
        found, notes = psf("psf", scale * kernel, 1)
        np.testing.assert_allclose(found, kernel / kernel.sum(), rtol=1e-6)
        assert not any("background" in note or "centred" in note for note in notes)


def test_negative_lobes_are_kept():
    i = np.arange(-10, 11)
    lobes = 200 * np.sinc(i / 3)[:, None] * np.sinc(i / 3)
    assert lobes.min() < -10
    found, _ = psf("psf", lobes, 1)
    np.testing.assert_allclose(found, lobes / lobes.sum(), rtol=1e-9)


def test_a_kernel_of_sum_one_is_centred_unless_it_stays_in_place(tmp_path):
    kernel = spot(at=(12, 16)) / spot(at=(12, 16)).sum()
    found, (note,) = psf("psf", kernel, 1)
    assert found.shape == (41, 33) and found[20, 16] == found.max()
    np.testing.assert_allclose(found[8:], kernel, rtol=1e-6)
    assert "centred: moved by 4 rows and 0 columns" in note and ":in-place" in note
    np.save(tmp_path / "k.npy", kernel)
    kept, (note,) = operand(f"{tmp_path / 'k.npy'}:in-place", "kernel", GREY)
    np.testing.assert_allclose(kept.numpy(), kernel, rtol=1e-6)
    assert "-4.0 rows and" in note and "image is moved" in note
    counts, notes = psf("psf", 1000 * kernel, 1, in_place=True)
    np.testing.assert_allclose(counts, kernel, rtol=1e-6)
    assert "image is moved" in notes[0] and "divided" in notes[1]
    moved, notes = psf("psf", kernel + 1e-3, 1)  # on a background it is a measured one
    assert "centred: moved by 4 rows" in notes[1] and moved[20, 16] == moved.max()


def test_the_same_psf_in_every_format(tmp_path):
    counts = (900 * spot(at=(13, 18)) + 40).round().astype(np.uint16)
    np.save(tmp_path / "a.npy", counts)
    tifffile.imwrite(tmp_path / "a.tif", counts)
    tifffile.imwrite(tmp_path / "f.tif", counts.astype(np.float32))
    Image.fromarray(counts).save(tmp_path / "a.png")
    kernel, _ = operand(str(tmp_path / "a.npy"), "kernel", GREY)
    for name in ("a.tif", "f.tif", "a.png"):
        assert operand(str(tmp_path / name), "kernel", GREY)[0].equal(kernel)


def test_colours_are_a_plane_for_each_channel_and_move_together(tmp_path):
    planes = np.stack([spot(at=(12 + c, 16), sigma=1.5 + 0.5 * c) for c in range(3)])
    counts = (10000 * planes).round().astype(np.uint16)
    tifffile.imwrite(tmp_path / "c.tif", counts.transpose(1, 2, 0), photometric="rgb")
    np.save(tmp_path / "first.npy", counts)
    np.save(tmp_path / "last.npy", counts.transpose(1, 2, 0))
    kernel, notes = operand(str(tmp_path / "c.tif"), "kernel", COLOR)
    assert kernel.shape == (1, 3, 39, 33) and "one for each channel" in notes[0]
    torch.testing.assert_close(kernel.sum((-2, -1)), torch.ones(1, 3))
    assert [int(k.argmax()) // 33 - 19 for k in kernel[0]] == [-1, 0, 1]
    for name in ("first.npy", "last.npy"):
        assert operand(str(tmp_path / name), "kernel", COLOR)[0].equal(kernel)
        with pytest.raises(ValueError, match="3 planes, wanted one kernel"):
            operand(str(tmp_path / name), "kernel", GREY)


def test_a_psf_of_even_sides_says_that_it_moves_the_image():
    i, j = np.mgrid[:8, :9]
    values = np.exp(-((i - 3.5) ** 2 + (j - 4) ** 2) / 4)
    for scale in (1.0, 1000.0):
        _, notes = psf("psf", scale * values / values.sum(), 1)
        assert "0.50 rows" in notes[-1] and "an odd number of rows" in notes[-1]
    assert not psf("psf", spot() / spot().sum(), 1)[1]
