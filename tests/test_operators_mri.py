"""MRI operators against dense matrices and against each other; CG-SENSE on a phantom."""

import itertools
import warnings

import pytest
import torch

from measurand.linalg import cg
from measurand.operators import (
    SENSE,
    CartesianMRI,
    FourierMask,
    birdcage_maps,
    fft2c,
    random_lines,
    variable_density_mask,
)
from measurand.tensors import generators, inner, norm, per_item, randn_like

SIZES = [(8, 6), (7, 6), (6, 9), (5, 7)]


def noise(*shape, seed=0, dtype=torch.complex64):
    return randn_like(torch.empty(shape, dtype=dtype), generators(seed, shape[0]))


def masks_of(shape):
    height, width = shape
    lines = random_lines(shape, 2.0, 0.3)
    return {
        "columns": lines,
        "rows": (torch.arange(height) % 2 == 0)[:, None],
        "points": variable_density_mask(shape, 2.0, 0.1),
        "full": torch.ones(width),
    }


def operators_of(shape):
    for kind, mask in masks_of(shape).items():
        yield kind, CartesianMRI((1, *shape), mask)
        yield kind, SENSE((1, *shape), birdcage_maps(shape, 3), mask)
        yield kind, FourierMask((2, *shape), mask)


@pytest.mark.parametrize("shape", SIZES)
def test_definition_adjoint_and_gram(shape):
    for kind, operator in operators_of(shape):
        mask = torch.as_tensor(masks_of(shape)[kind]).float()
        for double, tolerance in ((False, 1e-5), (True, 1e-12)):
            operator = operator.double() if double else operator
            x = noise(2, *operator.in_shape, dtype=operator.blank_input().dtype)
            y = noise(2, *operator.out_shape, dtype=operator.H.blank_input().dtype, seed=1)
            coils = operator.maps if isinstance(operator, SENSE) else 1
            torch.testing.assert_close(
                operator(x), mask * fft2c(coils * x), rtol=tolerance, atol=tolerance
            )
            gap = inner(operator(x), y) - inner(x, operator.H(y))
            assert (gap.abs() <= tolerance * norm(operator(x)) * norm(y)).all()
            torch.testing.assert_close(
                operator.gram(x), operator.adjoint(operator(x)), rtol=tolerance, atol=tolerance
            )


def test_full_sampling_with_normalised_maps_is_the_identity():
    operator = SENSE((1, 21, 16), birdcage_maps((21, 16), 5), torch.ones(16))
    x = noise(2, 1, 21, 16)
    torch.testing.assert_close(operator.adjoint(operator(x)), x, rtol=1e-5, atol=1e-5)
    b = noise(2, 1, 21, 16, seed=1)
    torch.testing.assert_close(operator.solve(b, 0.3), b / 1.3)


@pytest.mark.parametrize("shape", SIZES)
def test_closed_forms_agree_with_conjugate_gradients(shape):
    gamma = torch.tensor([1e-3, 0.7], dtype=torch.float64)
    for _, operator in operators_of(shape):
        operator = operator.double()
        v = noise(2, *operator.in_shape, dtype=operator.blank_input().dtype)
        y = noise(2, *operator.out_shape, dtype=torch.complex128, seed=1)
        weight = per_item(gamma, v)
        b = operator.adjoint(y) + weight * v

        def normal(x, operator=operator, weight=weight):
            return operator.adjoint(operator(x)) + weight * x

        wanted = cg(normal, b, tol=1e-13, max_iter=500)
        torch.testing.assert_close(operator.solve(b, gamma, tol=1e-12), wanted, rtol=0, atol=1e-8)
        # an iterative prox stops at a residual of 1e-6, and the smallest eigenvalue is gamma
        reach = 1e-6 / gamma if isinstance(operator, SENSE) else torch.tensor(1e-9)
        for back in (None, operator.adjoint(y)):
            gap = operator.prox(v, y, gamma, prepared=back) - wanted
            assert (norm(gap) <= reach * norm(b)).all()


def test_tiny_gamma_keeps_what_was_not_measured():
    """In float32 at gamma = 1e-7, unseen frequencies are those of v, seen ones those of y."""
    mask = variable_density_mask((32, 32), 4.0)[0, 0]
    for operator in (CartesianMRI((1, 32, 32), mask), FourierMask((1, 32, 32), mask)):
        v = noise(1, 1, 32, 32, dtype=operator.blank_input().dtype)
        y = operator(noise(1, 1, 32, 32, dtype=v.dtype, seed=1))
        p = fft2c(operator.prox(v, y, 1e-7))
        torch.testing.assert_close(p * mask, y, rtol=1e-4, atol=1e-5)
        opposite = mask.flip(0, 1).roll((1, 1), (0, 1))
        unseen = ~mask & ~opposite if isinstance(operator, FourierMask) else ~mask
        torch.testing.assert_close(p * unseen, fft2c(v) * unseen, rtol=1e-4, atol=1e-5)


