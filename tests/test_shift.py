"""Divergence of priors on measurements, ranking and adaptation, where the answers are known."""

import math
import warnings

import pytest
import torch
from shifted import SHAPE, fitted, masks, mixture, moments, normal, seeded, seen, through

import measurand as ms
from measurand import Measurement
from measurand.nets import ConvUNet
from measurand.noises import Gaussian, Poisson
from measurand.operators import (
    SENSE,
    Blur,
    CartesianMRI,
    FourierMask,
    GaussianBlur,
    Identity,
    Mask,
    ValidBlur,
    birdcage_maps,
    fft2c,
    gaussian_kernel,
    random_lines,
    random_mask,
    variable_density_mask,
)
from measurand.priors import CallableDenoiser, EDMDenoiser, FourierGaussian
from measurand.priors import Gaussian as GaussianPrior
from measurand.shift import Adaptation, Divergence, combined, ranked
from measurand.shift.coordinates import coordinates
from measurand.tensors import generators

WHOLE = Divergence(batch=4096)
FINE = Divergence(batch=4096, nodes=200, low=1e-3)


@pytest.fixture(scope="module")
def pair():
    """A density p, another one q, and their divergence."""
    p, q = normal(1), normal(2)
    return p, q, p.divergence(q)


# -- the identity, and what a mask does to it --------------------------------------------------


def test_the_divergence_of_gaussians_is_that_of_the_formula():
    p, q = normal(1, correlated=True), normal(3, correlated=True)
    c, d = p.covariance[0], q.covariance[0]
    away = (q.mean - p.mean).flatten()
    inverse = torch.linalg.inv(d)
    trace = (inverse @ c).trace() + away @ inverse @ away - 10
    known = 0.5 * (trace + torch.logdet(d) - torch.logdet(c))
    assert p.divergence(q) == pytest.approx(float(known), rel=1e-12)
    draws = p.sample(20000, seeded(0))
    estimate = (p.log_prob(draws) - q.log_prob(draws)).mean()
    assert p.divergence(q) == pytest.approx(float(estimate), rel=0.03)
    assert p.divergence(p) == pytest.approx(0, abs=1e-12)


def test_the_divergence_of_other_shapes_or_of_several_densities_is_refused(pair):
    p = pair[0]
    eye = torch.eye(10, dtype=torch.float64)
    with pytest.raises(ValueError, match="one shape and kind"):
        p.divergence(GaussianPrior(torch.zeros(1, 1, 2, 5, dtype=torch.float64), eye))
    with pytest.raises(ValueError, match="several densities"):
        p.divergence(GaussianPrior(torch.zeros(2, *SHAPE, dtype=torch.float64), eye))


@pytest.mark.parametrize("settings", [WHOLE, pytest.param(FINE, marks=pytest.mark.slow)])
@pytest.mark.parametrize("seed", [1, 5])
def test_without_a_mask_it_is_the_kullback_leibler_divergence(seed, settings):
    p, q = normal(seed, correlated=True), normal(seed + 2, correlated=True)
    curve = settings([seen(p, 4000, 1, 3)], q, p)
    assert curve.total == pytest.approx(p.divergence(q), rel=0.03)
    assert curve.interval[0] < curve.total < curve.interval[1]
    assert curve.keep == 1 and not curve.partial and bool((curve.coverage == 1).all())
    assert curve.per_dimension == pytest.approx(curve.total / 10)
    assert float(curve.cumulative[-1]) == pytest.approx(curve.total)
    assert float(curve.cumulative[0]) == 0 and bool((curve.cumulative.diff() >= 0).all())


def test_a_prior_has_no_divergence_from_itself(pair):
    assert abs(WHOLE([seen(pair[0], 50, 0.7, 3)], pair[0], pair[0]).total) < 1e-12
    p = mixture(1)
    assert abs(WHOLE([seen(p, 50, 0.7, 3)], p, p).total) < 1e-12


