"""Unfolded networks with exact denoisers against the posterior mean of a Gaussian image."""

import math

import pytest
import torch
from known_answers import Matrix

from measurand.batches import Batch
from measurand.measurement import Measurement
from measurand.nets import ConvUNet, Glow
from measurand.noises import ComplexGaussian
from measurand.noises import Gaussian as Noise
from measurand.operators import Blur, CartesianMRI, Identity, Mask, ParallelCT, even_angles
from measurand.priors import CallableDenoiser, FourierGaussian, Gaussian
from measurand.priors.edm import EDMDenoiser
from measurand.priors.flow import FlowPrior
from measurand.tensors import generators, randn_like
from measurand.unfolded import (
    FlowProximal,
    Fold,
    GradientStep,
    ProximalStep,
    ShrinkStep,
    UnfoldedDR,
    UnfoldedHQS,
    UnfoldedPGM,
)
from measurand.unfolded.physics import DataTerm, features, settled
from measurand.unfolded.score_matching import posterior_loss

N = 64


def gaussian():
    i = torch.arange(N, dtype=torch.float64)
    return Gaussian(torch.full((1, N), 0.1).double(), 0.25 * 0.8 ** (i[:, None] - i).abs())


def rows(name):
    """Dense operators on 64 pixels: blur, average of four, 60 % missing, random projections."""
    g = torch.Generator().manual_seed(0)
    eye = torch.eye(N, dtype=torch.float64)
    if name == "blur":
        i = torch.arange(N)
        away = (i[:, None] - i + N // 2) % N - N // 2
        kernel = torch.exp(-0.5 * (away.double() / 2) ** 2)
        return kernel / kernel.sum(1, keepdim=True)
    if name == "average":
        return eye.reshape(N // 4, 4, N).mean(1)
    if name == "missing":
        return eye[torch.rand(N, generator=g) > 0.6]
    return torch.randn(N // 2, N, generator=g, dtype=torch.float64) / N**0.5


def problem(name, seed=0, n=3):
    matrix, prior = rows(name), gaussian()
    x = prior.sample(n, torch.Generator().manual_seed(seed))
    operator = Matrix(matrix)
    y = Noise(0.05)(operator(x), torch.Generator().manual_seed(seed + 1))
    return prior, x, Measurement(operator, Noise(0.05), y)


def exact(kind, prior, depth, **options):
    """The network with the exact denoiser and beta = 1."""
    network = kind([prior], depth, sigma_data=0.5, **options).double()
    if kind is UnfoldedDR:
        network.beta.data.fill_(60.0)
    return network


def steady(network):
    """The network with one radius, rho = 0.35, in all its steps."""
    network.radii = lambda places, problem: [
        (problem.sigma**-2 + 0.35**-2).rsqrt() for _ in places
    ]
    return network


def distance(network, name, s_t):
    prior, x, measurement = problem(name)
    v = x + s_t * torch.randn(x.shape, generator=torch.Generator().manual_seed(5)).double()
    wanted = prior.given(measurement).denoise(v, s_t)
    with torch.no_grad():
        found = network.given(measurement).denoise(v, s_t)
    return float((found - wanted).norm() / wanted.norm())


def test_the_start_fills_holes_and_leaves_no_noise_in_them():
    """With D(v, r) = v nothing moves the start where nothing was measured."""
    prior = CallableDenoiser(lambda v, sigma: v)
    mask = torch.ones(1, 16, 16)
    mask[:, 4:12, 4:12] = 0
    x = torch.full((1, 3, 16, 16), 0.7)
    m = Measurement(Mask((3, 16, 16), mask), Noise(0.01), x * mask)
    network = steady(UnfoldedDR([prior], 3))
    with torch.no_grad():
        found = network(80 * torch.randn(x.shape), torch.tensor([80.0]), m)
    assert float((found - x).abs().max()) < 0.05


def test_posterior_score_is_the_denoiser_of_the_posterior():
    prior, x, measurement = problem("blur")
    v = (x + 0.3).requires_grad_()
    posterior = prior.given(measurement)
    (score,) = torch.autograd.grad(posterior.log_prob(v, 0.4).sum(), v)
    assert torch.allclose(score, (posterior.denoise(v, 0.4) - v) / 0.4**2, atol=1e-10)


@pytest.mark.parametrize("s_t", [0.05, 0.5, 5.0])
@pytest.mark.parametrize("name", ["blur", "average", "missing", "random"])
def test_douglas_rachford_converges_to_the_posterior_mean(name, s_t):
    assert distance(steady(exact(UnfoldedDR, gaussian(), 50)), name, s_t) < 1e-6
    assert distance(exact(UnfoldedDR, gaussian(), 100), name, s_t) < 1e-6  # as radii shrink


@pytest.mark.parametrize("name", ["blur", "missing"])
def test_an_image_without_noise_is_its_own_posterior_mean(name):
    prior, x, measurement = problem(name)
    network = exact(UnfoldedDR, prior, 20)
    for sigma in (0.0, 1e-20):
        found = network.given(measurement).denoise(x, sigma).detach()
        assert float((found - x).abs().max()) < 1e-3


def test_below_one_beta_weighs_the_data():
    """At the fixed point beta grad G + grad R = 0: all noise counts as if divided by its root."""
    prior, x, measurement = problem("blur")
    beta, v, s_t = 0.8, x + 0.1, 0.5
    network = steady(exact(UnfoldedDR, prior, 100))
    network.beta.data.fill_(math.log(beta / (1 - beta)))
    louder = Measurement(measurement.operator, Noise(0.05 / beta**0.5), measurement.y)
    wanted = prior.given(louder).denoise(v, s_t / beta**0.5)
    with torch.no_grad():
        found = network.given(measurement).denoise(v, s_t)
    assert float((found - wanted).norm() / wanted.norm()) < 1e-6


def test_half_quadratic_stays_biased():
    names = ("blur", "average", "missing", "random")
    fixed, shrinking = (
        steady(exact(UnfoldedHQS, gaussian(), 50)),
        exact(UnfoldedHQS, gaussian(), 100),
    )
    errors = [distance(fixed, name, s_t) for name in names for s_t in (0.05, 0.5, 5.0)]
    errors += [distance(shrinking, name, s_t) for name in names for s_t in (0.5, 5.0)]
    assert min(errors) >= 1e-2


def test_radii_shrink_from_the_image_to_the_noise():
    x, measurement = blurred()
    sigma, seen = torch.tensor([1e6, 1e6]), settled(measurement)
    problem = DataTerm(x, sigma, seen, features(sigma, seen))
    network = white(3, sigma_data=0.3)
    radii = torch.stack(network.radii(network.places(3), problem))
    low = 4 * measurement.sigma / measurement.operator.norm
    high = torch.full((2,), 2 * 0.3)
    assert torch.allclose(radii, torch.stack([high, (high * low).sqrt(), low]), rtol=1e-5)
    network.radius.second.bias.data = torch.tensor([0.5, -0.2]).atanh()
    high, low = high * math.exp(0.75), low * math.exp(-0.3)
    radii = torch.stack(network.radii(network.places(3), problem))
    assert torch.allclose(radii, torch.stack([high, (high * low).sqrt(), low]), rtol=1e-5)
    loud = settled(Measurement(measurement.operator, Noise(9.0), measurement.y))
    radii = network.radii((0.0, 1.0), DataTerm(x, sigma, loud, features(sigma, loud)))
    assert torch.equal(*radii)  # where noise is louder than the image, no radius grows
    near = torch.tensor([0.1, 0.1])  # x_t tells as much as the data
    assert torch.all(network.radii([0.0], DataTerm(x, near, seen, features(near, seen)))[0] < 0.1)


def test_step_sizes_lie_between_two_learned_ends():
    network = white(2)
    network.alpha.data = torch.tensor([0.0, 2.0])
    network.beta.data = torch.tensor([1.0, 5.0])
    for at, (alpha, beta) in ((0.0, (0.0, 1.0)), (0.5, (1.0, 3.0)), (1.0, (2.0, 5.0))):
        wanted = 1.5 * torch.tensor(alpha).sigmoid(), torch.tensor(beta).sigmoid()
        assert torch.allclose(torch.stack(network.relaxation(at)), torch.stack(wanted))
    _, measurement = blurred()
    sigma, seen = torch.tensor([0.5, 2.0]), settled(measurement)
    problem = DataTerm(measurement.y, sigma, seen, features(sigma, seen))
    descent = white(2, UnfoldedPGM)
    descent.radius.second.bias.data = torch.tensor([0.4, -0.4]).atanh()
    found = torch.stack(descent.radii((0.0, 0.5, 1.0), problem))
    m = 2 * torch.tensor([0.8, 0.0, -0.8]).sigmoid()[:, None] / problem.lipschitz
    assert torch.allclose(found, m.sqrt(), rtol=1e-5)


@pytest.mark.parametrize("kind", [UnfoldedDR, UnfoldedHQS, UnfoldedPGM])
def test_a_single_step_is_the_last_one(kind):
    x, measurement = blurred()
    network = white(1, kind)
    assert network.places(1) == [1.0]
    sigma, seen = torch.tensor([0.5, 80.0]), settled(measurement)
    problem = DataTerm(x, sigma, seen, features(sigma, seen))
    with torch.no_grad():
        found = network(x, sigma, seen)
        (r,) = network.radii([1.0], problem)
        assert torch.equal(found, network.step(0, 1.0, problem.start(0.5), r, problem)[0])
        if kind is UnfoldedDR:  # alone, it is the denoised proximal map at the last radius
            network.beta.data.fill_(-60.0)
            wanted = network.priors[0].denoise(problem.prox(problem.start(0.5), r), r)
            assert torch.allclose(network(x, sigma, seen), wanted, atol=1e-6)


def test_one_measurement_serves_many_noisy_images():
    x, measurement = blurred()
    network = shaken(3)
    noisy = torch.cat((x, x + 0.2))
    with torch.no_grad():
        found = network.given(measurement[:1]).denoise(noisy, 0.5)
        each = [network.given(measurement[:1]).denoise(v, 0.5) for v in noisy.split(1)]
    assert torch.allclose(found, torch.cat(each), atol=1e-5)


@pytest.mark.parametrize("kind", [UnfoldedDR, UnfoldedHQS, UnfoldedPGM])
def test_precisions_of_weights_and_images_may_differ(kind):
    x, measurement = blurred()
    network = white(3, kind)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    with torch.no_grad():
        wanted = network.given(measurement).denoise(x, 0.5)
        rounded = network.to(torch.bfloat16).given(measurement).denoise(x, 0.5)
        assert rounded.dtype == torch.float32
        assert torch.allclose(rounded, wanted, atol=0.05)


def test_proximal_gradient_converges_slowly():
    errors = [distance(exact(UnfoldedPGM, gaussian(), k), "average", 0.5) for k in (8, 50, 500)]
    assert errors[0] > errors[1] > errors[2] and errors[0] > 1e-2 and errors[2] < 1e-5


def white(depth, kind=UnfoldedDR, **options):
    """An untrained network on small images: its denoiser is that of white images."""
    torch.manual_seed(0)
    net = ConvUNet(1, widths=(8,), blocks=1, stem=1, features=8)
    return kind([EDMDenoiser(net, channels=1)], depth, **options)


def blurred(n=2, size=12):
    kernel = torch.tensor([[0.1, 0.2, 0.1], [0.0, 0.4, 0.2]])
    operator = Blur((1, size, size), kernel)
    x = 0.5 * torch.randn(n, 1, size, size, generator=torch.Generator().manual_seed(0))
    noise = Noise(torch.linspace(0.05, 0.1, n))
    return x, Measurement(operator, noise, noise(operator(x), torch.Generator().manual_seed(1)))


def test_an_untrained_network_tends_to_the_wiener_solution():
    x, measurement = blurred()
    prior = FourierGaussian(torch.zeros(1, 1, 12, 12), torch.full((1, 12, 12), 0.25))
    v = x + 0.7 * randn_like(x, generators(3, 2))
    wanted = prior.given(measurement).denoise(v, 0.7)
    errors = []
    for depth in (2, 4, 50):
        network = white(depth)
        network.beta.data.fill_(60.0)
        with torch.no_grad():
            errors.append(float((network.given(measurement).denoise(v, 0.7) - wanted).norm()))
    assert errors[0] > errors[1] > errors[2] and errors[2] < 1e-4 * float(wanted.norm())


@pytest.mark.parametrize("kind", [UnfoldedDR, UnfoldedHQS, UnfoldedPGM])
def test_the_physics_reaches_a_prior_only_through_v(kind):
    """At the same (v, r) a prior gives the same bits, whatever the operator is."""
    x, measurement = blurred()
    network = white(3, kind)
    for p in network.priors.parameters():
        torch.nn.init.normal_(p, std=0.1)
    calls, answers = [], []
    inner = network.priors[0].denoise
    fixed = torch.full_like(x, 0.3), torch.tensor([0.2, 0.6])

    def watched(*words):
        calls.append(words)
        answers.append(inner(*fixed))  # while one or the other operator is in use
        return inner(*words)

    network.priors[0].denoise = watched
    other = Measurement(Mask((1, 12, 12), torch.eye(12)), Noise(0.02), measurement.y)
    with torch.no_grad():
        for seen in (measurement, other):
            network.given(seen).denoise(x, 0.5)
    assert len(calls) == 6 and all(len(words) == 2 for words in calls)
    assert all(v.shape == x.shape and r.shape == (2,) for v, r in calls)
    assert all(torch.equal(answer, answers[0]) for answer in answers)
    names = set(network.state_dict())
    assert not any("operator" in name or "measurement" in name for name in names)
    assert {name.split(".")[0] for name in names} <= {
        "priors",
        "radius",
        "spread",
        "alpha",
        "beta",
    }


def test_the_network_is_told_of_a_problem_by_three_numbers():
    _, measurement = blurred()
    sigma = torch.tensor([0.3, 2.0])
    told = features(sigma, settled(measurement))
    assert torch.allclose(told[:, 0].exp(), sigma)
    assert torch.allclose(told[:, 1].exp(), measurement.sigma / measurement.operator.norm)
    one = Measurement(Identity((1, 4, 4)), Noise(0.0), torch.zeros(2, 1, 4, 4))
    assert features(sigma, settled(one))[:, 1:].exp().tolist() == pytest.approx(
        torch.tensor([[1e-3, 1.0]] * 2)
    )


@pytest.mark.parametrize("kind", [UnfoldedDR, UnfoldedHQS, UnfoldedPGM])
def test_an_item_does_not_depend_on_its_neighbours(kind):
    x, measurement = blurred()
    operator = Blur(
        (1, 12, 12), torch.rand(2, 1, 3, 3) * torch.tensor([1.0, 4.0])[:, None, None, None]
    )
    measurement = Measurement(operator, measurement.noise, measurement.y)
    network = white(2, kind)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    with torch.no_grad():
        both = network.given(measurement).denoise(x, 0.7)
        for i in range(2):
            alone = network.given(measurement[i]).denoise(x[i : i + 1], 0.7)
            assert torch.allclose(both[i : i + 1], alone, atol=1e-5)
    with pytest.raises(ValueError, match="got 4 images for Measurement"):
        network.given(measurement).denoise(x.repeat(2, 1, 1, 1), 0.7)


@pytest.mark.parametrize("factor", [3.0, 1e-4])
def test_dividing_a_problem_by_a_number_changes_nothing(factor):
    x, measurement = blurred()
    network = white(2)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    scaled = Measurement(
        factor * measurement.operator, measurement.noise.scaled(factor), factor * measurement.y
    )
    with torch.no_grad():
        a, b = (network.given(m).denoise(x, 0.7) for m in (measurement, scaled))
    assert torch.allclose(a, b, atol=1e-5)


def test_each_operator_of_a_batch_has_its_own_trace():
    mask = torch.stack([torch.eye(4), torch.ones(4, 4)])[:, None]
    operator = Mask((1, 4, 4), mask)
    assert operator.traces == [0.25, 1.0]
    assert operator[1:].traces == [1.0] and (2.0 * operator).traces == [1.0, 4.0]


@pytest.mark.parametrize("kind", [UnfoldedDR, UnfoldedHQS, UnfoldedPGM])
def test_gradients_are_those_of_finite_differences(kind):
    _, x, measurement = problem("average", n=1)
    network = exact(kind, gaussian(), 3)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.3)
    seen, x = settled(measurement), x.requires_grad_()
    sigma = torch.tensor([0.4]).double().requires_grad_()
    weights = dict(network.named_parameters())

    def last(v, s, *values):
        given = dict(zip(weights, values, strict=True))
        return torch.func.functional_call(network, given, (v, s, seen))[:, ::9]

    assert torch.autograd.gradcheck(last, (x, sigma, *weights.values()), nondet_tol=1e-12)


def batch_of(x, measurement, early=0.0):
    fields = {
        "x": x,
        "sigma": torch.tensor([0.3, 4.0]),
        "noise": randn_like(x, generators(7, 2)),
        "measurement": settled(measurement),
    }
    return Batch(fields, {"early": early})


def test_recomputing_changes_nothing_and_all_weights_learn():
    x, measurement = blurred()
    grads = []
    for recompute in (False, True):
        network = white(3, recompute=recompute)
        for p in network.parameters():
            torch.nn.init.normal_(p, std=0.1)
        posterior_loss(network, batch_of(x, measurement, early=0.1)).mean().backward()
        grads.append([p.grad for p in network.parameters()])
    assert all(g is not None and g.abs().max() > 0 for g in grads[0])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))


