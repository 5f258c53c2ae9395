r"""Models of the `diffusers` library as priors: of pixels as denoisers, of codes as latent priors.

A model folder holds a `UNet2DModel` (weights as safetensors) and the configuration of the
scheduler that it was trained with. The scheduler says which levels its times stand for,

    abar_t = prod_{s <= t} (1 - beta_s),

and what the network predicts: the noise ("epsilon"), the image ("sample") or the velocity
("v_prediction"). That is all a denoiser needs; nothing of its sampling loop is used. Networks are
read from the local folder only, nothing is downloaded, and pickled weights are refused.

A latent model's folder also holds an `AutoencoderKL`. Its code is the mode of the posterior, never
a draw of it, as (z - shift_factor) scaling_factor, which is what its network denoises.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..nets.unet import extend
from .autoencoder import Autoencoder
from .capabilities import Range
from .conventions import FromImage, FromNoise, FromVelocity, TableVP
from .latent import LatentPrior

__all__ = ["from_diffusers", "latent_from_diffusers"]

_Denoiser = FromNoise | FromImage | FromVelocity
_PREDICTIONS: dict[str, type[_Denoiser]] = {
    "epsilon": FromNoise,
    "sample": FromImage,
    "v_prediction": FromVelocity,
}


def from_diffusers(
    folder: str | os.PathLike[str],
    *,
    range: Range | None = (-1.0, 1.0),
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> _Denoiser:
    """A denoiser from a local `diffusers` folder.

    Args:
        folder: A pipeline's folder, with `unet/` and `scheduler/`, or one folder with both
            `config.json` and `scheduler_config.json`.
        range: The values that the images of the training had; None where they have any.
        device: Where it runs.
        dtype: Precision of the network; images stay float32.
    Returns:
        The denoiser. It takes images of any size: the network sees them mirrored at the border up
        to the multiple that it needs.
    Raises:
        ImportError: `diffusers` is not installed.
        FileNotFoundError: The folder lacks the network or the scheduler.
        ValueError: The prediction or the schedule is of a kind that has no VP denoiser.
    """
    try:
        from diffusers import DDPMScheduler, UNet2DModel
    except ImportError as error:
        raise ImportError(
            "from_diffusers: diffusers is not installed; install the extra: "
            "pip install 'measurand[latent]'"
        ) from error
    folder = Path(folder)
    network = _find(folder, "unet", "config.json")
    scheduler = _find(folder, "scheduler", "scheduler_config.json")
    config = json.loads((scheduler / "scheduler_config.json").read_text())
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in _PREDICTIONS:
        raise ValueError(
            f"{scheduler}: got prediction_type {prediction!r}, wanted one of "
            f"{', '.join(_PREDICTIONS)}"
        )
    if "beta_start" not in config and config.get("trained_betas") is None:
        raise ValueError(
            f"{scheduler}: got {config.get('_class_name')}, wanted a schedule of beta"
        )
    # every scheduler of the VP family keeps its betas under the same names; DDPM reads them all
    abar = DDPMScheduler.from_config(
        {key: value for key, value in config.items() if not key.startswith("_")}
    ).alphas_cumprod
    unet = UNet2DModel.from_pretrained(
        network,
        local_files_only=True,
        use_safetensors=True,
        low_cpu_mem_usage=False,
        torch_dtype=dtype,
    )
    door = _Door(unet)
    process = TableVP(abar, rounded=door.table)
    prior = _PREDICTIONS[prediction](door, process, range=range)
    return prior.to(device).eval().requires_grad_(False)


def latent_from_diffusers(
    folder: str | os.PathLike[str],
    images: Sequence[Tensor],
    *,
    range: Range = (-1.0, 1.0),
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LatentPrior:
    """A latent prior from a local `diffusers` folder.

    Args:
        folder: A pipeline's folder, with `vae/` (an `AutoencoderKL`), `unet/` (an unconditional
            `UNet2DModel` of codes) and `scheduler/`.
        images: A few images, each (B, C, H, W), such as the model was trained on: what the noise
            of codes and the error of the autoencoder are measured on.
        range: The values that the images of the training had.
        device: Where it runs.
        dtype: Precision of the networks; images stay float32.
    Returns:
        The latent prior; it has no weight file of ours.
    Raises:
        ImportError: `diffusers` is not installed.
        FileNotFoundError: The folder lacks a part.
        ValueError: No images are given, or a part is of a kind that is not known here.
    """
    folder = Path(folder)
    if not len(images):
        raise ValueError("latent_from_diffusers: got no images to measure the noise of codes on")
    if not (folder / "vae" / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: found no vae/config.json")
    for part, wanted in (("vae", "AutoencoderKL"), ("unet", "UNet2DModel")):
        file = folder / part / "config.json"
        named = json.loads(file.read_text()).get("_class_name") if file.is_file() else wanted
        if named != wanted:
            raise ValueError(f"{file}: got a {named}, wanted a {wanted}")
    denoiser = from_diffusers(folder, range=None, device=device, dtype=dtype)
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(
        folder / "vae",
        local_files_only=True,
        use_safetensors=True,
        low_cpu_mem_usage=False,
        torch_dtype=dtype,
    )
    autoencoder = Autoencoder(_KLDoor(vae), range=range)
    autoencoder.mean.fill_(vae.config.shift_factor or 0.0)
    autoencoder.scale.fill_(1 / vae.config.scaling_factor)
    autoencoder.to(device).eval().requires_grad_(False)
    autoencoder.measured([x.to(device) for x in images], scale=False)
    return LatentPrior(autoencoder, denoiser)


class _KLDoor(nn.Module):
    """An `AutoencoderKL` for images of any size, that returns tensors."""

    reach = None  # normalization and attention see the whole image

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        self.channels, self.code_channels = vae.config.in_channels, vae.config.latent_channels
        self.factor = 2 ** (len(vae.config.block_out_channels) - 1)

    def encode(self, x: Tensor) -> Tensor:
        return self.vae.encode(extend(x, self.factor)).latent_dist.mode()

    def decode(self, z: Tensor) -> Tensor:
        return self.vae.decode(z).sample


class _Door(nn.Module):
    """A `UNet2DModel` for images of any size and times of any kind, that returns a tensor."""

    def __init__(self, unet: Any) -> None:
        super().__init__()
        self.unet = unet
        self.table = unet.config.time_embedding_type == "learned"  # of whole times only
        self.multiple = 2 ** (len(unet.config.block_out_channels) - 1)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        height, width = x.shape[-2:]
        below, right = -height % self.multiple, -width % self.multiple
        if below or right:
            kind = "reflect" if below < height and right < width else "replicate"
            x = functional.pad(x, (0, right, 0, below), mode=kind)
        t = t.long() if self.table else t
        return self.unet(x, t, class_labels=condition).sample[..., :height, :width]


def _find(folder: Path, part: str, name: str) -> Path:
    """The folder that holds a configuration: a part of the pipeline, or the folder itself."""
    for place in (folder / part, folder):
        if (place / name).is_file():
            return place
    raise FileNotFoundError(f"{folder}: found neither {part}/{name} nor {name}")
