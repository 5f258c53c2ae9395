"""Trains what `unfolding.py` compares unfold-color with, on the same data and the same machine.

    python benchmarks/unfolding_rivals.py oracles --out runs     each unseen operator, 30 minutes
    python benchmarks/unfolding_rivals.py concat --out runs      as long as unfold-color itself

An oracle is unfold-color, trained further on the very operator that it is then tested on. The
other rival sees the measurement the usual way, as further channels of its input: a network of the
same size and start, over the same mix of operators, that is told

    A^H y / ||A||^2,   A^H A 1 / ||A||^2   and   ln s_y    (3 + 3 + 1 channels)

beside the noisy image. The second shows it which pixels were seen; of a blur, a block average or
Fourier lines it says nothing: what A is, such a network has to see in A^H y.
"""

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from measurand.measurement import Measurement
from measurand.nets import ConvUNet
from measurand.priors.edm import EDMDenoiser
from measurand.problems import (
    FourierLines,
    MissingBox,
    MotionBlurs,
    Problems,
    SuperResolution,
)
from measurand.recipes import UnfoldedRecipe, train_recipe, unfold_color
from measurand.tensors import per_item
from measurand.unfolded.physics import DataTerm, features
from measurand.unfolded.posterior_score import Unfolded
from measurand.weights.store import load_prior, opened

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
PHOTOGRAPHS = ("natural_imagenet1k.zip", "natural_bsds500.zip")
UNSEEN: dict[str, Problems] = {
    "motion blur": MotionBlurs(),
    "box mask": MissingBox(),
    "SR x4": SuperResolution(4),
    "Fourier lines": FourierLines(),
}


class Concatenated(Unfolded):
    """The posterior mean by one network that is shown the measurement in its input."""

    def steps(
        self, x_t: Tensor, sigma: Tensor, measurement: Measurement, depth: int | None = None
    ) -> list[Tensor]:
        operator = measurement.operator
        square = per_item(torch.tensor(operator.norms, device=x_t.device), x_t) ** 2
        seen = operator.gram(torch.ones_like(x_t[: operator.batch])) / square
        level = per_item(features(sigma, measurement)[:, 1], x_t) / 4
        parts = (measurement.adjoint_y / square, seen.expand_as(x_t), level.expand_as(x_t[:, :1]))
        return [self.priors[0].denoise(x_t, sigma, torch.cat(parts, 1))]

    def step(
        self, k: int, at: float, u: Tensor, r: Tensor, data: DataTerm
    ) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("one network, no steps")


@dataclass(frozen=True)
class ConcatenatedRecipe(UnfoldedRecipe):
    """`UnfoldedRecipe` for the network above."""

    depth: int = 1

    def new(self, init: str | os.PathLike[str] | None = None) -> Concatenated:
        prior = load_prior(self.start if init is None else init, dtype=torch.float32)
        old = prior.net.requires_grad_(True).train()
        assert isinstance(old, ConvUNet)
        net = ConvUNet(**{**old.config, "condition_channels": 7})
        weights = old.state_dict()
        first = torch.zeros_like(net.stem.weight)
        first[:, : weights["stem.weight"].shape[1]] = weights["stem.weight"]  # the image is first
        net.load_state_dict({**weights, "stem.weight": first})
        same = {k: getattr(prior, k) for k in ("channels", "sigma_data", "range", "sigma_range")}
        return Concatenated([EDMDenoiser(net, **same)], 1, sigma_data=prior.sigma_data)


concatenated = ConcatenatedRecipe(
    name="concatenated",
    licence=unfold_color.licence,
    domain=unfold_color.domain,
    lr=unfold_color.lr,
    batch=unfold_color.batch,
)


def load_concatenated(path: Path) -> Concatenated:
    """Returns the trained network of a file, in the precision that `load` would take."""
    network = concatenated.new()
    _, tensors, network.card = opened(path)
    network.load_state_dict(tensors)
    dtype = next(load_prior(concatenated.start).net.parameters()).dtype
    network.priors.to(dtype).to(memory_format=torch.channels_last)
    return network.eval().requires_grad_(False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rivals", choices=("oracles", "concat"))
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--init", default="unfold-color", help="what the oracles start from")
    parser.add_argument("--kinds", nargs="+", default=list(UNSEEN), choices=list(UNSEEN))
    parser.add_argument("--seconds", type=float, help="budget of each; 1800 for an oracle")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    data = [args.data / name for name in PHOTOGRAPHS]
    common: dict[str, Any] = {"workers": 1, "save_every": 240, "evaluate_every": 900}
    if args.rivals == "concat":
        if args.seconds is None:
            parser.error("concat needs --seconds: the time that unfold-color was trained for")
        train_recipe(
            concatenated,
            data,
            args.out / "concatenated",
            time_budget=args.seconds,
            resume=args.resume,
            **common,
        )
        return
    for kind in args.kinds:
        name = "oracle-" + kind.replace(" ", "-")
        train_recipe(
            replace(unfold_color, name=name, mix=(UNSEEN[kind],), seed=1, warmup=50),
            data,
            args.out / name,
            time_budget=args.seconds or 1800,
            init=args.init,
            resume=args.resume,
            **common,
        )


if __name__ == "__main__":
    main()
