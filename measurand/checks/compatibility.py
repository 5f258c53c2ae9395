r"""Do this operator, this prior and this measurement fit together?

Most wrong reconstructions are not wrong methods but a wrong pair: an image in [0, 1] for a prior
of [-1, 1], a noise level on another scale, an adjoint that is not one, a network that is told its
noise in other units. Each has a trace that can be measured before any result is believed:

    shape, kind        y is what the operator measures, and finite
    adjoint, norm      the laws of `checks.laws`, for this operator
    prox optimality    A^H (A p - y) + gamma (p - v) = 0 at the weights that a method will use
    clipping           few data stand exactly at their largest or smallest value
    k-space            the mask is that of the data, the zero frequency in the middle, and one
                       image explains all coils
    projections        their moments are those of an image, seen from these angles about the middle
    kernel             it stands in its middle, and on no pedestal
    channels           the prior accepts the images that the operator takes
    gain               of an image of ones, A 1: a kernel that does not sum to one
    value range        where the initialization A^H y / A^H A 1 lies, against the prior's range and
                       the noise; of complex images, how large it is, and whether it is in the
                       middle
    noise of the prior the denoiser is best when it is told the noise that is there
    domain             a special prior knows the reconstruction better than that of photographs
    edges              of a periodic operator: the residual of a quick reconstruction at the border
                       against that inside; a camera's picture does not wrap around
    kernel width       of a blur: that residual at middle frequencies
    noise level        the residual of a quick reconstruction x_hat, against the residual of a
                       simulated measurement of x_hat with the claimed noise, reconstructed in the
                       same way (a parametric bootstrap): too little claimed noise leaves residuals
                       above it, too much below; and, where y is a picture, the noise seen in it

`check_fit` asks all of them (see `questions`) and stops asking where an answer makes the next
question void. An unfolded network, which has the physics inside, is asked for its range as any
prior is, and its own result is the quick reconstruction; it is not a denoiser that could be told a
noise.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..measurement import Measurement
from ..noises import Gaussian, Noise
from ..operators import LinearOperator, ParallelCT
from ..operators.convolution import Convolution
from ..priors.capabilities import Denoiser, Latent, Posterior, Proximable, Restorer
from ..solvers import FISTA, HQS, RELD, FlowUnfolding, PosteriorMean, noise_in_image
from ..start import first_guess
from ..tensors import generators
from .questions.data import clipped, finite, shape_and_kind, value_range
from .questions.kspace import coils, halves, is_kspace, order, samples
from .questions.operator import adjoint, gain, norm_confirmed, point_spread, prox_optimality, wraps
from .questions.prior import domain, noise_of_the_prior
from .questions.projections import angles, axis
from .questions.residual import edges, kernel, noise_level
from .questions.verdict import FITS, NOT, Verdict, fits

__all__ = ["check_fit"]


class Way(NamedTuple):
    """How a prior is asked, by what it can do.

    Attributes:
        can: The capability.
        quick: A method for such priors that gives an image soon.
        answer: What the prior makes of a measurement and an initialization.
        inside: Whether it has the physics inside.
    """

    can: type
    quick: Any
    answer: Callable[[Any, Measurement, Tensor], Tensor]
    inside: bool = False


WAYS = (  # the first one counts
    Way(Denoiser, HQS(steps=8), lambda prior, m, x: prior.denoise(x, 0.1)),
    Way(Posterior, PosteriorMean(), lambda prior, m, x: prior.given(m).denoise(x, 0.1), True),
    Way(Restorer, FlowUnfolding(), lambda prior, m, x: prior.restore(m), True),
    Way(Latent, RELD(steps=8), lambda prior, m, x: coded(prior, x)),
    Way(Proximable, FISTA(steps=50), lambda prior, m, x: prior.prox(x, 1e-4)),
)


def coded(prior: Latent, x: Tensor) -> Tensor:
    """The image after encoding and decoding, of its own size."""
    return prior.decode(prior.encode(x))[..., : x.shape[-2], : x.shape[-1]]


@torch.no_grad()
def check_fit(
    operator: LinearOperator,
    noise: Noise,
    y: Tensor,
    prior: Any,
    *,
    seed: int = 0,
    unit: float = 1.0,
) -> list[Verdict]:
    """Verdicts on an operator, the noise of its measurement, the data and a prior.

        for verdict in ms.checks.check_fit(A, noise, y, ms.load("natural-color")):
            print(verdict.verdict, verdict.name, verdict.found, verdict.advice)

    Args:
        operator: The operator A.
        noise: The noise that is claimed.
        y: The data, with shape (B, *operator.out_shape); what was not measured is not looked at.
        prior: A denoiser, a latent prior, something with a proximal map, or an unfolded network.
        seed: Seed of all random vectors.
        unit: Units of the file in one of y: noise levels are said in these.
    Returns:
        The verdicts, in the order of the questions.
    """
    shape = shape_and_kind(operator, y)
    if fits([shape]):
        y = operator.observed(y)
    found = [finite(y), shape, adjoint(operator, seed), norm_confirmed(operator, seed)]
    if not fits(found):
        return found
    measurement = Measurement(operator, noise, y)
    gaussian = isinstance(noise, Gaussian)
    if gaussian:
        found.append(prox_optimality(measurement, seed))
        found.append(clipped(operator, y))
        found += _geometry(measurement)
    if isinstance(operator, Convolution):
        found.append(point_spread(operator))
    way = next((way for way in WAYS if isinstance(prior, way.can)), None)
    if way is None:
        wanted = ", ".join(way.can.__name__ for way in WAYS)
        words = f"a {type(prior).__name__} is none of {wanted}"
        return [*found, Verdict("prior", NOT, words, "choose another prior (`measurand priors`)")]
    if way.inside and not gaussian:
        words = f"{type(noise).__name__}, and the prior is an unfolded network"
        advice = "it has a proximal map of Gaussian noise inside; use another prior and method"
        return [*found, Verdict("noise", NOT, words, advice)]
    guess = first_guess(measurement)
    found.append(_channels(measurement[:1], guess[:1], prior, way))
    if not fits(found[-1:]):
        return found
    if way.can is not Proximable:
        noisy = float(torch.as_tensor(noise_in_image(measurement)).max()) if gaussian else 0.0
        found.append(gain(measurement, guess, prior.range, noisy))
        found.append(value_range(guess, prior.range, noisy, operator.pictures))
        if is_kspace(operator) and guess.is_complex():
            found.append(halves(guess))
    if not gaussian or not fits(found):
        return found
    try:
        estimate = way.quick(measurement, prior)
        again = _simulated(measurement, estimate, seed)
        expected = again.residual(way.quick(again, prior))
    except FloatingPointError as error:
        advice = "choose a prior that was trained for such a measurement (`measurand priors`)"
        return [*found, Verdict("reconstruction", NOT, str(error), advice)]
    if way.can is Denoiser:
        found.append(noise_of_the_prior(estimate, prior, seed))
        of_its_domain = domain(estimate, prior, seed)
        found += [] if of_its_domain is None else [of_its_domain]
    if wraps(operator):
        found.append(edges(measurement.residual(estimate), expected))
    if isinstance(operator, Convolution) and y.ndim == 4:
        found.append(kernel(measurement.residual(estimate), expected))
    level = noise_level(measurement, measurement.residual(estimate), expected, unit)
    if way.inside and level.advice:
        level = level._replace(
            advice=f"{level.advice}; or the network was trained for other measurements"
        )
    return [*found, level]


def _geometry(measurement: Measurement) -> list[Verdict]:
    """What the data alone say of k-space or of projections."""
    if is_kspace(measurement.operator):
        y = measurement.y
        found = [samples(measurement.operator, y), order(y)]
        return [*found, coils(measurement)] if fits(found) else found
    if isinstance(measurement.operator, ParallelCT):
        return [angles(measurement), axis(measurement)]
    return []


def _channels(measurement: Measurement, guess: Tensor, prior: Any, way: Way) -> Verdict:
    shape = measurement.operator.in_shape
    label = f"images {'complex' if guess.is_complex() else 'real'} {shape}"
    try:
        answer = way.answer(prior, measurement, guess)
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        reason = str(error).split("\n")[0]
        advice = "choose a prior of such images (`measurand priors`), or convert the channels"
        return Verdict("channels", NOT, f"{label}: {reason}", advice)
    if answer.shape != guess.shape or not bool(torch.isfinite(answer).all()):
        words = f"{label}: the prior returned shape {tuple(answer.shape)}"
        return Verdict("channels", NOT, words, "a prior keeps the shape and returns numbers")
    return Verdict("channels", FITS, f"the prior accepts {label}")


def _simulated(measurement: Measurement, x: Tensor, seed: int) -> Measurement:
    """What would be measured of an image, with the claimed noise."""
    operator, noise = measurement.operator, measurement.noise
    mean = operator(x)
    return Measurement(operator, noise, noise(mean, generators(seed, len(mean), mean.device)))
