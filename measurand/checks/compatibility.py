r"""Do this operator, this prior and this measurement fit together?

Most wrong reconstructions are not wrong methods but a wrong pair: an image in [0, 1] for a prior
of [-1, 1], a noise level on another scale, an adjoint that is not one, a network that is told its
noise in other units. Each has a trace that can be measured before any result is believed:

    shape, kind        y is what the operator measures, and finite
    adjoint, norm      the laws of `check`, for this operator
    prox optimality    A^H (A p - y) + gamma (p - v) = 0 at the weights that a method will use
    channels           the prior accepts the images that the operator takes
    gain               of an image of ones, A 1: a kernel that does not sum to one
    value range        where the first guess A^H y / A^H A 1 lies, against the prior's range and
                       the noise; of complex images, how large it is
    edges              of a periodic operator: the residual of a quick reconstruction at the border
                       against that inside; a camera's picture does not wrap around
    noise of the prior the denoiser is best when it is told the noise that is there
    noise level        the residual of a quick reconstruction x_hat, against the residual of a
                       simulated measurement of x_hat with the claimed noise, reconstructed in the
                       same way (a parametric bootstrap): too little claimed noise leaves residuals
                       above it, too much below; and, where y is a picture, the noise seen in it

`check_fit` asks all of them and stops asking where an answer makes the next question void. An
unfolded network, which has the physics inside, is asked for its range as any prior is, and its own
result is the quick reconstruction; it is not a denoiser that could be told a noise.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..measurement import Measurement
from ..noises import Gaussian, Noise, estimate_sigma
from ..operators import LinearOperator
from ..priors.capabilities import Denoiser, Latent, Posterior, Proximable, Restorer
from ..solvers import FISTA, HQS, RELD, FlowUnfolding, PosteriorMean, noise_in_image
from ..start import first_guess
from ..tensors import generators, norm, randn_like
from .laws import adjoint_error, norm_error

__all__ = ["Verdict", "check_fit", "fits"]

FITS, DOUBTFUL, NOT = "fits", "doubtful", "does not fit"


class Verdict(NamedTuple):
    """The answer to one question.

    Attributes:
        name: What was asked.
        verdict: "fits", "doubtful" or "does not fit".
        found: What was found, and what was wanted.
        advice: What to do about it; empty where it fits.
    """

    name: str
    verdict: str
    found: str
    advice: str = ""


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


def fits(verdicts: Sequence[Verdict]) -> bool:
    """Whether nothing was found that does not fit; doubts are allowed."""
    return all(v.verdict != NOT for v in verdicts)


@torch.no_grad()
def check_fit(
    operator: LinearOperator, noise: Noise, y: Tensor, prior: Any, *, seed: int = 0
) -> list[Verdict]:
    """Verdicts on an operator, the noise of its measurement, the data and a prior.

    Args:
        operator: The operator A.
        noise: The noise that is claimed.
        y: The data, with shape (B, *operator.out_shape); what was not measured is not looked at.
        prior: A denoiser, a latent prior, something with a proximal map, or an unfolded network.
        seed: Seed of all random vectors.
    Returns:
        The verdicts, in the order of the questions.
    """
    shape = _shape(operator, y)
    if fits([shape]):
        y = operator.observed(y)
    found = [_finite(y), shape, _adjoint(operator, seed), _norm(operator, seed)]
    if not fits(found):
        return found
    measurement = Measurement(operator, noise, y)
    gaussian = isinstance(noise, Gaussian)
    if gaussian:
        found.append(_prox(measurement, seed))
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
        found.append(_gain(measurement, guess, prior.range, noisy))
        found.append(_range(guess, prior.range, noisy, operator.pictures))
    if not gaussian or not fits(found):
        return found
    try:
        estimate = way.quick(measurement, prior)
        again = _simulated(measurement, estimate, seed)
        expected = again.residual(way.quick(again, prior))
    except FloatingPointError as error:
        advice = "choose a prior that was trained for such a measurement (`measurand priors`)"
        return [*found, Verdict("reconstruction", NOT, str(error), advice)]
    if _wraps(operator):
        found.append(_edges(measurement.residual(estimate), expected))
    if way.can is Denoiser:
        found.append(_told(estimate, prior, seed))
    level = _noise_level(measurement, measurement.residual(estimate), expected)
    if way.inside and level.advice:
        level = level._replace(
            advice=f"{level.advice}; or the network was trained for other measurements"
        )
    return [*found, level]


def _finite(y: Tensor) -> Verdict:
    bad = int((~torch.isfinite(y)).sum())
    if bad:
        advice = "find out where they come from; unmeasured values belong behind a mask operator"
        return Verdict("data", NOT, f"{bad} of {y.numel()} values are NaN or infinite", advice)
    if not bool(y.any()):
        return Verdict("data", NOT, "every value is zero", "is this the right file or key?")
    return Verdict("data", FITS, f"{y.numel()} finite values")


def _shape(operator: LinearOperator, y: Tensor) -> Verdict:
    got, wanted = tuple(y.shape[1:]), operator.out_shape
    kinds = ("real", "complex")
    words = f"{kinds[y.is_complex()]} {got}"
    if got != wanted:
        ratio = [w / g for w, g in zip(wanted, got, strict=False)]
        advice = "build the operator for the image that gives this measurement"
        if len(got) == len(wanted) and sorted(got) == sorted(wanted):
            advice = "the axes are in another order: permute y"
        elif len(got) == len(wanted) and len(set(ratio[1:])) == 1 and ratio[1] != 1:
            advice += f": every side is {ratio[1]:g} times too large"
        return Verdict("shape", NOT, f"{words}, the operator gives {wanted}", advice)
    if y.is_complex() != operator.out_dtype.is_complex:
        wanted_kind = kinds[operator.out_dtype.is_complex]
        advice = "use an operator of the other kind, or the real part if the data are real"
        return Verdict("shape", NOT, f"{words}, the operator gives {wanted_kind} data", advice)
    return Verdict("shape", FITS, words)


def _adjoint(operator: LinearOperator, seed: int) -> Verdict:
    limit = 1e-10 if operator.blank_input().real.dtype == torch.float64 else 1e-5
    error = adjoint_error(operator, seed=seed)
    words = f"<Au, w> = <u, A^H w> to {error:.1e} (limit {limit:.0e})"
    if error <= limit:
        return Verdict("adjoint", FITS, words)
    advice = (
        "adjoint is not the adjoint of forward: methods will drift; AutogradOperator derives one"
    )
    return Verdict("adjoint", NOT, words, advice)


def _norm(operator: LinearOperator, seed: int) -> Verdict:
    value = operator.norm
    if not value > 0 or not torch.isfinite(torch.tensor(value)):
        advice = "it measures nothing: an all-zero mask or kernel?"
        return Verdict("norm", NOT, f"||A|| = {value:.4g}", advice)
    error = norm_error(operator, iterations=100, seed=seed)
    words = f"||A|| = {value:.4g}, confirmed to {error:.1e}"
    if error <= 2e-2:
        return Verdict("norm", FITS, words)
    return Verdict("norm", NOT, words, "a step of 1/||A||^2 would be wrong: correct `norm`")


def _prox(measurement: Measurement, seed: int) -> Verdict:
    operator, y = measurement.operator, measurement.y
    # in the precision of the data: an operator may hold tables in double precision
    v = randn_like(measurement.adjoint_y, generators(seed, len(y), y.device))
    worst = 0.0
    sigma = float(measurement.sigma.max()) or 1e-2
    for r in (1.0, sigma / max(operator.norm, 1e-12)):
        gamma = (sigma / r) ** 2
        p = measurement.operator.prox(v, y, gamma)
        left = operator.adjoint(operator(p) - y) + gamma * (p - v)
        start = norm(operator.adjoint(operator(v) - y)) + gamma * norm(v)
        worst = max(worst, float((norm(left) / start).max()))
    words = f"gradient left at the minimum: {worst:.1e} of the start (limit 1e-03)"
    if worst <= 1e-3:
        return Verdict("prox optimality", FITS, words)
    advice = "the closed form does not solve its problem; without one, the default CG does"
    return Verdict("prox optimality", NOT, words, advice)


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


def _gain(
    measurement: Measurement, guess: Tensor, expected: tuple[float, float] | None, noise: float
) -> Verdict:
    """Whether the data have the gain that the operator gives to an image of ones."""
    operator, y = measurement.operator, measurement.y
    if guess.is_complex() or y.is_complex():
        return Verdict("gain", FITS, "complex data: not asked")
    seen = operator(torch.ones_like(guess[: operator.batch]))
    seen = seen[(operator.observed(torch.ones_like(seen)) != 0).expand_as(seen)]
    low, high = float(seen.min()), float(seen.max())
    words = f"A makes {low:.3g} to {high:.3g} of an image of ones"
    if high - low > 1e-3 * max(abs(low), abs(high)) or abs(high) < 1e-3:
        return Verdict("gain", FITS, words)
    words = f"A makes {high:.4g} of an image of ones"
    if abs(high - 1) <= 0.02 or expected is None:
        return Verdict("gain", FITS, words)
    # data of such a gain leave the range where it is above one, and their quotient stays in it
    u, reach = (y, 1.0) if high > 1 else (guess, 1.1)
    most = reach * max(abs(expected[0]), abs(expected[1])) + 2.6 * noise * max(high, 1.0)
    within = float((u.abs() <= most).double().mean()) > 0.99
    if within == (high < 1):
        return Verdict("gain", FITS, words)
    words += ", and the data have no such gain"
    verdict = NOT if not 0.8 <= high <= 1.25 else DOUBTFUL
    return Verdict("gain", verdict, words, "divide the kernel by its sum")


def _wraps(operator: LinearOperator) -> bool:
    """Whether an operator is periodic and mixes pixels, so that opposite edges touch."""
    shape = operator.in_shape
    real = not (operator.in_dtype.is_complex or operator.out_dtype.is_complex)
    if not real or len(shape) < 3 or operator.out_shape != shape:
        return False
    point = operator.blank_input().clone()
    point[..., 0, 0] = 1
    answer = operator(point.expand(operator.batch, *shape).contiguous())
    shift = tuple(n // 2 for n in shape[-2:])
    moved = operator(point.roll(shift, (-2, -1)).expand(operator.batch, *shape).contiguous())
    least = 1e-4 * answer.abs().max()
    if bool((moved - answer.roll(shift, (-2, -1))).abs().max() > least):
        return False
    return bool((answer[..., -1, :].abs().max() > least) | (answer[..., -1].abs().max() > least))


def _edges(residual: Tensor, expected: Tensor) -> Verdict:
    """Whether the data wrap around as a periodic operator has it.

    Photographs blurred by a Gaussian of 1.6 pixels, a disk or a motion have ratios of 1.6 to 15,
    periodic images 1.0 to 1.1; a kernel of less than a pixel does no harm and stays below 1.6.
    """

    def ratio(r: Tensor) -> float:
        r = r.square()
        inside = r[..., 4:-4, 4:-4]
        rows, columns = (torch.cat((r[..., :2], r[..., -2:]), -1) for r in (r.mT, r))
        border = torch.cat((rows.flatten(), columns.flatten()))
        return float((border.mean() / inside.mean().clamp_min(1e-30)).sqrt())

    if min(residual.shape[-2:]) < 16:
        return Verdict("edges", FITS, "too small an image to tell")
    found = ratio(residual) / max(ratio(expected), 1e-3)
    words = f"residual at the border {found:.2f} x the one inside"
    if found < 1.2:
        return Verdict("edges", FITS, words)
    advice = (
        "the operator is periodic, the picture is not: --operator valid-blur "
        "(operators.ValidBlur), which sees beyond the frame"
    )
    return Verdict("edges", NOT if found > 1.5 else DOUBTFUL, words, advice)


def _range(
    guess: Tensor, expected: tuple[float, float] | None, noise: float, pictures: bool
) -> Verdict:
    if expected is None:
        return Verdict("value range", FITS, "the prior declares none")
    if guess.is_complex():
        return _magnitude(guess, expected[1], noise)
    (low, high), u = expected, guess.flatten().double()
    cut = max(1, int(0.005 * u.numel()))
    least = float(u.kthvalue(cut).values)
    most = float(u.kthvalue(u.numel() - cut + 1).values)
    width = high - low
    beyond = max(0.15 * width, 2.6 * noise)  # 99 % of the noise is below 2.6 sigma
    words = f"99 % of the first guess in [{least:.3g}, {most:.3g}], prior [{low:g}, {high:g}]"
    one = "1" if pictures else "A 1"
    if least < low - beyond or most > high + beyond:
        for top in (255.0, 4095.0, 65535.0):
            if least > -0.1 * top and 0.2 * top < most < 1.1 * top:
                advice = f"looks like [0, {top:.0f}]: y -> 2 y / {top:.0f} - {one}"
                return Verdict("value range", NOT, words, advice)
        return Verdict("value range", NOT, words, "scale y (and sigma) to the prior's range")
    if (low, high) == (-1.0, 1.0) and least > -0.05 - 2.6 * noise:
        advice = f"nothing is darker than the middle: an image in [0, 1]? then y -> 2 y - {one}"
        advice += " (--value-range 0 1)"
        return Verdict("value range", DOUBTFUL, words, advice)
    if most - least < 0.1 * width:
        return Verdict("value range", DOUBTFUL, words, "hardly any contrast: is the scale right?")
    return Verdict("value range", FITS, words)


def _magnitude(guess: Tensor, high: float, noise: float) -> Verdict:
    """Whether a complex image is as large as those of the prior: a scale, and no more, is known.

    The limits are wide because a first guess of undersampled data is a fifth too small, and
    because a network of brains loses 1 dB where the image is twice too large or a third of what
    it should be, and 3 to 4 dB at a tenth.
    """
    u = guess.abs().flatten().double()
    most = float(u.kthvalue(u.numel() - max(1, int(0.005 * u.numel())) + 1).values)
    words = f"99.5 % of the first guess below {most:.3g} in magnitude, prior {high:g}"
    noisy = high + 3.3 * noise  # 99.5 % of the magnitudes of the noise are below 3.3 sigma
    if not 0.1 * high <= most <= max(2.0 * high, noisy):
        advice = f"scale y (and sigma) so that the largest magnitudes are near {high:g}"
        return Verdict("value range", NOT, words, advice)
    if not 0.3 * high <= most <= max(1.3 * high, noisy):
        return Verdict("value range", DOUBTFUL, words, "is the scale right?")
    return Verdict("value range", FITS, words)


def _told(estimate: Tensor, prior: Denoiser, seed: int) -> Verdict:
    """Whether the denoiser is best when told the noise that is there."""
    sides = [slice(max(0, n // 2 - 64), n // 2 + 64) for n in estimate.shape[2:]]
    x = estimate[(slice(0, 1), slice(None), *sides)]
    width = 2.0 if prior.range is None else prior.range[1] - prior.range[0]
    level = 0.1 * width
    v = x + level * randn_like(x, generators(seed, 1, x.device))
    factors = (0.25, 0.5, 1.0, 2.0, 4.0)
    errors = [float(norm(prior.denoise(v, k * level) - x)) for k in factors]
    best = factors[errors.index(min(errors))]
    gain = float(norm(v - x)) / max(min(errors), 1e-30)
    words = f"best when told {best:g} x the true level; leaves 1/{gain:.1f} of the noise"
    if not 0.5 <= best <= 2.0 or gain < 1.2:
        advice = "its sigma is in other units, or it was trained on other images"
        return Verdict("noise of the prior", NOT, words, advice)
    return Verdict("noise of the prior", FITS, words)


def _noise_level(measurement: Measurement, residual: Tensor, expected: Tensor) -> Verdict:
    """The residual against the one that the claimed noise would leave, and the noise seen in y."""
    y, sigma = measurement.y, float(measurement.sigma.max())
    left, usual = float(norm(residual).mean()), float(norm(expected).mean())
    ratio = left / max(usual, 1e-30)
    words = f"claimed {sigma:.3g}, residual {ratio:.2f} x the one that it would leave"
    visible = None
    whole = bool((measurement.operator.observed(torch.ones_like(y)) != 0).all())
    if whole and not y.is_complex() and y.ndim == 4 and min(y.shape[2:]) >= 16:
        visible = float(estimate_sigma(y).max())
        words += f", visible in y {visible:.3g}"
    if sigma == 0.0:
        if visible is None or visible < 0.02:
            return Verdict("noise level", FITS, words)
        advice = f"the data look noisy: --sigma {visible:.2g}"
        return Verdict("noise level", DOUBTFUL, f"claimed 0, visible in y {visible:.3g}", advice)
    better = sigma * ratio if visible is None or ratio > 1.0 else visible
    advice = f"a noise level near {better:.2g} explains the data better (--sigma {better:.2g})"
    above = visible is not None and visible > 3.0 * sigma and ratio > 1.2
    below = visible is not None and visible < sigma / 1.8
    if not 0.6 <= ratio <= 1.6 or above or below:
        return Verdict("noise level", NOT, words, advice)
    if not 0.8 <= ratio <= 1.25:
        return Verdict("noise level", DOUBTFUL, words, advice)
    return Verdict("noise level", FITS, words)
