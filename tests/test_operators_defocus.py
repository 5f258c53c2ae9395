"""A lens out of focus by an unknown radius: both halves, the exact prior, the radius found."""

import pytest
import torch

from measurand.blind import BlindMeasurement, Unknowns
from measurand.noises import Gaussian
from measurand.operators import UnknownDefocus, ValidBlur, disk_kernel, gaussian_kernel
from measurand.priors import CallableDenoiser
from measurand.samplers import BlindPnPDM, HeunSDE, summary
from measurand.solvers import BlindEdges

F64 = torch.float64


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def test_linear_in_the_image_and_in_the_choice_of_the_radius():
    family = UnknownDefocus((2, 14, 15), 2.5)
    assert family.radii == [0.5, 1.0, 1.5, 2.0, 2.5] and family.out_shape == (2, 10, 11)
    assert UnknownDefocus.image_shape((2, 10, 11), 2.5) == family.in_shape
    x, theta = drawn(2, *family.in_shape), drawn(2, *family.theta_shape, seed=1)
    seen = family.at(theta)(x)
    torch.testing.assert_close(seen, family.at_image(x)(theta), rtol=1e-12, atol=1e-12)
    one = family.theta(disk_kernel(1.5).double())
    assert family.radius(one).tolist() == [1.5]
    torch.testing.assert_close(
        family.at(one)(x), ValidBlur(family.in_shape, disk_kernel(1.5, 5).double())(x)
    )


def test_solve_and_adjoint_of_the_choice_equal_a_dense_matrix():
    family = UnknownDefocus((1, 9, 9), 2.0)
    operator = family.at_image(drawn(2, *family.in_shape))
    n = family.theta_shape[0]
    eye = torch.eye(n, dtype=F64)
    b, y = drawn(2, n, seed=2), drawn(2, *family.out_shape, seed=3)
    found, back = operator.solve(b, torch.tensor([0.1, 2.0])), operator.adjoint(y)
    for i, gamma in enumerate((0.1, 2.0)):
        matrix = torch.cat([operator[i](e[None]).reshape(1, -1) for e in eye]).T
        torch.testing.assert_close(
            found[i], torch.linalg.solve(matrix.T @ matrix + gamma * eye, b[i])
        )
        torch.testing.assert_close(back[i], matrix.T @ y[i].flatten())


def test_the_prior_of_the_choice_is_the_exact_posterior_mean():
    prior, v, sigma = UnknownDefocus((1, 9, 9), 2.0).default_prior(), drawn(3, 4), 0.7
    atoms = torch.eye(4, dtype=F64)
    weights = torch.exp(-0.5 * torch.cdist(v, atoms).square() / sigma**2)
    wanted = (weights / weights.sum(1, keepdim=True)) @ atoms
    torch.testing.assert_close(prior.denoise(v, sigma), wanted)
    level = torch.full((3,), sigma, dtype=F64)
    torch.testing.assert_close(prior.denoise(v, level), wanted)


def boxes(size):
    g = torch.Generator().manual_seed(0)
    x = torch.zeros(size, size)
    for _ in range(30):
        h, w = torch.randint(8, size // 2, (2,), generator=g).tolist()
        top, left = torch.randint(size, (2,), generator=g).tolist()
        x[top : top + h, left : left + w] = 1.6 * torch.rand((), generator=g) - 0.8
    return x[None, None]


def test_the_radius_is_found_with_the_image():
    x = boxes(72)
    family = UnknownDefocus((1, 72, 72), 4.0, step=1.0)
    theta = family.theta(disk_kernel(2.5))
    noise = Gaussian(0.02)
    blind = BlindMeasurement(family, noise, noise(family.at(theta)(x), torch.Generator()))
    assert family.radius(BlindEdges()(blind).theta).item() == pytest.approx(2.5)

    def denoise(v, sigma):  # smooth images: enough beside a good start
        return v / (1 + torch.as_tensor(sigma) ** 2)

    method = BlindPnPDM(
        sweeps=6,
        search=None,
        rho_max=0.1,
        reverse=HeunSDE(steps=3, sigma_max=1.0, sigma_min=0.02),
        theta_reverse=HeunSDE(steps=4, sigma_max=1.0, sigma_min=0.02),
    )
    prior = CallableDenoiser(denoise, range=(-1.0, 1.0))
    several = blind.repeat(3)
    draws = method(several, prior, family.default_prior(), x0=BlindEdges()(several))
    assert family.radius(draws.theta).tolist() == [2.5] * 3
    (found,) = summary(blind, draws)
    assert found.modes[0] and found.kernel.shape == (1, 1, family.side, family.side)
    torch.testing.assert_close(found.kernel[0, 0], disk_kernel(2.5, family.side))
    assert sorted(c for mode in found.modes for c in mode) == [0, 1, 2]


def test_what_is_no_family():
    for options in ({"largest": 0.2}, {"largest": 3.0, "step": 0.0}):
        with pytest.raises(ValueError, match="UnknownDefocus: got largest"):
            UnknownDefocus((1, 20, 20), **options)
    with pytest.raises(ValueError, match="at most the size of the image"):
        UnknownDefocus((1, 9, 9), 8.0)
    family = UnknownDefocus((1, 20, 20), 2.0)
    with pytest.raises(ValueError, match="got a kernel with shape"):
        family.theta(gaussian_kernel(3.0))
    x, theta = family.start(torch.zeros(2, *family.out_shape))
    assert Unknowns(x, theta).x.shape == (2, *family.in_shape)
    assert family.radius(theta).tolist() == [0.5, 0.5]