@pytest.mark.parametrize("keep", [0.9, 0.7, 0.5])
def test_masks_do_not_bias_independent_coordinates(keep, pair):
    p, q, known = pair
    curve = WHOLE([seen(p, 4000, keep, 3)], q, p)
    assert curve.total == pytest.approx(known, rel=0.03)
    assert curve.keep == pytest.approx(keep, abs=0.02)


def test_other_weights_and_noise_everywhere_are_other_numbers(pair):
    """The weight of the paper counts a coordinate E[P]^-2 times too often."""
    p, q, known = pair
    m = [seen(p, 2000, 0.5, 3)]
    printed = Divergence(batch=4096, exponent=-1.5)(m, q, p)
    plain = Divergence(batch=4096, exponent=0.0)(m, q, p)
    assert printed.total == pytest.approx(4 * known, rel=0.1)
    assert plain.total == pytest.approx(known / 2, rel=0.1)
    # independent coordinates do not see what stands in the others
    spread = Divergence(batch=4096, spread=True)(m, q, p)
    assert spread.total == pytest.approx(WHOLE(m, q, p).total, rel=1e-9)


def test_of_correlated_coordinates_it_is_a_lower_bound_that_grows_with_what_is_seen():
    p, q = normal(1, correlated=True), normal(3, correlated=True)
    known, totals = p.divergence(q), []
    for keep in (0.5, 0.7, 0.9, 1):
        totals.append(WHOLE([seen(p, 4000, keep, 3)], q, p).total)
        assert totals[-1] <= 1.02 * known
    assert totals == sorted(totals) and totals[0] < 0.95 * totals[-1]


def test_holes_that_a_prior_fills_by_itself_give_the_divergence_of_what_is_seen():
    """Without weights: the mean over masks of KL(p_P || q_P), of correlated coordinates too."""
    p, q = normal(1, correlated=True), normal(3, correlated=True)
    m, known = seen(p, 300, 0.7, 3), 0.0
    for mask in m.operator.mask.flatten(1) > 0:
        at = mask.nonzero().flatten()
        parts = [
            GaussianPrior(g.mean[..., at], g.covariance[0][at][:, at].contiguous()) for g in (p, q)
        ]
        known += parts[0].divergence(parts[1]) / 300
    grey, filled = (
        Divergence(batch=4096, exponent=0.0, fills=fills)([m], q, p).total for fills in (0, 4)
    )
    assert filled == pytest.approx(known, rel=0.05)
    assert abs(grey - known) > 2 * abs(filled - known)
    # each prior fills its own holes, and batches keep theirs
    settings = Divergence(batch=7, exponent=0.0, fills=4)
    assert settings(list(m), q, p).total == pytest.approx(filled, rel=1e-9)


def test_with_everything_seen_it_is_the_integral_in_the_image_domain():
    """Computed here by the formula, with the same noise."""
    p, q = normal(1, correlated=True), normal(3, correlated=True)
    x, generator = p.sample(200, seeded(0)), seeded(1)
    curve = WHOLE([through(Mask(SHAPE, torch.ones(1)), x)], q, p, generator=seeded(1))
    levels = torch.logspace(math.log10(0.02), math.log10(80), 40, dtype=torch.float64)
    gaps = []
    for sigma in levels.flip(0):  # the highest first
        u = x + sigma * torch.randn(x.shape, generator=generator, dtype=torch.float64)
        gaps.append((p.score(u, sigma) - q.score(u, sigma)).square().sum() / 200)
    gap = torch.stack(gaps).flip(0)
    known = torch.trapezoid(gap * levels**2, levels.log())
    assert torch.allclose(curve.levels, levels) and torch.allclose(curve.gap, gap)
    assert curve.total == pytest.approx(float(known), rel=1e-6)


def test_what_is_above_the_last_level_is_reported(pair):
    p, q, known = pair
    for high in (2.0, 80.0):
        curve = Divergence(batch=4096, high=high)([seen(p, 4000, 0.7, 3)], q, p)
        noise = high**2 * torch.eye(10, dtype=torch.float64)
        smooth = [GaussianPrior(g.mean, g.covariance[0] + noise) for g in (p, q)]
        assert curve.truncation == pytest.approx(smooth[0].divergence(smooth[1]), abs=1e-6)
        assert curve.total + curve.truncation == pytest.approx(known, rel=0.03)
    assert WHOLE([seen(mixture(1), 10, 0.7, 3)], mixture(2), mixture(1)).truncation is None


