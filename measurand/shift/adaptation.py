r"""A prior adapted to images that were never seen, only measured.

The denoiser of a network is trained further on the coordinates that each measurement knows,

    loss = E (sigma^2 + s^2) / (sigma s)^2  1/n sum_k E[P_k]^(2 a) P_k |V^H D(u, sigma) - t|_k^2,
    ln(sigma) ~ N(-1.2, 1.2^2),

with u and t of `coordinates`: of noisy data the targets have noise that tells nothing about u, so
that the noise is not learnt. Where nothing was measured stands the middle of the range, or what
`fill` says: images that some method has reconstructed make inputs of the kind that the prior has
when it is used.

A few dozen measurements can be learnt by heart. A part of them is held out, the average of the
weights is measured on it with the same noise each time, the best one is kept, and training ends
when it no longer improves.

Deviations. Paper: a mask redrawn at every step, here the one of each measurement; a rate of 1e-3
with a ramp of ten million images, here 1e-5 to 1e-4 without; for MRI a loss without a mask, which
teaches aliases, here that of the sampled frequencies; a stop by the norm of the gradient, here by
held-out measurements.

References:
    | Unsupervised Detection of Distribution Shift in Inverse Problems using Diffusion Models
    | (Shoushtari et al., 2025), arXiv:2505.11482
"""

import contextlib
import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..batches import Batch
from ..measurement import Measurement
from ..priors.edm import EDMDenoiser
from ..training.ema import EMA
from ..training.loop import Progress, adamw, train
from ..validate import count, not_negative, positive, share
from .coordinates import Coordinates, coordinates, weights
from .denoising import Problem, measured
from .ranking import RATIO

__all__ = ["Adaptation"]

LEAST = 8  # measurements
# what a card says of the very weights, and of theirs alone
MEASURED = {"steps", "patches", "patches_before", "ema", "notes", "version", "sha256", "init"}
MEASURED |= {"psnr", "calibration", "measured_on"}


class Finished(Exception):
    """Ends the training loop."""


