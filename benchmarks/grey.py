"""Grey photographs: the grey prior against colour networks that are shown three equal channels.

    python benchmarks/grey.py                     writes results/grey.json

Luminance of eighteen pictures (McMaster), centre crops of 128 x 128, noise 0.04 (images in
[-1, 1]); Gaussian blur of 1.6 pixels, and every second pixel missing at random. HQS with its
defaults, the posterior mean of the unfolded network, PSNR in dB: mean and worst picture.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from machine import write
from unfolding_rivals import DATA

from measurand.domains import Photographs
from measurand.measurement import Measurement
from measurand.metrics import psnr
from measurand.noises import Gaussian
from measurand.operators import GaussianBlur, LinearOperator, Mask
from measurand.priors import Grey
from measurand.solvers import HQS, PosteriorMean
from measurand.weights.store import load, load_prior

SHAPE = (1, 128, 128)


def problems() -> dict[str, LinearOperator]:
    half = torch.rand(SHAPE, generator=torch.Generator().manual_seed(0)) > 0.5
    return {"Gaussian blur": GaussianBlur(SHAPE, sigma=1.6), "missing pixels": Mask(SHAPE, half)}


def measured(operator: LinearOperator, x: torch.Tensor, seed: int) -> Measurement:
    y = Gaussian(0.04)(operator(x), torch.Generator().manual_seed(seed))
    return Measurement(operator, Gaussian(0.04), operator(y) if isinstance(operator, Mask) else y)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--grey", nargs="+", default=["natural-gray"], help="names or files")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    args = parser.parse_args()
    torch.set_num_threads(1)
    file = args.data / "natural_testsets.zip"
    if not file.is_file():
        print(f"skipped: no data set {file.name}")
        return
    images = Photographs(grey=True).look(file, "McMaster")
    side = SHAPE[-1]
    corners = [((x.shape[2] - side) // 2, (x.shape[3] - side) // 2) for x in images]
    cut = [x[..., i : i + side, j : j + side] for x, (i, j) in zip(images, corners, strict=True)]
    methods: dict[str, tuple[Any, Any]] = {
        f"HQS, {Path(name).stem}": (HQS(), load_prior(name)) for name in args.grey
    }
    methods["HQS, natural-color"] = (HQS(), Grey(load_prior("natural-color")))
    methods["unfold-color"] = (PosteriorMean(), load("unfold-color").in_grey())
    rows = []
    for label, operator in problems().items():
        for name, (method, prior) in methods.items():
            with torch.no_grad():
                found = [
                    float(psnr(method(measured(operator, x, k), prior), x, data_range=2.0))
                    for k, x in enumerate(cut)
                ]
            row: dict[str, Any] = {"problem": label, "method": name}
            row |= {"psnr": round(sum(found) / len(found), 2), "worst": round(min(found), 2)}
            rows.append(row)
            print(row, flush=True)
    print(write("grey", {"images": len(cut), "rows": rows}))


if __name__ == "__main__":
    main()
