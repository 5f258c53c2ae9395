import math

import pytest
import torch
from torch import nn

from measurand.nets import ConvUNet
from measurand.priors import Denoiser, score
from measurand.priors.edm import (
    OCTAVES,
    EDMDenoiser,
    edm_loss,
    fast_dtype,
    fitted_gains,
    lognormal_sigma,
)
from measurand.tensors import generators, randn_like
from measurand.training.quality import calibration


class GaussianNet(nn.Module):
    """The ideal network F of data N(0, s^2): D = s^2 / (sigma^2 + s^2) v, hence F = 0."""

    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.zeros(1))

    def forward(self, x, c):
        return x * self.p


class Recorder(GaussianNet):
    def forward(self, x, c, condition=None):
        self.seen = (x, c, condition)
        return super().forward(x, c)


def tiny(**options):
    torch.manual_seed(0)
    net = ConvUNet(3, widths=(8, 12), features=16, **options)
    for p in net.parameters():
        nn.init.normal_(p, std=0.1)
    return EDMDenoiser(net)


def test_gaussian_data_have_the_wiener_filter():
    v = torch.randn(2, 3, 8, 8)
    prior = EDMDenoiser(GaussianNet(), sigma_data=0.5)
    sigma = torch.tensor([0.1, 3.0])
    wanted = v * (0.25 / (0.25 + sigma.square()))[:, None, None, None]
    assert torch.allclose(prior.denoise(v, sigma), wanted, atol=1e-6)
    s = score(prior, v, sigma)
    assert torch.allclose(s, -v / (0.25 + sigma.square())[:, None, None, None], rtol=1e-4)


@pytest.mark.parametrize("sigma", [0.002, 0.1, 1.0, 80.0])
def test_the_network_sees_unit_variance(sigma):
    net = Recorder()
    v = 0.5 * torch.randn(4, 3, 64, 64) + sigma * torch.randn(4, 3, 64, 64)
    EDMDenoiser(net).denoise(v, sigma)
    x, c, condition = net.seen
    assert x.std() == pytest.approx(1, abs=0.02)
    assert c.tolist() == pytest.approx([math.log(sigma) / 4])
    assert condition is None


def test_no_noise_gives_the_image_back():
    v = torch.randn(1, 3, 8, 8)
    assert torch.allclose(tiny().denoise(v, 0.0), v, atol=1e-6)


def test_loss_is_the_error_of_the_network():
    """weight |D - x|^2 = |F - F_ideal|^2 with F_ideal = (x - c_skip v) / c_out."""
    prior, s = tiny().double(), 0.5
    x, noise = 0.5 * torch.randn(3, 3, 8, 8).double(), torch.randn(3, 3, 8, 8).double()
    sigma = torch.tensor([0.02, 0.3, 5.0]).double()
    level = sigma[:, None, None, None]
    v = x + level * noise
    total = level**2 + s**2
    ideal = (x - v * s**2 / total) / (level * s / total.sqrt())
    output = prior.net(v / total.sqrt(), sigma.log() / 4)
    wanted = (output - ideal).square().mean((1, 2, 3))
    losses = edm_loss(prior, {"x": x, "sigma": sigma, "noise": noise})
    assert torch.allclose(losses, wanted, rtol=1e-3)  # preconditioning is float32


def test_is_a_denoiser_of_real_images():
    prior = tiny()
    assert isinstance(prior, Denoiser)
    assert prior.range == (-1.0, 1.0) and prior.dtype == torch.float32
    with pytest.raises(ValueError, match=r"\(1, 1, 8, 8\).*wants real \(B, 3, H, W\)"):
        prior.denoise(torch.zeros(1, 1, 8, 8), 0.1)
    with pytest.raises(ValueError, match="complex64"):
        prior.denoise(torch.zeros(1, 3, 8, 8, dtype=torch.complex64), 0.1)


