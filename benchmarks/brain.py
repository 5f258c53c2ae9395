"""Accelerated brain MRI: the prior `mri-brain` against wavelets, total variation and CG-SENSE.

Protocol. Slices of the test subject (never trained on), every sixth, complex with a simulated
smooth phase and scaled by the 99.5 % quantile of their magnitude (`domains.Brain`); eight birdcage
coils, random phase-encode lines at acceleration 4 (8 % of the lines in the centre) and 8 (4 %),
one mask per slice, complex noise of 0.01 per component. PSNR of the magnitude with the maximum of
the slice as range, and NMSE of the complex image, averaged over slices. Weights were chosen on
the val subject (`--search`).

    python benchmarks/brain.py                     writes results/brain.json
    python benchmarks/brain.py --search            prints the quality by weight on val
"""

import argparse
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from machine import write
from torch import Tensor

from measurand.domains import Brain
from measurand.measurement import Measurement
from measurand.metrics import nmse, psnr
from measurand.noises import ComplexGaussian
from measurand.operators import SENSE, birdcage_maps, random_lines
from measurand.priors import TotalVariation, Wavelets
from measurand.solvers import ADMM, FISTA, HQS
from measurand.tensors import generators
from measurand.weights.store import load_prior

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
NOISE = 0.01
ACCELERATIONS = {4: 0.08, 8: 0.04}

# chosen on val
WEIGHTS = {"wavelets": 20.0, "TV": 20.0, "HQS mri-brain": 0.12, "ADMM mri-brain": 0.4}
GRIDS = {
    "wavelets": (5.0, 10.0, 20.0, 40.0, 80.0),
    "TV": (5.0, 10.0, 20.0, 40.0, 80.0),
    "HQS mri-brain": (0.06, 0.12, 0.24, 0.48),
    "ADMM mri-brain": (0.2, 0.4, 0.8, 1.6),
}


def problem(x: Tensor, acceleration: int, first: int) -> Measurement:
    masks, noises = (generators(seed, first + len(x))[first:] for seed in (0, 1))
    lines = ACCELERATIONS[acceleration]
    mask = random_lines((1, 256, 256), acceleration, lines, generator=masks)
    a = SENSE((1, 256, 256), birdcage_maps((1, 256, 256), 8), mask)
    noise = ComplexGaussian(NOISE)
    return Measurement(a, noise, noise(a(x), noises))


def method(name: str, weight: float, prior: Any) -> Any:
    if name == "wavelets":
        return partial(FISTA(steps=100), prior=Wavelets(weight, shifts=4))
    if name == "TV":
        return partial(FISTA(steps=100), prior=TotalVariation(weight=weight, tol=1e-3))
    kind = HQS if name.startswith("HQS") else ADMM
    return partial(kind(steps=16, weight=weight), prior=prior)


def zero_filled(m: Measurement) -> Tensor:
    return m.operator.adjoint(m.y)


def cg_sense(m: Measurement) -> Tensor:
    back = m.operator.adjoint(m.y)
    return m.operator.solve(back, 1e-3)


def quality(restore: Any, x: Tensor, acceleration: int, batch: int = 4) -> dict[str, float]:
    rows, started = [], time.process_time()
    for k in range(0, len(x), batch):
        part = x[k : k + batch]
        found = restore(problem(part, acceleration, k))
        magnitude = part.abs()
        for i in range(len(part)):
            top = float(magnitude[i].max())
            one = slice(i, i + 1)
            rows.append(
                (
                    float(psnr(found[one].abs(), magnitude[one], data_range=top)),
                    float(nmse(found[one], part[one])),
                )
            )
    seconds = (time.process_time() - started) / len(x)
    return {
        "psnr": round(sum(r[0] for r in rows) / len(rows), 2),
        "nmse": round(sum(r[1] for r in rows) / len(rows), 5),
        "cpu seconds per slice": round(seconds, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prior", default="mri-brain", help="name or .safetensors file")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--every", type=int, default=6, help="of the slices")
    parser.add_argument("--search", action="store_true", help="quality by weight on val")
    parser.add_argument("--methods", nargs="+", default=list(WEIGHTS), choices=list(WEIGHTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    part = "val" if args.search else "test"
    file = args.data / f"mri_brain_{part}.npz"
    if not file.is_file():
        print(f"skipped: no data set {file.name}")
        return
    x = torch.cat(Brain().look(file)[:: args.every])
    learned = any("mri" in name for name in args.methods)
    prior = load_prior(args.prior) if learned else None
    rows: list[dict[str, Any]] = []
    with torch.no_grad():
        for acceleration in ACCELERATIONS:
            tried: list[tuple[str, Any, Any]] = [
                ("zero-filled", "", zero_filled),
                ("CG-SENSE", "", cg_sense),
            ]
            for name in args.methods:
                for weight in GRIDS[name] if args.search else (WEIGHTS[name],):
                    tried.append((name, weight, method(name, weight, prior)))
            for name, weight, restore in tried:
                found = quality(restore, x, acceleration)
                rows.append(
                    {"acceleration": acceleration, "method": name, "weight": weight, **found}
                )
                print(rows[-1], flush=True)
    if not args.search:
        print(write("brain", {"prior": args.prior, "slices": len(x), "rows": rows}))


if __name__ == "__main__":
    main()
