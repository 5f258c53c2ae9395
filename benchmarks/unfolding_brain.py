"""unfold-brain on sampling patterns and coils that it has never seen.

Trained on: random phase-encode lines at accelerations of 2 to 6 with 8 % of the lines in the
centre, eight birdcage coils. Protocol of the test: slices of the test subject, every twelfth,
prepared as in `brain.py`; slice k has the mask and the noise of seed k, complex noise of 0.01
relative to the operator's norm. PSNR of the magnitude with the maximum of the slice as range, SSIM
of the magnitude, NMSE of the complex image, averaged over slices; CPU seconds and network calls
per slice, one thread. ADMM has the prior that the network started from; its weight and that of TV
are those that `brain.py` chose on the val subject.

    python benchmarks/unfolding_brain.py           writes results/unfolding_brain.json
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from brain import DATA, WEIGHTS, method
from machine import write
from torch import Tensor
from unfolding import posterior_mean

from measurand.domains import Brain
from measurand.metrics import nmse, psnr, ssim
from measurand.operators import equispaced_lines, variable_density_mask
from measurand.priors import Counted, CountedPosterior
from measurand.problems import BrainCoils, Problems, drawn
from measurand.weights.store import load, load_prior

NOISE = 0.01


@dataclass(frozen=True)
class Equispaced(BrainCoils):
    """Equally spaced lines at the acceleration `low`."""

    def mask(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return equispaced_lines(shape, self.low, self.center, generator=generator)


@dataclass(frozen=True)
class Points(BrainCoils):
    """Random points in two dimensions, denser at the centre, at the acceleration `low`."""

    def mask(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        return variable_density_mask(shape, self.low, self.center, generator=generator)


KINDS: dict[str, Problems] = {
    "random lines, R = 4": BrainCoils(4, 4),
    "equispaced lines, R = 4": Equispaced(4, 4),
    "random lines, R = 8": BrainCoils(8, 8, center=0.04),
    "random points, R = 6": Points(6, 6, center=0.04),
    "random lines, R = 4, 4 coils": BrainCoils(4, 4, coils=4),
    "random lines, R = 4, 16 coils": BrainCoils(4, 4, coils=16),
}
SEEN = ("random lines, R = 4",)


def quality(restore: Any, kind: Problems, slices: Tensor) -> dict[str, Any]:
    """Mean PSNR, SSIM, NMSE and CPU seconds, and the PSNR of each slice."""
    rows, seconds = [], 0.0
    for k, x in enumerate(slices.split(1)):
        generator = torch.Generator().manual_seed(k)
        measurement = drawn([kind], x, (NOISE, NOISE), generator)
        started = time.process_time()
        found = restore(measurement, generator)
        seconds += time.process_time() - started
        top = float(x.abs().max())
        rows.append(
            [
                float(psnr(found.abs(), x.abs(), data_range=top)),
                float(ssim(found.abs(), x.abs(), data_range=top)),
                float(nmse(found, x)),
            ]
        )
    mean = torch.tensor(rows).mean(0).tolist()
    return {
        "psnr": round(mean[0], 2),
        "ssim": round(mean[1], 4),
        "nmse": round(mean[2], 5),
        "cpu seconds per slice": round(seconds / len(rows), 2),
        "each": [round(row[0], 2) for row in rows],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--network", default="unfold-brain", help="name or .safetensors file")
    parser.add_argument("--prior", default="mri-brain", help="name or .safetensors file")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--part", default="test", choices=("val", "test"))
    parser.add_argument("--every", type=int, default=12, help="of the slices")
    parser.add_argument("--depths", type=int, nargs="*", default=[], help="other numbers of steps")
    parser.add_argument("--output", default="unfolding_brain", help="name of the results file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    file = args.data / f"mri_brain_{args.part}.npz"
    if not file.is_file():
        print(f"skipped: no data set {file.name}")
        return
    slices = torch.cat(Brain().look(file)[:: args.every])
    network, prior = load(args.network), load_prior(args.prior)
    rows: list[dict[str, Any]] = []
    with torch.no_grad():
        for label, kind in KINDS.items():
            own = CountedPosterior(network)
            tried: dict[str, tuple[Any, Any]] = {"unfold-brain": (posterior_mean(own), own)}
            for depth in args.depths:
                other = CountedPosterior(network.with_depth(depth))
                tried[f"unfold-brain, {depth} steps"] = (posterior_mean(other), other)
            for name in ("ADMM mri-brain", "TV"):
                count = Counted(prior)
                solve = method(name, WEIGHTS[name], count)
                tried[name] = (lambda m, g, solve=solve: solve(m), count)
            for name, (restore, count) in tried.items():
                before = count.calls
                row = {"problem": label, "seen": label in SEEN, "method": name}
                row |= quality(restore, kind, slices)
                row["nfe"] = round((count.calls - before) / len(slices))
                if isinstance(count, CountedPosterior):
                    row["nfe"] *= count.prior.depth
                rows.append(row)
                print({k: v for k, v in row.items() if k != "each"}, flush=True)
    content = {"network": args.network, "prior": args.prior, "noise": NOISE}
    print(write(args.output, content | {"slices": len(slices), "rows": rows}))


if __name__ == "__main__":
    main()
