"""Unfolded networks of flows against other learned steps, on images of two kinds.

    python benchmarks/flows.py train --out runs    the rivals, 4 to 20 minutes each
    python benchmarks/flows.py --runs runs         writes results/flows.json

Three problems (noise, half of the pixels missing, blur with noise), photographs of 64 x 64 pixels.
In distribution: BSDS500 `test`. Out of distribution: CT slices of other patients, as grey images
in three equal channels. Compared are, inside the same three folds with the same data step,

    retrained    copies of flow-color, trained end to end: what ships (flow-denoise, ...)
    frozen       flow-color as it is, only step sizes and weights trained: plug and play
    scratch      flows that were not trained by likelihood before
    eta 0        retrained without the likelihood in the loss
    shrink       the same, with the published uniform shrink in place of the gain
    U-Net, ResNet    v + F(v), as many weights as a flow

all of them trained on as many patches as what ships, and total variation, whose weight was chosen
on val. Flows other than scratch have seen many more patches before, in the training of flow-color
by likelihood; what training and restoring took stands in each row. Of the flows also: how well
log p of the restored image tells one set from the other (AUROC), and how well its distance from
the mean over restored photographs of val does; and the moments of the latents of dequantised
photographs.
"""

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from deblurring import photographs
from machine import write
from torch import Tensor, nn
from unfolding_rivals import DATA, PHOTOGRAPHS

from measurand import recipes
from measurand.checkpoints import described, load_weights
from measurand.domains import Body
from measurand.measurement import Measurement
from measurand.metrics import psnr, ssim
from measurand.nets import ConvUNet, Glow
from measurand.priors.flow import FlowPrior, bits_per_dim, dequantization, latent_moments
from measurand.priors.variation import TotalVariation
from measurand.problems import Problems, drawn
from measurand.recipes import UnfoldedFlowRecipe, train_recipe
from measurand.schedules import log_grid
from measurand.solvers import FISTA
from measurand.solvers.start import first_guess
from measurand.tensorfile import load_tensors
from measurand.unfolded import FlowProximal, Fold, ProximalStep, ShrinkStep

TASKS: dict[str, UnfoldedFlowRecipe] = {
    "denoise": recipes.flow_denoise,
    "inpaint": recipes.flow_inpaint,
    "deblur": recipes.flow_deblur,
}
RIVALS = ("frozen", "eta 0", "scratch", "shrink", "U-Net", "ResNet")
TV_WEIGHTS = (1.0, 2.5, 5.0, 10.0, 20.0)
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


class Maps(nn.Module):
    """Folds as those of `FlowProximal`, whose step for the prior is v + F(v)."""

    def __init__(self, kind: type[nn.Module], depth: int) -> None:
        super().__init__()
        radii = log_grid(0.4, 0.04, depth).tolist()
        self.steps = nn.ModuleList(ProximalStep(r) for r in radii)
        self.maps = nn.ModuleList(kind() for _ in range(depth))
        self.priors = nn.ModuleList()
        self.card: dict[str, Any] = {}

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


@described.register
def _(network: Maps) -> dict[str, Any]:
    return {"kind": type(network.maps[0]).__name__}


@dataclass(frozen=True)
class RivalRecipe(UnfoldedFlowRecipe):
    """The recipe of a shipped network for one of its rivals."""

    rival: str = "U-Net"

    def new(self, init: str | os.PathLike[str] | None = None) -> Any:
        torch.manual_seed(self.seed)
        if self.rival in ("U-Net", "ResNet"):
            return Maps({"U-Net": UNet, "ResNet": ResNet}[self.rival], self.depth)
        if self.rival == "shrink":
            prior = load_weights(self.start, FlowPrior)
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
            steps = load_weights(f"flow-{task}", FlowProximal).card["steps"]
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
        return load_weights(file, FlowProximal)
    network = recipe_of(task, rival).new()
    network.load_state_dict(load_tensors(file)[0])
    return network.eval().requires_grad_(False)


def seconds_of(runs: Path | None, name: str) -> float | None:
    """How long a rival was trained here, None for what ships."""
    file = None if runs is None else runs / name / "metrics.jsonl"
    if file is None or not file.is_file():
        return None
    return float(json.loads(file.read_text().splitlines()[-1])["seconds"])


def posed(kind: Problems, sigma: tuple[float, float], images: Tensor) -> list[Measurement]:
    level = (sigma[0] * sigma[1]) ** 0.5
    return [
        drawn([kind], x, (level, level), torch.Generator().manual_seed(k))
        for k, x in enumerate(images.split(1))
    ]