@dataclass(frozen=True)
class Adaptation:
    """Adapts a trained prior to measurements of other images.

    `loss = E weight(sigma) 1/n sum_k E[P_k]^(2 a) P_k |V^H D(u, sigma) - t|_k^2`

    Args:
        steps: Most steps.
        lr: Learning rate of AdamW; from 1e-5 to 1e-4 for networks of a few million weights.
        batch: Measurements per step.
        held_out: Share of the measurements that is never trained on; two at least.
        every: Steps between two looks at the held-out measurements.
        patience: Looks without improvement after which training ends.
        improvement: Relative one that counts.
        width: Relative width of the average of the weights.
        exponent: a of the weight of a coordinate.
        spread: Whether noise is also added where nothing is seen; it always is where `fill` says
            what stands there.
        fixed: Whether it is meant that all measurements see the same coordinates only.
        seed: Of the choice of held-out measurements, of batches and noise.
    References:
        | Unsupervised Detection of Distribution Shift in Inverse Problems using Diffusion Models
        | (Shoushtari et al., 2025), arXiv:2505.11482
    """

    steps: int = 600
    lr: float = 5e-5
    batch: int = 8
    held_out: float = 0.2
    every: int = 20
    patience: int = 5
    improvement: float = 1e-3
    width: float = 0.1
    exponent: float = -0.5
    spread: bool = False
    fixed: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        count(self, "steps", "batch", "every", "patience")
        positive(self, "lr", "width")
        not_negative(self, "improvement", "seed")
        share(self, "held_out", zero=False)

    def __call__(
        self,
        prior: EDMDenoiser,
        measurements: Sequence[Measurement],
        *,
        fill: Tensor | None = None,
        callback: Callable[[int, float], None] | None = None,
    ) -> EDMDenoiser:
        """Return the adapted prior; the one given stays as it is.

        Args:
            prior: What to start from.
            measurements: Of the images to adapt to, eight or more; each may be a batch.
            fill: Images that stand where nothing was measured, one per measurement, with shape
                (N, *shape); the middle of the range when absent.
            callback: Called at each look with the steps done and the held-out loss.
        """
        if not isinstance(prior, EDMDenoiser):
            raise TypeError(
                f"Adaptation: got a {type(prior).__name__}, wanted an EDMDenoiser: only its "
                "weights and its loss are known"
            )
        data = coordinates(
            list(measurements), [prior], prior.range, fixed=self.fixed, by=self, fill=fill
        )
        if len(data) < LEAST:
            raise ValueError(
                f"Adaptation: got {len(data)} measurements, wanted {LEAST} or more: so few are "
                "learnt by heart"
            )
        if RATIO * float(data.least.max()) >= prior.sigma_range[1]:
            raise ValueError(
                f"Adaptation: got measurements with noise of {float(data.least.max()):.3g} in "
                f"their best coordinate, wanted less than the levels of the prior, "
                f"{prior.sigma_range}"
            )
        network = next(prior.net.parameters())
        precision = network.dtype
        model = copy.deepcopy(prior).requires_grad_(True)
        model.net.float()
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(self.seed))
        cut = min(max(2, round(self.held_out * len(data))), len(data) - 2)
        problem = Problem(
            data,
            weights(data.sd.isfinite(), self.exponent).to(data.sd.dtype),
            self.spread or fill is not None,
            prior.sigma_range,
            (prior.range[1] - prior.range[0]) / 2,
        )
        looks = problem.looks(order[:cut], self.generator(data, 0), self.batch)
        average = EMA(model, self.width)
        best = Best(average.values, measured(model, problem, looks), self.improvement)
        start = best.loss
        if not math.isfinite(start):
            raise FloatingPointError(f"Adaptation: the prior has a held-out loss of {start}")

        def on_step(progress: Progress) -> None:
            if progress.step % self.every and progress.step != self.steps:
                return
            with average.applied():
                loss = measured(model, problem, looks)
            if callback is not None:
                callback(progress.step, loss)
            if best.misses(progress.step, loss, average.values) >= self.patience:
                raise Finished

        def batch(step: int, stage: int) -> Batch:
            generator = self.generator(data, 1 + step)
            chosen = torch.empty(self.batch, device=generator.device).uniform_(generator=generator)
            at = cut + (chosen.double() * (len(data) - cut)).long().cpu()
            return problem.drawn(order[at], generator)

        with contextlib.suppress(Finished):
            train(
                model,
                batch,
                problem.loss,
                steps=self.steps,
                warmup=min(50, self.steps // 10 + 1),
                optimizer=adamw(model, lr=self.lr),
                ema=[average],
                on_step=on_step,
                autocast=None if precision == torch.float32 else precision,
            )
        average.copy(best.values)
        if not best.step:
            warnings.warn(
                "Adaptation: no step improved on the held-out measurements, the prior is what it "
                "was; more measurements or another lr may help",
                stacklevel=2,
            )
        model.net.to(precision)
        model.card = {
            **inherited(prior.card),
            "adaptation": {
                **asdict(self),
                "measurements": len(data),
                "operator": str(measurements[0].operator),
                "keep": data.keep,
                "best_step": best.step,
                "held_out_loss": [start, best.loss],
            },
        }
        return model.eval().requires_grad_(False)

    def generator(self, data: Coordinates, place: int) -> torch.Generator:
        """Return the random numbers of a place, from the seed."""
        return torch.Generator(data.known.device).manual_seed(self.seed * 2**32 + place)


@dataclass
class Best:
    """The best weights so far.

    Args:
        values: The weights before the first step.
        loss: Their held-out loss.
        improvement: Relative one that counts.
    """

    values: Mapping[str, Tensor]
    loss: float
    improvement: float
    step: int = 0
    missed: int = 0

    def __post_init__(self) -> None:
        self.values = {k: v.clone() for k, v in self.values.items()}
        self.mark = self.loss

    def misses(self, step: int, loss: float, values: Mapping[str, Tensor]) -> int:
        """Take in a look; return how many there were since the last improvement that counts."""
        if loss < self.loss:
            self.loss, self.step = loss, step
            self.values = {k: v.clone() for k, v in values.items()}
        counts = loss < (1 - self.improvement) * self.mark
        self.mark = min(self.mark, loss) if counts else self.mark
        self.missed = 0 if counts else self.missed + 1
        return self.missed


def inherited(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an adapted prior has from the card of the one it started from: its terms too.

    What was measured on the weights of that one is left out.
    """
    name = str(card.get("name", "a prior without a name"))
    version = f"@{card['version']}" if "version" in card else ""
    licence = card.get("licence") or f"that of {name}, which states none"
    kept = {k: v for k, v in card.items() if k not in MEASURED and not k.startswith("held_out")}
    init = {"file": name + version, "licence": licence}
    if card.get("init"):
        init["init"] = card["init"]
    return {**kept, "name": f"{name}-adapted", "licence": licence, "init": init}