def test_loss_is_the_weighted_error():
    x, measurement = blurred()
    network, batch = white(2), batch_of(x, measurement)
    with torch.no_grad():
        sigma = batch["sigma"]
        z = network(x + sigma[:, None, None, None] * batch["noise"], sigma, batch["measurement"])
        error = (z - x).square().flatten(1).mean(1)
        wanted = (sigma**2 + 0.25) / (0.5 * sigma) ** 2 * error
        assert torch.allclose(posterior_loss(network, batch), wanted)
        halves = [posterior_loss(network, batch.rows(slice(i, i + 1))) for i in (0, 1)]
    assert torch.allclose(torch.cat(halves), wanted, rtol=1e-5)


def test_loss_weighs_by_the_error_to_expect_and_counts_early_steps():
    """The formula written out, where no number in it is 0 or 1, and lambda at its bound."""
    x, measurement = blurred()
    network = white(3)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.2)
    batch = batch_of(x, measurement, early=0.1)
    batch = batch.adding({"sigma": torch.tensor([0.3, 0.002])})
    sigma, early = batch["sigma"], 0.1
    with torch.no_grad():
        noisy = x + sigma[:, None, None, None] * batch["noise"]
        found = network.steps(noisy, sigma, batch["measurement"])
        w = 8 * network.spread(features(sigma, batch["measurement"]))[:, 0]
        heavy = torch.tensor([(0.3**2 + 0.25) / (0.3 * 0.5) ** 2, 1e4])  # 2.5e5 without a bound
        *before, last = [heavy * (z - x).square().flatten(1).mean(1) for z in found]
        wanted = torch.exp(-w) * (last + early * (before[0] + before[1])) + w
        assert w.abs().min() > 0.1 and wanted.isfinite().all()
        assert torch.allclose(posterior_loss(network, batch), wanted, rtol=1e-5)


