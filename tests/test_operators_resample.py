"""Down-sampling against torch's resizing and dense matrices; small gamma; covariance."""

import pytest
import torch
from test_operators_blur import dense, noise
from torch.nn import functional

from measurand.operators import (
    BicubicDownsample,
    BlockAverage,
    Blur,
    Downsample,
    GaussianDownsample,
    gaussian_kernel,
)
from measurand.tensors import norm

EXAMPLES = [
    Downsample((2, 6, 9), noise(4, 3, seed=1), 3, phase=2),
    Downsample((2, 8, 6), noise(1, 2, 3, 4, seed=1), 2),
    Downsample((1, 5, 7), noise(2, 3, seed=1), 1),
    BicubicDownsample((1, 12, 16), 2),
    GaussianDownsample((2, 9, 6), 3, 1.1),
    BlockAverage((2, 4, 6), 2),
    BlockAverage((1, 9, 6), 3),
]
IDS = [f"{type(e).__name__}{i}" for i, e in enumerate(EXAMPLES)]


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("kernel", [(3, 3), (4, 2), (5, 4)])
def test_it_is_a_blur_of_which_some_pixels_are_kept(factor, kernel):
    shape, k = (2, 3 * factor, 5 * factor), noise(*kernel, seed=1)
    if kernel[0] > shape[1]:
        shape = (2, 6 * factor, 5 * factor)
    x = noise(2, *shape)
    for phase in range(factor):
        wanted = Blur(shape, k)(x)[..., phase::factor, phase::factor]
        found = Downsample(shape, k, factor, phase)(x)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-12)


