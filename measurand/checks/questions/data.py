"""Questions of the data: numbers, shape, clipping, scale."""

import torch
from torch import Tensor
from torch.nn import functional

from ...operators import LinearOperator
from .verdict import DOUBTFUL, FITS, NOT, Verdict

__all__ = ["clipped", "finite", "shape_and_kind", "value_range"]


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
            places = _places(got, wanted)
            advice = f"the axes are in another order: permute y, np.transpose(y, {places})"
        elif len(got) == len(wanted) and len(set(ratio[1:])) == 1 and ratio[1] != 1:
            advice += f": every side is {ratio[1]:g} times too large"
        return Verdict("shape", NOT, f"{words}, the operator gives {wanted}", advice)
    if y.is_complex() != operator.out_dtype.is_complex:
        wanted_kind = kinds[operator.out_dtype.is_complex]
        advice = "use an operator of the other kind, or the real part if the data are real"
        return Verdict("shape", NOT, f"{words}, the operator gives {wanted_kind} data", advice)
    return Verdict("shape", FITS, words)


def _places(got: tuple[int, ...], wanted: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation of the axes of a batch that gives a shape, keeping equal axes in order."""
    rest, places = list(range(len(got))), [0]
    for n in wanted:
        axis = next(axis for axis in rest if got[axis] == n)
        rest.remove(axis)
        places.append(axis + 1)
    return tuple(places)


def clipped(operator: LinearOperator, y: Tensor) -> Verdict:
    """Whether many data stand exactly at their largest or smallest value.

    A constant area at the smallest value (7 x 7 pixels: a black border) is none of the noise's.
    """
    parts = torch.view_as_real(y) if y.is_complex() else y
    seen = operator.observed(torch.ones_like(y)) != 0
    values = parts[seen]
    high = float((values == values.max()).double().mean())
    low = float((values == values.min()).double().mean())
    if not y.is_complex() and y.ndim == 4 and min(y.shape[-2:]) >= 7:
        window = torch.full((y.shape[1], 1, 7, 7), 1 / 49, dtype=y.dtype, device=y.device)
        dark = (y == values.min()).to(y.dtype)
        whole = functional.conv2d(dark, window, padding=6, groups=y.shape[1]) > 1 - 1e-3
        border = functional.max_pool2d(whole.to(y.dtype), 7, 1) > 0
        low = float(((y == values.min()) & ~border & seen).sum() / seen.sum())
    words = f"{100 * high:.2g} % at the largest value, {100 * low:.2g} % at the smallest"
    share, limits = max(high, low), (1e-3, 1e-2) if y.is_complex() else (0.03, 0.08)
    if share * values.numel() < 8 or share <= limits[0] or bool((values == values[0]).all()):
        return Verdict("clipping", FITS, words)
    end = "largest" if high >= low else "smallest"
    advice = (
        f"saturated data are not A x + noise: leave out those at the {end} value, by a mask "
        "(--operator mask --operator.mask FILE; operators.Mask @ A), or measure with less"
    )
    return Verdict("clipping", NOT if share > limits[1] else DOUBTFUL, words, advice)


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
        advice = "scale y (and sigma) to the prior's range: --value-range LOW HIGH"
        return Verdict("value range", NOT, words, advice)
    if (low, high) == (-1.0, 1.0) and least > -0.05 - 2.6 * noise:
        advice = f"nothing is darker than the middle: an image in [0, 1]? then y -> 2 y - {one}"
        advice += " (--value-range 0 1)"
        return Verdict("value range", DOUBTFUL, words, advice)
    part = (most - low) / width
    if pictures and part < 0.26 and least > low - beyond and noise < 0.25 * part * width:
        bits = next(bits for bits in (8, 10, 12, 14) if part < 1.04 * 2.0 ** (bits - 16))
        advice = (
            f"nothing is brighter than {100 * part:.2g} % of the range: {bits} bits in a file of "
            f"16? Then --value-range 0 {2**bits - 1}"
        )
        return Verdict("value range", DOUBTFUL, words, advice)
    # a back-projection spreads a small object over the whole image
    if most - least < (0.1 if pictures else 0.02) * width:
        advice = "hardly any contrast: is the scale right? --value-range LOW HIGH says it"
        return Verdict("value range", DOUBTFUL, words, advice)
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
        advice = f"is the scale right? The largest magnitudes of the prior's images are {high:g}"
        return Verdict("value range", DOUBTFUL, words, advice)
    return Verdict("value range", FITS, words)
