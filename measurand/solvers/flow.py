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

import torch
from torch import Tensor

from ..measurement import Measurement
from ..priors.denoiser import Restorer, require
from ..schedules import Callback, Step
from ..tensors import Generators
from .start import finite

__all__ = ["FlowUnfolding"]

FAR = 100.0  # no image, but what an inverse makes of latents far from those of training


@dataclass(frozen=True)
class FlowUnfolding:
    """The image that an unfolded network of flows makes of a measurement.

    Differentiates through the network: no; train it by `unfolded.unfolding_loss`.
    """

    command: ClassVar[str] = "flow-unfolding"

    @torch.no_grad()
    def __call__(
        self,
        measurement: Measurement,
        prior: Restorer,
        *,
        x0: Tensor | None = None,
        generator: Generators = None,
        callback: Callback = None,
    ) -> Tensor:
        """One estimate per item.

        Args:
            measurement: What was seen; the operator may be another than in training.
            prior: What makes an image of a measurement: an unfolded network of flows.
            x0: Not used: the network begins where it was trained to.
            generator: Not used.
            callback: Called with a `Step` once.
        Returns:
            The estimate, with shape (B, ...).
        """
        require(prior, Restorer, by=self, images=measurement.operator.in_dtype)
        x = prior.restore(measurement)
        if callback is not None:
            callback(Step(0, 0.0, x, x))
        largest = float(finite(x, by=self).abs().max())
        if largest > FAR:
            raise FloatingPointError(
                f"{self}: the result has values of {largest:.1e}, and images are in [-1, 1]; the "
                "network was not trained for such a problem or so much noise"
            )
        return x
