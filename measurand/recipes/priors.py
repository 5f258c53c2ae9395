"""Recipes of image priors: denoisers of all noise levels, for images of one kind.

`train_recipe(natural_color, ["photos.zip"], "runs/natural-color", time_budget=7200)` makes the
weight file of a prior from pictures.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..batches import Batch
from ..domains import Body, Brain, Faces, Kernels, Photographs
from ..domains.material import Material, generator_of
from ..nets import ConvUNet
from ..nets.transfer import transfer
from ..priors.edm import EDMDenoiser, edm_loss, fitted_gains, lognormal_sigma
from ..tensors import randn_like
from ..training.quality import LEVELS, calibration, denoising_psnr
from ..weights.store import load
from .base import Recipe
from .residuals import remaining, smooth

__all__ = [
    "PriorRecipe",
    "ct_body",
    "faces_64",
    "faces_128",
    "kernels_32",
    "kernels_64",
    "mri_brain",
    "natural_color",
    "natural_gray",
]


@dataclass(frozen=True)
class PriorRecipe(Recipe):
    """How an image prior is trained; see `Recipe` for what all recipes say.

    Args:
        widths: Channels of the network's levels, finest first.
        blocks: Residual blocks per level and side.
        stem: Pixel-unshuffle factor in front of the finest level.
        attention: Levels that also attend over all pixels, 0 the finest.
        sigma_mean: Mean of ln(sigma), sigma in image units.
        sigma_std: Standard deviation of ln(sigma).
        sigma_uniform: Probability that a level is uniform in ln(sigma) over the range instead.
        sigma_range: Lowest and highest level.
        mean: Mean of the images.
        sigma_data: Standard deviation of the images.
        fitted: Most crops of the larger size that the gains are measured on, at the end; fewer
            after a short training. Not the smaller size: what a network does at the highest
            levels depends on how far it can see.
        overstated: Probability that an image has less noise than the stated sigma, white or as a
            data step leaves it; see `recipes.residuals`.
        smooth: Probability that such an image is also replaced by a smooth one of its values.
            Below 1 a network learns to keep what noise is left in textures, too, and methods that
            amplify it (HQS on a blur) lose decibels.
    """

    widths: tuple[int, ...] = (64, 128, 160)
    blocks: int = 2
    stem: int = 2
    attention: tuple[int, ...] = ()
    sigma_mean: float = -1.6
    sigma_std: float = 1.2
    sigma_uniform: float = 0.1
    sigma_range: tuple[float, float] = (0.002, 80.0)
    mean: float = 0.0
    sigma_data: float = 0.5
    fitted: int = 128
    overstated: float = 0.06
    smooth: float = 1.0

    def new(self, init: str | os.PathLike[str] | None = None) -> EDMDenoiser:
        """Returns the prior; from other weights where `init` says so, see `nets.transfer`."""
        torch.manual_seed(self.seed)
        net = ConvUNet(
            self.domain.channels * (2 if self.domain.dtype.is_complex else 1),
            widths=self.widths,
            blocks=self.blocks,
            stem=self.stem,
            attention=self.attention,
        )
        if init is not None:
            transfer(load(init, EDMDenoiser, dtype=torch.float32).net, net)
        return EDMDenoiser(
            net,
            channels=self.domain.channels,
            dtype=self.domain.dtype,
            mean=self.mean,
            fixed_sum=self.domain.fixed_sum,
            sigma_data=self.sigma_data,
            sigma_range=self.sigma_range,
        )

    def problem(self, material: Material, step: int, n: int, size: int) -> Batch:
        drawn = material.batch(step, n, size)
        x = drawn["x"]
        generator = generator_of(self.seed, step, x.device, stream=1)
        sigma = lognormal_sigma(
            n,
            generator,
            mean=self.sigma_mean,
            std=self.sigma_std,
            low=self.sigma_range[0],
            high=self.sigma_range[1],
            uniform=self.sigma_uniform,
        )
        noise = randn_like(x, generator)
        chance = torch.rand(2, n, generator=generator, device=x.device)
        less = chance[0] < self.overstated
        if less.any():
            noise[less] = remaining(noise[less], generator)
        flat = less & (chance[1] < self.smooth)
        if flat.any() and set(drawn) == {"x"}:  # what is aligned with an image is not smooth
            x = x.clone()
            x[flat] = smooth(x[flat], generator)
        return drawn.adding({"x": x, "sigma": sigma, "noise": noise})

    def level(self, batch: Batch) -> Tensor:
        return batch["sigma"]

    def loss(self, model: EDMDenoiser, batch: Mapping[str, Any]) -> Tensor:
        return edm_loss(model, batch)

    def finish(self, model: EDMDenoiser, material: Material, steps: int) -> dict[str, Any]:
        """Fits the gains; returns PSNR by noise level and calibration on held-out images."""
        model.gains = None
        small, large = self.crops
        # a crop costs 58 calls for each of two averages, in training about three: a tenth of it
        enough = min(self.fitted, steps * self.batch * small**2 / (400 * large**2))
        at_once = min(8, max(1, math.ceil(enough)))  # far below the memory of a training step
        first = 1 << 30  # crops that no step has drawn
        batches = [
            material.batch(first + k, at_once, large)["x"]
            for k in range(math.ceil(enough / at_once))
        ]
        model.gains = tuple(fitted_gains(model, batches))
        images = [case["x"] for case in material.held_out[: math.ceil(enough)]]
        if not images:
            return {}
        return {
            "psnr": denoising_psnr(model, images, levels=LEVELS),
            "calibration": calibration(model, images),
            "measured_on": f"{len(images)} held-out images",
        }

    def quality(
        self, model: EDMDenoiser, held_out: Sequence[Batch], dtype: torch.dtype
    ) -> dict[str, float]:
        """Returns the PSNR of denoised images in dB, by noise level."""
        return denoising_psnr(model, [case["x"] for case in held_out], dtype=dtype)


natural_color = PriorRecipe(
    name="natural-color",
    licence="photographs of ImageNet-1k (one per class) and BSDS500 train; research use only",
    domain=Photographs(),
    budget=7200,
    gate="BSDS500 test, noise 25: 30.6 dB",
)
natural_gray = replace(
    natural_color,
    name="natural-gray",
    domain=Photographs(grey=True),
    budget=5400,
    gate="Set12, noise 25: 29.6 dB",
)
faces_64 = PriorRecipe(
    name="faces-64",
    licence="aligned faces of UTKFace; non-commercial research only, never for recognition",
    domain=Faces(64),
    budget=7200,
    gate="super-resolution x 4: 0.5 dB above natural-color",
    attention=(2,),
    crops=(64, 64),
    sigma_mean=-1.2,
)
faces_128 = replace(faces_64, name="faces-128", domain=Faces(128), crops=(128, 128))
mri_brain = PriorRecipe(
    name="mri-brain",
    licence="brain MRI of open_ms_data (CC BY), SAG-anon (MIT), FNNDSC data (Apache-2.0), "
    "example-dicom-structural (PDDL)",
    domain=Brain(),
    budget=7200,
    gate="R = 4, eight coils: 1 dB above total variation and wavelets",
    crops=(96, 192),
    batch=8,
    sigma_mean=-2.0,
    sigma_data=0.35,
)
ct_body = PriorRecipe(
    name="ct-body",
    licence="CT of TCIA Lung-PET-CT-Dx (CC BY 4.0) and FNNDSC data (Apache-2.0)",
    domain=Body(),
    gate="60 views, other patients: 1 dB above total variation",
    sigma_mean=-2.4,
    mean=-0.6,
    sigma_data=0.35,
)
kernels_32 = PriorRecipe(
    name="kernels-32",
    licence="none needed: made by a program",
    domain=Kernels(32),
    budget=1800,
    gate="draws: no value below -1e-3, sums within 1e-2 of 1",
    widths=(64, 96, 128),
    stem=1,
    attention=(2,),
    batch=32,
    crops=(32, 32),
    sigma_mean=-3.3,
    sigma_std=1.5,
    sigma_uniform=0.25,
    sigma_range=(0.0005, 80.0),
    mean=-1.0,
    sigma_data=0.07,
    fitted=512,
    overstated=0.0,  # samplers give it the noise that they say, and a smooth kernel is none
)
kernels_64 = replace(
    kernels_32, name="kernels-64", domain=Kernels(64, alpha=0.1), stem=2, crops=(64, 64)
)
