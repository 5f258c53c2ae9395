"""Total variation: the acceptance checks of the closed form, and the exact map against oracles."""

import itertools
import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor

from measurand.priors import (
    ANISOTROPIC,
    ISOTROPIC,
    ClosedFormTotalVariation,
    Proximable,
    TotalVariation,
    Variation,
    tv_norm,
    tv_prox,
    tv_prox_exact,
    variation,
)
from measurand.priors.differences import Grid

FOUR = [
    Variation(isotropic=isotropic, periodic=periodic)
    for isotropic, periodic in itertools.product((True, False), repeat=2)
]
EVERY = [
    *FOUR,
    Variation(joint=True),
    Variation(isotropic=False, joint=True, periodic=True),
    Variation(axis_weights=(1.0, 0.4)),
    Variation(axes=(-1,)),
]


def named(kind: Variation) -> str:
    words = ["isotropic" if kind.isotropic else "anisotropic"]
    words += ["periodic" if kind.periodic else "replicate"]
    words += ["joint"] * kind.joint + [f"weights{kind.axis_weights}"] * bool(kind.axis_weights)
    return "-".join(words + [f"axes{kind.axes}"] * bool(kind.axes))


def randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def phantom(noise: float = 0.1, n: int = 32) -> Tensor:
    """A square and a disk of unit contrast, with noise."""
    i = torch.arange(n, dtype=torch.float64) / n
    x = ((i - 0.35).abs() < 0.2).outer((i - 0.4).abs() < 0.25).double()
    disk = ((i[:, None] - 0.7) ** 2 + (i - 0.7) ** 2 < 0.04).double()
    return (torch.maximum(x, disk) + noise * randn(n, n))[None, None]


def rms(a: Tensor) -> float:
    return float(a.abs().square().mean().sqrt())


def objective(x: Tensor, v: Tensor, tau: float, kind: Variation) -> float:
    return float(tau * tv_norm(x, kind) + 0.5 * (x - v).abs().square().sum())


def haar_form(z: Tensor, tau: float, axes: tuple[int, ...], isotropic: bool) -> Tensor:
    """`W^T S(W z) / K`: shrinkage of the details of the undecimated periodic Haar transform."""
    k = 2 * len(axes)
    threshold = math.sqrt(2) * k * tau
    low = [(z + torch.roll(z, -1, a)) / math.sqrt(2) for a in axes]
    high = torch.stack([(torch.roll(z, -1, a) - z) / math.sqrt(2) for a in axes])
    size = high.norm(dim=0, keepdim=True) if isotropic else high.abs()
    high = high * (1 - threshold / size.clamp_min(1e-300)).clamp_min(0)
    total = torch.zeros_like(z)
    for a, s, d in zip(axes, low, high, strict=True):
        total += (s + torch.roll(s, 1, a)) + (torch.roll(d, 1, a) - d)
    return total / (math.sqrt(2) * k)


def taut_string(v: np.ndarray, tau: float) -> np.ndarray:
    """Exact 1-D TV denoising: slopes of the shortest path in a tube around the running sum."""
    n = len(v)
    total = np.concatenate([[0.0], np.cumsum(v)])
    upper, lower = total + tau, total - tau
    upper[[0, n]] = lower[[0, n]] = total[[0, n]]
    x = np.empty(n)
    start, level = 0, 0.0
    while start < n:
        high, low, at_high, at_low = math.inf, -math.inf, start, start
        knot = n
        for j in range(start + 1, n + 1):
            rise, fall = (upper[j] - level) / (j - start), (lower[j] - level) / (j - start)
            if fall > high:  # the tube has turned up: the string bends on its upper wall
                knot, end = at_high, upper[at_high]
                break
            if rise < low:
                knot, end = at_low, lower[at_low]
                break
            if rise <= high:
                high, at_high = rise, j
            if fall >= low:
                low, at_low = fall, j
        else:
            knot, end = n, total[n]
        x[start:knot] = (end - level) / (knot - start)
        start, level = knot, end
    return x


