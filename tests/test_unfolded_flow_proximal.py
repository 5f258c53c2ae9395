import copy
import functools
import itertools

import pytest
import torch
from flows import F64, ellipses, pca_prior, shaken, stripes
from torch import nn

from measurand.batches import Batch
from measurand.measurement import Measurement
from measurand.metrics import psnr
from measurand.nets import ConvUNet, Glow
from measurand.noises import ComplexGaussian, Poisson
from measurand.noises import Gaussian as GaussianNoise
from measurand.operators import GaussianBlur, Mask
from measurand.operators.base import Identity, LinearOperator, Scaled
from measurand.priors import (
    Density,
    FlowPrior,
    TotalVariation,
    bits_per_dim,
    dequantization,
    latent_moments,
)
from measurand.priors.flow import flow_loss
from measurand.solvers import FISTA, FlowUnfolding, first_guess
from measurand.tensors import generators
from measurand.training.gradients import Gradients
from measurand.training.loop import train
from measurand.unfolded import (
    FlowProximal,
    Fold,
    GainStep,
    GradientStep,
    ProximalStep,
    ShrinkStep,
    gradient_folds,
    proximal_folds,
    unfolding_loss,
)
from measurand.unfolded.flow_proximal import squared_error
from measurand.unfolded.folds import clipped
from measurand.weights.tensorfile import load_tensors, save_tensors

SHAPE = (1, 8, 8)
FOLDS = [gradient_folds, proximal_folds]


def distance(a, b):
    return float(((a - b).norm() / b.norm()).detach())


def glow_prior(channels=1, size=8, *, dtype=torch.float32):
    torch.manual_seed(0)
    real = channels * (2 if dtype.is_complex else 1)
    flow = shaken(Glow(real, levels=2, steps=2, hidden=16))
    prior = FlowPrior(flow, shape=(channels, size, size), dtype=dtype).double()
    x = torch.randn(4, channels, size, size, dtype=dtype, generator=generators(0, 1)[0])
    prior.calibrate(0.4 * x.to(torch.promote_types(dtype, F64)))
    return prior


def blurred(n=2, sigma=0.1, shape=SHAPE):
    A = GaussianBlur(shape, sigma=1.0).double()  # noqa: N806
    x = 0.4 * torch.randn(n, *shape, dtype=F64, generator=generators(3, 1)[0])
    noise = GaussianNoise(sigma)
    return Measurement(A, noise, noise(A(x), generators(4, n))), x


def exact_network(prior, tau, folds):
    """Every fold the same step of a proximal gradient method: mu = 1 / ||A||^2."""
    steps = [Fold(GradientStep(), GainStep(prior, clip=torch.inf)) for _ in range(folds)]
    network = FlowProximal(prior, steps, share=True).double()
    with torch.no_grad():
        for fold in network.folds:
            fold.prior_step.raw_tau.fill_(tau).expm1_().log_()
    return network


def mask(missing, **options):
    kept = torch.rand(SHAPE[1:], generator=torch.Generator().manual_seed(0)) >= missing
    return Mask(SHAPE, kept.float(), **options).double()


BLUR = GaussianBlur(SHAPE, sigma=1.0).double()


@pytest.mark.parametrize(
    ("operator", "sigma", "folds"),
    [
        (Identity(SHAPE).double(), 0.3, 500),
        (BLUR, 0.3, 500),
        (Scaled(BLUR, 3.0), 0.9, 500),
        (mask(0.6), 0.3, 2000),
    ],
    ids=["denoise", "blur", "blur times 3", "inpainting"],
)
def test_the_folds_converge_to_the_posterior_mean(operator, sigma, folds):
    gaussian, prior = pca_prior(SHAPE)
    noise = GaussianNoise(sigma)
    x = gaussian.sample(1, generators(1, 1))
    m = Measurement(operator, noise, noise(operator(x), generators(2, 1)))
    network = exact_network(prior, sigma**2 / operator.norm**2, folds)
    exact = gaussian.given(m).mean
    with torch.no_grad():
        assert distance(network(m), exact) < 1e-5
    assert distance(first_guess(m), exact) > 0.1


