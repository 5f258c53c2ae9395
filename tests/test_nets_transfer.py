import pytest
import torch

from measurand.nets import ConvUNet
from measurand.nets.transfer import joining, transfer


def net(channels, seed, widths=(8, 12, 16), **options):
    torch.manual_seed(seed)
    made = ConvUNet(channels, widths=widths, features=16, **options).double()
    for p in made.parameters():  # the zero-initialised layers would hide everything
        torch.nn.init.normal_(p, std=0.1)
    return made


def test_the_same_network_becomes_a_copy():
    old, new = net(3, 0, attention=(1,)), net(3, 1, attention=(1,))
    transfer(old, new)
    weights = new.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in old.state_dict().items() if "stem" not in k)
    assert torch.allclose(weights["stem.weight"], old.stem.weight)


@pytest.mark.parametrize("stem", [1, 2])
@pytest.mark.parametrize("channels", [(3, 1), (3, 2), (2, 1), (1, 2), (1, 3), (2, 3)])
def test_other_channels_are_interpolated(channels, stem):
    old, new = net(channels[0], 0, stem=stem), net(channels[1], 1, stem=stem)
    transfer(old, new)
    x, c = torch.randn(2, channels[1], 16, 16).double(), torch.tensor([0.2, -0.4])
    m = joining(*channels).double()
    seen = torch.einsum("on,bnhw->bohw", m, x)
    expected = torch.einsum("no,bohw->bnhw", torch.linalg.pinv(m), old(seen, c))
    assert torch.allclose(new(x, c), expected, atol=1e-6)


@pytest.mark.parametrize("old", [2, 3])
def test_one_channel_is_seen_in_all_and_answered_by_their_mean(old):
    m = joining(old, 1)
    assert torch.equal(m, torch.ones(old, 1))
    assert torch.allclose(torch.linalg.pinv(m), torch.full((1, old), 1 / old))


def test_attention_that_is_new_changes_nothing():
    old = net(3, 0)
    torch.manual_seed(1)
    new = ConvUNet(3, widths=(8, 12, 16), features=16, attention=(2,)).double()
    transfer(old, new)
    x, c = torch.randn(1, 3, 16, 16).double(), torch.tensor([0.2])
    assert torch.allclose(new(x, c), old(x, c), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("seen", [0, 2])
def test_a_condition_that_is_new_changes_no_bit(seen, dtype):
    old = net(3, 0, condition_channels=seen)
    new = net(3, 1, condition_channels=seen + 3)
    transfer(old, new)
    old, new = (n.to(dtype).to(memory_format=torch.channels_last) for n in (old, new))
    x, c = torch.randn(2, 3, 19, 24).to(dtype), torch.tensor([0.2, -0.4])
    condition = torch.randn(2, seen + 3, 19, 24).to(dtype)
    known = condition[:, :seen] if seen else None
    if seen:  # more columns in one convolution may be added up in another order
        torch.testing.assert_close(new(x, c, condition), old(x, c, known))
        assert not torch.allclose(new(x, c, 2 * condition), old(x, c, known))
    else:
        assert torch.equal(new(x, c, condition), old(x, c))
    new(x, c, condition).square().sum().backward()
    assert new.condition_stem.weight.grad[:, -12:].abs().min() > 0


def test_a_network_that_sees_less_is_refused():
    with pytest.raises(ValueError, match="with 2 condition channels, wants at most 1"):
        transfer(net(3, 0, condition_channels=2), net(3, 1, condition_channels=1))


def test_another_trunk_is_refused():
    with pytest.raises(ValueError, match=r"widths \[8, 12, 16\], wants \[8, 12\]"):
        transfer(net(3, 0), net(3, 0, widths=(8, 12)))
