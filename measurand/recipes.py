"""Named starting points: one frozen value each, and the function that trains one.

`train_recipe(natural_color, ["photos.zip"], "runs/natural-color", time_budget=7200)` makes the
weight file of a prior from pictures. A run folder holds `run.json` (what was asked for),
`metrics.jsonl` (throughput, loss by band of noise levels, PSNR of held-out pictures), `states/`
(for resuming) and at the end the weights of both averages, `<name>-<width>.safetensors`.
"""

import json
import math
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .checkpoints import load_prior, save_prior
from .data import photos
from .files import sha256, write_atomic
from .metrics import psnr
from .nets import ConvUNet
from .priors.edm import EDMDenoiser, edm_loss, fast_dtype, lognormal_sigma
from .training import EMA, Plan, Progress, adamw, train

__all__ = ["Recipe", "held_out_psnr", "natural_color", "train_recipe"]


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
        crop: Size of the small crops, in pixels; the large ones have twice that, a quarter as many.
        sigma_mean: Mean of ln(sigma), sigma in units of [-1, 1].
        sigma_std: Standard deviation of ln(sigma).
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
    training, held_out = read_split(data)
    crops = photos.Crops(training, seed=recipe.seed)
    torch.manual_seed(recipe.seed)
    net = ConvUNet(3, widths=recipe.widths, blocks=recipe.blocks)
    prior = EDMDenoiser(net, sigma_data=recipe.sigma_data, sigma_range=recipe.sigma_range)
    if init is not None:
        net.load_state_dict(load_prior(init, dtype=torch.float32).net.state_dict())
    prior.to(device, memory_format=torch.channels_last)
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
    log = Log(out / "metrics.jsonl", prior, averages[0], held_out, evaluate_every, quiet, precision)

    def batches(step: int, stage: int) -> dict[str, Tensor]:
        n = max(1, recipe.batch >> (2 * stage))
        x = crops(step, n, recipe.crop << stage)
        generator = torch.Generator().manual_seed((recipe.seed << 40) + step)
        low, high = recipe.sigma_range
        mean, std = recipe.sigma_mean, recipe.sigma_std
        sigma = lognormal_sigma(n, generator, mean=mean, std=std, low=low, high=high)
        return {"x": x, "sigma": sigma, "noise": torch.randn(x.shape, generator=generator)}

    plan = train(
        prior,
        batches,
        edm_loss,
        steps=steps,
        time_budget=time_budget,
        plan=Plan.of(steps, warmup=recipe.warmup) if steps else Plan(warmup=recipe.warmup),
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
                "patches": log.patches,
                "ema": average.width,
                "held_out_psnr": held_out_psnr(prior, held_out, dtype=precision),
                "torch": torch.__version__,
            }
            path = out / f"{recipe.name}-{average.width:g}.safetensors"
            save_prior(path, prior)
            files[path.stem] = path
    return files


def read_split(data: Sequence[str | os.PathLike[str]]) -> tuple[list[Any], list[Any]]:
    """Returns the pictures to train on, and up to 16 held-out ones."""
    training: list[Any] = []
    held_out: list[Any] = []
    for path in data:
        try:
            split = photos.pictures(path, under="train")
        except ValueError as error:
            if "no picture under" not in str(error):
                raise
            training += photos.pictures(path)
            continue
        training += split
        try:
            held_out += photos.pictures(path, under="val")
        except ValueError as error:
            if "no picture under" not in str(error):
                raise
    return training, held_out[:: max(1, len(held_out) // 16)][:16]


@torch.no_grad()
def held_out_psnr(
    prior: EDMDenoiser,
    images: Sequence[Any],
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


class Log:
    """Prints and records how a run goes: called after each step.

    Every half minute a line goes to `metrics.jsonl` and to the terminal: images per second,
    TFLOP/s, mean loss in four bands of the noise level, learning rate, time to go; every few
    minutes also the PSNR of an average of the weights on held-out pictures.
    """

    edges = (0.0, 0.05, 0.2, 0.8, math.inf)

    def __init__(
        self,
        path: Path,
        prior: EDMDenoiser,
        average: EMA,
        held_out: Sequence[Any],
        evaluate_every: float,
        quiet: bool,
        dtype: torch.dtype,
    ) -> None:
        self.path, self.prior, self.average, self.held_out = path, prior, average, held_out
        self.evaluate_every, self.quiet, self.dtype = evaluate_every, quiet, dtype
        self.flops_per_pixel = 3 * flops(prior) / 64**2
        self.patches = self.pixels = self.skipped = 0
        self.printed = self.evaluated = self.seconds = 0.0
        self.sums, self.counts = [0.0] * 4, [0] * 4

    def __call__(self, progress: Progress) -> None:
        x, sigma = progress.batch["x"], progress.batch["sigma"]
        self.patches += len(x) * x[0, 0].numel() // 64**2
        self.pixels += len(x) * x[0, 0].numel()
        self.skipped += not math.isfinite(progress.gradient)
        for loss, level in zip(progress.losses.tolist(), sigma.tolist(), strict=True):
            band = sum(level >= edge for edge in self.edges[1:])
            self.sums[band] += loss
            self.counts[band] += 1
        if not self.printed:
            self.printed = self.evaluated = self.seconds = progress.seconds
        last = progress.step == progress.plan.steps
        if progress.seconds - self.printed < 30 and not last:
            return
        speed = self.pixels / 64**2 / max(progress.seconds - self.printed, 1e-9)
        line: dict[str, Any] = {
            "step": progress.step,
            "steps": progress.plan.steps,
            "patches": self.patches,
            "seconds": round(progress.seconds, 1),
            "time": time.strftime("%H:%M:%S"),
            "images_per_second": round(speed, 1),
            "tflops": round(speed * 64**2 * self.flops_per_pixel / 1e12, 3),
            "loss": [round(s / max(n, 1), 4) for s, n in zip(self.sums, self.counts, strict=True)],
            "gradient": round(progress.gradient, 3),
            "rate": round(progress.rate, 4),
            "skipped": self.skipped,
        }
        if progress.plan.steps:
            left = (progress.plan.steps - progress.step) * (64 * 64 * len(x)) * (x.shape[-1] // 64) ** 2
            line["eta"] = round(left / 64**2 / speed)
        if progress.seconds - self.evaluated >= self.evaluate_every or last:
            with self.average.applied():
                line["psnr"] = held_out_psnr(self.prior, self.held_out, dtype=self.dtype)
            self.evaluated = progress.seconds
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if not self.quiet:
            print(" ".join(f"{k}={v}" for k, v in line.items()), file=sys.stderr, flush=True)
        self.printed, self.pixels = progress.seconds, 0
        self.sums, self.counts = [0.0] * 4, [0] * 4


def flops(prior: EDMDenoiser) -> int:
    """Returns the floating-point operations of one forward pass on 64 x 64 pixels."""
    from torch.utils.flop_counter import FlopCounterMode

    device = next(prior.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        prior(torch.zeros(1, prior.channels, 64, 64, device=device), 1.0)
    return counter.get_total_flops()
