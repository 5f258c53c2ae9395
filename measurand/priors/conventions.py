r"""Denoisers made from the networks that people train.

Every diffusion network knows the denoiser `D(v, sigma)` under a convention of its own. A *process*
says which scaled image `x_t = c v` it sees and which time t it is told, and a *prediction* what it
returns.

    process         c                       t                        networks
    TableVP         1/sqrt(1 + sigma^2)     index into abar_t        DDPM, ADM, diffusers
    LinearVP        1/sqrt(1 + sigma^2)     of sigma, in closed form score SDE
    VE              1                       sigma                    NCSN, EDM
    Straight        1/(1 + sigma)           sigma/(1 + sigma)        rectified flow

    prediction      network returns         D(v, sigma)
    FromNoise       E[n | x_t]              v - sigma network
    FromScore       grad log p(x_t)         v + c sigma^2 network
    FromImage       E[x | x_t]              network
    FromVelocity    E[c n - c sigma x | x_t]    c (c v - sigma network)     (VP only)
    FromFlow        E[n - x | x_t]          c v - t network             (Straight only)

An EDM network is `FromImage(network, VE())`. An adapter works in the value range and the kind
(real, complex) that its network was trained on and says so in `range` and `dtype`. Complex images
become two real channels at the door of the network and nowhere else.

Deviations from the code of the paper: the correction is added to v (there: to `c v`, an error of
`(1 - c) v`), and the range of a network belongs to the object (there: a [-1, 1] network sees
[0, 1] images). The level of a time is looked up without memory of the last one, per item.

References:
    | Plug-and-Play Priors as a Score-Based Method (Park et al., 2025), arXiv:2412.11108
    | Score-Based Generative Modeling through SDEs (Song et al., 2021), arXiv:2011.13456
    | Flow Straight and Fast (Liu et al., 2023), arXiv:2209.03003
"""

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from ..tensors import from_channels, per_item, to_channels
from .brief import brief, one_line
from .capabilities import Range
from .denoiser import check_kind

__all__ = [
    "FromFlow",
    "FromImage",
    "FromNoise",
    "FromScore",
    "FromVelocity",
    "LinearVP",
    "Straight",
    "TableVP",
    "VE",
]


