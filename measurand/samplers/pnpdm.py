r"""PnP-DM: split Gibbs sampling with a diffusion prior.

The posterior `p(x | y) ~ p(y | x) p(x)` is split by an auxiliary image z that couples to x with
strength rho,

    pi(x, z) ~ exp(-nll(z) - ||x - z||^2 / (2 rho^2)) p(x),

whose marginal in x tends to the posterior as rho -> 0. One sweep draws both conditionals:

    z ~ exp(-nll(z) - ||z - x||^2 / (2 rho^2))     Gaussian, exact: `conditional_sample`
    x ~ p(x) N(z; x, rho^2)                        the reverse SDE from level rho, started at z

and rho is annealed, `rho_k = max(rho_min, rho_max decay^k)`, because small rho mixes slowly. At
the end x is a draw from the posterior under data with the covariance `sigma^2 + rho_min^2 A A^H`:
within a mode, the mean and the spread of several chains are usable; the *weights* of separate
modes freeze while rho is large and are approximate.

A chain passes through the prior step again and again, so that a step which wears away a little
texture each time ends in smooth draws with too small a spread. The default is `HeunSDE`, which
keeps it; `ReverseSDE` is as good for Gaussian images and too smooth for photographs.

Deviations. The grid of a prior step begins exactly at rho (paper's code: the first node of a
fixed grid below rho, a small bias). Its number of steps shrinks with the level (paper: a fixed
grid), and its scheme is `HeunSDE` (paper's code: Euler-Maruyama, here `EulerSDE`, which needs four
times the calls). Annealing from 3 to 0.05 (paper: from 10 to 0.1 or 0.3): images in [-1, 1] have a
standard deviation of about 0.5.
"""

import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from torch import Tensor

from ..measurement import Measurement
from ..methods import Iterates, Sampler, Step
from ..priors.capabilities import Denoiser
from ..tensors import Generators
from ..validate import count, positive, share
from .reverse import HeunSDE, Reverse

__all__ = ["PnPDM"]


@dataclass(frozen=True)
class PnPDM(Sampler):
    """Posterior draws by alternating an exact data step and a reverse diffusion.

    A sweep draws `z ~ exp(-nll(z) - ||z - x||^2 / (2 rho^2))`, then `x ~ p(x) N(z; x, rho^2)`, at
    couplings rho that fall. Differentiates through the prior: no. One chain per item:

        draws = ms.samplers.PnPDM()(measurement.repeat(8), prior)

    Args:
        sweeps: Number of sweeps.
        rho_max: Coupling of the first sweep, in image units.
        decay: Factor of the coupling from one sweep to the next.
        rho_min: Coupling at which the annealing ends, in image units.
        reverse: The prior step. From level rho it makes the share of its `steps` that belongs to
            the range from rho to its `sigma_min`, on a logarithmic scale.
    References:
        | Principled Probabilistic Imaging using Diffusion Models as Plug-and-Play Priors (Wu et
          al., 2024)
        | arXiv:2405.18782
    """

    command: ClassVar[str] = "pnpdm"

    sweeps: int = 60
    rho_max: float = 3.0
    decay: float = field(default=0.9, metadata={"search": (0.0, 1.0)})
    rho_min: float = 0.05
    reverse: Reverse = field(default_factory=lambda: HeunSDE(steps=12, sigma_max=3.0))

    def __post_init__(self) -> None:
        count(self, "sweeps")
        positive(self, "rho_max", "rho_min")
        share(self, "decay", zero=False)

    @classmethod
    def quick(cls) -> Self:
        """134 denoiser calls a chain instead of 674: for a first look, and for processors.

        Its spread is that of the default to within some per cent: every prior step, also the one
        from the last coupling, has at least two steps, and ends far below it.
        """
        return cls(
            sweeps=24,
            rho_max=1.0,
            decay=0.87,
            reverse=HeunSDE(steps=5, sigma_max=1.0, sigma_min=0.01),
        )

    @property
    def levels(self) -> list[float]:
        """The coupling rho of every sweep."""
        return [max(self.rho_min, self.rho_max * self.decay**k) for k in range(self.sweeps)]

    @property
    def nfe(self) -> int:
        """Number of denoiser calls of one chain."""
        return sum(self.reverse.nfe(rho) for rho in self.levels)

    @property
    def rounds(self) -> int:
        """Number of steps that a call reports."""
        return self.sweeps

    def check(self, measurement: Measurement, prior: Any) -> None:
        """Also warn of a prior step that does not draw."""
        super().check(measurement, prior)
        if not self.reverse.stochastic:
            warnings.warn(
                f"PnPDM: a {type(self.reverse).__name__} as the prior step is not a posterior "
                "sample: the spread of the chains is too small; use HeunSDE",
                stacklevel=3,
            )

    def iterate(
        self, measurement: Measurement, prior: Denoiser, x: Tensor, generator: Generators
    ) -> Iterates:
        """Yields a `Step` after every sweep (x: the draw of z, x0: that of x)."""
        for sweep, rho in enumerate(self.levels):
            z = measurement.conditional_sample(x, rho, generator)
            grid = self.reverse.levels(rho)
            x = self.reverse.descend(prior.denoise, z, grid, generator, by=self)
            yield Step(sweep, rho, z, x)
        return x
