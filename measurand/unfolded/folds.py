"""One fold of an unfolded network with a flow: a step for the data, then a step for the prior.

    data     v = x - mu A^H (A x - y),  mu = 2 sigmoid(a) / ||A||^2         (`GradientStep`), or
             v = argmin nll(v) + ||v - x||^2 / (2 r^2)                      (`ProximalStep`)
    prior    z = f(v);   z <- G z;   x = f^-1(z)
             G = kappa / (kappa + tau e^b), b per level and channel         (`GainStep`), or
             G = 1 / (1 + tau)                                              (`ShrinkStep`)

Learned are mu or r, tau and b. An image in which the data left holes or artefacts is far from what
the flow has seen; latents are therefore clipped at +-6, with gradients that lead back inside.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..measurement import Measurement
from ..priors.flow import FlowPrior
from ..priors.flow_prox import latent_gain
from ..schedules import log_grid
from ..tensors import per_item
from .physics import exactly

__all__ = [
    "Fold",
    "GainStep",
    "GradientStep",
    "ProximalStep",
    "ShrinkStep",
    "gradient_folds",
    "proximal_folds",
]


class GradientStep(nn.Module):
    """A gradient step on the misfit, `x - mu A^H (A x - y)`, mu between 0 and 2 / ||A||^2."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, measurement: Measurement) -> Tensor:
        """Returns v, with the shape of `x`."""
        operator = measurement.operator
        # not measurement.normalized(): the norm of a batch is that of its largest item
        square = torch.tensor(operator.norms, dtype=x.real.dtype).square().to(x.device)
        mu = per_item(2 * torch.sigmoid(self.a) / square, x)
        with exactly(x):
            return x + mu * operator.adjoint(measurement.residual(x))


class ProximalStep(nn.Module):
    """The proximal map of the data, `argmin nll(v) + ||v - x||^2 / (2 r^2)`; Gaussian noise.

    Args:
        r: Standard deviation r of x around the truth at the start of training, in image units.
    """

    def __init__(self, r: float = 0.1) -> None:
        super().__init__()
        self.raw_r = positive_parameter(r)

    @property
    def r(self) -> Tensor:
        """The learned r."""
        return F.softplus(self.raw_r)

    def forward(self, x: Tensor, measurement: Measurement) -> Tensor:
        """Returns v, with the shape of `x`."""
        with exactly(x):
            return measurement.prox(x, self.r)


class GainStep(nn.Module):
    """The step of the prior with a gain per level and channel, `z <- z kappa / (kappa + tau e^b)`.

    Args:
        prior: The flow whose latents it is for.
        r: Standard deviation of v around the truth at the start of training; tau is r^2 there.
        clip: Largest size of a latent.
    """

    def __init__(self, prior: FlowPrior, r: float = 0.1, *, clip: float = 6.0) -> None:
        super().__init__()
        self.raw_tau = positive_parameter(r**2)
        self.offsets = nn.ParameterList(torch.zeros(s[0]) for s in prior.latent_shapes)
        self.clip = clip

    @property
    def tau(self) -> Tensor:
        """The learned tau, in squared image units."""
        return F.softplus(self.raw_tau)

    def forward(self, v: Tensor, prior: FlowPrior) -> Tensor:
        """Returns the image, with the shape of `v`."""

        def gain(latents: list[Tensor]) -> list[Tensor]:
            tau = [
                (self.tau * b.exp()).reshape(-1, *[1] * (z.ndim - 2))
                for b, z in zip(self.offsets, latents, strict=True)
            ]
            return latent_gain([clipped(z, self.clip) for z in latents], prior.kappa, tau)

        return prior.through(v, gain)


class ShrinkStep(nn.Module):
    """The step of the prior as published, `z <- z / (1 + tau)`.

    Args:
        tau: Weight at the start of training, without unit.
        clip: Largest size of a latent.
    """

    def __init__(self, tau: float = 0.1, *, clip: float = 6.0) -> None:
        super().__init__()
        self.raw_tau = positive_parameter(tau)
        self.clip = clip

    @property
    def tau(self) -> Tensor:
        """The learned tau."""
        return F.softplus(self.raw_tau)

    def forward(self, v: Tensor, prior: FlowPrior) -> Tensor:
        """Returns the image, with the shape of `v`."""
        return prior.through(v, lambda zs: [clipped(z, self.clip) / (1 + self.tau) for z in zs])


