"""Down-sampling of a scene that goes on: periodic operators inside, no stripes at the edges."""

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from test_cli import run

from measurand.measurement import Measurement
from measurand.metrics import psnr
from measurand.noises import Gaussian
from measurand.operators import (
    BicubicDownsample,
    Blur,
    ValidBicubicDownsample,
    ValidBlur,
    ValidDownsample,
    ValidGaussianDownsample,
)
from measurand.start import first_guess

RNG = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("sides", [(3, 4), (1, 7), (6, 2)])
def test_it_is_the_full_convolution_where_all_of_the_kernel_lies_inside(factor, sides):
    for phase in range(factor):
        k = torch.rand(sides, generator=RNG, dtype=torch.float64)
        a = ValidDownsample((1, 15, 17), k, factor, phase)
        x = torch.rand(1, 1, 15, 17, generator=RNG, dtype=torch.float64)
        full = convolve2d(x[0, 0].numpy(), k.numpy())
        top, left = a.margins
        rows = top + phase + factor * np.arange(a.out_shape[1])
        columns = left + phase + factor * np.arange(a.out_shape[2])
        want = full[rows + sides[0] // 2][:, columns + sides[1] // 2]
        np.testing.assert_allclose(a(x)[0, 0].numpy(), want, atol=1e-12)
        h, w = sides  # nothing beyond the image was needed, and no row more would have fitted
        assert rows[0] - (h - 1 - h // 2) >= 0 and rows[-1] + h // 2 < 15
        assert rows[-1] + factor + max(h // 2, factor - 1 - phase) >= 15
        assert a.framed(x).shape[-2:] == (factor * len(rows), factor * len(columns))


def test_inside_it_is_the_periodic_one():
    x = torch.rand(1, 1, 36, 40, generator=RNG)
    inside = ValidBicubicDownsample((1, 35, 39), 2)
    wide = BicubicDownsample((1, 36, 40), 2)(x)
    assert inside.margins == (3, 3)  # and one pixel more: blocks begin at an even one
    torch.testing.assert_close(inside(x[..., 1:, 1:]), wide[..., 2:-2, 2:-2])


def test_an_image_without_room_is_refused():
    with pytest.raises(ValueError, match="at least 8 x 8 pixels"):
        ValidBicubicDownsample((1, 7, 12), 2)
    with pytest.raises(ValueError, match="phase of 0"):
        ValidDownsample((1, 9, 9), torch.ones(3, 3) / 9, 2, 2)
    assert ValidGaussianDownsample.image_shape((3, 5, 6), 2, 0.5) == (3, 12, 14)


def scene(n):
    i, j = torch.meshgrid(*[torch.arange(n) / 20.0] * 2, indexing="ij")
    return (0.7 * torch.sin(1.3 * i + 0.2) * torch.cos(0.9 * j) + 0.12 * (i - j))[None, None]


@pytest.mark.parametrize("blur", [True, False])
def test_margins_that_only_negative_lobes_reach_start_from_their_neighbours(blur):
    k = torch.tensor([-0.05, 0.15, 0.8, 0.15, -0.05])
    a = ValidBlur((1, 40, 40), k[:, None] * k) if blur else ValidBicubicDownsample((1, 40, 40), 2)
    x = scene(40)
    guess = first_guess(Measurement(a, Gaussian(0.01), a(x)))
    assert float((guess - x).abs().max()) < 0.4


def test_the_edges_of_a_picture_are_as_good_as_its_middle(tmp_path, monkeypatch):
    """A small picture of a larger scene, on the command line; a periodic operator has stripes."""
    monkeypatch.chdir(tmp_path)
    x = scene(102)
    wide = ValidBicubicDownsample((1, 102, 102), 2)
    y = Gaussian(0.01)(wide(x), torch.Generator().manual_seed(1))
    np.save("y.npy", (y[0, 0] / 2 + 0.5).numpy())
    np.save("x.npy", (wide.framed(x)[0, 0] / 2 + 0.5).numpy())
    words = ["--operator.factor", 2, "--sigma", 0.01, "--prior", "total-variation", "--quiet"]
    found = {}
    for name in ("bicubic-downsample", "circular-bicubic-downsample"):
        assert run("reconstruct", "y.npy", "--operator", name, *words, "--out", name) == 0
        e = torch.from_numpy(np.load(f"{name}/estimate.npy"))[None, None]
        t = torch.from_numpy(np.load("x.npy"))[None, None]
        border = torch.ones_like(t, dtype=torch.bool)
        border[..., 3:-3, 3:-3] = False
        mse = float((e - t)[border].square().mean()), float((e - t)[~border].square().mean())
        found[name] = mse
    assert found["bicubic-downsample"][0] < 4 * found["bicubic-downsample"][1]
    assert found["circular-bicubic-downsample"][0] > 4 * found["bicubic-downsample"][0]


def test_a_kernel_of_one_pixel_and_no_factor_changes_nothing():
    x = torch.rand(1, 2, 6, 7, generator=RNG)
    torch.testing.assert_close(ValidDownsample((2, 6, 7), torch.ones(1, 1), 1)(x), x)
    assert psnr(Blur((2, 6, 7), torch.ones(1, 1))(x), x, data_range=1.0).min() > 90
