"""The noise level that is seen in an image, or a doubt: borders, JPEG, texture, correlation."""

import io

import pytest
import torch
from PIL import Image
from torch.nn import functional

from measurand.noise_estimate import noise_seen
from measurand.noises import estimate_sigma

AXIS = torch.linspace(-1, 1, 128)
PICTURE = 60 + 90 * ((AXIS[:, None] ** 2 + AXIS**2) < 0.5) * (1 + 0.4 * AXIS)


def noisy(sigma, seed=0, picture=PICTURE, channels=1):
    g = torch.Generator().manual_seed(seed)
    return picture + sigma * torch.randn((1, channels, *picture.shape), generator=g)


@pytest.mark.parametrize("sigma", [0.5, 3.0, 12.0, 50.0])
def test_white_noise_on_a_picture_is_found_without_a_doubt(sigma):
    for y in (noisy(sigma), noisy(sigma, channels=3)):
        estimate = noise_seen(y)
        assert float(estimate.sigma) == pytest.approx(sigma, rel=0.08)
        assert not estimate.doubts


@pytest.mark.parametrize("sigma", [2.0, 12.0])
def test_borders_without_noise_do_not_count(sigma):
    for rows in (35, 50):
        y = noisy(sigma)
        y[..., :rows, :] = y[..., -rows:, :] = 0.0
        estimate = noise_seen(y)
        assert float(estimate.sigma) == pytest.approx(sigma, rel=0.12) and not estimate.doubts
    disk = (AXIS[:, None] ** 2 + AXIS**2) < 0.45
    assert float(noise_seen(noisy(sigma) * disk).sigma) == pytest.approx(sigma, rel=0.12)


def test_a_clipped_background_is_left_out_or_doubted():
    dark = torch.full((128, 128), 10.0)
    dark[40:70, 40:70] = 150.0
    for sigma in (2.0, 8.0, 20.0):
        estimate = noise_seen(noisy(sigma, picture=dark).round().clamp(0, 255))
        assert float(estimate.sigma) == pytest.approx(sigma, rel=0.2) or estimate.doubts
    void = noise_seen(noisy(20.0, picture=0 * dark).clamp_min(0))
    assert "clipped" in void.doubts[0]


@pytest.mark.parametrize("blur", [0.6, 1.0])
def test_correlated_noise_is_doubted(blur):
    taps = torch.exp(-0.5 * (torch.arange(-2, 3) / blur) ** 2)
    kernel = taps[:, None] * taps
    noise = functional.conv2d(noisy(10.0, picture=0 * PICTURE), kernel[None, None], padding=2)
    twice = functional.interpolate(noisy(10.0), scale_factor=2)
    for y in (PICTURE + noise / kernel.norm(), twice):
        assert "correlated" in noise_seen(y).doubts[0]


@pytest.mark.parametrize("quality", [50, 75, 90, 95])
def test_jpeg_is_right_or_doubted(quality):
    for sigma in (3.0, 10.0, 25.0):
        pixels = noisy(sigma, channels=3).round().clamp(0, 255)[0].permute(1, 2, 0).byte()
        file = io.BytesIO()
        Image.fromarray(pixels.numpy()).save(file, "JPEG", quality=quality)
        data = torch.frombuffer(bytearray(Image.open(file).tobytes()), dtype=torch.uint8)
        estimate = noise_seen(data.float().reshape(pixels.shape).permute(2, 0, 1)[None])
        assert abs(float(estimate.sigma) / sigma - 1) < 0.2 or estimate.doubts


def test_noise_that_grows_with_brightness_is_doubted():
    bright = torch.where(AXIS < 0, 20.0, 200.0).expand(128, 128)
    y = bright + bright.sqrt() * torch.randn(1, 1, 128, 128, generator=torch.Generator())
    assert any("bright" in doubt for doubt in noise_seen(y).doubts)


def test_channels_with_one_noise_are_doubted_but_copies_are_not():
    y = noisy(8.0)
    copies = noise_seen(y.expand(1, 3, 128, 128))
    assert float(copies.sigma) == pytest.approx(8.0, rel=0.08) and not copies.doubts
    shared = 0.8 * y + 0.2 * noisy(8.0, seed=1, channels=3)
    assert any("channels" in doubt for doubt in noise_seen(shared).doubts)


def test_texture_everywhere_is_doubted():
    texture = torch.rand(128, 128, generator=torch.Generator().manual_seed(2)) * 100
    texture = functional.avg_pool2d(texture[None], 3, 1, 1)[0]
    assert noise_seen(noisy(0.5, picture=texture)).doubts


def test_items_and_complex_parts_and_warnings():
    both = torch.cat((noisy(2.0), noisy(9.0)))
    assert noise_seen(both).sigma.tolist() == pytest.approx([2.0, 9.0], rel=0.08)
    y = torch.complex(noisy(4.0), noisy(4.0, seed=1))
    assert float(noise_seen(y).sigma) == pytest.approx(4.0, rel=0.08)
    assert noise_seen(torch.full((1, 1, 32, 32), 3.0)).sigma.tolist() == [0.0]
    with pytest.warns(UserWarning, match="small, constant or clipped"):
        estimate_sigma(torch.randn(1, 1, 6, 6))
    with pytest.raises(ValueError, match="wanted"):
        noise_seen(torch.zeros(1, 1, 1, 5))


@pytest.mark.parametrize("sigma", [2.0, 6.0])
def test_the_background_of_magnitudes_tells_their_level(sigma):
    """Rayleigh noise, as MRI has it in air: its standard deviation is 0.66 of the level."""
    g = torch.Generator().manual_seed(3)
    inside = (AXIS[:, None] ** 2 + AXIS**2) < 0.5
    real = PICTURE * inside + sigma * torch.randn(128, 128, generator=g)
    y = torch.hypot(real, sigma * torch.randn(128, 128, generator=g))
    for image in (y, y.round(), 2 * y / 255 - 1):
        estimate = noise_seen(image[None, None])
        scale = 1 if image.max() > 2 else 2 / 255
        assert float(estimate.sigma) == pytest.approx(sigma * scale, rel=0.08)
        if not image.equal(y.round()):  # many zeros are clipped: then bright parts tell it
            assert any("magnitudes" in doubt for doubt in estimate.doubts)
    plain = noise_seen(real[None, None])
    assert float(plain.sigma) == pytest.approx(sigma, rel=0.08) and not plain.doubts
