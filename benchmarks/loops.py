"""Cost of one step of a method beside its network: the denoiser of this benchmark is free.

Images of 3 x 256 x 256, one thread. The cost of a step is the difference of a long and a short
run, over the difference of their steps, so that the start does not count. Each stands beside the
proximal map of its measurement (and fresh noise, for a sampler), which no loop can avoid, and
beside one real FFT there and back; both are timed in the same turns.

    python benchmarks/loops.py                writes results/loops.json
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from machine import alternating, ratio, settle_allocator, write
from torch import Tensor

from measurand.measurement import Measurement
from measurand.noises import Gaussian
from measurand.operators import BlockAverage, GaussianBlur, LinearOperator
from measurand.priors import CallableDenoiser
from measurand.samplers import DiffPIR
from measurand.solvers import ADMM, HQS
from measurand.tensors import generators, randn_like

SIZE = (3, 256, 256)
SHORT, LONG = 5, 25


@dataclass
class Case:
    """A method on a problem, with the step cost (ms) that it should not exceed on an idle core."""

    name: str
    method: Callable[[int], Any]
    operator: LinearOperator
    limit: float
    noise: bool


CASES = [
    Case("HQS, blur", lambda n: HQS(steps=n), GaussianBlur(SIZE, 1.6), 1.3, False),
    Case("ADMM, blur", lambda n: ADMM(steps=n), GaussianBlur(SIZE, 1.6), 2.0, False),
    Case("DiffPIR, blur", lambda n: DiffPIR(steps=n), GaussianBlur(SIZE, 1.6), 2.0, True),
    Case(
        "DiffPIR, block average x4", lambda n: DiffPIR(steps=n), BlockAverage(SIZE, 4), 3.2, True
    ),
]


def free(v: Tensor, sigma: float) -> Tensor:
    return v


def measure(case: Case) -> dict[str, Any]:
    x = torch.randn(1, *SIZE, generator=torch.Generator().manual_seed(0)).mul(0.3)
    a, noise, prior = case.operator, Gaussian(0.04), CallableDenoiser(free)
    m = Measurement(a, noise, noise(a(x)))
    own = generators(0, 1)

    def parts() -> Tensor:
        u = m.prox(x, 0.1)
        return randn_like(u, own) if case.noise else u

    short, long = case.method(SHORT), case.method(LONG)
    times = alternating(
        {
            "fft": lambda: torch.fft.irfft2(torch.fft.rfft2(x), s=SIZE[-2:]),
            "parts": parts,
            "short": lambda: short(m, prior),
            "long": lambda: long(m, prior),
        }
    )
    pairs = zip(times["long"], times["short"], strict=True)
    steps = [(b - s) / (LONG - SHORT) for b, s in pairs]
    ms = statistics.median(steps) * 1e3
    return {
        "case": case.name,
        "ms per step": round(ms, 3),
        "limit ms, idle core": case.limit,
        "achieved / limit": round(ms / case.limit, 2),
        "prox (and noise) ms": round(statistics.median(times["parts"]) * 1e3, 3),
        "fft ms": round(statistics.median(times["fft"]) * 1e3, 3),
        "step / prox (and noise)": ratio(steps, times["parts"]),
        "step / fft": ratio(steps, times["fft"]),
    }


def main() -> None:
    torch.set_num_threads(1)
    settle_allocator()
    rows = [measure(case) for case in CASES]
    for row in rows:
        print(
            f"{row['case']:28s} {row['ms per step']:7.3f} ms per step (limit "
            f"{row['limit ms, idle core']}), prox and noise {row['prox (and noise) ms']:.3f} ms, "
            f"one FFT pair {row['fft ms']:.3f} ms"
        )
    print(write("loops", {"size": SIZE, "rows": rows}))


if __name__ == "__main__":
    main()
