"""Named starting points: one frozen value each, and the function that trains one.

`train_recipe(natural_color, ["photos.zip"], "runs/natural-color", time_budget=7200)` makes the
weight file of a prior from pictures. A run's folder holds

    run.json                     what was asked for, versions, device
    metrics.jsonl                twice a minute: images per second, TFLOP/s, loss in four bands of
                                 the noise level; every few minutes the PSNR of held-out images
    states/                      the last two training states, for `resume`
    <name>-<width>.safetensors   at the end: the weights of both averages, with their card
"""

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .checkpoints import load_prior, save_prior
from .domains import Body, Brain, Domain, Faces, Kernels, Photographs
from .domains.material import generator_of
from .ema import EMA
from .files import sha256, write_atomic
from .journal import Journal
from .nets import ConvUNet
from .nets.transfer import transfer
from .priors.edm import EDMDenoiser, edm_loss, fast_dtype, lognormal_sigma
from .quality import denoising_psnr
from .ranks import joined, rank
from .tensors import randn_like
from .training import adamw, train

__all__ = [
    "Recipe",
    "ct_body",
    "faces_64",
    "faces_128",
    "kernels_32",
    "kernels_64",
    "mri_brain",
    "natural_color",
    "natural_gray",
    "train_recipe",
]


@dataclass(frozen=True)
class Recipe:
    """How an image prior is trained.

    Args:
        name: Name of the prior.
        licence: Licence and origin of the training data; nothing is trained without it.
        domain: What the images are.
        widths: Channels of the network's levels, finest first.
        blocks: Residual blocks per level and side.
        stem: Pixel-unshuffle factor in front of the finest level.
        attention: Levels that also attend over all pixels, 0 the finest.
        lr: Learning rate of AdamW at batch 32 or less; grows with the root of the batch above.
        batch: Crops per step.
        crops: Size of the small crops and of the large ones, in pixels; of the large ones there
            are as many as have the same area.
        sigma_mean: Mean of ln(sigma), sigma in image units.
        sigma_std: Standard deviation of ln(sigma).
        sigma_uniform: Probability that a level is uniform in ln(sigma) over the range instead.
        sigma_range: Lowest and highest level.
        mean: Mean of the images.
        sigma_data: Standard deviation of the images.
        warmup: Steps of the warm-up.
        widths_ema: Relative widths of the two averages.
        seed: Of weights and batches.
    """

    name: str
    licence: str
    domain: Domain
    widths: tuple[int, ...] = (64, 128, 160)
    blocks: int = 2
    stem: int = 2
    attention: tuple[int, ...] = ()
    lr: float = 1e-3
    batch: int = 16
    crops: tuple[int, int] = (64, 128)
    sigma_mean: float = -1.6
    sigma_std: float = 1.2
    sigma_uniform: float = 0.1
    sigma_range: tuple[float, float] = (0.002, 80.0)
    mean: float = 0.0
    sigma_data: float = 0.5
    warmup: int = 200
    widths_ema: tuple[float, ...] = (0.05, 0.10)
    seed: int = 0


natural_color = Recipe(
    name="natural-color",
    licence="photographs of ImageNet-1k (one per class) and BSDS500 train; research use only",
    domain=Photographs(),
)
natural_gray = replace(natural_color, name="natural-gray", domain=Photographs(grey=True))
faces_64 = Recipe(
    name="faces-64",
    licence="aligned faces of UTKFace; non-commercial research only, never for recognition",
    domain=Faces(64),
    attention=(2,),
    crops=(64, 64),
    sigma_mean=-1.2,
)
faces_128 = replace(faces_64, name="faces-128", domain=Faces(128), crops=(128, 128))
mri_brain = Recipe(
    name="mri-brain",
    licence="brain MRI of open_ms_data (CC BY), SAG-anon (MIT), FNNDSC data (Apache-2.0), "
    "example-dicom-structural (PDDL)",
    domain=Brain(),
    crops=(96, 192),
    batch=8,
    sigma_mean=-2.0,
    sigma_data=0.35,
)
ct_body = Recipe(
    name="ct-body",
    licence="CT of TCIA Lung-PET-CT-Dx (CC BY 4.0) and FNNDSC data (Apache-2.0)",
    domain=Body(),
    sigma_mean=-2.4,
    mean=-0.6,
    sigma_data=0.35,
)
kernels_32 = Recipe(
    name="kernels-32",
    licence="none needed: made by a program",
    domain=Kernels(32),
    widths=(64, 96, 128),
    stem=1,
    attention=(2,),
    batch=32,
    crops=(32, 32),
    sigma_mean=-3.3,
    sigma_std=1.5,
    sigma_range=(0.0005, 80.0),
    mean=-1.0,
    sigma_data=0.07,
)
kernels_64 = replace(
    kernels_32, name="kernels-64", domain=Kernels(64, alpha=0.1), stem=2, crops=(64, 64)
)


