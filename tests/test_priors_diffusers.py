"""A tiny diffusers model, saved here, denoises as its own formulas say."""

import builtins
import json

import pytest
import torch

from measurand.priors.diffusers import from_diffusers

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
