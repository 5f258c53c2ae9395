"""Named starting points: one frozen value each, and the function that trains one.

`train_recipe(natural_color, ["photos.zip"], "runs/natural-color", time_budget=7200)` makes the
weight file of a prior from pictures. A run's folder holds

    run.json                     what was asked for, versions, device
    metrics.jsonl                twice a minute: images per second, TFLOP/s, loss in four bands of
                                 the noise level; every few minutes the PSNR of held-out pictures
    states/                      the last two training states, for `resume`
    <name>-<width>.safetensors   at the end: the weights of both averages, with their card
"""

import json
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .checkpoints import load_prior, save_prior
from .data import photos
from .ema import EMA
from .files import sha256, write_atomic
from .metrics import psnr
from .nets import ConvUNet
from .priors.edm import EDMDenoiser, edm_loss, fast_dtype, lognormal_sigma
from .training import Progress, adamw, train

__all__ = ["Recipe", "held_out_psnr", "natural_color", "train_recipe"]

Pictures = Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class Recipe:
    """How an image prior is trained.

    Args:
        name: Name of the prior.
        licence: Licence and origin of the training pictures; nothing is trained without it.
        widths: Channels of the network's levels, finest first.
        blocks: Residual blocks per level and side.
        lr: Learning rate of AdamW at batch 32 or less; grows with the root of the batch above.
        batch: Crops per step.
        crop: Size of the small crops, in pixels; the large ones are twice that and a quarter as
            many.
        sigma_mean: Mean of ln(sigma), sigma in units of [-1, 1].
        sigma_std: Standard deviation of ln(sigma).
        sigma_uniform: Probability that a level is uniform in ln(sigma) over the range instead.
        sigma_range: Lowest and highest level.
        sigma_data: Standard deviation of the images.
        warmup: Steps of the warm-up.
        widths_ema: Relative widths of the two averages.
        seed: Of weights and batches.
    """

    name: str
    licence: str
    widths: tuple[int, ...] = (64, 128, 160)
    blocks: int = 2
    lr: float = 1e-3
    batch: int = 16
    crop: int = 64
    sigma_mean: float = -1.6
    sigma_std: float = 1.2
    sigma_uniform: float = 0.1
    sigma_range: tuple[float, float] = (0.002, 80.0)
    sigma_data: float = 0.5
    warmup: int = 200
    widths_ema: tuple[float, ...] = (0.05, 0.10)
    seed: int = 0


natural_color = Recipe(
    name="natural-color",
    licence="photographs of ImageNet-1k (one per class) and BSDS500 train; research use only",
)


