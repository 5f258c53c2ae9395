r"""Measurements as coordinates of the image: which are seen, and with how much noise.

With `A = U Sigma V^H`, data `y = A x + e` with white noise sigma_e give, where s > 0,

    c = Sigma^+ U^H y = P V^H x + Sigma^+ U^H e,      sd(c_k) = sigma_e / s_k =: d_k

(`LinearOperator.diagonal`). A coordinate that is known with d_k <= sigma becomes one of noise
level sigma by more noise, `u_k = c_k + sqrt(sigma^2 - d_k^2) n_k`; the others count as not seen
at that level:

    P_k(sigma) = 1 where d_k <= sigma,     u = V (P (c + extra n) + (1 - P) c_missing).

A clean target is not there if y is noisy, but one whose noise tells nothing about u is: with
`extra^2 = sigma^2 - d^2`,

    t = c - (d^2 / extra) n,      E<t - x, u - x> = d^2 - (d^2 / extra) extra = 0,

so that `E|D(u) - t|^2 = E|D(u) - x|^2 + d^2 + d^4 / extra^2` for every function D: the best prior
has the smallest loss, and none is rewarded for the noise that it reproduces. Used for
`d <= sigma / sqrt(2)`, where t has at most twice the variance of c.

References:
    | Recorrupted-to-Recorrupted: Unsupervised Deep Learning for Image Denoising
    | (Pang et al., 2021)
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..measurement import Measurement
from ..operators import SENSE, CartesianMRI
from ..priors.capabilities import Denoiser, Range, require
from ..priors.wrappers import Rescaled
from ..tensors import per_item, randn_like

__all__ = ["Coordinates", "combined", "coordinates", "in_range", "weights"]

ROUNDING = 1 + 1e-6
REAL, COMPLEX = (torch.float32, torch.float64), (torch.complex64, torch.complex128)


@dataclass(frozen=True)
class Coordinates:
    """What N measurements say of the coordinates of their images.

    Args:
        analysis: Images -> coordinates, `V^H x`.
        synthesis: Coordinates -> images, `V c`.
        known: The coordinates c, with shape (N, ...); zero where nothing is seen.
        sd: Their noise standard deviation d, with the shape of `known`; infinite where nothing is
            seen.
        missing: What stands where nothing is seen, with shape (1 or N, ...).
        blank: An image of zeros, with shape (1, *shape).
    """

    analysis: Callable[[Tensor], Tensor]
    synthesis: Callable[[Tensor], Tensor]
    known: Tensor
    sd: Tensor
    missing: Tensor
    blank: Tensor

    def __len__(self) -> int:
        return len(self.known)

    def __getitem__(self, items: slice | Tensor) -> "Coordinates":
        """The coordinates of some items."""
        missing = self.missing[items] if len(self.missing) > 1 else self.missing
        return replace(self, known=self.known[items], sd=self.sd[items], missing=missing)

    @property
    def parts(self) -> int:
        """Real numbers per coordinate: 2 for complex images."""
        return 2 if self.blank.is_complex() else 1

    @property
    def least(self) -> Tensor:
        """The smallest noise in a coordinate of each item, with shape (N,)."""
        return self.sd.flatten(1).amin(1)

    @property
    def keep(self) -> float:
        """The share of coordinates that a measurement sees, in the mean."""
        return float(self.sd.isfinite().double().mean())

    def filler(self, own: bool) -> Tensor:
        """Return `missing` of all items, as a tensor of its own where it is to be written to."""
        whole = self.missing.expand(self.known.shape)
        return whole.clone() if own else whole

    def seen(self, sigma: float | Tensor, ratio: float = 1.0) -> Tensor:
        """Return P(sigma), with the shape of `known`: where `ratio d <= sigma`."""
        return ratio * self.sd <= ROUNDING * per_item(sigma, self.sd)

    def noise(self, generator: torch.Generator | Sequence[torch.Generator]) -> Tensor:
        """Return white noise of one in the image, as N images."""
        return randn_like(self.blank.expand(len(self), *self.blank.shape[1:]), generator)

    def noisy(self, sigma: float | Tensor, noise: Tensor, seen: Tensor, spread: bool) -> Tensor:
        """Return the images u of noise level sigma.

        Args:
            sigma: Noise level, a scalar or one per item.
            noise: Coordinates `V^H n` of white noise, with the shape of `known`.
            seen: P(sigma).
            spread: Whether noise is also added where nothing is seen.
        """
        beyond = self.missing + per_item(sigma, self.sd) * noise if spread else self.missing
        return self.synthesis(torch.where(seen, self.known + self.extra(sigma) * noise, beyond))

    def target(self, sigma: float | Tensor, noise: Tensor) -> Tensor:
        """Return the targets t of u, coordinates that are of use where `sqrt(2) d <= sigma`."""
        return self.known - self.sd.square() / self.extra(sigma) * noise

    def excess(self, sigma: float | Tensor) -> Tensor:
        """Return the variance `d^2 + d^4 / extra^2` of the targets, per real number."""
        variance = self.sd.square()
        return variance + variance.square() / self.extra(sigma).square()

    def extra(self, sigma: float | Tensor) -> Tensor:
        """Return the noise that is to be added, `sqrt(max(sigma^2 - d^2, 0))`."""
        return (per_item(sigma, self.sd).square() - self.sd.square()).clamp_min(0).sqrt()


def weights(seen: Tensor, exponent: float) -> Tensor:
    """Return `E[P]^(2 exponent)` of each coordinate, with shape (1, ...); zero where E[P] is."""
    share = seen.sum(0, keepdim=True).double() / len(seen)
    return torch.where(share > 0, share.clamp_min(1e-300) ** (2 * exponent), 0.0)


def in_range(prior: Denoiser, range: Range) -> Denoiser:
    """Return the prior for images of another value range; itself where it takes any."""
    return prior if prior.range in (None, tuple(range)) else Rescaled(prior, range)


def coordinates(
    measurements: Sequence[Measurement],
    priors: Sequence[Denoiser],
    range: Range,
    *,
    fixed: bool,
    by: object,
    fill: Tensor | None = None,
) -> Coordinates:
    """Return measurements as coordinates of their images.

    Args:
        measurements: The measurements, each a batch; of images of one shape and kind, and with
            operators that are diagonal in one basis.
        priors: What they are for: of images of the same kind.
        range: Lowest and highest value of the images; its middle stands where nothing is seen.
        fixed: Whether it is meant that all see the same coordinates and none the others.
        by: Who asks, for messages.
        fill: Images whose coordinates stand where nothing is seen, with shape (N, *shape).
    """
    name = type(by).__name__
    if not measurements:
        raise ValueError(f"{name}: got no measurements, wanted at least one")
    for m in measurements:
        if not isinstance(m, Measurement):
            raise TypeError(f"{name}: got a {type(m).__name__} among the measurements")
    first = measurements[0].operator
    for prior in priors:
        require(prior, Denoiser, by=by, images=first.in_dtype)
    for m in measurements:
        if (m.operator.in_shape, m.operator.in_dtype) != (first.in_shape, first.in_dtype):
            raise ValueError(
                f"{name}: got measurements of different images, {first} and {m.operator}; wanted "
                "one shape and kind"
            )
    kinds = [*(m.y.dtype for m in measurements), *(prior.dtype for prior in priors)]
    wide = any(kind in (REAL[1], COMPLEX[1]) for kind in kinds)
    blank = first.blank_input().to(measurements[0].y.device)
    blank = blank.to((COMPLEX if blank.is_complex() else REAL)[wide])
    bases = [m.operator.diagonal() for m in measurements]
    probe = randn_like(blank, None)
    probe_c = bases[0].analysis(probe)
    known, sd = [], []
    for m, basis in zip(measurements, bases, strict=True):
        other = basis.analysis(probe)
        if other.dtype != probe_c.dtype or not torch.allclose(other, probe_c, atol=1e-3):
            raise ValueError(
                f"{name}: {first} and {m.operator} are diagonal in different bases; wanted "
                "measurements of one kind"
            )
        c = basis.coordinates(m.adjoint_y)
        seen = basis.seen(m.y.dtype)
        noise = per_item(m.sigma, c) / torch.where(seen, basis.values, 1.0)
        known.append(c.to(probe_c.dtype))
        sd.append(torch.where(seen, noise, math.inf).to(blank.real.dtype).expand(c.shape))
    middle = blank + sum(range) / 2
    if fill is not None and fill.shape != (sum(map(len, measurements)), *first.in_shape):
        raise ValueError(
            f"{name}: got images to fill in with shape {tuple(fill.shape)}, wanted one for each "
            f"of {sum(map(len, measurements))} measurements of {first}"
        )
    missing = bases[0].analysis(middle if fill is None else fill.to(blank))
    result = Coordinates(
        bases[0].analysis, bases[0].synthesis, torch.cat(known), torch.cat(sd), missing, blank
    )
    part = result.sd.isfinite()
    if not fixed and bool((part == part[:1]).all()) and not bool(part.all()):
        raise ValueError(
            f"{name}: all {len(result)} measurements see the same "
            f"{100 * result.keep:.0f} % of the coordinates ({first}), so that nothing is known of "
            "the others; wanted operators that differ from one to the next. Where this is meant, "
            "say fixed=True (--fixed): what comes out then is a part only"
        )
    return result


def combined(measurement: Measurement) -> Measurement:
    """Return multi-coil MRI data as those of a single coil, approximately.

    k-space of the combined image `x = (A^H A + g)^-1 A^H y`, g = max(sigma^2, 0.001), where it was
    sampled: exact in the limit of coils that determine the image, up to the colour of its noise,
    which counts as white. The operator of several coils has no singular vectors in closed form.

    Args:
        measurement: Data of `SENSE`, with maps whose squared magnitudes add up to one.
    """
    operator = measurement.operator
    if not isinstance(operator, SENSE):
        raise TypeError(f"combined: got {operator}, wanted SENSE")
    gamma = measurement.sigma.square().clamp_min(1e-3)
    x = operator.solve(measurement.adjoint_y, gamma)
    single = CartesianMRI(operator.in_shape, operator.mask)
    return Measurement(single, measurement.noise, single(x))
