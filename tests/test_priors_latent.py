"""Latent priors: the scale of codes, their noise, parts without seams, what fits and what not."""

import json

import pytest
import torch
from torch import nn

import measurand as ms
from measurand.nets import ConvAutoencoder, ConvUNet
from measurand.priors import Autoencoder, CodedImages, Gaussian, LatentPrior, PixelCode
from measurand.priors.autoencoder import LEVELS, autoencoder_loss
from measurand.priors.capabilities import Latent
from measurand.priors.latent import code_denoiser
from measurand.priors.trained import Images
from measurand.weights.store import load, save, stored


def images(n=4, channels=3, size=(32, 32), seed=0):
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, *size, generator=random)
    return nn.functional.avg_pool2d(x, 5, 1, 2).clamp(-1, 1)


def autoencoder(code=4, channels=3):
    torch.manual_seed(0)
    net = ConvAutoencoder(channels, code, widths=(8, 12))
    net.initialize(images(8, channels))
    for part in (net.encoder, net.decoder):
        for layer in part:
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.05)
    return Autoencoder(net).measured([images(4, channels, seed=1)])


def latent(code=4, channels=3):
    model = autoencoder(code, channels)
    torch.manual_seed(1)
    net = ConvUNet(code, widths=(8, 12), blocks=1, stem=1, features=16)
    nn.init.normal_(net.head.weight, std=0.02)
    return LatentPrior(model, code_denoiser(net, 1.0)).requires_grad_(False)


def test_codes_have_mean_zero_and_the_noise_of_the_image():
    model, x = autoencoder(), images(4, seed=1)
    z = model.encode(x).detach()
    assert torch.allclose(z.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert model.spread == pytest.approx(float(z.square().mean().sqrt()), rel=1e-4)
    noise = 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(7))
    change = (model.encode(x + noise) - z).square().mean((0, 2, 3)).sqrt()
    assert torch.allclose(change, torch.full((4,), 0.1), rtol=0.1)


def test_error_and_ceiling_are_those_of_the_images():
    model, x = autoencoder(), images(4, seed=1)
    error = (model(x) - x).square().mean().sqrt().item()
    assert model.error == pytest.approx(error, rel=1e-5)
    psnr = 10 * torch.log10(4 / (model(x) - x).square().mean((1, 2, 3)))
    assert torch.allclose(model.ceiling(x).float(), psnr, atol=1e-3)
    assert model.ceiling(x).shape == (4,)


def test_noise_of_codes_is_measured_not_assumed():
    """Of a linear encoder it is proportional to sigma; the table is met and lines join it."""
    model, x = autoencoder(), images(4, seed=1)
    for share in (LEVELS[2], LEVELS[5]):
        random = torch.Generator().manual_seed(7)
        noise = 2 * share * torch.randn(x.shape, generator=random)
        measured = (model.encode(x + noise) - model.encode(x)).square().mean().sqrt().item()
        assert model.code_noise(2 * share) == pytest.approx(measured, rel=0.1)
    levels = torch.tensor([1e-5, 0.01, 0.3, 1.0, 5.0])
    many = model.code_noise(levels)
    assert many.dtype == torch.float32 and bool((many.diff() > 0).all())
    assert many.tolist() == pytest.approx([model.code_noise(float(s)) for s in levels], rel=1e-5)
    assert model.code_noise(0.0) == 0.0
    with pytest.raises(ValueError, match="noise of codes is not known"):
        Autoencoder(ConvAutoencoder(3, 4, widths=(8, 12))).code_noise(0.1)


def test_large_images_are_decoded_in_parts_without_seams():
    model, z = autoencoder(), torch.randn(1, 4, 50, 70, generator=torch.Generator().manual_seed(3))
    whole = model.decode(z)
    model.tile = 64  # of 200 x 280 pixels
    parts = model.decode(z)
    assert float((parts - whole).abs().max()) < 1e-5 * float(whole.abs().max())
    model.net.reach = 1  # as it would be with too small a margin
    assert float((model.decode(z) - whole).abs().max()) > 1e-4


def test_gradients_go_through_parts():
    model, z = autoencoder().double(), torch.randn(1, 4, 20, 12, dtype=torch.float64)
    z.requires_grad_()
    u = torch.randn(1, 3, 80, 48, dtype=torch.float64)
    (one,) = torch.autograd.grad(model.decode(z), z, u)
    model.tile = 32
    (other,) = torch.autograd.grad(model.decode(z), z, u)
    assert torch.allclose(one, other, atol=1e-12)


def test_saved_and_loaded_bit_for_bit(tmp_path):
    # the layout in which weights are loaded: another one rounds in another order
    model = stored(latent()).to(memory_format=torch.channels_last)
    model.card = {"licence": "none: random"}
    save(tmp_path / "l.safetensors", model)
    again = load(tmp_path / "l.safetensors", Latent, dtype=torch.float32)
    x = images(2, size=(30, 41), seed=5)
    z = model.encode(x)
    assert type(again) is LatentPrior and torch.equal(again.encode(x), z)
    assert torch.equal(again.decode(z), model.decode(z))
    assert torch.equal(again.denoise_code(z, 0.3), model.denoise_code(z, 0.3))
    assert again.error == model.error and again.code_noise(0.1) == model.code_noise(0.1)
    summary = LatentPrior.summary({**again.to_card(), "held_out_psnr": {"ceiling": 31.23}})
    assert summary == "denoiser of the codes of color images, ceiling 31.2 dB"
    json.dumps(again.to_card())