# -- other bases -------------------------------------------------------------------------------


def stationary(seed, shape, dtype=torch.float64):
    """A Gaussian with independent Fourier coefficients and a mean."""
    draws = torch.rand(shape, generator=seeded(seed), dtype=torch.float64)
    spectrum = 0.1 + (draws + draws.flip(-2, -1).roll((1, 1), (-2, -1))) / 2
    mean = 0.3 * torch.randn(1, *shape, generator=seeded(seed + 1), dtype=dtype)
    return FourierGaussian(mean, spectrum)


def fourier_case(name):
    shape, n = (1, 4, 6), 1500
    own = (torch.rand(n, 1, 4, 6, generator=seeded(5)) < 0.6).double()
    own[:, 0, 2, 3] = 1
    if name == "Fourier mask":
        return shape, torch.float64, FourierMask(shape, own)
    if name == "MRI":
        return shape, torch.complex128, CartesianMRI(shape, own)
    if name == "one coil":
        maps = torch.full((1, 4, 6), 0.5j, dtype=torch.complex64)
        return shape, torch.complex128, SENSE(shape, maps, own)
    widths = 0.4 + 0.3 * torch.rand(n, generator=seeded(5))
    kernels = gaussian_kernel(widths.double(), size=3)
    return shape, torch.float64, Blur(shape, kernels).double()


@pytest.mark.parametrize("name", ["Fourier mask", "MRI", "one coil", "blur"])
def test_coordinates_may_be_those_of_a_fourier_basis(name):
    shape, dtype, operator = fourier_case(name)
    p, q = stationary(1, shape, dtype), stationary(3, shape, dtype)
    curve = WHOLE([through(operator, p.sample(1500, seeded(0)))], q, p)
    assert curve.total == pytest.approx(p.divergence(q), rel=0.03)
    assert not curve.partial


def test_a_blur_with_noise_sees_each_frequency_from_its_own_noise_on():
    shape = (1, 8, 8)
    p, q = stationary(1, shape), stationary(3, shape)
    blur = GaussianBlur(shape, 0.9, size=7).double()
    x = p.sample(600, seeded(0))
    settings = Divergence(batch=4096, fixed=True)
    clean = settings([through(Identity(shape).double(), x)], q, p)
    noisy = settings([through(blur, x, 0.02)], q, p)
    assert noisy.coverage[0] < 0.3 and noisy.coverage[-1] == 1 and not noisy.partial
    assert bool((noisy.coverage.diff() >= 0).all())
    # at levels above all noise nothing is lost, nor at any is something added
    late = noisy.levels > 0.02 / float(blur.diagonal().values.min())
    at = torch.tensor([float((clean.levels - s).abs().argmin()) for s in noisy.levels]).long()
    assert late.sum() > 5
    gaps = clean.gap[at][late] * clean.levels[at][late] ** 2
    assert torch.allclose(noisy.gap[late] * noisy.levels[late] ** 2, gaps, rtol=0.35, atol=0.05)
    assert noisy.total < 1.02 * clean.total


def test_several_coils_count_as_one_in_the_combined_image():
    shape, n = (1, 16, 16), 4
    mask = variable_density_mask((16, 16), 2.0, 0.3, generator=generators(0, n))
    maps = birdcage_maps((16, 16), 4)
    maps = maps / maps.abs().square().sum(-3, keepdim=True).sqrt()
    x = stationary(1, shape, torch.complex128).sample(n, seeded(0)).to(torch.complex64)
    single = combined(through(SENSE(shape, maps, mask), x))
    assert isinstance(single.operator, CartesianMRI)
    exact = mask * fft2c(x)
    assert (single.y - exact).norm() < 0.05 * exact.norm()
    with pytest.raises(TypeError, match="SENSE"):
        combined(through(CartesianMRI(shape, mask), x))


# -- mixtures ----------------------------------------------------------------------------------