def total_variation(weight: float, m: Measurement) -> Tensor:
    return FISTA(steps=100)(m, TotalVariation(weight=weight, joint=True, tol=1e-3))


def quality(
    restore: Any, problems: list[Measurement], images: Tensor
) -> tuple[float, float, Tensor]:
    found = torch.cat([restore(m) for m in problems])
    one = float(psnr(found, images, data_range=2.0).mean())
    return round(one, 2), round(float(ssim(found, images, data_range=2.0).mean()), 4), found


def auroc(usual: Tensor, other: Tensor) -> float:
    """How often a score of the one set is above one of the other."""
    return round(float((usual[:, None] > other).float().mean()), 3)


def slices(data: Path, n: int) -> Tensor:
    """Central pieces of CT slices of the test patients, in three equal channels."""
    every = Body().look(Path(f"{data}/ct_test.npz:hu"))
    chosen: Sequence[Tensor] = every[:: max(1, len(every) // n)][:n]
    return torch.cat([cut(x) for x in chosen]).expand(-1, 3, -1, -1).contiguous()


def cut(x: Tensor) -> Tensor:
    top, left = ((n - SIDE) // 2 for n in x.shape[-2:])
    return x[..., top : top + SIDE, left : left + SIDE]


def evaluate(args: argparse.Namespace) -> None:
    inside, outside = (
        cut(photographs("test", args.images, args.data)),
        slices(args.data, args.images),
    )
    known = cut(photographs("val", args.images, args.data))
    rows: list[dict[str, Any]] = []
    for task, recipe in TASKS.items():
        sets = {"photographs": inside, "CT": outside}
        asked = {k: posed(recipe.kind, recipe.sigma_y, x) for k, x in sets.items()}
        val = posed(recipe.kind, recipe.sigma_y, known)
        weight = max(TV_WEIGHTS, key=lambda w: quality(partial(total_variation, w), val, known)[0])
        methods: dict[str, Any] = {"retrained": load_weights(f"flow-{task}", FlowProximal)}
        for rival in RIVALS if args.runs else ():
            if (network := trained(task, rival, args.runs)) is not None:
                methods[rival] = network
        methods["TV"] = partial(total_variation, weight)
        for name, restore in methods.items():
            row: dict[str, Any] = {"task": task, "method": name}
            if name == "TV":
                row["weight"] = weight
            else:
                row["weights"] = sum(p.numel() for p in restore.parameters())
                row["patches"] = restore.card.get("patches")
                row["seconds of training"] = seconds_of(
                    args.runs, f"{task}-{name.replace(' ', '-')}"
                )
            images, started = {}, time.process_time()
            for label, x in sets.items():
                row[f"psnr, {label}"], row[f"ssim, {label}"], images[label] = quality(
                    restore, asked[label], x
                )
            row["cpu ms per image"] = round(
                1e3 * (time.process_time() - started) / (len(inside) + len(outside)), 1
            )
            row["drop"] = round(row["psnr, photographs"] - row["psnr, CT"], 2)
            if isinstance(restore, FlowProximal):
                n = images["CT"][0].numel()
                bits = {k: bits_per_dim(restore.log_prob(x), n) for k, x in images.items()}
                row["bits, photographs"] = round(float(bits["photographs"].mean()), 2)
                row["bits, CT"] = round(float(bits["CT"].mean()), 2)
                row["auroc of log p"] = auroc(-bits["photographs"], -bits["CT"])
                restored = torch.cat([restore(m) for m in val])
                middle = bits_per_dim(restore.log_prob(restored), n).mean()
                away = {k: (b - middle).abs() for k, b in bits.items()}
                row["auroc of the distance"] = auroc(away["CT"], away["photographs"])
                x = inside + dequantization(inside)  # what the flow is a density of
                moments = [latent_moments(prior, x) for prior in restore.priors]  # type: ignore[arg-type]
                row["energy of the latents"] = [round(float(m.energy.mean()), 2) for m in moments]
                row["kurtosis of the latents"] = [round(m.kurtosis, 2) for m in moments]
            rows.append(row)
            print(row, flush=True)
    print(write("flows", {"images": args.images, "side": SIDE, "rows": rows}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", nargs="?", choices=("train",), help="train the rivals instead")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the trainings")
    parser.add_argument("--runs", type=Path, help="folder of the trained rivals")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--rivals", nargs="+", default=list(RIVALS), choices=RIVALS)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not (args.data / PHOTOGRAPHS[1]).is_file():
        print(f"skipped: no data sets in {args.data}")
    elif args.what == "train":
        train(args)
    else:
        with torch.no_grad():
            evaluate(args)


if __name__ == "__main__":
    main()
