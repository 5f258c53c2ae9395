r"""Blind deconvolution without networks: an image of few edges, a kernel on the simplex.

    min over x, k   1/(2 sigma^2) ||k * x - y||^2 + weight g(grad x) + 1/2 ||k||^2 / s^2,   k >= 0,
                    sum k = 1

from coarse to fine, because at full size the blurred image itself with a point as its kernel is a
strong local minimum. At every size the two unknowns are found in turns:

    image    half-quadratic splitting with a growing weight beta (Wang et al., 2008): gradients are
             shrunk, then `(|K|^2 + beta |D|^2) x^ = conj(K) y^ + beta conj(D) d^` is solved by FFT
    kernel   least squares on the gradients of image and data (`KernelBlur.solve`), which do not
             see the mean; then negative and small values and loose specks are cut, the rest is
             divided by its sum and centred

`BlindTV` shrinks by the length of the gradient (total variation). `BlindEdges` keeps a gradient or
drops it (the number of edges; Xu et al., 2013): stronger edges, and on photographs a much better
kernel; it is the start of the blind samplers.

The kernel is estimated from the mean of the channels; the coarse data are cut out of the spectrum
of y, which keeps them periodic. Data of a photograph (`UnknownValidBlur`) are continued smoothly
until they are periodic.

References:
    | A New Alternating Minimization Algorithm for Total Variation Image Reconstruction (Wang et
      al., 2008)
    | Unnatural L0 Sparse Representation for Natural Image Deblurring (Xu, Zheng & Jia, 2013)
    | Total Variation Blind Deconvolution: The Devil Is in the Details (Perrone & Favaro, 2014)
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from ..blind import BlindMeasurement, Unknowns
from ..methods import Iterates, Method, Step
from ..operators.convolution import transfer_function
from ..operators.families import BlurFamily
from ..operators.kernel_blur import KernelBlur, simplex
from ..operators.kernel_parts import centred, two_pixels, without_specks
from ..tensors import Generators
from ..validate import count, positive, share

__all__ = ["BlindEdges", "BlindTV"]


@dataclass(frozen=True)
class BlindMAP(Method):
    """Base of the alternating estimates of image and kernel; `shrunk` says what edges cost.

    Items with equal data (`blind.repeat(4)`) start from different settings: item j of a run of
    equal ones has the weights times the j-th pair of `spread`, so that chains differ.
    """

    needs: ClassVar[tuple[type, ...]] = ()

    weight: float = 0.016
    ridge: float = 150.0
    rounds_per_size: int = 5
    ratio: float = field(default=0.7071, metadata={"search": (0.0, 1.0)})
    cut: float = field(default=0.2, metadata={"search": (0.0, 1.0)})
    spread: tuple[tuple[float, float], ...] = field(
        default=((1.0, 1.0), (1.0, 0.3), (2.0, 0.5), (1.0, 0.5)), metadata={"search": None}
    )

    def __post_init__(self) -> None:
        count(self, "rounds_per_size")
        positive(self, "weight", "ridge")
        share(self, "ratio", "cut", zero=False)

    @abstractmethod
    def last(self, sigma: float) -> float:
        """The weight of edges of the final image, for a noise level."""

    @abstractmethod
    def shrunk(self, gradient: Tensor, threshold: float) -> Tensor:
        """The proximal map of `threshold g`, of gradients with shape (2, H, W)."""

    def check(self, measurement: Any, prior: Any) -> None:
        """Raise a `TypeError` unless the measurement is a blind one of a blur."""
        if not isinstance(measurement, BlindMeasurement) or not isinstance(
            measurement.family, BlurFamily
        ):
            raise TypeError(
                f"{type(self).__name__}: got {measurement}, wanted a BlindMeasurement of a "
                "BlurFamily"
            )

    def start(self, measurement: BlindMeasurement, x0: Unknowns | None) -> Unknowns:
        """Return the family's plain start: an initialization would skip the coarse sizes."""
        if x0 is not None:
            raise ValueError(f"{type(self).__name__}: got x0, wanted none: it starts coarse")
        return Unknowns(*measurement.family.start(measurement.y))

    def __call__(self, measurement: Any, prior: Any = None, **options: Any) -> Unknowns:
        """Return image and kernel; there is no use for a prior. See `Method.__call__`."""
        found: Unknowns = super().__call__(measurement, prior, **options)
        return found

    def iterate(
        self, measurement: BlindMeasurement, prior: Any, x: Unknowns, generator: Generators
    ) -> Iterates:
        """Yields a `Step` after every item."""
        family: Any = measurement.family
        sigma = measurement.sigma.expand(len(measurement)).tolist()
        data = family.periodic(measurement.y)
        images, parameters, run = [], [], 0
        for i, y in enumerate(data):
            run = run + 1 if i and torch.equal(y, data[i - 1]) else 0
            heavier, stiffer = self.spread[run % len(self.spread)]
            k = self.kernel(y, family.side, sigma[i], heavier, stiffer)
            images.append(self.image(y, k, self.last(sigma[i])))
            parameters.append(family.theta(k[None, None])[0])
            last = Unknowns(torch.stack(images), torch.stack(parameters))
            yield Step(i, sigma[i], last, last)
        return Unknowns(*family.aligned(*last))

    def kernel(
        self, y: Tensor, side: int, sigma: float, heavier: float = 1.0, stiffer: float = 1.0
    ) -> Tensor:
        """The kernel behind periodic data, from coarse to fine.

        Args:
            y: Data, with shape (C, H, W).
            side: Height and width of the kernel, in pixels.
            sigma: Noise level.
            heavier: Factor of the weight of edges.
            stiffer: Factor of the ridge.
        Returns:
            The kernel, with shape (side, side).
        """
        grey = y.mean(0)
        shares = [1.0]
        while min(side, min(grey.shape) / 5) * shares[-1] * self.ratio >= 5:
            shares.append(shares[-1] * self.ratio)
        ridge = stiffer * self.ridge * max(0.25, sigma / 0.04) ** 2
        weight, k = heavier * self.weight, None
        floor = weight / 40
        for at in reversed(shares):
            coarse = _coarser(grey, at)
            size = max(3, min(round(side * at), *coarse.shape))
            k = two_pixels(size).to(y) if k is None else _enlarged(k, size)
            for _ in range(self.rounds_per_size):
                x = self.image(coarse[None], k, weight)[0]
                edges = KernelBlur(_gradient(x)[None], size)
                b = edges.adjoint(_gradient(coarse)[None])
                k = edges.solve(b, ridge, residual=1e-3)[0, 0]
                k = centred(without_specks(k, self.cut))
                weight = max(weight / 1.1, floor)
        assert k is not None  # there is always the full size
        return simplex(k)

    def image(self, y: Tensor, k: Tensor, weight: float, until: float = 1e5) -> Tensor:
        """The image of few edges behind periodic data and a known kernel.

        Args:
            y: Data, with shape (C, H, W).
            k: Kernel, with shape (h, w).
            weight: Weight of the edges, in squared image units.
            until: Last weight beta of the splitting.
        Returns:
            The image, with the shape of `y`.
        """
        size = y.shape[-2:]
        through = transfer_function(k, *size)
        corner = y.new_zeros(size)
        corner[0, 0] = 1
        difference = torch.fft.rfft2(_gradient(corner))  # (2, H, W // 2 + 1)
        roughness = difference.abs().square().sum(0)
        data, power = through.conj() * torch.fft.rfft2(y), through.abs().square()
        x, beta = y, 2 * weight
        while beta < until:
            steps = torch.stack([self.shrunk(_gradient(one), weight / beta) for one in x])
            back = (torch.fft.rfft2(steps) * difference.conj()).sum(1)
            x = torch.fft.irfft2((data + beta * back) / (power + beta * roughness), size)
            beta *= 2
        return x


