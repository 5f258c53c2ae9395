"""Every convention gives the denoiser of a Gaussian, whose networks are known in closed form."""

import itertools
import warnings

import pytest
import torch

from measurand.priors import (
    VE,
    FromFlow,
    FromImage,
    FromNoise,
    FromScore,
    FromVelocity,
    Gaussian,
    LinearVP,
    Rescaled,
    Straight,
    TableVP,
)
from measurand.priors.capabilities import Denoiser
from measurand.tensors import from_channels, to_channels

F64 = torch.float64
SIGMAS = [0.012, 0.04, 0.1, 0.5, 2.0]


def truth(shape=(2, 3, 2), seed=0):
    generator = torch.Generator().manual_seed(seed)
    n = torch.Size(shape).numel()
    a = torch.randn(n, n, generator=generator, dtype=F64)
    mean = 0.3 * torch.randn(1, *shape, generator=generator, dtype=F64)
    return Gaussian(mean, a @ a.T / n + 0.3 * torch.eye(n, dtype=F64))


class Analytic:
    """The network of `x_t = a x + b n`, (a, b) a function of t, for x from a Gaussian."""

    def __init__(self, prior, coefficients):
        self.prior, self.coefficients = prior, coefficients

    def moments(self, x_t, t):
        """a, b and (a^2 C + b^2)^-1 (x_t - a m), by dense solves, one item at a time."""
        out, each = [], []
        mean, C = self.prior.mean.flatten(), self.prior.covariance[0]
        for x, time in zip(x_t, t, strict=True):
            a, b = self.coefficients(time)
            noisy = a**2 * C + b**2 * torch.eye(len(C), dtype=F64)
            out.append(torch.linalg.solve(noisy, x.flatten() - a * mean).reshape(x.shape))
            each.append((a, b))
        a, b = torch.tensor(each, dtype=F64).T.reshape(2, -1, *[1] * (x_t.ndim - 1))
        return a, b, torch.stack(out)

    def noise(self, x_t, t):
        _, b, w = self.moments(x_t, t)
        return b * w

    def score(self, x_t, t):
        return -self.moments(x_t, t)[2]

    def image(self, x_t, t):
        a, _, w = self.moments(x_t, t)
        C = self.prior.covariance[0]
        return self.prior.mean + a * (w.flatten(1) @ C).reshape(x_t.shape)

    def velocity(self, x_t, t):
        a, b, _ = self.moments(x_t, t)
        return a * self.noise(x_t, t) - b * self.image(x_t, t)

    def flow(self, x_t, t):
        return self.noise(x_t, t) - self.image(x_t, t)


BETAS = torch.linspace(1e-4, 2e-2, 1000, dtype=F64)
ABAR = torch.cumprod(1 - BETAS, 0)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def discrete(t):
    """(a, b) of DDPM at a fractional index: abar interpolated linearly, as others do."""
    i = min(int(t), 998)
    abar = float(ABAR[i] + (t - i) * (ABAR[i + 1] - ABAR[i]))
    return abar**0.5, (1 - abar) ** 0.5


def continuous(t):
    abar = torch.exp(-(19.9 * t**2 / 2 + 0.1 * t))
    return float(abar.sqrt()), float((1 - abar).sqrt())


def indexed(t):
    return continuous(t / 999)


def exploding(t):
    return 1.0, float(t)


def straight(t):
    return float(1 - t), float(t)


def adapters(prior):
    vp = {
        "table": (TableVP(ABAR), discrete),
        "linear": (LinearVP(), continuous),
        "index": (LinearVP(factor=999), indexed),
    }
    found = {}
    for name, (process, coefficients) in vp.items():
        net = Analytic(prior, coefficients)
        found[f"{name} noise"] = FromNoise(net.noise, process)
        found[f"{name} score"] = FromScore(net.score, process)
        found[f"{name} image"] = FromImage(net.image, process)
        found[f"{name} velocity"] = FromVelocity(net.velocity, process)
    ve, flow = Analytic(prior, exploding), Analytic(prior, straight)
    thousand = Analytic(prior, lambda t: straight(t / 1000))
    found["ve score"] = FromScore(ve.score, VE())
    found["ve noise"] = FromNoise(ve.noise, VE())
    found["edm"] = FromImage(ve.image, VE())
    found["flow"] = FromFlow(flow.flow, Straight())
    found["flow in thousandths"] = FromFlow(thousand.flow, Straight(factor=1000))
    found["flow image"] = FromImage(flow.image, Straight())
    reverse = Analytic(prior, lambda t: (float(t), float(1 - t)))  # the image at t = 1
    found["reverse flow"] = FromFlow(lambda x, t: reverse.flow(x, 1 - t), Straight())
    return found


