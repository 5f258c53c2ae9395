r"""The laws of priors: what every denoiser D, proximal map of tau g, and density p must satisfy.

    kept         the result has the shape, dtype and device of the images
    independent  the rows of a batch do not see each other, each with its own sigma or tau
    small noise  ||D(v, sigma) - v|| <= sigma sqrt(n) on average, since the difference is
                 `sigma^2 grad log p_sigma(v)` (Tweedie) and `E ||D - v||^2 <= sigma^2 n`
    range        where nothing but noise is left of an image, D stays in the declared range
    codes        a latent prior gives back an image of the kind and size it was given, more noise
                 is more noise of the code, and its denoiser of codes obeys the laws of denoisers
    prox         h(q) >= h(p) + 1/2 ||q - p||^2 at p = prox(v, tau), for any q and the strongly
                 convex h(x) = tau g(x) + 1/2 ||x - v||^2
    gradient     of log p by autograd, against finite differences

Each is a number beside its limit, see `law`.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ...measurement import Measurement
from ...noises import ComplexGaussian, Gaussian
from ...operators.base import Identity
from ...priors import Denoiser, Density, Latent, Penalty, Posterior, Proximable
from ...tensors import generators, inner, norm, per_item, randn_like, to_channels
from .law import Law

__all__ = ["gradient_error", "minimum_error", "normalization_error", "prior_laws"]


def prior_laws(prior: object, images: Tensor, *, seed: int = 0) -> list[Law]:
    """Every law of the capabilities that a prior has.

    Args:
        prior: A `Denoiser`, a `Proximable`, a `Density`, a `Posterior`, a `Latent`, or several.
        images: A few images that it may be asked about, with shape (B, ...), B at least 2.
        seed: Seed of all random tensors.
    Returns:
        The laws with the errors found; `all(law.holds for law in ...)` is the verdict.
    Raises:
        TypeError: It has none of these capabilities.
    """
    if len(images) < 2:
        raise ValueError(f"prior_laws: got {len(images)} images, wanted at least 2")
    laws: list[Law] = []
    with torch.no_grad():
        if isinstance(prior, Denoiser):
            laws += _denoiser_laws(prior, images, seed)
        if isinstance(prior, Posterior):
            noise = (ComplexGaussian if images.is_complex() else Gaussian)(_size(images))
            identity = Identity(tuple(images.shape[1:]), images.dtype)
            given = prior.given(Measurement(identity, noise, images[:1]).to(images.device))
            laws += _denoiser_laws(given, images, seed, "denoise, given data")
        if isinstance(prior, Latent):
            laws += _latent_laws(prior, images, seed)
        if isinstance(prior, Proximable):
            laws += _proximable_laws(prior, images, seed)
        if isinstance(prior, Density):
            laws += _density_laws(prior, images, seed)
    if not laws:
        raise TypeError(
            f"prior_laws: got a {type(prior).__name__}, wanted a Denoiser, a Proximable, a "
            "Density, a Posterior or a Latent"
        )
    return laws


@torch.no_grad()
def minimum_error(
    prior: Proximable, penalty: Callable[[Tensor], Tensor], v: Tensor, tau: float, *, seed: int = 0
) -> float:
    """How far `p = prox(v, tau)` is from the minimum of `h = tau g + 1/2 ||x - v||^2`, g convex.

    The largest `h(p) + 1/2 ||q - p||^2 - h(q)` over points q around p, in the direction of v, and
    of the map with other weights; at the minimum none is positive.

    Args:
        prior: What has the map.
        penalty: The convex function g, with one number per item.
        v: Images, with shape (B, ...).
        tau: The weight.
        seed: Seed of the points.
    Returns:
        The error, relative to what the map gains, `h(v) - h(p)`.
    """
    p = prior.prox(v, tau)
    noise = randn_like(v, generators(seed, len(v), v.device))
    noise = noise * per_item(norm(v - p) / norm(noise), v)

    def h(x: Tensor) -> Tensor:
        return tau * penalty(x) + inner(x - v, x - v) / 2

    steps = [s * d for s in (-0.1, -0.01, 0.01, 0.1, 1.0) for d in (noise, v - p)]
    points = [p + step for step in steps] + [prior.prox(v, k * tau) for k in (0.5, 0.9, 1.1, 2)]
    least = h(p)
    above = torch.stack([least + inner(q - p, q - p) / 2 - h(q) for q in points]).amax(0)
    return float((above / (h(v) - least).abs().clamp_min(1e-30)).max())


def gradient_error(prior: Density, x: Tensor, *, seed: int = 0) -> float:
    """The largest difference of the gradient of `log p` by autograd and by central differences.

    Along the gradient and along a random direction, relative to the size of the gradient.

    Args:
        prior: The density.
        x: Images, with shape (B, ...).
        seed: Seed of the direction.
    Returns:
        The relative error.
    """
    with torch.enable_grad():
        at = x.detach().clone().requires_grad_()
        (gradient,) = torch.autograd.grad(prior.log_prob(at).sum(), at)
    small = (1e-2 if x.real.dtype == torch.float32 else 1e-5) * norm(x)
    noise = randn_like(x, generators(seed, len(x), x.device))
    errors = []
    for direction in (gradient, noise):
        step = direction * per_item(small / norm(direction), x)
        change = (prior.log_prob(x + step) - prior.log_prob(x - step)) / 2
        errors.append((change - inner(gradient, step)).abs() / (norm(gradient) * norm(step)))
    return float(torch.stack(errors).max())


@torch.no_grad()
def normalization_error(
    prior: Density, shape: tuple[int, ...], *, reach: float, points: int = 25
) -> float:
    """The distance from 1 of the integral of a density over all real images of very few pixels.

    Args:
        prior: The density, in double precision.
        shape: Shape of one image; `points` to the power of its number of pixels are summed.
        reach: Values from -reach to reach are counted.
        points: Number of values of each pixel.
    """
    values = torch.linspace(-reach, reach, points, dtype=torch.float64)
    pixels = math.prod(shape)
    every = torch.cartesian_prod(*[values] * pixels).reshape(-1, *shape)
    total = sum(float(prior.log_prob(x).exp().sum()) for x in every.split(1 << 16))
    return abs(total * float(values[1] - values[0]) ** pixels - 1)


def _denoiser_laws(prior: Denoiser, images: Tensor, seed: int, name: str = "denoise") -> list[Law]:
    sigma = 0.05 * _size(images)
    noise = randn_like(images, generators(seed, len(images), images.device))
    v = images + sigma * noise
    x_hat = prior.denoise(v, sigma)
    laws = [Law(f"{name}: shape, dtype and device kept", _differs(x_hat, v), 0.0)]
    if not laws[0].holds:
        return laws
    laws += [
        Law(f"{name}: batch rows independent", _rows_error(prior.denoise, v, sigma), 1e-4),
        Law(f"{name}: small noise", _size(x_hat - v) / sigma, 1.1),
    ]
    if prior.range is not None:
        low, high = prior.range
        far = 10 * (high - low)
        x_hat = to_channels(prior.denoise(images + far * noise, far))
        outside = torch.maximum(x_hat - high, low - x_hat).max() / (high - low)
        laws.append(Law(f"{name}: range", float(outside), 0.1))
    return laws


def _latent_laws(prior: Latent, images: Tensor, seed: int) -> list[Law]:
    z = prior.encode(images)
    height, width = images.shape[-2:]
    decoded = prior.decode(z)[..., :height, :width]
    laws = [Law("decode: shape, dtype and device kept", _differs(decoded, images), 0.0)]
    if not laws[0].holds:
        return laws
    apart = torch.cat([prior.decode(prior.encode(x)) for x in images.split(1)])
    rows = _size(apart[..., :height, :width] - decoded) / max(_size(decoded), 1e-30)
    smooth = [prior.code_noise(k * _size(images)) for k in (0.01, 0.1)]
    rising = 0.0 if 0 < smooth[0] < smooth[1] else 1.0
    laws += [
        Law("decode: batch rows independent", rows, 1e-4),
        Law("code_noise: positive, rising", rising, 0.0),
    ]
    codes = _OfCodes(prior)
    return laws + _denoiser_laws(codes, z, seed, "denoise_code")


class _OfCodes:
    """The denoiser of codes of a latent prior; codes have no range."""

    range = None

    def __init__(self, prior: Latent) -> None:
        self.prior, self.dtype = prior, prior.dtype

    def denoise(self, v: Tensor, sigma: float | Tensor, condition: Tensor | None = None) -> Tensor:
        return self.prior.denoise_code(v, sigma)


def _proximable_laws(prior: Proximable, images: Tensor, seed: int) -> list[Law]:
    tau = 0.1 * _size(images) ** 2
    laws = [
        Law("prox: shape, dtype and device kept", _differs(prior.prox(images, tau), images), 0.0)
    ]
    if not laws[0].holds:
        return laws
    moved = _size(prior.prox(images, 1e-5 * tau) - images) / _size(images)
    laws += [
        Law("prox: batch rows independent", _rows_error(prior.prox, images, tau), 1e-4),
        Law("prox: small weight", moved, 1e-2),
    ]
    penalty = _penalty_of(prior)
    if penalty is not None:
        laws.append(Law("prox", minimum_error(prior, penalty, images, tau, seed=seed), 1e-3))
    return laws


def _penalty_of(prior: Proximable) -> Callable[[Tensor], Tensor] | None:
    """The convex function whose proximal map a prior has, None where it is not known."""
    if isinstance(prior, Penalty):
        return None if prior.approximate else prior.value
    return (lambda x: -prior.log_prob(x)) if isinstance(prior, Density) else None


def _density_laws(prior: Density, images: Tensor, seed: int) -> list[Law]:
    found = prior.log_prob(images)
    kept = _differs(found, images.real.flatten(1)[:, 0])
    laws = [Law("log_prob: one number per item", kept, 0.0)]
    if not laws[0].holds:
        return laws
    rows = torch.cat([prior.log_prob(x) for x in images.split(1)])
    apart = float(((found - rows).abs() / (1 + rows.abs())).max())
    limit = 2e-2 if images.real.dtype == torch.float32 else 1e-5
    laws += [
        Law("log_prob: batch rows independent", apart, 1e-4),
        Law("gradient", gradient_error(prior, images, seed=seed), limit),
    ]
    return laws


def _size(x: Tensor) -> float:
    """The root mean square of the real components."""
    return float(to_channels(x).square().mean().sqrt())


def _differs(x: Tensor, like: Tensor) -> float:
    alike = x.shape == like.shape and x.dtype == like.dtype and x.device == like.device
    return 0.0 if alike else 1.0


def _rows_error(act: Callable[[Tensor, Tensor | float], Tensor], v: Tensor, value: float) -> float:
    """Items done together, each with a value of its own, against each done alone."""
    values = [value * (1 + i / len(v)) for i in range(len(v))]
    together = act(v, torch.tensor(values, dtype=v.real.dtype, device=v.device))
    alone = torch.cat([act(x, own) for x, own in zip(v.split(1), values, strict=True)])
    return float((norm(together - alone) / norm(alone).clamp_min(1e-30)).max())
