"""Recipes of normalizing flows: the density of small images, and networks unfolded with it.

A flow is trained by likelihood first. Each fold of an unfolded network then starts with a copy of
it, and the whole is trained end to end on one kind of problem, as published; see
`unfolded.flow_proximal`. Flows see neighbourhoods only, so that images may be of any size.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..batches import Batch
from ..domains import Photographs
from ..domains.material import Material, generator_of
from ..measurement import Measurement
from ..nets import Glow
from ..priors.flow import FlowPrior, dequantization, flow_loss
from ..problems.random import Denoising, GaussianBlurs, MissingPixels, Problems, drawn
from ..tensors import to_channels
from ..training.quality import HeldOut, restoration_psnr
from ..unfolded.flow_proximal import FlowProximal, unfolding_loss
from ..unfolded.folds import Fold, proximal_folds
from ..weights.store import load
from .base import Recipe, take_over
from .priors import natural_color

__all__ = [
    "FlowRecipe",
    "UnfoldedFlowRecipe",
    "flow_color",
    "flow_deblur",
    "flow_denoise",
    "flow_inpaint",
]

NOISE = 0.02  # Gaussian part of the dequantisation
BETTER = "above the frozen flow, other maps of its size and total variation on photographs"


@dataclass(frozen=True)
class FlowRecipe(Recipe):
    """How a flow is trained by likelihood; see `Recipe` for what all recipes say.

    Args:
        levels: Levels of the flow.
        steps: Flow steps of each level.
        hidden: Channels inside a coupling's network.
    """

    measure: ClassVar[str] = "bits"

    lr: float = 1e-3
    batch: int = 32
    crops: tuple[int, int] = (32, 64)
    levels: int = 3
    steps: int = 6
    hidden: int = 96

    def new(self, init: str | os.PathLike[str] | None = None) -> FlowPrior:
        """Returns the flow; with the weights of another one of its size where `init` says so."""
        torch.manual_seed(self.seed)
        domain = self.domain
        channels = domain.channels * (2 if domain.dtype.is_complex else 1)
        flow = Glow(channels, levels=self.levels, steps=self.steps, hidden=self.hidden)
        prior = FlowPrior(
            flow, shape=(domain.channels, self.crops[0], self.crops[0]), dtype=domain.dtype
        )
        if init is not None:
            other = load(init, FlowPrior)
            config = getattr(other.flow, "config", None)
            if config != flow.config:
                raise ValueError(f"{init}: got a flow of {config}, wants {flow.config}")
            prior.load_state_dict(other.state_dict())
        return prior

    def prepare(self, model: FlowPrior, material: Material) -> None:
        """Standardises the input of every step of a new flow on a first batch."""
        assert isinstance(model.flow, Glow)
        x = material.batch(0, 64, self.crops[0])["x"]
        noise = dequantization(x, generator_of(self.seed, 0, x.device, stream=1), sigma=NOISE)
        model.flow.initialize(to_channels(x + noise))

    def finish(self, model: FlowPrior, material: Material, steps: int) -> dict[str, Any]:
        """Measures kappa on images of the training, and how near a step is to being singular."""
        model.calibrate(material.batch(1, 64, self.crops[0])["x"])
        assert isinstance(model.flow, Glow)
        return {"least_pivot": model.flow.least_pivot}

    def problem(self, material: Material, step: int, n: int, size: int) -> Batch:
        images = material.batch(step, n, size)
        generator = generator_of(self.seed, step, images["x"].device, stream=1)
        return images.adding({"noise": dequantization(images["x"], generator, sigma=NOISE)})

    def loss(self, model: FlowPrior, batch: Mapping[str, Any]) -> Tensor:
        return flow_loss(model, batch)

    def quality(
        self, model: FlowPrior, held_out: Sequence[Batch], dtype: torch.dtype
    ) -> dict[str, float]:
        """Returns the bits per pixel value of held-out images."""
        if not held_out:
            return {}
        (score,) = model.quality(HeldOut([case["x"] for case in held_out]))
        return score.values


@dataclass(frozen=True)
class UnfoldedFlowRecipe(Recipe):
    """How an unfolded network of flows is trained; see `Recipe` for what all recipes say.

    Args:
        start: Flow that every fold starts from, by name or path.
        kind: The kind of problems.
        sigma_y: Smallest and largest noise of a measurement, relative to the operator's norm.
        folds: Makes the folds of a flow, see `unfolded.flow_proximal`.
        depth: Number of folds.
        knobs: Learning rate of step sizes and weights, in units of that of the flows.
        eta: Weight of the likelihood, see `unfolding_loss`.
        early: Steps in which the folds before the last one count as well, by a tenth.
        frozen: Leave the flows as they are and train only step sizes and weights.
    """

    start: str = "flow-color"
    kind: Problems = Denoising()
    sigma_y: tuple[float, float] = (0.02, 0.04)
    folds: Callable[..., list[Fold]] = proximal_folds
    depth: int = 3
    knobs: float = 10.0
    eta: float = 1e-4
    early: int = 100
    frozen: bool = False

    lr: float = 1e-3
    batch: int = 16
    crops: tuple[int, int] = (32, 64)

    def new(self, init: str | os.PathLike[str] | None = None) -> FlowProximal:
        """Returns the network: folds with copies of `start`, or the whole of another network."""
        torch.manual_seed(self.seed)
        prior = load(self.start, FlowPrior)
        network = FlowProximal(prior, self.folds(prior, self.depth)).train()
        if init is not None:
            other = load(init, FlowProximal)
            take_over(network, other, f"{init}", self.name)
        network.requires_grad_(True)
        network.priors.requires_grad_(not self.frozen)
        return network

    def origin(self, init: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
        return self.start if init is None else init

    def optimizer(self, model: FlowProximal, lr: float) -> torch.optim.Optimizer:
        """Returns AdamW with a larger rate for the few numbers that are not the flows'."""
        flows = [p for p in model.priors.parameters() if p.requires_grad]
        groups = [{"params": model.knobs(), "lr": self.knobs * lr}]
        groups += [{"params": flows, "lr": lr}] if flows else []
        return torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0, fused=True)

    def problem(self, material: Material, step: int, n: int, size: int) -> Batch:
        images = material.batch(step, n, size)
        x = images["x"]
        generator = generator_of(self.seed, step, x.device, stream=1)
        measurement = drawn([self.kind], x, self.sigma_y, generator)
        noise = dequantization(x, generator, sigma=NOISE)
        shared = {"auxiliary": 0.1 * (step < self.early)}
        return images.adding({"measurement": measurement, "noise": noise}, shared)

    def level(self, batch: Batch) -> Tensor:
        return batch["measurement"].sigma.expand(batch.size)

    @property
    def described(self) -> dict[str, Any]:
        named = {"kind": repr(self.kind), "folds": self.folds.__name__}
        return {**asdict(self), "domain": repr(self.domain), **named}

    def loss(self, model: FlowProximal, batch: Mapping[str, Any]) -> Tensor:
        return unfolding_loss(model, batch, eta=self.eta)

    def quality(
        self, model: FlowProximal, held_out: Sequence[Batch], dtype: torch.dtype
    ) -> dict[str, float]:
        """Returns the PSNR of restored images in dB."""

        @torch.no_grad()
        def restore(measurement: Measurement, generator: torch.Generator) -> Tensor:
            return model(measurement)

        images = [case["x"] for case in held_out[:8]]
        return restoration_psnr(restore, [self.kind], images, sigma=self.sigma_y)


flow_color = FlowRecipe(
    name="flow-color",
    licence=natural_color.licence,
    domain=Photographs(),
    gate="inverse to 1e-4 in float32",
)
flow_inpaint = UnfoldedFlowRecipe(
    name="flow-inpaint",
    licence=natural_color.licence,
    domain=Photographs(),
    gate=BETTER,
    kind=MissingPixels(0.3, 0.7),
)
flow_deblur = replace(flow_inpaint, name="flow-deblur", kind=GaussianBlurs(1.0, 2.0))
flow_denoise = replace(flow_inpaint, name="flow-denoise", kind=Denoising(), sigma_y=(0.1, 0.3))
