r"""A normalizing flow as a prior: its density, and what its latents are like.

With an invertible f, its inverse g, and z = f(x) ~ N(0, I), an image of n pixels has the density

    log p(x) = -1/2 ||f(x)||^2 - n/2 log(2 pi) + log |det df/dx|     in nats, for x in [-1, 1].

For the proximal maps (`flow_prox`) a flow has a number per level and channel, kappa = the diagonal
of J^T J with J = dg/dz, because E (J^T e)_i^2 = kappa_i for white e in the image:
`FlowPrior.calibrate` averages over images, probes and positions.

References:
    | Deep Unfolding with Normalizing Flow Priors for Inverse Problems (Wei et al., 2022)
    | arXiv:2107.02848
    | Invertible Generative Models for Inverse Problems (Asim et al., 2020), arXiv:1905.11672
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, Self

import torch
from torch import Tensor, nn

from ..nets import Glow
from ..nets.unet import extend
from ..tensors import Generators, as_generators, from_channels, inner, randn_like, to_channels
from .flow_prox import FlowGain, packed
from .trained import Evaluation, Fitted, Images, Score, Trained, dtype_named, images_named

__all__ = [
    "Flow",
    "FlowPrior",
    "LatentMoments",
    "bits_of",
    "bits_per_dim",
    "dequantization",
    "flow_loss",
    "latent_moments",
]

Shape = tuple[int, ...]


class Flow(Protocol):
    """An invertible map between images and a list of standardised latents, such as `Glow`.

    Attributes:
        multiple: What the sides of an image are multiples of.
    """

    multiple: int

    def __call__(self, x: Tensor) -> tuple[list[Tensor], Tensor]: ...

    def inverse(self, latents: Sequence[Tensor]) -> Tensor: ...

    def latent_shapes(self, shape: Sequence[int]) -> Sequence[Shape]: ...


class FlowPrior(Trained):
    """The density of a flow.

    A `Density`; `FlowGain`, `FlowShrink`, `FlowMAP` and `ImageMAP` make a `Proximable` of
    it. Images are real, or complex with real and imaginary part a channel each to the flow.

    Args:
        flow: The map between images and latents.
        shape: Shape (C, H, W) of the images it was trained on, which is that of draws.
        dtype: `torch.complex64` where the images are complex.
        card: What is known of the weights: data, licence, training, results.
    """

    kind = "flow"
    not_by_name: ClassVar[str] = "is a network: name its weight file"

    def __init__(
        self,
        flow: Flow,
        *,
        shape: Shape,
        dtype: torch.dtype = torch.float32,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.flow, self.shape, self.dtype = flow, tuple(shape), dtype
        self.card = dict(card or {})
        self.latent_shapes = self.flow.latent_shapes(self._real_shape)
        for i, latent in enumerate(self.latent_shapes):
            self.register_buffer(f"kappa_{i}", torch.full(latent[:1], torch.nan))

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Channels of the images."""
        return self.shape[0]

    @property
    def _real_shape(self) -> Shape:
        return (self.shape[0] * (2 if self.dtype.is_complex else 1), *self.shape[1:])

    @property
    def kappa(self) -> list[Tensor]:
        """Mean squared change of the image by each latent channel, one tensor (C,) per level.

        Raises:
            ValueError: It has not been measured.
        """
        found = [self.get_buffer(f"kappa_{i}") for i in range(len(self.latent_shapes))]
        if bool(found[0].isnan().any()):
            raise ValueError("FlowPrior: kappa is not known; calibrate(images) measures it")
        return found

    def latents(self, x: Tensor) -> list[Tensor]:
        """The latents f(x), a tensor with shape (B, C, ...) per level."""
        return self.flow(self._real(x))[0]

    def image(self, latents: Sequence[Tensor]) -> Tensor:
        """The image g(z), with shape (B, C, H, W)."""
        x = self.flow.inverse(latents)
        return from_channels(x) if self.dtype.is_complex else x

    def log_prob(self, x: Tensor) -> Tensor:
        """The log-density of an image in [-1, 1], in nats, with shape (B,).

        Differentiable. The density is that of the pixel values; of complex ones, of both parts.
        """
        latents, logdet = self.flow(self._real(x))
        energy = torch.stack([inner(z, z) for z in latents]).sum(0)
        return logdet - energy / 2 - sum(z[0].numel() for z in latents) / 2 * math.log(2 * math.pi)

    def sample(
        self, n: int = 1, generator: Generators = None, *, temperature: float = 1.0
    ) -> Tensor:
        """Draws of the prior.

        Args:
            n: Number of draws.
            generator: One generator, one per item, or None for seed 0.
            temperature: Standard deviation of the latents; below 1, images of higher density.
        Returns:
            The draws, with shape (n, *shape).
        """
        sizes = [math.prod(latent) for latent in self.latent_shapes]
        like = self.get_buffer("kappa_0").new_empty(n, sum(sizes))
        noise = (temperature * randn_like(like, generator)).split(sizes, dim=1)
        with torch.no_grad():
            return self.image(
                [z.reshape(n, *s) for z, s in zip(noise, self.latent_shapes, strict=True)]
            )

    @torch.no_grad()
    def calibrate(self, x: Tensor, *, probes: int = 4, generator: Generators = None) -> None:
        """Measures kappa, by one vector-Jacobian product per probe.

        Args:
            x: Images to average over, with shape (B, C, H, W); 64 are enough.
            probes: Probes per image.
            generator: One generator, one per item, or None for seed 0.
        """
        latents, generator = self.latents(x), as_generators(generator, x)
        total = [torch.zeros_like(z[0]) for z in latents]
        for _ in range(probes):
            e = randn_like(self._real(x), generator)
            with torch.enable_grad():
                z = [level.detach().requires_grad_() for level in latents]
                pulled = torch.autograd.grad(self.flow.inverse(z), z, e)
            total = [t + p.square().mean(0) for t, p in zip(total, pulled, strict=True)]
        for i, t in enumerate(total):
            self.get_buffer(f"kappa_{i}").copy_(t.reshape(len(t), -1).mean(1) / probes)

    def through(self, v: Tensor, change: Callable[[list[Tensor]], list[Tensor]]) -> Tensor:
        """The image g(change(f(v))), for images of any size.

        Args:
            v: Image, with shape (B, C, H, W).
            change: Acts on the latents.
        Returns:
            The image, with the shape of `v`.
        """
        x = self.image(change(self.latents(self.extended(v))))
        return x[..., : v.shape[-2], : v.shape[-1]].to(v.dtype)

    def extended(self, v: Tensor) -> Tensor:
        """The image extended by reflection, at the bottom and the right, to what f divides."""
        return extend(v, self.flow.multiple)

    def _real(self, x: Tensor) -> Tensor:
        alike = x.is_complex() == self.dtype.is_complex and x.ndim == len(self.shape) + 1
        if not alike or x.shape[1] != self.shape[0]:
            kind = "complex" if self.dtype.is_complex else "real"
            raise ValueError(
                f"FlowPrior: got an image of shape {tuple(x.shape)} and {x.dtype}, wants {kind} "
                f"(B, {self.shape[0]}, H, W)"
            )
        return to_channels(x).to(self.get_buffer("kappa_0").dtype)

    @classmethod
    def example(cls) -> Self:
        """A tiny instance for images of shape (1, 8, 8), on which the laws are tested."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            flow, x = Glow(1, levels=2, steps=1, hidden=8), 0.5 * torch.randn(16, 1, 8, 8)
            for layer in flow.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.normal_(layer.weight, std=0.1)
        flow.initialize(x)
        prior = cls(flow, shape=(1, 8, 8))
        prior.calibrate(x)
        return prior

    def keeps(self, name: str, x: Tensor) -> bool:
        return x.ndim != 4  # all but the networks inside couplings

    def coded(self, name: str, x: Tensor) -> bool:
        return x.ndim == 4

    def to_card(self) -> dict[str, Any]:
        if not isinstance(self.flow, Glow):
            raise TypeError(
                f"FlowPrior: the flow is a {type(self.flow).__name__}, not a Glow, which alone "
                "has a weight file"
            )
        return {
            "kind": self.kind,
            "flow": self.flow.config,
            "shape": list(self.shape),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Self:
        shape = tuple(card["shape"])
        return cls(Glow(**card["flow"]), shape=shape, dtype=dtype_named(card["dtype"]))

    @classmethod
    def summary(cls, card: Mapping[str, Any]) -> str:
        bits = (card.get("held_out_bits") or {}).get("bits")
        good = "" if bits is None else f", {bits:.2f} bits per pixel value"
        return f"density of {images_named(card['shape'][0], card.get('dtype'))}{good}"

    def fitted(self, images: Images, *, tile: int = 1024, name: str = "") -> Fitted:
        self.matched(images, name, grey=False)
        words = f"proximal map of {name} by one Gauss-Newton step in its latents"
        return Fitted(FlowGain(self), [words])

    def remarks(self, measurement: Any, x: Tensor) -> dict[str, float]:
        """Returns the bits per pixel value of the image: how usual it is, far off is a sign."""
        if min(x.shape[2:]) < self.flow.multiple:  # a narrower image has no density
            return {}
        with torch.no_grad():
            return {"bits": float(bits_of(self, x).mean())}

    def quality(self, on: Evaluation) -> list[Score]:
        def bits(x: Tensor, generator: torch.Generator) -> Tensor:
            return bits_of(self, x + dequantization(x, generator))

        return on.each("bits", "bits per pixel value of the images, with a little noise", bits)


class LatentMoments(NamedTuple):
    """What the latents of images look like; of a standard normal 0, 1, 3 and 1.

    Attributes:
        mean: Their mean.
        variance: Their variance.
        kurtosis: Their fourth central moment over the square of the variance.
        energy: `||z||^2 / n` of each image, with shape (B,).
    """

    mean: float
    variance: float
    kurtosis: float
    energy: Tensor


@torch.no_grad()
def latent_moments(prior: FlowPrior, x: Tensor) -> LatentMoments:
    """The moments of the latents of images: whether the flow is still a density of them.

    Args:
        prior: The flow.
        x: Images, with shape (B, C, H, W).
    """
    z = packed(prior.latents(x)).double()
    mean, variance = z.mean(), z.var(correction=0)
    kurtosis = ((z - mean) ** 4).mean() / variance**2
    return LatentMoments(float(mean), float(variance), float(kurtosis), z.square().mean(1))


def bits_per_dim(log_prob: Tensor, n: int, *, bits: int = 8) -> Tensor:
    """The code length of images in bits per pixel value, with shape (B,).

        -log_2(p(x) w^n) / n,    w = 2 / (2^bits - 1),

    where w is the distance of neighbours among the `2^bits` values that a pixel in [-1, 1] has.

    Args:
        log_prob: Log-density of dequantised images, in nats, with shape (B,).
        n: Number of pixel values of an image.
        bits: Bit depth of the images.
    """
    return -log_prob / (n * math.log(2)) - math.log2(2 / (2**bits - 1))


def bits_of(prior: FlowPrior, x: Tensor) -> Tensor:
    """The code length of images of any size in bits per pixel value, with shape (B,).

    Args:
        prior: The density; its flow halves images several times.
        x: Images, with shape (B, C, H, W); edges that the flow cannot halve are left out.
    Raises:
        ValueError: A side is so short that nothing would be left.
    """
    multiple = prior.flow.multiple
    if min(x.shape[-2:]) < multiple:
        raise ValueError(
            f"bits_of: got images of {x.shape[-2]} x {x.shape[-1]} pixels, wants at least "
            f"{multiple} x {multiple}, which the flow halves"
        )
    height, width = (n // multiple * multiple for n in x.shape[-2:])
    x = x[..., :height, :width]
    return bits_per_dim(prior.log_prob(x), to_channels(x)[0].numel())


def dequantization(
    x: Tensor, generator: Generators = None, *, bits: int = 8, sigma: float = 0.02
) -> Tensor:
    """The noise that makes pixels of few values continuous: uniform over a value, and Gaussian.

    Args:
        x: Images in [-1, 1], with shape (B, ...).
        generator: One generator, one per item, or None for seed 0.
        bits: Bit depth of the images.
        sigma: Standard deviation of the Gaussian part, which bounds the Jacobian of the flow and
            shows it images that are slightly noisy.
    Returns:
        The noise, with the shape of `x`.
    """
    generator = as_generators(generator, x)
    # a normal's distribution function of a normal is uniform
    normal, other = randn_like(x, generator), randn_like(x, generator)
    uniform = torch.special.ndtr(to_channels(other)) - 0.5
    if x.is_complex():
        uniform = from_channels(uniform)
    return uniform * (2 / (2**bits - 1)) + sigma * normal


def flow_loss(prior: FlowPrior, batch: Mapping[str, Tensor], *, bits: int = 8) -> Tensor:
    """The bits per pixel value of each item, with shape (B,).

    Args:
        prior: The flow.
        batch: "x" images (B, C, H, W) in [-1, 1], and "noise", as `dequantization` draws it.
        bits: Bit depth of the images.
    """
    x = batch["x"] + batch["noise"]
    return bits_per_dim(prior.log_prob(x), to_channels(x)[0].numel(), bits=bits)
