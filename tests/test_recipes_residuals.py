"""Noise that a data step may leave, and smooth images: never more noise, values of the image."""

from dataclasses import replace

import pytest
import torch

from measurand.batches import Batch
from measurand.recipes import natural_color, residuals
from measurand.recipes.residuals import remaining, smooth
from measurand.tensors import randn_like


def white(n=256, dtype=torch.float32):
    x = torch.zeros(n, 1 if dtype.is_complex else 3, 32, 32, dtype=dtype)
    return randn_like(x, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_what_remains_is_nowhere_stronger(dtype):
    noise = white(dtype=dtype)
    left = remaining(noise, torch.Generator().manual_seed(1))
    assert left.shape == noise.shape and left.dtype == dtype
    power = left.abs().square().flatten(1).mean(1) / noise.abs().square().flatten(1).mean(1)
    assert float(power.max()) <= 1.0 + 1e-5
    assert 0.05 < float((power == 0).float().mean()) < 0.3  # where data are good, none is left
    assert float(power.min()) == 0 and float(power.mean()) < 0.6
    assert torch.equal(left, remaining(noise, torch.Generator().manual_seed(1)))
    assert not torch.equal(left, remaining(noise, torch.Generator().manual_seed(2)))


def test_some_of_it_is_not_white():
    """Of white noise, neighbours are not correlated; of what a blur or blocks leave, they are."""
    left = remaining(white(), torch.Generator().manual_seed(1))
    power = left.square().flatten(1).mean(1)
    left, power = left[power > 0.01], power[power > 0.01]
    beside = (left[..., 1:] * left[..., :-1]).flatten(1).mean(1) / power
    assert 0.1 < float((beside.abs() > 0.07).float().mean()) < 0.6  # white: 0.02
    parts = left.square().mean(1).unfold(1, 8, 8).unfold(2, 8, 8).flatten(3).mean(3).flatten(1)
    assert 0.05 < float((parts.amin(1) < 0.3 * parts.amax(1)).float().mean()) < 0.6  # masks, boxes


def test_what_a_blur_leaves_is_as_strong_as_stated_in_some_band():
    noise = white(64)
    for k in range(6):
        random = torch.rand(3, generator=torch.Generator().manual_seed(k))
        left = residuals._deblurred(noise, random)
        gain = (torch.fft.fft2(left).abs() / torch.fft.fft2(noise).abs()).amax((0, 1))
        assert float(gain.max()) <= 1 + 1e-4 and float(gain.max()) > 0.5
        assert float(gain.min()) < 0.5 * float(gain.max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_smooth_images_have_the_values_of_others(dtype):
    x = white(40, dtype)
    made = smooth(x, torch.Generator().manual_seed(0))
    assert made.shape == x.shape and made.dtype == dtype
    real, of = (torch.view_as_real(t) if t.is_complex() else t for t in (made, x))
    assert float(real.abs().max()) <= float(of.abs().max())
    change = (made[..., 1:] - made[..., :-1]).abs().square().mean()
    assert float(change) < 0.1 * float((x[..., 1:] - x[..., :-1]).abs().square().mean())
    constant = (made - made[..., :1, :1]).abs().flatten(1).amax(1) < 1e-5
    assert 0.1 < float(constant.float().mean()) < 0.7


@pytest.mark.parametrize("overstated, smoothed", [(0.06, 1.0), (0.3, 0.15)])
def test_a_recipe_trains_on_a_share_of_such_inputs(overstated, smoothed):
    class Images:
        def batch(self, step, n, size):
            generator = torch.Generator().manual_seed(step)
            return Batch({"x": torch.rand(n, 3, size, size, generator=generator)})

    recipe = replace(natural_color, overstated=overstated, smooth=smoothed)
    assert recipe == natural_color or overstated == 0.3
    batch = recipe.problem(Images(), 0, 400, 16)
    power = batch["noise"].square().flatten(1).mean(1)
    assert float((power < 0.8).float().mean()) == pytest.approx(overstated, rel=0.3)
    flat = (batch["x"][..., 1:] - batch["x"][..., :-1]).abs().flatten(1).mean(1) < 0.1
    assert float(flat.float().mean()) == pytest.approx(overstated * smoothed, abs=0.03)
    again = recipe.problem(Images(), 0, 400, 16)
    assert all(torch.equal(batch[key], again[key]) for key in batch)
