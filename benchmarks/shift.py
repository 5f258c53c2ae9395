"""Which prior fits measurements of photographs, faces, brain and CT slices; and adaptation.

Protocol. 64 test images of each kind (photographs: BSDS500 and the classic test sets; CT: 35
slices and their mirror images), centre crops of 64 x 64 pixels, measured five ways: masks that
keep 80, 50 and 20 % of the pixels, a circular Gaussian blur of deviation 1.6, random Fourier lines
at R = 3, each image with its own mask, noise 0.04 (images in [-1, 1]). `ranked` with its defaults
but 24 levels. Colour priors see grey images as equal channels; of complex brain images a real
prior denoises real and imaginary part by themselves.

Adaptation. `faces-128` to photographs and `natural-gray` to magnitudes of brain slices, from 128
training measurements that keep half of the pixels. The divergence is that of 64 measurements of
the test set from a reference that fits, `natural-color`; for brain magnitudes no prior that ships
is one, and what is measured is the loss of `ranked`. PSNR is that of HQS with its defaults on 24
measurements of the test set, 80 % of their pixels missing.

    python benchmarks/shift.py                  writes results/shift.json, goes on with its rows
    python benchmarks/shift.py --adaptation     the second part
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import RESULTS, write
from torch import Tensor

from measurand.domains import Body, Brain, Faces, Photographs
from measurand.measurement import Measurement
from measurand.metrics import psnr
from measurand.noises import ComplexGaussian, Gaussian
from measurand.operators import (
    CartesianMRI,
    FourierMask,
    GaussianBlur,
    LinearOperator,
    Mask,
    random_lines,
    random_mask,
)
from measurand.priors import CallableDenoiser
from measurand.priors.grey import Grey
from measurand.shift import Adaptation, Divergence, ranked
from measurand.solvers import HQS
from measurand.tensors import generators
from measurand.weights.store import load

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SIDE, NOISE = 64, 0.04
NODES = 24
CASES = {  # images, the prior that fits, the other candidates
    "photographs": ("natural-color", "faces-128"),
    "faces": ("faces-128", "natural-color"),
    "photographs, grey": ("natural-gray", "ct-body", "faces-128"),
    "CT slices": ("ct-body", "natural-gray", "faces-128"),
    "brain slices": ("mri-brain", "natural-gray"),
}


def cropped(images: list[Tensor], n: int) -> Tensor:
    """Returns centre crops of n images; of mirror images too, where there are fewer."""
    images = [x for x in images if min(x.shape[-2:]) >= SIDE]
    images = (images + [x.flip(-1) for x in images])[:n]
    found = []
    for x in images:
        top, left = ((k - SIDE) // 2 for k in x.shape[-2:])
        found.append(x[..., top : top + SIDE, left : left + SIDE])
    return torch.cat(found)


def images_of(kind: str, split: str, n: int, data: Path) -> Tensor:
    """Returns images of a kind, with shape (n, C, 64, 64)."""
    if kind.startswith("photographs"):
        domain = Photographs(grey="grey" in kind)
        found = domain.look(data / "natural_bsds500.zip", split)
        if split == "test":
            found += domain.look(data / "natural_testsets.zip")
        return cropped(found, n)
    if kind == "faces":
        return cropped(Faces(128).look(data / "faces_utk128.zip", split), n)
    if kind == "CT slices":
        hu = np.load(data / f"ct_{split}.npz")["hu"]
        x = Body().image(torch.from_numpy(hu.astype(np.float32))[:, None], None)
        return cropped(list(x.split(1)), n)
    slices = Brain().look(data / f"mri_brain_{split}.npz")
    slices = slices[:: max(1, len(slices) // n)]
    if kind == "brain magnitudes":
        slices = [2 * x.abs().clamp(max=1) - 1 for x in slices]
    return cropped(slices, n)


def operators(shape: tuple[int, ...], n: int) -> dict[str, LinearOperator]:
    """Returns the five ways to measure n images."""
    masks = {
        f"mask, keeps {100 * keep:.0f} %": Mask(
            shape, random_mask(shape, 1 - keep, n=n, generator=generators(0, n))
        )
        for keep in (0.8, 0.5, 0.2)
    }
    lines = FourierMask(shape, random_lines(shape, 3, 0.08, generator=generators(0, n)))
    return {**masks, "Gaussian blur": GaussianBlur(shape, 1.6), "Fourier lines R = 3": lines}


def measured(a: LinearOperator, x: Tensor, seed: int) -> Measurement:
    noise = (ComplexGaussian if a.out_dtype.is_complex else Gaussian)(NOISE)
    return Measurement(a, noise, noise(a(x), generators(seed, len(x))))


def prior_of(name: str, x: Tensor) -> Any:
    """Returns a prior as one of such images."""
    network: Any = load(name)
    if x.is_complex() and not network.dtype.is_complex:

        def parts(v: Tensor, sigma: Any) -> Tensor:
            return torch.complex(network.denoise(v.real, sigma), network.denoise(v.imag, sigma))

        return CallableDenoiser(parts, dtype=torch.complex64, range=network.range)
    if network.channels != x.shape[1]:
        return Grey(network, network.channels)
    return network


def ranking(data: Path, n: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = kept().get("ranking", [])
    done = {(row["images"], row["operator"]) for row in rows}
    for kind, names in CASES.items():
        x = images_of(kind, "test", n, data)
        shape = tuple(x.shape[1:])
        ways = operators(shape, len(x))
        if x.is_complex():
            ways = {k: complexed(k, shape, len(x)) for k in ways if "blur" not in k}
        priors = {name: prior_of(name, x) for name in names}
        for label, a in ways.items():
            if (kind, label) in done:
                continue
            started = time.process_time()
            # a blur hides the same coordinates of every image, which is meant
            settings = Divergence(nodes=NODES, fills=2, spread=True, fixed="blur" in label)
            m = measured(a, x.to(a.in_dtype), 1)
            order = ranked([m], priors, settings=settings)
            row = {
                "images": kind,
                "operator": label,
                "number": len(x),
                "first": order[0].name,
                "fits": order[0].name == names[0],
                "excess": {rank.name: round(rank.excess, 4) for rank in order},
                "interval": {rank.name: [round(v, 4) for v in rank.interval] for rank in order},
                "cpu seconds": round(time.process_time() - started, 1),
            }
            rows.append(row)
            print(row, flush=True)
            write("shift", {**kept(), "ranking": rows})
    return rows


def complexed(label: str, shape: tuple[int, ...], n: int) -> LinearOperator:
    """Returns the operator of complex images."""
    if "Fourier" in label:
        masks = random_lines(shape, 3, 0.08, generator=generators(0, n))
        return CartesianMRI(shape, masks)
    keep = float(label.split()[2]) / 100
    mask = random_mask(shape, 1 - keep, n=n, generator=generators(0, n))
    return Mask(shape, mask, dtype=torch.complex64)


def kept() -> dict[str, Any]:
    """What the results file holds."""
    file = RESULTS / "shift.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    found.pop("machine", None)
    return found


def adaptation(data: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for kind, name, reference in (
        ("photographs", "faces-128", "natural-color"),
        ("brain magnitudes", "natural-gray", None),
    ):
        split = "train"
        x, test = images_of(kind, split, 128, data), images_of(kind, "test", 64, data)
        shape = tuple(x.shape[1:])

        def seen(images: Tensor, missing: float, seed: int, shape: Any = shape) -> Measurement:
            masks = random_mask(
                shape, missing, n=len(images), generator=generators(seed, len(images))
            )
            return measured(Mask(shape, masks), images, seed)

        before = load(name, dtype=torch.float32)
        started = time.process_time()
        after = Adaptation()(before, [seen(x, 0.5, 10)])
        seconds = time.process_time() - started
        asked, holes = seen(test, 0.5, 20), seen(test[:24], 0.8, 30)
        settings = Divergence(nodes=NODES, fills=2, spread=True)
        order = {
            r.name: r
            for r in ranked([asked], {"before": before, "after": after}, settings=settings)
        }
        row: dict[str, Any] = {
            "images": kind,
            "prior": name,
            "measurements": len(x),
            "best step": after.card["adaptation"]["best_step"],
            "held-out loss": after.card["adaptation"]["held_out_loss"],
            "loss": {k: round(r.loss, 4) for k, r in order.items()},
            "cpu seconds": round(seconds),
        }
        if reference is not None:
            fits = load(reference, dtype=torch.float32)
            totals = {
                k: settings([asked], prior, fits).total
                for k, prior in (("before", before), ("after", after))
            }
            row["divergence"] = {k: round(v, 1) for k, v in totals.items()}
            row["divergence falls by"] = round(1 - totals["after"] / totals["before"], 3)
        with torch.no_grad():
            row["psnr"] = {
                k: round(float(psnr(HQS()(holes, p), test[:24], data_range=2.0).mean()), 2)
                for k, p in (("before", before), ("after", after))
            }
        rows.append(row)
        print(row, flush=True)
        write("shift", {**kept(), "adaptation": rows})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--adaptation", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not (args.data / "natural_bsds500.zip").is_file():
        print(f"skipped: no data sets in {args.data}")
        return
    if args.adaptation:
        adaptation(args.data)
    else:
        ranking(args.data, args.images)


if __name__ == "__main__":
    main()