def test_autocast_is_for_the_prior_alone():
    """Physics stays in float32; some of it, as sparse matrices, has no other precision."""
    operators = (ParallelCT((1, 12, 12), even_angles(8)), Matrix(torch.randn(90, 144)))
    for operator in operators:
        x = torch.randn(2, *operator.in_shape)
        measurement = Measurement(operator, Noise(0.1), operator(x))
        sigma = torch.full((2,), 0.5)
        posed = DataTerm(x, sigma, measurement, features(sigma, measurement))
        steps = (GradientStep(), ProximalStep())
        wanted = [posed.prox(x, sigma), posed.start(0.5), posed.gradient(x)]
        wanted += [step(x, measurement) for step in steps]
        with torch.autocast("cpu", torch.bfloat16):
            found = [posed.prox(x, sigma), posed.start(0.5), posed.gradient(x)]
            found += [step(x, measurement) for step in steps]
        for a, b in zip(found, wanted, strict=True):
            assert a.dtype == torch.float32 and torch.equal(a, b)
    operator = ParallelCT((1, 12, 12), even_angles(8))  # whose norm nobody has asked for yet
    measurement = Measurement(operator, Noise(0.1), torch.zeros(2, *operator.out_shape))
    x, flow = torch.randn(2, 1, 12, 12), FlowPrior(Glow.tiny(channels=1), shape=(1, 12, 12))
    network = FlowProximal(flow, [Fold(GradientStep(), ShrinkStep())])
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert features(torch.full((2,), 0.5), measurement).dtype == torch.float32
        assert white(2)(x, torch.full((2,), 0.5), measurement).shape == x.shape
        assert network(measurement).shape == x.shape


