"""Time of HQS and ADMM on multi-coil MRI beside that of their network calls.

Slices of the test subject, 256 x 256, eight birdcage coils, random phase-encode lines at
acceleration 4, as in `brain.py`; the prior is `mri-brain`, the settings are the defaults. Each
slice is a measurement of its own: the norm of its operator and the preconditioner of its lines
are found anew. Network calls and the whole method are timed in the same run (CPU time of one
thread), so that what else the machine does falls on both alike.

Beside it the same run with exact data steps (`SENSE.decomposed`): how far its image is, root mean
square in units of the slice's range [0, 1], and the difference in PSNR.

    python benchmarks/mri_speed.py             writes results/mri_speed.json
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from brain import DATA, problem
from machine import settle_allocator, write
from torch import Tensor

from measurand.domains import Brain
from measurand.measurement import Measurement
from measurand.metrics import psnr
from measurand.priors import CallableDenoiser
from measurand.solvers import ADMM, HQS
from measurand.weights.store import load_prior

LIMIT = 1.3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--every", type=int, default=20, help="of the slices")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settle_allocator()
    file = args.data / "mri_brain_test.npz"
    if not file.is_file():
        print(f"skipped: no data set {file.name}")
        return
    slices = torch.cat(Brain().look(file)[:: args.every])
    network = load_prior("mri-brain")
    spent = [0.0]

    def timed(v: Tensor, sigma: float | Tensor) -> Tensor:
        started = time.process_time()
        found = network.denoise(v, sigma)
        spent[0] += time.process_time() - started
        return found

    prior = CallableDenoiser(timed, range=network.range, dtype=network.dtype)
    rows: dict[str, Any] = {}
    with torch.no_grad():
        for method in (HQS(), ADMM()):
            found: dict[str, list[float]] = {"ratio": [], "seconds": [], "rms": [], "psnr": []}
            for k, x in enumerate(slices.split(1)):
                m = problem(x, 4, k)
                spent[0], started = 0.0, time.process_time()
                image = method(m, prior)
                seconds = time.process_time() - started
                found["ratio"].append(seconds / spent[0])
                found["seconds"].append(seconds)
                exact = method(Measurement(m.operator.decomposed(), m.noise, m.y), prior)
                found["rms"].append(float((image - exact).abs().square().mean().sqrt()))
                top = float(x.abs().max())
                here, there = (psnr(u.abs(), x.abs(), data_range=top) for u in (image, exact))
                found["psnr"].append(float(here - there))
                print(
                    method.command, k, {n: round(v[-1], 5) for n, v in found.items()}, flush=True
                )
            rows[method.command] = {
                "method / network, median": round(statistics.median(found["ratio"]), 3),
                "method / network, range": [round(f(found["ratio"]), 3) for f in (min, max)],
                "seconds, median": round(statistics.median(found["seconds"]), 2),
                "distance from exact data steps, largest": round(max(found["rms"]), 6),
                "PSNR less that of exact data steps, mean, dB": round(
                    statistics.mean(found["psnr"]), 4
                ),
                "the same, largest in magnitude": round(max(found["psnr"], key=abs), 4),
            }
            print(method.command, rows[method.command], flush=True)
    content = {"limit": LIMIT, "slices": len(slices), "size": [256, 256], "coils": 8}
    print(write("mri_speed", {**content, "rows": rows}))


if __name__ == "__main__":
    main()
