"""Questions of the prior: its noise, its images."""

from torch import Tensor

from ...priors import Grey, Rescaled, Tiled
from ...priors.capabilities import Denoiser
from ...priors.trained import Trained
from ...tensors import generators, norm, randn_like
from ...weights.store import load_prior
from .verdict import DOUBTFUL, FITS, NOT, Verdict

__all__ = ["domain", "noise_of_the_prior"]


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


GENERAL = {1: "natural-gray", 3: "natural-color"}


def domain(estimate: Tensor, prior: Denoiser, seed: int) -> Verdict | None:
    """Whether a special prior knows an image better than the prior of photographs does.

    Noise of 5, 10 and 20 % of the range is added to what the prior itself made of the data, and
    both remove it. That image is in favor of its own prior, by 3 to 5 % where it is of its domain.

    Args:
        estimate: A reconstruction with this prior.
        prior: A denoiser.
        seed: Seed of the noise.
    Returns:
        The verdict; None where the prior is not a trained one of real images, or is general.
    """
    network = prior
    while isinstance(network, Grey | Rescaled | Tiled):
        network = network.prior
    general = GENERAL.get(estimate.shape[1])
    if not isinstance(network, Trained) or estimate.is_complex() or general is None:
        return None
    name = str(network.card.get("name", ""))
    if not name or name.startswith("natural") or prior.range != (-1.0, 1.0):
        return None
    sides = [slice(max(0, n // 2 - 64), n // 2 + 64) for n in estimate.shape[2:]]
    x = estimate[(slice(0, 1), slice(None), *sides)]
    other = load_prior(general, device=x.device)
    product = 1.0
    for level in (0.1, 0.2, 0.4):
        v = x + level * randn_like(x, generators(seed, 1, x.device))
        errors = [float(norm(each.denoise(v, level) - x)) for each in (prior, other)]
        product *= errors[0] / max(errors[1], 1e-30)
    ratio = product ** (1 / 3)
    words = f"its error {ratio:.3f} x that of {general}"
    if ratio <= 1.0:
        return Verdict("domain of the prior", FITS, words)
    advice = f"{name} was trained on other images: --prior {general} (`measurand priors`)"
    return Verdict("domain of the prior", NOT if ratio > 1.15 else DOUBTFUL, words, advice)
