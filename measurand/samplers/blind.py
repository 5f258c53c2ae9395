r"""Blind-PnPDM: draws of image and operator, with a diffusion prior for each.

The posterior `p(x, theta | y) ~ p(y | x, theta) p(x) p(theta)` of a bilinear family A(theta) is
split by auxiliary copies z of the image and m of the parameters,

    pi(x, z, theta, m) ~ exp(-||y - A(m) z||^2 / (2 sigma^2) - ||x - z||^2 / (2 rho_x^2)
                             - ||theta - m||^2 / (2 rho_theta^2)) p(x) p(theta),

whose marginal in (x, theta) tends to the posterior as both couplings rho tend to zero. A sweep
draws four conditionals:

    z     ~ exp(-||y - A(m) z||^2 / (2 sigma^2) - ||z - x||^2 / (2 rho_x^2))          Gaussian
    x     ~ p(x) N(z; x, rho_x^2)                                                     reverse SDE
    m     ~ exp(-||y - A(m) z||^2 / (2 sigma^2) - ||m - theta||^2 / (2 rho_theta^2))  Gaussian
    theta ~ p(theta) N(m; theta, rho_theta^2)                                         reverse SDE

The Gaussians are exact: `conditional_sample` of `blind.at(m)` and of `blind.at_image(z)`. Both
couplings are annealed geometrically.

`PluginBlindPnPDM` puts theta for m into the step of z, and x for z into the step of m, and samples
nothing exactly.

**The start decides.** From a Gaussian kernel neither recovers a blurred photograph, and a chain
keeps the mode that it is in. So both begin with a search (`solvers.BlindHQS`): an image estimate
with the image prior and a kernel of least squares, in turns, from a classical estimate on. Run
several chains (`blind.repeat(4)`), which begin at different kernels, and see `summary` for the
best one, the modes, and the spread. The weights of modes are approximate.

Deviations from the paper, whose schedule is not known to us: the search; the grid of a prior step
begins exactly at rho, its scheme is `HeunSDE`; m is projected on what is physically possible (the
simplex of kernels) before it enters the step of z, and only there; pairs are re-centred after each
sweep, where shifts cannot be told apart.

References:
    | Plug-and-Play Posterior Sampling for Blind Inverse Problems (Li et al., 2025)
    | arXiv:2505.22923
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from ..blind import BlindMeasurement, Unknowns
from ..methods import Callback, Iterates, Sampler, Step, fitting
from ..priors.capabilities import Denoiser, require
from ..solvers.blind_hqs import BlindHQS
from ..tensors import Generators
from ..validate import count, positive
from .reverse import HeunSDE, Reverse

__all__ = ["BlindPnPDM", "BlindSampler", "PluginBlindPnPDM", "Priors"]


class Priors(NamedTuple):
    """The two priors of a blind problem.

    Attributes:
        x: Denoiser of images.
        theta: Denoiser of parameters.
    """

    x: Any
    theta: Any


@dataclass(frozen=True)
class BlindSampler(Sampler):
    """Base of samplers of image and parameters: two priors, and a start for both unknowns."""

    def __call__(
        self,
        measurement: Any,
        prior: Any,
        theta_prior: Any = None,
        *,
        x0: Unknowns | None = None,
        generator: Generators = None,
        callback: Callback = None,
    ) -> Unknowns:
        """Return one draw of image and parameters per item of the measurement.

        Args:
            measurement: What was seen, a `BlindMeasurement`.
            prior: Denoiser of images.
            theta_prior: Denoiser of parameters.
            x0: Where to start, `Unknowns(x, theta)`; the method's own start where None. A search
                makes an image of its own from the parameters.
            generator: One generator, one per item, or None for seed 0.
            callback: Called with a `Step` after every step; x and x0 are `Unknowns`.
        Returns:
            The draws (x, theta), with theta physically possible (a kernel on the simplex).
        Raises:
            TypeError: The measurement is no blind one, or one of the two is no denoiser.
            ValueError: A prior, x0 or the generators do not fit the measurement.
            FloatingPointError: The result is not finite.
        """
        found: Unknowns = super().__call__(
            measurement, Priors(prior, theta_prior), x0=x0, generator=generator, callback=callback
        )
        return found

    def check(self, measurement: BlindMeasurement, prior: Priors) -> None:
        """Raise an error where measurement and priors do not fit each other."""
        name = type(self).__name__
        _require_blind(name, measurement)
        family = measurement.family
        if prior.theta is None:
            raise TypeError(
                f"{name}: got one prior, wanted two: of the image and of {family}'s parameters, "
                'such as measurand.load("kernels-64")'
            )
        for one in prior:
            require(one, Denoiser, by=self, images=torch.float32)
        for what, one, shape in zip(
            ("images", "parameters"), prior, (family.in_shape, family.theta_shape), strict=True
        ):
            channels = getattr(one, "channels", None)
            if channels is not None and channels != shape[0]:
                raise ValueError(
                    f"{name}: got a prior of {channels} channels for {what} of {shape[0]} "
                    f"({family})"
                )
        family.check_prior(prior.theta)
        _check_range(name, measurement, prior.x)

    def start(self, measurement: BlindMeasurement, x0: Unknowns | None) -> Unknowns:
        """Return where the loop starts: the unknowns given, or those of the family."""
        plain = Unknowns(*measurement.family.start(measurement.y))
        return plain if x0 is None else fitting(x0, plain, by=self)


def _require_blind(name: str, measurement: Any) -> None:
    """Raise a `TypeError` where a measurement is one of a known operator."""
    if not isinstance(measurement, BlindMeasurement):
        raise TypeError(
            f"{name}: got a {type(measurement).__name__}, wanted "
            "measurand.BlindMeasurement(family, noise, y); on the command line an operator with "
            "unknowns, such as unknown-blur"
        )


def _check_range(name: str, measurement: BlindMeasurement, prior: Any) -> None:
    """Raise a `ValueError` where data of a blur cannot be those of images in the prior's range."""
    if prior.range is None or not measurement.family.averages:
        return
    low, high = prior.range
    slack = 0.25 * (high - low) + 6 * float(measurement.sigma.max())
    least, most = float(measurement.y.min()), float(measurement.y.max())
    if least < low - slack or most > high + slack:
        raise ValueError(
            f"{name}: got data from {least:.3g} to {most:.3g}, the prior's images lie in "
            f"[{low:g}, {high:g}]: scale the data, or put measurand.priors.Rescaled(prior, range) "
            "around the prior"
        )


