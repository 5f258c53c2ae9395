r"""The basis in which an operator is diagonal: what it sees of an image, coordinate by coordinate.

    A = U Sigma V^H,     U, V unitary, Sigma = diag(s), s >= 0

is known in closed form for masks (V the pixels), and for circular blur, Fourier samples and the
MRI of a single coil (V^H the orthonormal Fourier transform). U is not needed:

    Sigma^+ U^H y = (Sigma^+)^2 V^H A^H y        the coordinates V^H x where s > 0
    P = Sigma^+ Sigma                            which ones they are

White noise of standard deviation sigma in y is white noise of `sigma / s` in each coordinate,
measured by what white noise of one in the image leaves there. Fourier coordinates of a real image
are the whole complex spectrum; s is the same at opposite frequencies, so that n coordinates stand
for n real numbers.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Diagonal", "fourier", "fourier_of_real"]


class Diagonal(NamedTuple):
    """The right singular vectors and the singular values of an operator.

    Attributes:
        analysis: x -> `V^H x`, the coordinates of a batch of images, with shape (B, ...).
        synthesis: c -> `V c`, the images of a batch of coordinates.
        values: Singular values s >= 0 of each coordinate, with shape (1 or B, ...), one row per
            operator of the batch.
    """

    analysis: Callable[[Tensor], Tensor]
    synthesis: Callable[[Tensor], Tensor]
    values: Tensor

    def seen(self, dtype: torch.dtype) -> Tensor:
        """Return P: where the singular values are above zero, with the shape of `values`.

        Above zero is what stands out from the rounding of `A^H y`: more than `eps^(1/3)` of the
        largest value (0.005 in single precision), where the relative error of a coordinate is of
        the order of `eps^(1/3)` at most.

        Args:
            dtype: Precision of the data, real or complex.
        """
        eps = max(torch.finfo(dtype).eps, torch.finfo(self.values.dtype).eps)
        largest = self.values.flatten(1).amax(1).reshape(-1, *[1] * (self.values.ndim - 1))
        return self.values > eps ** (1 / 3) * largest

    def coordinates(self, back: Tensor) -> Tensor:
        """Return `Sigma^+ U^H y` of data y, zero where nothing is seen.

        Args:
            back: The data brought back to the image, `A^H y`, with shape (B, ...).
        """
        seen = self.seen(back.dtype)
        values = torch.where(seen, self.values, torch.ones_like(self.values))
        c = self.analysis(back) / values.square()
        return torch.where(seen, c, torch.zeros_like(c))


def fourier(values: Tensor) -> Diagonal:
    """Return the basis of complex images whose coordinates are their orthonormal spectrum.

    Args:
        values: Singular values, zero frequency first, with shape (1 or B, 1 or C, H, W).
    """
    return Diagonal(
        lambda x: torch.fft.fft2(x, norm="ortho"),
        lambda c: torch.fft.ifft2(c, norm="ortho"),
        values,
    )


def fourier_of_real(values: Tensor) -> Diagonal:
    """Return the basis of real images whose coordinates are their orthonormal spectrum.

    Args:
        values: Singular values, zero frequency first and equal at opposite frequencies, with shape
            (1 or B, 1 or C, H, W).
    """
    return Diagonal(
        lambda x: torch.fft.fft2(x, norm="ortho"),
        lambda c: torch.fft.ifft2(c, norm="ortho").real,
        values,
    )
