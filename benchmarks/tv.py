"""Total variation: the closed form and the exact map beside scikit-image's Chambolle iteration.

A photograph of scikit-image in [0, 1] with noise of sd 0.1, one thread, single precision. All
minimise `1/2 ||x - v||^2 + weight TV(x)`, isotropic. How to read it:

* The peer runs with its defaults, and its stopping rule ends after anything from a few to dozens
  of iterations, depending on picture, size and weight. A ratio against the whole call contains
  that accident; `iterations` and the ratio against one iteration stand beside it.
* Answers differ in accuracy. Each row has its relative error and by how much its objective is
  above the minimum; times are comparable only where these are. At the weight 0.1 (a denoiser in
  one shot) the closed form is far less accurate than the peer; 0.002 is the size of step times
  weight inside a proximal gradient method, which the closed form is for.
* The gate is the peer's default call at 1024 and its default weight, and so contains both.
* One `copy` of the image is the least that any such map can cost.

    python benchmarks/tv.py                writes results/tv.json
"""

import statistics
from typing import Any

import numpy as np
import torch
from machine import alternating, ratio, settle_allocator, write
from skimage.data import camera
from skimage.restoration import denoise_tv_chambolle
from skimage.transform import resize
from torch import Tensor

from measurand.priors import tv_norm, tv_prox, tv_prox_exact
from measurand.priors.fused import compiled

FLOOR = 20.0  # closed form against the peer's default call at 1024, of weight 0.1
CASES = [(256, 0.1), (512, 0.1), (1024, 0.1), (256, 0.002), (512, 0.002), (1024, 0.002)]
PEER, STEP, CLOSED = "Chambolle, its defaults", "Chambolle, one iteration", "closed form"


def picture(n: int) -> Tensor:
    image = torch.from_numpy(resize(camera(), (n, n), anti_aliasing=True)).float()
    noise = torch.randn(n, n, generator=torch.Generator().manual_seed(0))
    return (image + 0.1 * noise)[None, None]


def iterations(array: np.ndarray, weight: float) -> int:
    """Where the peer's stopping rule ends: its shortest run with the result of its defaults."""
    default = denoise_tv_chambolle(array, weight=weight)
    for k in range(1, 200):
        if np.array_equal(default, denoise_tv_chambolle(array, weight=weight, max_num_iter=k)):
            return k
    return 200


def measure(n: int, weight: float) -> dict[str, Any]:
    v = picture(n)
    array = v[0, 0].numpy()

    def peer() -> Tensor:
        return torch.from_numpy(denoise_tv_chambolle(array, weight=weight))[None, None]

    def objective(x: Tensor) -> float:
        return float(weight * tv_norm(x.double()) + 0.5 * (x.double() - v).square().sum())

    calls = {
        PEER: peer,
        STEP: lambda: denoise_tv_chambolle(array, weight=weight, max_num_iter=10, eps=0),
        CLOSED: lambda: tv_prox(v, weight),
        "closed form and 10 inner steps": lambda: tv_prox(v, weight, inner=10),
        "exact to gap 1e-2": lambda: tv_prox_exact(v, weight, tol=1e-2)[0],
        "exact to gap 1e-4": lambda: tv_prox_exact(v, weight, tol=1e-4)[0],
        "copy": v.clone,
    }
    exact, _ = tv_prox_exact(v.double(), weight, tol=1e-5 * weight)
    least = objective(exact)
    times = alternating(calls, rounds=7)
    times[STEP] = [t / 10 for t in times[STEP]]
    rows: dict[str, Any] = {}
    for name, call in calls.items():
        middle, low, high = ratio(times[PEER], times[name])
        row: dict[str, Any] = {
            "milliseconds": round(1e3 * statistics.median(times[name]), 4),
            "times_faster_than_peer": middle,
            "quartiles": [low, high],
            "times_faster_than_one_iteration_of_peer": ratio(times[STEP], times[name])[0],
            "copies": ratio(times[name], times["copy"])[0],
        }
        if name not in (STEP, "copy"):
            x = call()
            row["excess_of_objective"] = float(f"{objective(x) / least - 1:.1e}")
            row["relative_error"] = float(f"{float((x - exact).norm() / exact.norm()):.1e}")
        rows[name] = row
    rows[PEER]["iterations"] = iterations(array, weight)
    return {"size": n, "weight": weight, "rows": rows}


def main() -> None:
    torch.set_num_threads(1)
    settle_allocator()
    cases = [measure(n, weight) for n, weight in CASES]
    for case in cases:
        print(f"size {case['size']}, weight {case['weight']}: peer ends after", end=" ")
        print(f"{case['rows'][PEER]['iterations']} iterations")
        for name, row in case["rows"].items():
            print(
                f"  {name:32} {row['milliseconds']:9.3f} ms {row['times_faster_than_peer']:8.2f} x"
                f" peer, {row['times_faster_than_one_iteration_of_peer']:7.2f} x one iteration,"
                f" error {row.get('relative_error', float('nan')):.1e}"
            )
    numba = compiled() is not None  # the closed form at 1024 is then one pass
    write("tv", {"floor_at_1024": FLOOR, "numba": numba, "cases": cases})
    found = {
        case["weight"]: case["rows"][CLOSED]["times_faster_than_peer"]
        for case in cases
        if case["size"] == 1024
    }
    print("closed form against the peer's default call at 1024, by weight:", found)
    if found[0.1] < FLOOR:
        raise SystemExit(f"the closed form is not {FLOOR:.0f} times faster than the default call")


if __name__ == "__main__":
    main()
