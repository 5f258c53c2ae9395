r"""Regularization by latent denoising (RELD): half-quadratic splitting through an autoencoder.

With encoder E, decoder D and a denoiser f of codes, the image is t, near D(v) for a code v:

    min over t, v of  nll(t) + ||t - D(v)||^2 / (2 r^2) + (weight / s^2) R(v),
    grad R(v) = v - f(v, s)    (RED)

    data    t = argmin nll(t) + ||t - D(v)||^2 / (2 r^2)
    code    v <- v - delta g,    g = mu J^T (D(v) - t) + weight (v - f(v, s)),    mu = s^2 / r^2

with J the Jacobian of D at v, whose transpose is one vector-Jacobian product in each step, and
v = E(initialization) at the start. `EncodedRELD` needs no such product: if D is an isometry and E
its left inverse, the code step of the full length 1 / (mu + weight) is

    v <- (mu E(t) + weight f(v, s)) / (mu + weight).

Both return t, which meets the data and is not bounded by what a code can hold; D(v), which the
prior agrees with, is `Step.x0` of the callback.

**Levels.** The level sigma of a step is noise in the image, as in HQS. Noise of images is not
noise of codes: s = `prior.code_noise(sigma)` is measured. The image is not D(v) either: they
differ by what the code cannot hold, of root mean square e = `prior.error`. Hence

    r^2 = sigma^2 + e^2,

and r = e in the last step: D(v) is believed but for what the autoencoder loses, which t takes from
the data.

**Step length.** delta = step / (mu L^2 + weight) with L the largest singular value of J at the
start, by power iterations on a central part. f counts with a slope between 0 and 1, which a
symmetric linear denoiser has. The decoder is not linear: a step that raises

    q(v) = mu ||t - D(v)||^2 / 2 + weight ||v - f||^2 / 2     (t and f kept)

is halved, at most `halvings` times, for each item by itself. For linear D and f the limit of step
lengths is 2 / lambda, with lambda the largest eigenvalue of the Hessian after t is eliminated; it
is at most mu L^2 + weight.

Deviations. The text of the paper was not available; the above follows its abstract and a summary.
mu follows from the levels; there is no schedule of its own. q includes the prior, without which a
step towards the prior would count as too long.

References:
    | RELD: Regularization by Latent Diffusion Models for Image Restoration
    | (Cascarano et al., 2025), arXiv:2503.22563
    | The Little Engine That Could: Regularization by Denoising (Romano et al., 2017)
    | arXiv:1611.02862
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..measurement import Measurement
from ..methods import Iterates, Method, Step
from ..priors.capabilities import Latent
from ..tensors import Generators, generators, inner, norm, per_item, randn_like
from ..validate import count, not_negative, positive
from .levels import Annealed, Levels
from .splitting import residual

__all__ = ["RELD", "EncodedRELD"]


@dataclass(frozen=True)
class RELD(Method):
    """Regularization by latent denoising, with the vector-Jacobian product of the decoder.

    One step is one decoding, one vector-Jacobian product and one denoised code; a step that is
    halved costs another decoding. Differentiates through the decoder: yes.

    Args:
        steps: Number of steps.
        weight: Weight of the prior.
        levels: Noise level of each step, in image units.
        step: Length of the code step, in units of the one that is safe for a linear decoder.
        halvings: How often a step may be halved; 0 takes every step as it is.
    """

    needs: ClassVar[tuple[type, ...]] = (Latent,)
    command: ClassVar[str] = "reld"

    steps: int = 30
    weight: float = 1.0
    levels: Levels = field(default_factory=lambda: Annealed(high=49 / 255, low=0.5))
    step: float = 1.8
    halvings: int = field(default=6, metadata={"search": None})

    def __post_init__(self) -> None:
        count(self, "steps")
        positive(self, "step")
        not_negative(self, "weight", "halvings")

    def iterate(
        self, measurement: Measurement, prior: Latent, x: Tensor, generator: Generators
    ) -> Iterates:
        """Yields a `Step` (x: the image t after the data step, x0: the decoded D(v))."""
        image = Decoded(prior, prior.encode(x), x)
        lipschitz = squared_norm(prior, image.v)
        t = x.detach()
        for k, (sigma, _) in enumerate(self.levels(measurement, prior, self.steps, self.weight)):
            s, r = prior.code_noise(sigma), radius(sigma, prior, last=k + 1 == self.steps)
            mu = per_item(s / r, image.v).square()
            t = measurement.prox(image.x, r, residual=residual(k, self.steps))
            yield Step(k, sigma, t, image.x)
            if k + 1 < self.steps:
                f = prior.denoise_code(image.v, s)
                image = self._stepped(image, t, f, mu, per_item(lipschitz, image.v))
        return t

    def _stepped(
        self, image: "Decoded", t: Tensor, f: Tensor, mu: Tensor, l2: Tensor
    ) -> "Decoded":
        """Returns the next code, decoded, by one step that does not raise q."""

        def q(at: "Decoded") -> Tensor:
            far, off = at.x - t, at.v - f
            return mu.flatten() * inner(far, far) / 2 + self.weight * inner(off, off) / 2

        most = q(image) * (1 + 100 * torch.finfo(t.dtype).eps)  # rounding is no rise
        g = mu * image.pullback(image.x - t) + self.weight * (image.v - f)
        delta = (self.step / (mu * l2 + self.weight)).expand(len(g), *[1] * (g.ndim - 1))
        new = image.moved(-delta * g)
        for _ in range(self.halvings):
            rises = q(new) > most
            if not bool(rises.any()):
                break
            delta = torch.where(rises.reshape(delta.shape), delta / 2, delta)
            new = image.moved(-delta * g)
        return new


@dataclass(frozen=True)
class EncodedRELD(Method):
    """Regularization by latent denoising without derivatives: the image is encoded again.

    One step is one decoding, one encoding and one denoised code. Differentiates through the
    decoder: no.

    Args:
        steps: Number of steps.
        weight: Weight of the prior.
        levels: Noise level of each step, in image units.
    """

    needs: ClassVar[tuple[type, ...]] = (Latent,)
    command: ClassVar[str] = "encoded-reld"

    steps: int = 12
    weight: float = 0.4
    levels: Levels = field(default_factory=lambda: Annealed(high=49 / 255))

    def __post_init__(self) -> None:
        count(self, "steps")
        not_negative(self, "weight")

    def iterate(
        self, measurement: Measurement, prior: Latent, x: Tensor, generator: Generators
    ) -> Iterates:
        """Yields a `Step` (x: the image t after the data step, x0: the decoded D(v))."""
        v = prior.encode(x).detach()
        t = x.detach()
        for k, (sigma, _) in enumerate(self.levels(measurement, prior, self.steps, self.weight)):
            s, r = prior.code_noise(sigma), radius(sigma, prior, last=k + 1 == self.steps)
            mu = per_item(s / prior.code_noise(r), v).square()
            image = cropped(prior.decode(v), x)
            t = measurement.prox(image, r, residual=residual(k, self.steps))
            yield Step(k, sigma, t, image)
            if k + 1 < self.steps:
                f = prior.denoise_code(v, s)
                v = (mu * prior.encode(t) + self.weight * f) / (mu + self.weight)
        return t


class Decoded:
    """A code v and its image D(v), which remembers how it was decoded until it is pulled back.

    Args:
        prior: The latent prior.
        v: The code, with shape (B, ...).
        like: An image of the wanted size, to which D(v) is cropped.
    """

    def __init__(self, prior: Latent, v: Tensor, like: Tensor) -> None:
        self.prior, self.v, self.like = prior, v.detach(), like
        with torch.enable_grad():
            self._v = self.v.clone().requires_grad_()
            self._x = cropped(prior.decode(self._v), like)
        self.x = self._x.detach()

    def pullback(self, u: Tensor) -> Tensor:
        """Returns J_D(v)^T u, with the shape of v; once, since the memory is free after it."""
        (product,) = torch.autograd.grad(self._x, self._v, u)
        return product

    def moved(self, change: Tensor) -> "Decoded":
        """Returns the code v + change, decoded."""
        return Decoded(self.prior, self.v + change, self.like)


def cropped(image: Tensor, like: Tensor) -> Tensor:
    """Returns the part of a decoded image that an image of the wanted size has."""
    return image[..., : like.shape[-2], : like.shape[-1]]


def radius(sigma: float | Tensor, prior: Latent, *, last: bool) -> float | Tensor:
    """Returns how far the image is expected to be from D(v).

    That is the root of sigma^2 + error^2, and in the last step the error alone.
    """
    if last and prior.error > 0:
        return prior.error
    return (sigma**2 + prior.error**2) ** 0.5


def squared_norm(prior: Latent, v: Tensor, *, side: int = 24, iterations: int = 10) -> Tensor:
    """Returns the largest eigenvalue of J_D(v)^T J_D(v), by power iterations, with shape (B,).

    J u is the derivative of <J^T w, u> with respect to w, so that no layer of the decoder needs a
    forward-mode derivative.

    Args:
        prior: The latent prior.
        v: Codes, with shape (B, ...).
        side: Largest height and width of the central part that is looked at.
        iterations: Number of power iterations.
    """
    at = [slice(max(0, (n - side) // 2), max(0, (n - side) // 2) + side) for n in v.shape[2:]]
    part = v[(slice(None), slice(None), *at)].detach()
    # one start for all: what is found of an item does not depend on its place in the batch
    u = randn_like(part[:1], generators(0, 1, part.device)).expand_as(part)
    value = torch.ones(len(u), dtype=u.dtype, device=u.device)
    # other kernels of attention have no second derivative
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        z = part.clone().requires_grad_()
        x = prior.decode(z)
        w = torch.zeros_like(x, requires_grad=True)
        (back,) = torch.autograd.grad(x, z, w, create_graph=True)
        for _ in range(iterations):
            u = u / per_item(norm(u).clamp_min(1e-30), u)
            (forward,) = torch.autograd.grad(back, w, u, retain_graph=True)
            (u,) = torch.autograd.grad(x, z, forward, retain_graph=True)
            value = norm(u)
    return value
