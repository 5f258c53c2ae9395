"""What weights lose in 8 bits (`weights.quantized`): quality, calibration and size by file.

    python benchmarks/quantization.py                    all that ship, eight images each
    python benchmarks/quantization.py natural-color      some, by name
    python benchmarks/quantization.py new.safetensors --as natural-color --every 1

The weights as they are stored now are compared with the same weights in 8 bits, on the same
images with the same noise: for priors those of their cards (`priors.py`), PSNR of denoised images
by noise level and calibration, with the gains of the card and with gains fitted again; for
unfolded networks the PSNR of restored images by kind of problem; for flows bits per dimension and
the error of inverse(forward(x)). Arithmetic is float32 unless `--bfloat16`. Test images have
`--side` pixels at most.

Gains are fitted on images of val. On a few images a gain is known to about a percent, which is
more than 8 bits change it by, so what is fitted is the change: 1 + g of the card is multiplied by
the quotient of both fits on the same images with the same noise, in which this error cancels.

Writes results/quantization.json after each file. Files that are there with the same settings and
content are not measured again. `--16 WORDS` keeps tensors whose name has one of the words as they
are, to see what costs how much, and only prints.
"""

import argparse
import hashlib
import json
import tempfile
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from flows import furthest
from flows_rivals import TASKS
from machine import RESULTS, write
from priors import DATA, TEST, unseen
from torch import Tensor
from unfolding import KINDS, posterior_mean
from unfolding_brain import KINDS as KINDS_BRAIN

from measurand import recipes
from measurand.domains.material import generator_of
from measurand.priors.edm import OCTAVES, EDMDenoiser, fitted_gains
from measurand.priors.flow import bits_of, dequantization
from measurand.priors.trained import Trained
from measurand.problems import Problems
from measurand.recipes import UnfoldedFlowRecipe
from measurand.training.quality import (
    LEVELS,
    SIGMAS,
    calibration,
    denoising_psnr,
    restoration_psnr,
)
from measurand.weights.quantized import dequantize, quantize
from measurand.weights.store import known_weights, load, weight_file
from measurand.weights.tensorfile import load_tensors, save_tensors

Variants = dict[str, Any]


def sizes(tensors: dict[str, Tensor], card: dict[str, Any]) -> dict[str, float]:
    """Megabytes of a file, and of it in a wheel."""
    with tempfile.TemporaryDirectory() as folder:
        path, wheel = Path(folder) / "x.safetensors", Path(folder) / "x.whl"
        save_tensors(path, tensors, {k: v for k, v in card.items() if k != "tensors"})
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(path)
        return {
            "file": round(path.stat().st_size / 1e6, 3),
            "wheel": round(wheel.stat().st_size / 1e6, 3),
        }


