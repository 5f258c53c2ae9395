"""HQS and ADMM against the exact posterior of a Gaussian prior, and their levels and starts."""

import math

import pytest
import torch

from measurand import solvers
from measurand.measurement import Measurement
from measurand.noises import ComplexGaussian, Poisson
from measurand.noises import Gaussian as GaussianNoise
from measurand.operators import (
    SENSE,
    BlockAverage,
    Blur,
    CartesianMRI,
    GaussianBlur,
    Mask,
    birdcage_maps,
    equispaced_lines,
    variable_density_mask,
)
from measurand.operators.base import Identity, Scaled
from measurand.priors import CallableDenoiser, Counted, FourierGaussian, Gaussian, Rescaled
from measurand.solvers import ADMM, HQS, Annealed, Constant, first_guess, noise_in_image
from measurand.tensors import generators, randn_like

F64 = torch.float64
SHAPE = (1, 8, 8)


def spectrum(*shape):
    f = torch.meshgrid(*[torch.fft.fftfreq(n, dtype=F64) for n in shape], indexing="ij")
    return 0.05 / (0.05 + sum(axis**2 for axis in f)) ** 1.5


def problem(sigma=0.1, n=2):
    """Blurred and noisy draws of a stationary prior, whose posterior mean is a Wiener filter."""
    prior = FourierGaussian(torch.zeros(1, *SHAPE, dtype=F64), spectrum(8, 8))
    A = GaussianBlur(SHAPE, 0.7).double()
    x = prior.sample(n, generators(0, n))
    y = A(x) + sigma * randn_like(x, generators(1, n))
    return Measurement(A, GaussianNoise(sigma), y), prior


def distance(x, reference):
    return float((x - reference).norm() / reference.norm())


def scaled(prior, weight):
    return FourierGaussian(prior.mean, prior.variances[0] / weight)


@pytest.mark.parametrize(("level", "steps"), [(0.05, 1500), (0.1, 600), (0.3, 300)])
@pytest.mark.parametrize("weight", [1.0, 0.43])
def test_admm_reaches_the_exact_posterior_mean_at_any_fixed_level(level, steps, weight):
    m, prior = problem()
    found = ADMM(steps=steps, weight=weight, levels=Constant(level))(m, prior)
    exact = scaled(prior, weight).given(m).mean
    assert distance(found, exact) < 1e-6


def test_admm_with_a_dense_prior_per_item_noise_and_missing_pixels():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(12, 12, generator=g, dtype=F64)
    prior = Gaussian(torch.full((1, 1, 3, 4), 0.5, dtype=F64), a @ a.T / 12 + 0.2 * torch.eye(12))
    mask = torch.rand(2, 1, 3, 4, generator=g) < 0.5
    A = Mask((1, 3, 4), mask.double())
    y = torch.randn(2, 1, 3, 4, generator=g, dtype=F64) * mask
    m = Measurement(A, GaussianNoise(torch.tensor([0.1, 0.3])), y)
    found = ADMM(steps=800, weight=1.0, levels=Constant(0.3))(m, prior)
    assert distance(found, prior.given(m).mean) < 1e-6


def test_admm_keeps_its_dual_when_the_level_changes():
    """Annealing does not disturb convergence: carried over unscaled, z would lag behind (1e-4)."""
    m, prior = problem()
    levels = Annealed(high=0.3 / 2, low=1.0, floor=0.0)
    found = ADMM(steps=200, weight=1.0, levels=levels)(m, prior)
    assert distance(found, prior.given(m).mean) < 1e-9


def test_hqs_at_a_fixed_level_is_biased_and_annealing_removes_the_bias():
    m, prior = problem(sigma=0.02)
    exact = prior.given(m).mean
    fixed = distance(HQS(steps=400, weight=1.0, levels=Constant(0.3))(m, prior), exact)
    again = distance(HQS(steps=800, weight=1.0, levels=Constant(0.3))(m, prior), exact)
    assert fixed > 0.01 and abs(fixed - again) < 1e-6  # converged, elsewhere
    levels = Annealed(high=0.51 / 2, low=0.0125 / 0.02, floor=0.0)
    error = {
        k: distance(HQS(steps=k, weight=1.0, levels=levels)(m, prior), exact)
        for k in (8, 101, 1000)
    }
    assert error[1000] < error[101] / 5 < error[8]
    assert error[1000] < fixed / 5


def test_hqs_at_a_fixed_level_solves_its_own_equation():
    """The fixed point of x = D(prox(x)), in the Fourier basis where both are numbers."""
    sigma, level, weight = 0.1, 0.3, 0.5
    m, prior = problem(sigma)
    found = HQS(steps=600, weight=weight, levels=Constant(level))(m, prior)
    c = spectrum(8, 8)
    gain = c / (c + level**2)
    k = torch.fft.fft2(m.operator(torch.eye(64, dtype=F64)[:1].reshape(1, 1, 8, 8))[0, 0])
    s2 = float(m.sigma) ** 2
    rho = s2 * weight / level**2
    y = torch.fft.fft2(m.y)
    expected = torch.fft.ifft2(gain * k.conj() * y / (k.abs() ** 2 + rho - gain * rho)).real
    assert distance(found, expected) < 1e-10


