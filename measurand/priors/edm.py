r"""The denoiser of a network by the preconditioning of EDM, and the loss that trains it.

With v = x + sigma n, n standard normal, and data of standard deviation s (`sigma_data`),

    D(v, sigma) = c_skip v + c_out F(c_in v, ln(sigma) / 4)

    c_skip = s^2 / (sigma^2 + s^2)             c_out = sigma s / sqrt(sigma^2 + s^2)
    c_in   = 1 / sqrt(sigma^2 + s^2)           weight = (sigma^2 + s^2) / (sigma s)^2

so that input and target of the network F have unit variance at every noise level, and

    loss = E weight |D(x + sigma n, sigma) - x|^2 = E |F - F_ideal|^2,   ln(sigma) ~ N(m, d^2),

with a few levels uniform in ln(sigma), so that no level of the stated range is untrained.

At sigma = 0 the formulas give D(v, 0) = v; the logarithm is kept finite by a floor at the smallest
trained level. Above the largest, t, where nothing but the mean is left to see of an image, v is
shrunk to it: D(v, sigma) = D(t v / sigma, t).

A network that has not converged answers a little too much or too little, in the mean over images
by an amount that depends on sigma alone. A gain of the residual corrects it, g = 1 outside
[2^-6.25, 2^1.25],

    D_g(v, sigma) = v + g(sigma) (D(v, sigma) - v),    g linear in ln(sigma) by quarter octaves.

Of all numbers g = E<x - v, D - v> / E|D - v|^2 has the least squared error, and with it, by
Stein's lemma, the error that D_g expects is the one that it has: sigma^2 E div D_g = E|D_g - x|^2
(`fitted_gains`). A percent of g can be a third of that error.

Preconditioning is float32; only F runs in the precision of its weights (bfloat16 halves the time
of a convolution on processors that have units for it).

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022)
    | arXiv:2206.00364, table 1 and section 5
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..nets import ConvUNet
from ..tensors import from_channels, per_item, randn_like, to_channels
from .denoiser import check_kind, check_level
from .grey import Grey
from .trained import (
    Evaluation,
    Exported,
    Fitted,
    Images,
    Score,
    Trained,
    dtype_named,
    images_named,
    numbers,
)
from .wrappers import Rescaled, Tiled

__all__ = ["EDMDenoiser", "edm_loss", "fast_dtype", "fitted_gains", "lognormal_sigma"]

# of the levels at which gains are known, 1/64 to 2; a network is told c = ln(sigma) / 4 by waves
# of up to four periods per unit, which have a period of 1.4 octaves: halves are too coarse for it
OCTAVES = tuple(k / 4 for k in range(-24, 5))


class EDMDenoiser(Trained):
    """A denoiser D(v, sigma) made of a network F(x, c) by EDM preconditioning.

    Differentiable in v, in sigma and in the weights. The network runs in the precision of its own
    weights: `prior.to(torch.bfloat16)` makes a bfloat16 denoiser whose images stay float32.

    Args:
        net: Network (x, c) or (x, c, condition) -> output, of x's shape.
        channels: Channels of the image.
        dtype: Kind of the images; a complex channel is two real ones to the network, and sigma is
            the level of each of these.
        mean: Mean of the images, in image units; the formulas above are those of x - mean.
        fixed_sum: Sum of x - mean over an image, where it is the same for every one, as for blur
            kernels: E[x given v] then has it too, and answers are moved to it.
        gains: Correction g - 1 at the levels `2**OCTAVES`; see `fitted_gains`.
        sigma_data: Standard deviation of the images, in image units.
        range: Lowest and highest value of the images the network was trained on.
        sigma_range: Lowest and highest noise level it was trained on, in image units.
        card: What is known of the weights: data, licence, training, results.
    """

    kind = "edm"
    not_by_name: ClassVar[str] = "is a network: name its weight file"

    def __init__(
        self,
        net: nn.Module,
        *,
        channels: int = 3,
        dtype: torch.dtype = torch.float32,
        mean: float = 0.0,
        fixed_sum: float | None = None,
        gains: Sequence[float] | None = None,
        sigma_data: float = 0.5,
        range: tuple[float, float] = (-1.0, 1.0),
        sigma_range: tuple[float, float] = (0.002, 80.0),
        card: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.net = net
        self.channels = channels
        self.dtype = dtype
        self.mean = mean
        self.fixed_sum = fixed_sum
        if gains is not None and len(gains) != len(OCTAVES):
            raise ValueError(
                f"EDMDenoiser: got {len(gains)} gains, wants {len(OCTAVES)}: for the levels from "
                "1/64 to 2, by quarter octaves"
            )
        self.gains = None if gains is None else tuple(gains)
        self.sigma_data = sigma_data
        self.range = range
        self.sigma_range = sigma_range
        self.card = dict(card or {})

    def denoise(self, v: Tensor, sigma: float | Tensor, condition: Tensor | None = None) -> Tensor:
        """Returns D(v, sigma) = E[x given v = x + sigma n].

        Args:
            v: Noisy image, with shape (B, C, H, W), any H and W.
            sigma: Noise level in image units, a number or one per item (B,).
            condition: What else the network may see, of v's size; complex channels are two real
                ones to the network, like those of v.
        Returns:
            The denoised image, of v's shape and dtype.
        Raises:
            ValueError: v is of another kind, or has other channels than the prior; or sigma is
                negative or not finite.
        """
        complex_ = self.dtype.is_complex
        if v.is_complex() != complex_ or v.ndim != 4 or v.shape[1] != self.channels:
            kind = "complex" if complex_ else "real"
            raise ValueError(
                f"EDMDenoiser: got an image of shape {tuple(v.shape)} and {v.dtype}, wants {kind} "
                f"(B, {self.channels}, H, W)"
            )
        check_kind(self, v)
        check_level(self, sigma)
        if not complex_:
            return self.preconditioned(v, sigma, condition)
        return from_channels(self.preconditioned(to_channels(v), sigma, condition))

    forward = denoise

    def preconditioned(
        self, v: Tensor, sigma: float | Tensor, condition: Tensor | None = None
    ) -> Tensor:
        """Returns D(v, sigma) of the real channels that the network sees."""
        x = v.float() - self.mean
        level = per_item(sigma, x)
        s, top = self.sigma_data, self.sigma_range[1]
        shrink = top / level.clamp_min(top)
        level = level.clamp_max(top)
        total = level.square() + s**2
        c = level.clamp_min(self.sigma_range[0]).log().flatten() / 4
        dtype = next(self.net.parameters()).dtype
        inputs = (x * (shrink * total.rsqrt())).to(dtype, memory_format=torch.channels_last)
        if condition is None:
            output = self.net(inputs, c)
        else:
            seen = to_channels(condition).to(dtype, memory_format=torch.channels_last)
            output = self.net(inputs, c, seen)
        # contiguous: physics and FFT want channels first
        output = output.to(x.dtype, memory_format=torch.contiguous_format)
        image = torch.addcmul(x * (shrink * s**2 / total), output, level * s * total.rsqrt())
        if self.gains is not None:
            image = x + self.gain(per_item(sigma, x)) * (image - x)
        if self.fixed_sum is not None:
            off = self.fixed_sum - image.sum((1, 2, 3), keepdim=True)
            image = image + off / image[0].numel()
        return (image + self.mean).to(v.dtype)

    def gain(self, sigma: Tensor) -> Tensor:
        """Returns g(sigma), of sigma's shape."""
        if self.gains is None:
            return torch.ones_like(sigma)
        place = 4 * sigma.clamp_min(1e-9).log2()[..., None]
        at = 4 * torch.tensor(OCTAVES).to(sigma)
        near = (1 - (place - at).abs()).clamp_min(0)
        return 1 + (near * torch.tensor(self.gains).to(sigma)).sum(-1)  # no matrix product: exact

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, range={self.range}, sigma_range={self.sigma_range}"

    @property
    def weights(self) -> nn.Module:
        return self.net

    @property
    def fast(self) -> nn.Module:
        return self.net

    def coded(self, name: str, x: Tensor) -> bool:
        return x.ndim >= 2 and not name.startswith(("stem.", "head."))  # first and last layer

    def to_card(self) -> dict[str, Any]:
        if not isinstance(self.net, ConvUNet):
            raise TypeError(
                f"EDMDenoiser: the network is a {type(self.net).__name__}, not a ConvUNet, which "
                "alone has a weight file"
            )
        return {
            "kind": self.kind,
            "net": self.net.config,
            "channels": self.channels,
            "dtype": str(self.dtype).removeprefix("torch."),
            "mean": self.mean,
            "fixed_sum": self.fixed_sum,
            "gains": None if self.gains is None else list(self.gains),
            "sigma_data": self.sigma_data,
            "range": list(self.range),
            "sigma_range": list(self.sigma_range),
        }

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Self:
        return cls(
            ConvUNet(**card["net"]),
            channels=card["channels"],
            dtype=dtype_named(card.get("dtype", "float32")),
            mean=card.get("mean", 0.0),
            fixed_sum=card.get("fixed_sum"),
            gains=card.get("gains"),
            sigma_data=card["sigma_data"],
            range=tuple(card["range"]),
            sigma_range=tuple(card["sigma_range"]),
        )

    @classmethod
    def summary(cls, card: Mapping[str, Any]) -> str:
        psnr = card.get("psnr") or card.get("held_out_psnr") or {}
        good = f", {psnr['25']:.1f} dB at noise 25 of 255" if "25" in psnr else ""
        return f"denoiser of {images_named(card['channels'], card.get('dtype'))}{good}"

    def fitted(self, images: Images, *, tile: int = 1024, name: str = "") -> Fitted:
        prior: Any = self
        notes = []
        if self.matched(images, name, grey=True):
            prior = Grey(prior, self.channels)
            notes.append(f"grey image: shown to {name} as {self.channels} equal channels")
        if tuple(self.range) != images.range:
            prior = Rescaled(prior, images.range)
            low, high = images.range
            notes.append(f"images rescaled from [{low:g}, {high:g}] to the prior's {self.range}")
        if max(images.shape[1:]) > tile:
            prior = Tiled(prior, tile, overlap=min(32, tile // 2))
            notes.append(
                f"denoised in overlapping tiles of {tile} pixels, physics on the whole image"
            )
        return Fitted(prior, notes)

    def quality(self, on: Evaluation) -> list[Score]:
        return on.denoised(self)

    def exported(self) -> Exported:
        return Exported(
            [OnChannels(self)],
            self.channels * (2 if self.dtype.is_complex else 1),
            {
                "complex": str(int(self.dtype.is_complex)),
                "channels": str(self.channels),
                "range": numbers(self.range),
                "sigma_range": numbers(self.sigma_range),
                "depth": "0",
            },
        )

    @classmethod
    def example(cls) -> Self:
        """A tiny instance for images of shape (1, 8, 8), on which the laws are tested."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = ConvUNet(1, widths=(4, 6), blocks=1, stem=1, features=8)
            nn.init.normal_(net.head.weight, std=0.02)
        return cls(net, channels=1, gains=[0.01] * len(OCTAVES))


class OnChannels(nn.Module):
    """A denoiser (v, sigma) -> D(v, sigma) on the real channels that its network sees.

    Args:
        prior: The denoiser.
    """

    def __init__(self, prior: EDMDenoiser) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, v: Tensor, sigma: Tensor) -> Tensor:
        return self.prior.preconditioned(v, sigma)


def edm_loss(prior: EDMDenoiser, batch: Mapping[str, Tensor]) -> Tensor:
    """Returns the weighted denoising loss of each item, with shape (B,).

    loss = (sigma^2 + s^2) / (sigma s)^2 mean |D(x + sigma n, sigma) - x|^2

    A network that answers 0 has a loss of about 1. Beyond 4 a loss l counts as 4 + 4 ln(l / 4):
    at rarely seen levels a network without normalisation can answer with numbers in the hundreds,
    and one such item must not drown the gradient of all others.

    Args:
        prior: The denoiser.
        batch: "x" images (B, C, H, W), "sigma" levels (B,), "noise" of x's shape, standard
            normal in each real channel, and "condition" where the network sees one.
    """
    x, sigma, s = batch["x"], batch["sigma"], prior.sigma_data
    level = per_item(sigma, x)
    error = to_channels(prior(x + level * batch["noise"], sigma, batch.get("condition")) - x)
    weight = (sigma**2 + s**2) / (sigma * s) ** 2
    loss = weight * error.square().flatten(1).mean(1)
    return torch.where(loss > 4, 4 + 4 * (loss.clamp_min(4) / 4).log(), loss)


@torch.no_grad()
def fitted_gains(prior: EDMDenoiser, images: Sequence[Tensor], seed: int = 0) -> list[float]:
    """Returns the `gains` with which a prior errs least on some images, and as it expects to.

    Args:
        prior: The denoiser; gains that it has count as part of it and are multiplied.
        images: Batches of images that it may be trained on, each (B, C, H, W). Images differ
            more than pixels: the standard error of a gain falls with the number of images.
        seed: Of the noise.
    """
    found = []
    for octave, before in zip(OCTAVES, prior.gains or [0.0] * len(OCTAVES), strict=True):
        sigma = 2.0**octave
        along = square = 0.0
        for k, x in enumerate(images):
            x = x.to(next(prior.parameters()).device)
            generator = torch.Generator(x.device).manual_seed(seed + k)
            drawn = sigma * randn_like(x, generator)
            for noise in (drawn, -drawn):  # in pairs: what is linear in it cancels
                residual = to_channels(prior.denoise(x + noise, sigma) - x - noise)
                if prior.fixed_sum is not None:  # what the sum says is known without the network
                    residual = residual - residual.mean((1, 2, 3), keepdim=True)
                along -= float((residual * to_channels(noise)).sum(dtype=torch.float64))
                square += float(residual.square().sum(dtype=torch.float64))
        found.append((1 + before) * along / square - 1)
    return found


def lognormal_sigma(
    n: int,
    generator: torch.Generator,
    *,
    mean: float = -1.6,
    std: float = 1.2,
    low: float = 0.002,
    high: float = 80.0,
    uniform: float = 0.1,
) -> Tensor:
    """Returns n noise levels to train on, with shape (n,).

    ln(sigma) ~ N(mean, std^2), clamped to [low, high]; a few are uniform in ln(sigma) instead.

    Args:
        n: Number of levels.
        generator: Draws them.
        mean: Mean of ln(sigma).
        std: Standard deviation of ln(sigma).
        low: Lowest level.
        high: Highest level.
        uniform: Probability that a level is log-uniform.
    """
    # paper: lognormal only; here: a normal of this width visits neither end of [low, high] in a
    # short run, and samplers start at the high end
    usual = mean + std * torch.randn(n, generator=generator, device=generator.device)
    spread = torch.empty(n, device=generator.device)
    spread.uniform_(math.log(low), math.log(high), generator=generator)
    chosen = torch.rand(n, generator=generator, device=generator.device) < uniform
    return torch.where(chosen, spread, usual).exp().clamp(low, high)


def fast_dtype(device: torch.device | str = "cpu") -> torch.dtype:
    """Returns bfloat16 where the device has units for it, else float32."""
    device = torch.device(device)
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        try:
            with open("/proc/cpuinfo") as file:
                flags = set(next((x for x in file if x.startswith("flags")), "").split())
        except OSError:
            flags = set()
        fast = bool(flags & {"avx512_bf16", "amx_bf16"})
    else:
        fast = False
    return torch.bfloat16 if fast else torch.float32
