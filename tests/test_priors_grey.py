"""A colour prior on grey images: exact where the colour prior knows only grey images."""

import pytest
import torch

from measurand.priors import Gaussian, Grey
from measurand.tensors import generators, randn_like


def covariance(n, seed=0):
    a = torch.randn(n, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return a @ a.mT / n + 0.1 * torch.eye(n, dtype=torch.float64)


@pytest.mark.parametrize("channels", [2, 3])
def test_exact_where_the_colour_prior_is_grey(channels):
    c = covariance(12)
    mean = torch.full((1, 1, 3, 4), 0.2, dtype=torch.float64)
    grey = Gaussian(mean, c)
    ones = torch.ones(channels, channels, dtype=torch.float64)
    colour = Gaussian(mean.expand(1, channels, 3, 4), torch.kron(ones, c))
    x = torch.zeros(4, 1, 3, 4, dtype=torch.float64)
    v = randn_like(x, generators(0, 4))
    sigma = torch.tensor([0.05, 0.3, 1.0, 4.0], dtype=torch.float64)
    for level in (0.3, sigma):
        torch.testing.assert_close(
            Grey(colour, channels).denoise(v, level), grey.denoise(v, level), atol=1e-9, rtol=1e-8
        )


def test_other_channels_are_refused_by_name():
    grey = Grey(Gaussian(torch.zeros(1, 3, 2, 2), torch.eye(12)))
    assert grey.dtype == torch.float32 and grey.range is None
    with pytest.raises(ValueError, match="Grey: got images with 3 channels, wanted 1"):
        grey.denoise(torch.zeros(1, 3, 2, 2), 0.1)