def test_condition_reaches_the_network():
    prior, v = tiny(condition_channels=1), torch.randn(1, 3, 8, 8)
    a = prior.denoise(v, 0.1, torch.zeros(1, 1, 8, 8))
    b = prior.denoise(v, 0.1, torch.ones(1, 1, 8, 8))
    assert not torch.allclose(a, b)


def test_a_complex_condition_is_two_channels_to_the_network():
    prior, v = tiny(condition_channels=2), torch.randn(2, 3, 8, 8)
    real, imaginary = torch.randn(2, 2, 1, 8, 8)
    found = prior.denoise(v, 0.1, torch.complex(real, imaginary))
    assert torch.equal(found, prior.denoise(v, 0.1, torch.cat((real, imaginary), 1)))
    assert not torch.allclose(found, prior.denoise(v, 0.1, torch.complex(real, 0 * imaginary)))


def test_differentiable_in_image_and_weights():
    prior, v = tiny(), torch.randn(1, 3, 8, 8, requires_grad=True)
    prior.denoise(v, 0.3).square().sum().backward()
    assert v.grad.abs().max() > 0
    assert all(p.grad is not None for p in prior.parameters())


def test_bfloat16_weights_leave_images_float32():
    v = torch.randn(2, 3, 16, 16)
    exact = tiny().denoise(v, 0.3)
    rounded = tiny().to(torch.bfloat16).denoise(v, 0.3)
    assert rounded.dtype == torch.float32 and rounded.is_contiguous()
    assert (rounded - exact).abs().max() < 0.05 * exact.abs().max()
    assert not torch.equal(rounded, exact)


def test_levels_are_lognormal_and_clamped():
    levels = lognormal_sigma(20000, torch.Generator().manual_seed(0), uniform=0.0)
    assert levels.log().mean() == pytest.approx(-1.6, abs=0.03)
    assert levels.log().std() == pytest.approx(1.2, abs=0.03)
    wide = lognormal_sigma(1000, torch.Generator().manual_seed(0), std=20.0)
    assert wide.min() == pytest.approx(0.002) and wide.max() == 80


def test_some_levels_cover_the_whole_range():
    levels = lognormal_sigma(20000, torch.Generator().manual_seed(0), uniform=0.1)
    low, high = math.log(0.002), math.log(80)
    top = (levels.log() > high - 0.1 * (high - low)).float().mean()
    assert top == pytest.approx(0.01, abs=0.003)


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [("sse2 avx512_bf16", torch.bfloat16), ("amx_bf16", torch.bfloat16), ("avx2", torch.float32)],
)
def test_precision_follows_the_processor(monkeypatch, flags, wanted):
    import io

    text = f"processor : 0\nflags\t\t: fpu {flags} vme\n"
    monkeypatch.setattr("builtins.open", lambda *_: io.StringIO(text))
    assert fast_dtype("cpu") == wanted


def test_precision_is_float32_where_nothing_is_known(monkeypatch):
    def refuse(*_):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", refuse)
    assert fast_dtype("cpu") == torch.float32


def test_what_every_image_has_as_its_sum_every_answer_has():
    """The conditional mean of images on a hyperplane lies on it, and a projection is nearer."""
    prior = tiny()
    prior.mean, prior.fixed_sum, prior.gains = -1.0, 20.0, (0.3,) * len(OCTAVES)
    for sigma, size in ((0.0, 8), (0.3, 8), (100.0, 12)):  # of any size
        answer = prior.denoise(torch.randn(4, 3, size, size), sigma)
        sums = (answer + 1.0).sum((1, 2, 3))
        assert torch.allclose(sums, torch.full((4,), 20.0), rtol=1e-4)
    torch.manual_seed(1)
    x = torch.randn(4, 3, 8, 8)
    x = x - x.mean((1, 2, 3), keepdim=True) - 1.0 + 20.0 / x[0].numel()
    v = x + 0.3 * torch.randn_like(x)
    near = prior.denoise(v, 0.3)
    prior.fixed_sum = None
    far = prior.denoise(v, 0.3)
    assert ((near - x).square().sum((1, 2, 3)) < (far - x).square().sum((1, 2, 3))).all()


