"""A measurement: likelihood, prox, exact conditional draws, EM, the normalised problem."""

import math

import pytest
import torch

from measurand.linalg import cg
from measurand.measurement import Measurement, moved
from measurand.noises import ComplexGaussian, Gaussian, Poisson
from measurand.operators import (
    SENSE,
    AutogradOperator,
    Blur,
    FunctionOperator,
    GaussianBlur,
    Mask,
    ParallelCT,
    birdcage_maps,
    even_angles,
    random_lines,
)
from measurand.operators.base import Identity, LinearOperator, Scaled
from measurand.tensors import generators, per_item, randn_like


class Dense(LinearOperator):
    """A matrix, one per item where it has three axes."""

    items = ("matrix",)

    def __init__(self, matrix):
        matrix = matrix if matrix.ndim == 3 else matrix[None]
        dtype = torch.complex64 if matrix.is_complex() else torch.float32
        super().__init__(matrix.shape[2:], matrix.shape[1:2], dtype, dtype)
        self.register_buffer("matrix", matrix)

    def forward(self, x):
        return (self.matrix @ x[..., None])[..., 0]

    def adjoint(self, y):
        return (self.matrix.mH @ y[..., None])[..., 0]

    @classmethod
    def example(cls):
        return cls(torch.ones(2, 3))


