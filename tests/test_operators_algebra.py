import pytest
import torch

from measurand.operators import (
    Blur,
    GaussianBlur,
    Identity,
    Mask,
    ParallelCT,
    gaussian_kernel,
    random_mask,
)
from measurand.operators.base import Normal, Sum
from measurand.tensors import generators

SHAPE = (2, 8, 6)


def image(n=2):
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(0))


def test_sums_and_differences_act_as_they_are_written():
    a, b, x = GaussianBlur(SHAPE, sigma=1.0), Identity(SHAPE), image()
    assert torch.allclose((a + b)(x), a(x) + b(x))
    assert torch.allclose((a - b)(x), a(x) - b(x), atol=1e-6)
    assert torch.allclose((-a)(x), -(a(x)))
    assert torch.allclose((2 * a - 0.5 * b)(x), 2 * a(x) - 0.5 * x, atol=1e-6)
    assert torch.allclose((a + b).H(x), a.H(x) + b.H(x))


def test_the_normal_operator_is_the_adjoint_of_the_operator_after_it():
    a, x = GaussianBlur(SHAPE, sigma=1.0), image()
    assert torch.allclose(a.N(x), a.H(a(x)), atol=1e-6)
    assert a.N.norm == pytest.approx(a.norm**2, rel=1e-5)
    assert isinstance(a.N, Normal)


def test_terms_may_hold_one_operator_per_item():
    kernels = torch.stack([gaussian_kernel(0.5, 5), gaussian_kernel(1.5, 5)])[:, None]
    a, x = Blur(SHAPE, kernels) + Identity(SHAPE), image()
    assert a.batch == 2
    assert torch.allclose(a[1](x[1:]), a(x)[1:], atol=1e-6)
    assert torch.allclose(a.repeat(2)(x.repeat_interleave(2, 0))[3], a(x)[1], atol=1e-6)


def test_a_sum_has_measured_what_one_of_its_terms_has():
    left = Mask(SHAPE, torch.tensor([1.0, 1, 1, 0, 0, 0]).expand(8, 6))
    right = Mask(SHAPE, torch.tensor([0.0, 0, 1, 1, 0, 0]).expand(8, 6))
    seen = (left + right).observed(torch.ones(1, *SHAPE))
    assert torch.equal(seen[0, 0, 0], torch.tensor([1.0, 1, 1, 1, 0, 0]))


def test_other_spaces_are_refused_and_numbers_are_no_operators():
    a = Identity(SHAPE)
    with pytest.raises(ValueError, match="different spaces"):
        _ = a + Identity((1, 8, 6))
    with pytest.raises(ValueError, match="no operators"):
        Sum()
    with pytest.raises(TypeError):
        _ = a + 1.0
    mask = Mask(SHAPE, random_mask(SHAPE, 0.5, generator=generators(0, 1)))
    with pytest.raises(TypeError):
        _ = mask - 1.0


def test_what_is_made_of_a_tomograph_measures_no_pictures():
    ct = ParallelCT((1, 6, 6), [0.0, 0.5])
    for made in (2 * ct, ct + ct, ct @ Identity((1, 6, 6))):
        assert not made.pictures and made.air() is None
    assert (2 * Identity((1, 6, 6))).pictures