def rankings(seed, keeps, nodes):
    """The divergences of four candidates, farther and farther off, at each keep probability."""
    p, settings = mixture(10 * seed + 1), Divergence(batch=4096, nodes=nodes)
    candidates = [mixture(10 * seed + 1, moved) for moved in (0.2, 0.4, 0.6, 0.8)]
    return {
        keep: [settings([seen(p, 100, keep, seed)], q, p).total for q in candidates]
        for keep in keeps
    }


def order(values):
    return sorted(range(len(values)), key=values.__getitem__)


def test_mixtures_are_ranked_as_in_the_image_domain():
    for seed in range(3):
        totals = rankings(seed, (1, 0.7, 0.3), 16)
        assert order(totals[0.7]) == order(totals[0.3]) == order(totals[1]) == [0, 1, 2, 3]


@pytest.mark.slow
def test_mixtures_of_twenty_seeds():
    agree, off = {0.9: 0, 0.7: 0, 0.5: 0, 0.3: 0}, []
    for seed in range(20):
        totals = rankings(seed, (1, *agree), 40)
        for keep in agree:
            agree[keep] += order(totals[keep]) == order(totals[1])
        off += [a / b - 1 for a, b in zip(totals[0.9], totals[1], strict=True)]
    assert min(agree.values()) >= 19, agree
    assert abs(sum(off) / len(off)) <= 0.1


# -- the interval, noise, batches ---------------------------------------------------------------


def test_the_interval_covers_the_truth(pair):
    p, q, known = pair
    settings = Divergence(batch=4096, nodes=24)
    hits = 0
    for k in range(100):
        low, high = settings([seen(p, 100, 0.7, 3 * k)], q, p, generator=seeded(k)).interval
        hits += low <= known <= high
    assert hits >= 85


def narrow(seed):
    variances = 0.15 + 0.2 * torch.rand(10, generator=seeded(seed + 1), dtype=torch.float64)
    return GaussianPrior(0.05 * normal(seed).mean, torch.diag(variances))


def test_measurement_noise_does_not_change_it():
    p, q = narrow(1), normal(3, shift=0.7)
    args, settings = (p, 4000, 0.7, 3), Divergence(batch=4096, nodes=24)
    clean = settings([seen(*args)], q, p).total
    assert settings([seen(*args, 0.1)], q, p).total == pytest.approx(clean, rel=0.05)
    # what is lost is the part below the noise; from there on it is the same
    for sigma, bias in ((0.1, 0.02), (0.3, 0.1)):
        above = Divergence(batch=4096, nodes=24, low=sigma)
        known = above([seen(*args)], narrow(5), p).total
        noisy = above([seen(*args, sigma)], narrow(5), p)
        assert float(noisy.levels[0]) == pytest.approx(sigma)
        assert noisy.total == pytest.approx(known, rel=bias / 4)
        # noise that is not stated is taken for the image, and shows
        wrong = above([seen(*args, sigma, said=0.0)], narrow(5), p).total
        assert wrong > (1 + bias) * known


def test_levels_begin_at_the_noise_and_measurements_of_less_noise_begin_earlier(pair):
    p, q, known = pair
    mixed = [seen(p, 1500, 0.7, 3, 0.3), seen(p, 1500, 0.7, 13, 0.05)]
    curve = WHOLE(mixed, q, p)
    assert float(curve.levels[0]) == pytest.approx(0.05)
    assert curve.total == pytest.approx(known, rel=0.05)


def test_batches_and_the_cut_into_measurements_do_not_matter(pair):
    p, q, _ = pair
    m = seen(p, 9, 0.7, 3, 0.1)
    whole = WHOLE([m], q, p).total
    assert Divergence(batch=2)([m], q, p).total == pytest.approx(whole, rel=1e-10)
    assert WHOLE(list(m), q, p).total == pytest.approx(whole, rel=1e-10)
    assert WHOLE([m], q, p, generator=generators(0, 9)).total == whole
    assert WHOLE([m], q, p, generator=seeded(5)).total != whole
    done = []
    WHOLE([m], q, p, callback=done.append)
    assert done == list(range(1, 41))


