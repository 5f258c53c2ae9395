r"""Weights in 8 bits: whole numbers of one byte, and a scale for each group of 32 inputs.

A weight tensor (outputs, inputs, ...) is a matrix W with one row for each output and its inputs in
the order of memory, so that a convolution has C_in kh kw of them. With group g(j) = floor(j / 32)
of input j,

    W[i, j]  is stored as  code[i, j] in {-127, ..., 127}  and  scale[i, g(j)] > 0,
    W'[i, j] = code[i, j] scale[i, g(j)].

Layout. Tensor `name` holds the codes, int8, in the shape of the weights. Tensor `name.scale` holds
the scales, bfloat16, with shape (outputs, ceil(inputs / 32)); the last group of a row has what is
left. Tensors that have no scales are stored as they are. That is 8.5 bits per weight.

A code has 7 bits and a scale has 8, so that their product is exact in float32: whoever reads a
file, in any language, gets the same bits.

Errors. Codes are rounded to the nearest. With m the largest magnitude in a group,

    |W' - W| <= scale / 2 <= m / 239    (m >= 2^-119; below, scale = 2^-126)

and zeros stay zeros. Of the scales whose largest code is 120 to 127, a group has the one with the
least squared error, which on our networks is 18 % less than with m / 127. (Smaller scales, which
clip the largest weights, gain nothing.) Weights that were read from such a file are stored again
without error: W' is stored as W'.

Which tensors tolerate 8 bits is known to the network and not here. A first and a last layer often
do not, and biases gain nothing from it.
"""

import math
from collections.abc import Collection, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["dequantize", "quantize"]

GROUP = 32
SUFFIX = ".scale"
LARGEST, LEAST = 127, 120  # what the largest code in a group may be
SMALLEST = 2.0**-126  # scale: the least normal number, since some processors take less for zero


def quantize(tensors: Mapping[str, Tensor], names: Collection[str]) -> dict[str, Tensor]:
    """Return tensors in which those of some names are codes with scales.

    Args:
        tensors: Weights by name.
        names: Those to be stored in 8 bits; they have two dimensions or more. All others are
            returned as they are.
    Raises:
        ValueError: A name has no tensor, or its tensor is not of finite floating-point numbers
            (outputs, inputs, ...), or its scales have the name of another tensor.
    """
    if unknown := set(names) - set(tensors):
        raise ValueError(f"quantize: there are no tensors called {', '.join(sorted(unknown))}")
    stored = {}
    for name, x in tensors.items():
        if name not in names:
            if x.dtype == torch.int8:
                raise ValueError(f"quantize: {name} is int8, which is kept for codes")
            stored[name] = x
            continue
        if name + SUFFIX in tensors:
            raise ValueError(f"quantize: the scales of {name} have the name of another tensor")
        if x.ndim < 2 or not x.is_floating_point():
            raise ValueError(
                f"quantize: {name} has shape {tuple(x.shape)} and {x.dtype}, wants floating-point "
                "numbers (outputs, inputs, ...)"
            )
        if not (x.detach().abs() < 2.0**127).all():
            raise ValueError(f"quantize: {name} has values that are not finite, or above 2^127")
        stored[name], stored[name + SUFFIX] = codes_and_scales(x.detach())
    return stored


def dequantize(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of `quantize` as weights: codes times scales, in float32.

    Args:
        tensors: Codes, their scales, and all other tensors, which are returned as they are.
    Raises:
        ValueError: Codes have no scales, or scales of another shape or precision.
    """
    scales = {name + SUFFIX for name, x in tensors.items() if x.dtype == torch.int8}
    return {
        name: weights(name, x, tensors.get(name + SUFFIX)) if x.dtype == torch.int8 else x
        for name, x in tensors.items()
        if name not in scales
    }


def codes_and_scales(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the codes of weights, in their shape, and the scales, (outputs, groups)."""
    values = grouped(x.double())
    m = values.abs().amax(-1, keepdim=True)
    least = (m / (LARGEST + 0.5)).clamp_min(SMALLEST)
    scale = least.to(torch.bfloat16)
    scale = torch.where(scale.double() < least, following(scale), scale)
    best, error = scale, squared_error(values, scale)
    while True:
        scale = following(scale)
        allowed = (m / scale.double()).round() >= LEAST
        if not allowed.any():
            break
        other = squared_error(values, scale)
        better = allowed & (other < error)
        best, error = torch.where(better, scale, best), torch.where(better, other, error)
    codes = rounded(values, best).to(torch.int8).flatten(1)[:, : math.prod(x.shape[1:])]
    return codes.reshape(x.shape).contiguous(), best[..., 0]


def weights(name: str, codes: Tensor, scales: Tensor | None) -> Tensor:
    """Return the weights of codes, in float32."""
    shape = tuple(codes.shape)
    groups = math.ceil(math.prod(shape[1:]) / GROUP)
    if scales is None or scales.dtype != torch.bfloat16 or scales.shape != (shape[0], groups):
        got = "none" if scales is None else f"{tuple(scales.shape)} of {scales.dtype}"
        raise ValueError(
            f"dequantize: {name} has scales {got}, wants {(shape[0], groups)} of torch.bfloat16"
        )
    products = grouped(codes.float()) * scales.float()[..., None]
    return products.flatten(1)[:, : math.prod(shape[1:])].reshape(shape)


def grouped(x: Tensor) -> Tensor:
    """Return values by group, (outputs, groups, 32), zeros where a row has no more."""
    inputs = math.prod(x.shape[1:])
    rows = F.pad(x.reshape(len(x), inputs), (0, -inputs % GROUP))
    return rows.reshape(len(x), math.ceil(inputs / GROUP), GROUP)


def following(scale: Tensor) -> Tensor:
    """Return the next larger numbers of bfloat16, of positive ones."""
    return (scale.view(torch.int16) + 1).view(torch.bfloat16)


def rounded(values: Tensor, scale: Tensor) -> Tensor:
    """Return the codes of values, as numbers; 127 1/2 counts as 127."""
    return (values / scale.double()).round().clamp(-LARGEST, LARGEST)


def squared_error(values: Tensor, scale: Tensor) -> Tensor:
    """Return the squared error of each group, (outputs, groups, 1)."""
    error = values - rounded(values, scale) * scale.double()
    return error.square().sum(-1, keepdim=True)
