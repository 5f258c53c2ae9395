"""Tuned against default settings, on three problems, with and without the truth.

Protocol. Settings are searched on images of a `val` split and judged on images of `test`, which
the search has never seen. 96 x 96 centre crops of BSDS500 photographs (blur, missing pixels), and
CT slices averaged to 128 x 128 (sparse views), in [-1, 1]; noise of image k from
`generators(seed, k)`, seed 0 on val and 1 on test. The number of steps is fixed, so that tuned and
default cost the same. Objectives: PSNR on four val images; and, over one setting, those that need
no truth on the first two of the same measurements. PSNR over all pixels and channels, no clipping.

* motion deblurring: measured kernel levin09_0, circular, noise 0.02 of the range; HQS
* missing pixels: 70 % of the pixels not seen, noise 0.02 of the range; HQS
* sparse-view CT: 45 views, noise of 1.0 (pixel sides times value); FISTA and total variation,
  with the weight that the command line takes where none is said (`variation_weight`)

    python benchmarks/tuning.py            writes results/tuning.json
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deblurring import DATA, photographs
from machine import RESULTS, write
from torch import Tensor

from measurand.jobs.restore import restore, variation_weight
from measurand.measurement import Measurement
from measurand.metrics import psnr
from measurand.noises import Gaussian
from measurand.operators import Blur, LinearOperator, Mask, ParallelCT, even_angles, random_mask
from measurand.priors import TotalVariation
from measurand.solvers import FISTA, HQS
from measurand.tensors import generators
from measurand.tuning.objectives import PSNR, SURE, Case, Discrepancy, Objective, ProjectedSURE
from measurand.tuning.settings import plain
from measurand.tuning.trials import tune
from measurand.weights.store import load_prior

SIDE, CT_SIDE = 96, 128


@dataclass(frozen=True)
class Problem:
    """A problem with a method, and the settings that each objective may search."""

    operator: LinearOperator
    sigma: float
    method: Any
    prior: Any
    images: Callable[[str, int], Tensor]
    searches: tuple[tuple[Objective, tuple[str, ...] | None], ...]


def problems(data: Path) -> dict[str, Problem]:
    kernel = torch.from_numpy(np.load(data / "blur_kernels.npz")["levin09_0"])
    shape = (3, SIDE, SIDE)
    network = load_prior("natural-color")
    alone = ("weight",)
    blind = ((SURE(), alone), (ProjectedSURE(), alone), (Discrepancy(), alone))

    def photos(split: str, n: int) -> Tensor:
        a = (256 - SIDE) // 2
        return photographs(split, n, data)[..., a : a + SIDE, a : a + SIDE]

    def slices(split: str, n: int) -> Tensor:
        hu = torch.from_numpy(np.load(data / f"ct_{split}.npz")["hu"].astype(np.float32))
        hu = hu[:: max(1, len(hu) // n)][:n, None]
        return torch.nn.functional.avg_pool2d((hu / 1000).clamp(-1, 1), 2)

    tomograph = ParallelCT((1, CT_SIDE, CT_SIDE), even_angles(45))
    unweighted = Measurement(tomograph, Gaussian(1.0), torch.zeros(1, *tomograph.out_shape))
    return {
        "motion deblurring": Problem(
            Blur(shape, kernel), 0.04, HQS(steps=24), network, photos, ((PSNR(), None), *blind)
        ),
        "missing pixels": Problem(
            Mask(shape, random_mask(shape, 0.7)),
            0.04,
            HQS(steps=24),
            network,
            photos,
            ((PSNR(), None), *blind),
        ),
        "sparse-view CT": Problem(
            tomograph,
            1.0,
            FISTA(),
            TotalVariation(weight=variation_weight(unweighted), tol=1e-3),
            slices,
            ((PSNR(), None), *((objective, None) for objective, _ in blind)),
        ),
    }


def cases(problem: Problem, x: Tensor, seed: int) -> list[Case]:
    noise, found = Gaussian(problem.sigma), []
    for k in range(len(x)):
        one = x[k : k + 1].contiguous()
        y = noise(problem.operator(one), generators(seed, k + 1)[k:])
        found.append(Case(Measurement(problem.operator, noise, y), one))
    return found


def quality(method: Any, prior: Any, seen: list[Case]) -> list[float]:
    """PSNR of each case."""
    found = []
    for m, x in seen:
        assert x is not None
        found.append(float(psnr(restore(m, prior, method).estimate, x, data_range=2.0)))
    return found


def study(name: str, problem: Problem, args: argparse.Namespace) -> dict[str, Any]:
    val = cases(problem, problem.images("val", args.val), 0)
    test = cases(problem, problem.images("test", args.test), 1)
    base = quality(problem.method, problem.prior, test)
    print(f"{name}: default {statistics.mean(base):.2f} dB on test", flush=True)
    rows = []
    for objective, only in problem.searches:
        blind, start = not isinstance(objective, PSNR), time.process_time()
        found = tune(
            problem.method,
            problem.prior,
            [Case(m) for m, _ in val[: args.blind_val]] if blind else val,
            objective=objective,
            trials=args.blind_trials if blind else args.trials,
            fixed=["steps"],
            only=only,
        )
        spent = time.process_time() - start
        each = quality(found.method, found.prior, test)
        row = {
            "objective": type(objective).__name__,
            "searched": [setting.name for setting in found.settings],
            "values": found.best.values,
            "method": plain(found.method),
            "val": objective.words(found.best.loss),
            "val before": objective.words(found.default.loss),
            "test psnr": round(statistics.mean(each), 3),
            "gain": round(statistics.mean(each) - statistics.mean(base), 3),
            "images that gain": sum(a > b for a, b in zip(each, base, strict=True)),
            "each": [round(value, 2) for value in each],
            "trials": len(found.trials),
            "given up": sum(bool(trial.note) for trial in found.trials),
            "cpu seconds": round(spent, 1),
        }
        rows.append(row)
        shown = ("objective", "val before", "val", "test psnr", "gain", "trials", "cpu seconds")
        print("  ".join(str(row[key]) for key in shown), row["values"], flush=True)
    return {
        "test psnr, default": round(statistics.mean(base), 3),
        "each, default": [round(value, 2) for value in base],
        "defaults": found.default.values,
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--val", type=int, default=4, help="images that are tuned on")
    parser.add_argument("--test", type=int, default=12, help="images that judge")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--blind-val", type=int, default=2, help="the same, without truth")
    parser.add_argument("--blind-trials", type=int, default=10)
    parser.add_argument("--only", nargs="+", help="some of the problems; others stay as they were")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not (args.data / "natural_bsds500.zip").is_file():
        print(f"skipped: no data sets in {args.data}")
        return
    numbers = {"val images": args.val, "test images": args.test}
    found: dict[str, Any] = {}
    if args.only:
        old = json.loads((RESULTS / "tuning.json").read_text())
        if any(old[key] != n for key, n in numbers.items()):
            raise SystemExit("tuning.json: was measured with other numbers of images")
        found = old["problems"]
    for name, problem in problems(args.data).items():
        if not args.only or name in args.only:
            found[name] = study(name, problem, args)
            path = write("tuning", {**numbers, "problems": found})
    print(path)


if __name__ == "__main__":
    main()
