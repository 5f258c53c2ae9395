"""Most memory that operators, priors and methods take, in sizes of the image.

Each row is a process of its own: it makes what is handed in (images, data, kernels, coil maps,
weights of networks), notes its resident set, and takes the highest one while it works from there
on, over the bytes of the image in float32 (complex images: complex64). What comes out is counted,
and so is what an operator keeps: its spectra, and the system matrix of a tomograph.

    python benchmarks/memory.py            writes results/memory.json; Linux alone
    python benchmarks/memory.py --sizes 512 1024 2048
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import write
from torch import Tensor

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
from measurand.priors import TotalVariation, tv_prox, tv_prox_exact
from measurand.priors.trained import Images
from measurand.samplers import DiffPIR
from measurand.solvers import ADMM, FISTA, HQS
from measurand.weights.store import load

KERNEL = gaussian_kernel(2.0)
AT_MOST = 8  # times the image: what is asked of each row


def picture(n: int, channels: int = 3) -> Tensor:
    return torch.rand(1, channels, n, n, generator=torch.Generator().manual_seed(0)) * 2 - 1


def seen(operator: Any, x: Tensor) -> Measurement:
    noise = (ComplexGaussian if x.is_complex() else Gaussian)(0.04)
    return Measurement(operator, noise, operator(x))


Work = Callable[[], Any]


def by(method: Any, prior: str, n: int) -> Work:
    """A method on a camera's blur of a picture."""
    a = ValidBlur((3, n, n), KERNEL)
    m, images = seen(a, picture(n)), Images(a.in_shape, a.in_dtype, str(a))
    knowledge = load(prior).fitted(images).prior if prior else TotalVariation(weight=0.1)
    a = ValidBlur((3, n, n), KERNEL)  # without the spectra that it keeps
    return lambda: method(Measurement(a, m.noise, m.y), knowledge)


def proximal(operator: Callable[[], Any], n: int) -> Work:
    x, y = picture(n), operator()(picture(n))
    return lambda: operator().prox(x, y, 0.1)


def coils(n: int) -> Work:
    shape, x = (1, n, n), picture(n, 1).to(torch.complex64)
    lines = random_lines(shape, 4, 0.08, generator=torch.Generator().manual_seed(0))
    maps = birdcage_maps(shape, 8)
    return lambda: SENSE(shape, maps, lines).gram(x)


def applied(f: Callable[[Tensor], Any], n: int, channels: int = 3) -> Work:
    x = picture(n, channels)
    return lambda: f(x)


WORK: dict[str, Callable[[int], Work]] = {
    "Blur, A": lambda n: applied(Blur((3, n, n), KERNEL), n),
    "Blur, proximal map": lambda n: proximal(lambda: Blur((3, n, n), KERNEL), n),
    "ReflectiveBlur, norm": lambda n: lambda: ReflectiveBlur((3, n, n), KERNEL).norm,
    "ValidBlur, proximal map": lambda n: proximal(lambda: ValidBlur((3, n, n), KERNEL), n),
    "BlockAverage, proximal map": lambda n: proximal(lambda: BlockAverage((3, n, n), 4), n),
    "Mask, proximal map": lambda n: proximal(
        lambda: Mask((3, n, n), random_mask((3, n, n), 0.5, generator=torch.Generator())), n
    ),
    "CT, 180 angles, A": lambda n: applied(
        lambda x: ParallelCT((1, n, n), even_angles(180))(x), n, 1
    ),
    "SENSE, 8 coils, A^H A": coils,
    "total variation, closed form": lambda n: applied(lambda x: tv_prox(x, 0.1), n),
    "total variation, exact to 1e-3": lambda n: applied(
        lambda x: tv_prox_exact(x, 0.05, tol=1e-3), n
    ),
    "FISTA, ValidBlur, total variation": lambda n: by(FISTA(steps=5), "", n),
    "HQS, ValidBlur, natural-color": lambda n: by(HQS(steps=2), "natural-color", n),
    "ADMM, ValidBlur, natural-color": lambda n: by(ADMM(steps=2), "natural-color", n),
    "DiffPIR, ValidBlur, natural-color": lambda n: by(DiffPIR(steps=2), "natural-color", n),
}


def resident(key: str) -> int:
    """Bytes of the resident set: now (VmRSS), or the highest since it was reset (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))


def alone(name: str, size: int) -> None:
    """One row, printed: for a process of its own."""
    torch.set_num_threads(1)
    with torch.no_grad():
        WORK[name](64)()  # libraries and kernels are loaded
        work = WORK[name](size)
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
        made = work()  # kept, so that it counts
    print(json.dumps(resident("VmHWM") - before), flush=True)
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