def train_recipe(
    recipe: Recipe,
    data: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    steps: int | None = None,
    time_budget: float | None = None,
    device: torch.device | str = "cpu",
    resume: bool = False,
    init: str | os.PathLike[str] | None = None,
    workers: int = 1,
    save_every: float = 120.0,
    evaluate_every: float = 300.0,
    quiet: bool = False,
) -> dict[str, Path]:
    """Trains a prior and writes its weights.

    Args:
        recipe: What to train.
        data: Folders or zips of pictures. Where one has folders `train` and `val`, only these are
            used, the first for training, the second for the PSNR in the log.
        out: Folder of the run.
        steps: Length of the run; or
        time_budget: seconds to train.
        device: Where to train.
        resume: Go on from the state in `out`.
        init: Prior to start from, by name or path.
        workers: Threads on a CPU, one part of the batch each.
        save_every: Seconds between states.
        evaluate_every: Seconds between evaluations on held-out pictures.
        quiet: Print nothing.
    Returns:
        The weight files, by name.
    Raises:
        ValueError: The recipe states no licence, or the data hold no picture.
    """
    if not recipe.licence.strip():
        raise ValueError(f"recipe {recipe.name}: states no licence of its training data")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device(device)
    training, held_out = split(data)
    crops = photos.Crops(training, seed=recipe.seed)
    torch.manual_seed(recipe.seed)
    net = ConvUNet(3, widths=recipe.widths, blocks=recipe.blocks)
    prior = EDMDenoiser(net, sigma_data=recipe.sigma_data, sigma_range=recipe.sigma_range)
    if init is not None:
        net.load_state_dict(load_prior(init, dtype=torch.float32).net.state_dict())
    prior.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    averages = [EMA(prior, width) for width in recipe.widths_ema]
    precision = fast_dtype(device)
    asked = {
        "recipe": asdict(recipe),
        "data": [str(path) for path in data],
        "pictures": len(training),
        "steps": steps,
        "time_budget": time_budget,
        "device": str(device),
        "init": None if init is None else str(init),
        "workers": workers,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "command": sys.argv,
    }
    write_atomic(out / "run.json", json.dumps(asked, indent=1))
    check = Check(prior, averages[0], held_out, precision)
    log = Log(out / "metrics.jsonl", check, recipe.batch, evaluate_every, quiet)

    def batches(step: int, stage: int) -> dict[str, Tensor]:
        n = max(1, recipe.batch >> (2 * stage))
        x = crops(step, n, recipe.crop << stage)
        generator = torch.Generator().manual_seed((recipe.seed << 40) + step)
        sigma = lognormal_sigma(
            n,
            generator,
            mean=recipe.sigma_mean,
            std=recipe.sigma_std,
            low=recipe.sigma_range[0],
            high=recipe.sigma_range[1],
            uniform=recipe.sigma_uniform,
        )
        return {"x": x, "sigma": sigma, "noise": torch.randn(x.shape, generator=generator)}

    plan = train(
        prior,
        batches,
        edm_loss,
        steps=steps,
        time_budget=time_budget,
        warmup=recipe.warmup,
        optimizer=adamw(prior, lr=recipe.lr * max(1.0, recipe.batch / 32) ** 0.5),
        ema=averages,
        on_step=log,
        folder=out / "states",
        save_every=save_every,
        resume=resume,
        config=sha256(json.dumps(asdict(recipe)))[:16],
        autocast=precision if precision != torch.float32 else None,
        workers=workers,
    )
    files = {}
    for average in averages:
        with average.applied():
            prior.card = {
                "name": recipe.name,
                "licence": recipe.licence,
                "data": [Path(path).name for path in data],
                "recipe": asdict(recipe),
                "steps": plan.steps,
                "patches": plan.steps * recipe.batch,
                "ema": average.width,
                "held_out_psnr": held_out_psnr(prior, held_out, dtype=precision),
                "torch": torch.__version__,
            }
            path = out / f"{recipe.name}-{average.width:g}.safetensors"
            save_prior(path, prior)
            files[path.stem] = path
    return files


