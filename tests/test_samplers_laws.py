"""What every sampler promises: batches, seeds, gradients, counts, kinds and clear errors."""

import math
from dataclasses import FrozenInstanceError, is_dataclass

import pytest
import torch
from known_answers import Matrix, gaussian_problem, one_generator
from torch import Tensor

from measurand import samplers
from measurand.measurement import Measurement
from measurand.noises import ComplexGaussian
from measurand.noises import Gaussian as GaussianNoise
from measurand.operators import SENSE, Blur, Identity
from measurand.priors import Counted, CountedPosterior, Gaussian
from measurand.samplers import (
    DAPS,
    DPS,
    DiffPIR,
    DiffUnfolding,
    EulerFlow,
    EulerSDE,
    HeunFlow,
    HeunSDE,
    PiGDM,
    PnPDM,
    ReverseSDE,
)
from measurand.tensors import generators

BY_GRADIENT = [DPS(steps=20, zeta=0.05), PiGDM(steps=10)]
WITHOUT_GRADIENT = [
    DiffPIR(steps=8),
    DAPS(steps=4, flow_steps=3, sigma_max=10.0),
    DAPS(steps=4, flow_steps=3, sigma_max=10.0, tau=0.1),
    PnPDM(sweeps=6, decay=0.5),
    PnPDM.quick(),
    PnPDM(sweeps=3, reverse=HeunSDE(steps=5, sigma_max=10.0)),
]
REVERSE = [
    ReverseSDE(steps=9),
    EulerSDE(steps=9),
    HeunSDE(steps=9),
    EulerFlow(steps=9),
    HeunFlow(steps=9),
]
UNFOLDING = [DiffUnfolding(steps=9)]
MARRYING = BY_GRADIENT + WITHOUT_GRADIENT
ALL = MARRYING + REVERSE + UNFOLDING


def named(methods):
    return {"argvalues": methods, "ids": [f"{type(m).__name__}{i}" for i, m in enumerate(methods)]}


def three_items() -> tuple[Gaussian, Measurement]:
    """One prior and three different measurements, each with its own noise level."""
    prior, one = gaussian_problem()
    y = torch.cat([one.y, -one.y, 2 * one.y])
    return prior, Measurement(one.operator, GaussianNoise(torch.tensor([0.3, 0.1, 0.5])), y)


def complex_problem() -> tuple[Gaussian, Measurement]:
    """Four complex pixels, correlated with phases, seen through a complex 3x4 matrix."""
    generator = torch.Generator().manual_seed(3)
    factor = torch.randn(4, 4, generator=generator, dtype=torch.complex128)
    covariance = factor @ factor.mH / 4 + 0.2 * torch.eye(4)
    mean = torch.randn(1, 4, generator=generator, dtype=torch.complex128)
    A = torch.randn(3, 4, generator=generator, dtype=torch.complex128)
    y = torch.randn(1, 3, generator=generator, dtype=torch.complex128)
    return Gaussian(mean, covariance), Measurement(Matrix(A), ComplexGaussian(0.3), y)


class Guarded:
    """A prior that refuses to work while a gradient could be recorded, or while it could not."""

    range = None
    dtype = torch.float64

    def __init__(self, prior: Gaussian, gradient: bool) -> None:
        self.prior, self.gradient = prior, gradient

    def denoise(self, v: Tensor, sigma: float | Tensor, condition: Tensor | None = None) -> Tensor:
        if torch.is_grad_enabled() != self.gradient:
            raise AssertionError(f"called with gradients enabled: {torch.is_grad_enabled()}")
        return self.prior.denoise(v, sigma)

    def given(self, measurement: Measurement) -> "Guarded":
        return Guarded(self.prior.given(measurement), self.gradient)


def test_every_public_method_is_tested_here():
    public = {name for name in samplers.__all__ if is_dataclass(getattr(samplers, name))}
    public = {name for name in public if "Blind" not in name}  # test_samplers_blind
    assert public - {"Reverse"} == {type(method).__name__ for method in ALL}


@pytest.mark.parametrize("method", **named(ALL))
def test_a_method_is_a_frozen_value(method):
    assert repr(method) == repr(type(method)(**vars(method))) and method == type(method)(
        **vars(method)
    )
    with pytest.raises(FrozenInstanceError):
        method.steps = 3


