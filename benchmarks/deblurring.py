"""Deblurring of photographs: total variation, HQS, ADMM and RED with one trained prior.

Protocol. Colour photographs of BSDS500, centre crop of 256 x 256; circular blur by two measured
motion kernels and two Gaussians; white noise of 0.02 of the value range, image k with
`torch.Generator().manual_seed(k)`. PSNR over all pixels and channels without clipping, averaged
over images. Results are on the first 20 images of `test`, everything that was chosen was chosen on
`val` (`--search`): the weights of TV below, and the defaults of the three solvers.

    python benchmarks/deblurring.py                       writes results/deblurring.json
    python benchmarks/deblurring.py --search HQS          writes results/deblurring_search_HQS.json
    python benchmarks/deblurring.py --prior FILE.safetensors --images 4 --methods HQS RED
"""

import argparse
import io
import json
import statistics
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import RESULTS, write
from PIL import Image
from torch import Tensor

from measurand.measurement import Measurement
from measurand.metrics import psnr
from measurand.noises import Gaussian
from measurand.operators import Blur, gaussian_kernel
from measurand.priors import Counted, Denoiser
from measurand.priors.variation import TotalVariation
from measurand.solvers import ADMM, FISTA, HQS, RED, Annealed, Constant
from measurand.weights.store import load_prior

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SIDE = 256
NOISE = 0.02 * 2  # of images in [-1, 1]

Method = Any

# the weights of TV, in nll units, by kernel: chosen on val
TV_WEIGHTS = {"levin09_0": 4.0, "levin09_3": 4.0, "gaussian_1.6": 2.5, "gaussian_3.0": 1.5}
# the reference: DPIR (HQS, 8 and 24 steps) with the published FFDNet, and FISTA with TV (best of
# two weights, first six images), measured once with this protocol
REFERENCE = {
    "DPIR with FFDNet, 8 steps": (29.82, 29.26, 26.54, 23.61),
    "DPIR with FFDNet, 24 steps": (29.51, 28.96, 26.51, 23.62),
    "DPIR with FFDNet, 8 steps, first 6": (30.42, 29.83, 27.49, 24.58),
    "FISTA with TV, first 6": (26.79, 26.36, 26.55, 24.15),
}
LEARNED: dict[str, Method] = {
    "HQS": HQS(steps=16),
    "HQS 24": HQS(steps=24),
    "ADMM": ADMM(steps=24, weight=0.5),
    "RED": RED(steps=100, weight=0.28, levels=Constant()),
}

HIGHS = (20 / 255, 49 / 255, 100 / 255)
LOWS = (0.5, 0.7, 1.0, 1.4)
WEIGHTS = (0.1, 0.15, 0.23, 0.35, 0.5, 0.7, 1.0)
GRIDS: dict[str, dict[str, tuple[Any, ...]]] = {
    "HQS": {"weight": WEIGHTS, "low": LOWS, "high": HIGHS, "steps": (8, 16, 24, 40)},
    "HQS 24": {"weight": WEIGHTS, "low": LOWS, "high": HIGHS},
    "ADMM": {"weight": WEIGHTS, "low": LOWS, "high": HIGHS, "steps": (16, 24, 40)},
    "RED": {"weight": WEIGHTS, "level": (0.5, 1.0, 1.5, 2.0), "steps": (30, 60, 100)},
    "TV": {"weight": (1.5, 2.5, 4.0, 6.0, 10.0, 16.0)},
}


def photographs(split: str, n: int, data: Path) -> Tensor:
    """The first images of a split by file name, centre crops in [-1, 1], (n, 3, 256, 256)."""
    crops = []
    with zipfile.ZipFile(data / "natural_bsds500.zip") as archive:
        names = sorted(k for k in archive.namelist() if k.startswith(f"{split}/") and k[-1] != "/")
        for name in names[:n]:
            with Image.open(io.BytesIO(archive.read(name))) as picture:
                x = torch.from_numpy(np.asarray(picture.convert("RGB"), np.float32)).movedim(-1, 0)
            top, left = (x.shape[1] - SIDE) // 2, (x.shape[2] - SIDE) // 2
            crops.append(x[:, top : top + SIDE, left : left + SIDE] / 127.5 - 1)
    return torch.stack(crops)


