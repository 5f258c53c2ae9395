"""Tensor arithmetic: inner products, per-item scalars, noise that does not see the batch."""

import pytest
import torch

from measurand.tensors import (
    as_generators,
    convert_range,
    from_channels,
    generators,
    inner,
    norm,
    per_item,
    randn_like,
    to_channels,
)


def test_channels_round_trip():
    x = torch.randn(2, 3, 4, 5, dtype=torch.complex64)
    real = to_channels(x)
    assert real.shape == (2, 6, 4, 5)
    assert torch.equal(real[:, :3], x.real) and torch.equal(real[:, 3:], x.imag)
    assert torch.equal(from_channels(real), x)
    assert to_channels(real) is real
    with pytest.raises(ValueError, match="even number"):
        from_channels(real[:, :3])


def test_inner_is_real_and_per_item():
    a, b = torch.randn(2, 3, 4, dtype=torch.complex128), torch.randn(3, 4, dtype=torch.complex128)
    want = (a.conj() * b).real.flatten(1).sum(1)
    torch.testing.assert_close(inner(a, b.expand_as(a)), want)
    torch.testing.assert_close(norm(a), inner(a, a).sqrt())


def test_per_item_broadcasts_and_refuses():
    x = torch.zeros(3, 2, 4, 4, dtype=torch.complex64)
    assert per_item(2.0, x).shape == (1, 1, 1, 1) and per_item(2.0, x).dtype == torch.float32
    assert per_item(torch.arange(3), x).shape == (3, 1, 1, 1)
    with pytest.raises(ValueError, match="batch of 3"):
        per_item(torch.arange(2), x)


def test_noise_of_an_item_does_not_depend_on_its_batch():
    x = torch.zeros(5, 2, 3)
    whole = randn_like(x, generators(7, 5))
    part = randn_like(x[3:4], generators(7, 5)[3:4])
    assert torch.equal(whole[3:4], part)
    assert not torch.equal(whole[0], whole[1])
    assert torch.equal(randn_like(x, None), randn_like(x, generators(0, 5)))
    with pytest.raises(ValueError, match="one per item"):
        as_generators(generators(0, 2), x)


def test_complex_noise_has_unit_variance_per_component():
    n = randn_like(torch.zeros(4, 50_000, dtype=torch.complex64), None)
    assert abs(float(n.real.var()) - 1) < 0.02 and abs(float(n.imag.var()) - 1) < 0.02
    assert abs(float((n.real * n.imag).mean())) < 0.01


def test_convert_range():
    x = torch.tensor([0.0, 0.5, 1.0])
    assert torch.equal(convert_range(x, (0, 1), (-1, 1)), torch.tensor([-1.0, 0.0, 1.0]))
