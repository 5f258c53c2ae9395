r"""Codes of images: an encoder E and a decoder D with D(E(x)) close to x.

Codes have mean 0, and each of their channels is scaled by what it makes of white noise in the
image, so that image noise of level sigma is code noise of about sigma in every channel, E is about
the left inverse of an isometry D, and methods take levels and steps as they do for pixels.

What a code cannot hold is lost: with e^2 = E|x - D(E(x))|^2 per pixel value (`error`),

    ceiling = 10 log10(w^2 / e^2)    (dB, w the width of the image range)

bounds the PSNR of every image D(z), on average, whatever the method.

The scale is exact at one level only. `code_noise(sigma)` is the standard deviation of
E(x + sigma n) - E(x), a root mean square over channels, from a table that is measured on images of
the training (`Autoencoder.measured`) and is part of the card.

Large images are decoded in parts of `tile` pixels. A part is decoded with all code values that its
pixels depend on, so that the result is that of one piece but for rounding, and there are no seams.

References:
    | High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022)
    | arXiv:2112.10752
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..metrics import psnr
from ..nets import ConvAutoencoder
from ..tensors import randn_like
from .capabilities import Range
from .trained import Evaluation, Fitted, Images, Score, Trained, images_named

__all__ = ["Autoencoder", "autoencoder_loss"]

# image noise, relative to the width of the range, at which that of the codes is measured
LEVELS = (0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
SCALED_AT = 0.05  # the one at which it is that of the image


class Autoencoder(Trained):
    """An encoder and a decoder of images, whose codes have the noise of the images.

    Args:
        net: The network: a `ConvAutoencoder`, or another module with `encode`, `decode`,
            `channels`, `code_channels`, `factor` and `reach` (None where it is not bounded: such
            a decoder is never given a part), which has no weight file.
        range: Lowest and highest value of the images.
        error: Root mean square of x - D(E(x)) over images, in image units; None where unknown.
        noise: Standard deviation of E(x + sigma n) - E(x), relative to sigma: a row for each of
            `LEVELS`, with one number per channel of the code; None where unknown.
        spread: Standard deviation of codes over images, a root mean square over channels; None
            where unknown.
        tile: Largest side of an image that is decoded in one piece, in pixels.
        card: What is known of the weights: data, licence, training, results.
    """

    kind = "autoencoder"
    dtype = torch.float32
    not_by_name: ClassVar[str] = "is half a prior: it has no denoiser of its codes"

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        net: Any,
        *,
        range: Range = (-1.0, 1.0),
        error: float | None = None,
        noise: Sequence[Sequence[float]] | None = None,
        spread: float | None = None,
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
        self.spread = spread
        self.noise = None if noise is None else tuple(map(tuple, noise))
        self.channels, self.factor = net.channels, net.factor
        self.register_buffer("mean", torch.zeros(1, net.code_channels, 1, 1))
        self.register_buffer("scale", torch.ones(1, net.code_channels, 1, 1))
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
        return (self._run(self.net.encode, x) - self.mean.to(x)) / self.scale.to(x)

    def decode(self, z: Tensor) -> Tensor:
        """Returns the image D(z), with shape (B, C, factor h, factor w).

        Args:
            z: Code, with shape (B, c, h, w).
        Raises:
            ValueError: It has other channels than a code.
        """
        raw = z * self.scale.to(z) + self.mean.to(z)
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
    def measured(self, images: Sequence[Tensor], *, scale: bool = True, seed: int = 0) -> Self:
        """Measures, in place, the scale of codes, the error of images and the noise of codes.

        Args:
            images: Batches of images that it may be trained on, each (B, C, H, W).
            scale: Whether to measure the scale; False where a denoiser of codes expects another.
            seed: Of the noise.
        Returns:
            The autoencoder.
        """
        if scale:
            self.mean.zero_()
            self.scale.fill_(1)
            mean = torch.stack([self.encode(x).double().mean((0, 2, 3)) for x in images]).mean(0)
            self.scale.copy_(self._gains(images, SCALED_AT, seed)[None, :, None, None])
            self.mean.copy_(mean[None, :, None, None])
        self.noise = tuple(tuple(self._gains(images, share, seed).tolist()) for share in LEVELS)
        self.spread = float(
            torch.stack([self.encode(x).double().square().mean() for x in images]).mean().sqrt()
        )
        squares = [(self(x) - x).double().square().mean() for x in images]
        self.error = float(torch.stack(squares).mean().sqrt())
        return self

    def _gains(self, images: Sequence[Tensor], share: float, seed: int) -> Tensor:
        """The noise of each channel of the code, relative to that of the image."""
        sigma = share * (self.range[1] - self.range[0])
        total = torch.zeros(self.net.code_channels, dtype=torch.float64)
        for k, x in enumerate(images):
            noise = randn_like(x, torch.Generator(x.device).manual_seed(seed + k))
            change = (self.encode(x + sigma * noise) - self.encode(x)).double()
            total += change.square().mean((0, 2, 3)).cpu() / len(images)
        return total.sqrt() / sigma

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
        parts = 1 if self.net.reach is None else -(-length * self.factor // self.tile)
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
        return name in ("mean", "scale")

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
        if not isinstance(self.net, ConvAutoencoder):
            raise TypeError(
                f"Autoencoder: the network is a {type(self.net).__name__}, not a ConvAutoencoder, "
                "which alone has a weight file"
            )
        return {
            "kind": self.kind,
            "autoencoder": self.net.config,
            "range": list(self.range),
            "code_error": self.error,
            "code_noise": None if self.noise is None else [list(row) for row in self.noise],
            "code_spread": self.spread,
        }

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Self:
        return cls(
            ConvAutoencoder(**card["autoencoder"]),
            range=tuple(card["range"]),
            error=card["code_error"],
            noise=card["code_noise"],
            spread=card["code_spread"],
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
