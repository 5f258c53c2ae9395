"""unfold-color on operators that it has never seen, against what else there is.

Protocol. Colour photographs of BSDS500 `test`, centre crops; for each kind of problem (`problems`)
image k has the operator and the noise of seed k, noise 0.04 relative to the operator's norm (0.02
of the value range). PSNR over all pixels and channels without clipping, and SSIM, averaged over
images; CPU seconds and network calls per image, one thread. Weight and first level of HQS and
ADMM, and the weight of TV, were chosen on four images of `val`, for each kind (`--search`): up
and down from the default as long as the PSNR grows, so that no choice lies at the edge of a grid.
These three know what unfold-color does not, which problem will come. `nfe` counts the images that
a network of the prior saw for one restored image: an evaluation of unfold-color has as many as it
has steps. Methods that draw are compared with each other in `draws.py`.
The rivals that are trained come from `unfolding_rivals.py`: `--runs` names their folder; rows of
those that are not there stay as they were.

    python benchmarks/unfolding.py --runs runs         writes results/unfolding.json
    python benchmarks/unfolding.py --search --images 4 writes results/unfolding_search.json
    python benchmarks/unfolding.py --noise 0.2 --images 8 --output unfolding_loud
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from deblurring import photographs
from machine import RESULTS, write
from torch import Tensor
from unfolding_rivals import DATA, UNSEEN, load_concatenated

from measurand.measurement import Measurement
from measurand.metrics import psnr, ssim
from measurand.priors import Counted, CountedPosterior
from measurand.priors.variation import TotalVariation
from measurand.problems import Denoising, GaussianBlurs, MissingPixels, Problems, drawn
from measurand.solvers import ADMM, FISTA, HQS, Annealed, PosteriorMean
from measurand.weights.store import load, load_prior

Restore = Callable[[Measurement, torch.Generator], Tensor]

SEEN: dict[str, Problems] = {
    "denoising": Denoising(),
    "Gaussian blur": GaussianBlurs(),
    "missing pixels": MissingPixels(),
}
KINDS = SEEN | UNSEEN
RIVALS: dict[str, dict[str, float]] = {  # where the search starts
    "HQS": {"weight": HQS().weight, "high": Annealed().high},
    "ADMM": {"weight": 0.5, "high": Annealed().high},
    "TV": {"weight": 10.0},
}
FACTORS = {"weight": 2**0.5, "high": 2.0}
HIGHEST = 0.8  # first level, as a share of the value range
LEAST = 0.01  # dB that a step of the search must gain


def rival(name: str, settings: dict[str, float], prior: Any, noise: float) -> Restore:
    """A method that knows the prior alone, with settings; little noise takes longer and lower."""
    if name == "TV":
        tv = TotalVariation(weight=settings["weight"], joint=True, tol=1e-3)
        steps = 100 if noise >= 0.02 else 800
        return lambda m, g: FISTA(steps=steps)(m, tv)
    kind = {"HQS": HQS, "ADMM": ADMM}[name]
    levels = Annealed(high=settings["high"], floor=min(Annealed().floor, noise / 2))
    solver = kind(weight=settings["weight"], levels=levels)
    return lambda m, g: solver(m, prior)


def quality(restore: Restore, kind: Problems, images: Tensor, noise: float) -> dict[str, Any]:
    """Mean PSNR, SSIM and CPU seconds, and the PSNR of each image."""
    values, similar, seconds = [], [], 0.0
    for k, x in enumerate(images.split(1)):
        generator = torch.Generator().manual_seed(k)
        measurement = drawn([kind], x, (noise, noise), generator)
        started = time.process_time()
        found = restore(measurement, generator)
        seconds += time.process_time() - started
        values.append(float(psnr(found, x, data_range=2.0)))
        similar.append(float(ssim(found, x, data_range=2.0)))
    n = len(values)
    return {
        "psnr": round(sum(values) / n, 2),
        "ssim": round(sum(similar) / n, 4),
        "cpu seconds per image": round(seconds / n, 2),
        "each": [round(v, 2) for v in values],
    }


def search(prior: Any, images: Tensor, kinds: list[str], noise: float) -> None:
    """The settings of each rival that are best on val, by kind; other kinds stay as they were."""
    file = RESULTS / "unfolding_search.json"
    rows = json.loads(file.read_text())["problems"] if file.is_file() else {}
    for label in kinds:
        for name in RIVALS:
            rows.setdefault(label, {})[name] = climbed(name, KINDS[label], prior, images, noise)
            print(label, name, rows[label][name]["best"], flush=True)
            write("unfolding_search", {"images": len(images), "problems": rows})


def climbed(name: str, kind: Problems, prior: Any, images: Tensor, noise: float) -> dict[str, Any]:
    """The best settings, one changed at a time as long as the PSNR grows, and all trials."""
    trials: list[dict[str, float]] = []

    def score(settings: dict[str, float]) -> float:
        for trial in trials:
            if all(trial[k] == v for k, v in settings.items()):
                return trial["psnr"]
        try:
            value = float(
                quality(rival(name, settings, prior, noise), kind, images, noise)["psnr"]
            )
        except FloatingPointError:
            value = -math.inf
        trials.append({**settings, "psnr": value})
        return value

    best, before = RIVALS[name], -math.inf
    while score(best) > before + LEAST:  # until a round over all settings gains nothing
        before = score(best)
        for knob in best:
            for factor in (FACTORS[knob], 1 / FACTORS[knob]):
                while score(new := moved(best, knob, factor)) > score(best) + LEAST:
                    best = new
    return {"best": best, "psnr": score(best), "trials": trials}


def moved(settings: dict[str, float], knob: str, factor: float) -> dict[str, float]:
    value = float(f"{settings[knob] * factor:.3g}")
    return {**settings, knob: min(value, HIGHEST) if knob == "high" else value}


def chosen(label: str, name: str) -> dict[str, float]:
    """The best settings of a method on val."""
    found = json.loads((RESULTS / "unfolding_search.json").read_text())["problems"]
    best: dict[str, float] = found[label][name]["best"]
    return best


def methods(label: str, prior: Any, network: Any, args: argparse.Namespace) -> dict[str, Any]:
    """Everything that is compared on a kind of problem: (restore, what counts its calls)."""
    runs, counted = args.runs, partial(Counted, prior)
    found: dict[str, Any] = {}
    for depth in (network.depth, *args.depths):
        name = "unfold-color" if depth == network.depth else f"unfold-color, {depth} steps"
        other = network if depth == network.depth else network.with_depth(depth)
        own = CountedPosterior(other)
        found[name] = (posterior_mean(own), own)
    if runs is not None:
        concatenated = runs / "concatenated" / "concatenated-0.05.safetensors"
        if concatenated.is_file():
            other = CountedPosterior(load_concatenated(concatenated))
            found["concatenated"] = (posterior_mean(other), other)
        name = "oracle-" + label.replace(" ", "-")
        oracle = runs / name / f"{name}-0.05.safetensors"
        if oracle.is_file():
            other = CountedPosterior(load(oracle))
            found["oracle"] = (posterior_mean(other), other)
    for name in RIVALS:
        count = counted()
        found[name] = (rival(name, chosen(label, name), count, args.noise), count)
    return found


def posterior_mean(network: Any) -> Restore:
    return lambda m, g: PosteriorMean()(m, network, generator=g)


def evaluate(prior: Any, network: Any, images: Tensor, args: argparse.Namespace) -> None:
    setting = {
        "network": args.network,
        "prior": args.prior,
        "side": args.side,
        "noise": args.noise,
        "images": len(images),
    }
    rows: list[dict[str, Any]] = []
    file = RESULTS / f"{args.output}.json"
    if file.is_file():
        old = json.loads(file.read_text())
        same = all(old.get(k) == v for k, v in setting.items())
        if args.methods and not same:
            raise SystemExit(f"{file}: holds rows of another setting; name another --output")
        rows = old["rows"] if same else []
    for label in args.kinds:
        for name, (restore, count) in methods(label, prior, network, args).items():
            if args.methods and name not in args.methods:
                continue
            before = count.items
            row = {"problem": label, "seen": label in SEEN, "method": name}
            row |= quality(restore, KINDS[label], images, args.noise)
            row["nfe"] = round((count.items - before) / len(images))
            if isinstance(count, CountedPosterior):
                row["nfe"] *= count.prior.depth
                row["patches"] = count.prior.card.get("patches")  # of the training
            rows = [r for r in rows if (r["problem"], r["method"]) != (label, name)] + [row]
            print({k: v for k, v in row.items() if k != "each"}, flush=True)
            write(args.output, setting | {"rows": rows})
    content = setting | {"unseen problems": unseen(rows), "rows": rows}
    print(content["unseen problems"])
    print(write(args.output, content))


def unseen(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Mean PSNR of the methods that met all unseen problems, and how far unfold-color is above.

    Differences are taken image by image, each a mean over the four problems; beside their mean its
    standard error.
    """
    each: dict[str, list[list[float]]] = {}
    for row in rows:
        if not row["seen"]:
            each.setdefault(row["method"], []).append(row["each"])
    means = {k: torch.tensor(v).mean(0) for k, v in each.items() if len(v) == len(UNSEEN)}
    found: dict[str, dict[str, float]] = {}
    for name, values in means.items():
        found[name] = {"psnr": round(float(values.mean()), 2)}
        if "unfold-color" in means and name != "unfold-color":
            lead = means["unfold-color"] - values
            found[name]["unfold-color is above by"] = round(float(lead.mean()), 3)
            found[name]["standard error"] = round(float(lead.std()) / len(lead) ** 0.5, 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--network", default="unfold-color", help="name or .safetensors file")
    parser.add_argument("--prior", default="natural-color", help="name or .safetensors file")
    parser.add_argument("--runs", type=Path, help="folder of unfolding_rivals.py")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--side", type=int, default=128, help="of the centre crops, in pixels")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--methods", nargs="+", help="only these")
    parser.add_argument("--noise", type=float, default=0.04, help="relative to the norm of A")
    parser.add_argument("--depths", type=int, nargs="*", default=[24], help="more step numbers")
    parser.add_argument("--search", action="store_true", help="settings of the rivals on val")
    parser.add_argument("--output", default="unfolding", help="name of the results file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not (args.data / "natural_bsds500.zip").is_file():
        print(f"skipped: no data sets in {args.data}")
        return
    part = "val" if args.search else "test"
    images = photographs(part, args.images, args.data)
    cut = (images.shape[-1] - args.side) // 2
    images = images[..., cut : cut + args.side, cut : cut + args.side]
    prior = load_prior(args.prior)
    with torch.no_grad():
        if args.search:
            search(prior, images, args.kinds, args.noise)
        else:
            evaluate(prior, load(args.network), images, args)


if __name__ == "__main__":
    main()
