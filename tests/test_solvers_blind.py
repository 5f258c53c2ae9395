"""Classical blind deconvolution: a kernel found again, chains that differ, what does not fit."""

import pytest
import torch
from torch.nn import functional

from measurand.blind import BlindMeasurement, Unknowns
from measurand.measurement import Measurement
from measurand.noises import Gaussian
from measurand.operators import (
    Identity,
    UnknownBlur,
    UnknownValidBlur,
    gaussian_kernel,
    motion_kernel,
)
from measurand.operators.kernel_parts import noise_of, without_specks
from measurand.priors import CallableDenoiser, TotalVariation
from measurand.samplers.blind_summary import correlation, summary
from measurand.solvers import HQS, BlindEdges, BlindHQS, BlindTV


def boxes(size: int, seed: int = 0) -> torch.Tensor:
    """Overlapping rectangles of random grey, periodic, with shape (1, 1, size, size)."""
    g = torch.Generator().manual_seed(seed)
    x = torch.zeros(size, size)
    for _ in range(25):
        h, w = torch.randint(6, size // 2, (2,), generator=g).tolist()
        top, left = torch.randint(size, (2,), generator=g).tolist()
        box = torch.zeros(size, size)
        box[:h, :w] = 1
        value = 1.6 * torch.rand((), generator=g) - 0.8
        x = torch.where(box.roll((top, left), (0, 1)) > 0, value, x)
    return x[None, None]


def problem(items: int = 1) -> tuple[BlindMeasurement, Unknowns]:
    family, x = UnknownBlur((1, 64, 64), 17), boxes(64)
    theta = family.theta(motion_kernel(8.0, 0.6))
    noise = Gaussian(0.01)
    y = noise(family.at(theta)(x), torch.Generator().manual_seed(1))
    return BlindMeasurement(family, noise, y).repeat(items), Unknowns(x, theta)


def test_the_kernel_of_an_image_of_edges_is_found_again():
    blind, truth = problem()
    found = BlindEdges()(blind)
    true = blind.family.kernel(truth.theta)
    k = blind.family.kernel(found.theta)
    plain = blind.family.kernel(blind.family.start(blind.y)[1])
    assert correlation(true, k)[1] > 0.9 > correlation(true, plain)[1]


@pytest.mark.xfail(strict=True, reason="3 dB since the settings were chosen on photographs")
def test_the_image_of_edges_is_four_decibels_above_its_data():
    blind, truth = problem()
    found = BlindEdges()(blind)
    true, k = (blind.family.kernel(u.theta) for u in (truth, found))
    shift, _ = correlation(true, k)
    moved = blind.family.moved([shift], *found)[0]
    blurred = (blind.y - truth.x).square().mean()
    assert (moved - truth.x).square().mean() < 0.4 * blurred


def test_total_variation_finds_a_kernel_nearer_than_the_plain_start():
    blind, truth = problem()
    true = blind.family.kernel(truth.theta)
    k = blind.family.kernel(BlindTV()(blind).theta)
    plain = blind.family.kernel(blind.family.start(blind.y)[1])
    assert correlation(true, k)[1] > correlation(true, plain)[1]
    assert k.min() >= 0 and k.sum().item() == pytest.approx(1, abs=1e-5)


def test_items_of_equal_data_differ_and_are_those_of_an_item_alone():
    blind, _ = problem(3)
    found = BlindEdges()(blind)
    assert (found.theta[0] - found.theta[1]).abs().max() > 0
    alone = BlindEdges()(blind[0])
    torch.testing.assert_close(found.theta[:1], alone.theta)


def test_of_a_photograph_margins_join_opposite_edges():
    family = UnknownValidBlur.of((1, 20, 24), 9)
    y = torch.randn(1, 1, 20, 24, generator=torch.Generator().manual_seed(0)).cumsum(-1)
    wide = family.periodic(y)
    assert wide.shape[1:] == family.in_shape
    torch.testing.assert_close(family.framed(wide), y)
    seam = (wide[..., 0] - wide[..., -1]).abs()
    assert seam.max() <= 1.01 * (y[..., 0] - y[..., -1]).abs().max() / 9


def test_summary_names_the_best_chain_and_the_modes():
    blind, truth = problem()
    family = blind.family
    other = family.theta(motion_kernel(8.0, 2.2))
    moved = family.moved([[2, -3]], truth.x, truth.theta)
    draws = Unknowns(
        torch.cat([truth.x, boxes(64, 5), moved[0] + 0.01]),
        torch.cat([truth.theta, other, moved[1]]),
    )
    (found,) = summary(blind, draws)
    assert found.best == 0 and found.modes == [[0, 2], [1]]
    assert found.misfit == pytest.approx(1, abs=0.05) and found.misfits[1] > 2
    torch.testing.assert_close(found.x, truth.x + 0.005)  # the moved pair is moved back
    torch.testing.assert_close(found.kernel, family.kernel(truth.theta), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.sd, torch.full_like(found.x, 0.01 / 2**0.5))
    asked = []

    def denoise(v, sigma):
        asked.append(len(v))
        return v

    prior = CallableDenoiser(denoise, range=(-1.0, 1.0))
    (sharp,) = summary(blind, draws, prior, solver=HQS(steps=2))
    assert asked == [3] * 8 + [2] * 2  # of all chains to compare them, of the best mode to show
    known = blind.at(family.project(truth.theta))
    wanted = HQS(steps=2)(known, prior)
    torch.testing.assert_close(sharp.x, wanted, rtol=1e-3, atol=1e-3)  # one kernel, two shifts
    torch.testing.assert_close(sharp.sd, found.sd)
    single = summary(blind, truth)[0]
    assert single.sd is None and single.modes == [[0]]
    with pytest.raises(ValueError, match="the same number for each"):
        summary(blind.repeat(2), draws)


def test_a_kernel_of_specks_alone_keeps_the_largest():
    k = torch.zeros(64, 64)
    k[2::5, 2::5] = 1.0  # 169 specks, none of them a tenth of the sum
    k[32, 32] = 1.5
    torch.testing.assert_close(without_specks(k, 0.2), torch.where(k == 1.5, 1.0, 0.0))


def test_what_does_not_fit_is_named():
    with pytest.raises(TypeError, match="wanted a BlindMeasurement of a BlurFamily"):
        BlindEdges()(Measurement(Identity((1, 8, 8)), Gaussian(0.1), torch.zeros(1, 1, 8, 8)))
    blind, truth = problem()
    with pytest.raises(ValueError, match="it starts coarse"):
        BlindTV()(blind, x0=truth)
    with pytest.raises(ValueError, match="cut"):
        BlindEdges(cut=0.0)


def shaped(x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
    """A denoiser of images of few edges: total variation, in closed form."""
    level = float(torch.as_tensor(sigma).max())
    return TotalVariation(weight=1.0).prox(x, 0.7 * level)


def test_turns_with_an_image_prior_bring_the_kernel_nearer():
    blind, truth = problem()
    family = blind.family
    true = family.kernel(truth.theta)
    prior = CallableDenoiser(shaped, range=(-1.0, 1.0))
    wide = Unknowns(blind.y, family.theta(gaussian_kernel(2.5, 17)))
    begun = correlation(true, family.kernel(wide.theta))[1]
    steps = []
    method = BlindHQS(turns=6, solver=HQS(steps=6))
    found = method(blind, prior, x0=wide, callback=steps.append)
    ended = correlation(true, family.kernel(found.theta))[1]
    assert begun < 0.8 and ended > begun + 0.1
    assert [step.step for step in steps] == list(range(6)) and method.nfe == 36
    levels = [float(step.level) for step in steps]
    assert levels[0] == pytest.approx(0.03) and levels[-1] == pytest.approx(0.01)
    k = family.kernel(found.theta)
    assert k.min() >= 0 and float(k.sum()) == pytest.approx(1, abs=1e-5)


def test_least_squares_find_the_kernel_of_a_known_image():
    for family in (UnknownBlur((1, 64, 64), 17), UnknownValidBlur((1, 80, 80), 17)):
        x = boxes(family.in_shape[-1])
        theta = family.theta(motion_kernel(8.0, 0.6))
        y = Gaussian(0.01)(family.at(theta)(x), torch.Generator().manual_seed(1)) + 0.3
        k = family.kernel(family.fitted(x + 0.3, y, torch.tensor(0.01), doubt=0.001))
        like = correlation(family.kernel(theta), k)[1]
        assert like > 0.99
        # an image known less well explains less: its kernel is smoother
        less = family.kernel(family.fitted(x + 0.3, y, torch.tensor(0.01), doubt=0.3))
        assert less.square().sum() < k.square().sum()


def test_the_noise_of_a_kernel_is_read_off_its_negative_values():
    g = torch.Generator().manual_seed(0)
    k = functional.pad(motion_kernel(8.0, 0.6), (20, 20, 20, 20))
    assert noise_of(k) == 0
    assert noise_of(k + 0.01 * torch.randn(k.shape, generator=g)) == pytest.approx(0.01, rel=0.1)


def test_settings_and_priors_of_the_turns_are_named():
    blind, _ = problem()
    with pytest.raises(ValueError, match="louder = 0.5, wanted at least 1"):
        BlindHQS(louder=0.5)
    with pytest.raises(TypeError, match="wanted a Denoiser"):
        BlindHQS()(blind, object())
    with pytest.raises(TypeError, match="BlindMeasurement of a BlurFamily"):
        BlindHQS()(Measurement(Identity((1, 8, 8)), Gaussian(0.1), torch.zeros(1, 1, 8, 8)), None)
    with pytest.raises(ValueError, match="got x0.theta with shape"):
        BlindHQS()(blind, CallableDenoiser(shaped), x0=Unknowns(blind.y, blind.y))


def test_data_without_any_detail_have_no_kernel_and_an_image():
    family = UnknownBlur((1, 32, 32), 9)
    blind = BlindMeasurement(family, Gaussian(0.02), torch.full((1, 1, 32, 32), 0.25))
    found = BlindHQS(turns=2)(blind, CallableDenoiser(shaped, range=(-1.0, 1.0)))
    torch.testing.assert_close(found.x, blind.y, rtol=0, atol=0.02)
    assert float(family.kernel(found.theta).sum()) == pytest.approx(1, abs=1e-5)


def test_a_kernel_off_its_centre_stays_with_its_image():
    blind, truth = problem()
    family = blind.family
    x, theta = family.moved([[0, 0]], *truth)
    x, theta = x.roll((-2, 1), (-2, -1)), theta.roll((2, -1), (-2, -1))  # the same data
    assert float(blind.misfit(x, theta)) == pytest.approx(1, abs=0.05)
    fitted = family.fitted(x, blind.y, blind.sigma, doubt=1e-4)
    assert float(blind.misfit(x, fitted)) < 1.2
    assert float(blind.misfit(*family.aligned(x, fitted))) < 1.2
