"""Filtered back-projection: quality, units, the axis of rotation, angles of any spacing."""

import math

import numpy as np
import pytest
import torch

from measurand.operators import ParallelCT, angular_weights, even_angles, fbp, hann, rotation_axis

N = 64


def ellipses(n=N, aside=0):
    """An ellipse with a disk in it."""
    t = np.linspace(-1, 1, n + 1 - n % 2)[: n + aside]
    y, x = t[:, None], t
    image = (y**2 + 2 * x**2 < 0.5) * 1.0 + ((y - 0.3) ** 2 + x**2 < 0.02)
    return torch.from_numpy(image)[None, None]


def error(a, b):
    return float((a - b).square().mean().sqrt())


def test_filtered_back_projection_restores_units_and_quality():
    data, transform = pytest.importorskip("skimage.data"), pytest.importorskip("skimage.transform")
    n, count = 129, 180
    image = transform.resize(data.shepp_logan_phantom(), (n, n), anti_aliasing=True)
    angles = even_angles(count)
    x = torch.from_numpy(image)[None, None]
    operator = ParallelCT((1, n, n), angles).double()
    found = fbp(operator, operator(x))
    degrees = np.rad2deg(angles.numpy())
    peer = transform.iradon(transform.radon(image, degrees), degrees)
    ours, theirs = (10 * math.log10(1 / np.mean((a - image) ** 2)) for a in (found.numpy(), peer))
    assert ours > theirs - 0.3 and ours > 25
    assert float(found.mean()) == pytest.approx(float(image.mean()), rel=5e-3)
    # other units, a full turn: the same image
    scaled = ParallelCT((1, n, n), even_angles(2 * count, 2 * math.pi), pixel=0.25).double()
    torch.testing.assert_close(fbp(scaled, scaled(x)), found, rtol=0, atol=2e-3)
    # a window damps the noise that the ramp lifts
    noise = torch.randn(operator(x).shape, dtype=torch.float64)
    assert fbp(operator, noise, window=hann).std() < 0.5 * fbp(operator, noise).std()


def test_views_that_do_not_see_the_whole_object_are_told(recwarn):
    x = ellipses()
    whole = ParallelCT((1, N, N), even_angles(40, 2 * math.pi)).double()
    fbp(whole, whole(x)), fbp(whole, torch.randn(whole(x).shape, dtype=torch.float64))
    assert not recwarn
    for options in ({"detectors": 30}, {"detectors": 45, "axis": -20}):
        part = ParallelCT((1, N, N), even_angles(40, 2 * math.pi), **options).double()
        with pytest.warns(UserWarning, match="fbp: views have .* the object is cut off"):
            fbp(part, part(x))


def test_weights_want_radians():
    with pytest.raises(ValueError, match="angular_weights: got angles .* degrees=True"):
        angular_weights(np.arange(180.0))
    found = angular_weights(np.arange(180.0), degrees=True)
    torch.testing.assert_close(found, torch.full_like(found, math.pi / 180))


def test_projections_of_another_shape_are_named():
    with pytest.raises(ValueError, match="projections with shape"):
        fbp(ParallelCT((1, 8, 8), even_angles(4)), torch.zeros(1, 1, 3, 12))


@pytest.mark.parametrize("turn", [math.pi, 2 * math.pi])
@pytest.mark.parametrize("axis", [5.0, -3.4])
def test_an_axis_aside_is_bad_until_it_is_found(turn, axis):
    x, angles = ellipses(), even_angles(180, turn)
    scan = ParallelCT((1, N, N), angles, detectors=128, axis=axis).double()
    g = torch.Generator().manual_seed(0)
    y = scan(x)
    y = y + 0.02 * y.max() * torch.randn(y.shape, generator=g, dtype=y.dtype)
    found = rotation_axis(y, angles)
    assert found == pytest.approx(axis, abs=0.1)
    wrong, right, true = (
        error(fbp(ParallelCT((1, N, N), angles, detectors=128, axis=a).double(), y), x)
        for a in (0.0, found, axis)
    )
    assert wrong > 2.5 * true and right < 1.02 * true