# 1
@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("shape", [(32,), (16, 32), (8, 6, 10)])
def test_closed_form_is_shrinkage_of_haar_details(shape, isotropic):
    z = randn(2, 3, *shape)
    kind = Variation(isotropic=isotropic, periodic=True)
    for tau in (0.01, 0.1, 1.0):
        other = haar_form(z, tau, tuple(range(2, z.ndim)), isotropic)
        assert (tv_prox(z, tau, kind) - other).abs().max() <= 1e-12


# 2
@pytest.mark.parametrize("delta", [-3.0, -0.5, 0.1, 0.39, 0.4, 1.0])
def test_two_pixels_are_known(delta):
    tau = 0.1
    x = torch.tensor([[[0.2, 0.2 + delta]]], dtype=torch.float64)
    wanted = delta - 2 * tau * min(max(delta / (4 * tau), -1), 1)
    exact = math.copysign(max(abs(delta) - 2 * tau, 0.0), delta)
    for kind in (ISOTROPIC, ANISOTROPIC):
        closed = float(tv_prox(x, tau, kind).diff())
        assert abs(closed - wanted) <= 1e-12
        assert abs(float(tv_prox_exact(x, tau, kind, tol=1e-14)[0].diff()) - exact) <= 1e-6
        assert (abs(closed - exact) <= 1e-12) == (abs(delta) >= 4 * tau)


# 3
@pytest.mark.parametrize("kind", EVERY, ids=named)
def test_constants_mean_and_zero_weight_are_kept(kind):
    constant = torch.full((2, 3, 9, 7), 0.3)
    v = randn(2, 3, 9, 7, dtype=torch.float32) + 1
    for prox in (tv_prox, lambda *a: tv_prox_exact(*a)[0]):
        assert torch.equal(prox(constant, 0.7, kind), constant)
        assert torch.equal(prox(v, 0.0, kind), v)
        x = prox(v, 0.3, kind)
        assert not torch.equal(x, v)
        torch.testing.assert_close(x.mean((1, 2, 3)), v.mean((1, 2, 3)), rtol=1e-6, atol=0)


