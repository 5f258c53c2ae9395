"""The questions of `compatibility`, each a function of what it needs, and their verdicts.

A verdict says what was found and what was wanted, and what to do about it where it does not fit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..measurement import Measurement
from ..noises import estimate_sigma
from ..operators import LinearOperator
from ..priors.capabilities import Denoiser
from ..tensors import generators, norm, randn_like
from .laws import adjoint_error, norm_error

__all__ = ["DOUBTFUL", "FITS", "NOT", "Verdict", "fits"]

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


def fits(verdicts: Sequence[Verdict]) -> bool:
    """Whether nothing was found that does not fit; doubts are allowed."""
    return all(v.verdict != NOT for v in verdicts)


def finite(y: Tensor) -> Verdict:
    """Whether all data are finite, and some are not zero."""
    bad = int((~torch.isfinite(y)).sum())
    if bad:
        advice = "find out where they come from; unmeasured values belong behind a mask operator"
        return Verdict("data", NOT, f"{bad} of {y.numel()} values are NaN or infinite", advice)
    if not bool(y.any()):
        return Verdict("data", NOT, "every value is zero", "is this the right file or key?")
    return Verdict("data", FITS, f"{y.numel()} finite values")


def shape_and_kind(operator: LinearOperator, y: Tensor) -> Verdict:
    """Whether data (B, ...) have the shape that A gives, and are real or complex as it says."""
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


def adjoint(operator: LinearOperator, seed: int) -> Verdict:
    """Whether `<A u, w> = <u, A^H w>` on random vectors, to 1e-5 (1e-10 in double precision)."""
    limit = 1e-10 if operator.blank_input().real.dtype == torch.float64 else 1e-5
    error = adjoint_error(operator, seed=seed)
    words = f"<Au, w> = <u, A^H w> to {error:.1e} (limit {limit:.0e})"
    if error <= limit:
        return Verdict("adjoint", FITS, words)
    advice = (
        "adjoint is not the adjoint of forward: methods will drift; AutogradOperator derives one"
    )
    return Verdict("adjoint", NOT, words, advice)


def norm_confirmed(operator: LinearOperator, seed: int) -> Verdict:
    """Whether `||A||` is what 100 power iterations find, to 2 %."""
    value = operator.norm
    if not value > 0 or not torch.isfinite(torch.tensor(value)):
        advice = "it measures nothing: an all-zero mask or kernel?"
        return Verdict("norm", NOT, f"||A|| = {value:.4g}", advice)
    error = norm_error(operator, iterations=100, seed=seed)
    words = f"||A|| = {value:.4g}, confirmed to {error:.1e}"
    if error <= 2e-2:
        return Verdict("norm", FITS, words)
    return Verdict("norm", NOT, words, "a step of 1/||A||^2 would be wrong: correct `norm`")


def prox_optimality(measurement: Measurement, seed: int) -> Verdict:
    """Whether prox ends where the gradient `A^H (A p - y) + gamma (p - v)` vanishes."""
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


def gain(
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


def wraps(operator: LinearOperator) -> bool:
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


def edges(residual: Tensor, expected: Tensor) -> Verdict:
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
        "the operator is periodic, the picture is not: --operator blur, gaussian-blur or "
        "motion-blur (operators.ValidBlur), which see beyond the frame"
    )
    return Verdict("edges", NOT if found > 1.5 else DOUBTFUL, words, advice)


def value_range(
    guess: Tensor, expected: tuple[float, float] | None, noise: float, pictures: bool
) -> Verdict:
    """Whether the initialization lies in the prior's value range, up to its noise.

    Args:
        guess: The initialization, with shape (B, C, ...).
        expected: Lowest and highest value that the prior takes; None for any.
        noise: Standard deviation of its noise, in image units.
        pictures: Whether the data are pictures, which decides what is advised.
    """
    if expected is None:
        return Verdict("value range", FITS, "the prior declares none")
    if guess.is_complex():
        return magnitude(guess, expected[1], noise)
    (low, high), u = expected, guess.flatten().double()
    cut = max(1, int(0.005 * u.numel()))
    least = float(u.kthvalue(cut).values)
    most = float(u.kthvalue(u.numel() - cut + 1).values)
    width = high - low
    beyond = max(0.15 * width, 2.6 * noise)  # 99 % of the noise is below 2.6 sigma
    words = f"99 % of the initialization in [{least:.3g}, {most:.3g}], prior [{low:g}, {high:g}]"
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


def magnitude(guess: Tensor, high: float, noise: float) -> Verdict:
    """Whether a complex image is as large as those of the prior: a scale, and no more, is known.

    The limits are wide because an initialization from undersampled data is a fifth too small, and
    because a network of brains loses 1 dB where the image is twice too large or a third of what
    it should be, and 3 to 4 dB at a tenth.
    """
    u = guess.abs().flatten().double()
    most = float(u.kthvalue(u.numel() - max(1, int(0.005 * u.numel())) + 1).values)
    words = f"99.5 % of the initialization below {most:.3g} in magnitude, prior {high:g}"
    noisy = high + 3.3 * noise  # 99.5 % of the magnitudes of the noise are below 3.3 sigma
    if not 0.1 * high <= most <= max(2.0 * high, noisy):
        advice = f"scale y (and sigma) so that the largest magnitudes are near {high:g}"
        return Verdict("value range", NOT, words, advice)
    if not 0.3 * high <= most <= max(1.3 * high, noisy):
        return Verdict("value range", DOUBTFUL, words, "is the scale right?")
    return Verdict("value range", FITS, words)


def noise_of_the_prior(estimate: Tensor, prior: Denoiser, seed: int) -> Verdict:
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


def noise_level(measurement: Measurement, residual: Tensor, expected: Tensor) -> Verdict:
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
