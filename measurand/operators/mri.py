r"""Magnetic resonance imaging on a Cartesian grid.

    single coil     A x = M F x             complex image, complex k-space
    multi coil      A x = M F (C_i x)       one k-space per coil i

with M a mask of zeros and ones, F the centred orthonormal Fourier transform (`kspace.fft2c`) and
`C_i` the coil sensitivities. `F^H M F` is a circular convolution, so that

* no shift is needed in the normal operator, the mask is shifted once;
* if M does not change along an axis, the transforms along that axis cancel: whole sampled columns
  need an FFT along the rows only, and many coils a closed form row by row (`decomposed`);
* for a single coil everything is diagonal: `(A^H A + gamma)^-1 = F^H (M + gamma)^-1 F`, and since
  M is 0 or 1, `prox(v, y, gamma) = v + A^H (y - A v) / (1 + gamma)`, with no small divisor.

The forward transform of many coils avoids shifting them: with `h = n // 2`,

    fftshift(fft(ifftshift(x)))[k] = exp(2 pi i (k - h) h / n) fft(exp(2 pi i j h / n) x_j)[k],

one factor on the image before it is split into coils, the other folded into the mask.
"""

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from ..tensors import Generators, generators, per_item, randn_like, weight_of
from .base import LinearOperator, Shape
from .diagonal import Diagonal, fourier
from .kspace import birdcage_maps, fft2c, ifft2c, random_lines, sampling_weights
from .lines import Modes, line_modes

__all__ = ["SENSE", "CartesianMRI"]

BLOCKS = 32  # of adjacent rows, whose mean preconditions


