"""The projector against analytic projections and scikit-image, its adjoint, its angles."""

import math

import numpy as np
import pytest
import torch

from measurand.operators import ParallelCT, even_angles, fbp
from measurand.tensors import inner, norm


def grid(n, pixel=1.0):
    x = (torch.arange(n, dtype=torch.float64) - (n - 1) / 2) * pixel
    return x, -x[:, None]


def disk(n, cx, cy, radius, pixel=1.0, fine=8):
    """A disk, area-averaged over the pixels."""
    x, y = grid(n * fine, pixel / fine)
    inside = ((x - cx) ** 2 + (y - cy) ** 2 <= radius**2).double()
    return inside.reshape(n, fine, n, fine).mean((1, 3))


def distances(operator, cx, cy):
    """Distance of every ray from a point, with shape (angles, detectors)."""
    s = torch.arange(operator.detectors, dtype=torch.float64) - (operator.detectors - 1) / 2
    s = s - operator.axis
    a = operator.angles.double()[:, None]
    return s * operator.spacing - cx * torch.cos(a) - cy * torch.sin(a)


GEOMETRIES = {
    "even": {"angles": even_angles(36)},
    "full turn": {"angles": even_angles(24, 2 * math.pi)},
    "any": {"angles": torch.tensor([0.1, 2.0, -1.3, 5.1, 6.3])},
    "millimetres": {"angles": even_angles(30), "pixel": 0.7, "spacing": 0.9},
    "fine bins": {"angles": even_angles(20), "spacing": 0.4, "detectors": 300},
    "off axis": {"angles": even_angles(30), "axis": 5.3},
    "off axis, full turn": {"angles": even_angles(24, 2 * math.pi), "axis": -4.7},
    "off axis, any": {"angles": [0.1, 2.0, -1.3, 5.1, 6.3], "axis": 9, "pixel": 0.7},
}


@pytest.mark.parametrize("kind", GEOMETRIES)
def test_projections_of_a_disk_are_its_chords(kind):
    n, geometry = 101, GEOMETRIES[kind]
    operator = ParallelCT((1, n, n), **geometry).double()
    pixel, spacing = operator.pixel, operator.spacing
    cx, cy, radius = 12 * pixel, -7 * pixel, 25 * pixel
    found = operator(disk(n, cx, cy, radius, pixel)[None, None])[0, 0]
    t = distances(operator, cx, cy)

    def chord_area(t):  # the integral of the chord 2 sqrt(radius^2 - t^2)
        t = t.clamp(-radius, radius)
        return t * (radius**2 - t**2).sqrt() + radius**2 * torch.asin(t / radius)

    wanted = (chord_area(t + spacing / 2) - chord_area(t - spacing / 2)) / spacing
    error = (found - wanted).abs() / (2 * radius)
    assert error[t.abs() < 0.85 * radius].max() < 0.02  # one pixel on a diameter of fifty
    assert error.square().mean().sqrt() < 0.006
    # every projection holds the mass of the disk
    torch.testing.assert_close(
        found.sum(1) * spacing,
        torch.full((len(found),), math.pi * radius**2).double(),
        rtol=1e-3,
        atol=0,
    )


def test_a_smooth_image_is_projected_to_a_per_mille():
    n, width, cx, cy = 129, 9.0, 15.0, -10.0
    operator = ParallelCT((1, n, n), even_angles(60)).double()
    x, y = grid(n)
    image = torch.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * width**2))
    t = distances(operator, cx, cy)
    wanted = width * math.sqrt(2 * math.pi) * torch.exp(-(t**2) / (2 * width**2))
    found = operator(image[None, None])[0, 0]
    assert float((found - wanted).abs().max() / wanted.max()) < 2e-3


