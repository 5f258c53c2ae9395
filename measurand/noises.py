r"""Noise models: how a measurement scatters around its mean `m = A x`.

    Gaussian          y = m + sigma n                      nll = ||y - m||^2 / (2 sigma^2)
    ComplexGaussian   y = m + sigma (n1 + i n2)            nll = ||y - m||^2 / (2 sigma^2)
    Poisson           y ~ gain Poisson((m + b) / gain)     nll = sum (m + b - y log(m + b)) / gain

`sigma` is a standard deviation in the units of y, per real component. Negative log-likelihoods
leave out what does not depend on x. A noise called on a mean draws a measurement.
"""

import math
import warnings
from abc import ABC, abstractmethod
from typing import Self

import torch
from torch import Tensor, nn

from .noise_estimate import noise_seen
from .tensors import Generators, as_generators, inner, per_item, randn_like

__all__ = ["ComplexGaussian", "Gaussian", "Noise", "Poisson", "estimate_sigma", "prewhiten"]


class Noise(nn.Module, ABC):
    """A distribution of measurements around their mean."""

    @abstractmethod
    def forward(self, mean: Tensor, generator: Generators = None) -> Tensor:
        """A measurement drawn around `mean`, with its shape (B, ...)."""

    @abstractmethod
    def check_data(self, y: Tensor) -> None:
        """Raise a `ValueError` unless the noise can be that of data with shape (B, ...)."""

    @abstractmethod
    def nll(self, mean: Tensor, y: Tensor) -> Tensor:
        """The negative log-likelihood of `y` given its mean, with shape (B,)."""

    @abstractmethod
    def gradient(self, mean: Tensor, y: Tensor) -> Tensor:
        """The derivative of `nll` with respect to the mean, with the shape of `mean`."""

    @abstractmethod
    def scaled(self, factor: float) -> "Noise":
        """The noise of `factor y`."""

    @abstractmethod
    def repeat(self, n: int) -> "Noise":
        """The noise of a batch in which every item stands `n` times in a row."""

    @abstractmethod
    def __getitem__(self, i: slice) -> "Noise":
        """The noise of some items of the batch."""


class Gaussian(Noise):
    """White Gaussian noise, `y = m + sigma n`.

    Args:
        sigma: Standard deviation in the units of y, a scalar or one per item; 0 means no noise,
            and then there is no likelihood.
    """

    sigma: Tensor

    def __init__(self, sigma: float | Tensor) -> None:
        super().__init__()
        sigma = torch.as_tensor(sigma, dtype=torch.get_default_dtype())
        if sigma.ndim > 1 or not bool((sigma >= 0).all() and sigma.isfinite().all()):
            raise ValueError(
                f"{type(self).__name__}: got sigma = {sigma.tolist()}, wanted finite standard "
                "deviations >= 0, one or one per item"
            )
        self.register_buffer("sigma", sigma)
        self.noise_free = bool((sigma == 0).any())  # once: on a GPU the question costs a wait

    def forward(self, mean: Tensor, generator: Generators = None) -> Tensor:
        self._check(mean)
        return mean + per_item(self.sigma, mean) * randn_like(mean, generator)

    def check_data(self, y: Tensor) -> None:
        if self.sigma.numel() not in (1, len(y)):
            raise ValueError(
                f"{self}: got {self.sigma.numel()} standard deviations for {len(y)} items, wanted "
                "one, or one per item"
            )

    def nll(self, mean: Tensor, y: Tensor) -> Tensor:
        self._check_noisy("nll")
        difference = mean - y
        return inner(difference, difference) / (2 * self.sigma**2)

    def gradient(self, mean: Tensor, y: Tensor) -> Tensor:
        self._check_noisy("gradient")
        return (mean - y) / per_item(self.sigma, mean) ** 2

    def scaled(self, factor: float) -> Self:
        return type(self)(self.sigma * abs(factor))

    def repeat(self, n: int) -> Self:
        return type(self)(
            self.sigma.repeat_interleave(n) if _length(self.sigma) > 1 else self.sigma
        )

    def __getitem__(self, i: slice) -> Self:
        return type(self)(self.sigma[i] if _length(self.sigma) > 1 else self.sigma)

    def _check_noisy(self, asked: str) -> None:
        if self.noise_free:
            raise ValueError(
                f"{self}.{asked}: got sigma = 0, wanted a positive one: data without noise "
                "have no likelihood, they have `Measurement.prox` (HQS, ADMM); or say a small "
                "noise, Gaussian(sigma=0.01)"
            )

    def _check(self, mean: Tensor) -> None:
        if mean.is_complex():
            raise ValueError(
                "Gaussian: got a complex mean, wanted a real one; use ComplexGaussian"
            )

    def extra_repr(self) -> str:
        return f"sigma={self.sigma.tolist()}"


class ComplexGaussian(Gaussian):
    """White complex Gaussian noise, `y = m + sigma (n1 + i n2)`.

    Args:
        sigma: Standard deviation of the real and of the imaginary part, each.
    """

    def _check(self, mean: Tensor) -> None:
        if not mean.is_complex():
            raise ValueError(
                "ComplexGaussian: got a real mean, wanted a complex one; use Gaussian"
            )