# 4
@pytest.mark.parametrize("kind", EVERY, ids=named)
def test_firmly_nonexpansive(kind):
    n = 1000
    u, v = 2 * randn(n, 2, 8, 7, seed=1), randn(n, 2, 8, 7, seed=2)
    v[: n // 2] = u[: n // 2] + 0.01 * v[: n // 2]
    tau = torch.logspace(-2, 1, n, dtype=torch.float64)
    moved = (tv_prox(u, tau, kind) - tv_prox(v, tau, kind)).flatten(1)
    apart = (u - v).flatten(1)
    assert (moved.norm(dim=1) <= apart.norm(dim=1) * (1 + 1e-6)).all()
    assert ((moved * apart).sum(1) >= moved.square().sum(1) * (1 - 1e-6)).all()


# 5
@pytest.mark.parametrize("kind", EVERY, ids=named)
def test_jacobian_is_that_of_a_proximal_map(kind):
    z = randn(1, 2, 4, 4)
    jacobian = torch.autograd.functional.jacobian(lambda z: tv_prox(z, 0.15, kind), z)
    jacobian = jacobian.reshape(32, 32)
    assert (jacobian - jacobian.T).abs().max() <= 1e-8
    values = torch.linalg.eigvalsh(jacobian)
    assert values.min() >= -1e-8 and values.max() <= 1 + 1e-8
    assert values.min() < 0.9


# 6
@pytest.mark.parametrize("kind", FOUR, ids=named)
def test_variation_never_grows(kind):
    z = (
        randn(1000, 1, 9, 8)
        * torch.logspace(-1, 1, 1000, dtype=torch.float64)[:, None, None, None]
    )
    tau = torch.logspace(-2, 1, 1000, dtype=torch.float64)[torch.randperm(1000)]
    assert (tv_norm(tv_prox(z, tau, kind), kind) <= tv_norm(z, kind) * (1 + 1e-6)).all()


# 7
@pytest.mark.parametrize("isotropic", [True, False])
def test_one_shot_error_is_bounded_and_vanishes(isotropic):
    z, kind = phantom(), Variation(isotropic=isotropic, periodic=True)
    ratios = []
    for tau in (0.001, 0.01, 0.03, 0.1):
        exact, info = tv_prox_exact(z, tau, kind, tol=1e-8)
        assert info.gap <= 1e-8
        ratios.append(rms(tv_prox(z, tau, kind) - exact) / tau)
    assert max(ratios) <= (4 * math.sqrt(2) if isotropic else 4)
    assert ratios[0] < ratios[1]


def proximal_gradient(
    y: Tensor, weight: float, step: float, steps: int, kind: Variation
) -> Tensor:
    """Minimises 1/2||x - y||^2 + weight TV by accelerated steps with the closed form.

    The momentum is that of a strongly convex problem (modulus 1).
    """
    momentum = (1 - math.sqrt(step)) / (1 + math.sqrt(step))
    x = z = y
    for _ in range(steps):
        last, x = x, tv_prox(z - step * (z - y), step * weight, kind)
        z = x + momentum * (x - last)
    return x


# 8
@pytest.mark.parametrize("isotropic", [True, False])
def test_error_of_the_method_falls_with_its_step(isotropic):
    y, kind, weight = phantom(), Variation(isotropic=isotropic, periodic=True), 0.05
    exact, _ = tv_prox_exact(y, weight, kind, tol=1e-9)
    best = objective(exact, y, weight, kind)
    excess = {}
    for step, steps in ((1.0, 50), (0.1, 100), (0.01, 300)):
        x = proximal_gradient(y, weight, step, steps, kind)
        excess[step] = objective(x, y, weight, kind) - best
        assert 0 <= excess[step] <= step * weight**2 * 4**2 * y.numel() / 2
    assert excess[1.0] >= 5 * excess[0.1] >= 25 * excess[0.01]


# 9
@pytest.mark.parametrize("isotropic", [True, False])
@pytest.mark.parametrize("case", ["1-D", "2-D", "3-D, two axes"])
def test_method_reaches_the_exact_solution(case, isotropic):
    image = phantom()
    y, axes = {
        "1-D": (image[:, :, 12], None),
        "2-D": (image, None),
        "3-D, two axes": (torch.stack((image, image.flip(-1)), 2), (-2, -1)),
    }[case]
    kind = Variation(isotropic=isotropic, periodic=True, axes=axes)
    exact, _ = tv_prox_exact(y, 0.05, kind, tol=1e-9)
    x = proximal_gradient(y, 0.05, 1e-3, 400, kind)
    assert 20 * math.log10(float(exact.norm() / (x - exact).norm())) >= 50
    # the bias in TV goes with the step, and 1e-3 leaves up to 1.1e-3 (anisotropic): a smaller one
    x = proximal_gradient(y, 0.05, 5e-5, 2500, kind)
    assert abs(float(tv_norm(x, kind) / tv_norm(exact, kind)) - 1) <= 1e-4


# 10
@pytest.mark.parametrize("tau", [0.01, 0.3, 3.0])
def test_exact_map_is_the_taut_string(tau):
    v = randn(3, 1, 60, seed=4) + torch.linspace(-1, 2, 60).sign()
    for kind in (ISOTROPIC, ANISOTROPIC):
        x, info = tv_prox_exact(v, tau, kind, tol=1e-14, max_iter=100000)
        assert (info.gap <= 1e-14).all()
        string = np.stack([taut_string(row, tau) for row in v[:, 0].numpy()])
        assert np.abs(x[:, 0].numpy() - string).max() <= 1e-6


# 11
def test_sparse_view_tomography():
    from skimage.data import shepp_logan_phantom
    from skimage.transform import resize

    from measurand import Measurement
    from measurand.metrics import psnr
    from measurand.noises import Gaussian
    from measurand.operators import ParallelCT, even_angles, fbp
    from measurand.solvers import FISTA

    n, weight, rho = 128, 0.5, 10.0
    x = torch.from_numpy(resize(shepp_logan_phantom(), (n, n), anti_aliasing=True)).float()
    x = x[None, None]
    A = ParallelCT((1, n, n), even_angles(30))
    m = Measurement(A, Gaussian(1.0), A(x))  # no noise: sigma only scales the objective

    closed = FISTA(steps=300)(m, ClosedFormTotalVariation(weight=weight))
    exact, z = torch.zeros_like(x), torch.zeros_like(x)
    prior = TotalVariation(weight=weight)
    for _ in range(40):  # ADMM, with the exact map
        u = m.prox(exact - z, rho**-0.5)
        exact = prior.prox(u + z, 1 / rho)
        z = z + u - exact

    def quality(image: Tensor) -> float:
        return float(psnr(image, x, data_range=1.0))

    assert abs(quality(closed) - quality(exact)) <= 0.2
    assert min(quality(closed), quality(exact)) >= quality(fbp(A, m.y)) + 5


@pytest.mark.parametrize("kind", EVERY, ids=named)
@pytest.mark.parametrize("kind_of_number", ["real", "complex"])
def test_differences_are_adjoint_within_the_bound(kind, kind_of_number):
    x = randn(2, 3, 7, 6)
    x = torch.complex(x, randn(2, 3, 7, 6, seed=1)) if kind_of_number == "complex" else x
    grid = Grid(kind, x)
    real = grid.enter(x)
    assert torch.equal(grid.leave(real), x)
    field = grid.differences(real)
    p = field * randn(*field.shape, seed=2)  # zero where there is no difference
    torch.testing.assert_close((field * p).sum(), (real * grid.adjoint(p)).sum())
    in_place = torch.empty_like(real)
    grid.descend_(real, p, in_place)
    torch.testing.assert_close(in_place, real - grid.adjoint(p))
    for _ in range(100):
        real = grid.adjoint(grid.differences(real / real.norm()))
    assert real.norm() <= grid.bound


@pytest.mark.parametrize("kind", EVERY, ids=named)
def test_recorded_steps_are_the_steps_in_place(kind):
    v = torch.complex(randn(2, 3, 7, 6), randn(2, 3, 7, 6, seed=1))
    tau = torch.tensor([0.05, 0.4], dtype=torch.float64)
    for z in (v, v.real):
        for inner in (0, 1, 6):
            recorded = tv_prox(z.clone().requires_grad_(), tau, kind, inner=inner)
            assert recorded.requires_grad
            torch.testing.assert_close(recorded.detach(), tv_prox(z, tau, kind, inner=inner))


@pytest.mark.parametrize("kind", EVERY, ids=named)
@pytest.mark.parametrize("box", [None, (-0.5, 0.8)])
def test_nothing_near_the_exact_map_is_better(kind, box):
    v, tau = randn(1, 2, 6, 5), 0.3
    x, info = tv_prox_exact(v, tau, kind, tol=1e-12, box=box)
    best = objective(x, v, tau, kind)
    low, high = box or (-math.inf, math.inf)
    assert x.min() >= low and x.max() <= high
    for seed in range(50):
        other = (x + 10 ** (-seed % 5 - 1.0) * randn(*x.shape, seed=seed)).clamp(low, high)
        # strong convexity: a minimiser is better by half the squared distance
        wanted = best + 0.5 * float((other - x).square().sum())
        assert objective(other, v, tau, kind) >= wanted - 1e-5 * best
    assert info.dual.shape == (len(Grid(kind, v).axes), *v.shape)


def test_gap_bounds_the_distance():
    v = phantom()
    exact, _ = tv_prox_exact(v, 0.1, tol=1e-9)
    for tol in (1e-2, 1e-3, 1e-4):
        x, info = tv_prox_exact(v, 0.1, tol=tol)
        assert info.gap <= tol
        gap = float(info.gap) * objective(x, v, 0.1, ISOTROPIC)
        assert 0.5 * float((x - exact).square().sum()) <= gap * (1 + 1e-6)


def test_single_precision_stops_where_rounding_ends():
    v = phantom().float()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        x, info = tv_prox_exact(v, 0.1, tol=1e-12)
    assert info.iterations < 20000
    exact, _ = tv_prox_exact(v.double(), 0.1, tol=1e-9)
    assert rms(x - exact) < 1e-4


def test_start_from_a_similar_solution():
    v = phantom()
    cold, info = tv_prox_exact(v, 0.1, tol=1e-8)
    warm, again = tv_prox_exact(v, 0.1, tol=1e-8, start=info.dual)
    assert again.iterations == 3
    assert rms(warm - cold) < 1e-4
    moved, far = tv_prox_exact(v + 0.5, 0.12, tol=1e-8, start=torch.ones_like(info.dual))
    assert far.gap <= 1e-8
    assert rms(moved - tv_prox_exact(v + 0.5, 0.12, tol=1e-8)[0]) < 1e-4


@pytest.mark.parametrize("kind", EVERY, ids=named)
def test_items_do_not_see_each_other(kind):
    v = randn(4, 3, 8, 9)
    tau = torch.tensor([0.0, 0.01, 0.2, 3.0], dtype=torch.float64)
    together, info = tv_prox_exact(v, tau, kind)
    closed = tv_prox(v, tau, kind)
    for i in range(4):
        alone, mine = tv_prox_exact(v[i : i + 1], float(tau[i]), kind)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-12)
        assert mine.iterations == info.iterations[i]
        torch.testing.assert_close(closed[i : i + 1], tv_prox(v[i : i + 1], float(tau[i]), kind))
    assert info.iterations.unique().numel() > 1


