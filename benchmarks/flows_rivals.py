"""Trains what `flows.py` compares unfolded flows with: other steps for the prior, other trainings.

    python benchmarks/flows_rivals.py --out runs    4 to 40 minutes each

Inside the same three folds with the same data step, all on as many patches as what ships:

    frozen       flow-color as it is, only step sizes and weights trained: plug and play
    eta 0        retrained without the likelihood in the loss
    scratch      flows that were not trained by likelihood before
    shrink       eta 0 with the published uniform shrink in place of the gain
    U-Net, ResNet    v + F(v), as many weights as a flow
"""

import argparse
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from deblurring import photographs
from torch import Tensor, nn
from unfolding_rivals import DATA, PHOTOGRAPHS

from measurand import recipes
from measurand.measurement import Measurement
from measurand.nets import ConvUNet, Glow
from measurand.priors.flow import FlowPrior
from measurand.priors.trained import Fitted, Images, Trained
from measurand.recipes import UnfoldedFlowRecipe, train_recipe
from measurand.schedules import log_grid
from measurand.start import first_guess
from measurand.unfolded import FlowProximal, Fold, ProximalStep, ShrinkStep
from measurand.weights.store import load, opened

TASKS: dict[str, UnfoldedFlowRecipe] = {
    "denoise": recipes.flow_denoise,
    "inpaint": recipes.flow_inpaint,
    "deblur": recipes.flow_deblur,
}
RIVALS = ("frozen", "eta 0", "scratch", "shrink", "U-Net", "ResNet")
SIDE = 64


class ResNet(nn.Module):
    """3 x 3 convolutions in residual blocks, all at full size."""

    def __init__(self, channels: int = 3, hidden: int = 64, blocks: int = 11) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(hidden, hidden, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(hidden, hidden, 3, padding=1),
            )
            for _ in range(blocks)
        )
        self.last = nn.Conv2d(hidden, channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def forward(self, v: Tensor) -> Tensor:
        h = self.first(v)
        for block in self.blocks:
            h = h + block(h)
        return self.last(h)


class UNet(nn.Module):
    """The library's network, told no noise level."""

    def __init__(self) -> None:
        super().__init__()
        self.net = ConvUNet(3, widths=(32, 56, 72), features=32)

    def forward(self, v: Tensor) -> Tensor:
        return self.net(v, v.new_zeros(len(v)))


class Maps(Trained):
    """Folds as those of `FlowProximal`, whose step for the prior is v + F(v)."""

    kind = "rival"

    def __init__(self, kind: type[nn.Module], depth: int) -> None:
        super().__init__()
        radii = log_grid(0.4, 0.04, depth).tolist()
        self.steps = nn.ModuleList(ProximalStep(r) for r in radii)
        self.maps = nn.ModuleList(kind() for _ in range(depth))
        self.priors = nn.ModuleList()
        self.card: dict[str, Any] = {}
        self.channels, self.dtype = 3, torch.float32

    def iterates(self, measurement: Measurement) -> list[Tensor]:
        x, found = first_guess(measurement), []
        for step, net in zip(self.steps, self.maps, strict=True):
            v = step(x, measurement)
            x = v + net(v)
            found.append(x)
        return found

    def forward(self, measurement: Measurement) -> Tensor:
        return self.iterates(measurement)[-1]

    def knobs(self) -> list[nn.Parameter]:
        return list(self.steps.parameters())

    def to_card(self) -> dict[str, Any]:
        return {"kind": type(self.maps[0]).__name__}

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Trained:
        raise ValueError("a rival is made by its recipe, see `trained`")

    @classmethod
    def summary(cls, card: Mapping[str, Any]) -> str:
        return f"a rival, {card['kind']}"

    def fitted(self, images: Images, *, tile: int = 1024, name: str = "") -> Fitted:
        return Fitted(self, [])


@dataclass(frozen=True)
class RivalRecipe(UnfoldedFlowRecipe):
    """The recipe of a shipped network for one of its rivals."""

    rival: str = "U-Net"

    def new(self, init: str | os.PathLike[str] | None = None) -> Any:
        torch.manual_seed(self.seed)
        if self.rival in ("U-Net", "ResNet"):
            return Maps({"U-Net": UNet, "ResNet": ResNet}[self.rival], self.depth)
        if self.rival == "shrink":
            prior = load(self.start, FlowPrior)
            radii = log_grid(0.4, 0.04, self.depth).tolist()
            # 1 / (1 + tau) of the shrink has no unit: tau over the variance of an image
            folds = [Fold(ProximalStep(r), ShrinkStep(r**2 / 0.25)) for r in radii]
            return FlowProximal(prior, folds).requires_grad_(True).train()
        network = super().new(init)
        if self.rival == "scratch":
            config = network.priors[0].flow.config
            fresh = FlowPrior(Glow(**config), shape=network.priors[0].shape)
            x = cut(photographs("val", 32, DATA))
            fresh.flow.initialize(x)
            fresh.calibrate(x)
            for prior in network.priors:
                prior.load_state_dict(fresh.state_dict())
        return network

    def optimizer(self, model: Any, lr: float) -> torch.optim.Optimizer:
        if isinstance(model, Maps):
            groups = [{"params": model.knobs(), "lr": self.knobs * lr}]
            groups += [{"params": list(model.maps.parameters()), "lr": lr}]
            return torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
        return super().optimizer(model, lr)


def recipe_of(task: str, rival: str) -> RivalRecipe:
    own = {k: getattr(TASKS[task], k) for k in ("licence", "domain", "kind", "sigma_y")}
    made = RivalRecipe(
        name=f"{task}-{rival.replace(' ', '-')}", rival=rival, frozen=rival == "frozen", **own
    )
    return made if rival == "scratch" else replace(made, eta=0.0)


def train(args: argparse.Namespace) -> None:
    for task in args.tasks:
        for rival in args.rivals:
            recipe = recipe_of(task, rival)
            steps = load(f"flow-{task}", FlowProximal).card["steps"]
            train_recipe(
                recipe,
                [args.data / name for name in PHOTOGRAPHS],
                args.out / recipe.name,
                steps=steps,
                save_every=240,
                resume=args.resume,
            )


def trained(task: str, rival: str, runs: Path) -> Any:
    """A rival that was trained, or None."""
    name = recipe_of(task, rival).name
    file = runs / name / f"{name}-0.05.safetensors"
    if not file.is_file():
        return None
    if rival not in ("U-Net", "ResNet"):
        return load(file, FlowProximal)
    network = recipe_of(task, rival).new()
    network.load_state_dict(opened(file)[1])
    return network.eval().requires_grad_(False)


def seconds_of(runs: Path | None, name: str) -> float | None:
    """How long a rival was trained here, None for what ships."""
    file = None if runs is None else runs / name / "metrics.jsonl"
    if file is None or not file.is_file():
        return None
    return float(json.loads(file.read_text().splitlines()[-1])["seconds"])


def cut(x: Tensor) -> Tensor:
    top, left = ((n - SIDE) // 2 for n in x.shape[-2:])
    return x[..., top : top + SIDE, left : left + SIDE]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the trainings")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--rivals", nargs="+", default=list(RIVALS), choices=RIVALS)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    train(args)


if __name__ == "__main__":
    main()
