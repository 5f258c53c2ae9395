r"""What users bring: operators and denoisers of their own or of other libraries.

`as_operator` takes a pair of functions, one function, a matrix, or an operator of scipy, sigpy or
DeepInverse, and `as_prior` a function, a network or a folder of `diffusers`. Both look at what
they made before they return it, with random images: an adjoint has to satisfy

    Re<A u, w> = Re<u, A^H w>

and a map to be linear, a denoiser has to return finite images of the shape and kind that it got.
"""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .checks.laws import adjoint_error, linearity_error
from .operators import AutogradOperator, FunctionOperator, LinearOperator, ScipyOperator
from .priors import CallableDenoiser, Denoiser, from_diffusers
from .priors.brief import brief
from .tensors import generators, randn_like

__all__ = ["as_operator", "as_prior"]

Action = Callable[[Tensor], Tensor]

LIMIT = 1e-4  # relative, in single precision; a missing factor or a flipped axis errs by 1


def as_operator(
    thing: Any, shape: Sequence[int], *, dtype: torch.dtype = torch.float32
) -> LinearOperator:
    """Return an operator of this library from a linear map of another kind.

        A = ms.as_operator(lambda x: x[..., ::2], (1, 64, 64))

    Args:
        thing: One of: a pair of functions (forward, adjoint) of batches with shape (B, ...); one
            differentiable linear function; an operator of DeepInverse (`A`, `A_adjoint`) or sigpy
            (`Linop`); a matrix or operator of scipy, of flattened images; an operator of ours.
        shape: Shape of one image, (C, H, W).
        dtype: Of the images: `torch.float32`, or `torch.complex64` for complex ones.
    Returns:
        The operator, whose adjoint and linearity have been tested.
    Raises:
        TypeError: It is none of these.
        ValueError: It is not linear, its adjoint is not one, or the shapes do not fit.
    """
    shape = tuple(int(n) for n in shape)
    made = _operator(thing, shape, dtype)
    if made.in_shape != shape:
        raise ValueError(f"as_operator: {made} takes images of {made.in_shape}, wanted {shape}")
    for words, error in (
        ("is not linear: A(a u + b w) differs from a A(u) + b A(w)", linearity_error(made)),
        ("has an adjoint that is none: <A u, w> differs from <u, A^H w>", adjoint_error(made)),
    ):
        if not error <= LIMIT:
            raise ValueError(
                f"as_operator: {type(thing).__name__} {words} by {error:.1e} of their size "
                f"(limit {LIMIT:.0e})"
            )
    return made


def as_prior(
    thing: Any,
    *,
    range: tuple[float, float] | None = None,
    channels: int = 3,
    dtype: torch.dtype = torch.float32,
) -> Denoiser:
    """Return a denoiser from a function, a network or a folder.

        prior = ms.as_prior(network, range=(0, 1))  # network(v, sigma), sigma with shape (B,)

    Args:
        thing: A function or a network `(v, sigma) -> image` that estimates the clean image behind
            v = x + sigma n, with sigma in the units of its images; the path of a local folder of
            `diffusers`; or a denoiser of ours, which is returned as it is. Networks that predict
            noise, scores or velocities: `priors.FromNoise` and its siblings.
        range: The values that its images have, black and white; where absent (0, 1) for functions
            and networks, (-1, 1) for folders, as `diffusers` trains. A denoiser of ours has its
            own. Methods follow it: an operator's images must be in this range, too, or
            `priors.Rescaled` converts.
        channels: Channels of its images, for the trial.
        dtype: `torch.complex64` where its images are complex.
    Returns:
        The denoiser, which has been tried on noise.
    Raises:
        TypeError: It is none of these.
        ValueError: It does not return finite images of the shape and kind that it got.
    """
    if range is not None and not -math.inf < range[0] < range[1] < math.inf:
        raise ValueError(f"as_prior: got a range of {range}, wanted (black, white)")
    if isinstance(thing, str | os.PathLike):
        if not Path(thing).is_dir():
            raise ValueError(
                f"as_prior: {thing} is no folder; weights of ours: measurand.load_prior"
            )
        prior: Denoiser = from_diffusers(thing, range=range or (-1.0, 1.0))
    elif isinstance(thing, Denoiser):
        if range is not None and thing.range is not None and thing.range != range:
            raise ValueError(
                f"as_prior: {type(thing).__name__} has images in {thing.range}, got range "
                f"{range}: priors.Rescaled converts"
            )
        prior = thing
    elif callable(thing):
        network = thing.eval() if isinstance(thing, nn.Module) else thing  # no dropout
        prior = CallableDenoiser(_told(network), range=range or (0.0, 1.0), dtype=dtype)
    else:
        raise TypeError(
            f"as_prior: got a {type(thing).__name__}, wanted a function or network of (v, sigma), "
            "a folder of diffusers, or a denoiser"
        )
    _try(prior, channels)
    return prior