def matrix(rows, columns, seed=0, dtype=torch.float64):
    return torch.randn(rows, columns, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def problem(sigma=0.3, batch=2, dtype=torch.float64):
    a = Dense(matrix(4, 6, dtype=dtype)).double()
    x = matrix(batch, 6, 1, dtype)
    noise = (ComplexGaussian if dtype.is_complex else Gaussian)(sigma).double()
    return Measurement(a, noise, noise(a(x))), x


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradient_and_prox_solve_their_equations(dtype):
    m, x = problem(dtype=dtype)
    x.requires_grad_()
    (grad,) = torch.autograd.grad(m.nll(x).sum(), x)
    torch.testing.assert_close(grad, m.gradient(x.detach()))
    r = torch.tensor([0.5, 2.0], dtype=torch.float64)
    p = m.prox(x.detach(), r)
    stationary = m.gradient(p) + (p - x.detach()) / per_item(r, p) ** 2
    assert float(stationary.abs().max()) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_conditional_sample_has_the_exact_covariance(dtype):
    m, x = problem(batch=1, dtype=dtype)
    n, r = 40_000, 0.7
    draws = m.repeat(n).conditional_sample(x.expand(n, -1), r, torch.Generator().manual_seed(3))
    a = m.operator.matrix[0]
    precision = a.mH @ a / m.sigma**2 + torch.eye(6) / r**2
    want = torch.linalg.inv(precision)
    d = draws - m.prox(x, r)
    # per real component: E d d^H of complex noise counts both components
    found = d.T @ d.conj() / n / (2 if dtype.is_complex else 1)
    assert (
        float((found - want).abs().square().sum().sqrt() / want.abs().square().sum().sqrt()) < 0.03
    )
    assert float(d.mean(0).abs().max()) < 0.03


def test_draws_do_not_depend_on_the_batch():
    m, x = problem(batch=3)
    g = generators(5, 3)
    whole = m.conditional_sample(x, 0.5, g)
    alone = m[1].conditional_sample(x[1:2], 0.5, generators(5, 3)[1:2])
    torch.testing.assert_close(whole[1:2], alone, rtol=1e-5, atol=1e-6)


def test_noise_free_data_are_met():
    m, x = problem(sigma=0.0)
    p = m.prox(torch.zeros_like(x), 3.0)
    assert float(m.residual(p).norm() / m.y.norm()) < 1e-4


def test_normalized_is_the_same_problem():
    m, x = problem()
    unit = m.normalized()
    assert unit.operator.norm == pytest.approx(1.0)
    torch.testing.assert_close(unit.nll(x), m.nll(x))
    torch.testing.assert_close(unit.prox(x, 0.4), m.prox(x, 0.4), rtol=1e-5, atol=1e-6)


def test_one_operator_per_item():
    a = Dense(torch.stack([matrix(4, 6, 0), matrix(4, 6, 9)])).double()
    x = matrix(2, 6, 1)
    m = Measurement(a, Gaussian(torch.tensor([0.1, 0.5])).double(), a(x))
    p = m.prox(torch.zeros_like(x), 1.0)
    torch.testing.assert_close(
        p[1:], m[1].prox(torch.zeros_like(x[1:]), 1.0), rtol=1e-4, atol=1e-5
    )
    assert len(m.repeat(3)) == 6 and m.repeat(3).operator.batch == 6
    torch.testing.assert_close(m.repeat(3)[3:4].y, m[1].y)


def counts(background=0.3):
    a = Dense(matrix(9, 5).abs()).double()
    x = matrix(2, 5, 1).abs() + 0.1
    noise = Poisson(gain=0.05, background=background).double()
    return Measurement(a, noise, noise(a(x))), x


def test_em_increases_the_likelihood_to_its_maximum():
    m, x = counts()
    z, last = torch.ones_like(x), m.nll(torch.ones_like(x))
    for _ in range(3000):
        z = m.em_step(z)
        now = m.nll(z)
        assert bool((now <= last + 1e-9).all())
        last = now
    slack = m.gradient(z)  # Karush-Kuhn-Tucker: zero where z > 0, not negative where z = 0
    assert float((slack * z).abs().max()) < 1e-2 and float(slack.min()) > -1e-2


def test_anchored_em_minimises_its_objective():
    m, x = counts()
    anchor, beta = x + 0.2, 40.0
    z = torch.ones_like(x)
    for _ in range(2000):
        z = m.em_step(z, anchor, beta)
    assert float((m.gradient(z) + beta * (z - anchor)).abs().max()) < 1e-6


def test_the_anchor_has_a_weight_in_each_voxel():
    m, x = counts()
    anchor = x + 0.2
    beta = torch.tensor([[0.0, 3.0, 40.0, 0.0, 400.0], [10.0, 0.0, 1.0, 5.0, 0.0]]).double()
    z = torch.ones_like(x)
    for _ in range(3000):
        z = m.em_step(z, anchor, beta)
    slack = m.gradient(z) + beta * (z - anchor)  # zero where z > 0, not negative where z = 0
    assert float((slack * z)[beta > 0].abs().max()) < 1e-6 and float(slack.min()) > -1e-2
    z = torch.ones_like(x)
    plain, zero = m.em_step(z), torch.zeros_like(beta)
    torch.testing.assert_close(m.em_step(z, anchor, zero), plain, rtol=1e-14, atol=0)
    whole = m.em_step(z, anchor, torch.tensor([40.0, 7.0]))
    for i, one in enumerate((40.0, 7.0)):
        at = slice(i, i + 1)
        alone = m.em_step(z, anchor, one)[at]
        torch.testing.assert_close(whole[at], alone, rtol=1e-14, atol=0)
        per_voxel = m.em_step(z, anchor, torch.full((1, 5), one))[at]
        torch.testing.assert_close(per_voxel, alone, rtol=1e-14, atol=0)
    with pytest.raises(ValueError, match="negative beta"):
        m.em_step(z, anchor, -beta)
    with pytest.raises(ValueError, match=r"shape \(5,\) for a batch of 2"):
        m.em_step(z, anchor, torch.ones(5))


def test_voxels_that_nothing_sees_stay_or_go_to_the_anchor():
    a = Dense(torch.tensor([[1.0, 0.0, 0.0], [2.0, 0.0, 0.0]]).double())
    m = Measurement(a, Poisson(), torch.tensor([[3.0, 5.0]]).double())
    assert m.sensitivity.tolist() == [[3.0, 0.0, 0.0]]
    x, anchor = torch.full((1, 3), 0.7).double(), torch.full((1, 3), 2.0).double()
    z = m.em_step(x, anchor, torch.tensor([[1.0, 0.0, 4.0]]))
    assert z[0, 1:].tolist() == pytest.approx([0.7, 2.0])


def test_what_a_noise_cannot_do_is_said():
    gaussian, x = problem()
    poisson, _ = counts()
    with pytest.raises(TypeError, match="prox, gradient"):
        gaussian.em_step(x)
    with pytest.raises(TypeError, match="em_step"):
        poisson.prox(torch.ones(2, 5, dtype=torch.float64), 1.0)


@pytest.mark.parametrize(
    ("y", "match"),
    [
        (torch.zeros(1, 3), "wanted"),
        (torch.full((1, 4), float("nan")), "not finite"),
        (torch.zeros(1, 4, dtype=torch.complex64), "real"),
    ],
)
def test_bad_data_are_named(y, match):
    with pytest.raises(ValueError, match=match):
        Measurement(Identity((4,)), Gaussian(0.1), y)


def test_scaled_keeps_prox_and_sample_exact():
    a = Dense(matrix(4, 6)).double()
    scaled = Scaled(a, -2.5).double()
    v, y = matrix(1, 6, 3), matrix(1, 4, 4)
    direct = Dense(-2.5 * matrix(4, 6)).double()
    torch.testing.assert_close(
        scaled.prox(v, y, 0.3), direct.prox(v, y, 0.3), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(scaled.solve(v, 0.3), direct.solve(v, 0.3), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        scaled.prox(v, y, 0.3, prepared=scaled.prepare(y)),
        direct.prox(v, y, 0.3),
        rtol=1e-5,
        atol=1e-6,
    )


def on_graph():
    """A blur whose kernel is on a graph, a measurement through it, and the kernel."""
    kernel = matrix(3, 3, 7, torch.float32).abs().requires_grad_()
    A = Blur((1, 8, 8), kernel)
    y = matrix(8, 8, 8, torch.float32)[None, None]
    return Measurement(A, Gaussian(0.1), y), kernel


def uses():
    return {
        "adjoint_y": lambda m: m.adjoint_y,
        "prox": lambda m: m.prox(torch.zeros_like(m.y), 1.0),
        "sample": lambda m: m.conditional_sample(torch.zeros_like(m.y), 1.0),
    }


@pytest.mark.parametrize("use", uses().values(), ids=uses())
def test_what_is_on_a_graph_is_never_kept(use):
    m, kernel = on_graph()
    fresh, same = on_graph()
    (wanted,) = torch.autograd.grad(use(fresh).square().sum(), same)
    with torch.no_grad():
        assert not use(m).requires_grad
    for _ in range(2):  # every call has a graph of its own
        (found,) = torch.autograd.grad(use(m).square().sum(), kernel)
        torch.testing.assert_close(found, wanted)
    before = use(m).detach()
    with torch.no_grad():
        kernel.mul_(2.0)  # as an optimiser does it
    other = Measurement(Blur((1, 8, 8), kernel.detach().clone()), m.noise, m.y)
    torch.testing.assert_close(use(m).detach(), use(other))
    assert float((use(m).detach() - before).abs().max()) > 1e-3


def test_data_on_a_graph_and_a_weight_that_only_a_function_knows():
    weight = torch.tensor(1.5, requires_grad=True)
    A = AutogradOperator((4,), lambda x: weight.to(x.dtype) * x)
    m = Measurement(A, Gaussian(0.1), torch.ones(1, 4))
    with torch.no_grad():
        assert not m.adjoint_y.requires_grad
    (grad,) = torch.autograd.grad(m.adjoint_y.sum(), weight)
    assert float(grad) == 4.0
    y = torch.ones(1, 4, requires_grad=True)
    m = Measurement(Identity((4,)), Gaussian(0.1), y)
    for _ in range(2):
        (grad,) = torch.autograd.grad(m.prox(torch.zeros(1, 4), 0.1).sum(), y)
        torch.testing.assert_close(grad, torch.full((1, 4), 0.5))


def test_what_is_on_no_graph_is_computed_once():
    calls = []

    def adjoint(y):
        calls.append(1)
        return y

    A = FunctionOperator((4,), (4,), lambda x: x, adjoint)
    m = Measurement(A, Gaussian(0.1), torch.ones(1, 4))
    calls.clear()
    assert m.adjoint_y is m.adjoint_y and len(calls) == 1


def test_inference_mode_leaves_nothing_that_a_gradient_could_not_use():
    with torch.inference_mode():
        m = Measurement(Identity((4,)), Gaussian(0.1), torch.ones(1, 4))
        assert not m.adjoint_y.is_inference()
    v = torch.zeros(1, 4, requires_grad=True)
    (grad,) = torch.autograd.grad((m.adjoint_y * v).sum(), v)
    assert torch.equal(grad, torch.ones(1, 4))


def test_items_are_numbered_and_end():
    m, _ = problem(batch=3)
    assert len(list(m)) == 3
    assert torch.equal(torch.cat([one.y for one in m]), m.y)
    assert torch.equal(m[-1].y, m.y[2:]) and torch.equal(m[torch.tensor(1)].y, m.y[1:2])
    assert torch.equal(m[1:].y, m.y[1:])
    for wrong in (3, -4, 7):
        with pytest.raises(IndexError, match=rf"item {wrong} of a batch of 3, wanted -3 to 2"):
            m[wrong]


@pytest.mark.parametrize("batch", [1, 2])
def test_background_of_counts_follows_the_items(batch):
    """With as many rows as items, an axis of the image must not be taken for that of the batch."""
    A = Identity((2, 3))
    y = torch.arange(12.0).reshape(2, 2, 3) + 1
    background = torch.rand(batch, 2, 3, generator=torch.Generator().manual_seed(0))
    m = Measurement(A, Poisson(0.5, background), y)
    x = torch.ones(2, 2, 3)
    whole = m.nll(x)
    for i in range(2):
        torch.testing.assert_close(m[i].nll(x[i : i + 1]), whole[i : i + 1])
    many = m.repeat(3)
    torch.testing.assert_close(many.nll(x.repeat_interleave(3, 0)), whole.repeat_interleave(3))
    for wrong in (background[0], torch.ones(3), torch.ones(3, 2, 3), torch.ones(1, 2, 2)):
        with pytest.raises(ValueError, match=r"background with shape .* \(1 or 2, 2, 3\)"):
            Measurement(A, Poisson(0.5, wrong), y)
        with pytest.raises(ValueError, match="background"):
            Poisson(0.5, wrong)(y)


def test_noise_and_data_are_held_against_each_other():
    y = torch.zeros(2, 4)
    with pytest.raises(ValueError, match="3 standard deviations for 2 items"):
        Measurement(Identity((4,)), Gaussian(torch.tensor([0.1, 0.2, 0.3])), y)
    with pytest.raises(TypeError, match="y of type ndarray, wanted a torch.Tensor"):
        Measurement(Identity((4,)), Gaussian(0.1), y.numpy())
    free = Measurement(Identity((4,)), Gaussian(torch.tensor([0.1, 0.0])), y)
    for ask in (free.nll, free.gradient):
        with pytest.raises(ValueError, match="got sigma = 0, wanted a positive one"):
            ask(y)
    assert bool(free[0].nll(y[:1]).isfinite())


def test_moving_copies_no_tensor_that_stands_there_already():
    m, kernel = on_graph()  # not a leaf inside the operator: deepcopy would refuse it
    there = m.to("cpu")
    assert there.operator is not m.operator
    assert there.operator.kernel is m.operator.kernel
    (grad,) = torch.autograd.grad(there.prox(torch.zeros_like(m.y), 1.0).sum(), kernel)
    assert float(grad.abs().max()) > 0
    ct = ParallelCT((1, 8, 8), even_angles(5))
    m = Measurement(2.0 * ct, Gaussian(0.1), torch.zeros(1, *ct.out_shape))
    there = m.to("cpu")
    for a, b in zip(m.operator.buffers(), there.operator.buffers(), strict=True):
        assert a is b
    away = moved(m.operator, "meta")
    assert all(t.device.type == "meta" for t in away.buffers())
    assert all(t.device.type == "cpu" for t in m.operator.buffers())


def test_noise_free_items_do_not_see_the_norm_of_their_neighbours():
    a = Dense(torch.stack([matrix(4, 6, 0), 50 * matrix(4, 6, 9)])).double()
    m = Measurement(a, Gaussian(0.0), a(matrix(2, 6, 1)))
    v = torch.zeros(2, 6, dtype=torch.float64)
    torch.testing.assert_close(m.prox(v, 1.0)[:1], m[0].prox(v[:1], 1.0), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["SENSE", "CT"])
@pytest.mark.parametrize("gamma", [1e-2, 1e-4])
def test_iterative_proximal_maps_keep_their_promise(name, gamma):
    """In single precision, against double: the error is a small part of the correction."""
    if name == "SENSE":
        A = SENSE((1, 24, 24), birdcage_maps((24, 24), 4), random_lines((24, 24), 4.0, 0.1))
    else:
        A = ParallelCT((1, 24, 24), even_angles(12))
    norm = A.norm
    blank = A.blank_input()
    x = torch.rand(blank.shape, generator=torch.Generator().manual_seed(0)).to(blank.dtype)
    v = x + 0.1 * randn_like(x, generators(1, 1))
    y = A(x)
    found = A.prox(v, y, gamma * norm**2)
    A = A.double()
    exact = v + cg(
        lambda d: A.gram(d) + gamma * norm**2 * d,
        A.adjoint(y.to(A.H.blank_input().dtype) - A(v.to(A.blank_input().dtype))),
        tol=1e-14,
        max_iter=5000,
    )
    promised = 1e-4 + 5e-8 / gamma  # what iterations leave, and rounding
    assert float((found - exact).norm() / (exact - v).norm()) < promised


def test_the_wrong_thing_is_refused_by_the_name_of_the_right_door():
    y, noise = torch.zeros(1, 1, 4, 4), Gaussian(0.1)
    for thing in (lambda x: x, torch.eye(16), torch.nn.Conv2d(1, 1, 3), GaussianBlur):
        with pytest.raises(TypeError, match="wanted a LinearOperator: measurand.as_operator"):
            Measurement(thing, noise, y)
    with pytest.raises(TypeError, match="type float, wanted .*measurand.noises.Gaussian"):
        Measurement(GaussianBlur((1, 4, 4), 1.0), 0.1, y)


def test_an_infinite_radius_keeps_v_only_where_nothing_is_seen():
    """Unseen pixels of a mask are 0 / 0 in its closed form."""
    mask = torch.ones(1, 4, 4)
    mask[:, ::2] = 0
    y, v = mask * torch.full((1, 1, 4, 4), 0.7), torch.full((1, 1, 4, 4), 0.3)
    found = Measurement(Mask((1, 4, 4), mask), Gaussian(0.1), y).prox(v, math.inf)
    torch.testing.assert_close(found, torch.where(mask[None] > 0, y, v))
