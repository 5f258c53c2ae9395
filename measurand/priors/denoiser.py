r"""Denoisers around denoisers, and denoisers made of functions.

The denoiser of level sigma is the mean of the clean image given a noisy one (Tweedie),

    D(v, sigma) = E[x | v],   v = x + sigma n;   score(v) = grad log p_sigma(v) = (D - v)/sigma^2

in the value range and of the kind (real, complex) that it declares. `CallableDenoiser` makes one
from a function, `conventions.py` from the networks that people train. Around a denoiser go
`Rescaled` (another value range), `Tiled` (large images), `Conditioned` (what it may see besides
the noisy image) and `Counted` (how often it was asked).

References:
    | Plug-and-Play Priors as a Score-Based Method (Park et al., 2025), arXiv:2412.11108
"""

import math
from collections.abc import Callable
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from ..tensors import per_item
from .brief import brief, one_line
from .capabilities import Denoiser, Range

__all__ = ["CallableDenoiser", "check_kind", "check_level", "score"]


def score(prior: Denoiser, v: Tensor, sigma: float | Tensor) -> Tensor:
    """The score `grad log p_sigma(v) = (D(v, sigma) - v) / sigma^2`, with the shape of `v`."""
    return (prior.denoise(v, sigma) - v) / per_item(sigma, v) ** 2


def check_kind(prior: Denoiser, v: Tensor) -> None:
    """Raise a `ValueError` unless images are floating-point and of the prior's kind."""
    if v.is_complex() != prior.dtype.is_complex:
        raise ValueError(
            f"{type(prior).__name__}: got images of {v.dtype}, wanted the kind of {prior.dtype}"
        )
    if not (v.is_complex() or v.is_floating_point()):
        ends = "" if prior.range is None else f" in [{prior.range[0]:g}, {prior.range[1]:g}]"
        raise ValueError(
            f"{type(prior).__name__}: got images of {v.dtype}, wanted floating-point values{ends}"
        )


def check_level(prior: Denoiser, sigma: float | Tensor) -> None:
    """Raise a `ValueError` unless a noise level is finite and not negative.

    Levels on an accelerator are looked at where no gradients are asked for (each look waits for
    it, which would slow down training), and none are while a graph is traced.
    """
    if isinstance(sigma, Tensor):
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or sigma.is_complex():
            return
        if sigma.is_cuda and (torch.is_grad_enabled() or torch.cuda.is_current_stream_capturing()):
            return
        good = bool(((sigma >= 0) & torch.isfinite(sigma)).all())
    else:
        good = 0 <= sigma < math.inf
    if not good:
        raise ValueError(
            f"{type(prior).__name__}: got sigma {sigma}, wanted a finite noise level >= 0"
        )


class CallableDenoiser(nn.Module):
    """A denoiser from any function of a noisy image and its level.

    Args:
        function: Called as `function(v, sigma)`, both as the method has them (sigma a number or a
            tensor, images real or complex), or with the condition as a third argument.
        range: The values that its images have; None where it takes any.
        dtype: `torch.complex64` where its images are complex.
    """

    not_by_name: ClassVar[str] = "is made of a function: use it in Python"

    def __init__(
        self,
        function: Callable[..., Tensor],
        *,
        range: Range | None = (-1.0, 1.0),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.function, self.range, self.dtype = function, range, dtype

    def denoise(self, v: Tensor, sigma: float | Tensor, condition: Tensor | None = None) -> Tensor:
        """The function's value."""
        check_kind(self, v)
        check_level(self, sigma)
        return self.function(v, sigma) if condition is None else self.function(v, sigma, condition)

    forward = denoise
    __repr__ = one_line

    def extra_repr(self) -> str:
        named = "" if isinstance(self.function, nn.Module) else f"{brief(self.function)}, "
        return f"{named}range={self.range}"

    @classmethod
    def example(cls) -> Self:
        """A tiny instance for images of shape (1, 8, 8), on which the laws are tested."""
        return cls(of_normal)


def of_normal(v: Tensor, sigma: float | Tensor, mean: float | Tensor = 0.0) -> Tensor:
    """The denoiser of pixels of standard deviation 1/2, for examples."""
    return mean + (v - mean) / (1 + 4 * per_item(sigma, v) ** 2)