def train_recipe(
    recipe: Recipe,
    data: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    held_out: Sequence[str | os.PathLike[str]] = (),
    steps: int | None = None,
    time_budget: float | None = None,
    device: torch.device | str = "cpu",
    resume: bool = False,
    init: str | os.PathLike[str] | None = None,
    workers: int = 1,
    micro: int | None = None,
    save_every: float = 120.0,
    evaluate_every: float = 300.0,
    skip_bad: bool = False,
    quiet: bool = False,
    tensorboard: bool = False,
) -> dict[str, Path]:
    """Trains a prior and writes its weights; under `torchrun`, on all of its processes.

    Args:
        recipe: What to train.
        data: Folders, zips and files of images. Where one has folders `train` and `val`, only
            these are used, the first for training, the second for the PSNR in the log.
        out: Folder of the run.
        held_out: More files for the PSNR in the log.
        steps: Length of the run; or
        time_budget: seconds to train.
        device: Where to train.
        resume: Go on from the state in `out`.
        init: Prior to start from, by name or path; its channels may differ, see `nets.transfer`.
        workers: Threads on a CPU, one part of the batch each.
        micro: Most images differentiated at once; None for as many as fit into the memory.
        save_every: Seconds between states.
        evaluate_every: Seconds between evaluations on held-out images.
        skip_bad: Leave out files that cannot be read, with a warning.
        quiet: Print nothing.
        tensorboard: Also write events for TensorBoard into `out`.
    Returns:
        The weight files, by name.
    Raises:
        ValueError: The recipe states no licence, or the data hold no image.
    """
    if not recipe.licence.strip():
        raise ValueError(f"recipe {recipe.name}: states no licence of its training data")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with joined(torch.device(device)) as own:
        material = recipe.domain.open(
            data, held_out, seed=recipe.seed, device=own, skip_bad=skip_bad
        )
        prior = new_prior(recipe)
        if init is not None:
            transfer(load_prior(init, dtype=torch.float32).net, prior.net)
        prior.to(own).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        averages = [EMA(prior, width) for width in recipe.widths_ema]
        precision = fast_dtype(own)
        asked = {
            "recipe": described(recipe),
            "data": [str(path) for path in data],
            "images": material.images,
            "steps": steps,
            "time_budget": time_budget,
            "device": str(own),
            "init": None if init is None else str(init),
            "workers": workers,
            "versions": {"python": platform.python_version(), "torch": torch.__version__},
            "command": sys.argv,
        }
        first = rank() == 0
        if first:
            write_atomic(out / "run.json", json.dumps(asked, indent=1))

        def quality() -> dict[str, float]:
            with averages[0].applied():
                return denoising_psnr(prior, material.held_out, dtype=precision)

        def batches(step: int, stage: int) -> dict[str, Tensor]:
            small, size = recipe.crops[0], recipe.crops[stage]
            n = max(1, recipe.batch * small**2 // size**2)
            x = material.batch(step, n, size)
            generator = generator_of(recipe.seed, step, own)
            sigma = lognormal_sigma(
                n,
                generator,
                mean=recipe.sigma_mean,
                std=recipe.sigma_std,
                low=recipe.sigma_range[0],
                high=recipe.sigma_range[1],
                uniform=recipe.sigma_uniform,
            )
            return {"x": x, "sigma": sigma, "noise": randn_like(x, generator)}

        journal = Journal(
            out / "metrics.jsonl",
            prior,
            quality,
            batch=recipe.batch,
            crop=recipe.crops[0],
            evaluate_every=evaluate_every,
            quiet=quiet,
            tensorboard=tensorboard and first,
        )
        plan = train(
            prior,
            batches,
            edm_loss,
            steps=steps,
            time_budget=time_budget,
            warmup=recipe.warmup,
            optimizer=adamw(prior, lr=recipe.lr * max(1.0, recipe.batch / 32) ** 0.5),
            ema=averages,
            on_step=journal if first else None,
            folder=out / "states",
            save_every=save_every,
            resume=resume,
            config=sha256(json.dumps(described(recipe)))[:16],
            autocast=precision if precision != torch.float32 else None,
            workers=workers,
            micro=micro,
        )
        files = {}
        for average in averages if first else []:
            with average.applied():
                prior.card = {
                    "name": recipe.name,
                    "licence": recipe.licence,
                    "data": [Path(path).name for path in data],
                    **recipe.domain.facts,
                    "recipe": described(recipe),
                    "steps": plan.steps,
                    "patches": plan.steps * recipe.batch,
                    "ema": average.width,
                    "held_out_psnr": denoising_psnr(prior, material.held_out, dtype=precision),
                    "torch": torch.__version__,
                }
                path = out / f"{recipe.name}-{average.width:g}.safetensors"
                save_prior(path, prior)
                files[path.stem] = path
    return files


def new_prior(recipe: Recipe) -> EDMDenoiser:
    """Returns the untrained prior of a recipe."""
    torch.manual_seed(recipe.seed)
    domain = recipe.domain
    net = ConvUNet(
        domain.channels * (2 if domain.dtype.is_complex else 1),
        widths=recipe.widths,
        blocks=recipe.blocks,
        stem=recipe.stem,
        attention=recipe.attention,
    )
    return EDMDenoiser(
        net,
        channels=domain.channels,
        dtype=domain.dtype,
        mean=recipe.mean,
        sigma_data=recipe.sigma_data,
        sigma_range=recipe.sigma_range,
    )


def described(recipe: Recipe) -> dict[str, Any]:
    """Returns a recipe as JSON values."""
    return {**asdict(recipe), "domain": repr(recipe.domain)}
