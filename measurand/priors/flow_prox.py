r"""Proximal maps of a normalizing flow, through its latents.

The proximal map of the density of a flow z = f(x), x = g(z), and what the change to latents makes
of it,

    image MAP     argmin_x  1/2 ||x - v||^2 - tau log p(x)
    latent MAP    argmin_z  1/2 ||g(z) - v||^2 + tau/2 ||z||^2,   x = g(z)

differ by the log-determinant, and neither has a closed form. One Gauss-Newton step of the latent
problem from z = f(v), where g(z) = v, with J = dg/dz and the diagonal kappa of J^T J, is one: the
`FlowGain`

    z <- z kappa / (kappa + tau),

and with kappa left out the `FlowShrink`, z <- z / (1 + tau). For an affine flow whose latents
are principal components the gain is the exact proximal map, and kappa are the variances. The
shrink never is: it draws v to the mean by the same factor in every direction, whatever the flow
has learnt of them, and it forgets that tau has the unit of squared image units and z has none.

If v = x + r n, n white, then tau = r^2. Maps of images whose sides the flow does not divide work
on the image extended by reflection; the density of such an image is refused.

References:
    | Deep Unfolding with Normalizing Flow Priors for Inverse Problems (Wei et al., 2022)
    | arXiv:2107.02848
    | Invertible Generative Models for Inverse Problems (Asim et al., 2020), arXiv:1905.11672
"""

import math
from collections.abc import Callable, Sequence
from typing import ClassVar, Protocol, Self

import torch
from torch import Tensor, nn

from ..tensors import inner, per_item
from ..validate import count
from .brief import one_line
from .descent import descend

__all__ = ["ImageMAP", "FlowGain", "FlowMAP", "FlowShrink", "latent_gain", "packed"]


class Calibrated(Protocol):
    """What the maps ask of a flow; see `FlowPrior`."""

    @property
    def kappa(self) -> list[Tensor]: ...

    def latents(self, x: Tensor) -> list[Tensor]: ...

    def image(self, latents: Sequence[Tensor]) -> Tensor: ...

    def log_prob(self, x: Tensor) -> Tensor: ...

    def extended(self, v: Tensor) -> Tensor: ...

    def through(self, v: Tensor, change: Callable[[list[Tensor]], list[Tensor]]) -> Tensor: ...


class _Halves(nn.Module):
    """The flow x = z / 2, of independent pixels with standard deviation one half."""

    dtype = torch.float32

    @property
    def kappa(self) -> list[Tensor]:
        return [torch.full((1,), 0.25)]

    def latents(self, x: Tensor) -> list[Tensor]:
        return [2 * x]

    def image(self, latents: Sequence[Tensor]) -> Tensor:
        return latents[0] / 2

    def log_prob(self, x: Tensor) -> Tensor:
        return (math.log(2) - 0.5 * math.log(2 * math.pi) - 2 * x.square()).flatten(1).sum(1)

    def extended(self, v: Tensor) -> Tensor:
        return v

    def through(self, v: Tensor, change: Callable[[list[Tensor]], list[Tensor]]) -> Tensor:
        return self.image(change(self.latents(v)))


def packed(latents: Sequence[Tensor]) -> Tensor:
    """The latents of all levels as one vector per item, with shape (B, n)."""
    return torch.cat([z.flatten(1) for z in latents], dim=1)


def latent_gain(
    latents: Sequence[Tensor], kappa: Sequence[Tensor], tau: Sequence[float | Tensor]
) -> list[Tensor]:
    """The latents times `kappa / (kappa + tau)`.

    Args:
        latents: Latents of each level, with shape (B, C, ...).
        kappa: Their squared scale in the image, with shape (C,) each.
        tau: Weight of each level, shaped to broadcast against the latents, in squared image units.
    """
    scales = _beside(latents, kappa)
    return [z * (k / (k + t)) for z, k, t in zip(latents, scales, tau, strict=True)]


class _OfFlow(nn.Module):
    """What the proximal maps of a flow share."""

    not_by_name: ClassVar[str] = (
        "is made of a flow: use it in Python; a weight file of a flow has FlowGain"
    )

    def __init__(self, prior: Calibrated) -> None:
        super().__init__()
        self.prior = prior

    __repr__ = one_line

    @classmethod
    def example(cls) -> Self:
        """An instance on which the laws are tested: the flow of independent normal pixels."""
        return cls(_Halves())


class FlowGain(_OfFlow):
    """One Gauss-Newton step of the latent MAP problem, `z <- z kappa / (kappa + tau)`.

    A `Proximable`; differentiates through the flow: yes.

    Args:
        prior: The flow, calibrated.
    """

    not_by_name: ClassVar[str] = (
        "is made of a flow: name its weight file, and it is put around it by itself"
    )

    def prox(self, v: Tensor, tau: float | Tensor) -> Tensor:
        """The image whose latents are those of `v`, each shrunk by what is known of it.

        Args:
            v: Image to stay near, with shape (B, C, H, W).
            tau: Weight in squared image units, a scalar or one per item.
        Returns:
            The image, with the shape of `v`.
        """
        kappa = self.prior.kappa

        def gain(latents: list[Tensor]) -> list[Tensor]:
            return latent_gain(latents, kappa, [per_item(tau, z) for z in latents])

        return self.prior.through(v, gain)


