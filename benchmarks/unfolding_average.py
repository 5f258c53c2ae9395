"""Weights between those of an unfolded network and those of the prior that it started from.

    python benchmarks/unfolding_average.py NETWORK      writes results/unfolding_average.json
    python benchmarks/unfolding_average.py NETWORK --write 0.15 --out FILE

Training inside the steps costs a block some of what it knew of white noise. Fine-tuned weights and
those that they came from lie in one valley, and a straight line between them keeps most of both
(Wortsman et al., *Robust fine-tuning of zero-shot models*, arXiv:2109.01903):

    w = (1 - share) w_network + share w_prior

PSNR of posterior means on six pieces of BSDS500 `val`, the problems and noise of `unfolding.py`,
by share of the prior.
"""

import argparse
import copy
from pathlib import Path
from typing import Any

import torch
from deblurring import photographs
from machine import write
from unfolding import KINDS, posterior_mean, quality
from unfolding_rivals import DATA

from measurand.weights.store import load, load_prior, save

PROBLEMS = [(kind, 0.04) for kind in KINDS] + [
    ("denoising", 0.1),
    ("denoising", 0.2),
    ("denoising", 0.4),
    ("Gaussian blur", 0.2),
    ("missing pixels", 0.2),
]


def between(network: Any, prior: Any, share: float) -> Any:
    """The network whose blocks are moved towards the prior."""
    made, own, other = copy.deepcopy(network), network.priors, prior.net.state_dict()
    for block, old in zip(made.priors, own, strict=True):
        mixed = {k: torch.lerp(x, other[k], share) for k, x in old.net.state_dict().items()}
        block.net.load_state_dict(mixed)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("network", help="name or .safetensors file")
    parser.add_argument("--prior", default="natural-color", help="name or .safetensors file")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.15, 0.3, 0.5])
    parser.add_argument("--side", type=int, default=96, help="of the pieces, in pixels")
    parser.add_argument("--write", type=float, metavar="SHARE", help="write these weights")
    parser.add_argument("--out", type=Path, help="where to")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    args = parser.parse_args()
    torch.set_num_threads(1)
    network = load(args.network, dtype=torch.float32)
    prior = load_prior(args.prior, dtype=torch.float32)
    if args.write is not None:
        made = between(network, prior, args.write)
        made.card = {k: v for k, v in network.card.items() if k not in ("format", "tensors")}
        save(args.out, made)
        return
    images = photographs("val", 6, args.data)
    cut = (images.shape[-1] - args.side) // 2
    images = images[..., cut : cut + args.side, cut : cut + args.side]
    table: dict[str, dict[str, float]] = {}
    with torch.no_grad():
        for share in args.shares:
            restore = posterior_mean(between(network, prior, share))
            table[str(share)] = {
                f"{kind}, {noise}": quality(restore, KINDS[kind], images, noise)["psnr"]
                for kind, noise in PROBLEMS
            }
            print(share, table[str(share)], flush=True)
    names = {"network": Path(args.network).stem, "prior": args.prior, "side": args.side}
    print(write("unfolding_average", names | {"psnr by share of the prior": table}))


if __name__ == "__main__":
    main()
