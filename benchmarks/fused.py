"""Total variation in closed form in one pass (numba) beside torch and a copy of the image.

One thread, CPU time, the three in turns in one process, medians of the turns.

    pip install -e ".[fast]"; python benchmarks/fused.py        writes results/fused.json
"""

import statistics

import torch
from machine import alternating, write

from measurand.priors import ISOTROPIC, fused
from measurand.priors.differences import Grid
from measurand.priors.variation import tv_prox


def main() -> None:
    torch.set_num_threads(1)
    run = fused.compiled()
    if run is None:
        print("skipped: no numba")
        return
    rows = []
    for side in (1024, 2048):
        v = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(0))
        tau, into, grid = torch.full((1, 1, 1, 1), 0.1), torch.empty_like(v), Grid(ISOTROPIC, v)
        large = v.double()  # torch does it where the precision is another
        exact, fast = tv_prox(large, 0.1), fused.one_pass(run, grid, v, tau)
        fused._LARGE, kept = 2 * v.numel(), fused._LARGE  # as without numba
        found = alternating(
            {
                "copy": lambda v=v, into=into: into.copy_(v),
                "torch": lambda v=v: tv_prox(v, 0.1),
                "one pass": lambda v=v, tau=tau, grid=grid: fused.one_pass(run, grid, v, tau),
            }
        )
        fused._LARGE = kept
        times = {k: 1e3 * statistics.median(t) for k, t in found.items()}
        row = {"side": side, "cpu milliseconds": {k: round(t, 2) for k, t in times.items()}}
        row["torch over one pass"] = round(times["torch"] / times["one pass"], 1)
        row["one pass over a copy"] = round(times["one pass"] / times["copy"], 1)
        row["largest difference"] = float((fast - exact).abs().max())
        rows.append(row)
        print(row, flush=True)
    print(write("fused", {"rows": rows}))


if __name__ == "__main__":
    main()