def test_channels_are_joint_only_where_asked():
    v = randn(1, 3, 8, 8)
    for kind, joint in ((ISOTROPIC, False), (Variation(joint=True), True)):
        for prox in (tv_prox, lambda *a: tv_prox_exact(*a, tol=1e-12)[0]):
            whole = prox(v, 0.2, kind)
            apart = torch.cat([prox(v[:, c : c + 1], 0.2, kind) for c in range(3)], dim=1)
            assert ((whole - apart).abs().max() > 1e-2) == joint
    rotation = torch.linalg.qr(randn(3, 3)).Q  # vectorial TV does not know colours
    turned = torch.einsum("ij,bjhw->bihw", rotation, v)
    kind = Variation(joint=True)
    torch.testing.assert_close(tv_norm(turned, kind), tv_norm(v, kind))
    torch.testing.assert_close(
        tv_prox(turned, 0.2, kind), torch.einsum("ij,bjhw->bihw", rotation, tv_prox(v, 0.2, kind))
    )


@pytest.mark.parametrize("kind", [ISOTROPIC, ANISOTROPIC, Variation(joint=True)], ids=named)
def test_phase_is_kept(kind):
    v = torch.complex(randn(1, 2, 8, 8), randn(1, 2, 8, 8, seed=1))
    turn = torch.polar(torch.tensor(1.0).double(), torch.tensor(0.7).double())
    torch.testing.assert_close(tv_norm(turn * v, kind), tv_norm(v, kind))
    for prox in (tv_prox, lambda *a: tv_prox_exact(*a, tol=1e-12)[0]):
        torch.testing.assert_close(prox(turn * v, 0.2, kind), turn * prox(v, 0.2, kind))
        real = prox(torch.complex(v.real, torch.zeros_like(v.real)), 0.2, kind)
        torch.testing.assert_close(real.real, prox(v.real, 0.2, kind))


