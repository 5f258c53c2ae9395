r"""What makes one setting better than another: the truth, or what the data themselves tell.

An objective takes a function that restores and a case, and gives a loss: less is better, and the
mean over cases is what `tune` makes small.

With the truth x at hand, `PSNR`. Without it, for `y = A x + sigma n` with sigma known and
`x_hat = f(y)`:

**Discrepancy** (Morozov). At the right amount of regularisation the residual is as large as the
noise, `||A x_hat - y|| = sigma sqrt(m)`. The loss is the square of the logarithm of the ratio. One
equation fixes one number: all settings but one must be fixed. It smooths too much, for the
residual of the best estimate is smaller than the noise (part of which it has fitted).

**SURE** (Stein). With J = df/dy, and noise that is Gaussian,

    E ||A x_hat - A x||^2 = E [ ||A x_hat - y||^2 - m sigma^2 + 2 sigma^2 tr(A J) ],

the error in the space of the measurements: for denoising the squared error itself, unbiased. It
asks for no linearity, only that f is weakly differentiable; the truth does not enter.

**ProjectedSURE.** The same identity with any linear map B from measurements to images in front,

    E ||B A (x_hat - x)||^2
        = E [ ||B (A x_hat - y)||^2 - sigma^2 tr(B B^T) + 2 sigma^2 tr(B^T B A J) ],

here with `B = (A^H A + gamma)^-1 A^H`: `B A` keeps the parts of the image with singular value s to
the share `s^2 / (s^2 + gamma)`. At gamma = 0 this is the error in the range of `A^H` (generalised
SURE), whose variance explodes where s is small; at `gamma = (sigma / spread)^2` parts count that
the data tell better than the spread of images does.

Both traces are estimated by random signs b, the same in every trial,

    tr(B^T B A J) ~ <B b, B A (f(y + e b) - f(y))> / e,      tr(B B^T) ~ ||B b||^2,

one more restoration per probe. *Neither sees the null space of A*: with missing pixels SURE is
the error at the pixels that were seen, and says nothing about the holes; with a blur it says
little about fine detail. Entries of y that no image reaches (outside a mask) are left out.

References:
    | Estimation of the Mean of a Multivariate Normal Distribution (Stein, 1981)
    | Monte-Carlo SURE: A Black-Box Optimization of Regularization Parameters (Ramani et al., 2008)
    | Generalized SURE for Exponential Families: Applications to Regularization (Eldar, 2009)
    | On the Solution of Functional Equations by the Method of Regularization (Morozov, 1966)
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from ..measurement import Measurement
from ..metrics import psnr
from ..tensors import generators, inner, randn_like

__all__ = ["PSNR", "SURE", "Case", "Discrepancy", "Objective", "ProjectedSURE", "Restore"]

Restore = Callable[[Measurement], Tensor]


class Case(NamedTuple):
    """One image to tune on.

    Attributes:
        measurement: What was seen of it, one item.
        truth: The image, with shape (1, *in_shape), or its part inside the frame of the
            measurement, where it is known.
    """

    measurement: Measurement
    truth: Tensor | None = None


@dataclass(frozen=True)
class Objective(ABC):
    """A loss of a restored case; smaller is better."""

    most: ClassVar[float] = math.inf  # number of settings that it can determine

    @abstractmethod
    def check(self, case: Case) -> None:
        """Raise a `ValueError` where a case lacks what the objective needs."""

    @abstractmethod
    def __call__(self, restore: Restore, case: Case) -> float:
        """The loss of a way to restore, on one case."""

    @abstractmethod
    def words(self, loss: float) -> str:
        """A loss in the field's unit."""


@dataclass(frozen=True)
class PSNR(Objective):
    """Peak signal-to-noise ratio against the truth: the loss is minus its value in dB.

    Args:
        data_range: Width of the interval of values.
    """

    data_range: float = 2.0

    def check(self, case: Case) -> None:
        operator = case.measurement.operator
        wanted = (1, *operator.in_shape)
        inside = operator.framed(torch.empty(wanted, device="meta")).shape
        got = "no truth" if case.truth is None else f"a truth of shape {tuple(case.truth.shape)}"
        if case.truth is None or case.truth.shape not in (wanted, inside):
            raise ValueError(
                f"PSNR: got {got}, wanted one of shape {wanted}; Discrepancy and SURE need none"
            )

    def __call__(self, restore: Restore, case: Case) -> float:
        assert case.truth is not None
        found = restore(case.measurement)
        if found.shape != case.truth.shape:
            found = case.measurement.operator.framed(found)
        return -float(psnr(found, case.truth, data_range=self.data_range))

    def words(self, loss: float) -> str:
        return f"{-loss:.3f} dB"