def test_the_network_is_a_density_by_its_last_flow():
    prior = glow_prior()
    network = FlowProximal(prior, gradient_folds(prior, 2)).double()
    shaken(network.priors[0])
    x = blurred()[1]
    assert isinstance(network, Density)
    assert torch.equal(network.log_prob(x), prior.log_prob(x))


@pytest.mark.parametrize("folds", FOLDS)
def test_the_image_is_the_last_of_the_iterates(folds):
    prior, (m, _) = glow_prior(), blurred()
    network = FlowProximal(prior, folds(prior, 3)).double()
    found = network.iterates(m)
    assert len(found) == 3 and all(x.shape == (2, *SHAPE) for x in found)
    assert torch.equal(found[-1], network(m))
    assert not torch.allclose(found[0], found[1])


def test_every_fold_has_a_copy_of_the_flow_unless_they_share_it():
    prior = glow_prior()
    own = FlowProximal(prior, gradient_folds(prior, 3)).double()
    one = FlowProximal(prior, gradient_folds(prior, 3), share=True).double()
    assert (len(own.priors), len(one.priors)) == (3, 1)
    weights = [*own.priors, *one.priors, prior]
    assert len({p.data_ptr() for prior in weights for p in prior.parameters()}) == sum(
        1 for prior in weights for _ in prior.parameters()
    )
    m, _ = blurred()
    assert torch.equal(own(m), one(m))


@pytest.mark.parametrize("share", [False, True])
def test_weights_go_through_a_file(share, tmp_path):
    prior, (m, _) = glow_prior(), blurred()
    network = shaken(FlowProximal(prior, gradient_folds(prior, 2), share=share).double())
    save_tensors(tmp_path / "net.safetensors", network.state_dict(), {})
    again = FlowProximal(prior, gradient_folds(prior, 2), share=share).double()
    again.load_state_dict(load_tensors(tmp_path / "net.safetensors")[0])
    assert torch.equal(network(m), again(m))


@pytest.mark.parametrize("folds", FOLDS)
def test_recomputing_changes_no_gradient(folds):
    prior, (m, x) = glow_prior(), blurred()

    def gradient(recompute):
        network = FlowProximal(prior, folds(prior, 2), recompute=recompute).double()
        loss = unfolding_loss(network, {"x": x, "measurement": m}).sum()
        return torch.autograd.grad(loss, list(network.parameters()))

    for a, b in zip(gradient(False), gradient(True), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("data_step", [GradientStep, ProximalStep])
@pytest.mark.parametrize("prior_step", [lambda p: GainStep(p), lambda p: ShrinkStep()])
def test_everything_learns(data_step, prior_step):
    prior, (m, x) = glow_prior(), blurred()
    folds = [Fold(data_step(), prior_step(prior)) for _ in range(2)]
    network = FlowProximal(prior, folds).double()
    unfolding_loss(network, {"x": x, "measurement": m}).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())
    own = {id(p) for p in network.priors.parameters()}
    assert {id(p) for p in network.knobs()} == {id(p) for p in network.parameters()} - own


def test_steps_start_where_they_say():
    prior = glow_prior()
    step = GainStep(prior, 0.2)
    assert float(step.tau.detach()) == pytest.approx(0.04, rel=1e-5)
    assert all((b == 0).all() for b in step.offsets)
    assert float(ProximalStep(0.3).r.detach()) == pytest.approx(0.3, rel=1e-5)
    assert float(ShrinkStep(0.5).tau.detach()) == pytest.approx(0.5, rel=1e-5)
    tau = [float(fold.prior_step.tau.detach()) for fold in gradient_folds(prior, 4)]
    assert tau[0] == pytest.approx(0.16, rel=1e-5) and tau[-1] == pytest.approx(0.0016, rel=1e-4)
    assert all(a > b for a, b in itertools.pairwise(tau))
    with pytest.raises(ValueError, match="no folds"):
        FlowProximal(prior, [])


