"""Super-resolution of faces: the priors of faces against the one of all photographs, and TV.

Block averages of 4 x 4 pixels with noise of 0.02 (images in [-1, 1]), every fifth test picture of
UTKFace, at 128 pixels; noise of picture k from seed k. HQS with its defaults for all
priors; the weight of total variation is the best of four on these very pictures.

    python benchmarks/faces.py        writes results/faces.json
"""

from pathlib import Path
from typing import Any

import torch
from machine import write

from measurand.domains import Faces
from measurand.measurement import Measurement
from measurand.metrics import psnr
from measurand.noises import Gaussian
from measurand.operators import BlockAverage
from measurand.priors import TotalVariation
from measurand.solvers import FISTA, HQS
from measurand.tensors import generators
from measurand.weights.store import load_prior

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "faces_utk128.zip"


def quality(method: Any, prior: Any, m: Measurement, x: torch.Tensor) -> float:
    with torch.no_grad():
        return round(float(psnr(method(m, prior), x, data_range=2.0).mean()), 2)


def main() -> None:
    torch.set_num_threads(1)
    if not DATA.is_file():
        print(f"skipped: no data set {DATA.name}")
        return
    side = 128
    x = torch.cat(Faces(side).look(DATA, "test")[::5])
    a, noise = BlockAverage((3, side, side), 4), Gaussian(0.02)
    m = Measurement(a, noise, noise(a(x), generators(0, len(x))))
    row: dict[str, Any] = {"side": side, "pictures": len(x)}
    for name in ("faces-128", "natural-color"):
        row[name] = quality(HQS(), load_prior(name), m, x)
    row["TV"] = max(
        quality(FISTA(steps=100), TotalVariation(weight=w), m, x) for w in (5.0, 10, 20, 40)
    )
    print(row)
    print(write("faces", {"rows": [row]}))


if __name__ == "__main__":
    main()