class Process(Protocol):
    """The scale c and the time t that belong to a level sigma."""

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest level."""
        ...

    def scale(self, sigma: Tensor) -> Tensor:
        """The scale c, with the shape of `sigma`."""
        ...

    def time(self, sigma: Tensor) -> Tensor:
        """The time t, with the shape of `sigma`."""
        ...


class TableVP(nn.Module):
    """A discrete variance preserving process; its times are fractional indices into a table.

    `sigma_t = sqrt((1 - abar_t) / abar_t)`, interpolated linearly in log sigma between indices.

    Args:
        alphas_bar: The cumulative products abar_t, decreasing in (0, 1), with shape (T,); a last
            entry of 0 (no signal left) is left out.
        rounded: Tell whole indices, for networks with a table of time embeddings.
    """

    log_sigmas: Tensor

    def __init__(self, alphas_bar: Tensor, *, rounded: bool = False) -> None:
        super().__init__()
        abar = torch.as_tensor(alphas_bar, dtype=torch.float64).flatten()
        abar = abar[: int((abar > 0).sum())]
        if len(abar) < 2 or not bool((abar.diff() < 0).all() and abar[0] < 1):
            raise ValueError("TableVP: wanted at least two decreasing values of abar in (0, 1)")
        self.rounded = rounded
        self.register_buffer("log_sigmas", ((1 - abar) / abar).log() / 2, persistent=False)

    @classmethod
    def linear(
        cls,
        beta_min: float = 1e-4,
        beta_max: float = 2e-2,
        n: int = 1000,
        *,
        rounded: bool = False,
    ) -> "TableVP":
        """The schedule of DDPM, with n values of beta on a line."""
        betas = torch.linspace(beta_min, beta_max, n, dtype=torch.float64)
        return cls(torch.cumprod(1 - betas, 0), rounded=rounded)

    @property
    def limits(self) -> tuple[float, float]:
        return math.exp(float(self.log_sigmas[0])), math.exp(float(self.log_sigmas[-1]))

    def scale(self, sigma: Tensor) -> Tensor:
        return (1 + sigma**2).rsqrt()

    def time(self, sigma: Tensor) -> Tensor:
        table = self.log_sigmas.to(torch.float64)
        log_sigma = sigma.to(torch.float64).log()
        i = torch.searchsorted(table, log_sigma.contiguous()).clamp(1, len(table) - 1)
        t = i - 1 + (log_sigma - table[i - 1]) / (table[i] - table[i - 1])
        t = t.clamp(0, len(table) - 1)
        return t.round() if self.rounded else t

    def sigma(self, t: Tensor) -> Tensor:
        """The level of an index: the inverse of `time`, in float64."""
        table, t = self.log_sigmas.to(torch.float64), t.to(torch.float64)
        i = t.floor().long().clamp(0, len(table) - 2)
        return torch.lerp(table[i], table[i + 1], t - i).exp()


class LinearVP(nn.Module):
    """The continuous variance preserving process, `sigma^2 = exp(beta_d t^2/2 + beta_min t) - 1`.

    Args:
        beta_min: Rate at t = 0.
        beta_max: Rate at t = 1; `beta_d = beta_max - beta_min`.
        factor: The network is told `factor t`: 1, or M - 1 for an index among M.
    """

    def __init__(
        self, beta_min: float = 0.1, beta_max: float = 20.0, *, factor: float = 1.0
    ) -> None:
        super().__init__()
        self.beta_min, self.beta_d, self.factor = beta_min, beta_max - beta_min, factor

    @property
    def limits(self) -> tuple[float, float]:
        ends = self.sigma(torch.tensor([1e-5, 1.0], dtype=torch.float64) * self.factor)
        return float(ends[0]), float(ends[1])

    def scale(self, sigma: Tensor) -> Tensor:
        return (1 + sigma**2).rsqrt()

    def time(self, sigma: Tensor) -> Tensor:
        log = torch.log1p(sigma.to(torch.float64) ** 2)
        root = (self.beta_min**2 + 2 * self.beta_d * log).sqrt()
        # (root - beta_min) / beta_d, without its cancellation at small levels
        return self.factor * 2 * log / (root + self.beta_min)

    def sigma(self, t: Tensor) -> Tensor:
        """The level of a time: the inverse of `time`, in float64."""
        t = t.to(torch.float64) / self.factor
        return torch.expm1(t * (self.beta_d * t / 2 + self.beta_min)).sqrt()


class VE(nn.Module):
    """The variance exploding process: the network sees v itself and is told sigma.

    Args:
        sigma_min: Smallest level the network knows.
        sigma_max: Largest level the network knows.
    """

    def __init__(self, sigma_min: float = 0.0, sigma_max: float = math.inf) -> None:
        super().__init__()
        self.limits = (sigma_min, sigma_max)

    def scale(self, sigma: Tensor) -> Tensor:
        return torch.ones_like(sigma)

    def time(self, sigma: Tensor) -> Tensor:
        return sigma


class Straight(nn.Module):
    """The straight path from image to noise, `x_t = (1 - t) x + t n`.

    Args:
        factor: The network is told `factor t`: 1, or 1000.
    """

    def __init__(self, *, factor: float = 1.0) -> None:
        super().__init__()
        self.factor, self.limits = factor, (0.0, math.inf)

    def scale(self, sigma: Tensor) -> Tensor:
        return 1 / (1 + sigma)

    def time(self, sigma: Tensor) -> Tensor:
        return self.factor * sigma / (1 + sigma)


class _Adapter(nn.Module, ABC):
    """The door of a network: kind, precision, channels and limits are settled here."""

    not_by_name: ClassVar[str] = (
        "is made of a network: use it in Python, or name the file of weights that were saved"
    )

    def __init__(
        self,
        network: Callable[..., Tensor],
        process: Process,
        *,
        range: Range | None = (-1.0, 1.0),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.network, self.process, self.range, self.dtype = network, process, range, dtype

    @abstractmethod
    def estimate(self, v: Tensor, c: Tensor, sigma: Tensor, out: Tensor) -> Tensor:
        """The estimate D, from the noisy image, its scale, its level and the network's output."""

    def denoise(self, v: Tensor, sigma: float | Tensor, condition: Tensor | None = None) -> Tensor:
        """The estimate `E[x | v = x + sigma n]`.

        A level that the network does not know is moved to the nearest one, with a warning.

        Args:
            v: Noisy image, with shape (B, C, ...), in the range and of the kind of this object.
            sigma: Noise standard deviation, a scalar or one per item.
            condition: What the network may also see; complex channels as two real ones.
        Returns:
            The estimate, with the shape and dtype of `v`.
        """
        check_kind(self, v)
        x = to_channels(v)
        sigma = self._known(per_item(sigma, x).expand(len(x), *[1] * (x.ndim - 1)))
        c = self.process.scale(sigma)
        out = self._call(c * x, self.process.time(sigma.reshape(-1)), condition)
        x_hat = self.estimate(x, c, sigma, out)
        return from_channels(x_hat) if v.is_complex() else x_hat

    forward = denoise
    __repr__ = one_line

    def extra_repr(self) -> str:
        named = "" if isinstance(self.network, nn.Module) else f"{brief(self.network)}, "
        return f"{named}range={self.range}"

    def _call(self, x: Tensor, t: Tensor, condition: Tensor | None) -> Tensor:
        """The network's output in the precision of `x`; its own precision stays inside."""
        own = next(_parameters(self.network), x).dtype
        seen = (x.to(own), t.to(torch.promote_types(own, torch.float32)))
        given = () if condition is None else (to_channels(condition),)
        out = self.network(*seen, *given)
        channels = x.shape[1]
        if out.shape[1] == 2 * channels:  # the second half is a learned variance
            out = out[:, :channels]
        return out.to(x.dtype)

    def _known(self, sigma: Tensor) -> Tensor:
        low, high = self.process.limits
        if bool(((sigma < low * (1 - 1e-6)) | (sigma > high * (1 + 1e-6))).any()):
            warnings.warn(
                f"{type(self).__name__}: asked for levels from {float(sigma.min()):.4g} to "
                f"{float(sigma.max()):.4g}; the network knows {low:.4g} to {high:.4g}, the "
                "nearest one is used",
                stacklevel=3,
            )
        return sigma.clamp(low, high)


