import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from measurand.nets import ConvUNet
from measurand.nets.unet import exact, extend


def tiny(**options):
    torch.manual_seed(0)
    net = ConvUNet(3, widths=(8, 12, 16), features=16, **options)
    for p in net.parameters():  # the zero-initialised layers would hide everything
        torch.nn.init.normal_(p, std=0.1)
    return net


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 37), st.integers(1, 37), st.integers(1, 2))
def test_any_size_and_batch(height, width, batch):
    y = tiny()(torch.randn(batch, 3, height, width), torch.zeros(batch))
    assert y.shape == (batch, 3, height, width)
    assert y.isfinite().all()


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_extension_reflects_without_repeating_the_edge(n):
    x = torch.arange(float(n)).expand(1, 1, n, n)
    y = extend(x, 8)
    row = list(range(n)) + list(range(n - 2, 0, -1)) if n > 1 else [0]
    assert y.shape == (1, 1, 8, 8)
    assert y[0, 0, 0].tolist() == [row[i % len(row)] for i in range(8)]
    assert extend(y, 8) is y


def test_starts_at_zero_and_every_parameter_learns():
    torch.manual_seed(0)
    net = ConvUNet(2, widths=(8, 12), features=16, attention=(1,), condition_channels=1)
    x, c, condition = torch.randn(2, 2, 8, 8), torch.tensor([0.1, -0.3]), torch.randn(2, 1, 8, 8)
    net = net.double()
    assert net(x.double(), c, condition.double()).abs().max() == 0
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    net(x.double(), c, condition.double()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


def test_the_number_of_an_item_changes_that_item_only():
    net, x = tiny(attention=(2,)).double(), torch.randn(2, 3, 16, 16).double()
    a, b = net(x, torch.tensor([0.1, 0.1])), net(x, torch.tensor([0.1, -0.4]))
    assert torch.equal(a[0], b[0])
    assert not torch.allclose(a[1], b[1], atol=1e-3)
    assert torch.allclose(net(x, torch.tensor([0.1])), a, atol=1e-12)


def test_batch_rows_are_independent():
    net, x, c = tiny().double(), torch.randn(3, 3, 16, 24).double(), torch.tensor([0.3, 0.0, -1])
    together = net(x, c)
    for i in range(3):
        assert torch.allclose(net(x[i : i + 1], c[i : i + 1]), together[i : i + 1], atol=1e-12)


def test_a_crop_sees_what_the_image_sees():
    """No statistics of the whole image: the middle of a crop equals that of the image."""
    torch.manual_seed(0)
    net = ConvUNet(3, widths=(8, 8), blocks=1, features=16).double()
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    x = torch.randn(1, 3, 128, 128).double()
    whole, crop = net(x, torch.zeros(1)), net(x[:, :, 16:112, 16:112], torch.zeros(1))
    assert torch.allclose(whole[:, :, 56:72, 56:72], crop[:, :, 40:56, 40:56], atol=1e-12)


def test_gradient_reaches_the_image():
    net, x = tiny().double(), torch.randn(1, 3, 9, 7).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: net(x, torch.zeros(1)).sum(), (x,), fast_mode=True)


@pytest.mark.parametrize(("options", "x", "condition"), [({}, 1, 0), ({}, 3, 2)])
def test_wrong_channels_are_named(options, x, condition):
    given = torch.zeros(1, condition, 8, 8) if condition else None
    with pytest.raises(ValueError, match=f"got {x} image and {condition} condition channels"):
        tiny(**options)(torch.zeros(1, x, 8, 8), torch.zeros(1), given)


def test_sizes_of_the_recipes():
    count = [
        sum(p.numel() for p in ConvUNet(3, widths=widths).parameters()) / 1e6
        for widths in ((64, 96, 128), (64, 128, 160), (96, 192, 256))
    ]
    assert 2 < count[0] < 3.5 and 4 < count[1] < 5 and 10 < count[2] < 12


def test_configuration_rebuilds_the_network():
    net = tiny(stem=1, attention=(2,), condition_channels=2, blocks=1)
    again = ConvUNet(**net.config)
    again.load_state_dict(net.state_dict())
    x, c, condition = torch.randn(1, 3, 8, 8), torch.zeros(1), torch.randn(1, 2, 8, 8)
    assert torch.equal(net(x, c, condition), again(x, c, condition))


def test_half_precision_is_told_the_same_level():
    """What follows from a level acts on all pixels alike: only weights are rounded, once."""
    torch.manual_seed(0)
    net = ConvUNet(3, widths=(8,), blocks=1, features=16).to(torch.bfloat16)
    torch.nn.init.normal_(net.decoder[0][0].film.weight, std=0.3)
    c = torch.tensor([-0.75, 0.4])
    f = 2 * math.pi * torch.logspace(-1, math.log10(4.0), 32)
    waves = torch.cat(((c[:, None] * f).cos(), (c[:, None] * f).sin()), 1)
    wide = copy.deepcopy(net).float()
    e = torch.nn.functional.silu(wide.embedding.hidden(waves))
    assert torch.allclose(net.embedding(c), e, atol=1e-5)
    film = net.decoder[0][0].film
    assert torch.allclose(exact(film, e), wide.decoder[0][0].film(e), atol=1e-6)
    assert exact(copy.deepcopy(film).double(), e).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(net.embedding(c), e, atol=1e-5)
    y = net(torch.randn(2, 3, 8, 8).to(torch.bfloat16), c)
    assert y.dtype == torch.bfloat16