@pytest.mark.parametrize("method", [HQS, ADMM])
def test_without_a_prior_weight_denoising_is_the_denoiser(method):
    y = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    m = Measurement(Identity((1, 4, 4)), GaussianNoise(0.1), y)
    _, prior = problem()
    prior = FourierGaussian(torch.zeros(1, 1, 4, 4, dtype=F64), spectrum(4, 4))
    found = method(steps=1, weight=0.0, levels=Constant(0.1))(m, prior)
    assert torch.equal(found, prior.denoise(y, 0.1))


@pytest.mark.parametrize("method", [HQS(), ADMM(), HQS(levels=Constant()), ADMM(steps=7)])
def test_calls_callback_and_batch_independence(method):
    m, prior = problem(n=3)
    counted, seen = Counted(prior), []
    found = method(m, counted, callback=seen.append)
    assert counted.nfe == method.settled(m).steps == len(seen)
    assert torch.equal(seen[-1].x0, found) and [s.step for s in seen] == list(range(len(seen)))
    assert all(a.level >= b.level for a, b in zip(seen, seen[1:], strict=False))
    for i in range(3):
        alone = method(m[i], prior, generator=generators(0, 3)[i])
        assert torch.allclose(alone, found[i : i + 1], atol=1e-12)
    assert torch.equal(method(m, prior), found)
    assert not torch.equal(method(m, prior, x0=torch.zeros_like(found) + 3), found)


def test_levels_are_those_of_dpir():
    """From 49/255 to the noise in [0, 1], with quadratic weights 0.23 * 0.02^2 / sigma_k^2."""
    A = Blur((1, 16, 16), torch.full((3, 3), 1 / 9))
    for range_, sigma in (((-1.0, 1.0), 0.04), ((0.0, 1.0), 0.02), ((0.0, 255.0), 5.1)):
        width = range_[1] - range_[0]
        m = Measurement(A, GaussianNoise(sigma), torch.zeros(1, 1, 16, 16))
        prior = CallableDenoiser(lambda v, s: v, range=range_)
        levels = Annealed(high=49 / 255)(m, prior, 8, 0.23)
        grid = torch.logspace(math.log10(49 / 255), math.log10(0.02), 8, dtype=F64)
        assert torch.allclose(torch.tensor([k.sigma for k in levels], dtype=F64) / width, grid)
        gamma = torch.tensor([(sigma / k.r) ** 2 for k in levels], dtype=F64)
        assert torch.allclose(gamma, 0.23 * 0.02**2 / grid**2)


def test_no_level_is_below_the_floor_and_data_keep_their_noise():
    A = Blur((1, 16, 16), torch.full((3, 3), 1 / 9))
    prior = CallableDenoiser(lambda v, s: v)
    for sigma in (0.0, 1e-4, 0.01):
        m = Measurement(A, GaussianNoise(sigma), torch.zeros(1, 1, 16, 16))
        levels = Annealed()(m, prior, 8, 0.23)
        assert levels[0].sigma == pytest.approx(2 * 0.3)
        assert levels[-1].sigma == pytest.approx(0.02)
        assert levels[-1].r == pytest.approx(0.02 / 0.23**0.5)


def test_loud_data_begin_at_twice_their_noise():
    A = Blur((1, 16, 16), torch.full((3, 3), 1 / 9))
    m = Measurement(A, GaussianNoise(0.5), torch.zeros(1, 1, 16, 16))
    levels = Annealed()(m, CallableDenoiser(lambda v, s: v), 8, 0.23)
    assert [levels[0].sigma, levels[-1].sigma] == pytest.approx([1.0, 0.5])


def test_noise_in_the_image():
    y = torch.zeros(1, 1, 4, 4)
    average = BlockAverage((1, 16, 16), 4)
    assert noise_in_image(Measurement(average, GaussianNoise(0.1), y)) == pytest.approx(0.1)
    for scale in (0.5, 30.0):
        m = Measurement(Scaled(Identity((1, 4, 4)), scale), GaussianNoise(0.1), y)
        assert noise_in_image(m) == pytest.approx(0.1 / scale)