@dataclass(frozen=True)
class BlindPnPDM(BlindSampler):
    """Draws of image and operator by Gibbs sampling with two diffusion priors.

    Differentiates through the priors: no. One chain per item of the measurement: four chains are
    `BlindPnPDM()(blind.repeat(4), prior, theta_prior)`.

    Args:
        sweeps: Number of sweeps.
        rho_max: Coupling of the image in the first sweep, in image units.
        rho_min: That of the last sweep.
        theta_rho_max: Coupling of the parameters in the first sweep, in units of theta; that
            of the family (`couplings`) where None.
        theta_rho_min: That of the last sweep.
        reverse: The prior step of the image.
        theta_reverse: The prior step of the parameters.
        projected: Whether parameters are projected on what is possible before they act on an
            image.
        search: What looks for the mode before the first sweep; where None, the sweeps begin at
            x0, or at the family's plain start.
    References:
        | Plug-and-Play Posterior Sampling for Blind Inverse Problems (Li et al., 2025)
        | arXiv:2505.22923
    """

    command: ClassVar[str] = "blind-pnpdm"

    sweeps: int = 10
    rho_max: float = 0.1
    rho_min: float = 0.05
    theta_rho_max: float | None = field(default=None, metadata={"start": 0.01})
    theta_rho_min: float | None = field(default=None, metadata={"start": 0.0025})
    reverse: Reverse = field(default_factory=lambda: HeunSDE(steps=8, sigma_max=1.0))
    theta_reverse: Reverse = field(
        default_factory=lambda: HeunSDE(steps=6, sigma_max=0.3, sigma_min=0.001)
    )
    projected: bool = True
    search: BlindHQS | None = field(default_factory=lambda: BlindHQS(turns=16))

    def __post_init__(self) -> None:
        count(self, "sweeps")
        positive(self, "rho_max", "rho_min", "theta_rho_max", "theta_rho_min")

    @classmethod
    def quick(cls) -> Self:
        """Fewer turns of the search and fewer sweeps: for a first look, and for processors."""
        return cls(
            sweeps=4,
            search=BlindHQS(),
            reverse=HeunSDE(steps=6, sigma_max=1.0, sigma_min=0.01),
            theta_reverse=HeunSDE(steps=5, sigma_max=0.3, sigma_min=0.001),
        )

    def settled(self, measurement: BlindMeasurement) -> Self:
        """Return the method with the couplings of the family where none are given."""
        _require_blind(type(self).__name__, measurement)
        first, last = measurement.family.couplings
        return replace(
            self,
            theta_rho_max=self.theta_rho_max or first,
            theta_rho_min=self.theta_rho_min or last,
        )

    @property
    def nfe(self) -> int:
        """Number of calls of the image denoiser of one chain."""
        levels = self._annealed(self.rho_max, self.rho_min)
        found = 0 if self.search is None else self.search.nfe
        return found + sum(self.reverse.nfe(rho) for rho in levels)

    def _annealed(self, first: float, last: float) -> list[float]:
        """The couplings of every sweep, geometric from first to last."""
        n = max(1, self.sweeps - 1)
        return [first * (last / first) ** (k / n) for k in range(self.sweeps)]

    @property
    def rounds(self) -> int:
        """Number of steps that a call reports."""
        return self.sweeps + (0 if self.search is None else self.search.turns)

    def check(self, measurement: BlindMeasurement, prior: Priors) -> None:
        """Raise an error where measurement and priors do not fit each other."""
        super().check(measurement, prior)
        if self.search is not None:
            self.search.check(measurement, prior.x)

    def start(self, measurement: BlindMeasurement, x0: Unknowns | None) -> Unknowns:
        """Return where the search starts: the unknowns given, or its own start."""
        if self.search is None:
            return super().start(measurement, x0)
        return self.search.start(measurement, x0)

    def iterate(
        self, measurement: BlindMeasurement, prior: Priors, start: Unknowns, generator: Generators
    ) -> Iterates:
        """Yields a `Step` after every sweep (x: the copies z and m, x0: image and parameters)."""
        family = measurement.family
        assert self.theta_rho_max is not None and self.theta_rho_min is not None  # settled
        first = 0
        if self.search is not None:
            start = yield from self.search.iterate(measurement, prior.x, start, generator)
            first = self.search.turns
        x, theta = start
        m = theta
        levels = zip(
            self._annealed(self.rho_max, self.rho_min),
            self._annealed(self.theta_rho_max, self.theta_rho_min),
            strict=True,
        )
        for sweep, (rho, rho_theta) in enumerate(levels, first):
            acting = self.acting(m, theta)
            known = measurement.at(family.project(acting) if self.projected else acting)
            z = known.conditional_sample(x, rho, generator)
            x = _drawn(self.reverse, prior.x, z, rho, generator, by=self)
            seen = measurement.at_image(self.seen(z, x))
            m = seen.conditional_sample(theta, rho_theta, generator)
            theta = _drawn(self.theta_reverse, prior.theta, m, rho_theta, generator, by=self)
            x, theta, z, m = family.aligned(x, theta, z, m)
            yield Step(sweep, rho, Unknowns(z, m), Unknowns(x, theta))
        return Unknowns(x, family.project(theta) if self.projected else theta)

    def acting(self, m: Tensor, theta: Tensor) -> Tensor:
        """Return the parameters by which the image is drawn: the copy m."""
        return m

    def seen(self, z: Tensor, x: Tensor) -> Tensor:
        """Return the image by which the parameters are drawn: the copy z."""
        return z


def _drawn(
    reverse: Reverse, prior: Denoiser, copy: Tensor, rho: float, generator: Generators, *, by: Any
) -> Tensor:
    """A draw of `p(x) N(copy; x, rho^2)`, the prior step."""
    return reverse.descend(prior.denoise, copy, reverse.levels(rho), generator, by=by)


@dataclass(frozen=True)
class PluginBlindPnPDM(BlindPnPDM):
    """Blind-PnPDM with theta and x in place of their copies in the likelihood steps.

    Faster from a poor start, and not a Gibbs sampler of any distribution: its spread is no
    posterior spread.
    """

    command: ClassVar[str] = "plugin-blind-pnpdm"

    def acting(self, m: Tensor, theta: Tensor) -> Tensor:
        """Return the parameters by which the image is drawn: theta itself."""
        return theta

    def seen(self, z: Tensor, x: Tensor) -> Tensor:
        """Return the image by which the parameters are drawn: x itself."""
        return x
