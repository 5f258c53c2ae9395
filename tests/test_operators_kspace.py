"""The Fourier convention against numpy, the statistics of masks, the coil maps."""

import numpy as np
import pytest
import torch

from measurand.operators import (
    bernoulli_lines,
    birdcage_maps,
    equispaced_lines,
    fft2c,
    ifft2c,
    random_lines,
    variable_density_mask,
)
from measurand.tensors import generators


@pytest.mark.parametrize("shape", [(8, 6), (7, 5), (1, 9), (6, 7)])
def test_transform_is_numpys_centred_and_unitary(shape):
    x = torch.randn(2, 3, *shape, dtype=torch.complex64)
    y = fft2c(x)
    axes = (-2, -1)
    wanted = np.fft.fftshift(
        np.fft.fft2(np.fft.ifftshift(x.numpy(), axes=axes), norm="ortho"), axes=axes
    )
    np.testing.assert_allclose(y.numpy(), wanted, atol=1e-6)
    torch.testing.assert_close(ifft2c(y), x)
    assert float(y.norm()) == pytest.approx(float(x.norm()), rel=1e-6)
    ones = fft2c(torch.ones(shape, dtype=torch.complex64))
    assert int(ones.abs().argmax()) == (shape[0] // 2) * shape[1] + shape[1] // 2


@pytest.mark.parametrize(("width", "acceleration", "fraction"), [(320, 4, 0.08), (128, 8, 0.04)])
def test_random_lines_have_the_promised_mean(width, acceleration, fraction):
    masks = random_lines((1, 1, width), acceleration, fraction, generator=generators(0, 1000))
    assert masks.shape == (1000, 1, 1, width) and masks.dtype == torch.bool
    mean = float(masks.float().sum(-1).mean())
    assert mean == pytest.approx(width / acceleration, rel=0.02)
    center = round(width * fraction)
    start = (width - center + 1) // 2
    assert masks[..., start : start + center].all()
    outer = torch.cat((masks[..., :start], masks[..., start + center :]), -1).float().mean(0)
    share = (width / acceleration - center) / (width - center)
    # each column on its own: no place is preferred
    assert (outer - share).abs().max() < 5 * (share * (1 - share) / 1000) ** 0.5


@pytest.mark.parametrize(("width", "acceleration", "fraction"), [(320, 4, 0.08), (129, 8, 0.04)])
def test_equispaced_lines_have_the_promised_number_and_spacing(width, acceleration, fraction):
    masks = equispaced_lines((width,), acceleration, fraction, generator=generators(0, 1000))
    lines = masks.float().sum(-1)
    assert float(lines.mean()) == pytest.approx(width / acceleration, abs=0.3)
    center = round(width * fraction)
    start = (width - center + 1) // 2
    assert masks[..., start : start + center].all()
    spacing = (width - center) / (width / acceleration - center)
    for mask in masks[:50]:
        gaps = mask[0, 0, :start].nonzero()[:, 0].diff()
        assert set(gaps.tolist()) <= {int(spacing), int(spacing) + 1}


def test_bernoulli_lines_add_the_centre_on_top():
    masks = bernoulli_lines((256, 256), 4, generator=generators(0, 1000))
    mean = float(masks.float().sum(-1).mean())
    assert mean == pytest.approx(20 + 236 / 4, rel=0.02)
    assert masks[..., 118:138].all()


def test_variable_density_thins_outwards():
    masks = variable_density_mask((40, 50), 5.0, generator=generators(0, 400))
    assert masks.shape == (400, 1, 40, 50)
    assert float(masks.float().mean()) == pytest.approx(0.2, rel=0.02)
    density = masks.float().mean((0, 1))
    assert float(density[18:23, 23:28].min()) == 1.0
    rings = [density[20, 25 + r].item() for r in (0, 12, 24)]
    assert rings[0] > 2 * rings[1] > 4 * rings[2]


@pytest.mark.parametrize("make", [random_lines, equispaced_lines, variable_density_mask])
def test_masks_follow_their_seed_and_refuse_the_impossible(make):
    assert torch.equal(make((32, 64), 4.0), make((32, 64), 4.0, generator=generators(0, 1)))
    pair = make((32, 64), 4.0, generator=generators(3, 2))
    assert torch.equal(pair[1:], make((32, 64), 4.0, generator=generators(3, 2)[1:]))
    assert not torch.equal(pair[0], pair[1])
    with pytest.raises(ValueError, match="acceleration 40"):
        make((32, 64), 40.0, 0.08)
    with pytest.raises(ValueError, match="wanted between 1"):
        make((32, 64), 0.5, 0.0)


def test_errors_of_bernoulli_lines():
    with pytest.raises(ValueError, match="centre lines"):
        bernoulli_lines((16, 16), 4)
    with pytest.raises(ValueError, match="acceleration"):
        bernoulli_lines((64, 64), 0.5)


def test_birdcage_maps_are_normalised_and_strongest_near_their_coil():
    maps = birdcage_maps((31, 33), 8)
    assert maps.shape == (1, 8, 31, 33) and maps.dtype == torch.complex64
    torch.testing.assert_close(maps.abs().square().sum(1), torch.ones(1, 31, 33))
    strongest = maps[0].abs().argmax(0)
    assert strongest[15, 32] == 0  # coil 0 is to the right, coil 4 to the left
    assert strongest[15, 0] == 4
    # a turn of the image by a quarter is a turn of the coils by two of eight
    square = birdcage_maps((33, 33), 8)[0].abs()
    torch.testing.assert_close(square[2], square[0].rot90(-1), rtol=1e-4, atol=1e-5)
