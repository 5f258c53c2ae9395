"""Blind deblurring of test photographs: image, kernel, spread, seconds, beside the known kernel.

    python benchmarks/blind.py --data DIR [--size 128] [--cases 8] [--noise 0.02]

Photographs of `natural_bsds500.zip` test, blurred periodically by kernels of `blur_kernels.npz`
(never trained on) and by generated ones, with white noise (of an image in [0, 1]). Image PSNR and
kernel correlation are those after the best shift by whole pixels; the mean of the chains of the
best mode is the estimate. `bound` is PnP-DM with the true kernel, the mean of as many draws.
"""

import argparse
import io
import json
import platform
import statistics
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import measurand as ms
from measurand.measurement import Unknowns
from measurand.metrics import interval_coverage
from measurand.operators import disk_kernel, gaussian_kernel, motion_kernel
from measurand.samplers.blind_summary import correlation

GENERATED = {
    "defocus 4": disk_kernel(4.0),
    "gaussian 2": gaussian_kernel(2.0),
    "motion 12": motion_kernel(12.0, 0.7),
}


def kernels(data: Path) -> dict[str, Tensor]:
    """The test kernels, Levin's first, generated ones in between."""
    stored = np.load(data / "blur_kernels.npz")
    names = [f"levin09_{i}" for i in (0, 3, 5)] + ["defocus 4", "kair12_1", "levin09_7"]
    names += ["motion 12", "levin09_2", "kair12_10", "levin09_4", "gaussian 2", "kair12_5"]
    return {n: GENERATED[n] if n in GENERATED else torch.tensor(stored[n]) for n in names}


def photograph(data: Path, number: int, size: int) -> Tensor:
    """The centre of a test photograph, (1, 3, size, size) in [-1, 1]."""
    with zipfile.ZipFile(data / "natural_bsds500.zip") as archive:
        names = sorted(n for n in archive.namelist() if "test" in n and n.endswith(".jpg"))
        image = Image.open(io.BytesIO(archive.read(names[number % len(names)]))).convert("RGB")
    a = np.asarray(image)
    top, left = ((n - size) // 2 for n in a.shape[:2])
    crop = torch.from_numpy(a[top : top + size, left : left + size].copy())
    return crop.permute(2, 0, 1)[None].float() / 127.5 - 1


def aligned(x: Tensor, truth: Tensor) -> Tensor:
    """An image moved by whole pixels to where it is like another most."""
    a, b = (torch.fft.rfft2(t - t.mean((-2, -1), keepdim=True)) for t in (x, truth))
    every = torch.fft.irfft2((a.conj() * b).sum((0, 1)), truth.shape[-2:])
    return x.roll(divmod(int(every.argmax()), truth.shape[-1]), (-2, -1))


def psnr(x: Tensor, truth: Tensor) -> float:
    return float(ms.psnr(aligned(x, truth), truth, data_range=2.0))


def one_case(x: Tensor, k: Tensor, sigma: float, chains: int, priors: tuple) -> dict:
    family = ms.operators.UnknownBlur(tuple(x.shape[1:]), side=64)
    theta = family.theta(k)
    noise = ms.noises.Gaussian(sigma=sigma)
    y = noise(family.at(theta)(x), torch.Generator().manual_seed(0))
    blind, true = ms.BlindMeasurement(family, noise, y), family.kernel(theta)
    row: dict = {"blurred": {"psnr": psnr(y, x)}}

    def scored(name: str, found: Unknowns, seconds: float) -> None:
        kernel = family.kernel(found.theta)
        row[name] = {
            "psnr": psnr(found.x, x),
            "kernel": correlation(true, kernel)[1],
            "misfit": float(blind.misfit(*found)),
            "cpu_seconds": seconds,
        }

    for name, method in (("blind-tv", ms.solvers.BlindTV()), ("edges", ms.solvers.BlindEdges())):
        started = time.process_time()
        found = method(blind)
        scored(name, found, time.process_time() - started)
    draws = ms.samplers.PnPDM.quick()(blind.at(theta).repeat(chains), priors[0])
    row["bound"] = {"psnr": psnr(draws.mean(0, keepdim=True), x)}
    for name, method in (("blind-pnpdm", ms.samplers.BlindPnPDM.quick()),):
        started = time.process_time()
        draws = method(blind.repeat(chains), *priors)
        seconds = time.process_time() - started
        result = ms.samplers.summary(blind, draws)[0]
        row[name] = {
            "psnr": psnr(result.x, x),
            "kernel": correlation(true, result.kernel)[1],
            "kernel of each chain": [
                correlation(true, one[None])[1] for one in family.kernel(draws.theta)
            ],
            "psnr of each chain": [psnr(one[None], x) for one in draws.x],
            "misfits": result.misfits,
            "modes": result.modes,
            "cpu_seconds": seconds,
            "network calls of a chain": method.nfe,
        }
        if result.sd is not None:
            moved, sd = aligned(result.x, x), result.sd  # the deviation moves with the mean
            n = len(result.modes[0])
            wide = sd * (1 + 1 / n) ** 0.5  # of a new draw around a mean of n
            row[name]["coverage of 90 %"] = float(interval_coverage(moved, wide, x, factor=1.645))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--noise", type=float, default=0.02, help="of an image in [0, 1]")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/blind.json"))
    options = parser.parse_args()
    priors = ms.load("natural-color"), ms.load("kernels-64")
    named, rows = list(kernels(options.data).items()), []
    for case in range(options.first, options.first + options.cases):
        name, k = named[case % len(named)]
        x = photograph(options.data, 3 + 5 * case, options.size)
        row = one_case(x, k, 2 * options.noise, options.chains, priors)
        rows.append({"photograph": 3 + 5 * case, "kernel": name, **row})
        print(json.dumps(rows[-1]), flush=True)
        record = {
            "command": "python benchmarks/blind.py",
            "size": options.size,
            "noise": options.noise,
            "chains": options.chains,
            "machine": f"{platform.processor() or platform.machine()}, one busy thread",
            "torch": torch.__version__,
            "summary": summarised(rows),
            "rows": rows,
        }
        options.out.write_text(json.dumps(record, indent=1) + "\n")


def summarised(rows: list[dict]) -> dict:
    """Mean PSNR and median kernel correlation of every method."""
    found = {}
    for name in (key for key in rows[0] if isinstance(rows[0][key], dict)):
        found[name] = {"mean psnr": statistics.mean(row[name]["psnr"] for row in rows)}
        if "kernel" in rows[0][name]:
            found[name]["median kernel"] = statistics.median(r[name]["kernel"] for r in rows)
    return found


if __name__ == "__main__":
    main()