def test_gradient_step_has_the_length_of_each_item():
    """1 / ||A||^2 at the start, never more than 2 / ||A||^2, also where A differs by item."""
    m, x = blurred()
    step = GradientStep().double()
    for c in (1.0, 5.0):
        scaled = Measurement(Scaled(m.operator, c), m.noise, m.y * c)
        wanted = x - m.operator.adjoint(m.operator(x) - m.y) / m.operator.norm**2
        assert torch.allclose(step(x, scaled), wanted)
    weights = torch.tensor([1.0, 4.0], dtype=F64).reshape(2, 1, 1, 1)
    masked = Measurement(Mask(SHAPE, weights), m.noise, weights * m.y)
    assert torch.allclose(step(x, masked), m.y)
    with torch.no_grad():
        step.a.fill_(50.0)
    assert torch.allclose(step(x, masked), 2 * m.y - x)


def test_proximal_step_is_that_of_the_measurement():
    m, x = blurred()
    assert torch.allclose(ProximalStep(0.3).double()(x, m), m.prox(x, 0.3), atol=1e-6)


@pytest.mark.parametrize("folds", FOLDS)
def test_items_are_independent(folds):
    prior = glow_prior()
    network = shaken(FlowProximal(prior, folds(prior, 2)).double())
    weights = torch.tensor([1.0, 4.0, 0.5], dtype=F64).reshape(3, 1, 1, 1)
    noise = GaussianNoise(torch.tensor([0.1, 0.3, 0.2]))
    m = Measurement(Mask(SHAPE, weights), noise, blurred(3)[0].y)
    together = network(m)
    for i in range(3):
        assert torch.allclose(network(m[i]), together[i : i + 1], atol=1e-10)


def test_latents_outside_have_gradients_that_lead_back_and_no_others():
    z = torch.tensor([-1e30, -7.0, -7.0, 0.5, 8.0, 8.0], requires_grad=True)
    found = clipped(z, 6.0)
    assert found.tolist() == [-6, -6, -6, 0.5, 6, 6]
    pull = torch.tensor([-1.0, -1.0, 1.0, 1.0, 1.0, -1.0])
    assert torch.autograd.grad(found, z, pull)[0].tolist() == [-1, -1, 0, 1, 1, 0]


def test_an_image_of_any_size_and_kind():
    prior = glow_prior()
    network = FlowProximal(prior, gradient_folds(prior, 2)).double()
    m, _ = blurred(shape=(1, 9, 11))
    assert network(m).shape == (2, 1, 9, 11)
    prior = glow_prior(dtype=torch.complex64)
    A = mask(0.5, dtype=torch.complex64)  # noqa: N806
    x = torch.randn(2, *SHAPE, dtype=torch.complex128, generator=generators(0, 1)[0])
    noise = ComplexGaussian(0.1)
    m = Measurement(A, noise, noise(A(0.3 * x)))
    for folds in FOLDS:
        network = FlowProximal(prior, folds(prior, 2)).double()
        assert network(m).is_complex()
        assert unfolding_loss(network, {"x": x, "measurement": m}).shape == (2,)


@pytest.mark.parametrize("folds", FOLDS)
def test_precisions_of_weights_and_images_may_differ(folds):
    prior = glow_prior()
    network = FlowProximal(prior, folds(prior, 2)).double()
    m, _ = blurred()
    single = Measurement(GaussianBlur(SHAPE, sigma=1.0), m.noise, m.y.float())
    wide, right = network(m), network(single)
    narrow = copy.deepcopy(network).float()
    for found, y in ((right, single.y), (narrow(m), m.y), (narrow(single), single.y)):
        assert found.dtype == y.dtype and distance(found.double(), wide) < 1e-4
    wide = wide.detach()
    away = network.log_prob(wide.float()) - network.log_prob(wide)
    assert float(away.detach().abs().max()) < 1e-2


def test_an_image_with_other_channels_is_refused():
    with pytest.raises(ValueError, match=r"wants real \(B, 1, H, W\)"):
        glow_prior().log_prob(torch.zeros(2, 3, 8, 8))


def test_an_image_far_outside_is_no_result():
    class Bursting:
        range, dtype = (-1.0, 1.0), torch.float32

        def restore(self, measurement):
            return 5e11 * torch.ones_like(measurement.y)

    m = Measurement(Identity(SHAPE), GaussianNoise(0.1), torch.zeros(2, *SHAPE))
    with pytest.raises(FloatingPointError, match=r"values of 5.0e\+11.*not trained for"):
        FlowUnfolding()(m, Bursting())


