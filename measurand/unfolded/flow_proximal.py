r"""Deep unfolding with normalizing-flow priors: a proximal gradient method of few, learned folds.

For y = A x + noise and a prior p(x) with the flow z = f(x), fold k of K maps x to

    data     v = x - mu_k A^H (A x - y),  mu_k = 2 sigmoid(a_k) / ||A||^2    (`GradientStep`), or
             v = argmin nll(v) + ||v - x||^2 / (2 r_k^2)                     (`ProximalStep`)
    prior    z = f_k(v);   z <- G_k z;   x = f_k^-1(z)
             G_k = kappa / (kappa + tau_k e^b), b per level and channel      (`GainStep`), or
             G_k = 1 / (1 + tau_k)                                           (`ShrinkStep`)

from `first_guess`. Learned are mu_k or r_k, tau_k, b, and the flows, each of which starts as a
copy of one that was trained by likelihood; kappa is measured on that one (see `priors.flow`) and
stays. The whole chain is trained end to end,

    loss = |x_K - x|^2 + auxiliary sum_(k<K) |x_k - x|^2 + eta sum_k bits(f_k; x),

squares and bits averaged over pixels, so that neither weight depends on their number. With eta > 0
every f_k remains a density of images, and log p(x_K) tells images that are like the training
images from others.

Every item has its own ||A||. An image in which the data left holes or artefacts is far from what
the flow has seen; latents are therefore clipped at +-6, with gradients that lead back inside.

Deviations. The published map is the shrink; ours is the gain, see `priors.flow_prox` for why.
gamma_k of the data's proximal map is sigma^2 / r_k^2 with r_k learned, so that a network knows the
noise of a measurement (our design page: gamma_k itself). A last proximal map of the data is left
to the caller, `measurement.prox(x, r)`.

References:
    | Deep Unfolding with Normalizing Flow Priors for Inverse Problems (Wei et al., 2022)
    | arXiv:2107.02848
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ..measurement import Measurement
from ..priors.flow import FlowPrior, bits_per_dim
from ..priors.flow_prox import latent_gain
from ..priors.trained import Evaluation, Fitted, Images, Score, Trained, images_named
from ..schedules import log_grid
from ..start import first_guess
from ..tensors import per_item, to_channels
from .physics import exactly

__all__ = [
    "FlowProximal",
    "Fold",
    "GainStep",
    "GradientStep",
    "ProximalStep",
    "ShrinkStep",
    "gradient_folds",
    "proximal_folds",
    "unfolding_loss",
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


class FlowProximal(Trained):
    """An unfolded network: called with a measurement, it returns the image.

    A `Density` by its last flow. Differentiates through the folds, and the operator in them: yes;
    through the start: no.

    Args:
        prior: The flow that every fold starts with a copy of; it stays as it is.
        folds: The folds, in order.
        share: All folds have one flow together.
        recompute: Recompute the activations of a fold in the backward pass instead of keeping
            them: the memory of one fold, for one more forward pass.
    """

    kind = "flow-unfolded"
    any_operator = False

    def __init__(
        self,
        prior: FlowPrior,
        folds: Sequence[Fold],
        *,
        share: bool = False,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if not folds:
            raise ValueError("FlowProximal: got no folds, wanted at least one")
        self.folds = nn.ModuleList(folds)
        self.priors = nn.ModuleList(
            copy.deepcopy(prior) for _ in range(1 if share else len(folds))
        )
        self.recompute = recompute
        self.card: dict[str, Any] = {}  # what is known of the weights

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest value of the images: a flow is a density of images in [-1, 1]."""
        return -1.0, 1.0

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """Kind of the images."""
        return self.priors[0].dtype  # type: ignore[return-value]

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Channels of the images."""
        return self.priors[0].channels  # type: ignore[return-value]

    def extra_repr(self) -> str:
        return f"folds={len(self.folds)}, {super().extra_repr()}"

    def forward(self, measurement: Measurement) -> Tensor:
        """Returns the image, with shape (B, C, H, W)."""
        return self.iterates(measurement)[-1]

    restore = forward

    def iterates(self, measurement: Measurement) -> list[Tensor]:
        """Returns the image after each fold."""
        with exactly(measurement.y):
            x = first_guess(measurement)
        found = []
        for k, fold in enumerate(self.folds):
            prior = self.priors[k % len(self.priors)]
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(
                    fold, x, measurement, prior, use_reentrant=False, preserve_rng_state=False
                )
            else:
                x = fold(x, measurement, prior)
            found.append(x)
        return found

    def log_prob(self, x: Tensor) -> Tensor:
        """Returns the log-density of an image under the last flow, in nats, with shape (B,)."""
        last: Any = self.priors[-1]
        return last.log_prob(x)

    def knobs(self) -> list[nn.Parameter]:
        """Returns the few numbers that are not the flows': step sizes, weights and offsets."""
        return list(self.folds.parameters())

    @property
    def evaluations(self) -> int:
        return len(self.folds)

    @property
    def problems(self) -> tuple[str, ...]:
        kind = self.recipe.get("kind")
        return (str(kind),) if kind else ()

    def keeps(self, name: str, x: Tensor) -> bool:
        return x.ndim != 4  # all but the networks inside couplings

    def coded(self, name: str, x: Tensor) -> bool:
        return x.ndim == 4

    def to_card(self) -> dict[str, Any]:
        first: Any = self.priors[0]
        return {
            "kind": self.kind,
            "prior": first.to_card(),
            "share": len(self.priors) < len(self.folds),
            "folds": [fold.to_card() for fold in self.folds],  # type: ignore[operator]
        }

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Self:
        prior = FlowPrior.from_card(card["prior"])
        folds = [Fold.from_card(one, prior) for one in card["folds"]]
        return cls(prior, folds, share=card["share"])

    @classmethod
    def summary(cls, card: Mapping[str, Any]) -> str:
        images = images_named(card["prior"]["shape"][0], card["prior"].get("dtype"))
        recipe = card.get("recipe")
        kind = recipe.get("kind") if isinstance(recipe, dict) else None
        psnr = (card.get("held_out_psnr") or {}).values()
        good = f", {sum(psnr) / len(psnr):.1f} dB there" if psnr else ""
        trained = f", trained on {str(kind).partition('(')[0]}{good}" if kind else ""
        return f"unfolded network of {len(card['folds'])} flows for {images}{trained}"

    def fitted(self, images: Images, *, tile: int = 1024, name: str = "") -> Fitted:
        self.matched(images, name, grey=False)
        large = max(images.shape[1:]) > tile
        words = f"{name} runs on the whole image: only denoisers are tiled"
        return Fitted(self, [words] if large else [])

    def remarks(self, measurement: Measurement, x: Tensor) -> dict[str, float]:
        """Returns the bits per pixel value of the image under the last flow."""
        last: Any = self.priors[-1]
        return last.remarks(measurement, x)

    def quality(self, on: Evaluation) -> list[Score]:
        return on.restored(self, lambda measurement, generator: self(measurement))