def kernels(data: Path) -> dict[str, Tensor]:
    measured = np.load(data / "blur_kernels.npz")
    return {
        "levin09_0": torch.from_numpy(measured["levin09_0"]),
        "levin09_3": torch.from_numpy(measured["levin09_3"]),
        "gaussian_1.6": gaussian_kernel(1.6, 21),
        "gaussian_3.0": gaussian_kernel(3.0, 29),
    }


def measurements(x: Tensor, kernel: Tensor, batch: int) -> Iterator[tuple[Measurement, Tensor]]:
    """Blurred and noisy images with the true ones, a few at a time."""
    a, noise = Blur((3, SIDE, SIDE), kernel), Gaussian(NOISE)
    for start in range(0, len(x), batch):
        truth = x[start : start + batch]
        own = [torch.Generator().manual_seed(start + k) for k in range(len(truth))]
        yield Measurement(a, noise, noise(a(truth), own)), truth


def quality(restore: Any, x: Tensor, kernel: Tensor, batch: int) -> list[float]:
    """PSNR of each image."""
    return [
        value
        for m, truth in measurements(x, kernel, batch)
        for value in psnr(restore(m), truth, data_range=2.0).tolist()
    ]


def total_variation(weight: float) -> Any:
    return partial(FISTA(steps=100), prior=TotalVariation(weight=weight, joint=True, tol=1e-3))


def with_settings(method: Method, settings: dict[str, Any]) -> Method:
    """A solver with other knobs; levels are given by their own fields."""
    own = {k: v for k, v in settings.items() if k in ("weight", "steps", "step")}
    rest = {k: v for k, v in settings.items() if k in ("low", "high")}
    if rest:
        own["levels"] = replace(method.levels, **rest)
    if "level" in settings:
        own["levels"] = Constant(settings["level"] * NOISE)
    return replace(method, **own)


def knobs(method: Method) -> dict[str, Any]:
    """The settings of a solver, in the words of `with_settings`."""
    found = {"weight": method.weight, "steps": method.steps}
    if isinstance(method.levels, Annealed):
        return found | {"low": method.levels.low, "high": method.levels.high}
    level = method.levels.level
    return found | {"level": 1.0 if level is None else level / NOISE}


def search(name: str, prior: Denoiser | None, x: Tensor, args: argparse.Namespace) -> None:
    """Coordinate search on val: one knob after the other, twice."""
    trials: list[dict[str, Any]] = []

    def score(settings: dict[str, Any]) -> float:
        for trial in trials:
            if trial["settings"] == settings:
                return trial["mean"]
        row: dict[str, float] = {}
        for kernel_name, kernel in kernels(args.data).items():
            if name == "TV":
                restore = total_variation(settings["weight"])
            else:
                restore = partial(with_settings(LEARNED[name], settings), prior=prior)
            found = quality(restore, x, kernel, args.batch)
            row[kernel_name] = round(sum(found) / len(found), 3)
        mean = round(sum(row.values()) / len(row), 3)
        trials.append({"settings": dict(settings), "mean": mean, "by kernel": row})
        print(f"{mean:.3f} dB", settings, row, flush=True)
        write(f"deblurring_search_{name.replace(' ', '_')}", {"images": len(x), "trials": trials})
        return mean

    best = {"weight": 4.0} if name == "TV" else knobs(LEARNED[name])
    for _ in range(args.rounds):
        for knob, values in GRIDS[name].items():
            best = max(({**best, knob: value} for value in (best[knob], *values)), key=score)
    print("best:", best, f"{score(best):.3f} dB")