def test_counts_have_a_gradient_step():
    prior = glow_prior()
    A, noise = Identity(SHAPE).double(), Poisson(0.1)  # noqa: N806
    m = Measurement(A, noise, noise(torch.full((1, *SHAPE), 0.5, dtype=F64)))
    assert FlowProximal(prior, gradient_folds(prior, 2)).double()(m).isfinite().all()


class Recorded(LinearOperator):
    """An operator that tells what was asked of it."""

    def __init__(self, inner):
        super().__init__(inner.in_shape, inner.out_shape)
        self.inner, self.asked = inner, set()

    def forward(self, x):
        self.asked.add("forward")
        return self.inner.forward(x)

    def adjoint(self, y):
        self.asked.add("adjoint")
        return self.inner.adjoint(y)

    def prox(self, v, y, gamma, *, prepared=None):
        self.asked.add("prox")
        return self.inner.prox(v, y, gamma)

    @classmethod
    def example(cls):
        return cls(Identity(SHAPE))


@pytest.mark.parametrize(("folds", "also"), [(gradient_folds, set()), (proximal_folds, {"prox"})])
def test_folds_ask_an_operator_for_its_maps_only(folds, also):
    prior, (m, _) = glow_prior(), blurred()
    recorded = Recorded(m.operator).double()
    network = FlowProximal(prior, folds(prior, 2)).double()
    found = network(Measurement(recorded, m.noise, m.y))
    assert recorded.asked == {"forward", "adjoint"} | also
    assert torch.allclose(found, network(m), atol=1e-6)


# -- the losses -------------------------------------------------------------------------------


def test_the_loss_is_what_it_says():
    prior, (m, x) = glow_prior(), blurred()
    network = shaken(FlowProximal(prior, gradient_folds(prior, 3)).double())
    first, second, last = (squared_error(found, x) for found in network.iterates(m))
    batch = {"x": x, "measurement": m}
    assert torch.allclose(unfolding_loss(network, batch), last)
    early = unfolding_loss(network, {**batch, "auxiliary": 0.1})
    assert torch.allclose(early, last + 0.1 * (first + second))
    bits = sum(bits_per_dim(prior.log_prob(x), 64) for prior in network.priors)
    assert torch.allclose(unfolding_loss(network, batch, eta=0.02), last + 0.02 * bits)
    noise = dequantization(x)
    noisy = sum(bits_per_dim(prior.log_prob(x + noise), 64) for prior in network.priors)
    found = unfolding_loss(network, {**batch, "noise": noise}, eta=0.02)
    assert torch.allclose(found, last + 0.02 * noisy)


def test_a_batch_in_parts_has_the_same_gradient():
    """As the engine cuts it: images and the measurement at the same items."""
    prior, (m, x) = glow_prior(), blurred(4)
    network = FlowProximal(prior, gradient_folds(prior, 2)).double()
    batch = Batch({"x": x, "measurement": m})
    whole = unfolding_loss(network, batch)
    for part in (slice(0, None, 2), slice(1, 3)):
        assert torch.allclose(unfolding_loss(network, batch.rows(part)), whole[part], atol=1e-12)


def test_the_engine_trains_a_flow():
    prior, x = glow_prior().float(), ellipses(6, 8, seed=0)
    batch = Batch({"x": x, "noise": dequantization(x)})
    whole = Gradients(prior, flow_loss)(batch)
    assert torch.allclose(Gradients(prior, flow_loss, workers=2, micro=2)(batch), whole, atol=1e-5)


# -- a small training, on images made by a procedure ---------------------------------------------

SIZE, SIGMA = 16, 0.2  # 0.1 of [0, 1]
DENOISE = Identity((1, SIZE, SIZE))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def drawn(step, stage):
    """A batch of a step: 32 images, and what `dequantization` draws."""
    x = ellipses(32, SIZE, seed=1000 + step)
    return Batch({"x": x, "noise": dequantization(x, seeded(step))})


def measured(step, stage):
    batch = drawn(step + 10**6, stage)
    return batch.adding({"y": GaussianNoise(SIGMA)(batch["x"], seeded(step))})


def end_to_end(network, batch, *, operator=DENOISE, eta=0.0):
    m = Measurement(operator, GaussianNoise(SIGMA), batch["y"])
    return unfolding_loss(network, batch.adding({"measurement": m}), eta=eta)


