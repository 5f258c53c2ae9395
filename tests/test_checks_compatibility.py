"""The verdicts: what fits is said to fit, and every mistake is found where it was made.

The prior is a Gaussian with a photograph's spectrum, the image a draw of it: everything is exact.
"""

import pytest
import torch
from flows import pca_prior

from measurand.checks.compatibility import check_fit
from measurand.checks.questions import DOUBTFUL, FITS, NOT, fits
from measurand.checks.questions.operator import prox_optimality
from measurand.measurement import Measurement
from measurand.noises import ComplexGaussian, Gaussian, Poisson
from measurand.operators import (
    SENSE,
    Blur,
    CartesianMRI,
    GaussianBlur,
    Identity,
    Mask,
    ParallelCT,
    ValidBlur,
    birdcage_maps,
    disk_kernel,
    even_angles,
    gaussian_kernel,
    motion_kernel,
    random_lines,
    random_mask,
)
from measurand.priors import CallableDenoiser, FourierGaussian, LatentPrior, TotalVariation
from measurand.tensors import generators
from measurand.unfolded import FlowProximal, UnfoldedDR, proximal_folds

SHAPE = (1, 48, 48)


def photographic(n=48):
    """A stationary Gaussian with a spectrum that falls like a photograph's, sd about 0.4."""
    k = torch.fft.fftfreq(n) * n
    power = 1.0 / (4.0 + k[:, None] ** 2 + k**2) ** 1.4
    return FourierGaussian(torch.zeros(1, 1, n, n), 0.16 * power / power.mean())


PRIOR = photographic()
X = PRIOR.sample(1, generators(3, 1))


def ranged(prior, low=-1.0, high=1.0):
    return CallableDenoiser(prior.denoise, range=(low, high))


def verdict(found, name):
    return next(v for v in found if v.name == name)


def blurred(sigma=0.05):
    operator = GaussianBlur(SHAPE, 1.2)
    return operator, Gaussian(sigma)(operator(X), generators(0, 1))


def test_what_fits_is_said_to_fit():
    operator, y = blurred()
    found = check_fit(operator, Gaussian(0.05), y, ranged(PRIOR))
    assert fits(found) and len(found) == 14
    assert all(v.verdict == FITS and not v.advice for v in found)


def test_a_latent_prior_is_asked_for_sizes_that_its_code_does_not_divide():
    prior = LatentPrior.example()
    for side in (31, 33):
        y = Gaussian(0.1)(torch.zeros(1, 1, side, side), generators(0, 1))
        found = check_fit(Identity((1, side, side)), Gaussian(0.1), y, prior)
        assert verdict(found, "channels").verdict == FITS
        assert verdict(found, "noise level").found  # the last question was reached
    y = Gaussian(0.1)(torch.zeros(1, 3, 31, 31), generators(0, 1))
    colour = check_fit(Identity((3, 31, 31)), Gaussian(0.1), y, prior)
    assert verdict(colour, "channels").verdict == NOT


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_a_wrong_noise_level_is_found_and_the_right_one_named(factor):
    operator, y = blurred()
    v = verdict(check_fit(operator, Gaussian(0.05 * factor), y, ranged(PRIOR)), "noise level")
    assert v.verdict == NOT
    named = float(v.advice.split("--sigma ")[1].rstrip(")"))
    assert 0.035 < named < 0.07


def test_a_noise_level_of_zero_on_noisy_data_is_doubtful():
    operator, y = blurred()
    v = verdict(check_fit(operator, Gaussian(0.0), y, ranged(PRIOR)), "noise level")
    assert v.verdict == DOUBTFUL


def test_noise_behind_a_mask_is_judged_on_the_measured_pixels():
    operator = Mask(SHAPE, random_mask(SHAPE, 0.5))
    y = operator(Gaussian(0.05)(operator(X), generators(0, 1)))
    good = verdict(check_fit(operator, Gaussian(0.05), y, ranged(PRIOR)), "noise level")
    assert good.verdict == FITS
    bad = verdict(check_fit(operator, Gaussian(0.4), y, ranged(PRIOR)), "noise level")
    assert bad.verdict == NOT