def _operator(thing: Any, shape: tuple[int, ...], dtype: torch.dtype) -> LinearOperator:
    if isinstance(thing, LinearOperator):
        return thing
    if isinstance(thing, tuple) and len(thing) == 2 and all(map(callable, thing)):
        return _pair(*thing, shape, dtype)
    if _has(thing, "A", "A_adjoint"):  # DeepInverse
        return _pair(thing.A, thing.A_adjoint, shape, dtype)
    if _has(thing, "ishape", "oshape", "H"):  # sigpy
        return _pair(*_sigpy(thing, shape), shape, dtype)
    if isinstance(thing, Tensor) or (_has(thing, "shape") and len(thing.shape) == 2):
        matrix = thing.detach().cpu().numpy() if isinstance(thing, Tensor) else thing
        return ScipyOperator(shape, (int(matrix.shape[0]),), matrix)
    if callable(thing):
        return AutogradOperator(shape, thing, in_dtype=dtype)
    raise TypeError(
        f"as_operator: got a {type(thing).__name__}, wanted a pair of functions (forward, "
        "adjoint), a linear function, a matrix, or an operator of scipy, sigpy or DeepInverse"
    )


def _pair(
    forward: Action, adjoint: Action, shape: tuple[int, ...], dtype: torch.dtype
) -> LinearOperator:
    with torch.no_grad():
        y = forward(torch.zeros(1, *shape, dtype=dtype))
    if not isinstance(y, Tensor) or len(y) != 1:
        raise ValueError(
            "as_operator: forward has to return a tensor with the batch axis first, one item for "
            f"one image; got {tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__}"
        )
    return FunctionOperator(
        shape, tuple(y.shape[1:]), forward, adjoint, in_dtype=dtype, out_dtype=_kind(y)
    )


def _kind(y: Tensor) -> torch.dtype:
    return torch.complex64 if y.is_complex() else torch.float32


def _has(thing: Any, *names: str) -> bool:
    return all(hasattr(thing, name) for name in names)


def _sigpy(operator: Any, shape: tuple[int, ...]) -> tuple[Action, Action]:
    """The two functions of a sigpy operator, which takes single images, without batch axis."""
    if math.prod(operator.ishape) != math.prod(shape):
        raise ValueError(f"as_operator: got an operator of images {operator.ishape} for {shape}")

    def applied(linop: Any, before: Sequence[int], after: Sequence[int], x: Tensor) -> Tensor:
        items = [linop(one.detach().cpu().reshape(tuple(before)).numpy()) for one in x]
        out = torch.stack([torch.as_tensor(item).reshape(tuple(after)) for item in items])
        double = x.dtype in (torch.float64, torch.complex128)
        kinds = (torch.complex64, torch.complex128) if out.is_complex() else ()
        kinds = kinds or (torch.float32, torch.float64)
        return out.to(x.device, kinds[double])

    def forward(x: Tensor) -> Tensor:
        return applied(operator, operator.ishape, operator.oshape, x)

    def adjoint(y: Tensor) -> Tensor:
        return applied(operator.H, operator.oshape, shape, y)

    return forward, adjoint


def _told(network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The network with sigma as a tensor, one per item: what networks expect."""

    def denoise(v: Tensor, sigma: float | Tensor, *condition: Tensor) -> Tensor:
        level = torch.as_tensor(sigma, dtype=v.real.dtype if v.is_complex() else v.dtype)
        return network(v, level.to(v.device).expand(len(v)), *condition)

    denoise.__name__ = brief(network)
    return denoise


def _try(prior: Denoiser, channels: int) -> None:
    low, high = (0.0, 1.0) if prior.range is None else prior.range
    x = torch.full((2, channels, 32, 32), (low + high) / 2, dtype=prior.dtype)
    sigma = 0.1 * (high - low)
    v = x + sigma * randn_like(x, generators(0, 2))
    with torch.no_grad():
        answer = prior.denoise(v, sigma)
    name = type(prior).__name__
    if not isinstance(answer, Tensor) or answer.shape != v.shape or answer.dtype != v.dtype:
        got = (
            f"{answer.dtype} with shape {tuple(answer.shape)}"
            if isinstance(answer, Tensor)
            else type(answer).__name__
        )
        raise ValueError(f"{name}: returned {got}, wanted {v.dtype} with shape {tuple(v.shape)}")
    if not bool(torch.isfinite(answer).all()):
        raise ValueError(f"{name}: returned values that are not finite")
    noise, left = (float((image - x).abs().square().mean().sqrt()) for image in (v, answer))
    if left > 2 * noise:
        raise ValueError(
            f"{name}: leaves a mean error of {left:.2g} where the noise was {noise:.2g}: it is no "
            "denoiser of (v, sigma), or its images have another range than "
            f"{(low, high)} (range=)"
        )
