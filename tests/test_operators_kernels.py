"""Kernels against second implementations: scipy's Gaussian, areas, first and second moments."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from measurand.operators import disk_kernel, gaussian_kernel, motion_kernel


def moments(kernel):
    """Sum, centroid about the centre pixel, and matrix of second moments."""
    k = kernel.double()
    rows, columns = (torch.arange(n, dtype=torch.float64) - n // 2 for n in k.shape)
    where = torch.stack(torch.meshgrid(rows, columns, indexing="ij")).flatten(1)
    return float(k.sum()), where @ k.flatten(), (where * k.flatten()) @ where.T


@pytest.mark.parametrize("sigma", [0.4, 1.6, 3.0])
def test_gaussian_is_that_of_scipy(sigma):
    kernel = gaussian_kernel(sigma)
    radius = kernel.shape[0] // 2
    assert radius == math.ceil(4 * sigma)
    point = np.zeros(kernel.shape)
    point[radius, radius] = 1
    wanted = ndimage.gaussian_filter(point, sigma, radius=radius)
    np.testing.assert_allclose(kernel, wanted, rtol=1e-5, atol=1e-9)
    assert kernel.dtype == torch.float32
    assert gaussian_kernel(sigma, 21).shape == (21, 21)


def test_gaussian_of_several_widths_and_its_derivative():
    sigmas = torch.tensor([0.8, 1.7], dtype=torch.float64, requires_grad=True)
    kernels = gaussian_kernel(sigmas, 9)
    assert kernels.shape == (2, 1, 9, 9)
    torch.testing.assert_close(kernels[1, 0].detach().float(), gaussian_kernel(1.7, 9))
    assert torch.autograd.gradcheck(lambda s: gaussian_kernel(s, 9), (sigmas,))


@pytest.mark.parametrize("radius", [0.3, 1.0, 2.5, 6.2])
def test_disk_has_the_moments_of_a_disk(radius):
    kernel = disk_kernel(radius)
    total, centroid, second = moments(kernel)
    assert total == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(centroid, 0, atol=1e-6)
    if radius >= 2:
        # a pixel adds its own second moment, 1/12 per axis, to none: shares sit at its centre
        assert float(second[0, 0]) == pytest.approx(radius**2 / 4, rel=0.06)
        inside = kernel[kernel.shape[0] // 2, kernel.shape[1] // 2]
        assert float(inside) == pytest.approx(1 / (math.pi * radius**2), rel=5e-3)
    assert kernel.equal(kernel.flip(0))
    assert kernel.equal(kernel.mT)


@pytest.mark.parametrize("length", [0.2, 5.0, 14.3])
@pytest.mark.parametrize("angle", [0.0, 0.6, math.pi / 2, 2.5, -0.3])
def test_motion_has_the_moments_of_a_segment(length, angle):
    total, centroid, second = moments(motion_kernel(length, angle))
    assert total == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(centroid, 0, atol=1e-5)
    # off the diagonal linear interpolation leaves moments as they are: rows grow downwards
    wanted = -math.sin(angle) * math.cos(angle) * length**2 / 12
    assert float(second[0, 1]) == pytest.approx(wanted, abs=2e-3 + 1e-3 * length**2)


def test_a_horizontal_motion_is_a_box():
    kernel = motion_kernel(4.0)
    wanted = torch.zeros(5, 5)
    wanted[2] = torch.tensor([0.125, 0.25, 0.25, 0.25, 0.125])
    torch.testing.assert_close(kernel, wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close(motion_kernel(4.0, math.pi / 2), wanted.T, rtol=0, atol=1e-4)
    up = motion_kernel(9.0, math.pi / 4)  # counter-clockwise on the screen: towards the top right
    assert float(up[0, -1]) > 0
    assert float(up[0, 0]) == 0


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_wrong_widths_are_named(wrong):
    for function, name in (
        (gaussian_kernel, "sigma"),
        (disk_kernel, "radius"),
        (motion_kernel, "length"),
    ):
        with pytest.raises(ValueError, match=f"{function.__name__}: got {name}"):
            function(wrong)
    with pytest.raises(ValueError, match="size of 0"):
        gaussian_kernel(1.0, 0)
    with pytest.raises(ValueError, match="angle"):
        motion_kernel(3.0, float("nan"))


def test_large_kernels_take_no_more_than_their_pixels():
    """Of 0.5 million pixels; with all of their lines at once it was 4 GB."""
    for kernel in (disk_kernel(350), motion_kernel(700, 0.3)):
        assert float(kernel.sum()) == pytest.approx(1, abs=1e-4)
    assert float(disk_kernel(350)[350, 350]) == pytest.approx(1 / (math.pi * 350**2), rel=1e-4)
    for function in (gaussian_kernel, disk_kernel, motion_kernel):
        with pytest.raises(ValueError, match="wanted 1 to 2047"):
            function(1e9)