def test_an_autoencoder_alone_is_saved_and_is_no_prior(tmp_path):
    model = stored(autoencoder())
    save(tmp_path / "a.safetensors", model)
    again = load(tmp_path / "a.safetensors", dtype=torch.float32)
    x = images(1, seed=5)
    assert torch.equal(again(x), model(x)) and again.noise == model.noise
    with pytest.raises(ValueError, match="--prior a is an autoencoder without a denoiser"):
        again.fitted(Images((3, 8, 8), torch.float32), name="a")


def test_a_prior_needs_a_measured_autoencoder():
    bare = Autoencoder(ConvAutoencoder(3, 4, widths=(8, 12)))
    with pytest.raises(ValueError, match="error and noise of codes are not known"):
        LatentPrior(bare, latent().denoiser)
    with pytest.raises(ValueError, match="table of noise with 1 rows, wants 8"):
        Autoencoder(ConvAutoencoder(3, 4, widths=(8, 12)), noise=[[1, 1, 1, 1]])


def test_images_of_another_range_and_grey_ones():
    prior = latent()
    fit = prior.fitted(Images((3, 32, 32), torch.float32, range=(0.0, 1.0)), name="p")
    assert isinstance(fit.prior, CodedImages) and "rescaled from [0, 1]" in fit.notes[0]
    x = images(2, seed=5)
    outside = (x + 1) / 2
    z = fit.prior.encode(outside)
    assert torch.allclose(z, prior.encode(x), atol=1e-4)
    assert torch.allclose(fit.prior.decode(z), (prior.decode(z) + 1) / 2, atol=1e-5)
    assert fit.prior.code_noise(0.05) == pytest.approx(prior.code_noise(0.1))
    assert fit.prior.error == pytest.approx(prior.error / 2)
    grey = prior.fitted(Images((1, 32, 32), torch.float32), name="p").prior
    one = x[:, :1]
    assert torch.allclose(grey.encode(one), prior.encode(one.expand(-1, 3, -1, -1)), atol=1e-4)
    assert grey.decode(z).shape == one.shape
    with pytest.raises(ValueError, match="got images with 3 channels, wanted 1"):
        grey.encode(x)
    assert prior.fitted(Images((3, 32, 32), torch.float32), name="p") == (prior, [])


def test_what_does_not_fit_is_refused():
    prior = latent()
    with pytest.raises(ValueError, match="p knows real images"):
        prior.fitted(Images((3, 8, 8), torch.complex64), name="p")
    with pytest.raises(ValueError, match="p knows images with 3 channels"):
        prior.fitted(Images((2, 8, 8), torch.float32), name="p")
    with pytest.raises(ValueError, match="complex64, wants real"):
        prior.encode(images().to(torch.complex64))
    with pytest.raises(ValueError, match=r"shape \(4, 1, 32, 32\)"):
        prior.encode(images(channels=1))
    with pytest.raises(TypeError, match="the network is a Linear"):
        net = nn.Linear(1, 1)
        net.channels, net.code_channels, net.factor, net.reach = 1, 1, 1, None
        Autoencoder(net).to_card()
    with pytest.raises(TypeError, match="the denoiser is a Gaussian"):
        normal = Gaussian(torch.zeros(1, 4, 2, 2), torch.eye(16))
        LatentPrior(prior.autoencoder, normal).to_card()


def test_the_exact_denoiser_of_normal_codes():
    """Of codes N(0, I), E[z given z + s n] = (z + s n) / (1 + s^2): the network at zero has it."""
    model = latent()
    nn.init.zeros_(model.denoiser.net.head.weight)
    nn.init.zeros_(model.denoiser.net.head.bias)
    z = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for s in (0.02, 0.5, 3.0):
        assert torch.allclose(model.denoise_code(z, s), z / (1 + s**2), rtol=1e-2)


def test_the_card_says_how_good_it_is():
    prior, x = latent(), images(1, seed=9)
    (score,) = prior.quality(ms.training.quality.HeldOut([x]))
    assert score.values == {"ceiling": pytest.approx(float(prior.ceiling(x)))}
    assert prior.remarks(None, x) == {"ceiling": pytest.approx(float(prior.ceiling(x)))}
    assert prior.remarks(None, x.to(torch.complex64)) == {}
    assert set(prior.remarks(None, x[:, :1])) == {"ceiling"}


def test_a_denoiser_of_images_is_a_latent_prior_with_itself_as_code():
    normal = Gaussian(torch.zeros(1, 1, 4, 4), 0.25 * torch.eye(16))
    code, v = PixelCode(normal), torch.randn(2, 1, 4, 4)
    assert isinstance(code, Latent) and code.error == 0 and code.factor == 1
    assert torch.equal(code.denoise_code(v, 0.3), normal.denoise(v, 0.3))


def test_the_loss_by_hand():
    model = Autoencoder(ConvAutoencoder(1, 1, widths=(4, 4)))
    with torch.no_grad():
        model.net.linear_image.bias.fill_(0.5)  # every image is 0.5, every code 0
    x = torch.zeros(2, 1, 4, 4)
    x[1, 0, :, 2:] = 1.0
    batch = {"x": x, "noise": torch.zeros(2, 1, 1, 1)}
    found = autoencoder_loss(model, batch, gradient=0.1, weight=1.0)
    # |d| = 1/2 in both; one of three differences along rows is 1 in the second
    assert found.tolist() == pytest.approx([0.5, 0.5 + 0.1 / 3])