def some(images: list[Tensor], args: argparse.Namespace) -> list[Tensor]:
    """Images spread over a list, their centres."""
    chosen = images if args.every else images[:: max(1, len(images) // args.images)][: args.images]
    parts = []
    for x in chosen[:: args.every]:
        top, left = (max(0, (n - args.side) // 2) for n in x.shape[-2:])
        parts.append(x[..., top : top + args.side, left : left + args.side])
    return parts


def of_val(name: str, args: argparse.Namespace) -> list[Tensor]:
    """Batches of images of a prior's domain from val."""
    domain = next(r.domain for r in vars(recipes).values() if getattr(r, "name", "") == name)
    if name not in TEST:
        images = list(domain.scaled(domain.draw(args.fit, generator_of(978, 0, "cpu"))).split(1))
    else:
        file, under, _ = TEST[name]
        images = domain.look(DATA / file.replace("test", "val"), under.replace("test", "val"))
        images = images[:: max(1, len(images) // args.fit)][: args.fit]
    side = min(96, *(min(x.shape[-2:]) for x in images))
    tops = [((x.shape[-2] - side) // 2, (x.shape[-1] - side) // 2) for x in images]
    parts = [x[..., i : i + side, j : j + side] for x, (i, j) in zip(images, tops, strict=True)]
    return list(torch.cat(parts).split(8))


def fitted_again(stored: EDMDenoiser, coded: EDMDenoiser, images: list[Tensor]) -> list[float]:
    """The gains of a prior in 8 bits, from those of the same prior as it is stored."""
    gains = stored.gains or [0.0] * len(OCTAVES)
    pairs = zip(fitted_gains(stored, images), fitted_gains(coded, images), gains, strict=True)
    return [(1 + g) * (1 + after) / (1 + before) - 1 for before, after, g in pairs]


def denoising(name: str, variants: Variants, args: argparse.Namespace) -> dict[str, Any]:
    """PSNR by noise level, and calibration, of a prior."""
    images, row = some(unseen(name), args), {}
    names = list(variants)
    if args.fit:
        gains = fitted_again(*variants.values(), of_val(name, args))
        names.append("8 bits, gains fitted")
    for label in names:
        prior = variants.get(label, variants["8 bits"])
        if label == "8 bits, gains fitted":
            prior.gains = tuple(gains)
        row[label] = {
            "psnr": denoising_psnr(prior, images, levels=args.levels),
            "calibration": calibration(prior, images, sigmas=args.sigmas),
        }
    return {"images": len(images), "results": row}


def restoring(
    restore: Callable[[Any], Any], kinds: dict[str, Problems], sigma: float
) -> Callable[[str, Variants, argparse.Namespace], dict[str, Any]]:
    """What measures the PSNR of restored images by kind of problem."""

    def measure(name: str, variants: Variants, args: argparse.Namespace) -> dict[str, Any]:
        of = "mri-brain" if name == "unfold-brain" else "natural-color"
        images, row = some(unseen(of), args), {}
        for label, network in variants.items():
            psnr = {}
            for kind, mix in kinds.items():
                level = (sigma, sigma)
                (psnr[kind],) = restoration_psnr(
                    restore(network), [mix], images, sigma=level
                ).values()
            row[label] = {"psnr": psnr}
        return {"images": len(images), "results": row}

    return measure


def through_flows(
    task: str, recipe: UnfoldedFlowRecipe
) -> Callable[[str, Variants, argparse.Namespace], dict[str, Any]]:
    """What measures the PSNR of restored images, and how exact the inverse of each flow is."""
    sigma = (recipe.sigma_y[0] * recipe.sigma_y[1]) ** 0.5
    restored = restoring(lambda network: lambda m, g: network(m), {task: recipe.kind}, sigma)

    def measure(name: str, variants: Variants, args: argparse.Namespace) -> dict[str, Any]:
        found = restored(name, variants, args)
        x = torch.cat(some(unseen("natural-color"), args))
        for label, network in variants.items():
            error = max(furthest(prior, x) for prior in network.priors)
            found["results"][label]["largest error of the inverse"] = error
        return found

    return measure


def density(name: str, variants: Variants, args: argparse.Namespace) -> dict[str, Any]:
    """Bits per dimension of a flow, and how exact its inverse is."""
    x = torch.cat(some(unseen("natural-color"), args))
    noisy = x + 0.4 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    row = {
        label: {
            "bits per dimension": float(bits_of(prior, x + dequantization(x)).mean()),
            "largest error of the inverse": furthest(prior, x),
            "the same, noisy images": furthest(prior, noisy),
        }
        for label, prior in variants.items()
    }
    return {"images": len(x), "results": row}


MEASURES: dict[str, Callable[[str, Variants, argparse.Namespace], dict[str, Any]]] = {
    "unfold-color": restoring(posterior_mean, KINDS, 0.04),
    "unfold-brain": restoring(posterior_mean, KINDS_BRAIN, 0.01),
    "flow-color": density,
} | {f"flow-{task}": through_flows(task, recipe) for task, recipe in TASKS.items()}


def measured(file: str, name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Everything about a file."""
    path = weight_file(file)
    tensors, card = load_tensors(path)
    if "storage" in card:
        raise SystemExit(f"{path}: is in 8 bits already, compare it with what it was made of")
    dtype = torch.bfloat16 if args.bfloat16 else torch.float32
    variants = {label: load(file, dtype=dtype) for label in ("stored", "8 bits")}
    changed: Trained = variants["8 bits"]
    names = {
        k
        for k, x in tensors.items()
        if changed.coded(k, x) and not any(w in k for w in args.whole)
    }
    coded = quantize(tensors, names)
    weights = dequantize(coded)
    changed.weights.load_state_dict(weights)
    pairs = [(tensors[k].double(), weights[k].double()) for k in names]
    error = sum(float((a - b).square().sum()) for a, b in pairs)
    return {
        "share of the weights in 8 bits": share(names, tensors),
        "relative error of these": (error / sum(float(a.square().sum()) for a, _ in pairs)) ** 0.5,
        "megabytes, stored": sizes(tensors, card),
        "megabytes, 8 bits": sizes(coded, {**card, "storage": "int8/32"}),
        **MEASURES.get(name, denoising)(name, variants, args),
    }


def share(names: Collection[str], tensors: dict[str, Tensor]) -> float:
    every = sum(x.numel() for x in tensors.values())
    return round(sum(tensors[k].numel() for k in names) / every, 4)


def changes(row: dict[str, Any]) -> dict[str, Any]:
    """What a table wants: the largest loss, and where calibration ends."""
    stored, found = row["results"]["stored"], {}
    for label, other in row["results"].items():
        if label == "stored":
            continue
        found[label] = {}
        if "psnr" in other:
            pairs = ((k, other["psnr"][k] - v) for k, v in stored["psnr"].items())
            found[label]["psnr"] = {k: round(v, 4) for k, v in pairs}
        for key in set(other) - {"psnr", "calibration"}:
            found[label][key] = [stored[key], other[key]]
        if "calibration" in other:
            values = other["calibration"].values()
            found[label]["calibration"] = [round(min(values), 3), round(max(values), 3)]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("files", nargs="*", help="names or weight files; all that ship when none")
    parser.add_argument("--as", dest="name", help="whose data; the file's own name when absent")
    parser.add_argument("--images", type=int, default=8, help="test images of each")
    parser.add_argument("--every", type=int, help="every n-th image of the card instead; 1 is all")
    parser.add_argument("--side", type=int, default=128, help="their height and width at most")
    parser.add_argument("--fit", type=int, default=16, help="images of the gains; 0 fits none")
    parser.add_argument("--levels", type=float, nargs="+", default=LEVELS)
    parser.add_argument("--sigmas", type=float, nargs="+", default=SIGMAS)
    parser.add_argument("--bfloat16", action="store_true", help="arithmetic of denoisers")
    parser.add_argument("--16", dest="whole", nargs="+", default=[], metavar="WORDS")
    parser.add_argument("--output", default="quantization", help="name of the results file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    newest = {k.rpartition("@")[0]: k for k in known_weights()}
    settings = {k: v for k, v in vars(args).items() if k not in ("files", "name", "output")}
    output = RESULTS / f"{args.output}.json"
    rows = json.loads(output.read_text())["files"] if output.is_file() else {}
    for file in args.files or newest.values():
        file = newest.get(file, file)
        path = weight_file(file)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        known = {"settings": settings, "sha256": digest}
        if all(rows.get(path.stem, {}).get(k) == v for k, v in known.items()):
            print(path.stem, "is there already")
            continue
        row = measured(file, args.name or path.stem.split("@")[0], args)
        print(path.stem, json.dumps(row | {"changes": changes(row)}, indent=1), flush=True)
        if not args.whole:
            rows[path.stem] = known | row | {"changes": changes(row)}
            write(args.output, {"files": rows})


if __name__ == "__main__":
    main()
