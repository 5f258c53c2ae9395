"""RELD with `latent-color` beside HQS, DiffPIR and total variation; cost; seams.

Protocol. Colour photographs of BSDS500 `test`, the first N by file name, centre crop of 256 x 256;
white noise of 2.55/255 of the value range (denoising: 25/255), image k with
`torch.Generator().manual_seed(k)`. PSNR and SSIM over all pixels and channels, averaged over
images; of RELD both outputs, t and D(v). Settings are the defaults; those of RELD were chosen on
three crops of `val`. LPIPS needs a weights file and is left out where there is none.

    python benchmarks/latent.py --images 24                   quality, writes results/latent.json
    python benchmarks/latent.py --cost                        adds seconds, memory and seams
    python benchmarks/latent.py --prior FILE.safetensors --images 4
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from deblurring import DATA, kernels, photographs
from machine import RESULTS, alternating, ratio, write
from torch import Tensor

from measurand.measurement import Measurement
from measurand.metrics import lpips, psnr, ssim
from measurand.noises import Gaussian
from measurand.operators import BicubicDownsample, Blur, GaussianBlur, Identity, LinearOperator
from measurand.priors.variation import TotalVariation
from measurand.samplers import DiffPIR
from measurand.solvers import FISTA, HQS, RELD, EncodedRELD
from measurand.tensors import generators
from measurand.weights.store import load

SHAPE = (3, 256, 256)
SIZES = (256, 512, 1024)


def problems(data: Path) -> dict[str, tuple[LinearOperator, float]]:
    """The operators, each with its noise in images of [-1, 1]."""
    low = 2 * 2.55 / 255
    return {
        "denoising 25": (Identity(SHAPE), 2 * 25 / 255),
        "Gaussian blur 1.6": (GaussianBlur(SHAPE, sigma=1.6), low),
        "motion blur": (Blur(SHAPE, kernels(data)["levin09_0"]), low),
        "super-resolution x 2": (BicubicDownsample(SHAPE, 2), low),
        "super-resolution x 4": (BicubicDownsample(SHAPE, 4), low),
    }


def methods(prior: Any, pixel: Any) -> dict[str, Callable[[Measurement, Any], Tensor]]:
    """What is compared, each called with a measurement and a callback."""

    def variation(m: Measurement, callback: Any) -> Tensor:
        weight = 0.1 / float(m.sigma)
        return FISTA(steps=100)(m, TotalVariation(weight=weight, joint=True, tol=1e-3))

    def of(method: Any, used: Any) -> Callable[[Measurement, Any], Tensor]:
        return lambda m, callback: method(m, used, callback=callback)

    return {
        "RELD": of(RELD(), prior),
        "encoded RELD": of(EncodedRELD(), prior),
        "HQS": of(HQS(), pixel),
        "DiffPIR, 20 steps": of(DiffPIR(steps=20), pixel),
        "total variation": variation,
    }


def scores(estimate: Tensor, x: Tensor, weights: Path | None) -> dict[str, float]:
    """PSNR, SSIM and where there are weights LPIPS, in means."""
    found = {
        "psnr": float(psnr(estimate, x, data_range=2.0).mean()),
        "ssim": float(ssim(estimate, x, data_range=2.0).mean()),
    }
    if weights is not None:
        found["lpips"] = float(lpips(estimate.clamp(-1, 1), x, weights=weights).mean())
    return {name: round(value, 4) for name, value in found.items()}


def quality(prior: Any, pixel: Any, images: int, data: Path, weights: Path | None) -> Any:
    """Scores by problem and method, and CPU seconds of an image."""
    x = photographs("test", images, data)
    ceiling = torch.cat([prior.ceiling(one) for one in x.split(1)])
    table: dict[str, Any] = {}
    for name, (operator, sigma) in problems(data).items():
        noise = Gaussian(sigma)
        y = noise(operator(x), [torch.Generator().manual_seed(k) for k in range(images)])
        table[name] = {}
        for label, method in methods(prior, pixel).items():
            outputs: dict[str, list[Tensor]] = {"t": [], "D(v)": []}
            start = time.process_time()
            for k in range(images):
                last: list[Any] = []
                m = Measurement(operator, noise, y[k : k + 1])
                outputs["t"].append(
                    method(m, lambda step, kept=last: kept.__setitem__(slice(None), [step]))
                )
                if "RELD" in label:
                    outputs["D(v)"].append(last[0].x0)
            seconds = (time.process_time() - start) / images
            row: dict[str, Any] = {
                out: scores(torch.cat(found), x, weights)
                for out, found in outputs.items()
                if found
            }
            table[name][label] = row["t"] | {"seconds": round(seconds, 2)}
            if "D(v)" in row:
                table[name][label]["D(v)"] = row["D(v)"]
            print(name, label, table[name][label], flush=True)
    return {"ceiling": round(float(ceiling.mean()), 3), "images": images, "problems": table}


def cost(prior_name: str, pixel_name: str) -> dict[str, Any]:
    """CPU seconds of one step, ratios, peak memory, and the parts of a step."""
    prior, pixel, found = load(prior_name), load(pixel_name), {}
    for size in SIZES:
        operator = GaussianBlur((3, size, size), sigma=1.6)
        noise = Gaussian(0.02)
        x = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
        m = Measurement(operator, noise, noise(operator(x), generators(0, 1)))
        z = prior.encode(x)
        steps = 4  # of each: the start of RELD counts once
        calls = {
            "HQS": partial(HQS(steps=steps), m, pixel),
            "RELD": partial(RELD(steps=steps), m, prior),
            "encoded RELD": partial(EncodedRELD(steps=steps), m, prior),
            "decode": partial(prior.decode, z),
            "encode": partial(prior.encode, x),
            "denoise a code": partial(prior.denoise_code, z, 0.1),
            "denoise an image": partial(pixel.denoise, x, 0.1),
        }
        with torch.no_grad():
            times = alternating(calls, rounds=2 if size > 512 else 3)
        row: dict[str, Any] = {name: round(min(values), 3) for name, values in times.items()}
        for name in ("RELD", "encoded RELD"):
            row[f"HQS / {name}"] = ratio(times["HQS"], times[name])
        row["peak MB"] = {
            name: peak(name, size, prior_name, pixel_name) for name in ("HQS", "RELD")
        }
        found[str(size)] = row
        print(size, row, flush=True)
    return found


def peak(name: str, size: int, prior_name: str, pixel_name: str) -> int:
    """Peak resident memory of a process that makes two steps, above one that does nothing, MB."""
    script = Path(__file__).resolve()
    words = [sys.executable, str(script), "--prior", prior_name, "--pixel", pixel_name]
    used = [
        int(subprocess.check_output([*words, "--two-steps", what, "--size", str(size)]))
        for what in (name, "nothing")
    ]
    return used[0] - used[1]


def two_steps(name: str, size: int, prior_name: str, pixel_name: str) -> int:
    """Peak resident memory of this process after two steps of a method, in MB."""
    prior, pixel = load(prior_name), load(pixel_name)
    operator, noise = GaussianBlur((3, size, size), sigma=1.6), Gaussian(0.02)
    m = Measurement(operator, noise, torch.zeros(1, 3, size, size))
    if name == "HQS":
        HQS(steps=2)(m, pixel)
    if name == "RELD":
        RELD(steps=2)(m, prior)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@torch.no_grad()
def seams(prior: Any, data: Path) -> dict[str, float]:
    """Largest difference of an image of 768 pixels decoded in parts and in one piece, float32."""
    autoencoder = prior.autoencoder.float()
    x = photographs("test", 9, data).reshape(3, 3, 3, 256, 256).permute(2, 0, 3, 1, 4)
    z = autoencoder.encode(x.reshape(1, 3, 768, 768))
    parts, tile = autoencoder.decode(z), autoencoder.tile
    autoencoder.tile = 1 << 20
    whole = autoencoder.decode(z)
    autoencoder.tile = tile
    return {"largest difference": float((parts - whole).abs().max()), "tile": tile}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prior", default="latent-color")
    parser.add_argument("--pixel", default="natural-color")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--lpips", type=Path)
    parser.add_argument("--cost", action="store_true")
    parser.add_argument("--two-steps", default="")
    parser.add_argument("--size", type=int, default=256)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.two_steps:
        print(two_steps(args.two_steps, args.size, args.prior, args.pixel))
        return
    prior, pixel = load(args.prior), load(args.pixel)
    file = RESULTS / "latent.json"
    kept = json.loads(file.read_text()) if file.is_file() else {}
    kept.pop("machine", None)
    kept["prior"] = Path(args.prior).stem
    if args.cost:
        kept["seams"] = seams(load(args.prior, dtype=torch.float32), args.data)
        kept["cost"] = cost(args.prior, args.pixel)
    else:
        kept["quality"] = quality(prior, pixel, args.images, args.data, args.lpips)
    print(write("latent", kept))


if __name__ == "__main__":
    main()