class CartesianMRI(LinearOperator):
    """Single-coil Cartesian MRI, `A x = M F x`, of a complex image.

    Args:
        in_shape: Shape of one image, (1, H, W).
        mask: Array or tensor of zeros and ones (boolean or not), with shape (W,), (H, W), or
            (B, 1, H or 1, W or 1) for one mask per item; index (H // 2, W // 2) is the zero
            frequency.
    """

    items: ClassVar[tuple[str, ...]] = ("mask",)
    estimated: ClassVar[tuple[str, ...]] = ("mask",)
    mask: Tensor

    def __init__(self, in_shape: Shape, mask: Any) -> None:
        super().__init__(in_shape, in_shape, torch.complex64, torch.complex64)
        _check_single(self)
        weights = sampling_weights(mask, self.in_shape, str(self))
        self.register_buffer("mask", weights)
        self.to(weights.device)

    def forward(self, x: Tensor) -> Tensor:
        return self.mask * fft2c(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return ifft2c(self.mask * y)

    def observed(self, y: Tensor) -> Tensor:
        return torch.where(self.mask != 0, y, torch.zeros_like(y))

    def gram(self, x: Tensor) -> Tensor:
        return _filtered(x, self.mask)

    def solve(self, b: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        return _filtered(b, 1 / (self.mask + weight_of(gamma, b)))

    def prepare(self, y: Tensor) -> Tensor:
        """The adjoint `A^H y`, for `prox` and `sample`."""
        return self.adjoint(y)

    def prox(
        self,
        v: Tensor,
        y: Tensor,
        gamma: float | Tensor,
        *,
        prepared: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        back = self.prepare(y) if prepared is None else prepared
        return v + (back - self.gram(v)) / (1 + weight_of(gamma, v))

    def sample(
        self,
        v: Tensor,
        y: Tensor,
        gamma: float | Tensor,
        sigma: float | Tensor,
        generator: Generators,
        *,
        prepared: Tensor | None = None,
    ) -> Tensor:
        mean = self.prox(v, y, gamma, prepared=prepared)
        spread = per_item(sigma, v) / (self.mask + weight_of(gamma, v)).sqrt()
        return mean + _filtered(randn_like(v, generator), spread)

    def diagonal(self) -> Diagonal:
        return fourier(_natural(self.mask).expand(-1, *self.in_shape))

    @property
    def norm(self) -> float:  # type: ignore[override]
        return 1.0

    def trace_gram(self) -> float:
        return float(self.mask.expand(-1, -1, *self.in_shape[-2:])[0].mean())

    @classmethod
    def example(cls) -> Self:
        return cls((1, 6, 9), random_lines((6, 9), 2.0, 0.2, generator=generators(0, 2)))


class SENSE(LinearOperator):
    """Multi-coil Cartesian MRI, `A x = M F (C_i x)`, of a complex image.

    The norm is at most 1 for maps whose squared magnitudes sum to one.

    Args:
        in_shape: Shape of one image, (1, H, W).
        maps: Array or tensor of complex coil sensitivities, with shape (coils, H, W) or
            (B, coils, H, W).
        mask: Array or tensor of zeros and ones (boolean or not), with shape (W,), (H, W), or
            (B, 1, H or 1, W or 1) for one mask per item; index (H // 2, W // 2) is the zero
            frequency.
    References:
        | SENSE: Sensitivity Encoding for Fast MRI (Pruessmann et al., 1999)
    """

    items: ClassVar[tuple[str, ...]] = ("maps", "mask", "_conj", "_sampling")
    estimated: ClassVar[tuple[str, ...]] = ("maps", "mask")
    maps: Tensor
    mask: Tensor
    _conj: Tensor
    _sampling: Tensor
    _before: Tensor
    _values: Any  # see `decomposed`
    _vectors: Any

    def __init__(self, in_shape: Shape, maps: Any, mask: Any) -> None:
        maps = torch.as_tensor(maps)
        if maps.ndim not in (3, 4):
            raise ValueError(
                f"SENSE: got maps with shape {tuple(maps.shape)}, wanted (coils, H, W) or (B, "
                "coils, H, W)"
            )
        maps = maps[None] if maps.ndim == 3 else maps
        super().__init__(in_shape, tuple(maps.shape[1:]), torch.complex64, torch.complex64)
        _check_single(self)
        _check_maps(self, maps)
        weights = sampling_weights(mask, self.in_shape, str(self)).to(maps.device)
        if min(len(maps), len(weights)) > 1 and len(maps) != len(weights):
            raise ValueError(
                f"{self}: got {len(maps)} sets of maps and {len(weights)} masks, wanted as many, "
                "or one of either"
            )
        self.register_buffer("maps", maps.to(torch.complex64))
        self.register_buffer("mask", weights)
        for name in ("_conj", "_sampling", "_before", "_values", "_vectors"):
            self.register_buffer(name, None, persistent=False)
        self._derive()
        self.to(maps.device)

    def _derive(self) -> None:
        before, after = _centring(self.in_shape[-2:], self.maps)
        self._conj = self.maps.conj().resolve_conj()
        self._before, self._sampling = before, self.mask * after
        vars(self).pop("_averaged", None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.maps.dtype
        moved = super()._apply(fn, recurse)
        moved._derive()  # in the new precision, not rounded to the old one
        if moved._vectors is not None and moved.maps.dtype != before:
            moved._decompose()
        return moved

    def forward(self, x: Tensor) -> Tensor:
        coils = self.maps * (self._before * x)
        return self._sampling * torch.fft.fft2(coils, norm="ortho")

    def adjoint(self, y: Tensor) -> Tensor:
        coils = torch.fft.ifft2(self._sampling.conj() * y, norm="ortho")
        return self._before.conj() * (self._conj * coils).sum(1, keepdim=True)

    def observed(self, y: Tensor) -> Tensor:
        return torch.where(self.mask != 0, y, torch.zeros_like(y))

    def air(self) -> Tensor | None:
        # estimated maps are zero where there is no signal
        dark = (self.maps == 0).all(1, keepdim=True)
        return dark if bool(dark.any()) else None

    def gram(self, x: Tensor) -> Tensor:
        mask = _natural(self.mask)
        if x.is_cuda:
            coils = _circular(self.maps * x, mask)
            return (self._conj * coils).sum(1, keepdim=True)
        total = torch.zeros_like(x)
        # one coil at a time stays in the processor's cache
        for coil, conj in zip(self.maps.split(1, 1), self._conj.split(1, 1), strict=True):
            total = torch.addcmul(total, conj, _circular(coil * x, mask))
        return total

    def solve(self, b: Tensor, gamma: float | Tensor, **options: Any) -> Tensor:
        axes = _varying_axes(self.mask)
        if not axes:
            energy = self.maps.abs().square().sum(1, keepdim=True) * self.mask
            return b / (energy + weight_of(gamma, b))
        if self._vectors is None or self.maps.requires_grad:
            return super().solve(b, gamma, **options)
        return Modes(axes[0], self._values, self._vectors).solve(b, gamma)

    def preconditioner(self, gamma: float | Tensor) -> Callable[[Tensor], Tensor] | None:
        """For whole lines, the inverse with the maps of adjacent rows averaged (see `lines`)."""
        lines = len(_varying_axes(self.mask)) == 1
        # a GPU takes longer for the eigenvectors than for the iterations that they save
        if not lines or self.maps.requires_grad or self.maps.is_cuda:
            return None
        air = self.air()
        if air is None:
            return lambda r: self._averaged.solve(r, gamma)

        def inverse(r: Tensor) -> Tensor:  # where no coil sees, A^H A is zero and couples nothing
            inside = self._averaged.solve(r.masked_fill(air, 0), gamma)
            return torch.where(air, r / per_item(gamma, r), inside)

        return inverse

    @cached_property
    def _averaged(self) -> Modes:
        with torch.inference_mode(False), torch.no_grad():
            return line_modes(self.maps.clone(), _natural(self.mask.clone()), BLOCKS)

    @classmethod
    def image_shape(cls, y_shape: Shape) -> Shape:
        return (1, *y_shape[1:])  # all coils see one image

    def diagonal(self) -> Diagonal:
        magnitude = self.maps.abs()
        scale = float(magnitude.mean())
        flat = bool(((magnitude - scale).abs() <= 1e-4 * scale).all())
        if self.maps.shape[:2] != (1, 1) or not flat:
            return super().diagonal()
        phase = self.maps / magnitude
        values = scale * _natural(self.mask).expand(-1, *self.in_shape)
        return Diagonal(
            lambda x: torch.fft.fft2(phase * x, norm="ortho"),
            lambda c: phase.conj() * torch.fft.ifft2(c, norm="ortho"),
            values,
        )

    def decomposed(self) -> Self:
        """Returns the operator with the eigenvectors of `A^H A`, for which every solve is closed.

        Worth it where a mask of lines is solved for dozens of times or with small `gamma`: a
        solve then takes two products with the eigenvectors of each row, whatever `gamma` is, while
        the steps of conjugate gradients grow as its inverse root. The decomposition itself takes
        H eigenproblems of W x W and their eigenvectors H W^2 numbers where lines are columns, the
        other way round where they are rows. Maps that are learnt are solved by conjugate gradients
        all the same.

        Raises:
            ValueError: The mask varies along both axes, or along none.
        """
        if len(_varying_axes(self.mask)) != 1:
            raise ValueError(f"{self}: its mask is not one of lines, which alone decompose")
        new = self._map_items(lambda t: t)  # its own buffers
        new._decompose()
        return new

    def _decompose(self) -> None:
        with torch.inference_mode(False), torch.no_grad():
            modes = line_modes(self.maps.clone(), _natural(self.mask.clone()))
        self._values, self._vectors = modes.values, modes.vectors

    def _map_items(self, change: Callable[[Tensor], Tensor]) -> Self:
        new = super()._map_items(change)
        if self._vectors is not None:
            new._values, new._vectors = change(self._values), change(self._vectors)
        if "_averaged" in vars(self):
            axis, values, vectors = self._averaged
            vars(new)["_averaged"] = Modes(axis, change(values), change(vectors))
        return new

    @cached_property
    def norm(self) -> float:
        return super().norm if self._vectors is None else max(self.norms)

    @cached_property
    def norms(self) -> list[float]:
        if self._vectors is None:
            return super().norms
        found: list[float] = self._values.flatten(1).amax(1).sqrt().tolist()
        return found

    def trace_gram(self) -> float:
        share = self.mask.expand(-1, -1, *self.in_shape[-2:])[0].mean()
        return float(share * self.maps[0].abs().square().sum(0).mean())

    @classmethod
    def example(cls) -> Self:
        mask = random_lines((6, 9), 2.0, 0.2, generator=generators(0, 2))
        return cls((1, 6, 9), birdcage_maps((6, 9), 3), mask)


def _filtered(x: Tensor, spectrum: Tensor) -> Tensor:
    """The product `F^H D F x` with D diagonal, given centred."""
    return _circular(x, _natural(spectrum))


def _natural(spectrum: Tensor) -> Tensor:
    """A centred spectrum in the order of a plain FFT."""
    axes = _varying_axes(spectrum)
    return torch.fft.ifftshift(spectrum, dim=axes) if axes else spectrum


def _circular(x: Tensor, spectrum: Tensor) -> Tensor:
    """The circular convolution with a spectrum; transforms only the axes where it varies."""
    axes = _varying_axes(spectrum)
    if not axes:
        return spectrum * x
    return torch.fft.ifftn(torch.fft.fftn(x, dim=axes).mul_(spectrum), dim=axes)


def _varying_axes(spectrum: Tensor) -> tuple[int, ...]:
    return tuple(axis for axis in (-2, -1) if spectrum.shape[axis] > 1)


def _check_single(operator: LinearOperator) -> None:
    if len(operator.in_shape) != 3 or operator.in_shape[0] != 1:
        raise ValueError(
            f"{type(operator).__name__}: got image shape {operator.in_shape}, wanted (1, H, W); "
            "k-space of several coils is that of SENSE (--operator sense)"
        )


def _check_maps(operator: LinearOperator, maps: Tensor) -> None:
    if maps.ndim != 4 or maps.shape[-2:] != operator.in_shape[-2:] or not maps.is_complex():
        raise ValueError(
            f"{operator}: got maps with shape {tuple(maps.shape)} and {maps.dtype}, wanted "
            f"complex maps with shape (B, coils, {operator.in_shape[-2]}, {operator.in_shape[-1]})"
        )
    if not bool(torch.isfinite(maps).all()):
        raise ValueError(f"{operator}: got maps that are not finite")
    if not bool(maps.flatten(1).any(1).all()):
        raise ValueError(f"{operator}: got maps of zeros only")


def _centring(shape: Shape, like: Tensor) -> tuple[Tensor, Tensor]:
    """The factors before and after a plain FFT that make it the centred one."""

    def phase(n: int, start: int) -> Tensor:
        k = (torch.arange(n) + start) * (n // 2) % n  # exact integers before the sine
        angle = 2 * math.pi * k.to(torch.float64) / n
        return torch.polar(torch.ones_like(angle), angle)

    rows, columns = shape
    before = phase(rows, 0)[:, None] * phase(columns, 0)
    after = phase(rows, -(rows // 2))[:, None] * phase(columns, -(columns // 2))
    return before.to(like.device, like.dtype), after.to(like.device, like.dtype)
