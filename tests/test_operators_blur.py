"""Blurs against scipy and dense matrices: boundaries, closed forms, covariance, gradients."""

import numpy as np
import pytest
import torch
from scipy import fft, ndimage, signal

from measurand.operators import (
    Blur,
    GaussianBlur,
    MotionBlur,
    ReflectiveBlur,
    ValidBlur,
    gaussian_kernel,
    motion_kernel,
)
from measurand.tensors import generators, norm

SIZES = [(8, 9), (9, 8), (7, 5), (6, 6)]
KERNELS = [(1, 1), (3, 3), (4, 3), (2, 5), (4, 4)]
SYMMETRIC = gaussian_kernel(0.9, 5).double()


def dense(operator):
    """The matrix of an operator, by its action on the unit vectors."""
    n = int(np.prod(operator.in_shape))
    unit = torch.eye(n, dtype=torch.float64).reshape(n, *operator.in_shape)
    return operator(unit).flatten(1).T


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def exact_prox(operator, v, y, gamma):
    a = dense(operator)
    normal = a.T @ a + gamma * torch.eye(a.shape[1], dtype=a.dtype)
    right = y.flatten(1) @ a + gamma * v.flatten(1)
    return torch.linalg.solve(normal, right.T).T.reshape(v.shape)


def periodic(image, kernel):
    """Circular convolution, by its definition."""
    h, w = kernel.shape
    out = np.zeros_like(image)
    for a in range(h):
        for b in range(w):
            out += kernel[a, b] * np.roll(image, (a - h // 2, b - w // 2), (0, 1))
    return out


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", KERNELS)
def test_circular_blur_is_its_definition(size, shape):
    x, k = noise(2, 3, *size), noise(*shape, seed=1)
    out = Blur((3, *size), k)(x)
    for b in range(2):
        for c in range(3):
            np.testing.assert_allclose(out[b, c], periodic(x[b, c].numpy(), k.numpy()), atol=1e-12)


def test_circular_blur_is_that_of_scipy():
    x, k = noise(1, 1, 12, 11), noise(5, 3, seed=1)
    wanted = ndimage.convolve(x[0, 0].numpy(), k.numpy(), mode="wrap")
    np.testing.assert_allclose(Blur((1, 12, 11), k)(x)[0, 0], wanted, atol=1e-12)


@pytest.mark.parametrize("cls", [Blur, ReflectiveBlur])
@pytest.mark.parametrize("shape", KERNELS)
def test_a_point_kernel_is_the_identity(cls, shape):
    k = torch.zeros(shape)
    k[shape[0] // 2, shape[1] // 2] = 1
    x = noise(1, 2, 7, 6)
    torch.testing.assert_close(cls((2, 7, 6), k)(x), x, rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", KERNELS)
def test_valid_blur_is_that_of_scipy(size, shape):
    x, k = noise(1, 2, *size), noise(*shape, seed=1)
    out = ValidBlur((2, *size), k)(x)
    for c in range(2):
        wanted = signal.convolve2d(x[0, c].numpy(), k.numpy(), mode="valid")
        np.testing.assert_allclose(out[0, c], wanted, atol=1e-12)


@pytest.mark.parametrize("size", [(37, 41), (38, 40), (31, 32)])
def test_the_grid_of_a_valid_blur_is_its_own_business(size):
    """Grids with fast transforms are larger than the image: nothing of them is seen."""
    operator = ValidBlur((1, *size), noise(5, 4, seed=1))
    v, y = noise(2, *operator.in_shape, seed=2), noise(2, *operator.out_shape, seed=3)
    torch.testing.assert_close(operator.adjoint(y), dense_adjoint(operator, y))
    found = operator.prox(v, y, 0.1)
    left = operator.adjoint(operator(found) - y) + 0.1 * (found - v)
    assert left.norm() < 1e-5 * v.norm()
    # a residual is that of the gradient, as elsewhere
    found = operator.prox(v, y, 0.01, residual=1e-3)
    start = operator.adjoint(operator(v) - y)
    left = operator.adjoint(operator(found) - y) + 0.01 * (found - v)
    assert left.norm() < 1e-2 * start.norm()


def dense_adjoint(operator, y):
    """The derivative of <A x, y>."""
    x = torch.zeros(len(y), *operator.in_shape, dtype=y.dtype, requires_grad=True)
    (operator(x) * y).sum().backward()
    return x.grad


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (3, 5), (5, 1)])
def test_reflective_blur_is_that_of_scipy(size, shape):
    x, k = noise(1, 2, *size), noise(*shape, seed=1)
    out = ReflectiveBlur((2, *size), k)(x)
    for c in range(2):
        wanted = ndimage.convolve(x[0, c].numpy(), k.numpy(), mode="reflect")
        np.testing.assert_allclose(out[0, c], wanted, atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_reflective_blur_by_a_symmetric_kernel_is_diagonal_under_the_dct(size):
    operator = ReflectiveBlur((1, *size), SYMMETRIC)
    x = noise(1, 1, *size)
    eigenvalues = operator.spectra(x)[1][0, 0].numpy()
    spectrum = fft.dctn(x[0, 0].numpy(), type=2, norm="ortho")
    wanted = fft.idctn(eigenvalues * spectrum, type=2, norm="ortho")
    np.testing.assert_allclose(operator(x)[0, 0], wanted, atol=1e-12)


@pytest.mark.parametrize(
    "operator",
    [
        Blur((2, 6, 7), noise(3, 4, seed=1)),
        Blur((2, 7, 6), noise(1, 2, 4, 3, seed=1)),
        ReflectiveBlur((2, 6, 5), SYMMETRIC),
        ReflectiveBlur((1, 5, 8), SYMMETRIC[:, 2:3].contiguous()),
    ],
    ids=["blur", "blur per channel", "reflective", "reflective column"],
)
@pytest.mark.parametrize("gamma", [1e-4, 0.3])
def test_closed_forms_are_those_of_dense_algebra(operator, gamma):
    v, y = noise(2, *operator.in_shape, seed=2), noise(2, *operator.out_shape, seed=3)
    wanted = exact_prox(operator, v, y, gamma)
    torch.testing.assert_close(operator.prox(v, y, gamma), wanted, rtol=1e-10, atol=1e-10)
    b = operator.adjoint(y) + gamma * v
    torch.testing.assert_close(operator.solve(b, gamma), wanted, rtol=1e-9, atol=1e-9)
    singular = torch.linalg.svdvals(dense(operator))
    assert operator.norm == pytest.approx(float(singular[0]), rel=1e-5)


@pytest.mark.parametrize(
    "operator",
    [ValidBlur((2, 7, 8), noise(3, 4, seed=1)), ReflectiveBlur((2, 7, 6), noise(4, 3, seed=1))],
    ids=["valid", "reflective, any kernel"],
)
def test_iterative_solves_are_those_of_dense_algebra(operator):
    v, y = noise(2, *operator.in_shape, seed=2), noise(2, *operator.out_shape, seed=3)
    b = operator.adjoint(y) + 0.1 * v
    wanted = exact_prox(operator, v, y, 0.1)
    found = operator.solve(b, torch.tensor([0.1, 0.1], dtype=torch.float64), x0=v, tol=1e-12)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    assert float(norm(operator.prox(v, y, 0.1) - wanted).max()) < 1e-4 * float(norm(wanted).max())


@pytest.mark.parametrize(
    "operator",
    [
        Blur((2, 6, 7), noise(3, 4, seed=1)),
        ReflectiveBlur((2, 6, 5), SYMMETRIC),
        ReflectiveBlur((2, 6, 5), noise(3, 2, seed=1)),
        ValidBlur((2, 7, 8), noise(3, 4, seed=1)),
    ],
    ids=lambda operator: type(operator).__name__,
)
def test_trace_is_that_of_the_matrix(operator):
    a = dense(operator)
    probed = isinstance(operator, ReflectiveBlur)  # an estimate from 16 random vectors
    rel = 0.3 if probed else 1e-12
    assert operator.trace_gram() == pytest.approx(float((a * a).sum()) / a.shape[1], rel=rel)


@pytest.mark.parametrize("gamma", [1e-2, 1e-4, 1e-6])
@pytest.mark.parametrize("cls", [Blur, ReflectiveBlur])
def test_single_precision_holds_at_small_gamma(cls, gamma):
    operator = cls((3, 64, 48), gaussian_kernel(1.6))
    x = noise(1, 3, 64, 48, dtype=torch.float32).cumsum(-1).cumsum(-2)
    x = x / x.abs().max()
    y = operator(x) + 0.02 * noise(*x.shape, seed=1, dtype=torch.float32)
    v = x + 0.1 * noise(*x.shape, seed=2, dtype=torch.float32)
    wanted = operator.prox(v.double(), y.double(), gamma)
    assert float(norm(operator.prox(v, y, gamma) - wanted) / norm(wanted)) < 1e-4
    if cls is Blur:
        kept = operator.prox(v, y, gamma, prepared=operator.prepare(y))
        assert float(norm(kept - wanted) / norm(wanted)) < 1e-4


@pytest.mark.parametrize(
    "operator",
    [Blur((1, 3, 4), noise(2, 3, seed=1)), ReflectiveBlur((1, 4, 3), SYMMETRIC[1:4, 1:4])],
    ids=["blur", "reflective"],
)
def test_draws_have_the_exact_covariance(operator):
    n, sigma, gamma = 60000, 0.7, 0.4
    v, y = noise(1, 1, *operator.in_shape[1:]), noise(1, 1, *operator.in_shape[1:], seed=1)
    many = v.expand(n, -1, -1, -1)
    draws = operator.sample(
        many, y.expand_as(many), gamma, sigma, torch.Generator().manual_seed(5)
    )
    deviation = (draws - operator.prox(v, y, gamma)).flatten(1)
    a = dense(operator)
    wanted = sigma**2 * torch.linalg.inv(a.T @ a + gamma * torch.eye(12, dtype=a.dtype))
    spread = (wanted.diag()[:, None] * wanted.diag() + wanted**2).sqrt() / n**0.5
    assert ((deviation.T @ deviation / n - wanted).abs() < 5 * spread).all()
    assert (deviation.mean(0).abs() < 5 * (wanted.diag() / n).sqrt()).all()


def test_a_draw_does_not_depend_on_the_batch():
    operator = GaussianBlur((2, 8, 8), 1.0)
    v, y = noise(3, 2, 8, 8), noise(3, 2, 8, 8, seed=1)
    together = operator.sample(v, y, 0.2, 0.5, generators(7, 3))
    alone = operator.sample(v[2:], y[2:], 0.2, 0.5, generators(7, 3)[2:])
    torch.testing.assert_close(together[2:], alone, rtol=0, atol=1e-14)


@pytest.mark.parametrize("cls", [Blur, ValidBlur, ReflectiveBlur])
def test_every_item_has_its_kernel(cls):
    kernels = noise(3, 2, 3, 4, seed=1)
    operator, x = cls((2, 7, 6), kernels), noise(3, 2, 7, 6)
    assert operator.batch == 3
    out = operator(x)
    for b in range(3):
        alone = operator[b]
        torch.testing.assert_close(alone(x[b : b + 1]), out[b : b + 1], rtol=0, atol=1e-13)
        for c in range(2):
            one = cls((1, 7, 6), kernels[b, c])(x[b : b + 1, c : c + 1])
            torch.testing.assert_close(one[:, 0], out[b : b + 1, c], rtol=0, atol=1e-13)
    twice = operator.repeat(2)(x.repeat_interleave(2, 0))
    torch.testing.assert_close(twice, out.repeat_interleave(2, 0), rtol=0, atol=1e-13)
    with pytest.raises(ValueError, match="one per item"):
        operator(x[:2])


def test_precision_follows_the_images_and_copies_forget_old_spectra():
    operator = Blur((1, 6, 6), np.random.default_rng(0).random((3, 3)))
    x = noise(1, 1, 6, 6)
    assert operator(x.float()).dtype == torch.float32
    assert operator(x).dtype == torch.float64
    wanted = periodic(x[0, 0].numpy(), operator.kernel[0, 0].double().numpy())
    np.testing.assert_allclose(operator(x)[0, 0], wanted, atol=1e-13)
    operator.load_state_dict({"kernel": operator.kernel.clone()})
    assert operator.double().kernel.dtype == torch.float64
    np.testing.assert_allclose(operator(x)[0, 0], wanted, atol=1e-13)
    with torch.inference_mode():
        GaussianBlur((1, 6, 6), 0.7)(x)  # spectra kept here must serve autograd later
    shared = GaussianBlur((1, 6, 6), 0.7)
    with torch.inference_mode():
        shared(x)
    z = x.clone().requires_grad_()
    shared(z).sum().backward()
    torch.testing.assert_close(z.grad, shared.adjoint(torch.ones_like(x)))


@pytest.mark.parametrize("cls", [Blur, ValidBlur, ReflectiveBlur])
def test_gradients_reach_everything(cls):
    k = noise(1, 1, 3, 2, seed=1).requires_grad_()
    v = noise(2, 1, 3, 4).requires_grad_()
    y = noise(2, *cls((1, 3, 4), k).out_shape, seed=2).requires_grad_()
    gamma = torch.tensor([0.6, 1.5], dtype=torch.float64, requires_grad=True)

    def both(k, v, y, gamma):
        operator = cls((1, 3, 4), k)
        b = operator.adjoint(y) + gamma[:, None, None, None] * v
        return operator.solve(b, gamma, tol=1e-13), operator.forward(v)

    assert torch.autograd.gradcheck(both, (k, v, y, gamma), atol=1e-6)
    if cls is Blur:
        assert torch.autograd.gradcheck(
            lambda k, v, y, g: cls((1, 3, 4), k).prox(v, y, g), (k, v, y, gamma)
        )


def test_gradient_of_a_symmetric_kernel_sees_its_asymmetric_part():
    k = SYMMETRIC[1:4, 1:4].clone().requires_grad_()
    b = noise(1, 1, 3, 4)
    assert torch.autograd.gradcheck(
        lambda k: ReflectiveBlur((1, 3, 4), k).solve(b, 0.5, tol=1e-13), (k,), atol=1e-6
    )


def test_an_operator_with_a_trainable_kernel_can_be_used_twice():
    k = noise(3, 3).requires_grad_()
    operator = Blur((1, 6, 6), k)
    for _ in range(2):
        operator(noise(1, 1, 6, 6, seed=1)).square().sum().backward()
    assert float(k.grad.norm()) > 0


def test_named_blurs_are_blurs_by_their_kernels():
    x = noise(1, 3, 30, 28)
    for named, kernel in (
        (GaussianBlur((3, 30, 28), 1.6), gaussian_kernel(1.6)),
        (GaussianBlur((3, 30, 28), sigma=1.6, size=21), gaussian_kernel(1.6, 21)),
        (MotionBlur((3, 30, 28), length=7.5, angle=0.4), motion_kernel(7.5, 0.4)),
    ):
        torch.testing.assert_close(named(x), Blur((3, 30, 28), kernel)(x))
        torch.testing.assert_close(named(torch.ones_like(x)), torch.ones_like(x))
    # nobody asked for a size: the kernel is cut to the image, and still has sum one
    small = GaussianBlur((1, 9, 6), 3.0)
    assert small.kernel.shape == (1, 1, 9, 5)
    assert float(small.kernel.sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("cls", [Blur, ValidBlur, ReflectiveBlur])
@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (torch.ones(8, 3), "kernel of 8x3, larger than the image of 7x6"),
        (torch.ones(3, 7), "larger than the image"),
        (torch.full((3, 3), torch.nan), "non-finite"),
        (torch.tensor([[1.0, -torch.inf]]), "non-finite"),
        (torch.zeros(3, 3), "zero everywhere"),
        (torch.stack([torch.ones(1, 2, 2), torch.zeros(1, 2, 2)]), "zero everywhere"),
        (torch.ones(3, 3, dtype=torch.complex64), "wanted a real one"),
        (torch.ones(3), "kernel with shape"),
        (torch.ones(2, 3, 3), "kernel with shape"),
        (torch.ones(0, 3), "kernel with shape"),
        (torch.ones(1, 3, 2, 2), "3 channels, wanted 1 or 2"),
    ],
)
def test_wrong_kernels_are_named(cls, kernel, message):
    with pytest.raises(ValueError, match=message) as error:
        cls((2, 7, 6), kernel)
    assert cls.__name__ in str(error.value)


def test_wrong_images_are_named():
    with pytest.raises(ValueError, match=r"wanted \(C, H, W\)"):
        Blur((7, 6), torch.ones(3, 3))
    with pytest.raises(ValueError, match="larger than the image"):
        GaussianBlur((1, 9, 9), 2.0, size=11)
    with pytest.raises(ValueError, match="wanted torch.float32 or torch.float64"):
        GaussianBlur((1, 9, 9), 1.0)(torch.ones(1, 1, 9, 9, dtype=torch.complex64))
