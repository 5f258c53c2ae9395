"""Most memory that operators, priors and methods take, in sizes of the image.

Each row is a process of its own: it does the work once for a small image, notes the most memory
that the process has had, does it for the large one and takes the difference (resident set), over
the bytes of the image in float32 (complex images: complex64). What is handed in is not counted;
what comes out is. CT: the matrix is counted, for it belongs to the operator.

    python benchmarks/memory.py            writes results/memory.json
    python benchmarks/memory.py --sizes 512 1024 2048
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from machine import write
from torch import Tensor

import measurand as ms
from measurand.measurement import Measurement
from measurand.noises import ComplexGaussian, Gaussian
from measurand.operators import (
    SENSE,
    BlockAverage,
    Blur,
    Mask,
    ParallelCT,
    ReflectiveBlur,
    ValidBlur,
    birdcage_maps,
    even_angles,
    gaussian_kernel,
    random_lines,
    random_mask,
)
from measurand.priors import tv_prox, tv_prox_exact
from measurand.samplers import DiffPIR
from measurand.solvers import ADMM, FISTA, HQS

KERNEL = gaussian_kernel(2.0)
AT_MOST = 8  # times the image: what is asked of each row


def picture(n: int, channels: int = 3) -> Tensor:
    return torch.rand(1, channels, n, n, generator=torch.Generator().manual_seed(0)) * 2 - 1


def seen(operator: Any, x: Tensor) -> Measurement:
    noise = (ComplexGaussian if x.is_complex() else Gaussian)(0.04)
    return Measurement(operator, noise, operator(x))


def by(method: Any, operator: Callable[[tuple[int, ...]], Any], prior: str) -> Any:
    def run(n: int) -> Tensor:
        x = picture(n)
        knowledge = ms.load(prior) if "-" in prior else ms.priors.TotalVariation(weight=0.1)
        if hasattr(knowledge, "fitted"):
            a = operator(tuple(x.shape[1:]))
            images = ms.priors.trained.Images(a.in_shape, a.in_dtype, str(a))
            knowledge = knowledge.fitted(images).prior
        return method(seen(operator(tuple(x.shape[1:])), x), knowledge)

    return run


def brain(n: int) -> Any:
    shape = (1, n, n)
    lines = random_lines(shape, 4, 0.08, generator=torch.Generator().manual_seed(0))
    return SENSE(shape, birdcage_maps(shape, 8), lines)


def valid(shape: tuple[int, ...]) -> Any:
    return ValidBlur(shape, KERNEL)


WORK: dict[str, Callable[[int], Any]] = {
    "Blur, A": lambda n: Blur((3, n, n), KERNEL)(picture(n)),
    "Blur, proximal map": lambda n: Blur((3, n, n), KERNEL).prox(picture(n), picture(n), 0.1),
    "ReflectiveBlur, norm": lambda n: ReflectiveBlur((3, n, n), KERNEL).norm,
    "ValidBlur, proximal map": lambda n: (a := ValidBlur((3, n, n), KERNEL)).prox(
        picture(n), a(picture(n)), 0.1
    ),
    "BlockAverage, proximal map": lambda n: (a := BlockAverage((3, n, n), 4)).prox(
        picture(n), a(picture(n)), 0.1
    ),
    "Mask, proximal map": lambda n: (
        a := Mask((3, n, n), random_mask((3, n, n), 0.5, generator=torch.Generator()))
    ).prox(picture(n), a(picture(n)), 0.1),
    "CT, 180 angles, A": lambda n: ParallelCT((1, n, n), even_angles(180))(picture(n, 1)),
    "SENSE, 8 coils, A^H A": lambda n: brain(n).gram(picture(n, 1).to(torch.complex64)),
    "total variation, closed form": lambda n: tv_prox(picture(n), 0.1),
    "total variation, exact to 1e-3": lambda n: tv_prox_exact(picture(n), 0.05, tol=1e-3),
    "FISTA, ValidBlur": by(FISTA(steps=5), valid, "variation"),
    "HQS, ValidBlur, natural-color": by(HQS(steps=2), valid, "natural-color"),
    "ADMM, ValidBlur, natural-color": by(ADMM(steps=2), valid, "natural-color"),
    "DiffPIR, ValidBlur, natural-color": by(DiffPIR(steps=2), valid, "natural-color"),
}


def highest() -> int:
    """Bytes that the process has had at most."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def alone(name: str, size: int) -> None:
    """One row, printed: for a process of its own."""
    torch.set_num_threads(1)
    with torch.no_grad():
        WORK[name](64)
        before = highest()
        made = WORK[name](size)  # kept, so that it counts
    print(json.dumps(highest() - before), flush=True)
    del made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--alone", nargs=2, help="name and size of one row")
    args = parser.parse_args()
    if args.alone:
        return alone(args.alone[0], int(args.alone[1]))
    rows = []
    for name in WORK:
        channels = 1 if name.startswith(("CT", "SENSE")) else 3
        row: dict[str, Any] = {"what": name}
        for size in args.sizes:
            if name.startswith("CT") and size > 1024:
                continue
            words = [sys.executable, __file__, "--alone", name, str(size)]
            out = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            image = channels * size * size * (8 if name.startswith("SENSE") else 4)
            row[f"{size} x {size}"] = round(json.loads(out) / image, 1)
        rows.append(row)
        print(row, flush=True)
        write("memory", {"unit": "bytes of the image", "asked": AT_MOST, "rows": rows})
    return None


if __name__ == "__main__":
    main()
