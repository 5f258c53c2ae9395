"""Whether the density of a flow of photographs tells other images from photographs.

Central crops of 64 x 64 pixels of photographs (BSDS500 test), CT slices, faces and brain slices
(their magnitude), in three channels, dequantised. For each of the flows that ship and each set:
bits per dimension, and two areas under the curve (AUROC) of the set against photographs: of the
code length itself, and of its distance from the mean over photographs of val. One half is chance.

    python benchmarks/flows_sets.py            writes results/flows_sets.json
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from deblurring import photographs
from flows import auroc, slices
from flows_rivals import cut
from machine import write
from torch import Tensor
from unfolding_rivals import DATA

from measurand.domains import Brain, Faces
from measurand.priors.flow import bits_per_dim, dequantization
from measurand.weights.store import load

FLOWS = ("flow-color", "flow-denoise", "flow-inpaint", "flow-deblur")


def faces(data: Path, n: int) -> Tensor:
    every = Faces(128).look(data / "faces_utk128.zip", "test")
    return torch.cat([cut(x) for x in every[:: max(1, len(every) // n)][:n]])


def brains(data: Path, n: int) -> Tensor:
    every = Brain().look(data / "mri_brain_test.npz")
    crops = torch.cat([cut(x) for x in every[:: max(1, len(every) // n)][:n]])
    return (2 * crops.abs().clamp(0, 1) - 1).expand(-1, 3, -1, -1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sets = {
        "val": cut(photographs("val", args.images, args.data)),
        "photographs": cut(photographs("test", args.images, args.data)),
        "CT": slices(args.data, args.images),
        "faces": faces(args.data, args.images),
        "brains": brains(args.data, args.images),
    }
    rows = []
    for name in FLOWS:
        prior: Any = load(name)
        with torch.no_grad():
            bits = {
                k: bits_per_dim(prior.log_prob(x + dequantization(x)), x[0].numel())
                for k, x in sets.items()
            }
        mean = bits["val"].mean()
        away = {k: (b - mean).abs() for k, b in bits.items()}
        row: dict[str, Any] = {"flow": name}
        for k in sets:
            row[f"bits, {k}"] = round(float(bits[k].mean()), 2)
        for k in ("CT", "faces", "brains"):
            row[f"auroc of the code length, {k}"] = auroc(bits[k], bits["photographs"])
            row[f"auroc of the distance, {k}"] = auroc(away[k], away["photographs"])
        rows.append(row)
        print(row, flush=True)
    print(write("flows_sets", {"images": args.images, "rows": rows}))


if __name__ == "__main__":
    main()