def test_priors_of_other_ranges_and_precisions_are_converted(pair):
    p, q, _ = pair

    def unit(v, sigma):  # q for images in [0, 1]
        return (q.denoise(2 * v - 1, 2 * sigma) + 1) / 2

    m = [seen(p, 20, 0.7, 3)]
    known = WHOLE(m, q, p).total
    settings = Divergence(batch=4096, range=(-1.0, 1.0))
    other = CallableDenoiser(unit, range=(0.0, 1.0))
    assert settings(m, other, p).total == pytest.approx(known, rel=1e-9)
    # measurements in [0, 1]: levels and fill follow, and the divergence is what it was
    x = (p.sample(20, seeded(3)) + 1) / 2
    half = [through(Mask(SHAPE, masks(20, 0.7, 4)), x)]
    reference = CallableDenoiser(lambda v, s: (p.denoise(2 * v - 1, 2 * s) + 1) / 2, range=(0, 1))
    curve = WHOLE(half, other, reference)
    assert curve.total == pytest.approx(known, rel=1e-5)
    assert torch.allclose(curve.levels, WHOLE(m, q, p).levels / 2)
    single = [Measurement(m[0].operator, m[0].noise, m[0].y.float())]
    assert WHOLE(single, q, p).total == pytest.approx(known, rel=1e-3)


# -- ranking -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.0, 0.1])
def test_losses_differ_by_divergences(sigma, pair):
    p, q, known = pair
    r = normal(7)
    found = ranked([seen(p, 2000, 0.7, 3, sigma)], {"r": r, "q": q, "p": p}, settings=WHOLE)
    assert [rank.name for rank in found] == (
        ["p", "q", "r"] if known < p.divergence(r) else ["p", "r", "q"]
    )
    excess = {rank.name: rank.excess for rank in found}
    assert excess["p"] == 0 and found[0].interval == (0, 0)
    # noisy data tell nothing below their noise
    assert 10 * excess["q"] == pytest.approx(known, rel=0.05 if sigma == 0 else 0.1)
    assert 10 * excess["r"] == pytest.approx(p.divergence(r), rel=0.05 if sigma == 0 else 0.1)
    assert found[1].interval[0] < found[1].excess < found[1].interval[1]


def test_no_prior_is_rewarded_for_reproducing_noise():
    """With noise taken for image the prior of the noisy images would fit best."""
    eye = torch.eye(10, dtype=torch.float64)
    p = GaussianPrior(normal(1).mean, 0.04 * eye)
    noisy = GaussianPrior(normal(1).mean, (0.04 + 0.09) * eye)
    both = {"noisy": noisy, "p": p}
    right = ranked([seen(p, 400, 0.7, 3, 0.3)], both, settings=WHOLE)
    wrong = ranked([seen(p, 400, 0.7, 3, 0.3, said=0.0)], both, settings=WHOLE)
    assert [right[0].name, wrong[0].name] == ["p", "noisy"]
    assert right[1].interval[0] > 0


def test_mixtures_are_ranked_without_a_reference():
    p = mixture(1)
    moved = {f"{by}": mixture(1, by) for by in (0.8, 0.0, 0.4)}
    settings = Divergence(batch=4096, nodes=16)
    for keep in (0.9, 0.3):
        data = [seen(p, 100, keep, 3)]
        for how in (settings, None):
            found = ranked(data, moved, settings=how)
            assert [rank.name for rank in found] == ["0.0", "0.4", "0.8"]


# -- adaptation --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy():
    return fitted(normal(2))


