"""Variants of the cases of point spread functions (`test_cases_photo`): how they are stored."""

import numpy as np
import pytest
from cases import rng

from measurand.jobs.operands import operand

pytestmark = pytest.mark.usefixtures("here")


def spot(side, sigma=1.5):
    i = np.arange(side) - side // 2
    found = np.exp(-(i[:, None] ** 2 + i**2) / (2 * sigma**2))
    return found / found.sum()


def read(array, channels=1):
    np.save("k.npy", array)
    return operand("k.npy", "kernel", (channels, 40, 48))


@pytest.mark.parametrize("side", [16, 17, 41])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_the_origin_of_a_kernel_may_be_at_index_zero(side, scale):
    kernel, notes = read(scale * np.fft.ifftshift(spot(side)))
    assert np.abs(kernel.numpy() - spot(side)).max() < 1e-6
    assert "four corners" in notes[0]


@pytest.mark.parametrize("at", [(0, 0), (3, 4), (20, 30)])
@pytest.mark.parametrize("height", [600, 4000, 60000])
def test_a_hot_pixel_of_a_measured_kernel_is_no_light(at, height):
    stored = 1000 * spot(33) / spot(33).max() + 100 + 3 * rng(1).normal(size=(33, 33))
    stored[at] = height
    kernel, notes = read(stored)
    assert kernel.shape == (33, 33) and np.abs(kernel.numpy() - spot(33)).sum() < 0.3
    assert any("1 hot pixels" in note for note in notes)


def test_sharp_kernels_keep_all_of_their_light():
    point = 1000.0 * (spot(33, 0.2) > 0.5)
    halo = point + 20 * spot(33, 4.0) / spot(33, 4.0).max()
    two = point + np.roll(point, 7, 1)
    for stored in (point, halo, two, point + rng(1).normal(size=point.shape)):
        assert not any("hot" in note for note in read(stored)[1])


@pytest.mark.parametrize("side", [33, 41, 65])
@pytest.mark.parametrize(
    "stored",
    [
        lambda k, n: (200 * k + 12 + n).round().astype("u1"),
        lambda k, n: (200 * k + 12.5 + n).clip(0, 255).astype("u1"),
        lambda k, n: (1000 * k + 100.4 + 5 * n).astype("u2"),
        lambda k, n: (1000 * k + 5 * n).clip(0).astype("u2"),
        lambda k, n: (3000 * k + 8 * n).clip(0),
        lambda k, n: (3000 * k + 8 * n).clip(0).astype("f2"),
    ],
)
def test_noise_around_a_measured_kernel_takes_no_light(stored, side):
    kernel, _ = read(stored(spot(side) / spot(side).max(), rng(side).normal(size=(side, side))))
    kernel = kernel.numpy()
    middle = kernel[side // 2 - 5 : side // 2 + 6, side // 2 - 5 : side // 2 + 6]
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert middle.sum() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("stored", [lambda a: 255 * (1 - a), lambda a: 1000.0 - 900 * a])
def test_a_negative_of_a_kernel_is_refused(stored):
    a = spot(33) / spot(33).max()
    with pytest.raises(ValueError, match="brightest along its border.*a negative"):
        read(stored(a))
    for fine in (np.ones((9, 9)), a + 0.1, spot(33, 8.0), np.fft.ifftshift(a)):
        read(fine)
