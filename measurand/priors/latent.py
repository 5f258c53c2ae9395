r"""Latent priors: images through their codes, and a denoiser of codes.

With an `Autoencoder` of encoder E and decoder D, a prior of images is one of codes,

    z = E(x),    f(z, s) = E[z given z + s n],    n standard normal,

with f an `EDMDenoiser` of as many channels as the code. `codes.CodedImages` makes it fit grey
images and other ranges.

References:
    | High-Resolution Image Synthesis with Latent Diffusion Models (Rombach et al., 2022)
    | arXiv:2112.10752
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022)
    | arXiv:2206.00364
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..nets import ConvUNet
from .autoencoder import Autoencoder
from .codes import CodedImages
from .edm import EDMDenoiser
from .trained import Evaluation, Fitted, Images, Score, Trained, images_named

__all__ = ["LatentPrior", "code_denoiser"]


class LatentPrior(Trained):
    """A `Latent`: images through their codes, and a denoiser of codes.

    Args:
        autoencoder: Makes codes of images, and images of codes; its `error` and the noise of its
            codes are known.
        denoiser: Denoiser of codes; an `EDMDenoiser`, or another one, which has no weight file.
        card: What is known of the weights: data, licence, training, results.
    """

    kind = "latent"
    not_by_name: ClassVar[str] = "is a network: name its weight file"

    def __init__(
        self, autoencoder: Autoencoder, denoiser: Any, *, card: Mapping[str, Any] | None = None
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
        return nn.ModuleList([self.autoencoder.net, self.denoiser])

    def keeps(self, name: str, x: Tensor) -> bool:
        part, _, inside = name.partition(".")
        return part == "autoencoder" and self.autoencoder.keeps(inside, x)

    def coded(self, name: str, x: Tensor) -> bool:
        part, _, inside = name.partition(".")
        if part == "autoencoder":
            return self.autoencoder.coded(inside, x)
        return self.denoiser.coded(inside.removeprefix("net."), x)

    def to_card(self) -> dict[str, Any]:
        if not isinstance(self.denoiser, EDMDenoiser):
            raise TypeError(
                f"LatentPrior: the denoiser is a {type(self.denoiser).__name__}, not an "
                "EDMDenoiser, which alone has a weight file"
            )
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
            prior = CodedImages(self, images.range, channels=self.channels if grey else None)
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
        code = Autoencoder.example()
        return cls(code, code_denoiser(net, code.spread or 1.0))


def code_denoiser(net: ConvUNet, spread: float) -> EDMDenoiser:
    """Returns the denoiser of codes of a standard deviation that a network makes."""
    reach = 4 * spread
    return EDMDenoiser(net, channels=net.in_channels, sigma_data=spread, range=(-reach, reach))