def split(data: Sequence[str | os.PathLike[str]]) -> tuple[Pictures, Pictures]:
    """Returns the pictures to train on, and up to 16 held-out ones, spread over all there are."""
    training: list[NDArray[np.uint8]] = []
    held_out: list[NDArray[np.uint8]] = []
    for path in data:
        found = photos.pictures(path, under="train")
        training += found or photos.pictures(path)
        held_out += photos.pictures(path, under="val") if found else []
    if not training:
        raise ValueError(f"{', '.join(str(path) for path in data)}: got no picture to train on")
    return training, held_out[:: max(1, len(held_out) // 16)][:16]


@torch.no_grad()
def held_out_psnr(
    prior: EDMDenoiser,
    images: Pictures,
    *,
    levels: Sequence[float] = (25,),
    dtype: torch.dtype = torch.float32,
) -> dict[str, float]:
    """Returns the mean PSNR in dB of denoised 256-pixel centre crops, by noise level of 255.

    Args:
        prior: The denoiser.
        images: Pictures, each (H, W, 3) uint8.
        levels: Noise standard deviations on the scale of 255.
        dtype: Precision of the network's arithmetic.
    """
    device = next(prior.parameters()).device
    results = {}
    for level in levels:
        values = []
        for k, image in enumerate(images):
            x = torch.tensor(image).permute(2, 0, 1)[None].float().to(device) / 127.5 - 1
            h, w = (max(0, (n - 256) // 2) for n in x.shape[2:])
            x = x[:, :, h : h + 256, w : w + 256]
            noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(k)).to(device)
            sigma = 2 * level / 255
            with torch.autocast(device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                estimate = prior(x + sigma * noise, sigma)
            values.append(float(psnr(estimate, x, data_range=2.0)))
        if values:
            results[f"{level:g}"] = sum(values) / len(values)
    return results


@dataclass(frozen=True)
class Check:
    """The quality of an average of the weights, on held-out pictures.

    Args:
        prior: The denoiser in training.
        average: The average.
        held_out: Pictures.
        dtype: Precision of the network's arithmetic.
    """

    prior: EDMDenoiser
    average: EMA
    held_out: Pictures
    dtype: torch.dtype

    def __call__(self) -> dict[str, float]:
        with self.average.applied():
            return held_out_psnr(self.prior, self.held_out, dtype=self.dtype)


class Log:
    """Prints and records how a run goes; called after each step.

    Args:
        path: The file that lines are appended to.
        check: Measures the quality.
        batch: Patches per step.
        evaluate_every: Seconds between measurements.
        quiet: Print nothing.
        every: Seconds between lines.
    """

    edges = (0.05, 0.2, 0.8)

    def __init__(
        self,
        path: Path,
        check: Check,
        batch: int,
        evaluate_every: float,
        quiet: bool,
        every: float = 30.0,
    ) -> None:
        self.path, self.check, self.batch, self.quiet = path, check, batch, quiet
        self.every, self.evaluate_every = every, evaluate_every
        self.work = 3 * flops(check.prior)
        self.skipped = 0
        self.evaluated: float | None = None
        self.last = (0, 0.0)
        self.bands: list[list[float]] = [[], [], [], []]

    def __call__(self, progress: Progress) -> None:
        self.skipped += not math.isfinite(progress.gradient)
        bands = torch.bucketize(progress.batch["sigma"], torch.tensor(self.edges))
        for band, loss in zip(bands.tolist(), progress.losses.tolist(), strict=True):
            self.bands[band].append(loss)
        if self.evaluated is None:
            self.evaluated, self.last = progress.seconds, (progress.step, progress.seconds)
        end = progress.step == progress.plan.steps
        seconds = progress.seconds - self.last[1]
        if seconds < self.every and not end:
            return
        speed = (progress.step - self.last[0]) / max(seconds, 1e-9)
        line: dict[str, Any] = {
            "step": progress.step,
            "steps": progress.plan.steps,
            "patches": progress.step * self.batch,
            "seconds": round(progress.seconds, 1),
            "images_per_second": round(speed * self.batch, 1),
            "tflops": round(speed * self.batch * self.work / 1e12, 4),
            "loss": [round(sum(x) / len(x), 4) if x else None for x in self.bands],
            "gradient": round(progress.gradient, 3),
            "rate": round(progress.rate, 4),
            "skipped": self.skipped,
        }
        if progress.plan.steps:
            line["eta"] = round((progress.plan.steps - progress.step) / max(speed, 1e-9))
        if progress.seconds - self.evaluated >= self.evaluate_every or end:
            line["psnr"] = self.check()
            self.evaluated = progress.seconds
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if not self.quiet:
            stamp = time.strftime("%H:%M:%S ")
            words = " ".join(f"{k}={v}" for k, v in line.items())
            print(stamp + words, file=sys.stderr, flush=True)
        self.last = (progress.step, progress.seconds)
        self.bands = [[], [], [], []]


def flops(prior: EDMDenoiser) -> int:
    """Returns the floating-point operations of one forward pass on 64 x 64 pixels."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(prior.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        prior(torch.zeros(1, prior.channels, 64, 64, device=device), 1.0)
    return counter.get_total_flops()
