r"""Unconditional pixel models of the `diffusers` library as denoisers.

A model folder holds a `UNet2DModel` (weights as safetensors) and the configuration of the
scheduler that it was trained with. The scheduler says which levels its times stand for,

    abar_t = prod_{s <= t} (1 - beta_s),

and what the network predicts: the noise ("epsilon"), the image ("sample") or the velocity
("v_prediction"). That is all a denoiser needs; nothing of its sampling loop is used. Networks are
read from the local folder only, nothing is downloaded, and pickled weights are refused.
"""

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .capabilities import Range
from .conventions import FromImage, FromNoise, FromVelocity, TableVP

__all__ = ["from_diffusers"]

_Denoiser = FromNoise | FromImage | FromVelocity
_PREDICTIONS: dict[str, type[_Denoiser]] = {
    "epsilon": FromNoise,
    "sample": FromImage,
    "v_prediction": FromVelocity,
}


def from_diffusers(
    folder: str | os.PathLike[str],
    *,
    range: Range = (-1.0, 1.0),
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> _Denoiser:
    """A denoiser from a local `diffusers` folder.

    Args:
        folder: A pipeline's folder, with `unet/` and `scheduler/`, or one folder with both
            `config.json` and `scheduler_config.json`.
        range: The values that the images of the training had.
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
