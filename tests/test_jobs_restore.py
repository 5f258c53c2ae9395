"""What a reconstruction is made of: the default weight, who takes which prior."""

import pytest
import torch

from measurand.jobs.restore import Loaded, prior_for, restore, suited, variation_weight
from measurand.measurement import Measurement
from measurand.metrics import psnr
from measurand.nets import Glow
from measurand.noises import Gaussian
from measurand.operators import (
    BlockAverage,
    GaussianBlur,
    Identity,
    Mask,
    MotionBlur,
    ParallelCT,
    even_angles,
)
from measurand.priors import (
    CallableDenoiser,
    CosineGaussian,
    FourierGaussian,
    TotalVariation,
    Wavelets,
)
from measurand.priors.flow import FlowPrior
from measurand.samplers import DiffPIR, PnPDM
from measurand.solvers import FISTA, HQS, PGM, PosteriorMean
from measurand.tensors import generators
from measurand.unfolded import FlowProximal, Fold, GradientStep, ShrinkStep, UnfoldedDR

STEP = Fold(GradientStep(), ShrinkStep())


def discs(n):
    """A few flat discs, with shape (1, 1, n, n) in [-1, 1]."""
    i, j = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    x = torch.full((n, n), -1.0)
    for top, left, radius, value in ((0.5, 0.5, 0.4, 0.0), (0.4, 0.6, 0.15, 0.8)):
        x[(i - top * n) ** 2 + (j - left * n) ** 2 < (radius * n) ** 2] = value
    return x[None, None]


def problem(operator, sigma):
    x = discs(operator.in_shape[-1])
    y = Gaussian(sigma)(operator(x), generators(0, 1))
    return Measurement(operator, Gaussian(sigma), y), x


def test_the_weight_of_total_variation_knows_the_units_of_the_operator():
    m, _ = problem(GaussianBlur((1, 24, 24), 1.6), 0.04)
    assert variation_weight(m) == pytest.approx(2.5, rel=0.1)  # 0.1 / s: a blur determines little
    m, _ = problem(BlockAverage((1, 24, 24), 4), 0.01)
    assert variation_weight(m) == pytest.approx(5.0, rel=0.1)
    m, _ = problem(Identity((1, 24, 24)), 0.1)
    assert variation_weight(m) == pytest.approx(7.0, rel=1e-3)
    weights = []
    for pixel in (1.0, 0.1):  # the same tomograph, in pixels and in units ten times as long
        operator = ParallelCT((1, 24, 24), even_angles(8), pixel=pixel, spacing=pixel)
        weights.append(variation_weight(problem(operator, 0.5 * pixel)[0]))
    assert weights[0] == pytest.approx(weights[1], rel=1e-3)
    m, _ = problem(GaussianBlur((1, 24, 24), 1.6), 1e-9)
    assert variation_weight(m) == pytest.approx(15.8, rel=0.3)  # that of noise of 0.001


@pytest.mark.parametrize("sigma", [0.1, 0.4])
def test_the_weight_suits_denoising(sigma):
    m, x = problem(Identity((1, 48, 48)), sigma)

    def quality(weight):
        return float(psnr(FISTA(steps=60)(m, TotalVariation(weight=weight)), x, data_range=2.0))

    found = quality(variation_weight(m))
    assert found > quality(0.1 / sigma) + 3
    assert found > max(quality(f * variation_weight(m)) for f in (0.5, 2.0)) - 1


def test_the_weight_suits_sparse_tomography():
    m, x = problem(ParallelCT((1, 48, 48), even_angles(20)), 0.5)

    def quality(weight):
        found = FISTA(steps=60)(m, TotalVariation(weight=weight, tol=1e-3))
        return float(psnr(found, x, data_range=2.0))

    found = quality(variation_weight(m))
    assert found > quality(0.1 / 0.5) + 3
    assert found > max(quality(f * variation_weight(m)) for f in (0.1, 10.0))


def test_who_can_use_total_variation():
    tv = TotalVariation(weight=1.0)
    for method in (FISTA(), PGM()):
        suited(method, tv)
    for method in (HQS(), DiffPIR()):
        with pytest.raises(ValueError, match=f"{type(method).__name__} wants.*--method fista"):
            suited(method, tv)
        with pytest.raises(ValueError, match=r"wants a Denoiser .*; got a object: use another "):
            suited(method, object())