def test_tiles_are_for_the_prior_alone():
    """With a prior that sees single pixels, tiles change nothing; the physics has no edges."""
    x, measurement = blurred(size=40)
    network, sigma = white(3), torch.tensor([0.3, 4.0])
    tiled, called = network.with_tiles(16), []
    network.priors[0].net.register_forward_hook(lambda *a: called.append(a[1][0].shape[-1]))
    with torch.no_grad():
        whole, parts = (n(x, sigma, settled(measurement)) for n in (network, tiled))
    assert set(called) == {40, 16} and torch.allclose(whole, parts, atol=1e-5)
    assert network.tile is None


def test_the_presets_have_the_size_that_is_said():
    for made, depth, blocks, millions in (
        (UnfoldedDR.full(), 4, 4, 47.0),
        (UnfoldedDR.small(), 4, 1, 4.5),
        (UnfoldedDR.tiny(), 2, 1, 0.22),
        (UnfoldedHQS.tiny(1), 2, 1, 0.22),
    ):
        count = sum(p.numel() for p in made.parameters()) / 1e6
        assert (made.depth, len(made.priors)) == (depth, blocks)
        assert count == pytest.approx(millions, rel=0.03)


def test_a_wrong_number_of_priors_is_refused():
    with pytest.raises(ValueError, match="got 2 priors for 3 steps"):
        UnfoldedDR([torch.nn.Identity()] * 2, 3)


