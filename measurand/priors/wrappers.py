"""Denoisers around denoisers: another value range, tiles, a condition, a count.

Each has the capabilities of the denoiser inside, as far as they make sense for it, and is called
like it: `Rescaled` for images of another value range, `Tiled` for large ones, `Conditioned` for
what a network may see besides the noisy image, `Counted` for how often it was asked.
"""

import itertools
import math
import warnings
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..memory import exhausted
from ..tensors import convert_range
from .around import Around
from .brief import one_line
from .capabilities import Denoiser, Posterior, Range
from .denoiser import CallableDenoiser, of_normal

__all__ = ["Conditioned", "Counted", "CountedPosterior", "Rescaled", "Tiled"]


class Rescaled(nn.Module):
    """A prior for images of another value range.

    With `k = width(prior.range) / width(range)`, an image u stands for `v = lo + k (u - lo')` and
    its noise sigma for `k sigma`.

    Args:
        prior: A denoiser with a range.
        range: The values that the images outside have.
    """

    not_by_name: ClassVar[str] = (
        "is put around a prior by itself, where its images have another range"
    )

    def __init__(self, prior: Denoiser, range: Range = (-1.0, 1.0)) -> None:
        super().__init__()
        if prior.range is None:
            raise ValueError(f"Rescaled: {type(prior).__name__} takes images of any range")
        self.prior, self.range, self.inner = prior, range, prior.range
        self.k = (self.inner[1] - self.inner[0]) / (range[1] - range[0])

    @property
    def dtype(self) -> torch.dtype:
        """Kind of the images."""
        return self.prior.dtype

    def denoise(self, v: Tensor, sigma: float | Tensor, condition: Tensor | None = None) -> Tensor:
        """The estimate, in the range outside."""
        inside = convert_range(v, self.range, self.inner)
        x_hat = self.prior.denoise(inside, sigma * self.k, condition)
        return convert_range(x_hat, self.inner, self.range)

    forward = denoise
    __repr__ = one_line

    def extra_repr(self) -> str:
        return f"range={self.range}"

    @classmethod
    def example(cls) -> Self:
        return cls(CallableDenoiser(of_normal, range=(0.0, 1.0)), (-1.0, 1.0))