def evaluate(prior: Denoiser | None, x: Tensor, args: argparse.Namespace) -> None:
    """PSNR, network calls and CPU seconds per image of every method and kernel."""
    rows: list[dict[str, Any]] = []
    for kernel_name in args.kernels:
        kernel = kernels(args.data)[kernel_name]
        for name in ["blurred", *args.methods]:
            counted = None if prior is None else Counted(prior)
            if name == "blurred":
                restore: Any = _data
            elif name == "TV":
                restore = total_variation(TV_WEIGHTS[kernel_name])
            else:
                restore = partial(LEARNED[name], prior=counted)
            start = time.process_time()
            each = quality(restore, x, kernel, args.batch)
            row = {
                "kernel": kernel_name,
                "method": name,
                "psnr": round(sum(each) / len(each), 2),
                "psnr of the first 6": round(sum(each[:6]) / len(each[:6]), 2),
                "nfe": counted.calls // -(-len(x) // args.batch) if counted else 0,
                "cpu seconds per image": round((time.process_time() - start) / len(x), 2),
                "each": [round(value, 2) for value in each],
            }
            rows.append(row)
            shown = (
                "kernel",
                "method",
                "psnr",
                "psnr of the first 6",
                "nfe",
                "cpu seconds per image",
            )
            print("  ".join(f"{row[key]!s:>14}" for key in shown), flush=True)
            content = {
                "prior": args.prior,
                "images": len(x),
                "methods": _described(),
                "reference, by kernel": REFERENCE,
                "rows": rows,
            }
            write(args.output, content)
    means = {
        name: round(statistics.mean(r["psnr"] for r in rows if r["method"] == name), 2)
        for name in ["blurred", *args.methods]
    }
    print("mean over kernels:", means)
    print(write(args.output, {**content, "mean over kernels": means}))


def join(names: list[str], output: str) -> None:
    """One results file of several, made at the same time for other kernels or methods."""
    parts = [json.loads((RESULTS / f"{name}.json").read_text()) for name in names]
    found = {
        (row["kernel"], row["method"]): {"images": part["images"], **row}
        for part in reversed(parts)
        for row in part["rows"]
    }
    rows = list(found.values())
    rows.sort(key=lambda row: (list(TV_WEIGHTS).index(row["kernel"]), row["method"]))
    by_method: dict[str, list[float]] = {}
    for row in rows:
        label = f"{row['method']}, {row['images']} images"
        by_method.setdefault(label, []).append(row["psnr"])
    means = {k: round(statistics.mean(v), 3) for k, v in by_method.items() if len(v) == 4}
    print(write(output, {**parts[0], "rows": rows, "mean over kernels": means}))
    for name in set(names) - {output}:
        (RESULTS / f"{name}.json").unlink()


def _data(m: Measurement) -> Tensor:
    return m.y


def _described() -> dict[str, str]:
    return {**{name: str(method) for name, method in LEARNED.items()}, "TV": str(TV_WEIGHTS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prior", default="natural-color", help="name or .safetensors file")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--methods", nargs="+", default=["TV", *LEARNED], choices=["TV", *LEARNED])
    parser.add_argument("--kernels", nargs="+", default=list(TV_WEIGHTS), choices=list(TV_WEIGHTS))
    parser.add_argument("--join", nargs="+", help="join results of other names instead")
    parser.add_argument("--search", choices=list(GRIDS), help="search a method's knobs on val")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of the search")
    parser.add_argument("--output", default="deblurring", help="name of the results file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.join:
        join(args.join, args.output)
        return
    if not (args.data / "natural_bsds500.zip").is_file():
        print(f"skipped: no data sets in {args.data}")
        return
    learned = args.search != "TV" if args.search else any(m != "TV" for m in args.methods)
    prior = load_prior(args.prior) if learned else None
    with torch.no_grad():
        if args.search:
            search(args.search, prior, photographs("val", args.images, args.data), args)
        else:
            evaluate(prior, photographs("test", args.images, args.data), args)


if __name__ == "__main__":
    main()