def unfolding_loss(net: FlowProximal, batch: Mapping[str, Any], *, eta: float = 0.0) -> Tensor:
    """The end-to-end loss of each item, with shape (B,).

    loss = |x_K - x|^2 + auxiliary sum_(k<K) |x_k - x|^2 + eta sum_k bits(f_k; x + noise)

    Args:
        net: The unfolded network.
        batch: "x" images (B, C, H, W) and "measurement", what was seen of them; optional:
            "auxiliary", weight of the folds before the last, for the beginning of training, and
            "noise", what `dequantization` draws, for the likelihood.
        eta: Weight of the bits per pixel value, one sum over the flows.
    """
    x = batch["x"]
    *earlier, last = [squared_error(found, x) for found in net.iterates(batch["measurement"])]
    loss = last
    if "auxiliary" in batch and earlier:
        loss = loss + batch["auxiliary"] * torch.stack(earlier).sum(0)
    if eta:
        seen = x + batch["noise"] if "noise" in batch else x
        n = to_channels(x)[0].numel()
        priors: Any = net.priors
        loss = loss + eta * sum(bits_per_dim(prior.log_prob(seen), n) for prior in priors)
    return loss


def squared_error(x_hat: Tensor, x: Tensor) -> Tensor:
    """Returns the mean squared error of each item, (B,)."""
    return to_channels(x_hat - x).square().flatten(1).mean(1)


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