def test_adaptation_halves_the_divergence_and_helps_reconstruction(toy, pair):
    p, q, _ = pair
    before = {name: value.clone() for name, value in toy.state_dict().items()}
    looks = []
    adapted = Adaptation(lr=3e-3, steps=300, batch=32)(
        toy,
        [seen(p, 64, 0.7, 21), seen(p, 64, 0.5, 31)],
        callback=lambda *look: looks.append(look),
    )
    assert all(torch.equal(before[k], v) for k, v in toy.state_dict().items())
    fresh = [seen(p, 400, 0.7, 11)]
    assert WHOLE(fresh, adapted, p).total < 0.7 * WHOLE(fresh, toy, p).total
    assert p.divergence(moments(adapted)) < 0.7 * p.divergence(moments(toy))
    assert ranked(fresh, {"toy": toy, "adapted": adapted}, settings=WHOLE)[0].name == "adapted"
    # the exact posterior mean under what the prior has become, on data with holes and noise
    x = p.sample(300, seeded(41))
    m = through(Mask(SHAPE, masks(300, 0.5, 42)), x, 0.2)
    errors = [
        float((moments(prior).given(m).mean - x).square().mean()) for prior in (toy, adapted, toy)
    ]
    assert errors[1] < 0.8 * errors[0]
    card = adapted.card
    assert card["licence"] == "toys only" and card["name"] == "toy-adapted"
    assert card["init"] == {"file": "toy", "licence": "toys only"}
    start, best = card["adaptation"]["held_out_loss"]
    assert best < start and best == min(loss for _, loss in looks)
    assert card["adaptation"]["measurements"] == 128
    assert not any(w.requires_grad for w in adapted.parameters()) and not adapted.training


def test_adaptation_does_not_learn_the_noise(toy):
    """Data of noise 0.5: the mean is that of the images, the variance not that of the data."""
    p = GaussianPrior(normal(1).mean, 0.2 * torch.eye(10, dtype=torch.float64))
    how = Adaptation(lr=3e-3, steps=400, batch=64)
    data = [seen(p, 256, 0.8, 21, 0.4)]
    right = moments(how(toy, data), sigma=1.0)
    wrong = moments(how(toy, [Measurement(data[0].operator, Gaussian(0), data[0].y)]), sigma=1.0)
    variances = [float(g.covariance.diagonal(dim1=-2, dim2=-1).mean()) for g in (right, wrong)]
    assert abs(variances[0] - 0.2) < 0.07 and variances[1] > 0.3
    assert p.divergence(right) < p.divergence(wrong)


def test_it_stops_and_keeps_the_best(toy, pair):
    p, q, _ = pair
    looks = []
    with pytest.warns(UserWarning, match="no step improved"):
        same = Adaptation(lr=1.0, steps=200, every=4, patience=3)(
            toy, [seen(q, 16, 0.7, 21)], callback=lambda *look: looks.append(look)
        )
    assert len(looks) == 3
    assert all(torch.equal(same.state_dict()[k], v) for k, v in toy.state_dict().items())


def test_the_same_seed_gives_the_same_prior_and_images_may_fill_the_holes():
    torch.manual_seed(0)
    net = ConvUNet(1, widths=(4, 8), blocks=1, features=8)
    for w in net.parameters():
        torch.nn.init.normal_(w, std=0.05)
    prior, shape = EDMDenoiser(net, channels=1), (1, 8, 8)
    x = torch.full((16, *shape), 0.8)
    m = through(Mask(shape, random_mask(shape, 0.3, generator=generators(0, 16), n=16)), x)
    how = Adaptation(lr=5e-3, steps=40, every=4)
    made = [how(prior, [m]), how(prior, [m]), how(prior, [m], fill=x)]
    states = [list(each.state_dict().values()) for each in (*made, prior)]

    def same(i, j):
        return all(torch.equal(a, b) for a, b in zip(states[i], states[j], strict=True))

    assert made[0].card["adaptation"]["best_step"] > 0
    assert same(0, 1) and not same(0, 2) and not same(0, 3)
    assert made[0].card["licence"] == "that of a prior without a name, which states none"


def test_holes_are_grey_or_what_fills_them_and_noise_is_where_it_is_said_to_be():
    x = torch.full((2, *SHAPE), 0.8)
    m = through(Mask(SHAPE, torch.tensor([1.0] * 6 + [0.0] * 4)), x)
    grey = coordinates([m], [], (0.0, 1.0), fixed=True, by=WHOLE)
    fill = coordinates([m], [], (0.0, 1.0), fixed=True, by=WHOLE, fill=0 * x + 0.3)
    n = torch.ones_like(x)
    for data, middle in ((grey, 0.5), (fill, 0.3)):
        for spread in (False, True):
            u = data.noisy(0.1, n, data.seen(0.1), spread)
            assert torch.allclose(u[..., :6], torch.tensor(0.9))
            assert torch.allclose(u[..., 6:], torch.tensor(middle + 0.1 * spread))


