"""Whether the deviations of draws are as large as errors, on the problems of `unfolding.py`.

Draws of an exact posterior and the truth come from one distribution. Over all pixels,

    sqrt( sum (truth - mean)^2 / ((1 + 1/S) sum var) )        S draws, their mean and variance

is then 1 (above: the deviations are too small), and 80 and 90 % of the pixels lie in the central
intervals of 19 draws: from the second to the last but one, from the least to the greatest. The
conformal factor is what deviations of the first half of the images have to be multiplied by to
cover 90 % of their pixels; what it covers of the second half stands beside it. Image k has the
operator and the noise of seed k; PSNR is that of the mean of the draws. Approximate samplers may
fail this; what they fail by is what a user has to know.

    python benchmarks/draws.py                     writes results/draws.json
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from deblurring import photographs
from machine import write
from torch import Tensor
from unfolding import KINDS, SEEN
from unfolding_rivals import DATA

from measurand.metrics import conformal_factor, coverage, psnr
from measurand.problems import Problems, drawn
from measurand.samplers import DiffPIR, DiffUnfolding, PnPDM
from measurand.weights.store import load, load_prior

DRAWS = 19  # of an exact posterior 90 % of the pixels lie between the least and the greatest
LEVELS = (0.8, 0.9)


def judged(
    sampler: Any, knowledge: Any, kind: Problems, x: Tensor, noise: float
) -> dict[str, Any]:
    """Ratio of error to deviation, coverage, PSNR of the mean and CPU seconds per image."""
    error = spread = seconds = 0.0
    covered, values, means, deviations = [], [], [], []
    for k, truth in enumerate(x.split(1)):
        generator = torch.Generator().manual_seed(k)
        measurement = drawn([kind], truth, (noise, noise), generator).repeat(DRAWS)
        started = time.process_time()
        draws = sampler(measurement, knowledge, generator=generator)
        seconds += time.process_time() - started
        mean = draws.mean(0, keepdim=True)
        error += float((truth - mean).square().sum())
        spread += (1 + 1 / DRAWS) * float(draws.var(0).sum())
        covered.append([float(coverage(draws[None], truth, level=level)) for level in LEVELS])
        values.append(float(psnr(mean, truth, data_range=2.0)))
        means.append(mean)
        deviations.append(draws.std(0, keepdim=True))
    n, half = len(x), len(x) // 2
    means, deviations = torch.cat(means), torch.cat(deviations)
    factor = conformal_factor(means[:half], deviations[:half], x[:half], level=0.9)
    within = (x[half:] - means[half:]).abs() <= factor * deviations[half:]
    return {
        "error over deviation": round((error / spread) ** 0.5, 2),
        "coverage of 80 %": round(sum(c for c, _ in covered) / n, 3),
        "coverage of 90 %": round(sum(c for _, c in covered) / n, 3),
        "conformal factor": round(factor, 2),
        "coverage with it": round(float(within.double().mean()), 3),
        "psnr of the mean": round(sum(values) / n, 2),
        "cpu seconds per image": round(seconds / n, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--side", type=int, default=64, help="of the centre crops, in pixels")
    parser.add_argument("--noise", type=float, default=0.04, help="relative to the norm of A")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not (args.data / "natural_bsds500.zip").is_file():
        print(f"skipped: no data sets in {args.data}")
        return
    cut = (256 - args.side) // 2
    x = photographs("test", args.images, args.data)[..., cut : cut + args.side, :]
    x = x[..., cut : cut + args.side]
    methods = {
        "unfold-color": (DiffUnfolding(), load("unfold-color")),
        "DiffPIR": (DiffPIR(), load_prior("natural-color")),
        "PnP-DM, quick": (PnPDM.quick(), load_prior("natural-color")),
    }
    rows: list[dict[str, Any]] = []
    for label in args.kinds:
        for name, (sampler, knowledge) in methods.items():
            row = {"problem": label, "seen": label in SEEN, "method": name}
            row |= judged(sampler, knowledge, KINDS[label], x, args.noise)
            rows.append(row)
            print(row, flush=True)
            setting = {"images": len(x), "side": args.side, "noise": args.noise, "draws": DRAWS}
            path = write("draws", setting | {"rows": rows})
    print(path)


if __name__ == "__main__":
    main()
