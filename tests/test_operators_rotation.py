"""The rotation axis from data: to a tenth of a bin, with noise, any angles, any axis."""

import math

import numpy as np
import pytest
import torch

from measurand.operators import ParallelCT, even_angles, rotation_axis

N = 48
RNG = np.random.default_rng(0)
SCANS = {
    "half turn": even_angles(120),
    "whole turn": even_angles(120, 2 * math.pi),
    "few": even_angles(36),
    "golden angle": torch.remainder(torch.arange(90) * math.pi * (3 - math.sqrt(5)), math.pi),
    "uneven": torch.from_numpy(RNG.random(150) * math.pi),
    "backwards": -even_angles(90),
}


def phantom():
    y, x = np.mgrid[-1 : 1 : N * 1j, -1 : 1 : N * 1j]
    image = 1.0 * ((x / 0.6) ** 2 + (y / 0.8) ** 2 < 1) - 0.8 * (
        (x / 0.5) ** 2 + (y / 0.7) ** 2 < 1
    )
    image += 0.3 * ((x - 0.2) ** 2 + (y / 2) ** 2 < 0.02) + 0.4 * ((x + 0.2) ** 2 + y**2 < 0.01)
    return torch.from_numpy(image).float()[None, None]


def sinogram(angles, axis, noise=0.0, image=None, detectors=80, seed=0):
    x = phantom() if image is None else image
    y = ParallelCT((1, N, N), angles, detectors=detectors, axis=axis)(x)[0, 0]
    g = torch.Generator().manual_seed(seed)
    return y + noise * y.max() * torch.randn(y.shape, generator=g)


@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("axis", [0.0, 3.3, -7.75])
def test_it_is_found_to_a_tenth_of_a_bin(scan, axis):
    angles = SCANS[scan]
    assert rotation_axis(sinogram(angles, axis), angles) == pytest.approx(axis, abs=0.02)
    for seed in range(3):
        y = sinogram(angles, axis, noise=0.02, seed=seed)
        assert rotation_axis(y, angles) == pytest.approx(axis, abs=0.1)


def test_an_object_beside_the_axis_is_not_mistaken_for_it():
    aside = torch.zeros(1, 1, N, N)
    aside[..., 6:20, 30:40] = 1
    y = sinogram(SCANS["half turn"], 2.5, 0.02, aside)
    assert rotation_axis(y, SCANS["half turn"]) == pytest.approx(2.5, abs=0.1)


def test_slices_are_used_together():
    angles = SCANS["half turn"]
    y = torch.stack([sinogram(angles, 4.2, 0.1, seed=k) for k in range(8)])
    assert rotation_axis(y[:, None], angles) == pytest.approx(4.2, abs=0.1)
    assert rotation_axis(y.numpy(), torch.rad2deg(angles), degrees=True) == rotation_axis(
        y, angles
    )


def test_a_constant_background_does_no_harm_and_is_told():
    angles = SCANS["half turn"]
    y = sinogram(angles, 3.3, 0.01)
    with pytest.warns(UserWarning, match="no constant background, the object is cut off"):
        found = rotation_axis(y + 0.5 * y.max(), angles)
    assert found == pytest.approx(rotation_axis(y, angles), abs=1e-3)


def test_an_object_that_is_cut_off_is_told():
    y = sinogram(SCANS["half turn"], -8.0, detectors=36)
    with pytest.warns(UserWarning, match="ends of the detector .* may be wrong"):
        rotation_axis(y, SCANS["half turn"])


def test_what_cannot_be_used_is_named():
    angles = SCANS["half turn"]
    y = sinogram(angles, 0.0)
    for data, views, words in (
        (y, angles[:-1], r"shape \(120, 80\) and angles of shape \(119,\)"),
        (y.T, angles, "transpose them"),
        (y[0], angles, "wanted \\(..., angles, detectors\\)"),
        (y * math.nan, angles, "not finite"),
        (y, torch.rad2deg(angles), "degrees"),
        (y[:100], angles[:100], "a gap of 31.5 degrees, wanted 20 at most"),
        (y * 0, angles, "see something"),
    ):
        with pytest.raises(ValueError, match=f"rotation_axis: .*{words}"):
            rotation_axis(data, views)