class Tiled(Around):
    """A prior that sees a large image through overlapping tiles, blended smoothly.

    Only the denoiser is tiled, never the physics. Each tile is weighted by a product of raised
    cosine ramps; the weights of all tiles add up to one.

    An axis of L pixels is cut into the smallest number n of tiles that cover it, and their common
    length fits the axis: `(L + (n - 1) overlap) / n`, rounded up to a multiple. The denoiser is
    given about `(1 + (n - 1) overlap / L)` times the pixels of the axis. Along an axis of at most
    `tile` pixels nothing is cut. Where a tile does not fit into the memory, tiles are halved from
    then on, down to twice their overlap, with a warning.

    Args:
        prior: A denoiser.
        tile: Largest length of a tile along every spatial axis, in pixels.
        overlap: Least overlap of neighbours, in pixels.
        multiple: Tile lengths are rounded up to multiples of this, in pixels, as far as `tile`
            allows: networks that halve their input k times take multiples of 2^k.
    """

    not_by_name: ClassVar[str] = "is put around a prior by itself, where an image is large"

    def __init__(
        self, prior: Denoiser, tile: int = 1024, overlap: int = 32, multiple: int = 32
    ) -> None:
        super().__init__(prior)
        if not 0 < overlap <= tile // 2:
            raise ValueError(
                f"Tiled: got tiles of {tile} with an overlap of {overlap}, wanted "
                "0 < overlap <= tile / 2"
            )
        if multiple < 1:
            raise ValueError(f"Tiled: got multiple = {multiple}, wanted at least 1")
        self.tile, self.overlap, self.multiple = tile, overlap, multiple

    def denoise(self, v: Tensor, sigma: float | Tensor, condition: Tensor | None = None) -> Tensor:
        """The blended estimate; a condition of the image's size is cut with it."""
        try:
            return self._blended(v, sigma, condition)
        except (RuntimeError, MemoryError) as error:
            smaller = self.tile // 2 // self.multiple * self.multiple
            if not exhausted(error) or smaller < 2 * self.overlap:
                raise
        # outside the handler: what the failed attempt held is free by now
        warnings.warn(
            f"tiles of {self.tile} pixels do not fit into the memory; from here on {smaller}",
            stacklevel=2,
        )
        self.tile = smaller
        return self.denoise(v, sigma, condition)

    def _blended(self, v: Tensor, sigma: float | Tensor, condition: Tensor | None) -> Tensor:
        if max(v.shape[2:]) <= self.tile:
            return self.prior.denoise(v, sigma, condition)
        out = torch.zeros_like(v)
        total = torch.zeros(v.shape[2:], dtype=v.real.dtype, device=v.device)
        for at in itertools.product(*map(self._spans, v.shape[2:])):
            whole = (slice(None), slice(None), *at)
            cut = condition
            if condition is not None and condition.shape[2:] == v.shape[2:]:
                cut = condition[whole]
            weight = self._weight(v[whole])
            out[whole] += weight * self.prior.denoise(v[whole], sigma, cut)
            total[at] += weight
        return out / total

    forward = denoise

    def extra_repr(self) -> str:
        return f"tile={self.tile}, overlap={self.overlap}"

    def _spans(self, length: int) -> list[slice]:
        """The tiles along an axis: of one length, evenly spread, at least `overlap` in common."""
        if length <= self.tile:
            return [slice(0, length)]
        n = math.ceil((length - self.overlap) / (self.tile - self.overlap))
        least = math.ceil((length + (n - 1) * self.overlap) / n)
        size = min(math.ceil(least / self.multiple) * self.multiple, self.tile)
        starts = [k * (length - size) // (n - 1) for k in range(n)]
        return [slice(start, start + size) for start in starts]

    def _weight(self, piece: Tensor) -> Tensor:
        """The weight of a tile, with its spatial shape."""
        weight = torch.ones((), dtype=piece.real.dtype, device=piece.device)
        for length in piece.shape[2:]:
            i = torch.arange(length, dtype=weight.dtype, device=weight.device) + 0.5
            edge = torch.minimum(i, length - i) / self.overlap
            ramp = torch.sin(edge.clamp(max=1.0) * (math.pi / 2)) ** 2
            weight = weight.unsqueeze(-1) * ramp
        return weight

    @classmethod
    def example(cls) -> Self:
        return cls(CallableDenoiser.example(), 6, overlap=2, multiple=2)


class Conditioned(Around):
    """A prior that holds its condition, so that every method can use it: `D(v, sigma, condition)`.

    It goes around `Tiled`, which cuts the condition with the image, and around `Rescaled`.

    Args:
        prior: A denoiser that takes a condition.
        condition: What it may see besides the noisy image, with a leading size of 1, for all items
            of a batch alike, or one entry per item; real or complex.
    """

    not_by_name: ClassVar[str] = "holds a condition of its own for each image: use it in Python"

    def __init__(self, prior: Denoiser, condition: Tensor) -> None:
        super().__init__(prior)
        if not isinstance(condition, Tensor) or condition.ndim < 1 or not len(condition):
            raise ValueError(
                f"Conditioned: got a condition {getattr(condition, 'shape', condition)}, wanted "
                "a tensor with a leading size of 1, or of the batch"
            )
        # no buffer: a module that changes its precision would make complex buffers real
        self.condition = condition

    def denoise(self, v: Tensor, sigma: float | Tensor, condition: Tensor | None = None) -> Tensor:
        """The prior's estimate, given the condition that is held.

        Raises:
            ValueError: Another condition is given, or there are other items than conditions.
        """
        if condition is not None:
            raise ValueError("Conditioned: got a condition, and holds one already")
        held = self.condition.to(v.device)
        if len(held) not in (1, len(v)):
            raise ValueError(
                f"Conditioned: got {len(v)} images for {len(held)} conditions, wanted one for "
                "each; prior.repeat(n) has n of each"
            )
        return self.prior.denoise(v, sigma, held.expand(len(v), *held.shape[1:]))

    forward = denoise

    def extra_repr(self) -> str:
        return f"condition of shape {tuple(self.condition.shape)}"

    def repeat(self, n: int) -> "Conditioned":
        """The prior for a batch in which every item stands `n` times in a row."""
        if len(self.condition) == 1:
            return self
        return Conditioned(self.prior, self.condition.repeat_interleave(n, 0))

    @classmethod
    def example(cls) -> Self:
        return cls(CallableDenoiser(of_normal), torch.full((1, 1, 8, 8), 0.3))


class Counted(Around):
    """A prior that counts how often it is asked.

    Args:
        prior: A denoiser.
    Attributes:
        calls: Number of calls of `denoise` so far.
        items: Number of images denoised so far.
        batch: Largest batch so far.
    """

    not_by_name: ClassVar[str] = (
        "counts the calls of another prior, which every run does by itself"
    )

    def __init__(self, prior: Denoiser) -> None:
        super().__init__(prior)
        self.calls = self.items = self.batch = 0

    @property
    def nfe(self) -> float:
        """Function evaluations per item: images denoised, over the size of the batch."""
        return self.items / max(self.batch, 1)

    def denoise(self, v: Tensor, sigma: float | Tensor, condition: Tensor | None = None) -> Tensor:
        """The prior's estimate, counted."""
        self.calls, self.items = self.calls + 1, self.items + len(v)
        self.batch = max(self.batch, len(v))
        return self.prior.denoise(v, sigma, condition)

    forward = denoise

    @classmethod
    def example(cls) -> Self:
        return cls(CallableDenoiser.example())


class CountedPosterior(Around):
    """A prior that knows posteriors, and counts how often one of them is asked.

    Args:
        prior: What has `given(measurement)`.
    """

    not_by_name: ClassVar[str] = (
        "counts the calls of another prior, which every run does by itself"
    )

    def __init__(self, prior: Posterior) -> None:
        super().__init__(prior)
        self.asked: list[Counted] = []

    @property
    def calls(self) -> int:
        """Number of calls of `denoise` so far."""
        return sum(counted.calls for counted in self.asked)

    @property
    def items(self) -> int:
        """Number of images denoised so far."""
        return sum(counted.items for counted in self.asked)

    def given(self, measurement: Any) -> Denoiser:
        """The denoiser of a posterior, counted."""
        self.asked.append(Counted(self.prior.given(measurement)))
        return self.asked[-1]

    @classmethod
    def example(cls) -> Self:
        from .spectral import CosineGaussian

        return cls(CosineGaussian.example())