@pytest.mark.filterwarnings("ignore:Adaptation")
@pytest.mark.parametrize("name", ["blur", "MRI"])
def test_networks_adapt_in_other_bases_and_can_be_saved(name, tmp_path):
    torch.manual_seed(0)
    complex_ = name == "MRI"
    net = ConvUNet(2 if complex_ else 1, widths=(4, 8), blocks=1, features=8)
    card = {"name": "tiny", "version": 2, "licence": "research only", "held_out_psnr": {"25": 1.0}}
    card |= {"init": {"file": "older@1", "licence": "research only"}, "units": "none"}
    prior = EDMDenoiser(
        net, channels=1, dtype=torch.complex64 if complex_ else torch.float32, card=card
    ).to(torch.bfloat16)
    shape = (1, 8, 8)
    if complex_:
        operator = CartesianMRI(shape, random_lines((8, 8), 2.0, 0.2, generator=generators(0, 10)))
        x = 0.5 * torch.randn(10, *shape, dtype=torch.complex64, generator=seeded(0))
    else:
        operator = GaussianBlur(shape, 0.5, size=3)
        x = 0.5 * torch.randn(10, *shape, generator=seeded(0))
    adapted = Adaptation(lr=1e-3, steps=8, every=4)(prior, [through(operator, x, 0.02)])
    assert next(adapted.net.parameters()).dtype == torch.bfloat16
    assert adapted.card["init"] == {
        "file": "tiny@2",
        "licence": "research only",
        "init": {"file": "older@1", "licence": "research only"},
    }
    assert adapted.card["units"] == "none" and "held_out_psnr" not in adapted.card
    ms.save(tmp_path / "adapted@1.safetensors", adapted)
    again = ms.load_prior(tmp_path / "adapted@1.safetensors")
    assert again.card["licence"] == "research only" and again.card["init"]["file"] == "tiny@2"


# -- what is refused ---------------------------------------------------------------------------


def test_measurements_that_share_one_mask_are_refused_unless_meant(pair, toy):
    p, q, _ = pair
    x = p.sample(12, seeded(0))
    m = [through(Mask(SHAPE, torch.tensor([1.0] * 7 + [0.0] * 3)), x)]
    for call in (
        lambda: WHOLE(m, q, p),
        lambda: ranked(m, {"p": p, "q": q}),
        lambda: Adaptation()(toy, m),
    ):
        with pytest.raises(ValueError, match=r"70 %.*fixed=True"):
            call()
    curve = Divergence(batch=4096, fixed=True)(m, q, p)
    assert curve.partial and float(curve.coverage[0]) == pytest.approx(0.7)
    # what comes out is the divergence of the seven coordinates
    marginals = [
        GaussianPrior(g.mean[..., :7], g.covariance[0][:7, :7].contiguous()) for g in (p, q)
    ]
    x7 = through(Identity((1, 1, 7)).double(), x[..., :7])
    part = WHOLE([x7], marginals[1], marginals[0])
    assert curve.total == pytest.approx(part.total, rel=0.2)
    assert curve.per_dimension == pytest.approx(curve.total / 7)


def test_one_coordinate_that_nobody_sees_makes_it_partial(pair):
    p, q, _ = pair
    mask = masks(50, 0.7, 4)
    mask[..., 3] = 0
    curve = WHOLE([through(Mask(SHAPE, mask), p.sample(50, seeded(0)))], q, p)
    assert curve.partial and float(curve.coverage[-1]) == pytest.approx(0.9)


def test_a_single_measurement_has_no_interval(pair):
    p, q, _ = pair
    assert WHOLE([seen(p, 1, 1, 3)], q, p).interval == (0.0, math.inf)