class Poisson(Noise):
    """Counting noise, `y ~ gain Poisson((m + background) / gain)`.

    Args:
        gain: What one count is worth in the units of y.
        background: Known mean of counts that do not come from the image, in the units of y: a
            number, or a tensor that broadcasts against y and has as many axes, with shape
            (1 or B, ...).
    """

    background: Tensor

    def __init__(self, gain: float = 1.0, background: float | Tensor = 0.0) -> None:
        super().__init__()
        if not (math.isfinite(gain) and gain > 0):
            raise ValueError(f"Poisson: got gain = {gain}, wanted a positive number")
        background = torch.as_tensor(background, dtype=torch.get_default_dtype())
        if not bool(((background >= 0) & background.isfinite()).all()):
            raise ValueError(
                "Poisson: got a background with negative or non-finite values, wanted finite ones "
                ">= 0"
            )
        self.gain = gain
        self.register_buffer("background", background)

    def rate(self, mean: Tensor) -> Tensor:
        """The expected measurement, `max(m, 0) + background`."""
        self.check_data(mean)
        return mean.clamp_min(0) + self.background

    def forward(self, mean: Tensor, generator: Generators = None) -> Tensor:
        generator = as_generators(generator, mean)
        counts = self.rate(mean) / self.gain
        if isinstance(generator, torch.Generator):
            return self.gain * torch.poisson(counts, generator)
        drawn = [torch.poisson(c, g) for c, g in zip(counts, generator, strict=True)]
        return self.gain * torch.stack(drawn)

    def check_data(self, y: Tensor) -> None:
        # with fewer axes, an axis of the image could be taken for that of the batch
        own, whole = self.background.shape, y.shape
        if own and not (
            len(own) == len(whole)
            and all(n in (1, wanted) for n, wanted in zip(own, whole, strict=True))
        ):
            raise ValueError(
                f"Poisson: got a background with shape {tuple(own)} for data with shape "
                f"{tuple(whole)}, wanted a number, or shape (1 or {len(y)}, "
                f"{', '.join(map(str, whole[1:]))}): `background[None]` is one for all items"
            )

    def nll(self, mean: Tensor, y: Tensor) -> Tensor:
        rate = self.rate(mean)
        return (rate - torch.xlogy(y, rate)).flatten(1).sum(1) / self.gain

    def gradient(self, mean: Tensor, y: Tensor) -> Tensor:
        rate = self.rate(mean)
        return (1 - y / rate.clamp_min(torch.finfo(rate.dtype).tiny)) / self.gain

    def scaled(self, factor: float) -> "Poisson":
        return Poisson(self.gain * factor, self.background * factor)

    def repeat(self, n: int) -> "Poisson":
        own = self.background
        return Poisson(self.gain, own.repeat_interleave(n, 0) if _length(own) > 1 else own)

    def __getitem__(self, i: slice) -> "Poisson":
        return Poisson(
            self.gain, self.background[i] if _length(self.background) > 1 else self.background
        )

    def extra_repr(self) -> str:
        return f"gain={self.gain}, background of shape {tuple(self.background.shape)}"


def _length(t: Tensor) -> int:
    """The leading size of a tensor that may be a scalar."""
    return len(t) if t.ndim else 1


def estimate_sigma(y: Tensor) -> Tensor:
    """The standard deviation of white noise in an image, from its finest details.

    Taken where the image is flattest, apart from borders that are constant and from what is
    clipped (see `noise_estimate`). It is good to a few percent where noise is visible. What makes
    it doubtful (correlated noise, JPEG, texture everywhere) is said in a warning;
    `noise_estimate.noise_seen` returns the doubts instead. Per real component for complex images.

    Args:
        y: Images, with shape (B, C, H, W), at least 2 pixels high and wide.
    Returns:
        One estimate per item, with shape (B,).
    """
    sigma, doubts = noise_seen(y)
    for doubt in doubts:
        warnings.warn(f"estimate_sigma: {doubt}", stacklevel=2)
    return sigma


def prewhiten(y: Tensor, samples: Tensor) -> Tensor:
    """Multi-channel data with channel-correlated noise, made white: `L^-1 y` with `L L^H = Psi`.

    Psi is the covariance of the noise between channels (per real component), estimated from
    samples of pure noise. The same map belongs on the coil sensitivities (pass them as `y`).

    Args:
        y: Data, with shape (B, C, ...).
        samples: Noise alone, with shape (C, N), N well above C.
    Returns:
        Data whose noise has unit variance per real component and no correlation.
    """
    centered = samples - samples.mean(1, keepdim=True)
    psi = centered @ centered.mH / (samples.shape[1] - 1)
    if samples.is_complex():
        psi = psi / 2
    lower = torch.linalg.cholesky(psi)
    flat = torch.linalg.solve_triangular(lower, y.flatten(2), upper=False)
    return flat.reshape(y.shape)