def test_one_pixel_at_the_diagonal_has_the_exact_footprint():
    operator = ParallelCT((1, 1, 1), torch.tensor([0.0, math.pi / 4]), detectors=3).double()
    found = operator(torch.ones(1, 1, 1, 1).double())[0, 0]
    # at 45 degrees a triangle of half width 1/sqrt(2): what lies beyond 1/2 on either side
    side = (1 / math.sqrt(2) - 0.5) ** 2
    wanted = torch.tensor([[0, 1, 0], [side, 1 - 2 * side, side]], dtype=torch.float64)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-7)


def test_agrees_with_scikit_image():
    transform = pytest.importorskip("skimage.transform")
    n = 129
    angles = even_angles(45)
    operator = ParallelCT((1, n, n), angles, detectors=n).double()
    image = disk(n, 14, -9, 30) + 0.5 * disk(n, -20, 15, 12)
    found = operator(image[None, None])[0, 0]
    wanted = torch.from_numpy(transform.radon(image.numpy(), np.rad2deg(angles.numpy()))).T
    assert float((found - wanted).norm() / wanted.norm()) < 2e-3
    away = (distances(operator, 14, -9).abs() - 30).abs() > 4
    away &= (distances(operator, -20, 15).abs() - 12).abs() > 4
    assert float((found - wanted).abs()[away].max() / wanted.max()) < 5e-3


@pytest.mark.parametrize("kind", GEOMETRIES)
@pytest.mark.parametrize("shape", [(1, 20, 20), (2, 13, 18), (1, 3, 9, 9)])
def test_adjoint_is_matched(kind, shape):
    operator = ParallelCT(shape, **GEOMETRIES[kind])
    for double, limit in ((False, 1e-6), (True, 1e-12)):
        operator = operator.double() if double else operator
        x = torch.randn(3, *operator.in_shape, dtype=operator.blank_input().dtype)
        y = torch.randn(3, *operator.out_shape, dtype=x.dtype)
        gap = inner(operator(x), y) - inner(x, operator.H(y))
        assert (gap.abs() <= limit * norm(operator(x)) * norm(y)).all()


def test_symmetries_change_nothing():
    """Angles that fold onto each other and angles that do not give the same projections."""
    angles = even_angles(32, 2 * math.pi)
    for axis in (0.0, 2.2):
        together = ParallelCT((1, 15, 15), angles, axis=axis)
        assert together.views == 4
        x = torch.randn(2, 1, 15, 15)
        for i, angle in enumerate(angles):
            alone = ParallelCT((1, 15, 15), angle[None], axis=axis)
            assert alone.views == 1
            torch.testing.assert_close(
                together(x)[:, :, i], alone(x)[:, :, 0], rtol=1e-4, atol=1e-5
            )