def test_a_mean_moves_image_and_estimate():
    """D with a mean is D of the centred image, moved back."""
    prior, v = tiny(), torch.randn(2, 3, 8, 8)
    moved = EDMDenoiser(prior.net, mean=-0.7)
    assert torch.allclose(moved.denoise(v - 0.7, 0.3), prior.denoise(v, 0.3) - 0.7, atol=1e-6)


def test_complex_images_are_two_channels_to_the_network():
    net = ConvUNet(2, widths=(8, 8), blocks=1)
    torch.nn.init.normal_(net.head.weight, std=0.1)
    real = EDMDenoiser(net, channels=2)
    prior = EDMDenoiser(net, channels=1, dtype=torch.complex64)
    v = torch.randn(3, 1, 8, 12, dtype=torch.complex64)
    found = prior.denoise(v, torch.tensor([0.1, 0.2, 0.3]))
    wanted = real.denoise(torch.cat((v.real, v.imag), 1), torch.tensor([0.1, 0.2, 0.3]))
    assert torch.equal(found, torch.complex(wanted[:, :1], wanted[:, 1:]))
    with pytest.raises(ValueError, match=r"wants complex \(B, 1, H, W\)"):
        prior.denoise(v.real, 0.1)
    with pytest.raises(ValueError, match=r"wants real \(B, 2, H, W\)"):
        real.denoise(v, 0.1)


def test_levels_above_the_trained_ones_are_seen_at_the_highest():
    """The estimate goes on without a jump, and does not grow with the noise."""
    prior, n = tiny(), torch.randn(1, 3, 8, 8)
    at_top = prior.denoise(80 * n, 80.0)
    assert torch.allclose(prior.denoise(80.01 * n, 80.01), at_top, atol=1e-2)
    assert torch.allclose(prior.denoise(1e4 * n, 1e4), at_top, atol=1e-3)
    both = prior.denoise(torch.cat((80 * n, 1e4 * n)), torch.tensor([80.0, 1e4]))
    assert torch.allclose(both[1:], at_top, atol=1e-3)


def test_a_loss_far_beyond_that_of_answering_zero_counts_by_its_logarithm():
    class Loud(torch.nn.Module):
        def __init__(self, gain):
            super().__init__()
            self.gain = torch.nn.Parameter(torch.tensor(gain))

        def forward(self, x, c):
            return self.gain * x

    batch = {"x": torch.zeros(1, 1, 64, 64), "sigma": torch.tensor([80.0])}
    batch["noise"] = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    power = float(batch["noise"].square().mean())
    for gain, factor in ((1.5, 1.0), (100.0, 4 / (1e4 * power))):
        net = Loud(gain)
        loss = edm_loss(EDMDenoiser(net, channels=1), batch)
        loss.sum().backward()
        assert float(net.gain.grad) == pytest.approx(2 * gain * power * factor, rel=1e-2)