@pytest.mark.parametrize("rate", [1.0, 4.0])
def test_zeros_of_unsampled_k_space_are_not_judged(rate):
    """Scanners leave zeros where nothing was sampled; the right noise level fits."""
    x = (X + 1).to(torch.complex64) / 3
    mask = torch.ones(48) if rate == 1 else random_lines((48, 48), rate, 0.1)[0, 0, 0]
    operator = SENSE(SHAPE, birdcage_maps((48, 48), 6)[0], mask)
    noise = ComplexGaussian(0.01)
    y = noise(operator(x), generators(0, 1)) * mask
    found = check_fit(operator, noise, y, TotalVariation(weight=0.1))
    level = verdict(found, "noise level")
    assert level.verdict == FITS, level
    full = check_fit(operator, noise, y + 3 * (1 - mask.float()), TotalVariation(weight=0.1))
    assert verdict(full, "noise level") == level  # whatever stands there
    loud = check_fit(operator, ComplexGaussian(0.05), y, TotalVariation(weight=0.1))
    assert verdict(loud, "noise level").verdict == NOT


def test_what_stands_behind_a_mask_is_not_looked_at():
    mask = random_mask(SHAPE, 0.5)
    operator = Mask(SHAPE, mask)
    y = Gaussian(0.05)(X, generators(0, 1)).where(mask[0] > 0, torch.nan)
    found = check_fit(operator, Gaussian(0.05), y, ranged(PRIOR))
    assert fits(found) and verdict(found, "data").verdict == FITS


@pytest.mark.parametrize(
    "kernel", [gaussian_kernel(1.2), motion_kernel(6.0, 0.5), disk_kernel(2.0)]
)
def test_a_picture_that_does_not_wrap_around_is_found(kernel):
    wide = photographic(64)
    x = wide.sample(1, generators(5, 1))
    camera = ValidBlur((1, 64, 64), kernel)
    y = Gaussian(0.02)(camera(x), generators(0, 1))
    prior = ranged(photographic(y.shape[-1]))
    periodic = Blur(tuple(y.shape[1:]), kernel)
    edges = verdict(check_fit(periodic, Gaussian(0.02), y, prior), "edges")
    assert edges.verdict == NOT and "--operator blur" in edges.advice
    x = photographic(y.shape[-1]).sample(1, generators(5, 1))
    y = Gaussian(0.02)(periodic(x), generators(0, 1))
    found = check_fit(periodic, Gaussian(0.02), y, prior)
    assert fits(found) and verdict(found, "edges").verdict == FITS
    found = check_fit(camera, Gaussian(0.02), camera(wide.mean + wide.sample(1)), ranged(wide))
    assert not any(v.name == "edges" for v in found)  # it has none that touch


@pytest.mark.parametrize(
    ("total", "wanted"), [(5000.0, NOT), (1.6, NOT), (0.3, NOT), (1.1, DOUBTFUL)]
)
def test_a_kernel_that_does_not_sum_to_one_is_found(total, wanted):
    _, y = blurred()
    operator = Blur(SHAPE, total * gaussian_kernel(1.2))
    found = check_fit(operator, Gaussian(0.05), y, ranged(PRIOR))
    gain = verdict(found, "gain")
    assert gain.verdict == wanted and "sum" in gain.advice, found


def test_a_gain_that_the_data_have_fits():
    operator = Blur(SHAPE, 3.0 * gaussian_kernel(1.2))
    x = X * (0.95 / X.abs().max())
    y = Gaussian(0.05)(operator(x), generators(0, 1))
    assert verdict(check_fit(operator, Gaussian(0.05), y, ranged(PRIOR)), "gain").verdict == FITS


def test_noisy_data_in_zero_to_one_are_doubtful():
    operator, y = blurred(sigma=0.1)
    v = verdict(check_fit(operator, Gaussian(0.05), (y + 1) / 2, ranged(PRIOR)), "value range")
    assert v.verdict == DOUBTFUL and "2 y - 1" in v.advice


class WrongAdjoint(GaussianBlur):
    def adjoint(self, y):
        return super().adjoint(y.roll(1, -1))


class WrongNorm(GaussianBlur):
    norm = 2.0


class WrongProx(GaussianBlur):
    def prox(self, v, y, gamma, **_):
        return super().prox(v, y, 2.0 * gamma)

    def solve(self, b, gamma, **_):
        return super().solve(b, 2.0 * gamma)


