r"""Closed-form solves for coils and whole lines of k-space.

A mask that is constant along one axis of k-space (phase-encode lines) leaves the rows of the image
along the other axis independent. With s_c[h] the row h of the map of coil c and C the circulant
matrix of the mask, `C[w, v] = k[w - v]`, k the inverse Fourier transform of the mask,

    A^H A = blocks N_h,   N_h = C o sum_c conj(s_c[h]) s_c[h]^T      (o: element by element)

H matrices of W x W instead of one of HW x HW. Their eigenvalues l and eigenvectors V are found
once, and from then on every `gamma` is a division,

    (A^H A + gamma)^-1 b = V (V^H b / (l + gamma)).

The decomposition costs of order H W^3, where one step of conjugate gradients costs of order
H W ln(W) for each coil; hence only when asked: `SENSE.decomposed`.

Maps change slowly from row to row. With N_h replaced by its mean over a block of adjacent rows the
same formula is a preconditioner, symmetric and positive, which 32 decompositions serve for every
gamma: conjugate gradients need a few steps where they need hundreds without. It keeps 32 W^2
complex numbers, 32 W / H images.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..tensors import weight_of

__all__ = ["Modes", "line_modes"]


class Modes(NamedTuple):
    """Eigenvalues and eigenvectors of `A^H A`, row by row or block by block of adjacent rows.

    Attributes:
        axis: Axis along which the mask varies, -1 or -2.
        values: Eigenvalues, with shape (1 or B, blocks, n).
        vectors: Eigenvectors in columns, with shape (1 or B, blocks, n, n).
    """

    axis: int
    values: Tensor
    vectors: Tensor

    def solve(self, b: Tensor, gamma: float | Tensor) -> Tensor:
        """Returns `(A^H A + gamma)^-1 b`, for b of shape (B, 1, H, W); differentiable."""
        rows = b[:, 0] if self.axis == -1 else b[:, 0].mT
        blocks, count = self.values.shape[1], rows.shape[1]
        size = -(-count // blocks)
        if blocks * size != count:
            rows = functional.pad(rows, (0, 0, 0, blocks * size - count))
        rows = rows.unflatten(1, (blocks, size))
        weight = 1 / (self.values[..., None, :] + weight_of(gamma, rows))
        # V^H b as conj(b^H V), V c as c^T V^T: conjugating V itself would copy all of it, which
        # takes ten times as long as the product
        if len(self.vectors) == 1:  # one matrix, many right-hand sides
            vectors = self.vectors[0]
            inside = (rows.transpose(0, 1).flatten(1, 2).conj() @ vectors).conj()
            inside = inside.unflatten(1, (len(rows), size)) * weight.transpose(0, 1)
            found = (inside.flatten(1, 2) @ vectors.mT).unflatten(1, (len(rows), size))
            found = found.transpose(0, 1)
        else:
            inside = (rows.conj() @ self.vectors).conj() * weight
            found = inside @ self.vectors.mT
        found = found.flatten(1, 2)[:, :count]
        return (found if self.axis == -1 else found.mT)[:, None]


def line_modes(maps: Tensor, mask: Tensor, blocks: int | None = None) -> Modes:
    """Returns the modes of `A^H A` for lines of k-space.

    Args:
        maps: Coil sensitivities, with shape (1 or B, coils, H, W).
        mask: The mask in the order of a plain FFT, with shape (1 or B, 1, H, 1) or (..., 1, W).
        blocks: Largest number of blocks of adjacent rows, over which `A^H A` is averaged; as many
            as there are rows where None.
    """
    axis = -1 if mask.shape[-1] > 1 else -2
    # single precision would leave null spaces a millionth off zero, which gamma divides by
    precise = torch.complex128 if blocks is None else maps.dtype
    kernels = torch.fft.ifft(mask.flatten(1).to(torch.complex128)).to(precise)
    i = torch.arange(kernels.shape[1], device=maps.device)
    lag = (i[:, None] - i) % len(i)
    found = []
    for k in range(max(len(maps), len(mask))):
        s = maps[k % len(maps)].to(precise)
        s = (s if axis == -1 else s.mT).transpose(0, 1)
        parts = s.split(1 if blocks is None else -(-len(s) // blocks))
        means = [part.flatten(0, 1).mH @ part.flatten(0, 1) / len(part) for part in parts]
        gram = torch.stack(means) * kernels[k % len(kernels)][lag]
        values, vectors = torch.linalg.eigh(gram)
        found.append((values.clamp_min(0).to(maps.real.dtype), vectors.to(maps.dtype)))
    return Modes(axis, *(torch.stack(part) for part in zip(*found, strict=True)))