def optimizer(network, flows):
    own = [p for p in network.priors.parameters() if p.requires_grad]
    groups = [{"params": own, "lr": flows}] if own else []
    return torch.optim.Adam([{"params": network.knobs(), "lr": 1e-2}, *groups], betas=(0.9, 0.99))


def likelihood_trained(flow, steps):
    """A flow after stage 1, calibrated."""
    prior = FlowPrior(flow, shape=(1, SIZE, SIZE))
    x = torch.cat([drawn(i, 0)["x"] + drawn(i, 0)["noise"] for i in range(4)])
    flow.initialize(x)
    adam = torch.optim.Adam(prior.parameters(), lr=3e-3, betas=(0.9, 0.99))
    train(prior, drawn, flow_loss, steps=steps, warmup=20, optimizer=adam, clip=5.0)
    prior.calibrate(x)
    return prior


def unfolded(prior, steps, *, eta=0.0, lr=1e-3, frozen=False):
    """The denoiser of two folds after stage 2; with frozen flows only its knobs are trained."""
    network = FlowProximal(prior, gradient_folds(prior, 2, high=0.2, low=0.1))
    network.priors.requires_grad_(not frozen)
    loss = functools.partial(end_to_end, eta=eta)
    train(network, measured, loss, steps=steps, warmup=20, optimizer=optimizer(network, lr))
    return network.requires_grad_(False)


def denoised(network, x):
    return network(Measurement(DENOISE, GaussianNoise(SIGMA), GaussianNoise(SIGMA)(x, seeded(9))))


def quality(x_hat, x):
    return float(psnr(x_hat, x, data_range=2.0).mean())


def auroc(usual, other):
    """How often a score of the one is above one of the other."""
    return float((usual[:, None] > other).float().mean())


@pytest.fixture(scope="module")
def prior():
    torch.manual_seed(0)
    return likelihood_trained(Glow.tiny(1), steps=250)


@pytest.fixture(scope="module")
def networks(prior):
    """The frozen flow plugged in, and the same folds trained end to end."""
    return unfolded(prior, 120, frozen=True), unfolded(prior, 120, eta=0.01)


@pytest.fixture(scope="module")
def truth():
    return ellipses(128, SIZE, seed=1)


def test_likelihood_training_beats_independent_pixels_by_a_bit(prior, truth, record_property):
    seen, known = truth + dequantization(truth), ellipses(4096, SIZE, seed=0)
    known = known + dequantization(known)
    pixels = torch.distributions.Normal(known.mean(0), known.std(0))
    independent = bits_per_dim(pixels.log_prob(seen).flatten(1).sum(1), SIZE**2).mean()
    with torch.no_grad():
        found = bits_per_dim(prior.log_prob(seen), SIZE**2).mean()
    record_property("bits_per_dim", float(found))
    record_property("bits_per_dim_independent", float(independent))
    assert found <= independent - 1


def test_training_end_to_end_gains_a_decibel(networks, truth, record_property):
    frozen, trained = (quality(denoised(network, truth), truth) for network in networks)
    record_property("psnr_frozen", frozen)
    record_property("psnr_trained", trained)
    assert trained >= frozen + 1


def test_flows_stay_invertible_after_training_end_to_end(networks, truth):
    noisy = truth + 0.4 * torch.randn(truth.shape, generator=seeded(0))
    holes = truth * (torch.rand(truth.shape, generator=seeded(0)) < 0.5)
    for dtype, most in ((torch.float32, 1e-4), (F64, 1e-9)):
        for flow in copy.deepcopy(networks[1]).to(dtype).priors:
            for x in (truth.to(dtype), noisy.to(dtype), holes.to(dtype)):
                assert (flow.image(flow.latents(x)) - x).abs().max() <= most


def test_latents_stay_normal_where_the_likelihood_is_in_the_loss(networks, truth, record_property):
    seen = truth + dequantization(truth)
    for k, flow in enumerate(networks[1].priors):
        found = latent_moments(flow, seen)
        record_property(f"latents_{k}", [round(float(v), 3) for v in found[:3]])
        assert abs(found.mean) < 0.1 and abs(found.variance - 1) < 0.1
        assert abs(float(found.energy.mean()) - 1) <= 0.1
        # flat regions leave more latents near zero than a normal has
        assert 2 < found.kurtosis < 6


