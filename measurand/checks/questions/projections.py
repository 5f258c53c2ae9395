r"""Questions of projections: do the angles and the rotation axis fit the data?

The moments of the projections p_theta of an image f are those of the image (Helgason, Ludwig):

    sum_s p_theta(s)                 does not depend on theta,
    sum_s s p_theta(s) / sum_s p     = a cos theta + b sin theta,     (a, b) the centre of mass,
    sum_s s^2 p_theta(s) / sum_s p   = c + d cos 2 theta + e sin 2 theta.

Angles that are in degrees, in another order, or of a half turn where the data are of a whole one
break the second and third. An axis that is o bins off adds the constant o to the second. Nothing
is reconstructed. The data are taken as those of x + 1, `y + A 1`, which is not negative; moments
of projections that are cut off at the ends of the detector say nothing.

References:
    | The Radon transform on Euclidean spaces, compact two-point homogeneous spaces and Grassmann
      manifolds (Helgason, 1965)
"""

import torch
from torch import Tensor

from ...measurement import Measurement
from ...operators import ParallelCT
from .verdict import DOUBTFUL, FITS, NOT, Verdict

__all__ = ["angles", "axis"]


def _moments(measurement: Measurement) -> tuple[Tensor, Tensor, float] | None:
    """Angles (n,), moments of order 0, 1 and 2, (3, n), in bins, and the error of the first one.

    None where the projections are cut off, or their sums are not positive.
    """
    operator, y = measurement.operator, measurement.y
    if not isinstance(operator, ParallelCT) or len(operator.angles) < 12:
        return None
    p = y + operator(torch.ones(1, *operator.in_shape, dtype=y.dtype, device=y.device))
    p = p.double().flatten(0, -3).mean(0)
    ends = p[:, [0, 1, -2, -1]].mean()
    total = p.sum(1)
    if float(ends) > 0.05 * float(p.max()) or float(total.min()) <= 0:
        return None
    bins = p.shape[1]
    s = torch.arange(bins, dtype=p.dtype, device=p.device) - (bins - 1) / 2
    sigma = float(measurement.sigma.max()) / max(1, y[..., 0, 0].numel()) ** 0.5
    error = sigma * float(s.norm() / total.mean())
    moments = torch.stack((total, p @ s / total, p @ s.square() / total))
    return operator.angles.double(), moments, error


def _fitted(columns: list[Tensor], values: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients and residual of a least squares fit."""
    basis = torch.stack(columns, 1)
    coefficients = torch.linalg.pinv(basis) @ values
    return coefficients, values - basis @ coefficients


def angles(measurement: Measurement) -> Verdict:
    """Whether the projections have the moments of an image seen from these angles."""
    found = _moments(measurement)
    if found is None:
        return Verdict("angles", FITS, "projections cut off or too few: not asked")
    theta, (total, first, second), error = found
    ones = torch.ones_like(theta)
    (_, _, offset), left = _fitted([theta.cos(), theta.sin(), ones], first)
    about = second - 2 * offset * first + offset**2
    _, more = _fitted([ones, (2 * theta).cos(), (2 * theta).sin()], about)
    # deviations as lengths in bins; that of the second is 2 times a radius
    radius = float(about.clamp_min(1e-9).mean().sqrt())
    bins = float(torch.stack((left, more / (2 * radius))).square().mean(1).amax().sqrt())
    limit = 0.01 * radius + 3 * error
    even = float(total.std() / total.mean())
    words = f"moments of the projections {bins:.2g} bins off those of an image (limit {limit:.2g})"
    if bins <= limit:
        return Verdict("angles", FITS, words)
    if even > 0.1:
        advice = "the sums of the projections differ: is y normalized (flat field, logarithm)?"
        return Verdict("angles", NOT, f"{words}, sums vary by {100 * even:.2g} %", advice)
    advice = (
        "the angles are not those of the data: degrees (--operator.degrees, degrees=True), half "
        "or whole turn, or another order of the projections?"
    )
    return Verdict("angles", NOT if bins > 2 * limit else DOUBTFUL, words, advice)


def axis(measurement: Measurement) -> Verdict:
    """Whether the rotation axis is seen in the middle of the detector."""
    found = _moments(measurement)
    if found is None:
        return Verdict("rotation axis", FITS, "projections cut off or too few: not asked")
    theta, (_, first, _), error = found
    columns = [theta.cos(), theta.sin(), torch.ones_like(theta)]
    (_, _, offset), left = _fitted(columns, first)
    basis = torch.stack(columns, 1)
    spread = torch.linalg.inv(basis.T @ basis)[2, 2].sqrt()
    uncertain = float(spread) * max(error, float(left.square().mean().sqrt()))
    bins = float(offset)
    words = f"seen {bins:+.2f} bins from the middle of the detector (to {uncertain:.1g})"
    if abs(bins) <= 0.3 + 3 * uncertain:
        return Verdict("rotation axis", FITS, words)
    middle = (measurement.y.shape[-1] - 1) / 2 + bins
    advice = (
        f"the axis is at bin {middle:.2f}: shift the projections by {-bins:.2f} bins "
        f"(scipy.ndimage.shift(y, (0, {-bins:.2f}), order=1))"
    )
    return Verdict("rotation axis", NOT if abs(bins) > 1 else DOUBTFUL, words, advice)
