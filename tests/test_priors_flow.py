import math

import pytest
import torch
from flows import F64, PCAFlow, ellipses, pca_prior, shaken
from torch import nn

from measurand.measurement import Measurement
from measurand.nets import Glow
from measurand.nets.glow import ActNorm, Coupling, Mix
from measurand.noises import Gaussian as GaussianNoise
from measurand.operators import GaussianBlur
from measurand.priors import (
    Density,
    FlowGain,
    FlowMAP,
    FlowPrior,
    FlowShrink,
    Gaussian,
    ImageMAP,
    Proximable,
    bits_per_dim,
    dequantization,
    latent_moments,
)
from measurand.priors.flow import bits_of, flow_loss
from measurand.solvers import FISTA
from measurand.tensors import generators

SHAPE = (1, 4, 6)
MAPS = [FlowGain, FlowShrink, FlowMAP, ImageMAP]


def glow_prior(channels=1, size=8, *, dtype=torch.float32):
    """A calibrated prior whose flow is far from linear."""
    torch.manual_seed(0)
    real = channels * (2 if dtype.is_complex else 1)
    flow = shaken(Glow(real, levels=2, steps=2, hidden=16))
    prior = FlowPrior(flow, shape=(channels, size, size), dtype=dtype).double()
    prior.calibrate(image(4, channels, size, dtype=dtype))
    return prior


