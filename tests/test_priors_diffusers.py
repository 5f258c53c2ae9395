"""A tiny diffusers model, saved here, denoises as its own formulas say."""

import builtins
import json

import pytest
import torch

from measurand.measurement import Measurement
from measurand.noises import Gaussian
from measurand.operators import Identity
from measurand.priors.diffusers import from_diffusers, latent_from_diffusers
from measurand.solvers import RELD

diffusers = pytest.importorskip("diffusers")


def save(folder, *, prediction="epsilon", variance=False, time="positional", whole=True):
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=6 if variance else 3,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        time_embedding_type=time,
        num_train_timesteps=1000 if time == "learned" else None,
    ).eval()
    scheduler = diffusers.DDIMScheduler(beta_schedule="scaled_linear", prediction_type=prediction)
    unet.save_pretrained(folder / "unet" if whole else folder)
    scheduler.save_pretrained(folder / "scheduler" if whole else folder)
    return unet, scheduler


@pytest.fixture
def v():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("variance", [False, True])
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_estimate_is_the_schedulers_own(tmp_path, v, prediction, variance):
    """At a level of the table, the scheduler's `pred_original_sample` is the same image."""
    unet, scheduler = save(tmp_path, prediction=prediction, variance=variance)
    prior = from_diffusers(tmp_path)
    for t in (0, 100, 700):
        abar = scheduler.alphas_cumprod[t]
        sigma = float(((1 - abar) / abar).sqrt())
        x_t = abar.sqrt() * v
        with torch.no_grad():
            out = unet(x_t, t).sample[:, :3]
        scheduler.set_timesteps(1000)
        scheduler.config.clip_sample = False
        expected = scheduler.step(out, t, x_t, use_clipped_model_output=False)
        assert prior.denoise(v, sigma).shape == v.shape
        clipped = prior.denoise(v, sigma).clamp(-1, 1)
        assert torch.allclose(clipped, expected.pred_original_sample.clamp(-1, 1), atol=2e-4)


def test_levels_between_the_table_and_one_per_item(tmp_path, v):
    save(tmp_path)
    prior = from_diffusers(tmp_path)
    both = prior.denoise(v, torch.tensor([0.05, 1.0]))
    assert torch.allclose(both[:1], prior.denoise(v[:1], 0.05), atol=1e-5)
    assert torch.allclose(both[1:], prior.denoise(v[1:], 1.0), atol=1e-5)
    assert not prior.training and not any(p.requires_grad for p in prior.parameters())


def test_odd_sizes_flat_folders_and_learned_times(tmp_path, v):
    save(tmp_path, time="learned", whole=False)
    prior = from_diffusers(tmp_path)
    assert prior.process.rounded
    odd = prior.denoise(v[..., :7, :5], 0.3)
    assert odd.shape == (2, 3, 7, 5) and torch.isfinite(odd).all()
    even = prior.denoise(torch.nn.functional.pad(v[..., :7, :5], (0, 1, 0, 1), "reflect"), 0.3)
    assert torch.allclose(odd, even[..., :7, :5], atol=1e-6)


def test_folders_that_do_not_fit_are_refused(tmp_path, v):
    with pytest.raises(FileNotFoundError, match=r"neither unet/config.json nor config.json"):
        from_diffusers(tmp_path)
    save(tmp_path)
    path = tmp_path / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "prediction_type": "flow_prediction"}))
    with pytest.raises(ValueError, match="prediction_type 'flow_prediction', wanted one of eps"):
        from_diffusers(tmp_path)
    del config["beta_start"]
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="wanted a schedule of beta"):
        from_diffusers(tmp_path)


def test_pickled_weights_are_refused(tmp_path):
    unet, _ = save(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save(unet.state_dict(), tmp_path / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        from_diffusers(tmp_path)


def test_without_the_library_the_error_names_the_extra(tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *args, **kwargs):
        if name == "diffusers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(ImportError, match=r"measurand\[latent\]"):
        from_diffusers(tmp_path)


def save_latent(folder, shift=None):
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    ).eval()
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        scaling_factor=0.5,
        shift_factor=shift,
    ).eval()
    scheduler = diffusers.DDPMScheduler(beta_schedule="scaled_linear")
    unet.save_pretrained(folder / "unet")
    vae.save_pretrained(folder / "vae")
    scheduler.save_pretrained(folder / "scheduler")
    return vae


@pytest.mark.parametrize("shift", [None, 0.25])
def test_a_latent_model_of_a_folder(tmp_path, v, shift):
    """Codes are the scaled mode of the posterior, and no draw; the steps of RELD run on it."""
    vae = save_latent(tmp_path, shift)
    prior = latent_from_diffusers(tmp_path, [v])
    with torch.no_grad():
        z = (vae.encode(v).latent_dist.mode() - (shift or 0)) * 0.5
        image = vae.decode(2 * z + (shift or 0)).sample
    assert torch.allclose(prior.encode(v), z, atol=1e-5) and prior.factor == 2
    assert torch.allclose(prior.decode(z), image, atol=1e-5)
    assert prior.error > 0 and prior.code_noise(0.1) > 0
    assert prior.denoise_code(z, 0.3).shape == z.shape
    m = Measurement(Identity((3, 8, 8)), Gaussian(sigma=0.1), v)
    assert RELD(steps=2)(m, prior).shape == v.shape
    odd = torch.zeros(1, 3, 9, 7)
    assert prior.decode(prior.encode(odd)).shape == (1, 3, 10, 8)
    with pytest.raises(TypeError, match="not a ConvAutoencoder"):
        prior.autoencoder.to_card()


def test_what_is_no_latent_model_is_refused(tmp_path, v):
    save(tmp_path)
    with pytest.raises(FileNotFoundError, match="found no vae/config.json"):
        latent_from_diffusers(tmp_path, [v])
    save_latent(tmp_path)
    with pytest.raises(ValueError, match="got no images to measure"):
        latent_from_diffusers(tmp_path, [])
    file = tmp_path / "unet" / "config.json"
    file.write_text(file.read_text().replace("UNet2DModel", "UNet2DConditionModel"))
    with pytest.raises(ValueError, match="got a UNet2DConditionModel, wanted a UNet2DModel"):
        latent_from_diffusers(tmp_path, [v])
