r"""Deep unfolding with normalizing-flow priors: a proximal gradient method of few, learned folds.

For y = A x + noise and a prior p(x) with the flow z = f(x), fold k of K (see `folds`) maps x to

    data     v = x - mu_k A^H (A x - y),   or   v = argmin nll(v) + ||v - x||^2 / (2 r_k^2)
    prior    x = f_k^-1(G_k f_k(v)),       G_k = kappa / (kappa + tau_k e^b)   or   1 / (1 + tau_k)

from `first_guess`. Learned are mu_k or r_k, tau_k, b, and the flows, each of which starts as a
copy of one that was trained by likelihood; kappa is measured on that one (see `priors.flow`) and
stays. The whole chain is trained end to end,

    loss = |x_K - x|^2 + auxiliary sum_(k<K) |x_k - x|^2 + eta sum_k bits(f_k; x),

squares and bits averaged over pixels, so that neither weight depends on their number. With eta > 0
every f_k remains a density of images, and log p(x_K) tells images that are like the training
images from others.

Deviations. The published map is the shrink; ours is the gain, see `priors.flow_prox` for why.
gamma_k of the data's proximal map is sigma^2 / r_k^2 with r_k learned, so that a network knows the
noise of a measurement (our design page: gamma_k itself). A last proximal map of the data is left
to the caller, `measurement.prox(x, r)`.

References:
    | Deep Unfolding with Normalizing Flow Priors for Inverse Problems (Wei et al., 2022)
    | arXiv:2107.02848
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..measurement import Measurement
from ..priors.flow import FlowPrior, bits_per_dim
from ..priors.trained import Evaluation, Fitted, Images, Score, Trained, images_named
from ..start import first_guess
from ..tensors import to_channels
from .folds import Fold
from .physics import exactly

__all__ = ["FlowProximal", "unfolding_loss"]


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
