"""Recipes of latent priors: an autoencoder of images first, then a denoiser of its codes.

    measurand train autoencoder-color --data photos.zip --out runs/autoencoder
    measurand train latent-color --data photos.zip \
        --init runs/autoencoder/autoencoder-color-0.05.safetensors

The second leaves the autoencoder as it is, and its weight file holds both.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..batches import Batch
from ..domains import Photographs
from ..domains.material import Material, generator_of
from ..metrics import psnr
from ..nets import ConvAutoencoder, ConvUNet
from ..priors.autoencoder import Autoencoder, autoencoder_loss
from ..priors.edm import edm_loss, fitted_gains, lognormal_sigma
from ..priors.latent import LatentPrior, code_denoiser
from ..tensors import randn_like
from ..weights.store import load
from .base import Recipe, take_over
from .priors import natural_color

__all__ = ["AutoencoderRecipe", "LatentRecipe", "autoencoder_color", "latent_color"]

MEASURED = (8, 8)  # batches, and crops of each, that the scale and the noise of codes come from


@dataclass(frozen=True)
class AutoencoderRecipe(Recipe):
    """How an autoencoder is trained; see `Recipe` for what all recipes say.

    Args:
        code_channels: Channels of the code.
        widths: Channels of the network at half and at a quarter of the resolution.
        encoder_blocks: Residual blocks of the encoder at half and at a quarter of it.
        decoder_blocks: The same of the decoder.
        noise: Standard deviation of the noise that is added to codes.
        divergence: Weight of the divergence of codes from a standard normal.
        gradient: Weight of the differences of neighbours.
    """

    batch: int = 32
    code_channels: int = 8
    widths: tuple[int, int] = (48, 96)
    encoder_blocks: tuple[int, int] = (1, 2)
    decoder_blocks: tuple[int, int] = (2, 2)
    noise: float = 0.03
    divergence: float = 1e-4
    gradient: float = 0.1

    def new(self, init: str | os.PathLike[str] | None = None) -> Autoencoder:
        """Returns the autoencoder; with the weights of another one where `init` says so."""
        torch.manual_seed(self.seed)
        net = ConvAutoencoder(
            self.domain.channels,
            self.code_channels,
            widths=self.widths,
            encoder_blocks=self.encoder_blocks,
            decoder_blocks=self.decoder_blocks,
        )
        model = Autoencoder(net)
        if init is not None:
            other = load(init, Autoencoder, dtype=torch.float32)
            other.error = other.noise = other.spread = (
                None  # of its weights; measured again at the end
            )
            take_over(model, other, str(init), self.name)
            model.mean.zero_()
            model.scale.fill_(1)
        return model

    def problem(self, material: Material, step: int, n: int, size: int) -> Batch:
        images = material.batch(step, n, size)
        x = images["x"]
        generator = generator_of(self.seed, step, x.device, stream=1)
        code = code_of(x, self.code_channels)
        return images.adding({"noise": self.noise * randn_like(code, generator)})

    def loss(self, model: Autoencoder, batch: Mapping[str, Any]) -> Tensor:
        return autoencoder_loss(model, batch, gradient=self.gradient, weight=self.divergence)

    def prepare(self, model: Autoencoder, material: Material) -> None:
        """Starts a new network at the principal components of its images."""
        if not bool(model.net.linear_code.weight.any()):  # with --init it has weights
            model.net.initialize(torch.cat(crops_of(material, *MEASURED, self.crops[0])))

    def finish(self, model: Autoencoder, material: Material, steps: int) -> dict[str, Any]:
        """Measures the scale and the noise of codes, and the error of images, on crops."""
        model.measured(crops_of(material, *MEASURED, self.crops[1]))
        return {}

    def quality(
        self, model: Autoencoder, held_out: Sequence[Batch], dtype: torch.dtype
    ) -> dict[str, float]:
        """Returns the PSNR of D(E(x)) in dB."""
        return ceiling(model, held_out, dtype)


@dataclass(frozen=True)
class LatentRecipe(Recipe):
    """How a denoiser of codes is trained; see `Recipe` for what all recipes say.

    Args:
        widths: Channels of the network's levels, finest first.
        blocks: Residual blocks per level and side.
        sigma_mean: Mean of ln(sigma), sigma in units of the code.
        sigma_std: Standard deviation of ln(sigma).
        sigma_uniform: Probability that a level is uniform in ln(sigma) over the range instead.
        sigma_range: Lowest and highest level.
        fitted: Most crops that the gains are measured on, at the end; fewer after a short
            training.
    """

    batch: int = 32
    crops: tuple[int, int] = (64, 128)
    widths: tuple[int, ...] = (64, 96, 128)
    blocks: int = 2
    sigma_mean: float = -1.6
    sigma_std: float = 1.2
    sigma_uniform: float = 0.1
    sigma_range: tuple[float, float] = (0.002, 80.0)
    fitted: int = 32

    def new(self, init: str | os.PathLike[str] | None = None) -> LatentPrior:
        """Returns the prior, with the autoencoder of a weight file, or all weights of one.

        Raises:
            ValueError: `init` is None, or holds neither an autoencoder nor such a prior.
        """
        if init is None:
            raise ValueError(
                f"recipe {self.name}: got no --init, wants the weight file of an autoencoder "
                "(recipe autoencoder-color), whose codes are denoised"
            )
        torch.manual_seed(self.seed)
        other = load(init, dtype=torch.float32)
        if not isinstance(other, Autoencoder | LatentPrior):
            raise ValueError(
                f"{init}: holds {type(other).__name__}, wanted Autoencoder or LatentPrior"
            )
        autoencoder = other.autoencoder if isinstance(other, LatentPrior) else other
        if autoencoder.noise is None or autoencoder.channels != self.domain.channels:
            raise ValueError(
                f"{init}: holds an autoencoder of {autoencoder.channels} channels, wanted "
                f"{self.domain.channels}, with the noise of its codes measured"
            )
        net = ConvUNet(
            autoencoder.net.code_channels, widths=self.widths, blocks=self.blocks, stem=1
        )
        spread = autoencoder.spread or 1.0
        if isinstance(other, LatentPrior):
            spread = other.denoiser.sigma_data
        model = LatentPrior(autoencoder, code_denoiser(net, spread))
        model.denoiser.sigma_range = self.sigma_range
        if isinstance(other, LatentPrior):
            other.denoiser.gains = None  # of its weights; fitted again at the end
            take_over(model, other, str(init), self.name)
        for p in model.parameters():
            p.requires_grad_(True)
        autoencoder.requires_grad_(False)
        return model

    def problem(self, material: Material, step: int, n: int, size: int) -> Batch:
        images = material.batch(step, n, size)
        device = images["x"].device
        sigma = lognormal_sigma(
            n,
            generator_of(self.seed, step, device, stream=1),
            mean=self.sigma_mean,
            std=self.sigma_std,
            low=self.sigma_range[0],
            high=self.sigma_range[1],
            uniform=self.sigma_uniform,
        )
        # how many channels a code has, the weights know: their loss draws the noise
        seeds = step * n + torch.arange(n, device=device)
        return images.adding({"sigma": sigma, "seed": seeds})

    def level(self, batch: Batch) -> Tensor:
        return batch["sigma"]

    def loss(self, model: LatentPrior, batch: Mapping[str, Any]) -> Tensor:
        with torch.no_grad():
            z = model.encode(batch["x"])
        drawn = [generator_of(self.seed, int(k), z.device, stream=2) for k in batch["seed"]]
        noise = randn_like(z, drawn)
        return edm_loss(model.denoiser, {"x": z, "sigma": batch["sigma"], "noise": noise})

    def finish(self, model: LatentPrior, material: Material, steps: int) -> dict[str, Any]:
        """Measures the autoencoder as it is stored, and fits the gains of the denoiser."""
        small, large = self.crops
        model.autoencoder.measured(crops_of(material, *MEASURED, large), scale=False)
        model.denoiser.gains = None
        # a crop costs 58 calls, in training about three: a tenth of it, as for image priors
        enough = min(self.fitted, steps * self.batch * small**2 / (400 * large**2))
        at_once = min(8, max(1, math.ceil(enough)))
        images = crops_of(material, math.ceil(enough / at_once), at_once, large)
        with torch.no_grad():
            codes = [model.encode(x) for x in images]
        model.denoiser.gains = tuple(fitted_gains(model.denoiser, codes))
        return {}

    def quality(
        self, model: LatentPrior, held_out: Sequence[Batch], dtype: torch.dtype
    ) -> dict[str, float]:
        """Returns the PSNR of D(E(x)) and of D(f(E(x) + s n, s)) in dB, by s."""
        found = ceiling(model, held_out, dtype, name="ceiling")
        for sigma in (0.1, 0.3, 1.0) if held_out else ():
            values = []
            for k, case in enumerate(held_out):
                x = case["x"]
                with fast(x, dtype), torch.no_grad():
                    z = model.encode(x)
                    noise = randn_like(z, torch.Generator(z.device).manual_seed(k))
                    clean = model.denoise_code(z + sigma * noise, sigma)
                    decoded = model.decode(clean)[..., : x.shape[2], : x.shape[3]]
                values.append(float(psnr(decoded.float(), x, data_range=2.0).mean()))
            found[f"{sigma:g}"] = sum(values) / len(values)
        return found


def code_of(x: Tensor, channels: int) -> Tensor:
    """Returns zeros of the shape of the code of images."""
    h, w = (-(-n // ConvAutoencoder.factor) for n in x.shape[2:])
    return x.new_zeros(len(x), channels, h, w)


def crops_of(material: Material, batches: int, n: int, size: int) -> list[Tensor]:
    """Returns batches of crops that no step has drawn."""
    return [material.batch((1 << 30) + k, n, size)["x"] for k in range(batches)]


def fast(x: Tensor, dtype: torch.dtype) -> torch.autocast:
    """Returns the context in which networks run in bfloat16 where that is asked for."""
    return torch.autocast(x.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16)


def ceiling(
    model: Autoencoder | LatentPrior,
    held_out: Sequence[Batch],
    dtype: torch.dtype,
    name: str = "psnr",
) -> dict[str, float]:
    """Returns the mean PSNR of D(E(x)) on what is held out, in dB, under a name."""
    values = []
    for case in held_out:
        with fast(case["x"], dtype):
            values.append(float(model.ceiling(case["x"]).mean()))
    return {name: sum(values) / len(values)} if values else {}


autoencoder_color = AutoencoderRecipe(
    name="autoencoder-color",
    licence=natural_color.licence,
    domain=Photographs(),
    budget=2100,
    gate="BSDS500 test: PSNR of D(E(x)) of 30 dB",
)
latent_color = LatentRecipe(
    name="latent-color",
    licence=natural_color.licence,
    domain=Photographs(),
    budget=1800,
    gate="BSDS500 test: restored within 1 dB of natural-color where the ceiling allows",
)