def test_sinograms_of_scikit_image_have_an_axis():
    """Its axis goes through bin n // 2 and pixel n // 2, half aside where n is even."""
    transform = pytest.importorskip("skimage.transform")
    degrees = np.arange(180.0)
    x = ellipses()[0, 0].numpy()
    s = transform.radon(x, degrees, circle=True)
    y = torch.from_numpy(np.ascontiguousarray(s.T))[None, None]
    assert rotation_axis(y, degrees, degrees=True) == pytest.approx(0.5, abs=0.05)
    larger = ParallelCT((1, N + 1, N + 1), degrees, degrees=True, detectors=N, axis=0.5).double()
    ours = fbp(larger, y)[0, 0, :N, :N].numpy()
    theirs = transform.iradon(s, degrees, circle=True)
    left, right = (float(np.sqrt(((a - x) ** 2).mean())) for a in (ours, theirs))
    assert left < 1.15 * right and right < 0.06
    plain = fbp(ParallelCT((1, N, N), degrees, degrees=True, detectors=N).double(), y)
    assert error(plain[0, 0], torch.from_numpy(x)) > 1.5 * right


def test_weights_of_even_angles_are_even():
    for angles in (even_angles(7), even_angles(7, -math.pi), even_angles(6, math.pi) + 0.2, [0.3]):
        weights = angular_weights(angles)
        torch.testing.assert_close(weights, torch.full_like(weights, math.pi / len(weights)))


def test_weights_are_the_nearest_part_of_the_half_turn():
    angles = torch.tensor([2.0, 0.2, 0.5, 0.25, 1.4]).double()
    fine = torch.linspace(0, math.pi, 100001, dtype=torch.float64)[:-1]
    distance = (fine[:, None] - angles).abs()
    nearest = torch.minimum(distance, math.pi - distance).argmin(1)
    wanted = torch.bincount(nearest, minlength=5).double() * math.pi / 100000
    torch.testing.assert_close(angular_weights(angles), wanted, atol=1e-4, rtol=0)


def test_views_of_one_direction_share_its_weight():
    angles = torch.deg2rad(torch.tensor([0.0, 45, 90, 135, 180, 225, 360]))
    wanted = torch.tensor([1 / 3, 1 / 2, 1, 1, 1 / 3, 1 / 2, 1 / 3]).double() * math.pi / 4
    torch.testing.assert_close(angular_weights(angles), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("degrees", "covered"),
    [
        (np.arange(0, 120, 1.0), 120),  # limited angle
        (np.r_[0:60, 100:160] * 1.0, 120),  # two wedges
        (np.r_[np.arange(0, 90, 0.5), np.arange(90, 180, 5.0)], 180),  # fine and coarse
        (np.arange(360) + 0.01 * np.sin(np.arange(360.0)), 180),  # a whole turn that trembles
        (np.arange(0, 200, 1.0), 180),  # some degrees too many
        (np.random.default_rng(0).permutation(np.mod(np.arange(100) * 111.246, 180)), 180),
    ],
)
def test_gaps_that_were_not_measured_are_left_to_nobody(degrees, covered):
    weights = np.rad2deg(angular_weights(np.deg2rad(degrees)).numpy())
    assert weights.sum() == pytest.approx(covered, rel=0.02)
    assert weights.max() < 8 * covered / len(degrees)


def test_uneven_and_overfull_scans_are_as_good_as_even_ones():
    x, rng = ellipses(), np.random.default_rng(0)

    def quality(angles, weighted=True):
        operator = ParallelCT((1, N, N), angles).double()
        if weighted:
            return error(fbp(operator, operator(x)), x)
        even = math.pi / len(angles) / angular_weights(angles)[:, None]
        return error(fbp(operator, operator(x) * even), x)

    best = quality(even_angles(180))
    dense = np.r_[np.arange(0, 90, 0.5), np.arange(90, 180, 2.0)]
    for degrees, worse in (
        (dense, 2.0),
        (np.arange(0, 240), 1.5),
        (np.r_[0:361], 0.999),
        (rng.random(400) * 180, 1.05),
    ):
        angles = np.deg2rad(degrees)
        assert quality(angles) < 1.2 * best
        assert quality(angles, weighted=False) > worse * quality(angles)