class FlowShrink(_OfFlow):
    """The uniform shrink of all latents, `z <- z / (1 + tau)`: the published relaxation.

    It is the latent MAP with `||g(z) - v||` replaced by `||z - f(v)||`, and makes no use of the
    covariances that the flow has learnt. A `Proximable`; differentiates through the flow: yes.

    Args:
        prior: The flow.
    """

    def prox(self, v: Tensor, tau: float | Tensor) -> Tensor:
        """The image whose latents are `1 / (1 + tau)` times those of `v`.

        Args:
            v: Image to stay near, with shape (B, C, H, W).
            tau: Weight without unit, a scalar or one per item.
        Returns:
            The image, with the shape of `v`.
        """
        return self.prior.through(v, lambda latents: [z / (1 + per_item(tau, z)) for z in latents])


class FlowMAP(_OfFlow):
    """The latent MAP, `argmin_z 1/2 ||g(z) - v||^2 + tau/2 ||z||^2`, by descent with line search.

    Preconditioned with `1 / (kappa + tau)`, so that a first step of length one is `FlowGain`;
    the objective never increases. A `Proximable`; differentiates through the flow: no.

    Args:
        prior: The flow, calibrated.
        steps: Steps of the descent; each costs two or more passes of the flow and one backward.
    """

    def __init__(self, prior: Calibrated, steps: int = 10) -> None:
        super().__init__(prior)
        self.steps = steps
        count(self, "steps")

    def extra_repr(self) -> str:
        return f"steps={self.steps}"

    def objective(self, x: Tensor, v: Tensor, tau: float | Tensor) -> Tensor:
        """What is minimised, at the image x = g(z), with shape (B,)."""
        latents = self.prior.latents(x)
        return _misfit(x, v) + _weight(tau, x) / 2 * sum(inner(z, z) for z in latents)

    @torch.no_grad()
    def prox(self, v: Tensor, tau: float | Tensor) -> Tensor:
        """The image of the minimiser.

        Args:
            v: Image to stay near, with shape (B, C, H, W).
            tau: Weight in squared image units, a scalar or one per item.
        Returns:
            The image, with the shape of `v`.
        """
        wanted = self.prior.extended(v)

        def descent(latents: list[Tensor]) -> list[Tensor]:
            def unpacked(z: Tensor) -> list[Tensor]:
                parts = z.split([level[0].numel() for level in latents], dim=1)
                return [p.view_as(level) for p, level in zip(parts, latents, strict=True)]

            def objective(z: Tensor) -> Tensor:
                distance = _misfit(self.prior.image(unpacked(z)), wanted)
                return distance + _weight(tau, z) / 2 * inner(z, z)

            scales = _beside(latents, self.prior.kappa)
            metric = [
                (1 / (k + per_item(tau, z))).expand_as(z)
                for k, z in zip(scales, latents, strict=True)
            ]
            return unpacked(descend(objective, packed(latents), packed(metric), self.steps))

        return self.prior.through(v, descent)


class ImageMAP(_OfFlow):
    """The proximal map of the density, `argmin_x 1/2 ||x - v||^2 - tau log p(x)`, by descent.

    With the log-determinant that `FlowMAP` leaves out; the objective never increases. A
    `Proximable`; differentiates through the flow: no.

    Args:
        prior: The flow.
        steps: Steps of the descent; each costs two or more passes of the flow and one backward.
    """

    def __init__(self, prior: Calibrated, steps: int = 10) -> None:
        super().__init__(prior)
        self.steps = steps
        count(self, "steps")

    def extra_repr(self) -> str:
        return f"steps={self.steps}"

    def objective(self, x: Tensor, v: Tensor, tau: float | Tensor) -> Tensor:
        """What is minimised, with shape (B,)."""
        return _misfit(x, v) - _weight(tau, x) * self.prior.log_prob(x)

    @torch.no_grad()
    def prox(self, v: Tensor, tau: float | Tensor) -> Tensor:
        """The minimiser that descent from `v` finds.

        Args:
            v: Image to stay near, with shape (B, C, H, W).
            tau: Weight in squared image units, a scalar or one per item.
        Returns:
            The image, with the shape of `v`.
        """
        wanted = self.prior.extended(v)
        x = descend(
            lambda x: self.objective(x, wanted, tau),
            wanted,
            torch.ones_like(wanted.real),
            self.steps,
        )
        return x[..., : v.shape[-2], : v.shape[-1]]


def _beside(latents: Sequence[Tensor], values: Sequence[Tensor]) -> list[Tensor]:
    """One value per level and channel, shaped to broadcast against the latents."""
    return [k.reshape(-1, *[1] * (z.ndim - 2)) for k, z in zip(values, latents, strict=True)]


def _misfit(x: Tensor, v: Tensor) -> Tensor:
    return inner(x - v, x - v) / 2


def _weight(tau: float | Tensor, x: Tensor) -> Tensor:
    return per_item(tau, x).reshape(-1)