class Fold(nn.Module):
    """A step for the data, then a step for the prior.

    Args:
        data_step: Called as `data_step(x, measurement)`.
        prior_step: Called as `prior_step(v, prior)`.
    """

    def __init__(self, data_step: nn.Module, prior_step: nn.Module) -> None:
        super().__init__()
        self.data_step, self.prior_step = data_step, prior_step

    def forward(self, x: Tensor, measurement: Measurement, prior: FlowPrior) -> Tensor:
        """Returns the next image, with the shape of `x`."""
        return self.prior_step(self.data_step(x, measurement), prior)

    def to_card(self) -> list[Any]:
        """Returns the names of both steps and the largest size of a latent, for a card.

        Raises:
            TypeError: A step is none of this file.
        """
        names = type(self.data_step).__name__, type(self.prior_step).__name__
        if names[0] not in DATA_STEPS or names[1] not in PRIOR_STEPS:
            raise TypeError(f"Fold: a card has no words for {names[0]} and {names[1]}")
        return [*names, self.prior_step.clip]

    @classmethod
    def from_card(cls, steps: Sequence[Any], prior: FlowPrior) -> Self:
        """Returns the fold that a card describes, for copies of a flow."""
        data_step, prior_step, *clip = steps
        made = PRIOR_STEPS[prior_step](prior, clip[0] if clip else 6.0)
        return cls(DATA_STEPS[data_step](), made)


DATA_STEPS = {kind.__name__: kind for kind in (GradientStep, ProximalStep)}


PRIOR_STEPS: dict[str, Callable[[FlowPrior, float], nn.Module]] = {
    "GainStep": lambda prior, clip: GainStep(prior, clip=clip),
    "ShrinkStep": lambda prior, clip: ShrinkStep(clip=clip),
}


def gradient_folds(
    prior: FlowPrior, n: int = 4, *, high: float = 0.4, low: float = 0.04
) -> list[Fold]:
    """Folds of a gradient step and a gain: for blur and denoising, and for any operator.

    Args:
        prior: The flow, calibrated.
        n: Number of folds.
        high: Standard deviation that the first fold's gain expects at the start of training.
        low: That of the last fold.
    """
    radii = log_grid(high, low, n).tolist()
    return [Fold(GradientStep(), GainStep(prior, r)) for r in radii]


def proximal_folds(
    prior: FlowPrior, n: int = 4, *, high: float = 0.4, low: float = 0.04
) -> list[Fold]:
    """Folds of a proximal step and a gain: where pixels are missing, or A is ill-conditioned.

    Args:
        prior: The flow, calibrated.
        n: Number of folds.
        high: Standard deviation that the first fold expects at the start of training.
        low: That of the last fold.
    """
    radii = log_grid(high, low, n).tolist()
    return [Fold(ProximalStep(r), GainStep(prior, r)) for r in radii]


def positive_parameter(value: float) -> nn.Parameter:
    """Returns the parameter p for which softplus(p) has a value."""
    return nn.Parameter(torch.tensor(math.log(math.expm1(value)), dtype=torch.get_default_dtype()))


def clipped(z: Tensor, most: float) -> Tensor:
    """Returns latents of at most a size; outside, only gradients that lead back pass."""
    return _Clipped.apply(z, most)


class _Clipped(torch.autograd.Function):
    """A clamp. Without a gradient what is outside stays there for ever; with that of the identity
    it is driven outwards for ever, by a loss that no longer sees it."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, most: float) -> Tensor:
        ctx.save_for_backward(z)
        ctx.most = most
        return z.clamp(-most, most)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (z,), (g,) = ctx.saved_tensors, grads
        return torch.where((z.abs() <= ctx.most) | (g * z > 0), g, 0.0), None
