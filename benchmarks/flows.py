"""Unfolded networks of flows against other learned steps, on images of two kinds.

    python benchmarks/flows.py --runs runs     writes results/flows.json

Three problems (noise, half of the pixels missing, blur with noise), photographs of 64 x 64 pixels.
In distribution: BSDS500 `test`. Out of distribution: CT slices of other patients, as grey images
in three equal channels. Compared are what ships ("retrained": copies of flow-color, trained end to
end), the rivals of `flows_rivals.py`, whose rows stay as they were where they are not in `--runs`,
total variation, whose weight was chosen on val, the first guess that all start from, and what
ships for the other two problems. Flows other than scratch have seen many more patches before, in
the training of flow-color by likelihood; what training and restoring took stands in each row.

Of the flows also: how well log p of the restored image tells one set from the other (AUROC), and
how well its distance from the mean over restored photographs of val does; the moments of the
latents of dequantised photographs; and how far inverse(forward(x)) is from x in float32, for
photographs as they are and with noise of 0.4, in each fold.
"""

import argparse
import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from deblurring import photographs
from flows_rivals import RIVALS, SIDE, TASKS, cut, seconds_of, trained
from machine import RESULTS, write
from torch import Tensor
from unfolding_rivals import DATA, PHOTOGRAPHS

from measurand.domains import Body
from measurand.measurement import Measurement
from measurand.metrics import psnr, ssim
from measurand.priors.flow import bits_per_dim, dequantization, latent_moments
from measurand.priors.variation import TotalVariation
from measurand.problems import Problems, drawn
from measurand.solvers import FISTA
from measurand.start import first_guess
from measurand.unfolded import FlowProximal
from measurand.weights.store import load

TV_WEIGHTS = (1.0, 2.5, 5.0, 10.0, 20.0)


def posed(kind: Problems, sigma: tuple[float, float], images: Tensor) -> list[Measurement]:
    level = (sigma[0] * sigma[1]) ** 0.5
    return [
        drawn([kind], x, (level, level), torch.Generator().manual_seed(k))
        for k, x in enumerate(images.split(1))
    ]


def total_variation(weight: float, m: Measurement) -> Tensor:
    return FISTA(steps=100)(m, TotalVariation(weight=weight, joint=True, tol=1e-3))


def quality(
    restore: Any, problems: list[Measurement], images: Tensor
) -> tuple[float, float, Tensor]:
    found = torch.cat([restore(m) for m in problems])
    one = float(psnr(found, images, data_range=2.0).mean())
    return round(one, 2), round(float(ssim(found, images, data_range=2.0).mean()), 4), found


def auroc(usual: Tensor, other: Tensor) -> float:
    """How often a score of the one set is above one of the other."""
    return round(float((usual[:, None] > other).float().mean()), 3)


def slices(data: Path, n: int) -> Tensor:
    """Central pieces of CT slices of the test patients, in three equal channels."""
    every = Body().look(Path(f"{data}/ct_test.npz:hu"))
    chosen: Sequence[Tensor] = every[:: max(1, len(every) // n)][:n]
    return torch.cat([cut(x) for x in chosen]).expand(-1, 3, -1, -1).contiguous()


def furthest(prior: Any, x: Tensor) -> float:
    """The largest difference of inverse(forward(x)) and x."""
    latents, _ = prior.flow(x)
    return float(f"{float((prior.flow.inverse(latents) - x).abs().max()):.2g}")


def density(network: FlowProximal, inside: Tensor, images: dict[str, Tensor]) -> dict[str, Any]:
    """What the flows of a network know of images, restored ones of val among them, and are."""
    n = inside[0].numel()
    bits = {k: bits_per_dim(network.log_prob(x), n) for k, x in images.items()}
    away = {k: (b - bits["val"].mean()).abs() for k, b in bits.items()}
    x = inside + dequantization(inside)  # what the flow is a density of
    noisy = inside + 0.4 * torch.randn(inside.shape, generator=torch.Generator().manual_seed(0))
    flows: Sequence[Any] = list(network.priors)
    moments = [latent_moments(prior, x) for prior in flows]
    return {
        "bits, photographs": round(float(bits["photographs"].mean()), 2),
        "bits, CT": round(float(bits["CT"].mean()), 2),
        "auroc of log p": auroc(-bits["photographs"], -bits["CT"]),
        "auroc of the distance": auroc(away["CT"], away["photographs"]),
        "energy of the latents": [round(float(m.energy.mean()), 2) for m in moments],
        "kurtosis of the latents": [round(m.kurtosis, 2) for m in moments],
        "largest error of the inverse": [furthest(prior, inside) for prior in flows],
        "the same, noisy images": [furthest(prior, noisy) for prior in flows],
    }


def compared(task: str, runs: Path | None) -> dict[str, Any]:
    """What is compared on a task beside total variation, by name."""
    found: dict[str, Any] = {"first guess": first_guess}
    found["retrained"] = load(f"flow-{task}", FlowProximal)
    for other in TASKS.keys() - {task}:
        found[f"flow-{other}"] = load(f"flow-{other}", FlowProximal)
    for rival in RIVALS if runs is not None else ():
        if (network := trained(task, rival, runs)) is not None:
            found[rival] = network
    return found


def evaluate(args: argparse.Namespace) -> None:
    sets = {
        "photographs": cut(photographs("test", args.images, args.data)),
        "CT": slices(args.data, args.images),
        "val": cut(photographs("val", args.images, args.data)),
    }
    setting = {"images": args.images, "side": SIDE}
    file, rows = RESULTS / "flows.json", []
    if file.is_file():
        old = json.loads(file.read_text())
        rows = old["rows"] if all(old[k] == v for k, v in setting.items()) else []
    for task, recipe in TASKS.items():
        asked = {k: posed(recipe.kind, recipe.sigma_y, x) for k, x in sets.items()}
        methods, weight = compared(task, args.runs), 0.0
        if not args.methods or "TV" in args.methods:
            on_val = partial(quality, problems=asked["val"], images=sets["val"])
            weight = max(TV_WEIGHTS, key=lambda w: on_val(partial(total_variation, w))[0])
            methods["TV"] = partial(total_variation, weight)
        for name, restore in methods.items():
            if args.methods and name not in args.methods:
                continue
            row: dict[str, Any] = {"task": task, "method": name}
            if name == "TV":
                row["weight"] = weight
            elif name != "first guess":
                row["weights"] = sum(p.numel() for p in restore.parameters())
                row["patches"] = restore.card.get("patches")
                row["seconds of training"] = seconds_of(
                    args.runs, f"{task}-{name.replace(' ', '-')}"
                )
            images, started = {}, time.process_time()
            for label, x in sets.items():
                row[f"psnr, {label}"], row[f"ssim, {label}"], images[label] = quality(
                    restore, asked[label], x
                )
            n = sum(map(len, sets.values()))
            row["cpu ms per image"] = round(1e3 * (time.process_time() - started) / n, 1)
            row["drop"] = round(row["psnr, photographs"] - row["psnr, CT"], 2)
            if isinstance(restore, FlowProximal):
                row |= density(restore, sets["photographs"], images)
            rows = [r for r in rows if (r["task"], r["method"]) != (task, name)] + [row]
            print(row, flush=True)
            write("flows", setting | {"rows": rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=Path, help="folder of the trained rivals")
    parser.add_argument("--methods", nargs="+", help="only these; other rows stay")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if not (args.data / PHOTOGRAPHS[1]).is_file():
        print(f"skipped: no data sets in {args.data}")
        return
    with torch.no_grad():
        evaluate(args)


if __name__ == "__main__":
    main()