def test_no_draw_is_no_result():
    m, _ = problem(GaussianBlur((1, 8, 8), 1.0), 0.1)
    with pytest.raises(ValueError, match="draws = 0, wanted at least 1"):
        restore(m, TotalVariation(weight=1.0), FISTA(steps=1), draws=0)
    with pytest.raises(ValueError, match="batch = 0, wanted at least 1"):
        restore(m, TotalVariation(weight=1.0), FISTA(steps=1), batch=0)


def measured_twice():
    prior = CosineGaussian.example().double()
    x = prior.sample(1).expand(2, *prior.shape)  # twice the same image and the same data
    operator, noise = GaussianBlur(prior.shape, 1.0), Gaussian(0.1)
    y = noise(operator(x[:1]), generators(0, 1)).expand(2, *prior.shape)
    return Measurement(operator, noise, y), prior


def test_draws_of_several_items():
    m, prior = measured_twice()
    method = PnPDM(sweeps=3, rho_max=0.3)
    result = restore(m, prior, method, draws=5)
    assert result.draws.shape == (5, 2, 1, 8, 8)
    assert (
        torch.equal(result.estimate, result.draws.mean(0)) and result.estimate.shape == m.y.shape
    )
    assert torch.equal(result.sd, result.draws.std(0)) and result.sd.shape == m.y.shape
    assert result.nfe == method.nfe and result.seconds > 0
    # the noise of a draw depends on (seed, item, number of the draw) and on nothing else
    for draws, batch in ((5, 1), (3, 4), (5, 20)):
        again = restore(m, prior, method, draws=draws, batch=batch).draws
        assert torch.allclose(again, result.draws[:draws], atol=1e-10)
    every = result.draws.flatten(0, 1)
    apart = torch.cdist(every.flatten(1), every.flatten(1)) + torch.eye(10)
    assert float(apart.min()) > 0.1
    assert float((restore(m, prior, method, draws=5, seed=1).draws - every[0]).abs().min()) > 0


def test_draws_of_one_item_are_those_of_the_generators_of_the_seed():
    m, prior = measured_twice()
    method = PnPDM(sweeps=3, rho_max=0.3)
    result = restore(m[:1], prior, method, draws=3, seed=7)
    wanted = method(m[:1].repeat(3), prior, generator=generators(7, 3))
    assert torch.equal(result.draws[:, 0], wanted)
    assert torch.allclose(restore(m, prior, method, draws=3, seed=7).draws[:, 0], wanted)
    assert restore(m, prior, PnPDM(sweeps=1)).draws.shape[:2] == (8, 2)


def test_the_spread_of_one_draw_is_not_known():
    m, prior = measured_twice()
    assert restore(m, prior, PnPDM(sweeps=1), draws=1).sd is None
    estimate = restore(m, prior, HQS(steps=2))
    assert estimate.draws is None and estimate.sd is None and estimate.nfe == 2
    assert torch.equal(estimate.estimate, HQS(steps=2)(m, prior, generator=generators(0, 2)))


def test_what_is_no_method_is_refused():
    m, prior = measured_twice()
    for thing in (HQS, prior):
        with pytest.raises(TypeError, match="wanted a method"):
            restore(m, prior, thing)
    with pytest.raises(TypeError, match=r"measurand.load\('natural-color'\)"):
        restore(m, "natural-color", HQS())


def test_unfolded_networks_are_tiled_and_their_calls_counted():
    """The networks of the steps see tiles; flows see all, and a note says so."""
    m = Measurement(GaussianBlur((3, 24, 40), 1.6), Gaussian(0.04), torch.zeros(1, 3, 24, 40))
    network, _, notes = prior_for(Loaded(UnfoldedDR.tiny(), {"name": "u"}), m, tile=32)
    assert network.tile == 32 and "overlapping tiles of 32 pixels" in notes[0]
    same, _, notes = prior_for(Loaded(UnfoldedDR.tiny(), {"name": "u"}), m, tile=40)
    assert same.tile is None and not notes
    assert restore(m, network, PosteriorMean()).nfe == network.depth == 2
    prior = FlowPrior(Glow.tiny(channels=3), shape=(3, 24, 40))
    flow, _, notes = prior_for(
        Loaded(FlowProximal(prior, [Fold(GradientStep(), ShrinkStep())]), {"name": "f"}),
        m,
        tile=32,
    )
    assert isinstance(flow, FlowProximal) and "only denoisers are tiled" in notes[0]


