"""Masks against their definition: closed forms, covariance, one mask per item, errors."""

import numpy as np
import pytest
import torch

from measurand.operators import Mask, box_mask, random_mask
from measurand.tensors import generators

SHAPE = (2, 5, 4)


def test_any_array_broadcasts_to_the_image():
    x = torch.randn(3, *SHAPE)
    for mask in (
        np.random.default_rng(0).random((5, 4)) > 0.3,
        torch.rand(2, 1, 4),
        torch.rand(3, 1, 5, 4),
        torch.rand(1, 2, 5, 1, dtype=torch.float64),
        [[1, 0, 1, 1]],
    ):
        operator = Mask(SHAPE, mask)
        out = operator(x)
        torch.testing.assert_close(out, x * torch.as_tensor(np.asarray(mask)).float())
        assert out.dtype == torch.float32
        torch.testing.assert_close(operator.H(x), out)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_closed_forms_solve_their_equations(dtype):
    mask = torch.randn(3, 1, 5, 4, dtype=torch.float64)
    operator = Mask(SHAPE, mask, torch.complex64 if dtype.is_complex else torch.float32)
    v, y = torch.randn(3, *SHAPE, dtype=dtype), torch.randn(3, *SHAPE, dtype=dtype)
    gamma = torch.tensor([1e-6, 0.1, 3.0], dtype=torch.float64)
    g = gamma[:, None, None, None]
    p = operator.prox(v, y, gamma)
    torch.testing.assert_close((mask**2 + g) * p, mask * y + g * v, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(p, operator.solve(operator.adjoint(y) + g * v, gamma))
    assert operator.norm == pytest.approx(float(mask.abs().max()), rel=1e-12)
    assert operator.trace_gram() == pytest.approx(float(mask[0].square().mean()), rel=1e-12)


def test_draws_have_the_exact_covariance():
    mask = torch.tensor([[1.0, 0.0, 0.5], [2.0, 1.0, 0.0]])
    operator = Mask((1, 2, 3), mask)
    n, sigma, gamma = 40000, 0.7, 0.3
    v, y = torch.randn(1, 1, 2, 3).expand(n, -1, -1, -1), torch.randn(1, 1, 2, 3)
    draws = operator.sample(v, y.expand(n, -1, -1, -1), gamma, sigma, generators(0, n))
    deviation = (draws - operator.prox(v[:1], y, gamma)).flatten(1)
    wanted = torch.diag(sigma**2 / (mask.flatten() ** 2 + gamma))
    # an entry of the sample covariance has a standard error of sqrt(c_ii c_jj + c_ij^2) / sqrt(n)
    spread = (wanted.diag()[:, None] * wanted.diag() + wanted**2).sqrt() / n**0.5
    assert ((deviation.T @ deviation / n - wanted).abs() < 5 * spread).all()
    assert (deviation.mean(0).abs() < 5 * (wanted.diag() / n).sqrt()).all()


def test_gradients():
    mask = torch.rand(2, 1, 3, 4, dtype=torch.float64, requires_grad=True)
    v = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    gamma = torch.tensor([0.2, 0.9], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda m, v, y, g: Mask((2, 3, 4), m).prox(v, y, g), (mask, v, y, gamma)
    )


def test_items_follow_the_batch():
    operator = Mask(SHAPE, random_mask(SHAPE, 0.4, n=3))
    assert operator.batch == 3
    x = torch.randn(6, *SHAPE)
    doubled = operator.repeat(2)
    torch.testing.assert_close(doubled(x), x * operator.mask.repeat_interleave(2, 0))
    torch.testing.assert_close(operator[1](x[:1]), x[:1] * operator.mask[1])
    with pytest.raises(ValueError, match="one per item"):
        operator(x[:2])


def test_random_masks():
    mask = random_mask((3, 200, 300), 0.7, n=2)
    assert mask.shape == (2, 1, 200, 300)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    # 60,000 pixels: the standard error of the share is 0.0019
    assert ((1 - mask.mean((1, 2, 3)) - 0.7).abs() < 0.01).all()
    assert not mask[0].equal(mask[1])
    assert mask.equal(random_mask((3, 200, 300), 0.7, n=2))
    assert mask[:1].equal(random_mask((3, 200, 300), 0.7))  # an item does not see its neighbours
    assert not mask.equal(random_mask((3, 200, 300), 0.7, n=2, generator=generators(1, 2)))
    one = torch.Generator().manual_seed(3)
    assert random_mask((1, 4, 5, 6), 0.0, generator=one).equal(torch.ones(1, 1, 4, 5, 6))


def test_box_masks():
    mask = box_mask((3, 7, 8), (3, 2))
    wanted = np.ones((7, 8))
    wanted[2:5, 3:5] = 0
    np.testing.assert_array_equal(mask[0, 0], wanted)
    mask = box_mask((1, 4, 5, 6), (1, 2, 3), (3, 0, 1))
    assert mask.shape == (1, 1, 4, 5, 6)
    assert mask.sum() == 4 * 5 * 6 - 6
    assert mask[0, 0, 3, :2, 1:4].sum() == 0


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (torch.zeros(5, 4), "all-zero mask"),
        (torch.stack([torch.ones(1, 5, 4), torch.zeros(1, 5, 4)]), "all-zero mask"),
        (torch.full((5, 4), torch.nan), "non-finite"),
        (torch.full((5, 4), torch.inf), "non-finite"),
        (torch.ones(5, 4, dtype=torch.complex64), "wanted a real"),
        (torch.ones(4, 5), r"\(B, 2, 5, 4\)"),
        (torch.ones(1, 1, 1, 5, 4), r"\(B, 2, 5, 4\)"),
        (torch.ones(0, 2, 5, 4), r"\(B, 2, 5, 4\)"),
    ],
)
def test_wrong_masks_are_named(mask, message):
    with pytest.raises(ValueError, match=message) as error:
        Mask(SHAPE, mask)
    assert "Mask(2x5x4" in str(error.value)


def test_wrong_sizes_are_named():
    with pytest.raises(ValueError, match="missing = 1"):
        random_mask(SHAPE, 1.0)
    for size, corner in [((6, 2), None), ((2, 2), (4, 0)), ((2,), None), ((0, 2), None)]:
        with pytest.raises(ValueError, match="box_mask: got a box"):
            box_mask(SHAPE, size, corner)
