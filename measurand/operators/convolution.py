r"""What the operators defined by a point spread function share: kernel, spectra, Fourier steps.

On a periodic grid a convolution is a product of spectra, `F(k * x) = K . F x`, and so is all that
follows from it: adjoint `conj(K)`, normal operator `|K|^2`, resolvent `1 / (|K|^2 + gamma)`.
Images and kernels are real, so half of each spectrum is enough (`rfft2`).

The kernel is the operator's only tensor. What follows from it (`K`, `|K|^2`, ...) is computed
once, in double precision, and kept in the precision of the images that come; if the kernel asks
for a gradient (blind problems) it is computed anew in every call, so that each has its own graph.
"""

import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from .base import LinearOperator, Shape

__all__ = [
    "Convolution",
    "FramedBlur",
    "energy",
    "fast_size",
    "filtered",
    "irfft2",
    "padded_filtered",
    "share",
    "transfer_function",
]


# pixels of planes that a processor transforms back one by one: they leave its cache
_LARGE = 2**17


def fast_size(n: int) -> int:
    """The smallest number from n on with no prime factor above five, whose transforms are fast."""
    while True:
        rest = n
        for p in (2, 3, 5):
            while rest % p == 0:
                rest //= p
        if rest == 1:
            return n
        n += 1


def transfer_function(kernel: Tensor, height: int, width: int, *, phase: int = 0) -> Tensor:
    """The spectrum `K = F k` of a kernel on a periodic grid.

    Args:
        kernel: The kernel with its centre at (h // 2, w // 2), with shape (..., h, w).
        height: Rows H of the grid, at least those of the kernel.
        width: Columns W of the grid, at least those of the kernel.
        phase: Pixels by which the blurred image is moved up and to the left.
    Returns:
        The half-spectrum, with shape (..., H, W // 2 + 1).
    """
    h, w = kernel.shape[-2:]
    k = functional.pad(kernel, (0, width - w, 0, height - h))
    return torch.fft.rfft2(k.roll((-(h // 2) - phase, -(w // 2) - phase), (-2, -1)))


def irfft2(spectrum: Tensor, size: tuple[int, ...]) -> Tensor:
    """The real image, of a given size (H, W), of a half-spectrum, without the factor 1 / (H W).

    Filters carry the factor: it would cost one more pass over the image.
    """
    planes = spectrum.flatten(0, -3) if spectrum.ndim > 2 else spectrum[None]
    if len(planes) == 1 or size[0] * size[1] < _LARGE or spectrum.device.type != "cpu":
        return torch.fft.irfft2(spectrum, s=size, norm="forward")
    images = [torch.fft.irfft2(plane, s=size, norm="forward") for plane in planes]
    return torch.stack(images).reshape(*spectrum.shape[:-2], *size)


def filtered(x: Tensor, spectrum: Tensor) -> Tensor:
    """The circular convolution of real images with a filter given by its half-spectrum.

    Args:
        x: Images, with shape (..., H, W).
        spectrum: Half-spectrum of the filter over H W, with shape (..., H, W // 2 + 1).
    Returns:
        The images, with the shape of `x`.
    """
    return padded_filtered(x, spectrum, x.shape[-2:])


def padded_filtered(x: Tensor, spectrum: Tensor, grid: tuple[int, ...]) -> Tensor:
    """The same of images on a grid, with zeros below and on the right."""
    # in place: on CPUs the page faults of a fresh temporary cost more than the product
    return irfft2(torch.fft.rfft2(x, s=grid).mul_(spectrum), grid)


def share(x: Tensor) -> float:
    """The factor 1 / (H W) of the inverse transform of an image, which filters carry."""
    return 1 / (x.shape[-2] * x.shape[-1])


def energy(kernel: Tensor) -> float:
    """The energy `sum k^2` of the first item's kernel, in the mean over its channels."""
    return float(kernel[:1].detach().double().square().sum((-2, -1)).mean())


def as_kernel(operator: LinearOperator, kernel: Any) -> Tensor:
    """The kernel as a checked tensor, with shape (1 or B, 1 or C, h, w).

    Args:
        operator: The operator it is for, whose `in_shape` is (C, H, W).
        kernel: Array or tensor with shape (h, w); or (B, 1, h, w) or (B, C, h, w) for one per
            item.
    Returns:
        A float32 or float64 tensor, on the graph of the one given.
    """
    if len(operator.in_shape) != 3:
        raise ValueError(f"{operator}: got shape {operator.in_shape}, wanted (C, H, W)")
    channels, height, width = operator.in_shape
    k = torch.as_tensor(kernel)
    if k.is_complex():
        raise ValueError(f"{operator}: got a kernel of {k.dtype}, wanted a real one")
    if k.dtype != torch.float64 or not isinstance(kernel, Tensor):
        k = k.float()
    if k.ndim not in (2, 4) or k.numel() == 0:
        raise ValueError(
            f"{operator}: got a kernel with shape {tuple(k.shape)}, wanted (h, w), (B, 1, h, w) "
            f"or (B, {channels}, h, w)"
        )
    k = k if k.ndim == 4 else k[None, None]
    if k.shape[1] not in (1, channels):
        raise ValueError(
            f"{operator}: got a kernel with {k.shape[1]} channels, wanted 1 or {channels}"
        )
    h, w = k.shape[-2:]
    if h > height or w > width:
        raise ValueError(
            f"{operator}: got a kernel of {h}x{w}, larger than the image of {height}x{width}; "
            "wanted at most its size"
        )
    values = k.detach()
    if not bool(values.isfinite().all()):
        raise ValueError(f"{operator}: got a kernel with non-finite values, wanted finite ones")
    if not bool((values != 0).flatten(1).any(1).all()):
        raise ValueError(f"{operator}: got a kernel that is zero everywhere, wanted some light")
    return k


class Convolution(LinearOperator):
    """Base of the operators that a kernel defines on images with shape (C, H, W).

    Args:
        shape: Shape (C, H, W) of one image.
        kernel: Array or tensor with shape (h, w), (B, 1, h, w) or (B, C, h, w).
        out_shape: Shape of one measurement.
    """

    items = ("kernel",)
    kernel: Tensor

    def __init__(self, shape: Shape, kernel: Any, out_shape: Shape) -> None:
        super().__init__(shape, out_shape)
        self.register_buffer("kernel", as_kernel(self, kernel))
        self._kept: tuple[Tensor | None, dict[torch.dtype, tuple[Tensor, ...]]] = (None, {})

    @abstractmethod
    def derive(self, kernel: Tensor) -> tuple[Tensor, ...]:
        """The tensors that follow from a kernel, with shape (1 or B, 1 or C, h, w)."""

    def spectra(self, x: Tensor) -> tuple[Tensor, ...]:
        """The derived tensors, in the precision of the images `x`."""
        kernel = self.kernel
        if kernel.requires_grad:
            return _in_precision(self.derive(_wide(kernel)), x.dtype)
        if self._kept[0] is not kernel:  # a copy with other items, another device or precision
            self._kept = (kernel, {})
        kept = self._kept[1]
        if x.dtype not in kept:
            with torch.inference_mode(False), torch.no_grad():
                kept[x.dtype] = _in_precision(self.derive(_wide(kernel)), x.dtype)
        return kept[x.dtype]


class FramedBlur(Convolution):
    """Base of the blurs of a scene that goes on beyond the frame of what is measured.

    A circular blur of a grid so wide that what wraps around falls on pixels nobody sees; its
    spectrum, over the size of the grid, is the first of `derive`.
    """

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a grid, with fast transforms, that holds an image."""
        return fast_size(self.in_shape[-2]), fast_size(self.in_shape[-1])

    @abstractmethod
    def seen(self, image: Tensor) -> Tensor:
        """The pixels that are measured, a view of images on the grid."""

    def forward(self, x: Tensor) -> Tensor:
        return self.seen(padded_filtered(x, self.spectra(x)[0], self.grid)).contiguous()

    def adjoint(self, y: Tensor) -> Tensor:
        image = y.new_zeros(*y.shape[:-2], *self.grid)
        self.seen(image).copy_(y)
        return self.cut(filtered(image, self.spectra(y)[0].conj()))

    def cut(self, image: Tensor) -> Tensor:
        """The images on the grid without its margin."""
        return image[..., : self.in_shape[1], : self.in_shape[2]].contiguous()

    def trace_gram(self) -> float:
        return energy(self.kernel) * math.prod(self.out_shape) / math.prod(self.in_shape)


def _wide(kernel: Tensor) -> Tensor:
    return kernel if kernel.device.type == "mps" else kernel.double()  # mps has no float64


def _in_precision(tensors: tuple[Tensor, ...], dtype: torch.dtype) -> tuple[Tensor, ...]:
    return tuple(t.to(dtype.to_complex() if t.is_complex() else dtype) for t in tensors)
