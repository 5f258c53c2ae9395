"""The prior and the method of a problem for which none is named: the best that ship.

What is best was measured on photographs (`benchmarks/choice.py`), brains
(`benchmarks/unfolding_brain.py`, `benchmarks/brain.py`) and CT (`benchmarks/body.py`):

    colour photographs   the posterior mean of `unfold-color`, 0.1 to 0.5 dB above HQS on blurs,
                         block averages and holes; ADMM with `natural-color` for denoising (up to
                         0.5 dB above it), and where less than a quarter is seen (0.3)
    grey photographs     `natural-gray`, with HQS for blurs and ADMM for everything else
    several coils        the posterior mean of `unfold-brain`, 0.1 to 0.5 dB above ADMM
    other complex data   ADMM with `mri-brain`, 1.5 to 2 dB above HQS
    Hounsfield units     ADMM with `ct-body`, 2.3 dB above total variation from 60 views
    everything else      total variation: a network knows images of its own kind and units only
"""

from __future__ import annotations

from typing import Any, NamedTuple

from ..methods import Method
from ..operators import (
    SENSE,
    Blur,
    Identity,
    LinearOperator,
    Mask,
    ReflectiveBlur,
    ValidBlur,
)
from ..priors.capabilities import Posterior, Proximable
from ..solvers import ADMM, FISTA, HQS, RELD, FlowUnfolding, PosteriorMean

__all__ = ["Choice", "choice", "method_of"]

TV = "total-variation"


class Choice(NamedTuple):
    """What is used for a problem.

    Attributes:
        prior: The name of a prior.
        method: A method.
        why: A sentence about both.
    """

    prior: str
    method: Method
    why: str


def choice(operator: LinearOperator, method: Method | None = None, *, ct: bool = False) -> Choice:
    """Return the best prior and method for an operator, or the best prior for a method.

    Args:
        operator: How the image was measured.
        method: The method, where it is named.
        ct: Whether the images are in Hounsfield units.
    """
    images, denoiser, network = _images(operator, ct)
    if method is None:
        return _best(operator, images, denoiser, network)
    first = method.needs[:1]  # what it was made for
    if first == (Proximable,) or not denoiser:
        prior = TV
    elif first == (Posterior,):
        prior = network or TV
    else:
        prior = denoiser
    return Choice(prior, method, f"prior {prior}, for {images} and {method.command}")


def method_of(prior: Any, operator: LinearOperator) -> Method:
    """Return the method for a prior that is named: the first that can use it.

    Args:
        prior: The prior.
        operator: How the image was measured.
    """
    ways = (_splitting(operator), PosteriorMean(), FlowUnfolding(), RELD(), FISTA())
    return next((way for way in ways if isinstance(prior, way.needs)), HQS())


def _images(operator: LinearOperator, ct: bool) -> tuple[str, str, str]:
    """What the images are, the denoiser of such images, and the network with physics inside."""
    shape, complex_ = operator.in_shape, operator.in_dtype.is_complex
    if complex_ and len(shape) == 3:
        return "complex images", "mri-brain", "unfold-brain"
    if ct and len(shape) == 3 and shape[0] == 1:
        return "a slice in Hounsfield units", "ct-body", ""
    if operator.pictures and len(shape) == 3 and shape[0] in (1, 3):
        if shape[0] == 1:
            return "a grey picture", "natural-gray", "unfold-color"
        return "a colour picture", "natural-color", "unfold-color"
    if not operator.pictures:
        return "data in units of their own", "", ""
    return f"images of {shape[0]} channels", "", ""


def _best(operator: LinearOperator, images: str, denoiser: str, network: str) -> Choice:
    if not denoiser:
        why = f"prior {TV}, method fista: no network that ships knows {images}"
        return Choice(TV, FISTA(), why)
    split = _splitting(operator)
    if operator.in_dtype.is_complex:
        inside = isinstance(operator, SENSE)
    elif not network or denoiser == "natural-gray" or isinstance(operator, Identity):
        inside = False
    else:
        inside = not (isinstance(operator, Mask) and operator.trace_gram() < 0.25)
    prior, method = (network, PosteriorMean()) if inside else (denoiser, split)
    problem = type(operator).__name__
    why = f"prior {prior}, method {method.command}: the best that ship for {images} and {problem}"
    return Choice(prior, method, why)


def _splitting(operator: LinearOperator) -> Method:
    """Return the splitting method for an operator, with any denoiser."""
    return HQS() if isinstance(operator, Blur | ReflectiveBlur | ValidBlur) else ADMM()