@pytest.mark.parametrize(
    ("cls", "name"),
    [(WrongAdjoint, "adjoint"), (WrongNorm, "norm"), (WrongProx, "prox optimality")],
)
def test_a_broken_law_is_named(cls, name):
    _, y = blurred()
    found = check_fit(cls(SHAPE, 1.2), Gaussian(0.05), y, ranged(PRIOR))
    assert verdict(found, name).verdict == NOT and not fits(found)
    assert verdict(found, name).advice


@pytest.mark.parametrize(
    ("low", "high", "words"), [(0.0, 255.0, "[0, 255]"), (-400.0, 400.0, "scale y")]
)
def test_a_wrong_range_is_found(low, high, words):
    operator, y = blurred()
    u = low + (y.clamp(-1, 1) + 1) * (high - low) / 2
    sigma = 0.05 * (high - low) / 2
    v = verdict(check_fit(operator, Gaussian(sigma), u, ranged(PRIOR)), "value range")
    assert v.verdict == NOT
    assert words in v.advice


def test_an_image_between_zero_and_one_is_doubtful():
    operator, y = blurred()
    u = (y.clamp(-1, 1) + 1) / 2
    v = verdict(check_fit(operator, Gaussian(0.025), u, ranged(PRIOR)), "value range")
    assert v.verdict == DOUBTFUL and "2 y - 1" in v.advice


def test_noise_beyond_the_range_is_no_wrong_range():
    y = Gaussian(0.5)(X, generators(0, 1))
    assert float(y.abs().max()) > 1.8
    v = verdict(check_fit(Identity(SHAPE), Gaussian(0.5), y, ranged(PRIOR)), "value range")
    assert v.verdict == FITS


def test_complex_images_are_asked_for_their_magnitude():
    mri = CartesianMRI((1, 48, 48), torch.ones(48))
    x = torch.polar(X.abs().clamp(max=1), 3 * X)
    y = ComplexGaussian(0.02)(mri(x), generators(0, 1))
    prior = CallableDenoiser(lambda v, s: v / (1 + s**2), dtype=torch.complex64)
    for network in (prior, UnfoldedDR([prior], 2)):
        for scale, wanted in ((1, FITS), (0.25, DOUBTFUL), (1.6, DOUBTFUL), (1e-3, NOT), (9, NOT)):
            found = check_fit(mri, ComplexGaussian(0.02 * scale), y * scale, network)
            assert verdict(found, "value range").verdict == wanted
    noisy = ComplexGaussian(0.7)(mri(x), generators(0, 1))
    found = check_fit(mri, ComplexGaussian(0.7), noisy, prior)
    assert verdict(found, "value range").verdict == FITS


def test_an_operator_with_decomposed_solves_is_asked_like_any_other():
    maps, mask = birdcage_maps((16, 16), 4), random_lines((1, 16, 16), 2.0, 0.2)
    sense = SENSE((1, 16, 16), maps, mask).decomposed()
    y = ComplexGaussian(0.1)(sense(torch.ones(1, 1, 16, 16, dtype=torch.complex64)))
    prior = CallableDenoiser(lambda v, s: v / (1 + s**2), dtype=torch.complex64)
    found = check_fit(sense, ComplexGaussian(0.1), y, prior)
    assert verdict(found, "prox optimality").verdict == FITS


@pytest.mark.filterwarnings("error")
def test_quiet_projections_are_judged_by_the_gradient_without_a_warning():
    """Conjugate gradients in single precision do not reach the bound that such noise needs."""
    operator = ParallelCT((1, 32, 32), even_angles(40), pixel=2.0)
    x = torch.full((1, 1, 32, 32), -1.0)
    x[..., 8:24, 10:22] = 0.5
    m = Measurement(operator, Gaussian(1e-3), operator(x))
    assert prox_optimality(m, 0).verdict == FITS


def test_a_prior_that_counts_its_noise_in_other_units_is_found():
    operator, y = blurred()
    other = CallableDenoiser(lambda v, s: PRIOR.denoise(v, s / 127.5), range=(-1.0, 1.0))
    v = verdict(check_fit(operator, Gaussian(0.05), y, other), "noise of the prior")
    assert v.verdict == NOT