def shaken(depth):
    network = white(depth)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return network


def test_steps_are_added_and_left_out():
    x, measurement = blurred()
    network = shaken(4)
    longer, shorter = network.with_depth(7), network.with_depth(2)
    assert (longer.depth, shorter.depth, network.depth) == (7, 2, 4)
    sigma = torch.tensor([0.5, 80.0])
    problem = DataTerm(x, sigma, settled(measurement), features(sigma, measurement))
    for other in (longer, shorter):
        assert other.places(other.depth)[:: other.depth - 1] == [0.0, 1.0]
        for at in (0.0, 0.5, 1.0):
            assert torch.equal(other.radii([at], problem)[0], network.radii([at], problem)[0])
            assert other.relaxation(at) == network.relaxation(at)
    with torch.no_grad():
        own = network.steps(x, sigma, measurement)
        for other in (longer, shorter):
            found = network.steps(x, sigma, measurement, other.depth)
            wanted = other.steps(x, sigma, measurement)
            assert torch.allclose(torch.stack(found), torch.stack(wanted), atol=1e-4)
            assert not torch.allclose(found[-1], own[-1], atol=1e-3)
        assert torch.allclose(own[-1], longer.with_depth(4)(x, sigma, measurement), atol=1e-4)
    frozen = network.to(torch.bfloat16).requires_grad_(False).eval().with_depth(9)
    assert not any(p.requires_grad for p in frozen.parameters()) and not frozen.training
    assert frozen.priors[0].net.stem.weight.dtype == frozen.alpha.dtype == torch.bfloat16
    weights = longer.priors[0].net.stem.weight
    weights.data.add_(1)  # its own copy
    assert not torch.allclose(weights, network.priors[0].net.stem.weight.float(), atol=0.5)