def test_block_average_is_the_mean_of_blocks():
    x = noise(2, 3, 6, 8)
    wanted = x.reshape(2, 3, 3, 2, 4, 2).mean((3, 5))
    torch.testing.assert_close(BlockAverage((3, 6, 8), 2)(x), wanted)
    as_blur = Downsample((3, 6, 8), torch.full((2, 2), 0.25), 2)
    torch.testing.assert_close(as_blur(x), wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_bicubic_is_antialiased_resizing_away_from_the_border(factor):
    n = 12 * factor
    x = noise(1, 2, n, n)
    wanted = functional.interpolate(
        x, scale_factor=1 / factor, mode="bicubic", antialias=True, align_corners=False
    )
    found = BicubicDownsample((2, n, n), factor)(x)
    inner = slice(2, -2)
    torch.testing.assert_close(
        found[..., inner, inner], wanted[..., inner, inner], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("factor", [2, 3, 4, 5])
@pytest.mark.parametrize("name", ["bicubic", "gaussian", "block"])
def test_small_pixels_stand_in_the_middle_of_their_blocks(factor, name):
    """A linear ramp keeps its values at the middle of each block, a constant is kept."""
    n = 16 * factor
    operator = {
        "bicubic": lambda: BicubicDownsample((1, n, n), factor),
        "gaussian": lambda: GaussianDownsample((1, n, n), factor, 0.7 * factor),
        "block": lambda: BlockAverage((1, n, n), factor),
    }[name]()
    ramp = torch.arange(n, dtype=torch.float64)
    out = operator((2 * ramp[:, None] - ramp)[None, None])[0, 0]
    middle = ramp[:16] * factor + (factor - 1) / 2
    inner = slice(6, -6)
    wanted = (2 * middle[:, None] - middle)[inner, inner]
    torch.testing.assert_close(out[inner, inner], wanted, rtol=0, atol=1e-4)
    flat = operator(torch.full((1, 1, n, n), 0.3, dtype=torch.float64))
    torch.testing.assert_close(flat, torch.full_like(flat, 0.3), rtol=0, atol=1e-6)


@pytest.mark.parametrize("operator", EXAMPLES, ids=IDS)
@pytest.mark.parametrize("gamma", [1e-3, 0.4])
def test_closed_forms_are_those_of_dense_algebra(operator, gamma):
    v, y = noise(2, *operator.in_shape, seed=2), noise(2, *operator.out_shape, seed=3)
    a = dense(operator)
    normal = a.T @ a + gamma * torch.eye(a.shape[1], dtype=a.dtype)
    b = y.flatten(1) @ a + gamma * v.flatten(1)
    wanted = torch.linalg.solve(normal, b.T).T.reshape(v.shape)
    torch.testing.assert_close(operator.prox(v, y, gamma), wanted, rtol=1e-10, atol=1e-10)
    found = operator.solve(b.reshape(v.shape), torch.tensor([gamma, gamma], dtype=torch.float64))
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    back = operator.adjoint(y).flatten(1)
    torch.testing.assert_close(back, y.flatten(1) @ a, rtol=0, atol=1e-12)
    assert operator.norm == pytest.approx(float(torch.linalg.svdvals(a)[0]), rel=1e-6)
    assert operator.trace_gram() == pytest.approx(float((a * a).sum()) / a.shape[1], rel=1e-6)


@pytest.mark.parametrize("gamma", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize(
    "operator",
    [
        Downsample((3, 64, 48), gaussian_kernel(1.6), 4),
        BicubicDownsample((3, 64, 48), 4),
        BlockAverage((3, 64, 48), 4),
    ],
    ids=["gaussian", "bicubic", "block"],
)
def test_single_precision_holds_at_small_gamma(operator, gamma):
    x = noise(1, 3, 64, 48, dtype=torch.float32).cumsum(-1).cumsum(-2)
    x = x / x.abs().max()
    y = operator(x) + 0.02 * noise(1, *operator.out_shape, seed=1, dtype=torch.float32)
    v = x + 0.1 * noise(*x.shape, seed=2, dtype=torch.float32)
    wanted = operator.prox(v.double(), y.double(), gamma)
    assert float(norm(operator.prox(v, y, gamma) - wanted) / norm(wanted)) < 1e-4
    b = operator.adjoint(y) + gamma * v
    solved = operator.solve(b, gamma)
    left = operator.gram(solved) + gamma * solved - b
    assert float(norm(left) / norm(b)) < 1e-4


@pytest.mark.parametrize(
    "operator",
    [Downsample((1, 4, 4), noise(3, 2, seed=1), 2), BlockAverage((1, 4, 4), 2)],
    ids=["kernel", "block"],
)
def test_draws_have_the_exact_covariance(operator):
    n, sigma, gamma = 60000, 0.7, 0.1
    v, y = noise(1, 1, 4, 4), noise(1, 1, 2, 2, seed=1)
    draws = operator.sample(
        v.expand(n, -1, -1, -1),
        y.expand(n, -1, -1, -1),
        gamma,
        sigma,
        torch.Generator().manual_seed(4),
    )
    deviation = (draws - operator.prox(v, y, gamma)).flatten(1)
    a = dense(operator)
    wanted = sigma**2 * torch.linalg.inv(a.T @ a + gamma * torch.eye(16, dtype=a.dtype))
    spread = (wanted.diag()[:, None] * wanted.diag() + wanted**2).sqrt() / n**0.5
    assert ((deviation.T @ deviation / n - wanted).abs() < 5 * spread).all()
    assert (deviation.mean(0).abs() < 5 * (wanted.diag() / n).sqrt()).all()


def test_gradients_reach_everything():
    k = noise(2, 1, 3, 2, seed=1).requires_grad_()
    v = noise(2, 1, 4, 6).requires_grad_()
    y = noise(2, 1, 2, 3, seed=2).requires_grad_()
    gamma = torch.tensor([0.2, 0.7], dtype=torch.float64, requires_grad=True)

    def both(k, v, y, gamma):
        operator = Downsample((1, 4, 6), k, 2)
        return operator.prox(v, y, gamma), operator.solve(v, gamma), operator.forward(v)

    assert torch.autograd.gradcheck(both, (k, v, y, gamma))
    block = BlockAverage((1, 4, 6), 2)
    assert torch.autograd.gradcheck(lambda v, y, g: block.prox(v, y, g), (v, y, gamma))


def test_every_item_has_its_kernel():
    kernels, x = noise(3, 1, 3, 4, seed=1), noise(3, 2, 8, 6)
    operator = Downsample((2, 8, 6), kernels, 2)
    out = operator(x)
    v, y = noise(3, 2, 8, 6, seed=2), noise(3, 2, 4, 3, seed=3)
    gamma = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    near = operator.prox(v, y, gamma)
    for b in range(3):
        at = slice(b, b + 1)
        alone = Downsample((2, 8, 6), kernels[b, 0], 2)
        torch.testing.assert_close(out[at], alone(x[at]), rtol=0, atol=1e-13)
        torch.testing.assert_close(
            near[at], operator[b].prox(v[at], y[at], gamma[at]), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize(
    "build",
    [
        lambda: BlockAverage((3, 9, 8), 2),
        lambda: BicubicDownsample((3, 9, 8), 2),
        lambda: GaussianDownsample((3, 8, 9), 2, 1.0),
        lambda: Downsample((3, 8, 9), torch.ones(2, 2), 2),
        lambda: BlockAverage((8, 8), 2),
        lambda: BlockAverage((3, 8, 8), 0),
    ],
)
def test_sizes_that_do_not_divide_are_named(build):
    with pytest.raises(ValueError, match="multiples of the factor"):
        build()


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="phase 2, wanted one of 0, ..., 1"):
        Downsample((1, 8, 8), torch.ones(2, 2), 2, phase=2)
    with pytest.raises(ValueError, match="larger than the image"):
        BicubicDownsample((1, 8, 8), 4)
    with pytest.raises(ValueError, match="sigma = -1"):
        GaussianDownsample((1, 8, 8), 2, -1.0)
    with pytest.raises(ValueError, match="zero everywhere"):
        Downsample((1, 8, 8), torch.zeros(2, 2), 2)


def test_a_kernel_in_the_place_of_the_factor_is_named():
    with pytest.raises(ValueError, match="factor"):
        Downsample((1, 8, 8), 2, torch.ones(3, 3))