def test_defaults_do_not_depend_on_units():
    """The same problem in [-1, 1], in [0, 255] and with another unit of the data."""
    m, prior = problem()
    reference = HQS()(m, Rescaled(unit(prior), (-1.0, 1.0)))
    y = (m.y + 1) * 127.5
    bytes_ = Measurement(m.operator, GaussianNoise(m.sigma * 127.5), y)
    found = HQS()(bytes_, Rescaled(unit(prior), (0.0, 255.0)))
    assert distance(found / 127.5 - 1, reference) < 1e-6
    other = Measurement(Scaled(m.operator, 50.0), GaussianNoise(m.sigma * 50), m.y * 50)
    assert distance(HQS()(other, unit(prior)), reference) < 1e-6


def unit(prior):
    return CallableDenoiser(prior.denoise, range=(-1.0, 1.0))


def test_first_guess_of_a_blur_is_the_blurred_image_and_of_an_average_its_enlargement():
    x = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=F64)
    A = GaussianBlur((1, 16, 16), 1.0).double()
    m = Measurement(A, GaussianNoise(0.1), A(x))
    assert torch.allclose(first_guess(m), A.H(m.y), atol=1e-12)
    average = BlockAverage((1, 16, 16), 4)
    m = Measurement(average, GaussianNoise(0.1), average(x))
    enlarged = m.y.repeat_interleave(4, 2).repeat_interleave(4, 3)
    assert torch.allclose(first_guess(m), enlarged, atol=1e-12)