def test_the_density_of_the_result_tells_images_of_another_kind(networks, truth, record_property):
    network, other = networks[1], stripes(128, SIZE, seed=2)
    usual, odd = denoised(network, truth), denoised(network, other)
    found = auroc(network.log_prob(usual), network.log_prob(odd))
    record_property("auroc", found)
    record_property("psnr_drop", quality(usual, truth) - quality(odd, other))
    assert found > 0.9


def test_a_network_trained_on_blur_runs_on_a_mask(prior, truth):
    blur = GaussianBlur((1, SIZE, SIZE), sigma=1.5)
    network = FlowProximal(prior, gradient_folds(prior, 2))
    before = [p.clone() for p in network.knobs()]
    loss = functools.partial(end_to_end, operator=blur)
    train(network, measured, loss, steps=3, warmup=1, optimizer=optimizer(network, 1e-4))
    assert all(not torch.equal(a, b) for a, b in zip(before, network.knobs(), strict=True))
    holes = Mask((1, SIZE, SIZE), (torch.rand(SIZE, SIZE, generator=seeded(0)) > 0.5).float())
    noise = GaussianNoise(0.02)
    m = Measurement(holes, noise, noise(holes(truth)))
    assert network(m).shape == truth.shape and network(m).isfinite().all()


class NetworkStep(nn.Module):
    """The rival's step of the prior: a U-Net, of about as many weights as a flow."""

    def __init__(self):
        super().__init__()
        self.net = ConvUNet(1, widths=(10, 14), blocks=1, stem=1, features=16)

    def forward(self, v, prior):
        return v + self.net(v, torch.zeros(1))


@pytest.mark.slow
def test_in_and_out_of_distribution_beside_total_variation_and_a_unet(
    truth, record_property, capsys
):
    """The flow beats total variation on images of its kind. How much each loses on others is
    printed: that a flow loses more than a U-Net is what its authors found."""
    torch.manual_seed(0)
    prior = likelihood_trained(Glow.tiny(1), steps=500)
    frozen, trained = unfolded(prior, 150, frozen=True), unfolded(prior, 1500, lr=4e-3)
    density = unfolded(prior, 600, eta=1e-3, lr=2e-3)
    steps = [Fold(GradientStep(), NetworkStep()) for _ in range(2)]
    rival = FlowProximal(prior, steps, share=True)
    rival.priors.requires_grad_(False)
    adam = torch.optim.Adam(rival.knobs(), lr=2e-3, betas=(0.9, 0.99))
    train(rival, measured, end_to_end, steps=1500, warmup=20, optimizer=adam)
    rival.requires_grad_(False)
    size = sum(p.numel() for p in trained.priors.parameters())
    assert 0.8 < sum(p.numel() for p in rival.knobs()) / size < 1.25

    def variation(x):
        noise = GaussianNoise(SIGMA)
        m = Measurement(DENOISE, noise, noise(x, seeded(9)))
        found = [FISTA(steps=60)(m, TotalVariation(weight=w)) for w in (2.0, 3.0, 4.0, 6.0)]
        return max(quality(x_hat, x) for x_hat in found)

    other = stripes(128, SIZE, seed=2)
    rows = {"total variation": (variation(truth), variation(other))}
    methods = {"frozen flow": frozen, "unfolded flow": trained, "the same, eta > 0": density}
    methods |= {"unfolded U-Net": rival}
    for name, network in methods.items():
        rows[name] = tuple(quality(denoised(network, x), x) for x in (truth, other))
    usual, odd = (density.log_prob(denoised(density, x)) for x in (truth, other))
    with capsys.disabled():
        print(f"\nAUROC of log p: {auroc(usual, odd):.3f}")
        for name, (inside, outside) in rows.items():
            print(f"{name:17} {inside:.2f} dB, {outside:.2f} dB: a drop of {inside - outside:.2f}")
            record_property(name, f"{inside:.2f} {outside:.2f}")
    record_property("auroc", auroc(usual, odd))
    assert rows["unfolded flow"][0] >= rows["frozen flow"][0] + 1
    assert rows["unfolded flow"][0] > rows["total variation"][0]
    assert auroc(usual, odd) > 0.9
