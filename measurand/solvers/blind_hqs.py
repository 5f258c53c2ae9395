r"""Image and kernel in turns, with an image prior that is a network.

Expectation maximisation finds the parameters that make data likely whatever the image,

    theta = argmax of ln p(theta) + ln of the integral over x of p(y | x, theta) p(x),

by turns of an image estimate with the parameters as they stand and of parameters that explain the
data with that image (`BlurFamily.fitted`). Three things keep it from ending where it began:

    * The estimate is a solution by HQS from scratch. An image that is carried on from turn to turn
      has taken on the errors of the first kernels, and explains the data with them.
    * The first images are made as if the data were noisier than they are: then the prior shapes
      the image more than an inverse of the wrong kernel does, and the kernel is free to move.
    * The image is uncertain (`doubt`), more so at first. Least squares that trust it take what the
      prior smoothed for sharpness of the kernel.

It begins at a classical estimate (`BlindEdges`): from a point or a wide Gaussian it ends in the
image that is as blurred as the data. Fit is judged on all frequencies alike, where the noise is
white; classical methods, whose images are poor in low frequencies, judge it on gradients.

References:
    | Efficient Marginal Likelihood Optimization in Blind Deconvolution (Levin et al., 2011)
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from ..blind import BlindMeasurement, Unknowns
from ..measurement import Measurement
from ..methods import Iterates, Method, Step, fitting
from ..operators.families import BlurFamily
from ..priors.capabilities import Denoiser, require
from ..tensors import Generators
from ..validate import count, positive
from .blind import BlindEdges
from .levels import width
from .splitting import HQS

__all__ = ["BlindHQS", "louder"]


@dataclass(frozen=True)
class BlindHQS(Method):
    """Image and kernel in turns: half-quadratic splitting, and least squares.

    Differentiates through the prior: no. Items with equal data (`blind.repeat(4)`) begin at
    different kernels, as in `BlindEdges`.

    Args:
        turns: Number of turns; each takes the denoiser calls of `solver`.
        louder: Factor of the noise level in the first turn; one in the last.
        doubt: Errors of the image in the first turn, as a share of the prior's value range.
        doubt_last: Those in the last turn.
        solver: What makes an image of a known kernel.
        init: What makes the first kernel.
    """

    turns: int = 8
    louder: float = field(default=3.0, metadata={"search": (1.0, 30.0)})
    doubt: float = 0.05
    doubt_last: float = 0.015
    solver: HQS = field(default_factory=lambda: HQS(steps=6), metadata={"search": None})
    init: BlindEdges = field(default_factory=BlindEdges, metadata={"search": None})

    command: ClassVar[str] = ""

    def __post_init__(self) -> None:
        count(self, "turns")
        positive(self, "louder", "doubt", "doubt_last")
        if self.louder < 1:
            raise ValueError(f"BlindHQS: got louder = {self.louder:g}, wanted at least 1")

    @property
    def rounds(self) -> int:
        """Number of steps that a call reports."""
        return self.turns

    @property
    def nfe(self) -> int:
        """Number of calls of the denoiser."""
        return self.turns * (self.solver.steps or 16)

    def check(self, measurement: Any, prior: Any) -> None:
        """Raise an error where measurement and prior do not fit the method or each other."""
        self.init.check(measurement, prior)
        require(prior, Denoiser, by=self, images=torch.float32)

    def start(self, measurement: BlindMeasurement, x0: Unknowns | None) -> Unknowns:
        """Return the unknowns given, of which the kernel counts, or what `init` finds."""
        if x0 is None:
            return self.init(measurement)
        return fitting(x0, Unknowns(*measurement.family.start(measurement.y)), by=self)

    def iterate(
        self, measurement: BlindMeasurement, prior: Denoiser, x: Unknowns, generator: Generators
    ) -> Iterates:
        """Yields a `Step` after every turn."""
        family: Any = measurement.family
        assert isinstance(family, BlurFamily)  # checked
        for k in range(self.turns):
            share = k / (self.turns - 1) if self.turns > 1 else 1.0
            factor = self.louder ** (1 - share)
            doubt = self.doubt ** (1 - share) * self.doubt_last**share * width(prior)
            known = measurement.at(family.project(x.theta))
            image = self.solver(louder(known, factor), prior)
            theta = family.fitted(image, measurement.y, measurement.sigma, doubt)
            x = Unknowns(*family.aligned(image, theta))
            yield Step(k, factor * measurement.sigma, x, x)
        return x


def louder(measurement: Measurement, factor: float) -> Measurement:
    """Return the measurement as if its noise were so many times as large."""
    noise: Any = measurement.noise
    return Measurement(measurement.operator, type(noise)(noise.sigma * factor), measurement.y)