def test_first_guess_does_not_depend_on_the_unit_of_the_operator():
    x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0), dtype=F64)
    mask = torch.rand(16, 16, generator=torch.Generator().manual_seed(1)) < 0.3
    A = Mask((1, 16, 16), mask.double())
    one = first_guess(Measurement(A, GaussianNoise(0.1), A(x)))
    B = Scaled(A, 40.0)
    assert torch.allclose(first_guess(Measurement(B, GaussianNoise(4.0), B(x))), one, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_first_guess_fills_holes_smoothly(dtype):
    row = torch.linspace(-1, 1, 32, dtype=F64)
    ramp = (row[:, None] + 0.5 * row).expand(1, 1, 32, 32).to(dtype)
    ramp = ramp * (1 - 0.5j) if dtype.is_complex else ramp
    for mask in (
        torch.rand(32, 32, generator=torch.Generator().manual_seed(1)) < 0.3,
        torch.ones(32, 32).index_fill(1, torch.arange(12, 20), 0.0),
    ):
        A = Mask(
            (1, 32, 32), mask.double(), torch.complex64 if dtype.is_complex else torch.float32
        )
        noise = ComplexGaussian(0.1) if dtype.is_complex else GaussianNoise(0.1)
        guess = first_guess(Measurement(A, noise, A(ramp)))
        assert distance(guess, ramp) < 0.2
        assert distance(guess, ramp) < 0.4 * distance(A.H(A(ramp)), ramp)
        seen = mask.bool().expand_as(guess)
        assert (guess - ramp)[seen].abs().max() < 0.02


def test_constant_images_are_started_exactly():
    flat = torch.full((1, 1, 20, 13), 0.7, dtype=F64)
    mask = torch.rand(20, 13, generator=torch.Generator().manual_seed(1)) < 0.2
    A = Mask((1, 20, 13), mask.double())
    assert torch.allclose(first_guess(Measurement(A, GaussianNoise(0.1), A(flat))), flat)


@pytest.mark.parametrize("method", [HQS(), ADMM()])
def test_wrong_input_is_refused_with_a_name(method):
    m, prior = problem()
    name = type(method).__name__
    with pytest.raises(TypeError, match=f"{name}: got a int; wanted a Denoiser"):
        method(m, 3)
    flat = CallableDenoiser(lambda v, s: v, dtype=torch.complex64)
    with pytest.raises(TypeError, match="complex images for a measurement of real ones"):
        method(m, flat)
    with pytest.raises(FloatingPointError, match="not finite for 1 of 2 items"):
        method(
            m, CallableDenoiser(lambda v, s: v * torch.tensor([1, math.nan]).reshape(2, 1, 1, 1))
        )
    counts = Measurement(m.operator, Poisson(), m.y.abs())
    with pytest.raises(TypeError, match="wanted Gaussian noise"):
        method(counts, prior)


def test_all_are_named_in_the_package():
    assert {"ADMM", "HQS", "Annealed", "Constant"} <= set(solvers.__all__)
    assert "weight=0.25" in repr(HQS()) and "high=0.3" in repr(HQS())


def test_settings_left_to_the_measurement():
    """k-space wants more steps; ADMM where data determine most of an image weight 1."""
    shape = (1, 16, 16)
    large, small = torch.ones(shape), torch.ones(shape)
    large[..., :12, :12] = 0
    small[..., :4, :4] = 0
    lines = torch.arange(16) % 2 == 0
    cases = {
        "blur": (GaussianBlur(shape, 1.0), 16, 24, 0.5),
        "half": (Mask(shape, (torch.arange(256) % 2).reshape(shape).float()), 16, 24, 0.5),
        "large hole": (Mask(shape, large), 16, 24, 0.5),
        "small hole": (Mask(shape, small), 16, 12, 1.0),
        "denoising": (Identity(shape), 16, 12, 1.0),
        "scaled": (3.0 * Identity(shape), 16, 12, 1.0),
        "k-space": (CartesianMRI(shape, lines), 64, 48, 0.5),
    }
    for name, (A, hqs, admm, weight) in cases.items():
        y = A(A.blank_input(2))
        noise = ComplexGaussian(0.1) if y.is_complex() else GaussianNoise(0.1)
        m = Measurement(A, noise, y)
        assert HQS().settled(m).steps == hqs, name
        found = ADMM().settled(m)
        assert (found.steps, found.weight) == (admm, weight), name
        given = ADMM(steps=3, weight=0.7)
        assert given.settled(m) == given and HQS(steps=3).settled(m) == HQS(steps=3)
        assert ADMM(steps=3).settled(m).weight == weight


def coils(noise=0.02, n=2):
    """Points of k-space, for which no closed form is known."""
    mask = variable_density_mask((16, 16), 3.0, generator=generators(0, 1))
    A = SENSE((1, 16, 16), birdcage_maps((16, 16), 4), mask).double()
    x = randn_like(A.blank_input(n), generators(0, n))
    y = A(x)
    return Measurement(A, ComplexGaussian(noise), y + noise * randn_like(y, generators(1, n))), x


class Exact(Measurement):
    """A measurement whose data steps are solved as far as anyone asks."""

    def prox(self, v, r, *, x0=None, residual=None, error=None):
        assert residual is not None
        return super().prox(v, r)


@pytest.mark.parametrize("method", [HQS(), ADMM(), HQS(levels=Constant(0.2))])
def test_data_steps_are_solved_as_far_as_needed(method):
    """Fewer iterations of conjugate gradients, and an estimate of the same quality."""
    m, x = coils(noise=0.05)
    assert m.operator.norm <= 1 + 1e-6  # found before anything is counted
    prior = CallableDenoiser(lambda v, sigma: v / (1 + sigma**2), dtype=torch.complex64)
    exact = Exact(m.operator, m.noise, m.y)
    taken, found, gram = {}, {}, m.operator.gram
    for name, each in (("now", m), ("exact", exact)):
        calls = []
        object.__setattr__(m.operator, "gram", lambda v, c=calls: c.append(1) or gram(v))
        found[name] = method(each, prior)
        taken[name] = len(calls)
    assert taken["now"] < 0.7 * taken["exact"]
    assert distance(found["now"], found["exact"]) < 2e-2
    assert distance(found["now"], x) < 1.001 * distance(found["exact"], x)


def test_admm_with_iterative_data_steps_reaches_the_posterior_mean():
    """The residual falls with the steps: what is left is below the error of one step."""
    m, _ = coils(noise=0.1, n=1)
    gain = float(m.sigma) ** 2  # of a prior of unit variance
    exact = m.operator.solve(m.adjoint_y, gain, tol=1e-10)
    prior = CallableDenoiser(lambda v, sigma: v / (1 + sigma**2), dtype=torch.complex64)
    found = ADMM(steps=300, weight=1.0, levels=Constant(0.3))(m, prior)
    assert distance(found, exact) < 1e-4


def test_nothing_is_painted_where_coil_maps_are_zero():
    """Estimated maps are zero outside the body; A^H y is zero there, and so are all results."""
    inside = torch.zeros(24, 24)
    inside[6:18, 5:20] = 1
    maps = birdcage_maps((24, 24), 4)[0]
    lines = equispaced_lines((24, 24), 2.0, 0.2)[0, 0, 0]
    x = (inside * (1 + 0.5 * torch.rand(24, 24, generator=torch.Generator()))).to(torch.complex64)
    prior = FourierGaussian(torch.ones(1, 1, 24, 24), torch.full((1, 1, 24, 24), 0.2))
    for zeroed in (maps * inside, maps * inside * torch.linspace(1, 4, 24)):
        A = SENSE((1, 24, 24), zeroed, lines)
        m = Measurement(A, ComplexGaussian(0.01), A(x[None, None]))
        complexly = CallableDenoiser(
            lambda v, s: torch.complex(prior.denoise(v.real, s), prior.denoise(v.imag, s)),
            dtype=torch.complex64,
        )
        for result in (first_guess(m), HQS(steps=3)(m, complexly), first_guess(m.repeat(2))):
            assert bool((result[..., inside == 0] == 0).all())
            assert float(result[..., inside > 0].abs().min()) > 0.1
        for B in (2 * A, A + A, A.N):
            assert torch.equal(B.air(), (inside == 0)[None, None])
    assert SENSE((1, 24, 24), maps, lines).air() is None