@pytest.mark.parametrize("method", **named(ALL))
def test_items_do_not_depend_on_their_neighbours(method):
    prior, m = three_items()
    together = method(m, prior, generator=generators(7, 3))
    for i in range(3):
        alone = method(m[i], prior, generator=generators(7, 3)[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", **named(ALL))
def test_the_same_seed_gives_the_same_bits(method):
    prior, m = three_items()
    first = method(m, prior, generator=generators(0, 3))
    assert torch.equal(first, method(m, prior))  # None is seed 0
    other = method(m, prior, generator=generators(1, 3))
    assert (first - other).abs().min() > 0


@pytest.mark.parametrize("method", **named(ALL))
def test_nfe_counts_the_calls(method):
    prior, m = three_items()
    counted = CountedPosterior(prior) if method in UNFOLDING else Counted(prior)
    if method in REVERSE:
        method(None, counted, x0=torch.zeros(3, 6, dtype=torch.float64))
        assert counted.calls == method.nfe()
    else:
        method(m, counted)
        assert counted.calls == method.nfe
    assert counted.items == 3 * counted.calls


@pytest.mark.parametrize("method", **named(WITHOUT_GRADIENT + REVERSE + BY_GRADIENT))
@pytest.mark.parametrize("ambient", [True, False])
def test_gradients_are_enabled_by_guided_samplers_and_by_no_others(method, ambient):
    prior, m = three_items()
    with torch.set_grad_enabled(ambient):
        draws = method(m, Guarded(prior, gradient=method in BY_GRADIENT))
        assert torch.is_grad_enabled() == ambient
    assert not draws.requires_grad


@pytest.mark.parametrize("method", [PiGDM(), DAPS(), DiffPIR()], ids=repr)
def test_exact_data_are_met(method):
    sigma = 0.01
    prior, m = gaussian_problem(torch.eye(6, dtype=torch.float64), sigma)
    draws = method(m.repeat(200), prior, generator=one_generator())
    assert (draws - m.y).square().mean().sqrt() <= 3 * sigma


@pytest.mark.parametrize("method", **named(ALL))
def test_x0_is_a_start_and_stays_untouched(method):
    prior, m = three_items()
    x0 = torch.full((3, 6), 0.5, dtype=torch.float64)
    draws = method(m, prior, x0=x0)
    assert bool((x0 == 0.5).all())
    assert (draws - method(m, prior)).abs().max() > 0


@pytest.mark.parametrize("method", **named(ALL))
def test_callback_sees_every_step_and_changes_nothing(method):
    prior, m = three_items()
    seen = []
    draws = method(m, prior, callback=seen.append)
    assert torch.equal(draws, method(m, prior))
    assert [s.step for s in seen] == list(range(len(seen))) and len(seen) > 2
    assert all(a.level >= b.level > 0 for a, b in zip(seen, seen[1:], strict=False))
    assert all(s.x.shape == s.x0.shape == draws.shape for s in seen)
    last = seen[-1].x0 if isinstance(method, PnPDM) else seen[-1].x
    assert torch.equal(last, draws)
    # states were handed over, not views of a buffer that the loop goes on writing to
    assert all((a.x - b.x).abs().max() > 0 for a, b in zip(seen, seen[1:], strict=False))


@pytest.mark.parametrize("method", **named(MARRYING))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_follows_the_data(method, dtype):
    prior, m = gaussian_problem()
    prior = Gaussian(prior.mean.to(dtype), prior.covariance[0].to(dtype))
    operator = Matrix(m.operator.matrix.to(dtype))
    draws = method(Measurement(operator, m.noise, m.y.to(dtype)), prior)
    assert draws.dtype == dtype and bool(draws.isfinite().all())


@pytest.mark.parametrize("method", **named(MARRYING))
def test_device_follows_the_data(method, device):
    prior, m = gaussian_problem()
    draws = method(m.to(device), prior.to(device))
    assert draws.device.type == device.type


def real_twin(prior: Gaussian, m: Measurement) -> tuple[Gaussian, Measurement]:
    """A complex problem as a real one of twice the size, parts interleaved."""

    def twin(matrix: Tensor) -> Tensor:
        blocks = torch.stack(
            [
                torch.stack([matrix.real, -matrix.imag], -1),
                torch.stack([matrix.imag, matrix.real], -1),
            ],
            -2,
        )  # (m, n, 2, 2)
        return blocks.permute(0, 2, 1, 3).reshape(2 * matrix.shape[0], 2 * matrix.shape[1])

    mean = torch.view_as_real(prior.mean).flatten(1)
    y = torch.view_as_real(m.y).flatten(1)
    operator = Matrix(twin(m.operator.matrix))
    twin_noise = GaussianNoise(m.noise.sigma)
    return Gaussian(mean, twin(prior.covariance[0])), Measurement(operator, twin_noise, y)


@pytest.mark.parametrize("method", **named(ALL))
def test_a_complex_problem_is_a_real_one_of_twice_the_size(method):
    prior, m = complex_problem()
    prior2, m2 = real_twin(prior, m)
    draws = method(m.repeat(3), prior)
    twins = method(m2.repeat(3), prior2)
    torch.testing.assert_close(torch.view_as_real(draws).flatten(1), twins, rtol=1e-8, atol=1e-8)


def test_several_coils_and_one_mask_per_item():
    operator = SENSE.example()
    n, items = math.prod(operator.in_shape), operator.batch
    generator = torch.Generator().manual_seed(2)
    prior = Gaussian(torch.zeros(1, *operator.in_shape, dtype=torch.complex64), torch.eye(n))
    noise = ComplexGaussian(0.1)
    m = Measurement(operator, noise, noise(operator(prior.sample(items, generator)), generator))
    exact = prior.given(m)
    sd = exact.covariance.diagonal(dim1=1, dim2=2).real.sqrt().reshape_as(exact.mean)
    for method in (PiGDM(), PnPDM.quick(), DiffPIR()):
        draws = method(m.repeat(100), prior, generator=generator).unflatten(0, (items, 100))
        off = torch.view_as_real((draws.mean(1) - exact.mean) / sd)
        assert off.square().mean().sqrt() <= 0.25, method
        if not isinstance(method, DiffPIR):
            spread = torch.view_as_real((draws - draws.mean(1, keepdim=True)) / sd[:, None])
            assert spread.square().mean().item() == pytest.approx(1, abs=0.1), method


@pytest.mark.parametrize("method", **named(MARRYING))
def test_what_does_not_fit_is_named(method):
    prior, m = gaussian_problem()
    name = type(method).__name__
    with pytest.raises(TypeError, match=rf"{name}: .*wanted a Denoiser"):
        method(m, object())
    with pytest.raises(TypeError, match=rf"{name}: .*complex images"):
        method(m, complex_problem()[0])
    with pytest.raises(ValueError, match=rf"{name}: got x0 with shape \(2, 6\)"):
        method(m, prior, x0=torch.zeros(2, 6, dtype=torch.float64))
    with pytest.raises(ValueError, match="generators"):
        method(m, prior, generator=generators(0, 2))


def test_images_of_rank_four():
    prior, _ = gaussian_problem()
    flat = Gaussian(torch.zeros(1, 2, 3, 4), torch.eye(24))
    m = Measurement(Identity((2, 3, 4)), GaussianNoise(0.1), torch.ones(2, 2, 3, 4))
    for method in MARRYING:
        assert method(m, flat).shape == (2, 2, 3, 4)


@pytest.mark.parametrize("method", **named(ALL))
def test_inference_mode_changes_nothing(method):
    prior, m = three_items()
    wanted = method(m, prior)
    x0 = torch.zeros_like(wanted)
    with torch.inference_mode():
        assert torch.equal(method(m, prior), wanted)
        inside = Measurement(m.operator, m.noise, m.y.clone())
        assert torch.equal(method(inside, prior, x0=x0 + 0), wanted)


@pytest.mark.parametrize("method", **named(WITHOUT_GRADIENT))
def test_items_without_noise_do_not_depend_on_operators_of_their_neighbours(method):
    kernels = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    kernels[1] *= 20
    prior = Gaussian(torch.zeros(1, 1, 4, 4).double(), torch.eye(16).double())
    A = Blur((1, 4, 4), kernels)
    m = Measurement(A, GaussianNoise(0.0), A(prior.sample(2, generators(0, 2))))
    together = method(m, prior, generator=generators(7, 2))
    for i in range(2):
        alone = method(m[i], prior, generator=generators(7, 2)[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-7, atol=1e-7)


class Broken:
    """A prior, also its own posterior, that returns NaN for the last item below a level."""

    range = None
    dtype = torch.float64

    def __init__(self, below: float = math.inf) -> None:
        self.below = below

    def denoise(self, v: Tensor, sigma: float | Tensor, condition: Tensor | None = None) -> Tensor:
        keep = torch.ones(len(v), 1, dtype=v.dtype)
        keep[-1] = torch.nan if float(torch.as_tensor(sigma).max()) < self.below else 1
        return 0.9 * v * keep

    def given(self, measurement: Measurement) -> "Broken":
        return self


@pytest.mark.parametrize("method", **named(ALL))
@pytest.mark.parametrize("below", [math.inf, 0.3], ids=["always", "at the end"])
def test_a_denoiser_that_returns_nan_is_an_error_of_the_method(method, below):
    _, m = three_items()
    name = rf"^{type(method).__name__}\(.*not finite for 1 of 3 items"
    with pytest.raises(FloatingPointError, match=name):
        method(m, Broken(below))
    if method in REVERSE:
        x0 = torch.zeros(3, 6, dtype=torch.float64)
        with pytest.raises(FloatingPointError, match=name):
            method(None, Broken(below), x0=x0)
        with pytest.raises(FloatingPointError, match=name):
            method.descend(Broken(below).denoise, x0, method.levels())
