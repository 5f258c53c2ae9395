r"""Questions of projections: do the angles and the rotation axis fit the data?

The moments of the projections p_theta of an image f are those of the image (Helgason, Ludwig):

    sum_s p_theta(s)                 does not depend on theta,
    sum_s s p_theta(s) / sum_s p     = a cos theta + b sin theta,     (a, b) the centre of mass,
    sum_s s^2 p_theta(s) / sum_s p   = c + d cos 2 theta + e sin 2 theta.

Angles that are in degrees, in another order, or of a half turn where the data are of a whole one
break the second and third. An axis that is o bins off adds the constant o to the second. Nothing
is reconstructed. The data are taken as they are and as those of x + 1, `y + A 1`, whichever fits
better; moments of projections that are cut off at the ends of the detector say nothing.

References:
    | The Radon transform on Euclidean spaces, compact two-point homogeneous spaces and Grassmann
      manifolds (Helgason, 1965)
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ...measurement import Measurement
from ...operators import ParallelCT
from .verdict import DOUBTFUL, FITS, NOT, Verdict

__all__ = ["angles", "axis"]


class _Fit(NamedTuple):
    """How well the moments of projections are those of an image; lengths in bins.

    Attributes:
        bins: Deviation from the moments of an image.
        limit: The largest one that rounding and noise explain.
        offset: Where the axis is seen, from where the operator has it.
        uncertain: Standard error of the offset.
        uneven: Relative standard deviation of the sums.
    """

    bins: float
    limit: float
    offset: float
    uncertain: float
    uneven: float


def _fit(measurement: Measurement) -> _Fit | None:
    """The better fit of the data as they are and of those of x + 1; None where none can be made.

    Data of x in [-1, 1] that are moved along the detector as they are, and those of an image that
    is not negative, brought to that range afterwards, are moved by the same bins in one of both.
    """
    operator, y = measurement.operator, measurement.y
    if not isinstance(operator, ParallelCT) or len(operator.angles) < 12:
        return None
    ones = operator(torch.ones(1, *operator.in_shape, dtype=y.dtype, device=y.device))
    sigma = float(measurement.sigma.max()) / max(1, y[..., 0, 0].numel()) ** 0.5
    lifted, plain = (p.double().flatten(0, -3).mean(0) for p in (y + ones, y))
    # the background has no part in what the moments of an image may differ by
    share = float((lifted.sum(1).mean() / plain.sum(1).mean()).abs().clamp(max=1))
    both = [_fit_of(lifted, operator, sigma, 0.01), _fit_of(plain, operator, sigma, 0.01 * share)]
    fits = [fit for fit in both if fit is not None]
    return min(fits, default=None, key=lambda fit: fit.bins / fit.limit)


def _fit_of(p: Tensor, operator: ParallelCT, sigma: float, tolerance: float) -> _Fit | None:
    """The fit of projections (angles, bins); None where they are cut off, or their sums vanish.

    `tolerance` is the part of the radius that rounding and interpolation explain.
    """
    total, size = p.sum(1), p.abs()
    if float(size[:, [0, 1, -2, -1]].mean()) > 0.05 * float(size.max()):
        return None
    if not float((total.abs() / size.sum(1)).min()) >= 0.2:  # nor where a view is zero
        return None
    theta = operator.angles.double()
    s = torch.arange(p.shape[1], dtype=p.dtype, device=p.device)
    s = s - (p.shape[1] - 1) / 2 - operator.axis
    first, second = p @ s / total, p @ s.square() / total
    error, error_of_squares = (sigma * float(t.norm() / total.abs().mean()) for t in (s, s**2))
    ones = torch.ones_like(theta)
    basis = torch.stack((theta.cos(), theta.sin(), ones), 1)
    coefficients, left = _least_squares(basis, first)
    offset = float(coefficients[2])
    about = second - 2 * offset * first + offset**2
    _, more = _least_squares(torch.stack((ones, (2 * theta).cos(), (2 * theta).sin()), 1), about)
    # a deviation of the second moment is one of the radius, times two radii
    radius = float(about.abs().mean().clamp_min(1e-9).sqrt())
    deviation = float(torch.stack((left, more / (2 * radius))).square().mean(1).amax().sqrt())
    spread = float(torch.linalg.pinv(basis.T @ basis)[2, 2].clamp_min(0).sqrt())
    uncertain = spread * max(error, float(left.square().mean().sqrt()))
    uneven = float(total.std() / total.mean().abs())
    limit = tolerance * radius + 1.3 * max(error, error_of_squares / (2 * radius))
    return _Fit(deviation, limit, offset, uncertain, uneven)


def _least_squares(basis: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients and residual."""
    coefficients = torch.linalg.pinv(basis) @ values
    return coefficients, values - basis @ coefficients


def angles(measurement: Measurement) -> Verdict:
    """Whether the projections have the moments of an image seen from these angles."""
    fit = _fit(measurement)
    if fit is None:
        return Verdict("angles", FITS, "projections cut off or too few: not asked")
    words = f"moments of the projections {fit.bins:.2g} bins off those of an image"
    words += f" (limit {fit.limit:.2g})"
    if fit.bins <= fit.limit:
        return Verdict("angles", FITS, words)
    if fit.uneven > 0.1:
        advice = "the sums of the projections differ: is y normalized (flat field, logarithm)?"
        return Verdict("angles", NOT, f"{words}, sums vary by {100 * fit.uneven:.2g} %", advice)
    advice = (
        "the angles are not those of the data: degrees (--operator.degrees, degrees=True), half "
        "or whole turn, or another order of the projections?"
    )
    return Verdict("angles", NOT if fit.bins > 2 * fit.limit else DOUBTFUL, words, advice)


def axis(measurement: Measurement) -> Verdict:
    """Whether the rotation axis is seen where the operator has it."""
    fit, operator = _fit(measurement), measurement.operator
    if fit is None or not isinstance(operator, ParallelCT):
        return Verdict("rotation axis", FITS, "projections cut off or too few: not asked")
    bins = fit.offset
    words = f"seen {bins:+.2f} bins from where the operator has it (to {fit.uncertain:.1g})"
    if abs(bins) <= 0.3 + 3 * fit.uncertain:
        return Verdict("rotation axis", FITS, words)
    seen = operator.axis + bins
    advice = f"say where it is: --operator.axis {seen:.2f} (ParallelCT(axis={seen:.2f}))"
    return Verdict("rotation axis", NOT if abs(bins) > 1 else DOUBTFUL, words, advice)
