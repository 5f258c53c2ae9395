r"""Small pieces of tensor arithmetic that every floor above uses.

Conventions. A batch is the leading axis. Images are `(B, C, H, W)`, volumes `(B, C, D, H, W)`,
real or complex. The inner product is the real one, `<a, b> = Re sum conj(a) b`, taken per item, so
that complex problems are real problems of twice the size. White noise of a complex tensor has unit
variance in *each* component.

Randomness. Item i of a batch has its own generator, seeded by (seed, i): what it draws does not
depend on how many neighbours it has or on how a job was cut into pieces.
"""

import hashlib
from collections.abc import Sequence
from operator import index

import torch
from torch import Tensor

__all__ = [
    "Generators",
    "as_generators",
    "convert_range",
    "from_channels",
    "generators",
    "inner",
    "items_at",
    "norm",
    "per_item",
    "randn_like",
    "to_channels",
    "weight_of",
]

Generators = torch.Generator | Sequence[torch.Generator] | None


def to_channels(x: Tensor) -> Tensor:
    """Complex images as real ones of twice the channels: all real parts, then all imaginary.

    Args:
        x: Complex tensor, with shape (B, C, ...); a real one is returned as it is.
    Returns:
        A real tensor, with shape (B, 2C, ...).
    """
    return torch.cat((x.real, x.imag), dim=1) if x.is_complex() else x


def from_channels(x: Tensor) -> Tensor:
    """The inverse of `to_channels`.

    Args:
        x: Real tensor with an even number of channels, with shape (B, 2C, ...).
    Returns:
        A complex tensor, with shape (B, C, ...).
    """
    if x.is_complex() or x.shape[1] % 2:
        raise ValueError(
            f"from_channels: got {x.dtype} with {x.shape[1]} channels, wanted a real tensor with "
            "an even number of channels"
        )
    real, imag = x.chunk(2, dim=1)
    return torch.complex(real.contiguous(), imag.contiguous())


def per_item(value: float | Tensor, x: Tensor) -> Tensor:
    """A scalar, or one value per item, shaped to broadcast against a batch.

    Args:
        value: A number or a tensor with shape (), (1,) or (B,).
        x: The batch, with shape (B, ...).
    Returns:
        A tensor in the real precision of `x`, with as many axes as `x`.
    """
    dtype = x.real.dtype if x.is_complex() else x.dtype
    value = torch.as_tensor(value, dtype=dtype, device=x.device)
    # in this order and by shape: one size for both is all that an exported program has to know
    n = value.shape[0] if value.ndim == 1 else 1
    if value.ndim > 1 or (value.ndim == 1 and n != x.shape[0] and n != 1):
        raise ValueError(
            f"per_item: got a value with shape {tuple(value.shape)} for a batch of {len(x)}, "
            f"wanted a scalar or shape ({len(x)},)"
        )
    return value.reshape(-1, *[1] * (x.ndim - 1))


def weight_of(gamma: float | Tensor, x: Tensor) -> Tensor:
    """The weight of a proximal map or a regularized inverse, as `per_item` has it.

    Args:
        gamma: A positive number or a tensor with shape (), (1,) or (B,).
        x: The batch, with shape (B, ...).
    Raises:
        ValueError: A weight is zero, negative or NaN. Those on a GPU are not looked at, where the
            question costs a wait in every step of a loop, nor those of a program in the making.
    """
    unseen = isinstance(gamma, Tensor) and gamma.device.type != "cpu"
    if not unseen and not torch.compiler.is_compiling():
        values = gamma.tolist() if isinstance(gamma, Tensor) else gamma
        if not all(value > 0 for value in (values if isinstance(values, list) else [values])):
            raise ValueError(f"got gamma = {values}, wanted a positive weight, or one per item")
    return per_item(gamma, x)


def items_at(i: int | slice, n: int, owner: object) -> slice:
    """The slice of a batch that an index means; an int keeps the batch axis.

    Args:
        i: Number of an item, from -n to n - 1, or a slice.
        n: Size of the batch.
        owner: Whose batch it is, for the message.
    Returns:
        The slice; an `IndexError` where there is no such item.
    """
    if isinstance(i, slice):
        return i
    at = index(i)
    if not -n <= at < n:
        raise IndexError(f"{owner}: got item {at} of a batch of {n}, wanted {-n} to {n - 1}")
    return slice(at, at + 1 or None)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """The real inner product of each item, `Re sum conj(a) b`.

    Args:
        a: A batch, with shape (B, ...).
        b: A batch, with the shape of `a`.
    Returns:
        One number per item, with shape (B,).
    """
    if a.is_complex():
        a, b = torch.view_as_real(a), torch.view_as_real(b)
    return (a * b).flatten(1).sum(1)


def norm(a: Tensor) -> Tensor:
    """The Euclidean norm of each item, with shape (B,)."""
    if a.is_complex():
        a = torch.view_as_real(a)  # ten times as fast as the norm of complex numbers
    return torch.linalg.vector_norm(a.flatten(1), dim=1)


def generators(seed: int, n: int, device: str | torch.device = "cpu") -> list[torch.Generator]:
    """One random generator per item, derived from (seed, item).

    Args:
        seed: Any integer; 0 is a seed like the others.
        n: Number of items.
        device: Device on which the generators draw.
    Returns:
        A list of `n` generators.
    """
    found = []
    for item in range(n):
        digest = hashlib.sha256(f"{seed}/{item}".encode()).digest()
        found.append(
            torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little", signed=True))
        )
    return found


def as_generators(generator: Generators, x: Tensor) -> torch.Generator | Sequence[torch.Generator]:
    """The generators to use for a batch: those given, or seed 0 where none are.

    Args:
        generator: One generator, one per item, or None.
        x: The batch they will draw for.
    Returns:
        The generator, or one per item.
    """
    if generator is None:
        return generators(0, len(x), x.device)
    if not isinstance(generator, torch.Generator) and len(generator) != len(x):
        raise ValueError(
            f"generator: got {len(generator)} generators for a batch of {len(x)}, wanted one, "
            "or one per item"
        )
    return generator


def randn_like(x: Tensor, generator: Generators) -> Tensor:
    """White Gaussian noise in the shape of a batch, of unit variance in each real component.

    Args:
        x: The batch to imitate (shape, dtype, device), with shape (B, ...).
        generator: One generator, one per item, or None for seed 0.
    Returns:
        The noise, with the shape and dtype of `x`.
    """
    generator = as_generators(generator, x)
    real = torch.empty(
        (*x.shape, 2) if x.is_complex() else x.shape,
        dtype=x.real.dtype if x.is_complex() else x.dtype,
        device=x.device,
    )
    if isinstance(generator, torch.Generator):
        real.normal_(generator=generator)
    else:
        for item, own in zip(real, generator, strict=True):
            item.normal_(generator=own)
    return torch.view_as_complex(real) if x.is_complex() else real


def convert_range(x: Tensor, old: tuple[float, float], new: tuple[float, float]) -> Tensor:
    """Values mapped affinely from one range to another, `old -> new`."""
    scale = (new[1] - new[0]) / (old[1] - old[0])
    return (x - old[0]) * scale + new[0]
