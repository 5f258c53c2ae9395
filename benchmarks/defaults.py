"""Default settings of HQS, ADMM and RED on 24 problems, against total variation and a search.

Protocol. The problems are those of `problems`. Photographs of BSDS500, centre crops of 128 x 128
(126 x 126 for a factor of three), with `natural-color`: of the first 40 of the split, ordered by
the mean difference of neighbouring pixels, those at the quantiles (k + 1/2) / n, so that smooth
and rough ones count alike. CT and brain slices, centre crops of 128 x 128, with `ct-body` and
`mri-brain`. Everything that is random about image k (mask, lines,
noise) has the seeds of `generators(seed, k)`. Noise is a standard deviation in units of images in
[-1, 1], per real component; for CT relative to the norm of A. All images of a problem are one
batch. PSNR with a range of 2, of MR images that of the magnitude with the maximum of the slice,
without clipping, averaged over images of `val` (`--split test`: of `test`).

Rows: the initialization (`first_guess`), FISTA with total variation of the weight that the command
line takes (`variation_weight`), with the best weight for the very images ("TV best": twice as
large or half as large, then 1.4 times, as long as the PSNR grows), and the three methods with
their defaults.

The search changes one setting at a time, from the default as the measurement settles it: up and
down in the steps of `KNOBS` as long as the PSNR grows by more than `LEAST` dB, so that no best
value lies at the edge of a grid (but for `MOST_STEPS`); twice as many network evaluations must
gain `WORTH` dB more, and half as many may lose as much. `lost` is what the default lacks of the
best PSNR that was tried.

    python benchmarks/defaults.py                         writes results/defaults.json
    python benchmarks/defaults.py --no-search             the rows alone
    python benchmarks/defaults.py --prior natural-color=FILE.safetensors --output defaults_new
    python benchmarks/defaults.py --table                 prints the results file
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from deblurring import DATA, photographs
from machine import RESULTS, write
from torch import Tensor

from measurand.domains import Body, Brain
from measurand.files import sha256_file
from measurand.jobs.restore import variation_weight
from measurand.measurement import Measurement
from measurand.metrics import psnr
from measurand.noises import ComplexGaussian, Gaussian
from measurand.operators import (
    SENSE,
    BlockAverage,
    Blur,
    FourierMask,
    Identity,
    LinearOperator,
    Mask,
    ParallelCT,
    birdcage_maps,
    box_mask,
    disk_kernel,
    even_angles,
    gaussian_kernel,
    random_lines,
    random_mask,
)
from measurand.priors import TotalVariation
from measurand.solvers import ADMM, FISTA, HQS, RED, first_guess
from measurand.tensors import generators
from measurand.weights.store import WEIGHTS, known_weights, load_prior

SIDE = 128
POOL = 40  # photographs, of which some are taken, from smooth to rough
PRIORS = ("natural-color", "ct-body", "mri-brain")
METHODS = {"HQS": HQS(), "ADMM": ADMM(), "RED": RED()}
ROWS = ("input", "TV", "TV best", "HQS", "ADMM", "RED")
SEARCHED = ("HQS", "ADMM")

# factors by which the search goes up and down, in this order
KNOBS = (("weight", 2.0), ("low", 1.4), ("high", 2.0), ("steps", 2.0), ("weight", 1.4))
HIGHEST = 1.0  # share of the value range; no image needs a denoiser of more noise
MOST_STEPS = 64
LEAST = 0.02  # dB that any change must gain
WORTH = 0.05  # dB more that twice as many network evaluations must gain

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Problem:
    """A kind of measurement of a few images.

    Args:
        kind: What the defaults might depend on.
        operator: Makes the operator for n images of a shape.
        noise: Standard deviation of the noise.
        prior: Name of the denoiser.
        side: Height and width of the images, in pixels.
        relative: Whether the noise is relative to the norm of the operator.
    """

    kind: str
    operator: Callable[[Shape, int], LinearOperator]
    noise: float
    prior: str = "natural-color"
    side: int = SIDE
    relative: bool = False

    def measured(self, images: Tensor) -> Measurement:
        """Returns the measurement of all images of a batch."""
        a = self.operator(tuple(images.shape[1:]), len(images))
        kind = ComplexGaussian if a.out_dtype.is_complex else Gaussian
        noise = kind(self.noise * (a.norm if self.relative else 1.0))
        return Measurement(a, noise, noise(a(images), generators(1, len(images))))


def blur(kernel: Any) -> Callable[[Shape, int], LinearOperator]:
    return lambda shape, n: Blur(shape, kernel)


def missing(share: float) -> Callable[[Shape, int], LinearOperator]:
    return lambda shape, n: Mask(shape, random_mask(shape, share, n=n, generator=generators(0, n)))


def box(shape: Shape, n: int) -> LinearOperator:
    side = shape[-1] // 3
    return Mask(shape, box_mask(shape, (side, side)))


def averaged(factor: int) -> Callable[[Shape, int], LinearOperator]:
    return lambda shape, n: BlockAverage(shape, factor)


def lines(acceleration: float) -> Callable[[Shape, int], LinearOperator]:
    def operator(shape: Shape, n: int) -> LinearOperator:
        masks = random_lines(shape, acceleration, 0.08, generator=generators(0, n))
        return FourierMask(shape, masks)

    return operator


def coils(acceleration: float, center: float) -> Callable[[Shape, int], LinearOperator]:
    def operator(shape: Shape, n: int) -> LinearOperator:
        masks = random_lines(shape, acceleration, center, generator=generators(0, n))
        return SENSE(shape, birdcage_maps(shape[-2:], 8), masks).decomposed()

    return operator


def views(n_views: int) -> Callable[[Shape, int], LinearOperator]:
    return lambda shape, n: ParallelCT(shape, even_angles(n_views))


def identity(shape: Shape, n: int) -> LinearOperator:
    return Identity(shape)


def problems(data: Path) -> dict[str, Problem]:
    """Returns the 24 problems by name."""
    kernels = np.load(data / "blur_kernels.npz")
    motions = [blur(torch.from_numpy(kernels[name])) for name in ("levin09_0", "levin09_3")]
    ct = {"prior": "ct-body", "relative": True}
    return {
        "Gaussian blur 1.6, noise 0.04": Problem("blur", blur(gaussian_kernel(1.6, 21)), 0.04),
        "Gaussian blur 3.0, noise 0.005": Problem("blur", blur(gaussian_kernel(3.0, 29)), 0.005),
        "motion blur 1, noise 0.01": Problem("blur", motions[0], 0.01),
        "motion blur 2, noise 0.1": Problem("blur", motions[1], 0.1),
        "defocus 4, noise 0.02": Problem("blur", blur(disk_kernel(4.0)), 0.02),
        "SR x2, noise 0.005": Problem("SR", averaged(2), 0.005),
        "SR x3, noise 0.02": Problem("SR", averaged(3), 0.02, side=126),
        "SR x4, noise 0.01": Problem("SR", averaged(4), 0.01),
        "SR x4, noise 0.1": Problem("SR", averaged(4), 0.1),
        "50 % missing, noise 0.1": Problem("missing", missing(0.5), 0.1),
        "70 % missing, noise 0.04": Problem("missing", missing(0.7), 0.04),
        "90 % missing, noise 0.02": Problem("missing", missing(0.9), 0.02),
        "90 % missing, noise 0.4": Problem("missing", missing(0.9), 0.4),
        "95 % missing, noise 0.1": Problem("missing", missing(0.95), 0.1),
        "missing box, noise 0.02": Problem("box", box, 0.02),
        "Fourier lines R = 3, noise 0.02": Problem("Fourier", lines(3), 0.02),
        "Fourier lines R = 5, noise 0.1": Problem("Fourier", lines(5), 0.1),
        "CT 60 views, noise 0.005": Problem("CT", views(60), 0.005, **ct),
        "CT 30 views, noise 0.01": Problem("CT", views(30), 0.01, **ct),
        "MRI R = 4, noise 0.02": Problem("MRI", coils(4, 0.08), 0.02, "mri-brain"),
        "MRI R = 8, noise 0.02": Problem("MRI", coils(8, 0.04), 0.02, "mri-brain"),
        "denoising 0.1": Problem("denoising", identity, 0.1),
        "denoising 0.2": Problem("denoising", identity, 0.2),
        "denoising 0.4": Problem("denoising", identity, 0.4),
    }


def truth(problem: Problem, split: str, n: int, data: Path) -> Tensor:
    """Returns n images of the problem's domain, centre crops, with shape (n, C, side, side)."""
    if problem.prior == "ct-body":
        hu = np.load(data / f"ct_{split}.npz")["hu"]
        spread = np.linspace(0, len(hu) - 1, n + 2).round().astype(int)[1:-1]
        x = Body().image(torch.from_numpy(hu[spread].astype(np.float32))[:, None], None)
    elif problem.prior == "mri-brain":
        slices = Brain().look(data / f"mri_brain_{split}.npz")
        spread = np.linspace(0, len(slices) - 1, n + 2).round().astype(int)[1:-1]
        x = torch.cat([slices[k] for k in spread])
    else:
        x = photographs(split, POOL, data)
        center = x[..., 64:192, 64:192]
        order = center.diff(dim=-1).abs().mean((1, 2, 3)).argsort()
        x = x[order[[(2 * k + 1) * len(x) // (2 * n) for k in range(n)]]]
    top, left = ((size - problem.side) // 2 for size in x.shape[-2:])
    return x[..., top : top + problem.side, left : left + problem.side].contiguous()


def quality(estimate: Tensor, x: Tensor) -> float:
    """Returns the mean PSNR."""
    if not x.is_complex():
        return round(float(psnr(estimate, x, data_range=2.0).mean()), 3)
    pairs = zip(estimate.abs().split(1), x.abs().split(1), strict=True)
    values = [float(psnr(a, b, data_range=float(b.max()))) for a, b in pairs]
    return round(sum(values) / len(values), 3)


def row(name: str, m: Measurement, prior: Any) -> Tensor:
    """Returns the estimate of one of `ROWS`."""
    if name == "input":
        return first_guess(m)
    if name == "TV":
        return FISTA()(m, TotalVariation(weight=variation_weight(m)))
    method: Any = METHODS[name]
    return method(m, prior)


def best_variation(m: Measurement, x: Tensor) -> dict[str, float]:
    """Returns the best weight of total variation relative to `variation_weight`, and its PSNR."""
    tried: dict[float, float] = {}

    def score(factor: float) -> float:
        if factor not in tried:
            prior = TotalVariation(weight=factor * variation_weight(m))
            tried[factor] = quality(FISTA()(m, prior), x)
        return tried[factor]

    best = 1.0
    for ratio in (2.0, 1.4):
        for step in (ratio, 1 / ratio):
            while score(float(f"{best * step:.3g}")) > score(best):
                best = float(f"{best * step:.3g}")
    return {"factor": best, "psnr": score(best)}


def settings_of(method: Any) -> dict[str, Any]:
    """Returns the settings that the search changes."""
    return {
        "steps": method.steps,
        "weight": method.weight,
        "low": method.levels.low,
        "high": method.levels.high,
    }


def with_settings(method: Any, settings: dict[str, Any]) -> Any:
    """Returns a method with other settings."""
    levels = replace(method.levels, low=settings["low"], high=settings["high"])
    rest = {k: settings[k] for k in ("steps", "weight")}
    return replace(method, levels=levels, **rest)


def neighbors(settings: dict[str, Any], knob: str, factor: float) -> Iterator[dict[str, Any]]:
    """Returns the settings with one value changed by a factor, where they make sense."""
    value = settings[knob] * factor
    if knob == "steps":
        value = round(value)
        if not 2 <= value <= MOST_STEPS:
            return
    if knob == "high":
        value = min(value, HIGHEST)
        if value == settings[knob]:
            return
    yield {**settings, knob: value if knob == "steps" else float(f"{value:.3g}")}


def search(method: Any, score: Callable[[dict[str, Any]], float]) -> dict[str, Any]:
    """Returns the best settings of a coordinate search from the default."""
    best = settings_of(method)

    def better(new: dict[str, Any], old: dict[str, Any]) -> bool:
        doublings = np.log2(new["steps"] / old["steps"])
        return score(new) > score(old) + LEAST + WORTH * doublings

    for knob, factor in KNOBS:
        for direction in (factor, 1 / factor):
            moved = False
            for _ in range(8):
                new = next(neighbors(best, knob, direction), None)
                if new is None or not better(new, best):
                    break
                best, moved = new, True
            if moved:
                break
    return best


def searched(name: str, m: Measurement, x: Tensor, prior: Any) -> dict[str, Any]:
    """Returns the best settings of a method, their PSNR and all trials."""
    method, trials = METHODS[name].settled(m), []

    def score(settings: dict[str, Any]) -> float:
        for settings_tried, value in trials:
            if settings_tried == settings:
                return value
        try:
            value = quality(with_settings(method, settings)(m, prior), x)
        except FloatingPointError:
            value = -np.inf
        trials.append((settings, value))
        return value

    best = search(method, score)
    highest = max(value for _, value in trials)
    return {
        "best": best,
        "psnr": score(best),
        "lost": round(highest - score(settings_of(method)), 3),
        "trials": [{**settings, "psnr": value} for settings, value in trials],
    }


def summary(rows: dict[str, Any]) -> dict[str, list[str]]:
    """Returns the defaults that fail: below total variation, or 0.3 dB below the best."""
    below, lost = [], []
    for label, entry in rows.items():
        values = entry["psnr"]
        best = max(values.get("TV", -np.inf), values.get("TV best", -np.inf))
        below += [f"{name}: {label}" for name in METHODS if values.get(name, np.inf) < best]
        lost += [
            f"{name}: {label}"
            for name, found in entry.get("search", {}).items()
            if found["lost"] > 0.3
        ]
    return {"below total variation": below, "more than 0.3 dB below the best": lost}


def table(rows: dict[str, Any]) -> None:
    """Prints the results."""
    print(f"{'':34}", *(f"{name:>12}" for name in ROWS))
    for label, entry in rows.items():
        values = (f"{entry['psnr'].get(name, np.nan):12.2f}" for name in ROWS)
        print(f"{label:34}", *values)
    for label, entry in rows.items():
        for name, found in entry.get("search", {}).items():
            best, trials = found["best"], len(found["trials"])
            print(f"{label:34} {name:5} {found['psnr']:6.2f} lost {found['lost']:5.2f}", end=" ")
            print(f"in {trials:2} trials:", *(f"{k} {v}" for k, v in best.items()))
    for what, names in summary(rows).items():
        print(f"{what}: {', '.join(names) or 'none'}")


def kept(file: Path, setting: dict[str, Any], fresh: bool) -> dict[str, Any]:
    """Returns the rows that are there already, made with the same setting."""
    if fresh or not file.is_file():
        return {}
    old = json.loads(file.read_text())
    other = [k for k, v in setting.items() if old.get(k) != v]
    if other:
        raise SystemExit(f"{file}: has another {', '.join(other)}; --fresh or another --output")
    return old["problems"]


def weight_file(name: str) -> Path:
    """Returns the weight file of a prior that ships, or a file itself."""
    newest = [p for key, p in known_weights().items() if key.rpartition("@")[0] == name]
    return newest[-1] if newest else WEIGHTS / name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--prior", nargs="+", default=[], metavar="NAME=FILE")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--split", default="val", choices=("val", "test"))
    parser.add_argument("--only", nargs="+", metavar="PROBLEM", help="names or parts of names")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--no-search", action="store_true", help="the rows alone")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there")
    parser.add_argument("--table", action="store_true", help="print the results file, no more")
    parser.add_argument("--output", default="defaults", help="name of the results file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    file = RESULTS / f"{args.output}.json"
    if args.table:
        table(json.loads(file.read_text())["problems"])
        return
    needed = ("natural_bsds500.zip", f"ct_{args.split}.npz", f"mri_brain_{args.split}.npz")
    if any(not (args.data / name).is_file() for name in needed):
        print(f"skipped: no data sets in {args.data}")
        return
    files = {name: weight_file(name) for name in PRIORS}
    files |= {name: Path(given) for name, _, given in (pair.partition("=") for pair in args.prior)}
    if set(files) != set(PRIORS):
        parser.error(f"--prior: got {', '.join(set(files) - set(PRIORS))}, wants {PRIORS}")
    setting = {
        "images": args.images,
        "split": args.split,
        "priors": {name: f"{path.name} {sha256_file(path)[:12]}" for name, path in files.items()},
        "methods": {name: str(method) for name, method in METHODS.items()},
    }
    rows = kept(file, setting, args.fresh)
    loaded: dict[str, Any] = {}
    wanted = ["input", "TV", "TV best"]
    wanted += args.methods
    every = problems(args.data)
    for label, problem in every.items():
        if args.only and not any(part in label for part in args.only):
            continue
        entry = rows.setdefault(label, {"kind": problem.kind, "noise": problem.noise, "psnr": {}})
        todo = [name for name in wanted if name not in entry["psnr"]]
        tries = [] if args.no_search else [name for name in SEARCHED if name in args.methods]
        tries = [name for name in tries if name not in entry.get("search", {})]
        if not todo and not tries:
            continue
        if problem.prior not in loaded:
            loaded[problem.prior] = load_prior(files[problem.prior])
        x, prior = truth(problem, args.split, args.images, args.data), loaded[problem.prior]
        started = time.process_time()
        with torch.no_grad():
            m = problem.measured(x)
            for name in todo:
                if name == "TV best":
                    entry["weight of total variation"] = best_variation(m, x)
                    entry["psnr"][name] = entry["weight of total variation"]["psnr"]
                else:
                    entry["psnr"][name] = quality(row(name, m, prior), x)
            for name in tries:
                entry.setdefault("search", {})[name] = searched(name, m, x, prior)
        seconds = entry.get("cpu seconds", 0) + time.process_time() - started
        entry["cpu seconds"] = round(seconds, 1)
        print(label, entry["psnr"], f"{seconds:.0f} s", flush=True)
        rows = {name: rows[name] for name in every if name in rows}
        write(args.output, {**setting, **summary(rows), "problems": rows})
    table(rows)


if __name__ == "__main__":
    main()