@dataclass(frozen=True)
class Discrepancy(Objective):
    """Discrepancy principle: the residual should be as large as the noise.

    Args:
        factor: Residual wanted, in units of the noise; a little above 1 where sigma is uncertain.
    """

    factor: float = 1.0

    most: ClassVar[float] = 1

    def check(self, case: Case) -> None:
        _gaussian(self, case.measurement)

    def __call__(self, restore: Restore, case: Case) -> float:
        m = case.measurement
        seen = _seen(m)
        r = seen * m.residual(restore(m))
        size = int(seen.sum()) * (2 if r.is_complex() else 1)
        ratio = math.sqrt(float(inner(r, r)) / size) / (self.factor * _gaussian(self, m))
        return math.log(max(ratio, 1e-12)) ** 2

    def words(self, loss: float) -> str:
        return f"residual off by a factor of {math.exp(math.sqrt(loss)):.4f}"


@dataclass(frozen=True)
class SURE(Objective):
    """Stein's unbiased estimate of the mean squared error of `A x_hat`, per entry of y.

    Args:
        probes: Number of random vectors for the divergence, of one more restoration each.
        step: Length of their steps, in units of sigma; longer for networks in low precision.
        seed: Seed of the vectors.
    """

    probes: int = 1
    step: float = 0.1
    seed: int = 0

    def check(self, case: Case) -> None:
        _gaussian(self, case.measurement)

    def __call__(self, restore: Restore, case: Case) -> float:
        m = case.measurement
        total = _stein(self, restore, m, lambda r: r)
        return total / (int(_seen(m).sum()) * (2 if m.y.is_complex() else 1))

    def words(self, loss: float) -> str:
        return f"estimated squared error {loss:.4g}"


@dataclass(frozen=True)
class ProjectedSURE(Objective):
    """Unbiased estimate of the mean squared error of what the data tell, per pixel.

    Args:
        probes: Number of random vectors for the divergence, of one more restoration each.
        step: Length of their steps, in units of sigma; longer for networks in low precision.
        seed: Seed of the vectors.
        spread: Standard deviation of images, in image units: parts count in which the noise,
            brought back to the image, is smaller.
    """

    probes: int = 1
    step: float = 0.1
    seed: int = 0
    spread: float = 0.5

    def check(self, case: Case) -> None:
        _gaussian(self, case.measurement)

    def __call__(self, restore: Restore, case: Case) -> float:
        m = case.measurement
        gamma = (_gaussian(self, m) / self.spread) ** 2
        total = _stein(self, restore, m, lambda r: m.operator.solve(m.operator.adjoint(r), gamma))
        return total / (m.adjoint_y.numel() * (2 if m.adjoint_y.is_complex() else 1))

    def words(self, loss: float) -> str:
        return f"estimated squared error {loss:.4g}"


def _stein(
    objective: SURE | ProjectedSURE,
    restore: Restore,
    m: Measurement,
    B: Callable[[Tensor], Tensor],  # noqa: N803 (the symbol of the page)
) -> float:
    """The estimate of `||B A (x_hat - x)||^2`."""
    A, seen, sigma = m.operator, _seen(m), _gaussian(objective, m)
    x, length = restore(m), objective.step * sigma
    r = B(seen * m.residual(x))
    found = float(inner(r, r))
    for generator in generators(objective.seed, objective.probes, m.y.device):
        b = seen * _signs(m.y, generator)
        moved = restore(Measurement(A, m.noise, m.y + length * b))
        image = B(b)
        trace = float(inner(image, B(seen * A(moved - x)))) / length
        found += sigma**2 * (2 * trace - float(inner(image, image))) / objective.probes
    return found


def _gaussian(objective: Objective, m: Measurement) -> float:
    """The noise level of a measurement, which must be Gaussian and known."""
    name = type(objective).__name__
    try:
        sigma = float(m.sigma.max())
    except TypeError as error:
        raise ValueError(f"{name}: got {m.noise}, wanted Gaussian noise") from error
    if not sigma > 0:
        raise ValueError(f"{name}: got noise-free data, wanted a known sigma above 0")
    return sigma


def _seen(m: Measurement) -> Tensor:
    """1 at the entries of y that some image reaches, 0 at the others."""
    blank = torch.zeros_like(m.adjoint_y)
    return (m.operator(randn_like(blank, generators(0, 1, blank.device))) != 0).to(m.y.real.dtype)


def _signs(like: Tensor, generator: torch.Generator) -> Tensor:
    n = randn_like(like, [generator])
    return torch.view_as_complex(torch.view_as_real(n).sign()) if n.is_complex() else n.sign()