PRIOR = truth()
ADAPTERS = adapters(PRIOR)


def noisy(sigma, n=3, seed=1):
    return PRIOR.sample(n, torch.Generator().manual_seed(seed)) + sigma * torch.randn(
        n, *PRIOR.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=F64
    )


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("sigma", SIGMAS)
@pytest.mark.parametrize("name", ADAPTERS)
def test_denoiser_of_a_gaussian(name, sigma):
    v = noisy(sigma)
    assert relative(ADAPTERS[name].denoise(v, sigma), PRIOR.denoise(v, sigma)) < 1e-4


@pytest.mark.parametrize("name", ADAPTERS)
def test_value_range(name):
    """A [-1, 1] network denoises [0, 1] images: D'(u, s) = (D(2u - 1, 2s) + 1) / 2."""
    prior = Rescaled(ADAPTERS[name], (0.0, 1.0))
    assert prior.range == (0.0, 1.0) and isinstance(prior, Denoiser)
    for sigma in SIGMAS:
        v = noisy(sigma)
        expected = (PRIOR.denoise(v, sigma) + 1) / 2
        assert relative(prior.denoise((v + 1) / 2, sigma / 2), expected) < 1e-4


def test_conventions_agree_pairwise():
    for sigma in SIGMAS:
        v = noisy(sigma)
        found = [adapter.denoise(v, sigma) for adapter in ADAPTERS.values()]
        assert max(relative(a, b) for a, b in itertools.combinations(found, 2)) < 1e-4


@pytest.mark.parametrize("name", ADAPTERS)
def test_one_level_per_item(name):
    v = noisy(0.1, n=len(SIGMAS))
    together = ADAPTERS[name].denoise(v, torch.tensor(SIGMAS, dtype=F64))
    for i, sigma in enumerate(SIGMAS):
        alone = ADAPTERS[name].denoise(v[i : i + 1], sigma)
        assert torch.allclose(together[i : i + 1], alone, atol=1e-9)


@pytest.mark.parametrize("name", ADAPTERS)
def test_denoisers_are_differentiable(name):
    v = noisy(0.5, n=1).requires_grad_()
    (gradient,) = torch.autograd.grad(ADAPTERS[name].denoise(v, 0.5).sum(), v)
    # D is affine: its derivative against a difference quotient
    h = 1e-3 * torch.ones_like(v)
    v = v.detach()
    change = (PRIOR.denoise(v + h, 0.5) - PRIOR.denoise(v - h, 0.5)).sum() / 2
    assert abs(float((gradient * h).sum() - change)) < 1e-4 * abs(float(change))


def test_the_correction_is_added_to_the_image_not_to_its_scaled_version():
    """The released code of the paper returns c v + ...; at sigma 0.5 that is off by (1 - c) v."""
    sigma, v = 0.5, noisy(0.5)
    c = (1 + sigma**2) ** -0.5
    found = ADAPTERS["table score"].denoise(v, sigma)
    wrong = found - (1 - c) * v
    assert relative(wrong, found) > 0.05
    assert relative(found, PRIOR.denoise(v, sigma)) < 1e-4


@pytest.mark.parametrize("process", [TableVP(ABAR), LinearVP(), LinearVP(factor=999)])
def test_level_to_time_and_back(process):
    sigma = torch.logspace(-1.9957, 2.1760, 2001, dtype=F64)  # 0.0101 to 150
    t = process.time(sigma)
    assert (t.diff() > 0).all()
    assert ((process.sigma(t) - sigma).abs() / sigma).max() < 1e-4
    shuffled = torch.randperm(len(sigma), generator=torch.Generator().manual_seed(0))
    assert torch.equal(process.time(sigma[shuffled]), t[shuffled])  # no memory of the last level