def image(n=2, channels=1, size=8, seed=3, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    kind = torch.complex128 if dtype.is_complex else F64
    return 0.4 * torch.randn(n, channels, size, size, generator=generator, dtype=kind)


def distance(a, b):
    return float(((a - b).norm() / b.norm()).detach())


def test_what_a_flow_can_do():
    _, prior = pca_prior(SHAPE)
    assert isinstance(prior, Density) and not isinstance(prior, Proximable)
    for method in MAPS:
        assert isinstance(method(prior), Proximable)


def test_the_density_of_a_linear_flow_is_the_gaussian():
    gaussian, prior = pca_prior(SHAPE)
    x = gaussian.sample(3)
    assert torch.allclose(prior.log_prob(x), gaussian.log_prob(x), atol=1e-8)


class Layers(nn.Module):
    """A flow of two dimensions: one pixel with two channels."""

    multiple = 1

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        layers = [layer for _ in range(3) for layer in (ActNorm(2), Mix(2), Coupling(2, 8))]
        self.layers = shaken(nn.ModuleList(layers), std=0.3)

    def latent_shapes(self, shape):
        return [shape]

    def forward(self, x):
        total = 0.0
        for layer in self.layers:
            x, more = layer(x)
            total = total + more
        return [x], total


def test_the_density_integrates_to_one():
    prior = FlowPrior(Layers(), shape=(2, 1, 1)).double()
    axis = torch.linspace(-30, 30, 600, dtype=F64)
    points = torch.cartesian_prod(axis, axis)[:, :, None, None]
    with torch.no_grad():
        density = prior.log_prob(points).exp()
    assert float(density.sum() * (axis[1] - axis[0]) ** 2) == pytest.approx(1, abs=1e-2)
    ring = density.reshape(600, 600)
    assert max(ring[0].max(), ring[-1].max(), ring[:, 0].max(), ring[:, -1].max()) < 1e-9
    gauss = torch.exp(-points.flatten(1).square().sum(1) / 2) / (2 * math.pi)
    assert (density - gauss).abs().max() > 0.01  # not the density of the identity


@pytest.mark.parametrize("tau", [0.01, 0.09, torch.tensor([0.01, 1.0])], ids=str)
def test_on_principal_components_the_gain_is_the_proximal_map_and_the_shrink_knows_nothing(tau):
    gaussian, prior = pca_prior(SHAPE)
    v = gaussian.sample(2) + 0.3 * torch.randn(2, *SHAPE, dtype=F64)
    exact = gaussian.prox(v, tau)
    assert distance(FlowGain(prior).prox(v, tau), exact) < 1e-8
    shrunk = FlowShrink(prior).prox(v, tau)
    each = torch.as_tensor(tau, dtype=F64).reshape(-1, 1, 1, 1)
    assert distance(shrunk, gaussian.mean + (v - gaussian.mean) / (1 + each)) < 1e-8
    assert distance(shrunk, exact) > 0.01


def test_kappa_of_a_linear_flow_are_its_variances():
    gaussian, prior = pca_prior((1, 8, 8), calibrated=False)
    with pytest.raises(ValueError, match="calibrate"):
        FlowGain(prior).prox(gaussian.sample(1), 0.1)
    x = gaussian.sample(20)
    prior.calibrate(x, probes=100)
    error = (prior.kappa[0] / gaussian.variances[0] - 1).abs()
    assert error.mean() <= 0.05 and error.max() <= 0.15
    again = FlowPrior(PCAFlow(gaussian), shape=(1, 8, 8)).double()
    again.load_state_dict(prior.state_dict())
    assert torch.equal(again.kappa[0], prior.kappa[0])


def test_kappa_of_glow_is_the_diagonal_of_its_jacobian():
    prior, x = glow_prior(), image(1)
    prior.calibrate(x, probes=600)
    latents = prior.latents(x)
    for level, (kappa, z) in enumerate(zip(prior.kappa, latents, strict=True)):

        def of_level(z, level=level):
            return prior.image([z if i == level else other for i, other in enumerate(latents)])

        jacobian = torch.autograd.functional.jacobian(of_level, z).reshape(64, *z.shape[1:])
        exact = jacobian.square().sum(0).mean((1, 2))
        assert (kappa / exact - 1).abs().max() < 0.05
        assert exact.max() > 1.2 * exact.min()


def test_probes_of_images_do_not_repeat():
    """With one probe taken four times the error would be twice that of four."""
    gaussian, prior = pca_prior((1, 8, 8), calibrated=False)
    x, errors = gaussian.sample(8), []
    for probes in (1, 16):
        prior.calibrate(x, probes=probes)
        errors.append(float((prior.kappa[0] / gaussian.variances[0] - 1).square().mean()))
    assert errors[1] < errors[0] / 6


@pytest.mark.parametrize("method", MAPS)
def test_maps_without_weight_leave_the_image(method):
    prior, v = glow_prior(), image()
    assert distance(method(prior).prox(v, 0.0), v) < 1e-9


@pytest.mark.parametrize("method", MAPS)
def test_items_are_independent(method):
    prior, v, tau = glow_prior(), image(3), torch.tensor([0.01, 0.1, 0.5], dtype=F64)
    together = method(prior).prox(v, tau)
    for i in range(3):
        alone = method(prior).prox(v[i : i + 1], tau[i : i + 1])
        assert torch.allclose(alone, together[i : i + 1], atol=1e-8)


@pytest.mark.parametrize("method", [FlowMAP, ImageMAP])
def test_both_maps_of_a_linear_flow_are_the_proximal_map(method):
    gaussian, prior = pca_prior(SHAPE)
    v = gaussian.sample(2) + 0.3 * torch.randn(2, *SHAPE, dtype=F64)
    assert distance(method(prior, steps=60).prox(v, 0.05), gaussian.prox(v, 0.05)) < 1e-6


@pytest.mark.parametrize("tau", [0.003, 0.03, 0.3])
def test_latent_map_begins_with_the_gain_and_never_goes_up(tau):
    prior, v = glow_prior(), image()
    gain = FlowGain(prior).prox(v, tau)
    method = FlowMAP(prior, steps=1)
    first = method.objective(method.prox(v, tau), v, tau)
    assert (first <= method.objective(v, v, tau)).all()
    if (method.objective(gain, v, tau) < 0.99 * method.objective(v, v, tau)).all():
        assert distance(method.prox(v, tau), gain) < 1e-9
    values = [FlowMAP(prior, steps=n) for n in (1, 2, 3, 5, 10, 20, 50)]
    values = torch.stack([m.objective(m.prox(v, tau), v, tau) for m in values])
    assert (values.diff(dim=0) <= 1e-12).all()
    assert (values[-1] < method.objective(gain, v, tau) - 1e-6).all()


def test_image_map_never_goes_up_and_ends_where_the_gradient_does():
    prior, v, tau = glow_prior(), image(1), 0.05
    values = [ImageMAP(prior, steps=n) for n in (1, 2, 5, 20)]
    values = torch.stack([m.objective(m.prox(v, tau), v, tau) for m in values])
    assert (values.diff(dim=0) <= 1e-12).all()

    def slope(x):
        x = x.detach().requires_grad_()
        total = ImageMAP(prior).objective(x, v, tau).sum()
        return torch.autograd.grad(total, x)[0].norm()

    found = ImageMAP(prior, steps=40).prox(v, tau)
    assert slope(found) < 1e-2 * slope(v)


def test_latent_and_image_map_differ_by_the_log_determinant():
    prior, v, tau = glow_prior(), image(), 0.2
    latent, pixel = (m(prior, steps=25).prox(v, tau) for m in (FlowMAP, ImageMAP))
    assert distance(latent, pixel) > 0.01
    objective = ImageMAP(prior).objective
    assert (objective(pixel, v, tau) < objective(latent, v, tau)).all()
    objective = FlowMAP(prior).objective
    assert (objective(latent, v, tau) < objective(pixel, v, tau)).all()


@pytest.mark.parametrize("method", MAPS)
@pytest.mark.parametrize("size", [(9, 10), (1, 7)])
def test_any_size_is_extended_and_cropped(method, size):
    prior = glow_prior()
    v = 0.4 * torch.randn(1, 1, *size, generator=generators(0, 1)[0], dtype=F64)
    x = method(prior).prox(v, 0.1)
    assert x.shape == v.shape and x.isfinite().all() and not torch.equal(x, v)
    with pytest.raises(ValueError, match="multiples of 4"):
        prior.log_prob(v)


@pytest.mark.parametrize("method", MAPS)
def test_complex_images_are_two_channels_inside(method):
    prior, v = glow_prior(dtype=torch.complex64), image(dtype=torch.complex64)
    x = method(prior).prox(v, 0.1)
    real = FlowPrior(prior.flow, shape=(2, 8, 8)).double()
    real.load_state_dict(prior.state_dict())
    both = torch.cat((v.real, v.imag), dim=1)
    assert torch.allclose(prior.log_prob(v), real.log_prob(both), atol=1e-10)
    wanted = method(real).prox(both, 0.1)
    assert torch.allclose(x, torch.complex(*wanted.chunk(2, dim=1)), atol=1e-8)
    assert prior.sample(2).shape == (2, 1, 8, 8) and prior.sample(1).is_complex()
    with pytest.raises(ValueError, match="wants complex"):
        prior.log_prob(both)


def test_a_flow_plugs_into_the_solvers():
    gaussian, prior = pca_prior((1, 8, 8))
    A = GaussianBlur((1, 8, 8), sigma=1.0).double()  # noqa: N806
    noise = GaussianNoise(0.1)
    m = Measurement(A, noise, noise(A(gaussian.sample(2, generators(1, 2))), generators(2, 2)))
    found = FISTA(steps=600)(m, FlowGain(prior))
    assert distance(found, gaussian.given(m).mean) < 1e-5


def test_draws_have_the_distribution_and_depend_on_their_own_seed():
    gaussian, prior = pca_prior((1, 2, 3))
    x = prior.sample(20000, torch.Generator().manual_seed(0))
    assert (x.mean(0) - gaussian.mean[0]).abs().max() < 0.02
    found = torch.cov(x.flatten(1).T)
    assert distance(found, gaussian.covariance[0]) < 0.05
    many, one = prior.sample(3, generators(5, 3)), prior.sample(1, generators(5, 1))
    assert torch.equal(many[:1], one)
    assert torch.allclose(prior.sample(1, temperature=0.0), gaussian.mean)
    assert prior.sample(2).shape == (2, 1, 2, 3)


def test_the_shrunk_image_is_differentiable():
    prior, v = glow_prior(), image(1).requires_grad_()
    for method in (FlowGain(prior), FlowShrink(prior)):
        assert torch.autograd.gradcheck(
            lambda v, m=method: m.prox(v, 0.1).sum(), (v,), fast_mode=True
        )


@pytest.mark.parametrize("bits", [1, 5, 8])
def test_a_uniform_density_costs_the_bits_of_a_pixel(bits):
    width = 2 + 2 / (2**bits - 1)  # from half a value below -1 to half a value above 1
    log_prob = torch.tensor([-12 * math.log(width)])
    assert float(bits_per_dim(log_prob, 12, bits=bits)) == pytest.approx(bits, abs=1e-6)


def test_bits_of_any_size_but_of_nothing():
    prior, x = glow_prior(), image(2, size=10)
    assert torch.equal(bits_of(prior, x), bits_of(prior, x[..., :8, :8]))
    for narrow in (x[..., :3, :], x[..., :3]):
        with pytest.raises(ValueError, match="bits_of: got images of .* wants at least 4 x 4"):
            bits_of(prior, narrow)


def test_dequantization_is_uniform_over_a_value_and_gaussian():
    x = torch.zeros(4, 1, 100, 100, dtype=F64)
    uniform = dequantization(x, sigma=0.0)
    assert uniform.abs().max() <= 1 / 255 and uniform.abs().max() > 0.99 / 255
    assert uniform.std() == pytest.approx(2 / 255 / math.sqrt(12), rel=0.02)
    both = dequantization(x, sigma=0.02)
    assert both.std() == pytest.approx(math.hypot(0.02, 2 / 255 / math.sqrt(12)), rel=0.02)
    assert dequantization(x, bits=5, sigma=0.0).abs().max() == pytest.approx(1 / 31, rel=0.01)
    alone = dequantization(x[:1], generators(7, 1))
    assert torch.equal(dequantization(x, generators(7, 4))[:1], alone)
    halves = dequantization(x.to(torch.complex128), sigma=0.0)
    assert halves.imag.std() == pytest.approx(float(halves.real.std()), rel=0.02)


def test_the_loss_is_the_code_length_of_the_noisy_image():
    prior = glow_prior()
    x = ellipses(2, 8, seed=0).double()
    batch = {"x": x, "noise": dequantization(x)}
    exact = -prior.log_prob(x + batch["noise"]) / 64 / math.log(2) + math.log2(255 / 2)
    loss = flow_loss(prior, batch)
    assert loss.shape == (2,) and torch.allclose(loss, exact)
    loss.sum().backward()
    assert all(p.grad.abs().max() > 0 for p in prior.parameters())


def test_moments_of_latents():
    gaussian, prior = pca_prior((1, 8, 8))
    found = latent_moments(prior, gaussian.sample(500, torch.Generator().manual_seed(0)))
    assert found.mean == pytest.approx(0, abs=0.02)
    assert found.variance == pytest.approx(1, abs=0.03)
    assert found.kurtosis == pytest.approx(3, abs=0.1)
    assert found.energy.shape == (500,) and float(found.energy.mean()) == pytest.approx(1, 0.03)
    far = latent_moments(prior, gaussian.mean + 2 * (gaussian.sample(9) - gaussian.mean))
    assert far.variance == pytest.approx(4, rel=0.2)


def test_number_of_steps_is_checked():
    _, prior = pca_prior(SHAPE)
    for method in (FlowMAP, ImageMAP):
        with pytest.raises(ValueError, match="steps"):
            method(prior, steps=0)


def test_gaussian_of_the_tests_is_correlated():
    """Else the gain would be a scalar and nothing above could fail."""
    gaussian, _ = pca_prior(SHAPE)
    assert isinstance(gaussian, Gaussian)
    assert gaussian.variances.max() > 50 * gaussian.variances.min()
