"""Recipes of unfolded networks: one model for many measurement problems.

A prior that ships gives the weights to start from, every block alike; what is learnt is to work
inside the steps of an optimisation method, over a mix of operators (see
`unfolded.posterior_score`). Operators that are not in the mix are for the test.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..batches import Batch
from ..domains import Brain, Photographs
from ..domains.material import Material, generator_of
from ..measurement import Measurement
from ..priors.edm import EDMDenoiser, lognormal_sigma
from ..problems.random import BrainCoils, Denoising, GaussianBlurs, MissingPixels, Problems, drawn
from ..solvers import PosteriorMean
from ..tensors import randn_like
from ..training.quality import restoration_psnr
from ..unfolded import UnfoldedDR
from ..unfolded.physics import settled
from ..unfolded.posterior_score import Unfolded
from ..unfolded.score_matching import posterior_loss
from ..weights.store import load
from .base import Recipe, take_over
from .priors import PriorRecipe, mri_brain, natural_color

__all__ = ["UnfoldedRecipe", "unfold_brain", "unfold_color", "unfold_color_full"]


@dataclass(frozen=True)
class UnfoldedRecipe(Recipe):
    """How an unfolded network is trained; see `Recipe` for what all recipes say.

    Args:
        prior: Recipe of the blocks.
        start: Prior that the blocks start from, by name or path; untrained where empty.
        mix: Kinds of problems, one of them in each step.
        sigma_y: Smallest and largest noise of a measurement, relative to the operator's norm.
        method: `UnfoldedDR`, or for comparison `UnfoldedHQS` or `UnfoldedPGM`.
        depth: Steps of the method.
        depths: Fewest and most steps that a training step makes, drawn anew in each; `depth` where
            None. Fewer than `depth` make a step of training cheaper, and a network that is right
            at several depths is at more as well.
        shared: One block for all steps, or one for each.
        sigma_mean: Mean of ln(s_t), s_t the level of the noisy image.
        sigma_std: Standard deviation of ln(s_t).
        blind: Probability that s_t is the highest level, where y alone tells of the image.
        early: Steps in which the estimates before the last one count as well, by a tenth.
        recompute: Keep only the images between steps, see `Unfolded`; large networks need it.
    """

    prior: PriorRecipe = natural_color
    start: str = "natural-color"
    mix: tuple[Problems, ...] = (
        Denoising(),
        GaussianBlurs(elongated=True),
        MissingPixels(grain=16),
    )
    sigma_y: tuple[float, float] = (0.005, 0.4)
    method: type[Unfolded] = UnfoldedDR
    depth: int = 4
    depths: tuple[int, int] | None = None
    shared: bool = True
    sigma_mean: float = -0.8
    sigma_std: float = 1.4
    blind: float = 0.25
    early: int = 500
    recompute: bool = False

    def __post_init__(self) -> None:
        if self.depths is not None and not (self.shared and 0 < self.depths[0] <= self.depths[1]):
            raise ValueError(
                f"{self.name}: got depths {self.depths}, wants fewest and most steps, of a block "
                "that all share"
            )

    def new(self, init: str | os.PathLike[str] | None = None) -> Unfolded:
        """Returns the network: blocks of `start`, without their gains, or another network."""
        start = self.start if init is None else ""
        blocks: list[EDMDenoiser] = [
            self.prior.new(start or None) for _ in range(1 if self.shared else self.depth)
        ]
        torch.manual_seed(self.seed)
        network = self.method(
            blocks, self.depth, sigma_data=self.prior.sigma_data, recompute=self.recompute
        )
        if init is not None:
            other = load(init, Unfolded, dtype=torch.float32)
            if other.depth != self.depth:
                other = other.with_depth(self.depth)
            take_over(network, other, f"{init}", self.name)
        return network

    def origin(self, init: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
        return (self.start or None) if init is None else init

    def problem(self, material: Material, step: int, n: int, size: int) -> Batch:
        images = material.batch(step, n, size)
        x = images["x"]
        generator = generator_of(self.seed, step, x.device, stream=1)
        low, high = self.prior.sigma_range
        sigma = lognormal_sigma(
            n, generator, mean=self.sigma_mean, std=self.sigma_std, low=low, high=high, uniform=0
        )
        u = torch.rand(n, generator=generator, device=x.device)
        measurement = settled(drawn(self.mix, x, self.sigma_y, generator))
        fewest, most = self.depths or (self.depth, self.depth)
        depth = torch.randint(fewest, most + 1, (), generator=generator, device=x.device)
        fields = {
            "sigma": torch.where(u < self.blind, high, sigma),
            "noise": randn_like(x, generator),
            "measurement": measurement,
        }
        shared = {"early": 0.1 * (step < self.early), "depth": int(depth)}
        return images.adding(fields, shared)

    def level(self, batch: Batch) -> Tensor:
        return batch["sigma"]

    @property
    def described(self) -> dict[str, Any]:
        named = {
            "prior": self.prior.described,
            "mix": [repr(kind) for kind in self.mix],
            "method": self.method.__name__,
        }
        return {**super().described, **named}

    def loss(self, model: Unfolded, batch: Mapping[str, Any]) -> Tensor:
        return posterior_loss(model, batch)

    def quality(
        self, model: Unfolded, held_out: Sequence[Batch], dtype: torch.dtype
    ) -> dict[str, float]:
        """Returns the PSNR of posterior means in dB, by kind of problem."""

        def restore(measurement: Measurement, generator: torch.Generator) -> Tensor:
            with torch.autocast(measurement.y.device.type, dtype, enabled=dtype != torch.float32):
                return PosteriorMean()(measurement, model, generator=generator)

        return restoration_psnr(restore, self.mix, [case["x"] for case in held_out[:4]])


unfold_color = UnfoldedRecipe(
    name="unfold-color",
    licence=natural_color.licence,
    domain=Photographs(),
    budget=7200,
    gate="0.5 dB above HQS with its prior on the mix, above every other method off it",
    lr=3e-4,
    batch=8,
    depth=12,
    depths=(4, 10),
    early=0,
)
unfold_color_full = replace(
    unfold_color,
    name="unfold-color-full",
    prior=replace(natural_color, widths=(112, 208, 272)),
    start="",
    depth=4,
    depths=None,
    early=500,
    shared=False,
    recompute=True,
    lr=2e-4,
    batch=16,
)
unfold_brain = UnfoldedRecipe(
    name="unfold-brain",
    licence=mri_brain.licence,
    domain=Brain(),
    budget=7200,
    gate="above ADMM with its prior",
    lr=2e-4,
    batch=4,
    crops=(96, 192),
    prior=mri_brain,
    start="mri-brain",
    mix=(BrainCoils(),),
    depth=12,
    depths=(4, 8),
    early=0,
)
