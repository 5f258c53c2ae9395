"""Do this family of operators, these two priors and this measurement fit together?

Of a blind problem are asked

    bilinear           A(theta) x = B(x) theta + b(x), for random x and theta
    adjoint of theta   the adjoint test of B(x)
    prior of theta     it is of the family's units, and keeps the shape of parameters

and then, with the parameters that a quick classical estimate finds (`BlindEdges`; of other
families than blurs, their plain start), all that `check_fit` asks of a known operator.
"""

from typing import Any

import torch

from ..blind import BlindMeasurement
from ..operators.families import BlurFamily
from ..solvers import BlindEdges
from ..tensors import generators, norm, randn_like
from .compatibility import check_fit
from .questions.operator import adjoint
from .questions.verdict import FITS, NOT, Verdict, fits

__all__ = ["check_blind"]


@torch.no_grad()
def check_blind(
    blind: BlindMeasurement, prior: Any, theta_prior: Any, *, seed: int = 0, unit: float = 1.0
) -> list[Verdict]:
    """Verdicts on a family of operators, the data, and the priors of image and parameters.

    Args:
        blind: What was seen, of one item.
        prior: The prior of the image, as in `check_fit`.
        theta_prior: The denoiser of the parameters.
        seed: Seed of all random vectors.
        unit: Units of the file in one of y.
    Returns:
        The verdicts, in the order of the questions.
    """
    family: Any = blind.family
    x, theta = (
        randn_like(part, generators(seed, len(part), part.device))
        for part in family.start(blind.y[:1])
    )
    found = [_bilinear(family, x, theta)]
    if fits(found):
        found.append(adjoint(family.at_image(x), seed)._replace(name="adjoint of theta"))
    found.append(_prior_of_theta(family, theta, theta_prior))
    if not fits(found):
        return found
    if isinstance(family, BlurFamily):
        theta = BlindEdges()(blind).theta
    else:
        theta = family.start(blind.y)[1]
    known = blind.at(family.project(theta))
    return [*found, *check_fit(known.operator, known.noise, known.y, prior, seed=seed, unit=unit)]


def _bilinear(family: Any, x: torch.Tensor, theta: torch.Tensor) -> Verdict:
    by_theta = family.at(theta)(x)
    by_image = family.at_image(x)(theta) + family.offset(x)
    if by_theta.shape != by_image.shape:
        words = f"A(theta) x has shape {tuple(by_theta.shape)}, B(x) theta {tuple(by_image.shape)}"
        return Verdict("bilinear", NOT, words, "mend `at` or `at_image` of the family")
    error = float(norm(by_theta - by_image).max() / norm(by_theta).max())
    words = f"A(theta) x and B(x) theta + b(x) differ by {error:.1e} (limit 1e-4)"
    if error <= 1e-4:
        return Verdict("bilinear", FITS, words)
    return Verdict("bilinear", NOT, words, "mend `at`, `at_image` or `offset` of the family")


def _prior_of_theta(family: Any, theta: torch.Tensor, prior: Any) -> Verdict:
    advice = "choose the family's own (leave --theta-prior out), or another side"
    try:
        family.check_prior(prior)
        answer = prior.denoise(theta, 0.1)
    except (ValueError, TypeError, RuntimeError, AttributeError) as error:
        return Verdict("prior of theta", NOT, str(error).split("\n")[0], advice)
    if answer.shape != theta.shape or not bool(torch.isfinite(answer).all()):
        words = f"parameters {tuple(theta.shape)}: the prior returned {tuple(answer.shape)}"
        return Verdict("prior of theta", NOT, words, advice)
    return Verdict("prior of theta", FITS, f"it accepts parameters {tuple(theta.shape[1:])}")
