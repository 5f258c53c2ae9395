"""What a prior can do.

A prior is anything with the methods of one of the protocols below; nothing is inherited. A method
says which it needs, and `require` checks it once.
"""

from os import PathLike
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

__all__ = [
    "Denoiser",
    "Density",
    "Latent",
    "Posterior",
    "Proximable",
    "Range",
    "Restorer",
    "meaning",
    "require",
]

Range = tuple[float, float]


@runtime_checkable
class Denoiser(Protocol):
    """`denoise(v, sigma, condition=None)`, `range`, `dtype`: knows E[x | v = x + sigma n].

    The range is None where it takes images of any range.
    """

    @property
    def range(self) -> Range | None: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def denoise(
        self, v: Tensor, sigma: float | Tensor, condition: Tensor | None = None
    ) -> Tensor: ...


@runtime_checkable
class Proximable(Protocol):
    """`prox(v, tau)`: knows argmin_x tau g(x) + 1/2 ||x - v||^2."""

    def prox(self, v: Tensor, tau: float | Tensor) -> Tensor: ...


@runtime_checkable
class Density(Protocol):
    """`log_prob(x)`: knows its density, one number per item."""

    def log_prob(self, x: Tensor) -> Tensor: ...


@runtime_checkable
class Latent(Protocol):
    """`encode`, `decode`, `denoise_code(z, sigma)`, `code_noise`: knows images through a code.

    One code value belongs to `factor` pixels along an axis; images whose size is no multiple are
    extended inside `encode`, and what `decode` returns is as much larger. `error` is the root mean
    square of x - D(E(x)), in image units, and `code_noise(sigma)` the standard deviation of
    E(x + sigma n) - E(x).
    """

    @property
    def range(self) -> Range | None: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def factor(self) -> int: ...

    @property
    def error(self) -> float: ...

    def code_noise(self, sigma: float | Tensor) -> float | Tensor: ...

    def encode(self, x: Tensor) -> Tensor: ...

    def decode(self, z: Tensor) -> Tensor: ...

    def denoise_code(self, z: Tensor, sigma: float | Tensor) -> Tensor: ...


@runtime_checkable
class Posterior(Protocol):
    """`given(measurement)`, `range`, `dtype`: knows posteriors, as unfolded networks do."""

    @property
    def range(self) -> Range | None: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def given(self, measurement: Any) -> Denoiser: ...


@runtime_checkable
class Restorer(Protocol):
    """`restore(measurement)`, `range`, `dtype`: makes the image itself, as unfolded flows do."""

    @property
    def range(self) -> Range | None: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def restore(self, measurement: Any) -> Tensor: ...


_CAPABILITIES = (Denoiser, Proximable, Density, Latent, Posterior, Restorer)


def meaning(capability: type) -> str:
    """Return a capability in words: its name, and how its docstring begins."""
    words = (capability.__doc__ or "").partition("\n")[0].replace("`", "").rstrip(".")
    return f"a {capability.__name__} ({words})"


def require(
    prior: object, *capabilities: type, by: object, images: torch.dtype | None = None
) -> None:
    """Raise a `TypeError` unless a prior can do one of the things asked of it.

    Args:
        prior: The prior.
        capabilities: The protocols of which one is enough.
        by: The method that asks, for the message.
        images: The dtype of the images of the problem; a denoiser must be of their kind, real or
            complex.
    """
    name = type(by).__name__
    if isinstance(prior, type):
        raise TypeError(f"{name}: got the class {prior.__name__}, wanted a prior made of it")
    if not any(isinstance(prior, capability) for capability in capabilities):
        wanted = " or ".join(meaning(capability) for capability in capabilities)
        known = [c.__name__ for c in _CAPABILITIES if isinstance(prior, c)]
        what = f", which is a {' and a '.join(known)}" if known else ""
        door = "" if known else _door(prior)
        raise TypeError(f"{name}: got a {type(prior).__name__}{what}; wanted {wanted}{door}")
    if images is not None and isinstance(prior, Denoiser | Latent | Posterior | Restorer):
        if prior.dtype.is_complex != images.is_complex:
            kinds = ("real", "complex")
            raise TypeError(
                f"{name}: got a {type(prior).__name__} of {kinds[prior.dtype.is_complex]} images "
                f"for a measurement of {kinds[images.is_complex]} ones"
            )


def _door(thing: object) -> str:
    """Return how a prior is made of something that is none yet."""
    if isinstance(thing, str | PathLike):
        return f": measurand.load({str(thing)!r}) returns the prior that a name or a file holds"
    if callable(thing):
        return ": measurand.as_prior makes a denoiser of a function or a network of (v, sigma)"
    return ""