def test_ddpm_levels():
    process = TableVP.linear()
    assert process.limits == pytest.approx((0.0100, 157.4), rel=1e-3)
    at = torch.tensor([0.0, 10.0, 500.0, 999.0], dtype=F64)
    expected = ((1 - ABAR) / ABAR).sqrt()[at.long()]
    assert torch.allclose(process.sigma(at), expected, rtol=1e-12)
    assert torch.allclose(process.time(expected), at, atol=1e-9)


def test_rounded_times_are_whole():
    process = TableVP(ABAR, rounded=True)
    t = process.time(torch.tensor(SIGMAS, dtype=F64))
    assert torch.equal(t, t.round())
    assert ((t - TableVP(ABAR).time(torch.tensor(SIGMAS, dtype=F64))).abs() <= 0.5).all()


def test_a_schedule_that_ends_without_signal_keeps_finite_levels():
    process = TableVP(torch.cat((ABAR, torch.zeros(1, dtype=F64))))
    assert process.limits == TableVP(ABAR).limits


@pytest.mark.parametrize("sigma", [0.005, 200.0, torch.tensor([0.1, 0.001, 1.0])])
def test_levels_out_of_reach_warn_and_use_the_nearest(sigma):
    prior, v = ADAPTERS["table noise"], noisy(0.1)
    with pytest.warns(UserWarning, match="asked for levels"):
        found = prior.denoise(v, sigma)
    low, high = prior.process.limits
    nearest = torch.as_tensor(sigma, dtype=F64).clamp(low, high)
    assert torch.allclose(found, prior.denoise(v, nearest), atol=1e-9)


def test_levels_within_reach_do_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prior = ADAPTERS["table noise"]
        for sigma in prior.process.limits:
            assert bool(torch.isfinite(prior.denoise(noisy(0.1), sigma)).all())


def test_learned_variance_is_left_out():
    def both(x, t):
        return torch.cat((ADAPTERS["table noise"].network(x, t), torch.full_like(x, 9.0)), 1)

    v = noisy(0.1)
    prior = FromNoise(both, TableVP(ABAR))
    assert torch.equal(prior.denoise(v, 0.1), ADAPTERS["table noise"].denoise(v, 0.1))


def test_complex_images_become_channels_at_the_door():
    seen = []

    def network(x, sigma):
        seen.append(x)
        return x / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)

    prior = FromImage(network, VE(), dtype=torch.complex64)
    v = torch.randn(2, 3, 4, 4, dtype=torch.complex64)
    out = prior.denoise(v, 0.5)
    assert seen[0].shape == (2, 6, 4, 4) and torch.equal(from_channels(seen[0]), v)
    assert out.dtype == torch.complex64 and torch.allclose(out, v / 1.25)
    with pytest.raises(ValueError, match="wanted the kind of torch.complex64"):
        prior.denoise(to_channels(v), 0.5)
    with pytest.raises(ValueError, match="wanted the kind of torch.float32"):
        ADAPTERS["edm"].denoise(v, 0.5)


def test_condition_reaches_the_network():
    prior = FromNoise(lambda x, t, condition: x * condition, TableVP(ABAR))
    v = torch.ones(1, 1, 2, 2)
    c = (1 + 0.5**2) ** -0.5
    assert torch.allclose(prior.denoise(v, 0.5, torch.tensor(2.0)), v - 0.5 * 2 * c * v)


def test_a_network_keeps_its_precision_inside():
    network = torch.nn.Conv2d(1, 1, 3, padding=1).to(torch.bfloat16)
    times = []

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = network

        def forward(self, x, t):
            times.append(t.dtype)
            assert x.dtype == torch.bfloat16
            return self.conv(x)

    v = torch.randn(1, 1, 8, 8)
    out = FromNoise(Net(), TableVP(ABAR)).denoise(v, 0.3)
    assert out.dtype == torch.float32 and times == [torch.float32]
    expected = v - 0.3 * network((v * (1 + 0.3**2) ** -0.5).bfloat16()).float()
    assert torch.allclose(out, expected)


def test_bad_tables_are_refused():
    with pytest.raises(ValueError, match="decreasing"):
        TableVP(torch.tensor([0.5, 0.9]))
    with pytest.raises(ValueError, match="decreasing"):
        TableVP(torch.tensor([0.5]))