def test_an_unfolded_network_of_colour_images_restores_grey_ones():
    """Of a prior that knows grey images only, exactly what the grey network makes of them."""
    k = torch.fft.fftfreq(24) * 24
    power = 1 / (4 + k[:, None] ** 2 + k**2) ** 1.4
    prior = FourierGaussian(torch.zeros(1, 1, 24, 24), 0.16 * power / power.mean())

    def in_colour(v, sigma):  # the mean of three channels has the noise over the root of three
        return prior.denoise(v.mean(1, keepdim=True), sigma / 3**0.5).expand_as(v)

    blocks = [CallableDenoiser(prior.denoise), CallableDenoiser(in_colour)]
    for block, channels in zip(blocks, (1, 3), strict=True):
        block.channels = channels
    grey, colour = (UnfoldedDR([block], 4) for block in blocks)
    for operator in (GaussianBlur((1, 24, 24), 1.2), BlockAverage((1, 24, 24), 2)):
        m = Measurement(operator, Gaussian(0.05), Gaussian(0.05)(operator(prior.sample(1))))
        same, _, notes = prior_for(Loaded(colour, {"name": "c"}), m, tile=512)
        assert "shown to c as 3 equal channels" in notes[0]
        wanted = PosteriorMean()(m, grey)
        assert torch.allclose(PosteriorMean()(m, same), wanted, atol=1e-4)
        assert float(psnr(wanted, prior.sample(1), data_range=2.0)) > 15
    tiled, _, notes = prior_for(Loaded(colour, {"name": "c"}), m, tile=16)
    assert tiled.tile == 16 and len(notes) == 2 and "overlapping tiles" in notes[1]
    assert colour.priors[0] is blocks[1] and colour.tile is None  # the network is as it was
    assert colour.in_grey().depth == 4
    flow = FlowProximal(FlowPrior(Glow.tiny(3), shape=(3, 24, 24)), [STEP])
    with pytest.raises(ValueError, match="asks for 1; for a grey image use --prior natural-color"):
        prior_for(Loaded(flow, {"name": "f"}), m)


def test_a_network_of_flows_says_what_it_was_trained_on_where_that_is_another_kind():
    shape = (3, 16, 16)
    network = FlowProximal(FlowPrior(Glow.tiny(3), shape=shape), [STEP])

    def notes(kind, operator):
        network.card = {} if kind is None else {"recipe": {"kind": kind}}
        m = Measurement(operator, Gaussian(0.04), torch.zeros(1, *shape))
        return prior_for(Loaded(network, {"name": "f"}), m)[2]

    mask = Mask(shape, torch.ones(1, 16, 16))
    said = notes("GaussianBlurs(low=1.0, high=2.0, elongated=False)", mask)
    assert said[0].startswith("f was trained on GaussianBlurs(low=1.0") and len(said) == 1
    for kind, operator in (
        ("GaussianBlurs()", GaussianBlur(shape, 1.6)),
        ("GaussianBlurs()", MotionBlur(shape, 5.0)),
        ("MissingPixels(low=0.3, high=0.7)", mask),
        ("Denoising()", Identity(shape)),
        ("Scratches()", mask),
        ("drawn", mask),
        ("", mask),
        (None, mask),
    ):
        assert notes(kind, operator) == []


def test_a_penalty_without_a_weight_follows_the_noise():
    for sigma in (0.02, 0.1):
        m = Measurement(Identity((3, 8, 8)), Gaussian(sigma), torch.zeros(1, 3, 8, 8))
        kinds = ("wavelets", Wavelets, 0.5), ("total-variation", TotalVariation, 0.7)
        for name, kind, share in kinds:
            prior, record, _ = prior_for(name, m)
            assert isinstance(prior, kind) and prior.weight == pytest.approx(share / sigma)
            assert record == {"name": name, "weight": prior.weight}
        prior, record, _ = prior_for("wavelets:3", m)
        assert prior == Wavelets(weight=3.0) and record == {"name": "wavelets", "weight": 3.0}
        assert FISTA(steps=2)(m, prior).shape == m.y.shape
        with pytest.raises(ValueError, match="HQS wants a Denoiser.* got a Wavelets: .*fista"):
            suited(HQS(), prior)
    with pytest.raises(ValueError, match="wanted wavelets or wavelets:WEIGHT"):
        prior_for("wavelets:much", m)
