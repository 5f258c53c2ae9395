r"""The mean of a posterior, by one evaluation of its denoiser.

At a level far above the image nothing is left of it in `x_s = x + s n`, so that
`E[x | x_s, y] = E[x | y]`: the estimate of least squared error, at the price of one evaluation.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..measurement import Measurement
from ..methods import Iterates, Method, Step, given_or_zeros
from ..priors.capabilities import Posterior
from ..tensors import Generators, randn_like
from ..validate import positive

__all__ = ["PosteriorMean"]


@dataclass(frozen=True)
class PosteriorMean(Method):
    """E[x given y] of an unfolded network or an exact prior, in one evaluation.

    Differentiates through the prior: no.

    Args:
        sigma_max: Level of the noise that the denoiser is given, far above the image.
    """

    needs: ClassVar[tuple[type, ...]] = (Posterior,)
    command: ClassVar[str] = "posterior-mean"

    sigma_max: float = 80.0

    def __post_init__(self) -> None:
        positive(self, "sigma_max")

    @property
    def rounds(self) -> int:
        """Number of steps that a call reports."""
        return 1

    def start(self, measurement: Measurement, x0: Tensor | None) -> Tensor:
        """Return the mean of the noisy image: the image given, or zero; it hardly matters."""
        return given_or_zeros(x0, measurement, by=self)

    def iterate(
        self, measurement: Measurement, prior: Posterior, x: Tensor, generator: Generators
    ) -> Iterates:
        """Yields one `Step` (x: the noisy image)."""
        v = x + self.sigma_max * randn_like(x, generator)
        x = prior.given(measurement).denoise(v, self.sigma_max)
        yield Step(0, self.sigma_max, v, x)
        return x