def test_real_image_is_not_the_real_part_of_the_complex_solution():
    """The exact prox of a real image, by a dense solve; the naive one is off by percents."""
    shape = (5, 6)
    mask = variable_density_mask(shape, 2.0, 0.1)[0, 0]
    operator = FourierMask((1, *shape), mask).double()
    basis = torch.eye(30, dtype=torch.float64).reshape(30, 1, *shape)
    dense = torch.view_as_real(operator(basis)).reshape(30, -1).T
    v = noise(1, 1, *shape, dtype=torch.float64)
    y = noise(1, 1, *shape, dtype=torch.complex128, seed=1)
    gamma = 0.2
    right = dense.T @ torch.view_as_real(y).flatten() + gamma * v.flatten()
    wanted = torch.linalg.solve(dense.T @ dense + gamma * torch.eye(30).double(), right)
    torch.testing.assert_close(operator.prox(v, y, gamma).flatten(), wanted)
    naive = CartesianMRI((1, *shape), mask).double().prox(v.to(y.dtype), y, gamma).real
    assert float((naive.flatten() - wanted).norm() / wanted.norm()) > 0.01
    assert operator.norm == pytest.approx(float(torch.linalg.matrix_norm(dense, 2)), rel=1e-12)


@pytest.mark.parametrize("cls", [CartesianMRI, FourierMask])
def test_draws_have_the_exact_covariance(cls):
    shape, n, sigma, gamma = (3, 4), 40000, 0.7, 0.3
    operator = cls((1, *shape), torch.tensor([[1, 0, 1, 0], [1, 1, 0, 0], [0, 1, 1, 0]])).double()
    blank = operator.blank_input()
    v, y = torch.ones_like(blank), torch.ones(1, 1, *shape, dtype=torch.complex128)
    many = v.expand(n, -1, -1, -1)
    draws = operator.sample(many, y, gamma, sigma, torch.Generator().manual_seed(0))
    deviation = draws - operator.prox(v, y, gamma)
    basis = torch.eye(12, dtype=torch.float64).to(blank.dtype).reshape(12, 1, *shape)
    normal = operator.gram(basis).reshape(12, 12).T + gamma * torch.eye(12)
    wanted = sigma**2 * torch.linalg.inv(normal)
    d = deviation.flatten(1)
    found = d.T @ d.conj() / n
    if blank.is_complex():
        found = found / 2  # two components, each of variance sigma^2 (...)^-1
    scale = wanted.diagonal().abs().max()
    assert (found - wanted).abs().max() < 6 * scale / n**0.5


def test_one_mask_and_one_set_of_maps_per_item():
    shape = (6, 8)
    masks = random_lines(shape, 2.0, 0.25, generator=generators(0, 3))
    maps = torch.cat([birdcage_maps(shape, 2, radius) for radius in (1.4, 1.6, 1.9)])
    x = noise(3, 1, *shape)
    for build in (
        lambda s: CartesianMRI((1, *shape), masks[s]),
        lambda s: SENSE((1, *shape), maps[s], masks[s]),
        lambda s: SENSE((1, *shape), maps[:1], masks[s]),
        lambda s: SENSE((1, *shape), maps[s], masks[:1]),
    ):
        operator = build(slice(None))
        assert operator.batch == 3
        for i in range(3):
            alone = build(slice(i, i + 1))
            torch.testing.assert_close(operator(x)[i : i + 1], alone(x[i : i + 1]))
            torch.testing.assert_close(operator[i].gram(x[i : i + 1]), alone.gram(x[i : i + 1]))
        twice = operator.repeat(2)(x.repeat_interleave(2, 0))
        torch.testing.assert_close(twice[::2], operator(x))


def test_trace_is_exact():
    for _, operator in operators_of((5, 6)):
        operator = operator.double()
        n = operator.blank_input().numel()
        basis = torch.eye(n, dtype=torch.float64).to(operator.blank_input().dtype)
        energy = operator(basis.reshape(n, *operator.in_shape)).abs().square().sum() / n
        assert operator.trace_gram() == pytest.approx(float(energy), rel=1e-6)