@dataclass(frozen=True)
class BlindTV(BlindMAP):
    """Blind deconvolution with the total variation of the image, coarse to fine.

    Args:
        weight: Weight of the total variation at the coarsest size, in image units squared; falls
            by a tenth a round, to a fortieth.
        ridge: Weight of the squared kernel at sigma = 0.04; grows with the variance of the noise.
        rounds_per_size: Turns of image and kernel at every size.
        ratio: Size from one level to the next coarser one.
        cut: Values of the kernel below this share of its largest are cut.
        spread: Factors (weight, ridge) of the items of a run of equal data.
    """

    weight: float = 0.005

    def last(self, sigma: float) -> float:
        """A tenth of the noise level."""
        return 0.1 * sigma

    def shrunk(self, gradient: Tensor, threshold: float) -> Tensor:
        """Gradients shortened by the threshold."""
        size = gradient.square().sum(0).sqrt()
        return gradient * (1 - threshold / size.clamp_min(1e-12)).clamp_min(0)


@dataclass(frozen=True)
class BlindEdges(BlindMAP):
    """Blind deconvolution with the number of edges of the image, coarse to fine.

    Args:
        weight: Weight of an edge at the coarsest size, in image units squared; falls by a tenth a
            round, to a fortieth.
        ridge: Weight of the squared kernel at sigma = 0.04; grows with the variance of the noise.
        rounds_per_size: Turns of image and kernel at every size.
        ratio: Size from one level to the next coarser one.
        cut: Values of the kernel below this share of its largest are cut.
        spread: Factors (weight, ridge) of the items of a run of equal data.
    """

    def last(self, sigma: float) -> float:
        """The variance of the noise."""
        return sigma**2

    def shrunk(self, gradient: Tensor, threshold: float) -> Tensor:
        """Gradients whose square is above the threshold; the others are zero."""
        keep = gradient.square().sum(0) >= threshold
        return gradient * keep


def _gradient(x: Tensor) -> Tensor:
    """Differences of a periodic image (H, W) to the right and down, with shape (2, H, W)."""
    return torch.stack((x.roll(-1, -1) - x, x.roll(-1, -2) - x))


def _coarser(y: Tensor, share: float) -> Tensor:
    """A periodic image (H, W) of a share of its size: the low part of its spectrum, tapered."""
    if share == 1:
        return y
    h, w = (2 * max(8, round(n * share / 2)) for n in y.shape)
    rows, columns = (torch.fft.fftfreq(n, dtype=y.dtype) for n in (h, w))
    # the Nyquist frequency of an even size has no partner: the taper leaves little of it
    taper = torch.exp(-0.5 * (rows[:, None].square() + columns.square()) / 0.35**2).to(y.device)
    spectrum = torch.fft.fft2(y, norm="forward")
    at = [(torch.fft.fftfreq(n) * n).round().long() for n in (h, w)]
    low = spectrum[at[0] % y.shape[0]][:, at[1] % y.shape[1]]
    return torch.fft.ifft2(low * taper, norm="forward").real


def _enlarged(k: Tensor, size: int) -> Tensor:
    """A kernel at the next finer size."""
    fine = functional.interpolate(k[None, None], (size, size), mode="bilinear")[0, 0]
    return centred(fine.clamp_min(0))