def test_shapes_kinds_and_channels():
    operator, y = blurred()
    small = check_fit(operator, Gaussian(0.05), y[..., ::2, ::2], ranged(PRIOR))
    assert "2 times too large" in verdict(small, "shape").advice
    turned = check_fit(
        GaussianBlur((1, 40, 48), 1.2), Gaussian(0.05), torch.ones(1, 1, 48, 40), ranged(PRIOR)
    )
    assert "permute" in verdict(turned, "shape").advice
    kind = check_fit(operator, Gaussian(0.05), y.to(torch.complex64), ranged(PRIOR))
    assert verdict(kind, "shape").verdict == NOT

    def three_only(v, sigma):
        if v.shape[1] != 3:
            raise ValueError(f"got {v.shape[1]} channels, wanted 3")
        return v

    wrong = check_fit(operator, Gaussian(0.05), y, CallableDenoiser(three_only))
    assert "wanted 3" in verdict(wrong, "channels").found and not fits(wrong)


def test_data_that_are_none():
    operator, y = blurred()
    y = y.clone()
    y[0, 0, 3, 4] = torch.nan
    assert "1 of 2304" in verdict(check_fit(operator, Gaussian(0.1), y, PRIOR), "data").found
    zero = verdict(check_fit(operator, Gaussian(0.1), torch.zeros_like(y), PRIOR), "data")
    assert zero.verdict == NOT


def test_other_priors_and_noises_are_judged_as_far_as_they_go():
    operator, y = blurred()
    found = check_fit(operator, Gaussian(0.05), y, TotalVariation(weight=2.0, tol=1e-3))
    assert verdict(found, "noise level").verdict == FITS
    with pytest.raises(StopIteration):
        verdict(found, "value range")
    counts = check_fit(Identity(SHAPE), Poisson(), y.abs() * 20, ranged(PRIOR))
    assert {v.name for v in counts} >= {"data", "shape", "adjoint", "norm", "channels"}
    mask = torch.ones(16)
    mri, image = CartesianMRI((1, 16, 16), mask), torch.ones(1, 1, 16, 16, dtype=torch.complex64)
    k = ComplexGaussian(0.01)(mri(image), generators(0, 1))
    found = check_fit(mri, ComplexGaussian(0.01), k, ranged(PRIOR))
    assert verdict(found, "channels").verdict == NOT


def unfolded_and_measured():
    operator, y = blurred()
    return UnfoldedDR([ranged(PRIOR)], 6), operator, y


def flow_and_measured():
    gaussian, prior = pca_prior((1, 12, 12))
    operator = GaussianBlur((1, 12, 12), 0.7).double()
    x = gaussian.sample(1, generators(1, 1))
    y = Gaussian(0.05)(operator(x), generators(0, 1))
    return FlowProximal(prior, proximal_folds(prior, 6)).double(), operator, y


@pytest.mark.parametrize("case", [unfolded_and_measured, flow_and_measured])
def test_networks_with_the_physics_inside_are_judged_by_their_own_results(case):
    network, operator, y = case()
    found = check_fit(operator, Gaussian(0.05), y, network)
    assert fits(found) and found[-1].name == "noise level"
    assert verdict(found, "value range").verdict == FITS
    for scale, wanted in ((1e-2, DOUBTFUL), (100.0, NOT)):
        found = check_fit(operator, Gaussian(0.05 * scale), y * scale, network)
        assert verdict(found, "value range").verdict == wanted
    for factor in (0.1, 8.0):
        v = check_fit(operator, Gaussian(0.05 * factor), y, network)[-1]
        assert (v.name, v.verdict) == ("noise level", NOT)
        assert "or the network was trained for other measurements" in v.advice


class Restorer:
    """Makes the same of everything."""

    range = None
    dtype = torch.float32

    def __init__(self, value):
        self.value = value

    def restore(self, measurement):
        return torch.full_like(measurement.adjoint_y, self.value)


def test_a_network_with_the_physics_inside_wants_gaussian_noise():
    operator, y = blurred()
    found = check_fit(operator, Poisson(100.0), y.clamp_min(0), Restorer(0.0))
    v = found[-1]
    assert (v.name, v.verdict) == ("noise", NOT) and "unfolded network" in v.found


def test_a_network_that_explains_nothing_does_not_fit():
    operator, y = blurred()
    found = check_fit(operator, Gaussian(0.05), y, Restorer(0.0))
    assert found[-1].name == "noise level" and not fits(found)
    assert "declares none" in verdict(found, "value range").found
    found = check_fit(operator, Gaussian(0.05), y, Restorer(1e4))
    assert (found[-1].name, found[-1].verdict) == ("reconstruction", NOT)
    assert "images are in [-1, 1]" in found[-1].found
