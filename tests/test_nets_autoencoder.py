"""The autoencoder as a function: any size, local, and at the start the best linear code."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from measurand.nets import ConvAutoencoder


def tiny(channels=3, code=4, filled=True):
    torch.manual_seed(0)
    net = ConvAutoencoder(channels, code, widths=(8, 12))
    if filled:
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.1)
    return net.double()


def images(n=2, channels=3, size=(24, 32)):
    random = torch.Generator().manual_seed(1)
    return torch.randn(n, channels, *size, generator=random, dtype=torch.float64)


@pytest.mark.parametrize("size", [(24, 32), (1, 1), (13, 18), (5, 64)])
def test_images_of_any_size(size):
    net, x = tiny(), images(size=size)
    z = net.encode(x)
    assert z.shape == (2, 4, -(-size[0] // 4), -(-size[1] // 4))
    assert net.decode(z).shape == (2, 3, 4 * z.shape[2], 4 * z.shape[3])
    assert net(x).shape == x.shape


def test_a_pixel_depends_on_codes_within_reach_and_no_further():
    net = tiny()
    z = torch.zeros(1, 4, 41, 41, dtype=torch.float64, requires_grad=True)
    image = net.decode(z)
    (g,) = torch.autograd.grad(image[..., 80:84, 80:84].square().sum(), z)
    seen = g.abs().sum((0, 1)).nonzero()
    far = int((seen - 20).abs().max())
    assert far == net.reach == 8


def test_no_statistics_of_the_whole_image():
    """The inside of a crop's code is that of the image's code: nothing looks further."""
    net, x = tiny(), images(1, size=(128, 128))
    whole, crop = net.encode(x), net.encode(x[..., 16:112, 16:112])
    assert torch.allclose(whole[..., 14:18, 14:18], crop[..., 10:14, 10:14], atol=1e-12)


def test_it_starts_at_the_principal_components():
    net, x = tiny(filled=False), images(8, size=(32, 32))
    x = F.avg_pool2d(x, 3, 1, 1)
    net.initialize(x)
    blocks = F.pixel_unshuffle(x, 4).movedim(1, -1).flatten(0, -2)
    lost = torch.linalg.eigvalsh(torch.cov(blocks.T))[:-4].sum() / 48
    n = len(blocks)
    error = (net(x) - x).square().mean().item()
    assert error == pytest.approx(float(lost) * (n - 1) / n)
    code = net.encode(x).movedim(1, 0).flatten(1)
    assert torch.allclose(torch.cov(code), torch.eye(4, dtype=torch.float64), atol=1e-9)


def test_other_channels_are_refused():
    net = tiny()
    with pytest.raises(ValueError, match=r"got an image of shape \(2, 1, 24, 32\)"):
        net.encode(images(channels=1))
    with pytest.raises(ValueError, match=r"got a code of shape \(2, 3, 24, 32\)"):
        net.decode(images())