def test_symmetries_of_oblong_images_change_nothing():
    angles, x = even_angles(32, 2 * math.pi), torch.randn(2, 1, 15, 15)
    oblong = ParallelCT((1, 9, 15), angles)
    assert oblong.views == 2
    for i, angle in enumerate(angles):
        alone = ParallelCT((1, 9, 15), angle[None], detectors=oblong.detectors)
        torch.testing.assert_close(
            oblong(x[:, :, :9])[:, :, i], alone(x[:, :, :9])[:, :, 0], rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("shape", [(2, 12, 12), (1, 13, 13), (1, 9, 14)])
@pytest.mark.parametrize("axis", [0.0, 2.5, -3.0])
def test_half_of_the_pixels_stands_for_all(shape, axis):
    """Half a turn of the image reverses the detector if the axis is on a whole or half bin."""
    angles, x = (
        torch.cat([even_angles(8, 2 * math.pi), torch.tensor([0.3])]),
        torch.randn(3, *shape),
    )
    half, whole = (ParallelCT(shape, angles, detectors=17, axis=a) for a in (axis, axis + 1e-9))
    assert half.halves and not whole.halves
    if axis == 0:  # elsewhere the added bins see pixels, too
        assert len(half._back_value) < 0.6 * len(whole._back_value)
    y = torch.randn_like(half(x))
    torch.testing.assert_close(half(x), whole(x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(half.adjoint(y), whole.adjoint(y), rtol=1e-4, atol=1e-5)
    assert half.trace_gram() == pytest.approx(whole.trace_gram(), rel=1e-6)


def test_a_detector_far_beside_the_axis_is_not_doubled():
    aside = ParallelCT((1, 12, 12), even_angles(8), detectors=5, axis=6.0)
    assert not aside.halves
    x = torch.rand(1, 1, 12, 12)
    wide = ParallelCT((1, 12, 12), even_angles(8), detectors=17)(x)  # whose axis is on bin 8
    torch.testing.assert_close(aside(x), wide[..., :5], rtol=1e-4, atol=1e-5)


def test_processors_without_mkl_get_the_same_numbers(monkeypatch):
    operator = ParallelCT((1, 12, 12), even_angles(9))
    x = torch.randn(2, 1, 12, 12)
    y = operator(x)
    back = operator.adjoint(y)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    torch.testing.assert_close(operator(x), y)
    torch.testing.assert_close(operator.adjoint(y), back)


@pytest.mark.parametrize("turn", [math.pi, 2 * math.pi])
def test_an_axis_of_whole_bins_moves_the_detector(turn):
    x, angles = torch.rand(1, 1, 12, 12), even_angles(9, turn)
    middle = ParallelCT((1, 12, 12), angles, detectors=31)(x)
    aside = ParallelCT((1, 12, 12), angles, detectors=31, axis=4)(x)
    torch.testing.assert_close(aside, middle.roll(4, -1), rtol=1e-4, atol=1e-5)
    wide = ParallelCT((1, 12, 12), angles, axis=4.5)  # all of the image is seen
    assert wide.detectors == 26
    mass = wide(x).sum(-1)
    torch.testing.assert_close(mass, x.sum().expand(1, 1, 9), rtol=1e-4, atol=1e-4)
    assert ParallelCT.image_shape(wide.out_shape, axis=4.5) == (1, 12, 12)


def test_bins_are_as_far_apart_as_pixels_are_wide():
    """One tomograph in pixels and in mm: the same bins, and attenuation per pixel or per mm."""
    x, angles = torch.rand(1, 1, 12, 12), even_angles(9)
    pixels, mm = (ParallelCT((1, 12, 12), angles, pixel=p) for p in (1.0, 0.7))
    assert mm.spacing == 0.7 and mm.detectors == pixels.detectors
    torch.testing.assert_close(mm(x / 0.7), pixels(x))


def test_volumes_are_stacks_of_slices():
    angles = even_angles(7)
    x = torch.randn(2, 1, 4, 8, 8)
    volume = ParallelCT((1, 4, 8, 8), angles)(x)
    slices = ParallelCT((4, 8, 8), angles)(x[:, 0])
    torch.testing.assert_close(volume[:, 0], slices)


@pytest.mark.parametrize("axis", [0.0, 1.0, 2.3])
def test_trace_and_norm_are_exact(axis):
    operator = ParallelCT((1, 6, 6), even_angles(8, 2 * math.pi), pixel=0.3, axis=axis).double()
    dense = operator(torch.eye(36, dtype=torch.float64).reshape(36, 1, 6, 6))
    largest = float(torch.linalg.matrix_norm(dense.reshape(36, -1), 2))
    assert operator.norm == pytest.approx(largest, rel=1e-6)
    assert operator.trace_gram() == pytest.approx(float(dense.square().sum() / 36), rel=1e-10)


def test_differentiable_twice():
    operator = ParallelCT((1, 4, 4), even_angles(5)).double()
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(operator, x)
    assert torch.autograd.gradgradcheck(lambda x: operator(x).pow(3), x)
    assert torch.autograd.gradgradcheck(
        lambda y: operator.adjoint(y).pow(3), operator(x).detach().requires_grad_()
    )


def test_wrong_arguments_are_named():
    angles = even_angles(4)
    for make, message in (
        (lambda: ParallelCT((8,), angles), "image shape"),
        (lambda: ParallelCT((1, 8, 8), angles[None]), "wanted \\(n,\\)"),
        (lambda: ParallelCT((1, 8, 8), angles * float("nan")), "all finite"),
        (lambda: ParallelCT((1, 8, 8), angles[:0]), "wanted \\(n,\\)"),
        (lambda: ParallelCT((1, 8, 8), angles, spacing=0), "positive"),
        (lambda: ParallelCT((1, 8, 8), angles, pixel=float("nan")), "positive"),
        (lambda: ParallelCT((1, 8, 8), angles, detectors=0), "at least one"),
        (lambda: ParallelCT((1, 8, 8), angles, axis=12), "axis 12, wanted bins from the middle"),
        (lambda: ParallelCT((1, 8, 8), angles, axis=float("nan")), "axis nan"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    operator = ParallelCT((1, 8, 8), angles)
    with pytest.raises(ValueError, match="wanted torch.float32"):
        operator(torch.zeros(1, 1, 8, 8, dtype=torch.complex64))
    with pytest.raises(ValueError, match="wanted \\(B, 1, 8, 8\\)"):
        operator(torch.zeros(1, 2, 8, 8))
    with pytest.raises(ValueError, match="projections with shape"):
        fbp(operator, torch.zeros(1, 1, 3, 12))


def test_device_and_precision_are_followed(device):
    for dtype in (torch.float32, torch.float64):
        operator = ParallelCT((2, 9, 9), even_angles(6)).to(device, dtype)
        x = torch.randn(3, 2, 9, 9, device=device, dtype=dtype)
        y = operator(x)
        assert y.dtype == dtype and y.device.type == device.type
        assert fbp(operator, y).dtype == dtype
        assert operator.prox(x, y, 0.5).device.type == device.type
    narrow = ParallelCT((2, 9, 9), even_angles(6)).to(device)
    torch.testing.assert_close(narrow(x), y, rtol=1e-5, atol=1e-5)
    assert narrow(x).dtype == torch.float64


@pytest.mark.parametrize(
    "angles",
    [
        np.arange(180),
        np.arange(180.0),
        np.arange(0, 180, 2.0, dtype=np.float32),
        [0.0, 45.0, 90.0],
        torch.arange(5),
        -np.linspace(0, 60, 9),
        np.arange(60) * math.pi * (3 - math.sqrt(5)),  # the golden angle in radians
        np.arange(60) * 111.246,
    ],
)
def test_angles_that_are_hardly_radians(angles):
    with pytest.raises(ValueError, match="(?s)ParallelCT: got angles.*degrees=True.*modulo 2 pi"):
        ParallelCT((1, 8, 8), angles)
    in_radians = np.deg2rad(np.asarray(angles, dtype=np.float64))
    found = ParallelCT((1, 8, 8), angles, degrees=True)
    wanted = ParallelCT((1, 8, 8), np.mod(in_radians, 2 * math.pi))
    x = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(found(x), wanted(x), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "angles",
    [
        [0],
        np.linspace(0, 2 * math.pi, 7),
        np.linspace(-2 * math.pi, 0, 7, dtype=np.float32),
        np.linspace(0, math.radians(365), 9),
        even_angles(180),
        [1.0],
    ],
)
def test_angles_that_are_radians(angles, recwarn):
    ParallelCT((1, 8, 8), angles)
    assert not recwarn


def test_angles_that_may_be_either_are_told():
    with pytest.warns(UserWarning, match="taken as radians; if they are degrees"):
        ParallelCT((1, 8, 8), [0.0, 1.0, 2.0, 3.0])
    with pytest.warns(UserWarning, match="180 angles within 3.12 degrees, .* like radians"):
        ParallelCT((1, 8, 8), even_angles(180), degrees=True)


@pytest.mark.parametrize("count", [0, -1, 2.5, float("nan")])
def test_a_number_of_angles_is_a_whole_one(count):
    with pytest.raises(ValueError, match="whole number"):
        even_angles(count)