def test_gradients_pass_through_the_prox_and_to_the_maps():
    shape = (3, 4)
    mask = random_lines(shape, 2.0, 0.3)
    maps = birdcage_maps(shape, 2).to(torch.complex128).requires_grad_()
    v = noise(1, 1, *shape, dtype=torch.complex128).requires_grad_()
    y = noise(1, 2, *shape, dtype=torch.complex128, seed=1).requires_grad_()
    gamma = torch.tensor([0.4], dtype=torch.float64, requires_grad=True)
    operator = SENSE((1, *shape), maps.detach(), mask).double()
    inputs = (v, y, gamma)
    assert torch.autograd.gradcheck(operator.prox, inputs, atol=1e-4, rtol=1e-3, fast_mode=True)
    real = FourierMask((1, *shape), mask).double()
    w = y[:, :1].detach().requires_grad_()
    x = v.real.detach().requires_grad_()
    assert torch.autograd.gradcheck(real.prox, (x, w, gamma), fast_mode=True)
    learned = SENSE((1, *shape), maps, mask)
    learned.gram(v).abs().square().sum().backward()
    assert maps.grad is not None and float(maps.grad.norm()) > 0


def test_wrong_arguments_are_named():
    maps = birdcage_maps((4, 6), 2)
    mask = torch.ones(6)
    for make, message in (
        (lambda: CartesianMRI((2, 4, 6), mask), r"wanted \(1, H, W\)"),
        (lambda: CartesianMRI((1, 4, 6), torch.ones(4)), "mask with shape"),
        (lambda: CartesianMRI((1, 4, 6), torch.ones(1, 4, 6)), "mask with shape"),
        (lambda: CartesianMRI((1, 4, 6), mask * 0.5), "zeros and ones"),
        (lambda: CartesianMRI((1, 4, 6), mask * float("nan")), "zeros and ones"),
        (lambda: FourierMask((1, 4, 6), mask * 0), "zeros only"),
        (lambda: CartesianMRI((1, 4, 6), torch.stack([mask, 0 * mask])[:, None, None]), "zeros"),
        (lambda: SENSE((1, 4, 6), maps.abs(), mask), "complex maps"),
        (lambda: SENSE((1, 6, 4), maps, mask), "complex maps"),
        (lambda: SENSE((1, 4, 6), maps * float("inf"), mask), "not finite"),
        (lambda: SENSE((1, 4, 6), maps * 0, mask), "maps of zeros"),
        (lambda: SENSE((1, 4, 6), maps.repeat(2, 1, 1, 1), mask.expand(3, 1, 1, 6)), "2 sets"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(ValueError, match="wanted torch.complex64"):
        SENSE((1, 4, 6), maps, mask)(torch.zeros(1, 1, 4, 6))


def psnr(x, truth):
    error = (x.abs() - truth.abs()).square().mean()
    return float(10 * torch.log10(truth.abs().max() ** 2 / error))


def phantom(n):
    from skimage.data import shepp_logan_phantom
    from skimage.transform import resize

    image = torch.from_numpy(resize(shepp_logan_phantom(), (n, n), anti_aliasing=True)).float()
    t = torch.linspace(-1, 1, n)
    phase = 0.8 * t[:, None] ** 2 - 0.6 * t * t[:, None] + 0.5 * t
    return (image / image.max() * torch.polar(torch.ones(n, n), phase))[None, None]


@pytest.mark.parametrize(
    ("acceleration", "fraction", "sigma", "gain"),
    [(4, 0.08, 0.0, 6.0), (4, 0.08, 0.005, 5.0), (8, 0.04, 0.0, 2.5), (8, 0.04, 0.005, 2.5)],
)
def test_cg_sense_gains_over_the_zero_filled_image(acceleration, fraction, sigma, gain):
    """With maps that vanish outside the object, as calibrated ones do; the scan knows no edge."""
    x = phantom(128)
    maps = birdcage_maps((128, 128), 8)
    seen = torch.nn.functional.max_pool2d(x.abs(), 5, 1, 2) > 0.01
    gains = []
    for generator in generators(0, 3):
        mask = random_lines((128, 128), acceleration, fraction, generator=generator)
        y = SENSE((1, 128, 128), maps, mask)(x) + sigma * mask * noise(1, 8, 128, 128)
        operator = SENSE((1, 128, 128), maps * seen, mask)
        zero_filled = operator.adjoint(y)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # fifty iterations are the protocol
            solved = operator.solve(zero_filled, 1e-3, max_iter=50)
        gains.append(psnr(solved, x) - psnr(zero_filled, x))
    assert min(gains) >= gain


def test_device_and_precision_are_followed(device):
    shape = (6, 7)
    mask = random_lines(shape, 2.0, 0.3)
    for (_, operator), double in itertools.product(operators_of(shape), (False, True)):
        operator = (operator.double() if double else operator).to(device)
        x = operator.blank_input(2) + 1
        y = operator(x)
        assert y.device.type == device.type and y.dtype == operator.H.blank_input().dtype
        p = operator.prox(x, y, 0.1)
        assert p.device.type == device.type and p.dtype == x.dtype
    assert CartesianMRI((1, *shape), mask).mask.dtype == torch.float32
