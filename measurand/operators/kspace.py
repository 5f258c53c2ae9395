r"""How a magnetic resonance scanner samples k-space: Fourier convention, masks, coil maps.

k-space is the centred orthonormal Fourier transform of the image,

    F x = fftshift(fft2(ifftshift(x))) / sqrt(H W),

so the zero frequency stands at index (H // 2, W // 2) and F is unitary. A Cartesian scan measures
whole lines: a mask over the columns, fully sampled near the centre (the auto-calibration lines)
and thinned outside. With N columns, acceleration R and n_c centre lines, the outer lines are kept
with probability `(N/R - n_c) / (N - n_c)` or stand at the equal spacing that is its inverse, so
that N/R lines are expected in all. Masks are boolean, with shape (1, 1, 1, W) or (1, 1, H, W);
with a list of generators, one mask per item along the leading axis.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..tensors import Generators, generators

__all__ = [
    "bernoulli_lines",
    "birdcage_maps",
    "equispaced_lines",
    "fft2c",
    "ifft2c",
    "random_lines",
    "sampling_weights",
    "variable_density_mask",
]


def fft2c(x: Tensor) -> Tensor:
    """The centred orthonormal Fourier transform over the last two axes.

    Args:
        x: Images, real or complex, with shape (..., H, W).
    Returns:
        Their k-space, with shape (..., H, W).
    """
    shifted = torch.fft.ifftshift(x, dim=(-2, -1))
    return torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=(-2, -1))


def ifft2c(y: Tensor) -> Tensor:
    """The inverse of `fft2c`, which is its adjoint.

    Args:
        y: k-space, with shape (..., H, W).
    Returns:
        Images, with shape (..., H, W).
    """
    shifted = torch.fft.ifftshift(y, dim=(-2, -1))
    return torch.fft.fftshift(torch.fft.ifft2(shifted, norm="ortho"), dim=(-2, -1))


def random_lines(
    shape: tuple[int, ...],
    acceleration: float,
    center_fraction: float = 0.08,
    *,
    generator: Generators = None,
) -> Tensor:
    """A mask of random columns around a fully sampled centre, as in the fastMRI challenge.

    Args:
        shape: Shape of the image, (..., H, W); W is the number of columns N.
        acceleration: R; N/R columns are expected.
        center_fraction: Share of the columns sampled at the centre: 0.08 goes with R = 4, 0.04
            with R = 8.
        generator: One generator, one per item, or None for seed 0.
    Returns:
        The mask, with shape (1, 1, 1, W), or one per generator.
    References:
        | fastMRI: An Open Dataset and Benchmarks for Accelerated MRI (Zbontar et al., 2018)
        | arXiv 1811.08839
    """
    width = shape[-1]
    center = _center(width, round(width * center_fraction))
    share = _outer_share("random_lines", width, acceleration, int(center.sum()))
    return _per_generator(generator, lambda g: center | (_uniform((1, 1, width), g) < share))


def equispaced_lines(
    shape: tuple[int, ...],
    acceleration: float,
    center_fraction: float = 0.08,
    *,
    generator: Generators = None,
) -> Tensor:
    """A mask of equally spaced columns, at a random offset, around a fully sampled centre.

    The spacing is widened so that the centre is included in the N/R columns.

    Args:
        shape: Shape of the image, (..., H, W); W is the number of columns N.
        acceleration: R; N/R columns are expected.
        center_fraction: Share of the columns sampled at the centre.
        generator: One generator, one per item, or None for seed 0.
    Returns:
        The mask, with shape (1, 1, 1, W), or one per generator.
    """
    width = shape[-1]
    center = _center(width, round(width * center_fraction))
    share = _outer_share("equispaced_lines", width, acceleration, int(center.sum()))

    def draw(g: torch.Generator) -> Tensor:
        # column j is on the lattice when an integer lies in (share (j + u) - share, share (j + u)]
        steps = share * torch.arange(width, dtype=torch.float64) + _uniform((1,), g)
        return center | (torch.floor(steps) > torch.floor(steps - share))

    return _per_generator(generator, draw)


def bernoulli_lines(
    shape: tuple[int, ...],
    acceleration: float,
    center_lines: int = 20,
    *,
    generator: Generators = None,
) -> Tensor:
    """A mask of columns kept each with probability 1/R, around fixed centre lines.

    The true acceleration is lower than R, since the centre comes on top: 3.2 at R = 4, N = 256.

    Args:
        shape: Shape of the image, (..., H, W); W is the number of columns N.
        acceleration: R, of the outer columns.
        center_lines: Number of columns sampled at the centre.
        generator: One generator, one per item, or None for seed 0.
    Returns:
        The mask, with shape (1, 1, 1, W), or one per generator.
    """
    if acceleration < 1:
        raise ValueError(f"bernoulli_lines: got acceleration {acceleration}, wanted at least 1")
    width = shape[-1]
    center = _center(width, int(center_lines))
    return _per_generator(
        generator, lambda g: center | (_uniform((1, 1, width), g) < 1 / acceleration)
    )


def variable_density_mask(
    shape: tuple[int, ...],
    acceleration: float,
    center_fraction: float = 0.04,
    *,
    power: float = 3.0,
    generator: Generators = None,
) -> Tensor:
    """A mask of random points, denser towards the centre of k-space.

    A point at the distance r from the centre (r = 1 at the corners) is kept with probability
    `min(1, s (1 - r)^power)`, all of a central ellipse are; s makes H W / R points expected.

    Args:
        shape: Shape of the image, (..., H, W).
        acceleration: R; H W / R points are expected.
        center_fraction: Share of the points inside the central ellipse.
        power: How steeply the density falls.
        generator: One generator, one per item, or None for seed 0.
    Returns:
        The mask, with shape (1, 1, H, W), or one per generator.
    """
    rows, columns = _axes(shape)
    r = torch.hypot(rows[:, None], columns)
    center = r < math.sqrt(4 * center_fraction / math.pi)
    wanted = r.numel() / acceleration
    _outer_share("variable_density_mask", r.numel(), acceleration, int(center.sum()))
    fall = (1 - r / math.sqrt(2)).clamp_min(1e-3) ** power
    low, high = 0.0, 1 / float(fall.min())
    for _ in range(60):
        s = (low + high) / 2
        density = torch.where(center, 1.0, (s * fall).clamp(max=1))
        low, high = (s, high) if float(density.sum()) < wanted else (low, s)
    return _per_generator(generator, lambda g: _uniform((1, *r.shape), g) < density)


def sampling_weights(mask: Any, shape: tuple[int, ...], name: str) -> Tensor:
    """A mask as real weights, with shape (1 or B, 1, H or 1, W or 1), short where constant.

    Args:
        mask: Array or tensor of zeros and ones (boolean or not), with shape (W,), (H, W), or
            (B, 1, H or 1, W or 1).
        shape: Shape of the image; the last two axes count.
        name: Who asks, for messages.
    Raises:
        ValueError: The mask has another shape or other values, or holds no sample.
    """
    height, width = shape[-2:]
    mask = torch.as_tensor(mask)
    given = tuple(mask.shape)
    full = mask.reshape((1,) * (4 - mask.ndim) + given) if mask.ndim in (1, 2) else mask
    if (
        full.ndim != 4
        or full.shape[1] != 1
        or full.shape[2] not in (1, height)
        or full.shape[3] not in (1, width)
    ):
        raise ValueError(
            f"{name}: got a mask with shape {given}, wanted ({width},), ({height}, {width}) "
            f"or (B, 1, {height}, {width})"
        )
    if full.is_complex() or not bool(((full == 0) | (full == 1)).all()):
        raise ValueError(f"{name}: got a mask with other values, wanted zeros and ones")
    if not bool(full.flatten(1).any(1).all()):
        raise ValueError(f"{name}: got a mask of zeros only, wanted some samples")
    for axis in (-2, -1):
        first = full.narrow(axis, 0, 1)
        full = first if bool((full == first).all()) else full
    return full.detach().float().clone()


def birdcage_maps(shape: tuple[int, ...], coils: int, radius: float = 1.5) -> Tensor:
    """The sensitivities of coils on a circle around the image, normalised per pixel.

    Seen from the coil at `q = radius exp(i phi)`, a pixel at p (both in half image widths) has
    the sensitivity `exp(-i phi) / conj(p - q)`, of magnitude 1/distance; then the root of the sum
    of squares over the coils is scaled to one.

    Args:
        shape: Shape of the image, (..., H, W).
        coils: Number of coils.
        radius: Distance of the coils from the centre, in half image widths; not on a pixel.
    Returns:
        Complex maps, with shape (1, coils, H, W).
    """
    y, x = _axes(shape)
    p = torch.complex(*torch.broadcast_tensors(x, y[:, None]))
    phi = 2 * math.pi * torch.arange(int(coils), dtype=torch.float64)[:, None, None] / coils
    q = torch.polar(torch.full_like(phi, radius), phi)
    maps = torch.polar(torch.ones_like(phi), -phi) / (p - q).conj()
    maps = maps / torch.linalg.vector_norm(maps, dim=0)
    return maps[None].to(torch.complex64)


def _axes(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Coordinates of rows and columns, from -1 to 1, zero at the index n // 2."""
    y, x = ((torch.arange(n, dtype=torch.float64) - n // 2) / (n / 2) for n in shape[-2:])
    return y, x


def _center(width: int, lines: int) -> Tensor:
    if not 0 <= lines <= width:
        raise ValueError(f"mask: got {lines} centre lines of {width} columns, wanted 0 to {width}")
    start = (width - lines + 1) // 2
    center = torch.zeros(1, 1, width, dtype=torch.bool)
    center[..., start : start + lines] = True
    return center


def _outer_share(name: str, total: int, acceleration: float, center: int) -> float:
    share = (total / acceleration - center) / max(total - center, 1)
    if acceleration < 1 or share < 0:
        raise ValueError(
            f"{name}: got acceleration {acceleration} with {center} of {total} sampled at the "
            f"centre, wanted between 1 and {total / max(center, 1):.3g}"
        )
    return share


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device).cpu()


def _per_generator(generator: Generators, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
    if generator is None:
        generator = generators(0, 1)
    each = [generator] if isinstance(generator, torch.Generator) else generator
    return torch.stack([draw(g) for g in each])