def test_weights_of_axes_are_voxel_sides():
    v = randn(1, 1, 8, 6)
    kind = Variation(axis_weights=(1.0, 0.5), isotropic=False)
    by_hand = v.diff(dim=2).abs().sum() + 0.5 * v.diff(dim=3).abs().sum()
    torch.testing.assert_close(tv_norm(v, kind), by_hand[None])
    only = tv_prox(v, 0.3, Variation(axis_weights=(1e-9, 1.0)))
    torch.testing.assert_close(only, tv_prox(v, 0.3, Variation(axes=(3,))), atol=1e-6, rtol=0)


def test_volumes_and_odd_shapes():
    v = randn(1, 2, 5, 7, 3)
    for kind in FOUR:
        x, info = tv_prox_exact(v, 0.2, kind, tol=1e-10)
        assert info.dual.shape == (3, *v.shape)
        assert objective(x, v, 0.2, kind) < objective(tv_prox(v, 0.2, kind), v, 0.2, kind)
        pixel = randn(1, 1, 1, 1)
        assert torch.equal(tv_prox(pixel, 0.2, kind), pixel)
        row = randn(1, 1, 1, 6)
        torch.testing.assert_close(
            tv_prox_exact(row, 0.2, kind, tol=1e-12)[0][:, :, 0],
            tv_prox_exact(row[:, :, 0], 0.2, kind, tol=1e-12)[0],
            atol=1e-5,
            rtol=0,
        )


