"""The verdicts: what fits is said to fit, and every mistake is found where it was made.

The prior is a Gaussian with a photograph's spectrum, the image a draw of it: everything is exact.
"""

import pytest
import torch

from measurand.fit import DOUBTFUL, FITS, NOT, check_fit, fits
from measurand.noises import ComplexGaussian, Gaussian, Poisson
from measurand.operators import CartesianMRI, GaussianBlur, Identity, Mask, random_mask
from measurand.priors import CallableDenoiser, FourierGaussian, TotalVariation
from measurand.tensors import generators

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
    assert fits(found) and len(found) == 9
    assert all(v.verdict == FITS and not v.advice for v in found)


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


def test_a_network_with_the_physics_inside_wants_gaussian_noise():
    class Restorer:
        dtype = torch.float32

        def restore(self, measurement):
            return torch.zeros_like(measurement.adjoint_y)

    operator, y = blurred()
    found = check_fit(operator, Poisson(100.0), y.clamp_min(0), Restorer())
    v = found[-1]
    assert (v.name, v.verdict) == ("noise", NOT) and "unfolded network" in v.found
    found = check_fit(operator, Gaussian(0.05), y, Restorer())
    assert fits(found) and found[-1].name == "channels"
