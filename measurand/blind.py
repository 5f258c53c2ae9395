"""Measurements of which neither the image nor the operator is known: `y = A(theta) x + noise`."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .measurement import Measurement, moved
from .noises import Gaussian, Noise
from .operators.families import OperatorFamily
from .tensors import items_at

__all__ = ["BlindMeasurement", "Unknowns"]


class Unknowns(NamedTuple):
    """Image and parameters of a blind problem.

    Attributes:
        x: Images, with shape (B, *family.in_shape).
        theta: Parameters, with shape (B, *family.theta_shape).
    """

    x: Tensor
    theta: Tensor


class BlindMeasurement:
    """Data `y = A(theta) x + noise` of which neither the image nor the parameters are known.

        family = ms.operators.UnknownBlur((3, 256, 256), side=64)
        blind = ms.BlindMeasurement(family, ms.noises.Gaussian(sigma=0.02), y)

    Args:
        family: The operators A(theta).
        noise: The noise model, Gaussian with a positive standard deviation.
        y: The data, with shape (B, *family.out_shape); real, finite.
    Raises:
        TypeError: Family, noise or y is of another type.
        ValueError: The shape or kind of y is not that of the family, or there is no noise.
    """

    def __init__(self, family: OperatorFamily, noise: Noise, y: Tensor) -> None:
        if not isinstance(family, OperatorFamily):
            raise TypeError(
                f"BlindMeasurement: got a family of type {type(family).__name__}, wanted an "
                "OperatorFamily, such as measurand.operators.UnknownBlur((3, 256, 256), side=64); "
                "with a known operator the class is measurand.Measurement"
            )
        if not isinstance(noise, Gaussian):
            raise TypeError(
                f"BlindMeasurement: got noise of type {type(noise).__name__}, wanted "
                "measurand.noises.Gaussian(sigma): both unknowns are drawn in closed form"
            )
        if noise.noise_free:
            raise ValueError(
                "BlindMeasurement: got sigma = 0, wanted a positive noise level: without noise "
                "there is no likelihood of image and parameters (for rounding to 8 bits in images "
                "of [-1, 1], sigma is 0.0023)"
            )
        if not isinstance(y, Tensor):
            raise TypeError(
                f"BlindMeasurement: got y of type {type(y).__name__}, wanted a torch.Tensor"
            )
        if y.is_complex() or not y.is_floating_point():
            raise ValueError(f"BlindMeasurement: got y of {y.dtype}, wanted real data ({family})")
        if y.ndim != len(family.out_shape) + 1 or y.shape[1:] != family.out_shape:
            raise ValueError(
                f"BlindMeasurement: got y with shape {tuple(y.shape)} from {family}, wanted (B, "
                f"{', '.join(map(str, family.out_shape))})"
            )
        if y.dtype not in (torch.float32, torch.float64):
            raise ValueError(
                f"BlindMeasurement: got y of {y.dtype}, wanted single or double precision"
            )
        if not len(y):
            raise ValueError(
                f"BlindMeasurement: got y with no item ({family}), wanted at least one"
            )
        if not bool(torch.isfinite(y).all()):
            bad = int((~torch.isfinite(y)).sum())
            raise ValueError(f"BlindMeasurement: {bad} of {y.numel()} values of y are not finite")
        noise.check_data(y)
        self.family, self.noise, self.y = family, noise, y

    def __repr__(self) -> str:
        return f"BlindMeasurement({self.family}, {self.noise}, batch of {len(self)})"

    def __len__(self) -> int:
        return len(self.y)

    @property
    def sigma(self) -> Tensor:
        """Noise standard deviation, with shape () or (B,)."""
        sigma: Tensor = self.noise.sigma
        return sigma

    def at(self, theta: Tensor) -> Measurement:
        """Return the measurement of the image, for known parameters (1 or B, ...)."""
        return Measurement(self.family.at(theta), self.noise, self.y)

    def at_image(self, x: Tensor) -> Measurement:
        """Return the measurement of the parameters, for known images (B, ...): `y - b(x)`."""
        return Measurement(self.family.at_image(x), self.noise, self.y - self.family.offset(x))

    def residual(self, x: Tensor, theta: Tensor) -> Tensor:
        """What image and parameters do not explain, `y - A(theta) x`."""
        return self.y - self.family.at(theta)(x)

    def misfit(self, x: Tensor, theta: Tensor) -> Tensor:
        """Root mean square of the residual, in noise deviations, with shape (B,); 1 is right."""
        size = self.residual(x, theta).square().flatten(1).mean(1).sqrt()
        return size / self.sigma.to(size)

    def repeat(self, n: int) -> "BlindMeasurement":
        """The measurement for a batch in which every item stands `n` times in a row."""
        return BlindMeasurement(self.family, self.noise.repeat(n), self.y.repeat_interleave(n, 0))

    def __getitem__(self, i: int | slice) -> "BlindMeasurement":
        """The measurement of some items; the batch axis stays."""
        at = items_at(i, len(self), self)
        return BlindMeasurement(self.family, self.noise[at], self.y[at])

    def __iter__(self) -> "Iterator[BlindMeasurement]":
        return (self[i] for i in range(len(self)))

    def to(self, device: str | torch.device) -> "BlindMeasurement":
        """The measurement on another device; this one stays where it is."""
        return BlindMeasurement(self.family, moved(self.noise, device), self.y.to(device))
