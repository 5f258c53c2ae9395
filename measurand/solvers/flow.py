r"""Flow unfolding: the image behind a measurement by one pass of an unfolded network.

The network (`unfolded.flow_proximal.FlowProximal`) alternates steps for the data with steps
through a normalizing flow, as many as it was trained with; here it is given a measurement and
asked once. It knows the density of what it returns: `network.log_prob(x)`.

References:
    | Deep Unfolding with Normalizing Flow Priors for Inverse Problems (Wei et al., 2022)
    | arXiv:2107.02848
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..measurement import Measurement
from ..methods import Iterates, Method, Step, finite, given_or_zeros
from ..priors.capabilities import Restorer
from ..tensors import Generators

__all__ = ["FlowUnfolding"]

FAR = 100.0  # no image, but what an inverse makes of latents far from those of training


@dataclass(frozen=True)
class FlowUnfolding(Method):
    """The image that an unfolded network of flows makes of a measurement.

    Differentiates through the network: no; train it by `unfolded.unfolding_loss`.
    """

    needs: ClassVar[tuple[type, ...]] = (Restorer,)
    command: ClassVar[str] = "flow-unfolding"

    @property
    def rounds(self) -> int:
        """Number of steps that a call reports."""
        return 1

    def start(self, measurement: Measurement, x0: Tensor | None) -> Tensor:
        """Return an image that is not used: the network begins where it was trained to."""
        return given_or_zeros(x0, measurement, by=self)

    def iterate(
        self, measurement: Measurement, prior: Restorer, x: Tensor, generator: Generators
    ) -> Iterates:
        """Yields one `Step`, of the result."""
        x = prior.restore(measurement)
        yield Step(0, 0.0, x, x)
        largest = float(finite(x, by=self).abs().max())
        if largest > FAR:
            raise FloatingPointError(
                f"{self}: the result has values of {largest:.1e}, and images are in [-1, 1]; the "
                "network was not trained for such a problem or so much noise"
            )
        return x