def test_loss_is_that_of_the_depth_that_it_is_told():
    x, measurement = blurred()
    network, batch = shaken(4), batch_of(x, measurement)
    with torch.no_grad():
        own = posterior_loss(network, batch)
        assert torch.equal(own, posterior_loss(network, {**batch, "depth": 4}))
        longer = posterior_loss(network, {**batch, "depth": 6})
        assert torch.allclose(longer, posterior_loss(network.with_depth(6), batch), rtol=1e-4)
        assert not torch.allclose(longer, own, rtol=1e-3)


def test_steps_are_added_until_the_fixed_point():
    network = exact(UnfoldedDR, gaussian(), 4)
    errors = [distance(network.with_depth(depth), "average", 5.0) for depth in (4, 8, 50)]
    assert errors[0] > 5 * errors[1]
    assert errors[2] < 1e-5


def test_networks_whose_steps_differ_keep_their_depth():
    with pytest.raises(ValueError, match="its 4 steps have a prior each"):
        UnfoldedDR.full().with_depth(6)
    with pytest.raises(ValueError, match="got 0 steps"):
        UnfoldedDR.tiny().with_depth(0)


def test_complex_images_of_a_scanner():
    """Radii shrink on complex images as on real ones: the posterior mean in sixty steps."""
    g = torch.Generator().manual_seed(0)
    power = 0.05 + 0.4 * torch.rand(1, 8, 12, generator=g).double()
    prior = FourierGaussian(torch.zeros(1, 1, 8, 12, dtype=torch.complex128), power)
    operator = CartesianMRI((1, 8, 12), torch.rand(12, generator=g) > 0.5).double()
    x = prior.sample(2, g)
    noise = ComplexGaussian(0.05)
    measurement = Measurement(operator, noise, noise(operator(x), g))
    v = x + 0.6 * randn_like(x, generators(3, 2))
    with torch.no_grad():
        found = exact(UnfoldedDR, prior, 60).given(measurement).denoise(v, 0.6)
    wanted = prior.given(measurement).denoise(v, 0.6)
    assert float((found - wanted).norm()) < 1e-5 * float(wanted.norm())