def test_bad_input_is_named(pair, toy):
    p, q, _ = pair
    m = seen(p, 12, 0.7, 3)
    with pytest.raises(ValueError, match="no measurements"):
        WHOLE([], q, p)
    with pytest.raises(TypeError, match="Tensor among the measurements"):
        WHOLE([m.y], q, p)
    with pytest.raises(ValueError, match="different images"):
        WHOLE([m, through(Identity((1, 2, 5)), torch.zeros(2, 1, 2, 5))], q, p)
    flat = torch.zeros(2, 1, 8, 8)
    with pytest.raises(ValueError, match="different bases"):
        WHOLE(
            [through(Identity((1, 8, 8)), flat), through(GaussianBlur((1, 8, 8), 0.5), flat)], q, p
        )
    with pytest.raises(TypeError, match=r"ValidBlur.*GaussianBlur"):
        WHOLE([through(ValidBlur((1, 8, 8), gaussian_kernel(0.5, 3)), flat)], q, p)
    with pytest.raises(TypeError, match="Poisson"):
        WHOLE([Measurement(Identity(SHAPE), Poisson(), torch.ones(2, *SHAPE))], q, p)
    with pytest.raises(TypeError, match="complex"):
        mri = CartesianMRI((1, 8, 8), torch.ones(8))
        WHOLE([through(mri, torch.zeros(2, 1, 8, 8, dtype=torch.complex64))], q, p)
    with pytest.raises(TypeError, match="Denoiser"):
        WHOLE([m], "natural-color", p)
    with pytest.raises(ValueError, match="no less than the highest level"):
        Divergence(high=0.5)([seen(p, 4, 0.7, 3, 0.6)], q, p)
    broken = CallableDenoiser(lambda v, sigma: v * math.nan)
    with pytest.raises(FloatingPointError, match="not finite"):
        WHOLE([m], broken, p)
    with pytest.raises(ValueError, match="generators"):
        WHOLE([m], q, p, generator=generators(0, 5))
    for wrong in ({"nodes": 1}, {"low": 90.0}, {"exponent": math.nan}, {"confidence": 0.0}):
        with pytest.raises(ValueError, match="Divergence: got"):
            Divergence(**wrong)


def test_rankings_need_priors_and_one_range(pair):
    p, _, _ = pair
    m = [seen(p, 12, 0.7, 3)]
    with pytest.raises(ValueError, match="no priors"):
        ranked(m, {})
    a = CallableDenoiser(lambda v, s: v, range=(0.0, 1.0))
    b = CallableDenoiser(lambda v, s: v)
    with pytest.raises(ValueError, match=r"different ranges.*range="):
        ranked(m, {"a": a, "b": b})
    found = ranked(m, {"a": a, "b": b}, settings=Divergence(range=(-1.0, 1.0), nodes=4))
    assert found[1].excess == pytest.approx(0, abs=1e-9)


def test_adaptations_that_cannot_be_are_refused(pair, toy):
    p, q, _ = pair
    with pytest.raises(ValueError, match="7 measurements, wanted 8"):
        Adaptation()(toy, [seen(p, 3, 0.7, 3), seen(p, 4, 0.7, 5)])
    m = [seen(p, 12, 0.7, 3)]
    with pytest.raises(TypeError, match="wanted an EDMDenoiser"):
        Adaptation()(q, m)
    with pytest.raises(ValueError, match="images to fill in"):
        Adaptation()(toy, m, fill=torch.zeros(11, *SHAPE))
    with pytest.raises(TypeError, match="complex"):
        mri = CartesianMRI((1, 8, 8), torch.ones(8))
        Adaptation()(toy, [through(mri, torch.zeros(9, 1, 8, 8, dtype=torch.complex64))])
    with pytest.raises(ValueError, match="noise of"):
        Adaptation()(toy, [seen(p, 12, 0.7, 3, 90.0)])
    for wrong in ({"lr": 0.0}, {"steps": 0}, {"held_out": 0.0}, {"seed": -1}):
        with pytest.raises(ValueError, match="Adaptation: got"):
            Adaptation(**wrong)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Adaptation(steps=40, lr=1e-3)(toy, [seen(p, 8, 0.7, 3)])  # the smallest that goes