@pytest.mark.parametrize("kind", EVERY, ids=named)
@pytest.mark.parametrize("inner", [0, 2])
def test_gradients_of_the_closed_form(kind, inner):
    tau = torch.tensor([0.1, 0.5], dtype=torch.float64, requires_grad=True)
    for v in (randn(2, 2, 4, 3), torch.complex(randn(2, 2, 4, 3), randn(2, 2, 4, 3, seed=1))):
        v.requires_grad_()

        def prox(v: Tensor, tau: Tensor) -> Tensor:
            return tv_prox(v, tau, kind, inner=inner)

        assert torch.autograd.gradcheck(prox, (v, tau), fast_mode=True)
        assert torch.autograd.gradgradcheck(prox, (v, tau), fast_mode=True)
        assert torch.autograd.gradcheck(lambda v: tv_norm(v, kind), (v,), fast_mode=True)


@pytest.mark.parametrize("kind", EVERY, ids=named)
@pytest.mark.parametrize("case", ["real", "complex", "box"])
def test_gradients_of_the_exact_map(kind, case):
    v = randn(2, 2, 4, 3)
    v = torch.complex(v, randn(2, 2, 4, 3, seed=1)) if case == "complex" else v
    box = (-0.6, 0.6) if case == "box" else None

    def prox(v: Tensor, tau: Tensor) -> Tensor:
        return tv_prox_exact(v, tau, kind, tol=1e-14, box=box)[0]

    for tau in (torch.tensor([0.1, 0.25]), torch.tensor(0.1)):
        inputs = v.requires_grad_(), tau.double().requires_grad_()
        assert torch.autograd.gradcheck(prox, inputs, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_gradients_at_the_edges():
    flat = torch.ones(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    for value in (tv_norm(flat), tv_prox(flat, 0.1), tv_prox_exact(flat, 0.1)[0]):
        (gradient,) = torch.autograd.grad(value.sum(), flat)
        assert gradient.isfinite().all()
    v = randn(1, 1, 4, 4).requires_grad_()
    u = randn(1, 1, 4, 4, seed=1)
    zero = torch.zeros((), dtype=torch.float64, requires_grad=True)
    for prox in (tv_prox, lambda *a: tv_prox_exact(*a)[0]):
        to_v, to_tau = torch.autograd.grad((u * prox(v, zero)).sum(), (v, zero))
        torch.testing.assert_close(to_v, u)
        step = (u * (tv_prox_exact(v.detach(), 1e-6)[0] - v.detach())).sum() / 1e-6
        torch.testing.assert_close(to_tau, step, rtol=1e-4, atol=1e-6)


def test_half_precision_computes_in_single():
    v = randn(1, 3, 16, 16).bfloat16()
    for prox in (tv_prox, lambda *a: tv_prox_exact(*a)[0]):
        x = prox(v, 0.1)
        assert x.dtype == torch.bfloat16
        assert torch.equal(x, prox(v.float(), 0.1).bfloat16())


def test_prior_is_proximable_with_a_value():
    v = phantom()
    for prior in (TotalVariation(2.5), ClosedFormTotalVariation(2.5, inner=300)):
        assert isinstance(prior, Proximable)
        torch.testing.assert_close(prior.value(v), 2.5 * tv_norm(v))
        exact, _ = tv_prox_exact(v, 0.1, tol=1e-7)
        assert rms(prior.prox(v, 0.04) - exact) < 2e-3
    assert rms(ClosedFormTotalVariation(2.5).prox(v, 0.04) - exact) > 2e-2
    boxed = TotalVariation(weight=2.5, isotropic=False, box=(0.0, 1.0))
    assert boxed.value(v) == math.inf
    x = boxed.prox(v, 0.04)
    assert x.min() >= 0 and x.max() <= 1
    torch.testing.assert_close(boxed.value(x), 2.5 * tv_norm(x, ANISOTROPIC))


@pytest.mark.parametrize("tau", [0.01, 1.0, 100.0])
def test_default_is_accurate_at_any_weight(tau):
    v = phantom().float()
    exact, _ = tv_prox_exact(v.double(), tau, tol=1e-6)
    assert rms(TotalVariation().prox(v, tau) - exact) < 2e-3 * rms(v)


def test_bad_input_is_named():
    v = randn(2, 1, 4, 4)
    nan = v.clone()
    nan[0, 0, 0, 0] = math.nan
    for call, words in (
        (lambda: tv_prox(v, -0.1), "tau -0.1"),
        (lambda: tv_prox(v, torch.tensor([0.1, -0.1])), "tau"),
        (lambda: tv_prox(v, torch.ones(3)), "shape"),
        (lambda: tv_prox(v, math.nan), "tau nan"),
        (lambda: tv_prox(v.int(), 0.1), "int32"),
        (lambda: tv_prox(v, 0.1, inner=-1), "inner -1"),
        (lambda: tv_prox(v[0, 0], 0.1), "axes"),
        (lambda: tv_norm(v, Variation(axes=(1, 2))), "axes"),
        (lambda: tv_norm(v, Variation(axes=(2, -2))), "axes"),
        (lambda: tv_norm(v, Variation(axis_weights=(1.0,))), "axis_weights"),
        (lambda: tv_norm(v, Variation(axis_weights=(1.0, 0.0))), "axis_weights"),
        (lambda: tv_prox_exact(v, 0.1, box=(1.0, 0.0)), "box"),
        (lambda: tv_prox_exact(v.to(torch.complex128), 0.1, box=(0.0, 1.0)), "box"),
        (lambda: tv_prox_exact(v, 0.1, start=v[None]), "start"),
        (lambda: tv_prox_exact(v, 0.1, max_iter=0), "max_iter"),
        (lambda: tv_prox_exact(nan, 0.1), "NaN"),
        (lambda: TotalVariation(weight=-1.0), "TotalVariation.*weight"),
        (lambda: ClosedFormTotalVariation(weight=math.inf), "ClosedForm.*weight"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    with pytest.warns(UserWarning, match="after 2 steps"):
        tv_prox_exact(v, 1.0, max_iter=2)


def test_follows_the_device(device):
    v = randn(2, 3, 16, 16, dtype=torch.float32)
    for kind in EVERY:
        x = tv_prox(v.to(device), 0.1, kind)
        assert x.device.type == device.type
        torch.testing.assert_close(x.cpu(), tv_prox(v, 0.1, kind))
        exact, _ = tv_prox_exact(v.to(device), 0.1, kind)
        torch.testing.assert_close(exact.cpu(), tv_prox_exact(v, 0.1, kind)[0], atol=1e-3, rtol=0)


def test_page_shows_the_results_on_file():
    import importlib.util
    import json
    from pathlib import Path

    root = Path(__file__).resolve().parents[1]
    script = root / "docs" / "scripts" / "total_variation.py"
    spec = importlib.util.spec_from_file_location("total_variation_page", script)
    assert spec is not None and spec.loader is not None
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    text = page.PAGE.read_text()
    for name, tables in (
        ("tv_error_vs_step", (page.step_table, page.shot_table)),
        ("tv_sparse_view", (page.view_table,)),
        ("tv", (page.speed_table,)),
    ):
        found = json.loads((root / "benchmarks" / "results" / f"{name}.json").read_text())
        for table in tables:
            assert table(found) in text


@pytest.mark.parametrize("inner", [0, 3])
@pytest.mark.parametrize(
    "kind",
    [
        ISOTROPIC,
        ANISOTROPIC,
        Variation(joint=True, axis_weights=(0.5, 2.0)),
        Variation(axes=(-1,)),
    ],
)
def test_strips_of_a_large_image_are_the_whole(monkeypatch, kind, inner):
    x = torch.randn(2, 3, 37, 11, generator=torch.Generator().manual_seed(0))
    tau = torch.tensor([0.2, 0.05])
    whole = tv_prox(x, tau, kind, inner=inner)
    for strip in (1, 300, 700):  # one row, a few, many
        monkeypatch.setattr(variation, "_STRIP", strip)
        assert torch.equal(tv_prox(x, tau, kind, inner=inner), whole)
    volume = torch.complex(x, x.flip(0))[:, None]
    monkeypatch.setattr(variation, "_STRIP", 500)
    strips = tv_prox(volume, 0.1, inner=inner)
    monkeypatch.setattr(variation, "_STRIP", 10**9)
    assert torch.equal(strips, tv_prox(volume, 0.1, inner=inner))
