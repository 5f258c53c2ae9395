import math

import pytest
import torch

from measurand.priors.edm import EDMDenoiser
from measurand.training.quality import calibration, denoising_psnr


class Shrinking(EDMDenoiser):
    """The conditional mean of white images of spread s: v s^2 / (s^2 + sigma^2)."""

    def __init__(self, s=0.3, gain=1.0, dtype=torch.float32):
        super().__init__(torch.nn.Linear(1, 1), channels=1, dtype=dtype)
        self.s, self.gain = s, gain

    def denoise(self, v, sigma, condition=None):
        return self.gain * v * self.s**2 / (self.s**2 + sigma**2)


def images(s=0.3, dtype=torch.float32, n=4):
    g = torch.Generator().manual_seed(9)
    scale = s * math.sqrt(2) if dtype.is_complex else s  # torch's complex normal has s^2 / 2 each
    return [scale * torch.randn(1, 1, 64, 64, generator=g, dtype=dtype) for _ in range(n)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_an_exact_denoiser_knows_its_error(dtype):
    found = calibration(Shrinking(dtype=dtype), images(dtype=dtype))
    assert set(found) == {"0.02", "0.05", "0.1", "0.2", "0.5", "1"}
    assert list(found.values()) == pytest.approx([1] * 6, abs=0.03)


def test_a_wrong_denoiser_does_not():
    found = calibration(Shrinking(s=0.3), images(s=0.1))
    assert found["0.02"] == pytest.approx(1, abs=0.1) and found["0.5"] > 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_psnr_is_that_of_the_conditional_mean(dtype):
    found = denoising_psnr(Shrinking(dtype=dtype), images(dtype=dtype), levels=(10, 50))
    for level, value in found.items():
        sigma = 2 * float(level) / 255
        error = 1 / (1 / sigma**2 + 1 / 0.3**2)
        assert value == pytest.approx(10 * math.log10(4 / error), abs=0.1)
    assert denoising_psnr(Shrinking(), []) == {}


def test_weights_are_left_without_gradients():
    prior = Shrinking()
    calibration(prior, images(n=1), sigmas=(0.1,))
    assert all(p.grad is None for p in prior.parameters())
