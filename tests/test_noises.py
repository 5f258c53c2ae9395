"""Noise models: moments, gradients against autograd, whitening, the estimate of sigma."""

import pytest
import torch

from measurand.noises import ComplexGaussian, Gaussian, Poisson, estimate_sigma, prewhiten
from measurand.tensors import generators


@pytest.mark.parametrize("noise", [Gaussian(0.3), Poisson(0.5, background=0.2)], ids=str)
def test_gradient_is_that_of_the_nll(noise):
    noise = noise.double()
    mean = torch.rand(3, 2, 4, dtype=torch.float64) + 0.5
    y = noise(mean, generators(1, 3))
    mean.requires_grad_()
    (grad,) = torch.autograd.grad(noise.nll(mean, y).sum(), mean)
    torch.testing.assert_close(grad, noise.gradient(mean.detach(), y))


def test_gaussian_draws_per_item_levels():
    noise = Gaussian(torch.tensor([0.1, 2.0]))
    y = noise(torch.ones(2, 1, 200, 200))
    assert abs(float(y[0].std()) - 0.1) < 0.002 and abs(float(y[1].std()) - 2.0) < 0.04
    assert noise.repeat(2).sigma.tolist() == pytest.approx([0.1, 0.1, 2.0, 2.0])
    assert noise[1:2].sigma.tolist() == [2.0]
    assert noise.scaled(-2).sigma.tolist() == pytest.approx([0.2, 4.0])


def test_complex_gaussian_is_per_component():
    y = ComplexGaussian(0.5)(torch.zeros(1, 1, 300, 300, dtype=torch.complex64))
    assert abs(float(y.real.std()) - 0.5) < 0.01 and abs(float(y.imag.std()) - 0.5) < 0.01
    with pytest.raises(ValueError, match="use ComplexGaussian"):
        Gaussian(0.5)(y)
    with pytest.raises(ValueError, match="use Gaussian"):
        ComplexGaussian(0.5)(y.real)


def test_poisson_moments_and_units():
    noise = Poisson(gain=0.1, background=0.5)
    y = noise(torch.full((1, 1, 300, 300), 2.0))
    assert abs(float(y.mean()) - 2.5) < 0.01
    assert abs(float(y.var()) - 0.25) < 0.01
    torch.testing.assert_close((y / 0.1).round() * 0.1, y)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_bad_levels_are_named(bad):
    with pytest.raises(ValueError, match="sigma"):
        Gaussian(bad)
    with pytest.raises(ValueError, match="gain"):
        Poisson(gain=bad)


def test_prewhitening_makes_noise_white():
    g = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.complex128, generator=g)).Q
    mixing = basis @ torch.diag(torch.logspace(0, 0.85, 4, dtype=torch.float64)).to(basis.dtype)

    def draw(n):
        return mixing @ torch.complex(*torch.randn(2, 4, n, dtype=torch.float64, generator=g))

    white = prewhiten(draw(10_000)[None], draw(10_000))[0]
    covariance = white @ white.mH / white.shape[1] / 2
    assert float((covariance - torch.eye(4)).abs().max()) < 0.05


def test_sigma_is_estimated_on_a_picture_with_noise():
    i = torch.linspace(-1, 1, 128)
    picture = ((i[:, None] ** 2 + i**2) < 0.5).float() * (1 + i)
    for sigma in (0.02, 0.1, 0.4):
        y = Gaussian(sigma)(picture.expand(1, 3, 128, 128))
        assert float(estimate_sigma(y)) == pytest.approx(sigma, rel=0.06)
    with pytest.raises(ValueError, match="wanted"):
        estimate_sigma(torch.zeros(1, 1, 1, 5))