class FromNoise(_Adapter):
    """A denoiser from a network that predicts the noise.

    Args:
        network: Called as `network(c v, t)`, with t of shape (B,), or with the condition as a
            third argument; of twice the channels (a learned variance), the first half is used.
        process: Its process, for instance `TableVP.linear()`.
        range: The values that its images have; None where it takes any.
        dtype: `torch.complex64` where its images are complex, seen as two real channels.
    """

    def estimate(self, v: Tensor, c: Tensor, sigma: Tensor, out: Tensor) -> Tensor:
        return v - sigma * out

    @classmethod
    def example(cls) -> Self:
        """A tiny instance for images of shape (1, 8, 8), on which the laws are tested."""
        return cls(_normal_noise, VE())


class FromScore(_Adapter):
    """A denoiser from a network that predicts the score; arguments as for `FromNoise`."""

    def estimate(self, v: Tensor, c: Tensor, sigma: Tensor, out: Tensor) -> Tensor:
        return v + c * sigma**2 * out

    @classmethod
    def example(cls) -> Self:
        return cls(_normal_score, VE())


class FromImage(_Adapter):
    """A denoiser from a network that predicts the image; arguments as for `FromNoise`."""

    def estimate(self, v: Tensor, c: Tensor, sigma: Tensor, out: Tensor) -> Tensor:
        return out

    @classmethod
    def example(cls) -> Self:
        return cls(_normal_image, VE())


class FromVelocity(_Adapter):
    """A denoiser from a network that predicts `sqrt(abar) n - sqrt(1 - abar) x` of a VP process.

    Arguments as for `FromNoise`.
    """

    def estimate(self, v: Tensor, c: Tensor, sigma: Tensor, out: Tensor) -> Tensor:
        return c * (c * v - sigma * out)  # sqrt(1 - abar) = c sigma

    @classmethod
    def example(cls) -> Self:
        return cls(_normal_velocity, LinearVP())


class FromFlow(_Adapter):
    """A denoiser from a rectified flow, a network that predicts `n - x` on the `Straight` path.

    Of a network with the image at t = 1, pass `lambda x, t: -network(x, 1 - t)`. Arguments as for
    `FromNoise`.
    """

    def estimate(self, v: Tensor, c: Tensor, sigma: Tensor, out: Tensor) -> Tensor:
        return c * (v - sigma * out)  # t = c sigma

    @classmethod
    def example(cls) -> Self:
        return cls(_normal_flow, Straight())


def _parameters(network: object) -> Iterator[Tensor]:
    return network.parameters() if isinstance(network, nn.Module) else iter(())


# Networks of pixels of standard deviation 1/2 under each convention, for examples.


def _normal_image(v: Tensor, sigma: Tensor) -> Tensor:
    return v / (1 + 4 * per_item(sigma, v) ** 2)


def _normal_noise(v: Tensor, sigma: Tensor) -> Tensor:
    return (v - _normal_image(v, sigma)) / per_item(sigma, v)


def _normal_score(v: Tensor, sigma: Tensor) -> Tensor:
    return -v / (0.25 + per_item(sigma, v) ** 2)


def _normal_velocity(x_t: Tensor, t: Tensor) -> Tensor:
    sigma = LinearVP().sigma(t)
    c = per_item((1 + sigma**2).rsqrt(), x_t)
    v = x_t / c
    x_hat = _normal_image(v, sigma)
    return c * (v - x_hat) / per_item(sigma, v) - c * per_item(sigma, v) * x_hat


def _normal_flow(x_t: Tensor, t: Tensor) -> Tensor:
    sigma = t / (1 - t)
    v = x_t * (1 + per_item(sigma, x_t))
    x_hat = _normal_image(v, sigma)
    return (v - x_hat) / per_item(sigma, v) - x_hat
