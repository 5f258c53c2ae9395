"""Priors that ship, asked what methods ask: of smooth images, with more noise than there is."""

import pytest
import torch
from skimage.data import astronaut

from measurand.checkpoints import load_prior
from measurand.operators import GaussianBlur


@pytest.fixture(scope="module")
def smooth():
    picture = torch.from_numpy(astronaut()).movedim(-1, 0)[None] / 127.5 - 1
    x = torch.cat([picture[..., i : i + 128, i : i + 128] for i in (0, 128, 256)])
    return GaussianBlur((3, 128, 128), sigma=1.6)(x)


@pytest.mark.parametrize(
    "name", ["natural-color", "natural-gray", "ct-body", "mri-brain", "faces-64", "faces-128"]
)
def test_no_prior_takes_away_more_than_the_noise_that_it_is_told(name, smooth):
    """A method begins with a blurred image and tells a prior to take it for a noisy one."""
    prior = load_prior(name)
    v = smooth if prior.channels == 3 else smooth.mean(1, keepdim=True)
    v = v[..., ::2, ::2] if name == "faces-64" else v
    v = ((v + 1) / 2).to(prior.dtype) if prior.dtype.is_complex else v
    for sigma in (0.05, 0.2, 0.4, 0.8):
        with torch.no_grad():
            away = prior.denoise(v, sigma) - v
        assert float(away.abs().square().flatten(1).mean(1).sqrt().max()) < sigma
