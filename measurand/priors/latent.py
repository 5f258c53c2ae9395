r"""Images through a code: an autoencoder, and a denoiser of its codes.

An encoder E and a decoder D with D(E(x)) close to x, and codes scaled so that over images each of
their channels has mean 0 and standard deviation 1. A prior of images is then one of codes,

    z = E(x),    f(z, s) = E[z given z + s n],    n standard normal,

with f an `EDMDenoiser` of as many channels as the code (`sigma_data = 1`).

What a code cannot hold is lost: with e^2 = E|x - D(E(x))|^2 per pixel value (`error`),

    ceiling = 10 log10(w^2 / e^2)    (dB, w the width of the image range)

bounds the PSNR of every image D(z), on average, whatever the method.

Noise of images is not noise of codes. `code_noise(sigma)` is the standard deviation of
E(x + sigma n) - E(x), a root mean square over channels, from a table that is measured on images of
the training (`Autoencoder.measured`) and is part of the card.

Large images are decoded in parts of `tile` pixels. A part is decoded with all code values that its
pixels depend on, so that the result is that of one piece but for rounding, and there are no seams.

References:
    | High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022)
    | arXiv:2112.10752
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022)
    | arXiv:2206.00364
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..metrics import psnr
from ..nets import ConvAutoencoder, ConvUNet
from ..tensors import convert_range, randn_like
from .brief import one_line
from .capabilities import Evaluation, Fitted, Images, Range, Score, Trained, images_named
from .edm import EDMDenoiser

__all__ = ["Autoencoder", "CodedImages", "LatentPrior", "PixelCode", "autoencoder_loss"]

# image noise, relative to the width of the range, at which that of the codes is measured
LEVELS = (0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


class Autoencoder(Trained):
    """An encoder and a decoder of images, with codes of mean 0 and standard deviation 1.

    Args:
        net: The network.
        range: Lowest and highest value of the images.
        error: Root mean square of x - D(E(x)) over images, in image units; None where unknown.
        noise: Standard deviation of E(x + sigma n) - E(x), relative to sigma: a row for each of
            `LEVELS`, with one number per channel of the code; None where unknown.
        tile: Largest side of an image that is decoded in one piece, in pixels.
        card: What is known of the weights: data, licence, training, results.
    """

    kind = "autoencoder"
    dtype = torch.float32
    not_by_name: ClassVar[str] = "is half a prior: it has no denoiser of its codes"

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        net: ConvAutoencoder,
        *,
        range: Range = (-1.0, 1.0),
        error: float | None = None,
        noise: Sequence[Sequence[float]] | None = None,
        tile: int = 512,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if noise is not None and (
            len(noise) != len(LEVELS) or {len(row) for row in noise} != {net.code_channels}
        ):
            raise ValueError(
                f"Autoencoder: got a table of noise with {len(noise)} rows, wants {len(LEVELS)}, "
                f"each with {net.code_channels} numbers"
            )
        self.net, self.range, self.error, self.tile = net, range, error, tile
        self.noise = None if noise is None else tuple(map(tuple, noise))
        self.channels, self.factor = net.channels, net.factor
        self.register_buffer("mean", torch.zeros(1, net.code_channels, 1, 1))
        self.register_buffer("std", torch.ones(1, net.code_channels, 1, 1))
        self.card = dict(card or {})

    def encode(self, x: Tensor) -> Tensor:
        """Returns the code E(x), with shape (B, c, ceil(H / factor), ceil(W / factor)).

        Args:
            x: Image, with shape (B, C, H, W).
        Raises:
            ValueError: It is complex or has other channels.
        """
        if x.is_complex() or x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(
                f"Autoencoder: got an image of shape {tuple(x.shape)} and {x.dtype}, wants real "
                f"(B, {self.channels}, H, W)"
            )
        return (self._run(self.net.encode, x) - self.mean.to(x)) / self.std.to(x)

    def decode(self, z: Tensor) -> Tensor:
        """Returns the image D(z), with shape (B, C, factor h, factor w).

        Args:
            z: Code, with shape (B, c, h, w).
        Raises:
            ValueError: It has other channels than a code.
        """
        raw = z * self.std.to(z) + self.mean.to(z)
        rows, columns = (self._spans(n) for n in z.shape[2:])
        if len(rows) == len(columns) == 1:
            return self._run(self.net.decode, raw)
        return torch.cat(
            [torch.cat([self._part(raw, i, j) for j in columns], dim=3) for i in rows], dim=2
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns D(E(x)), with the shape of `x`."""
        return self.decode(self.encode(x))[..., : x.shape[2], : x.shape[3]]

    def code_noise(self, sigma: float | Tensor) -> float | Tensor:
        """Returns the standard deviation of E(x + sigma n) - E(x), of sigma's kind and shape.

        Between the levels of the table what is relative to sigma is linear in ln(sigma), outside
        it is that of the nearest.

        Raises:
            ValueError: The table has not been measured.
        """
        if self.noise is None:
            raise ValueError(
                "Autoencoder: the noise of codes is not known; measured(images) measures it"
            )
        width = self.range[1] - self.range[0]
        known = torch.tensor(LEVELS, dtype=torch.float64).log()
        gains = torch.tensor(self.noise, dtype=torch.float64).square().mean(1).sqrt()
        level = torch.as_tensor(sigma, dtype=torch.float64).cpu()
        place = (level / width).clamp_min(1e-12).log().clamp(float(known[0]), float(known[-1]))
        i = torch.searchsorted(known, place.contiguous()).clamp(1, len(known) - 1)
        share = (place - known[i - 1]) / (known[i] - known[i - 1])
        value = level * torch.lerp(gains[i - 1], gains[i], share)
        return value.to(sigma) if isinstance(sigma, Tensor) else float(value)

    @torch.no_grad()
    def measured(self, images: Sequence[Tensor], seed: int = 0) -> Self:
        """Measures, in place, the scale of codes, the error of images and the noise of codes.

        Args:
            images: Batches of images that it may be trained on, each (B, C, H, W).
            seed: Of the noise.
        Returns:
            The autoencoder.
        """
        self.mean.zero_()
        self.std.fill_(1)
        codes = [self.encode(x).double() for x in images]
        flat = torch.cat([z.movedim(1, 0).flatten(1) for z in codes], dim=1)
        self.mean.copy_(flat.mean(1)[None, :, None, None])
        self.std.copy_(flat.std(1)[None, :, None, None])
        squares = torch.cat([(self(x) - x).double().square().flatten() for x in images])
        self.error = float(squares.mean().sqrt())
        width, table = self.range[1] - self.range[0], []
        for share in LEVELS:
            total = torch.zeros(self.net.code_channels, dtype=torch.float64)
            for k, x in enumerate(images):
                noise = randn_like(x, torch.Generator(x.device).manual_seed(seed + k))
                change = (self.encode(x + share * width * noise) - self.encode(x)).double()
                total += change.square().mean((0, 2, 3)).cpu() / len(images)
            table.append(tuple((total.sqrt() / (share * width)).tolist()))
        self.noise = tuple(table)
        return self

    def ceiling(self, x: Tensor) -> Tensor:
        """Returns the PSNR of D(E(x)) in dB, with shape (B,): no image D(z) is expected above.

        Args:
            x: Images, with shape (B, C, H, W).
        """
        with torch.no_grad():
            return psnr(self(x), x, data_range=self.range[1] - self.range[0])

    def _run(self, function: Any, x: Tensor) -> Tensor:
        """The value of a part of the network, which runs in the precision of its weights."""
        dtype = next(self.net.parameters()).dtype
        if not x.is_floating_point():
            raise ValueError(f"Autoencoder: got {x.dtype}, wants real numbers")
        out = function(x.to(dtype, memory_format=torch.channels_last))
        return out.to(x.dtype, memory_format=torch.contiguous_format)

    def _spans(self, length: int) -> list[tuple[int, int]]:
        """The parts of an axis of a code, as even as can be, none above the size of a tile."""
        parts = -(-length * self.factor // self.tile)
        edges = [k * length // parts for k in range(parts + 1)]
        return list(itertools.pairwise(edges))

    def _part(self, raw: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        """The image of a part of a code, decoded with all that its pixels depend on."""
        cut, keep = [], []
        for (first, last), n in zip((rows, columns), raw.shape[2:], strict=True):
            start, stop = max(0, first - self.net.reach), min(n, last + self.net.reach)
            cut.append(slice(start, stop))
            keep.append(slice((first - start) * self.factor, (last - start) * self.factor))
        return self._run(self.net.decode, raw[:, :, cut[0], cut[1]])[:, :, keep[0], keep[1]]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, factor={self.factor}, code={self.net.code_channels}"

    @property
    def fast(self) -> nn.Module:
        return self.net

    def keeps(self, name: str, x: Tensor) -> bool:
        return name in ("mean", "std")

    def coded(self, name: str, x: Tensor) -> bool:
        last = (f"encoder.{len(self.net.encoder) - 1}.", f"decoder.{len(self.net.decoder) - 2}.")
        exact = (
            "net.linear_",
            "net.encoder.1.",
            "net.decoder.0.",
            *(f"net.{layer}" for layer in last),
        )
        return x.ndim == 4 and not name.startswith(exact)

    def to_card(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "autoencoder": self.net.config,
            "range": list(self.range),
            "error": self.error,
            "noise": None if self.noise is None else [list(row) for row in self.noise],
        }

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Self:
        return cls(
            ConvAutoencoder(**card["autoencoder"]),
            range=tuple(card["range"]),
            error=card["error"],
            noise=card["noise"],
        )

    @classmethod
    def summary(cls, card: Mapping[str, Any]) -> str:
        found = (card.get("held_out_psnr") or {}).get("psnr")
        good = "" if found is None else f", {found:.1f} dB"
        net = card["autoencoder"]
        return (
            f"autoencoder of {images_named(net['channels'])}, {net['code_channels']} channels at "
            f"1/{ConvAutoencoder.factor} of the width{good}"
        )

    def fitted(self, images: Images, *, tile: int = 1024, name: str = "") -> Fitted:
        raise ValueError(
            f"--prior {name} is an autoencoder without a denoiser of its codes; train one with "
            "the recipe latent-color and --init with its weight file"
        )

    def quality(self, on: Evaluation) -> list[Score]:
        words = "PSNR in dB of images after encoding and decoding"
        return on.each("psnr", words, lambda x, generator: self.ceiling(x).mean())

    @classmethod
    def example(cls) -> Self:
        """A tiny instance for images of shape (1, 8, 8)."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = ConvAutoencoder(
                1, 2, widths=(4, 6), encoder_blocks=(0, 1), decoder_blocks=(1, 0)
            )
            x = 0.5 * torch.randn(8, 1, 16, 16)
            net.initialize(x)
        return cls(net).measured([x])


class LatentPrior(Trained):
    """A `Latent`: images through their codes, and a denoiser of codes.

    Args:
        autoencoder: Makes codes of images, and images of codes.
        denoiser: Denoiser of codes.
        card: What is known of the weights: data, licence, training, results.
    """

    kind = "latent"
    not_by_name: ClassVar[str] = "is a network: name its weight file"

    def __init__(
        self,
        autoencoder: Autoencoder,
        denoiser: EDMDenoiser,
        *,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if autoencoder.error is None or autoencoder.noise is None:
            raise ValueError(
                "LatentPrior: got an autoencoder whose error and noise of codes are not known; "
                "autoencoder.measured(images) measures them"
            )
        self.autoencoder, self.denoiser = autoencoder, denoiser
        self.channels, self.dtype = autoencoder.channels, autoencoder.dtype
        self.range, self.factor = autoencoder.range, autoencoder.factor
        self.card = dict(card or {})

    @property
    def error(self) -> float:
        """Root mean square of x - D(E(x)) over images, in image units."""
        assert self.autoencoder.error is not None  # checked above, and never unmeasured again
        return self.autoencoder.error

    def encode(self, x: Tensor) -> Tensor:
        """Returns the code E(x); see `Autoencoder.encode`."""
        return self.autoencoder.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        """Returns the image D(z); see `Autoencoder.decode`."""
        return self.autoencoder.decode(z)

    def denoise_code(self, z: Tensor, sigma: float | Tensor) -> Tensor:
        """Returns E[z given z + sigma n], with the shape of `z`.

        Args:
            z: Noisy code, with shape (B, c, h, w).
            sigma: Noise level in units of the code, a number or one per item (B,).
        """
        return self.denoiser.denoise(z, sigma)

    def code_noise(self, sigma: float | Tensor) -> float | Tensor:
        """Returns the noise of the code of a noisy image; see `Autoencoder.code_noise`."""
        return self.autoencoder.code_noise(sigma)

    def ceiling(self, x: Tensor) -> Tensor:
        """Returns the PSNR of D(E(x)) in dB; see `Autoencoder.ceiling`."""
        return self.autoencoder.ceiling(x)

    def extra_repr(self) -> str:
        code = self.autoencoder.net.code_channels
        return f"{super().extra_repr()}, range={self.range}, factor={self.factor}, code={code}"

    @property
    def fast(self) -> nn.Module:
        return nn.ModuleList([self.autoencoder.fast, self.denoiser.fast])

    def keeps(self, name: str, x: Tensor) -> bool:
        part, _, inside = name.partition(".")
        return part == "autoencoder" and self.autoencoder.keeps(inside, x)

    def coded(self, name: str, x: Tensor) -> bool:
        part, _, inside = name.partition(".")
        if part == "autoencoder":
            return self.autoencoder.coded(inside, x)
        return self.denoiser.coded(inside.removeprefix("net."), x)

    def to_card(self) -> dict[str, Any]:
        inside = {k: v for k, v in self.autoencoder.to_card().items() if k != "kind"}
        denoiser = {k: v for k, v in self.denoiser.to_card().items() if k != "kind"}
        return {"kind": self.kind, **inside, "denoiser": denoiser}

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Self:
        return cls(Autoencoder.from_card(card), EDMDenoiser.from_card(card["denoiser"]))

    @classmethod
    def summary(cls, card: Mapping[str, Any]) -> str:
        found = (card.get("held_out_psnr") or {}).get("ceiling")
        good = "" if found is None else f", ceiling {found:.1f} dB"
        channels = card["autoencoder"]["channels"]
        return f"denoiser of the codes of {images_named(channels)}{good}"

    def fitted(self, images: Images, *, tile: int = 1024, name: str = "") -> Fitted:
        grey = self.matched(images, name, grey=True)
        prior: Any = self
        notes = []
        if grey:
            notes.append(f"grey image: shown to {name} as {self.channels} equal channels")
        if tuple(self.range) != images.range:
            low, high = images.range
            notes.append(f"images rescaled from [{low:g}, {high:g}] to the prior's {self.range}")
        if notes:
            prior = CodedImages(self, images.range, grey=grey)
        if max(images.shape[1:]) > self.autoencoder.tile:
            notes.append(
                f"decoded in parts of {self.autoencoder.tile} pixels with the margins they need"
            )
        return Fitted(prior, notes)

    def remarks(self, measurement: Any, x: Tensor) -> dict[str, float]:
        """Returns the ceiling of the image: the PSNR of D(E(x)), in dB."""
        if x.is_complex():
            return {}
        seen = x.expand(-1, self.channels, *x.shape[2:]) if x.shape[1] == 1 else x
        return {"ceiling": float(self.ceiling(seen).mean())}

    def quality(self, on: Evaluation) -> list[Score]:
        words = "PSNR in dB of images after encoding and decoding, which bounds the method"
        return on.each("ceiling", words, lambda x, generator: self.ceiling(x).mean())

    @classmethod
    def example(cls) -> Self:
        """A tiny instance for images of shape (1, 8, 8), on which the laws are tested."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = ConvUNet(2, widths=(4, 6), blocks=1, stem=1, features=8)
            nn.init.normal_(net.head.weight, std=0.02)
        return cls(Autoencoder.example(), code_denoiser(net))


class CodedImages(nn.Module):
    """A latent prior for images of another range, or for grey ones as several equal channels.

    Args:
        prior: The latent prior.
        range: Lowest and highest value of the images outside.
        grey: Whether these have one channel, and those of the prior several.
    """

    not_by_name: ClassVar[str] = "is put around a latent prior by itself, where images need it"

    def __init__(self, prior: LatentPrior, range: Range = (-1.0, 1.0), *, grey: bool) -> None:
        super().__init__()
        self.prior, self.range, self.grey, self.inner = prior, range, grey, prior.range
        self.k = (self.inner[1] - self.inner[0]) / (range[1] - range[0])

    @property
    def dtype(self) -> torch.dtype:
        """Kind of the images."""
        return self.prior.dtype

    @property
    def factor(self) -> int:
        """Pixels per code value along an axis."""
        return self.prior.factor

    @property
    def error(self) -> float:
        """Root mean square of x - D(E(x)) over images, in units of the images outside."""
        return self.prior.error / self.k

    def encode(self, x: Tensor) -> Tensor:
        """The code of an image."""
        if self.grey:
            if x.shape[1] != 1:
                raise ValueError(f"CodedImages: got images with {x.shape[1]} channels, wanted 1")
            x = x.expand(-1, self.prior.channels, *x.shape[2:])
        return self.prior.encode(convert_range(x, self.range, self.inner))

    def decode(self, z: Tensor) -> Tensor:
        """The image of a code; of a grey one the mean of its channels."""
        x = convert_range(self.prior.decode(z), self.inner, self.range)
        return x.mean(1, keepdim=True) if self.grey else x

    def denoise_code(self, z: Tensor, sigma: float | Tensor) -> Tensor:
        """The denoised code; codes are those of the prior."""
        return self.prior.denoise_code(z, sigma)

    def code_noise(self, sigma: float | Tensor) -> float | Tensor:
        """The noise of the code of a noisy image; of a grey one all channels have the same."""
        return self.prior.code_noise(sigma * self.k)

    __repr__ = one_line

    def extra_repr(self) -> str:
        return f"range={self.range}, grey={self.grey}"

    @classmethod
    def example(cls) -> Self:
        """A tiny instance for images of shape (1, 8, 8), on which the laws are tested."""
        return cls(LatentPrior.example(), (0.0, 1.0), grey=False)


class PixelCode(nn.Module):
    """A denoiser of images as a latent prior whose code is the image itself: D = E = identity.

    Args:
        prior: A denoiser.
    """

    not_by_name: ClassVar[str] = "is made of a denoiser of images: use it in Python"

    factor = 1
    error = 0.0

    def __init__(self, prior: Any) -> None:
        super().__init__()
        self.prior = prior

    @property
    def range(self) -> Range | None:
        """The values that the images have."""
        return self.prior.range

    @property
    def dtype(self) -> torch.dtype:
        """Kind of the images."""
        return self.prior.dtype

    def encode(self, x: Tensor) -> Tensor:
        """The image."""
        return x

    def decode(self, z: Tensor) -> Tensor:
        """The image."""
        return z

    def denoise_code(self, z: Tensor, sigma: float | Tensor) -> Tensor:
        """The denoised image."""
        return self.prior.denoise(z, sigma)

    def code_noise(self, sigma: float | Tensor) -> float | Tensor:
        """Sigma."""
        return sigma

    __repr__ = one_line

    @classmethod
    def example(cls) -> Self:
        """A tiny instance for images of shape (1, 8, 8), on which the laws are tested."""
        return cls(EDMDenoiser.example())


def code_denoiser(net: ConvUNet) -> EDMDenoiser:
    """Returns the denoiser of codes, of mean 0 and standard deviation 1, that a network makes."""
    return EDMDenoiser(net, channels=net.in_channels, sigma_data=1.0, range=(-4.0, 4.0))


def autoencoder_loss(
    model: Autoencoder, batch: Mapping[str, Any], *, gradient: float, weight: float
) -> Tensor:
    """Returns the loss of each item, with shape (B,).

        |d| + gradient (|d_x| + |d_y|) + weight |E(x)|^2 / 2,    d = D(E(x) + noise) - x

    in means over pixels, d_x and d_y differences of neighbours. With noise of standard deviation
    s, the last term is the divergence of N(E(x), s^2) from N(0, 1) but for a constant: the KL term
    of an autoencoder whose posterior has one width.

    Args:
        model: The autoencoder.
        batch: "x" images (B, C, H, W) and "noise" of the shape of their codes.
        gradient: Weight of the differences.
        weight: Weight of the divergence.
    """
    x = batch["x"]
    z = model.encode(x)
    d = model.decode(z + batch["noise"])[..., : x.shape[2], : x.shape[3]] - x
    down, right = d[..., 1:, :] - d[..., :-1, :], d[..., 1:] - d[..., :-1]
    edges = down.abs().flatten(1).mean(1) + right.abs().flatten(1).mean(1)
    size = z.square().flatten(1).mean(1) / 2
    return d.abs().flatten(1).mean(1) + gradient * edges + weight * size