def white(s, n=16, size=24, **options):
    g = torch.Generator().manual_seed(3)
    return [s * torch.randn(8, 1, size, size, generator=g, **options) for _ in range(n // 8)]


def test_gains_mend_a_prior_of_another_variance():
    """The Wiener filter of s = 0.5 on images of s = 0.3: g = (sigma^2 + 0.25)/(sigma^2 + 0.09)."""
    prior = EDMDenoiser(GaussianNet(), channels=1)
    images = white(0.3)
    gains = fitted_gains(prior, images)
    for octave, found in zip(OCTAVES, gains, strict=True):
        square = 4.0**octave
        assert 1 + found == pytest.approx((square + 0.25) / (square + 0.09), rel=0.02)
    before = calibration(prior, images, sigmas=(0.125, 0.5))
    prior.gains = tuple(gains)
    after = calibration(prior, white(0.3, 32), sigmas=(0.125, 0.5))
    assert before["0.5"] == pytest.approx(0.125 / 0.085, rel=0.05)
    assert all(v == pytest.approx(1, abs=0.03) for v in after.values())
    again = fitted_gains(prior, images)  # of a prior that has gains: they stay
    assert again == pytest.approx(gains, rel=1e-3)


def test_a_prior_that_is_right_has_no_gains():
    prior = EDMDenoiser(GaussianNet(), channels=1)
    assert max(map(abs, fitted_gains(prior, white(0.5, 64)))) < 0.01


def test_gains_of_complex_images_and_of_images_with_a_sum():
    complex_ = EDMDenoiser(GaussianNet(), channels=1, dtype=torch.complex64)
    x = [0.3 * randn_like(torch.empty(8, 1, 24, 24, dtype=torch.complex64), generators(0, 8))]
    assert 1 + fitted_gains(complex_, x)[16] == pytest.approx(0.3125 / 0.1525, rel=0.05)
    flat = [x - x.mean((1, 2, 3), keepdim=True) for x in white(0.3, size=4, n=64)]
    bound = EDMDenoiser(GaussianNet(), channels=1, fixed_sum=0.0)
    # 15 of 16 directions are left: white there with the same variance
    assert 1 + fitted_gains(bound, flat)[16] == pytest.approx(0.3125 / 0.1525, rel=0.06)


def test_gains_are_linear_between_quarter_octaves_and_one_outside():
    gains = [0.1 * (k + 1) for k in range(len(OCTAVES))]
    prior = EDMDenoiser(GaussianNet(), channels=1, gains=gains)
    sigma = torch.tensor(
        [1e-9, 2.0**-6.5, 2.0**-6, 2.0**-5.875, 2.0**-5.75, 2.0, 2.0**1.125, 2.0**1.25, 80.0]
    )
    wanted = torch.tensor([1.0, 1.0, 1.1, 1.15, 1.2, 3.9, 2.45, 1.0, 1.0])
    assert torch.allclose(prior.gain(sigma), wanted, atol=1e-5)
    assert torch.allclose(prior.gain(sigma.double()), wanted.double(), atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(prior.gain(sigma), wanted, atol=1e-5)
    v = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = EDMDenoiser(GaussianNet(), channels=1)
    levels = torch.tensor([2.0**-5.75, 80.0])
    moved = prior.denoise(v, levels) - v
    assert torch.allclose(moved[0], 1.2 * (plain.denoise(v, levels) - v)[0], atol=1e-6)
    assert torch.equal(moved[1], (plain.denoise(v, levels) - v)[1])
    assert torch.equal(prior.denoise(v, 0.0), plain.denoise(v, 0.0))


def test_gains_are_one_for_each_level():
    with pytest.raises(ValueError, match="got 3 gains, wants 29"):
        EDMDenoiser(GaussianNet(), channels=1, gains=[0.1] * 3)


@pytest.mark.parametrize("sigma", [-1.0, float("nan"), float("inf"), torch.tensor([0.1, -0.1])])
def test_levels_are_finite_and_not_negative(sigma):
    with pytest.raises(ValueError, match="EDMDenoiser: got sigma .*wanted a finite noise level"):
        tiny().denoise(torch.zeros(2, 3, 8, 8), sigma)


def test_bytes_are_no_images():
    with pytest.raises(ValueError, match=r"EDMDenoiser: got images of torch.uint8.*in \[-1, 1\]"):
        tiny().denoise(torch.full((1, 3, 8, 8), 200, dtype=torch.uint8), 25.0)


def test_a_traced_denoiser_has_levels_as_inputs():
    prior, v = tiny().eval().requires_grad_(False), torch.randn(2, 3, 8, 8)
    sigma = torch.tensor([0.1, 0.5])
    program = torch.export.export(prior, (v, sigma))
    torch.testing.assert_close(program.module()(v, sigma), prior(v, sigma), atol=1e-5, rtol=1e-4)
