"""Blind deblurring of test photographs: image, kernel, spread, seconds, beside the known kernel.

    python benchmarks/blind.py --data DIR [--cases 48] [--minutes 60] [--dps-every 4]

24 photographs of `natural_bsds500.zip` test, each at 128 and 256 pixels, blurred periodically by
kernels of `blur_kernels.npz` (never trained on; levin09_1, levin09_6, kair12_2 and kair12_11 are
left out, settings may be chosen by them) and by generated ones, with white noise of
0.01, 0.02 and 0.05 (of an image in [0, 1]). Cases are ordered so that the first few are of both
sizes, all noises and many kernels. The file is written after each case; a rerun goes on with those
that it lacks.

Image PSNR and kernel correlation are those after the best shift, which may be a part of a pixel:
no data can tell it. `bound` is HQS with the true kernel, `wrong kernel` HQS with a Gaussian of
three pixels, `edges + HQS` HQS with the kernel of `BlindEdges`: the classical estimate with the
same image prior. BlindDPS, one draw with its default settings, runs on every n-th case.
"""

import argparse
import io
import json
import os
import platform
import statistics
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

import measurand as ms
from measurand.blind import Unknowns
from measurand.metrics import interval_coverage
from measurand.operators import disk_kernel, gaussian_kernel, motion_kernel
from measurand.registration import moved, registered

AROUND = (-2, -1, 0, 1, 2)
METHOD, SOLVER = ms.samplers.BlindPnPDM.quick(), ms.solvers.HQS()
NOISES, SIZES, PHOTOGRAPHS = (0.02, 0.01, 0.05), (128, 256), 24
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


def psnr(x: Tensor, truth: Tensor) -> float:
    return float(ms.psnr(registered(x, truth, periodic=True)[0], truth, data_range=2.0))


def likeness(kernel: Tensor, true: Tensor) -> float:
    """The correlation <a, b> / (||a|| ||b||) of two kernels (1, 1, h, w) at the best shift."""
    a, b = (functional.pad(k, (0, k.shape[-1], 0, k.shape[-2])) for k in (kernel, true))
    every = torch.fft.irfft2(torch.fft.rfft2(a).conj() * torch.fft.rfft2(b), a.shape[-2:])
    best = tuple(map(float, divmod(int(every.argmax()), a.shape[-1])))
    near = [(best[0] + i / 8, best[1] + j / 8) for i in AROUND for j in AROUND]
    near += [(best[0] + i / 4, best[1] + j / 4) for i in AROUND for j in AROUND]
    return max(
        float((moved(a, *d, periodic=True) * b).sum() / (a.norm() * b.norm())) for d in near
    )


def one_case(x: Tensor, k: Tensor, sigma: float, chains: int, priors: tuple, dps: bool) -> dict:
    family = ms.operators.UnknownBlur(tuple(x.shape[1:]), side=64)
    theta = family.theta(k)
    noise = ms.noises.Gaussian(sigma=sigma)
    y = noise(family.at(theta)(x), torch.Generator().manual_seed(0))
    blind, true = ms.BlindMeasurement(family, noise, y), family.kernel(theta)
    row: dict = {"blurred": {"psnr": psnr(y, x)}}

    def scored(name: str, found: Unknowns, started: tuple[float, float]) -> None:
        row[name] = {
            "psnr": psnr(found.x, x),
            "kernel": likeness(family.kernel(found.theta), true),
            "misfit": float(blind.misfit(*found)),
            **seconds(started),
        }

    for name, known in (("bound", theta), ("wrong kernel", family.theta(gaussian_kernel(3.0)))):
        row[name] = {"psnr": psnr(SOLVER(blind.at(known), priors[0]), x)}
    for name, method in (("blind-tv", ms.solvers.BlindTV()), ("edges", ms.solvers.BlindEdges())):
        started = now()
        scored(name, method(blind), started)
        if name == "edges":
            edges = method(blind)
    started = now()
    scored("edges + HQS", edges._replace(x=SOLVER(blind.at(edges.theta), priors[0])), started)
    if dps:
        started = now()
        scored("blind-dps", ms.samplers.BlindDPS()(blind, *priors), started)
    started = now()
    draws = METHOD(blind.repeat(chains), *priors)
    result = ms.samplers.summary(blind, draws, priors[0], solver=SOLVER)[0]
    found = row["blind-pnpdm"] = {
        "psnr": psnr(result.x, x),
        "kernel": likeness(result.kernel, true),
        **seconds(started),
        "kernel of each chain": [likeness(one[None], true) for one in family.kernel(draws.theta)],
        "psnr of each draw": [psnr(one[None], x) for one in draws.x],
        "misfit": result.misfit,
        "misfits": result.misfits,
        "modes": result.modes,
        "network calls of a chain": METHOD.nfe + SOLVER.settled(blind.at(theta)).rounds,
    }
    if result.sd is not None:
        fitted, (by,) = registered(result.x, x, periodic=True)
        sd = moved(result.sd, *by, periodic=True).clamp_min(0)
        wide = sd * (1 + 1 / len(result.modes[0])) ** 0.5  # of a draw around the mean of n
        found["coverage of 90 %"] = float(interval_coverage(fitted, wide, x, factor=1.645))
    return row


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def seconds(started: tuple[float, float]) -> dict[str, float]:
    wall, cpu = (after - before for after, before in zip(now(), started, strict=True))
    return {"seconds": wall, "cpu_seconds": cpu}


def cases(names: list[str]) -> list[dict]:
    """All cases: of each photograph both sizes, with one kernel and one noise level."""
    found = []
    for i in range(PHOTOGRAPHS):
        noise = NOISES[(i + i // len(NOISES)) % len(NOISES)]
        for size in SIZES:
            case = {"photograph": 3 + 5 * i, "size": size, "kernel": names[i % len(names)]}
            found.append({**case, "noise": noise})
    # of the first thirty, every fifth is large
    small, large = found[::2], found[1::2]
    order = [part.pop(0) for _ in range(len(small) // 4) for part in (*[small] * 4, large)]
    return [*order, *large]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=2 * PHOTOGRAPHS)
    parser.add_argument("--minutes", type=float, default=1e9, help="no case is begun after these")
    parser.add_argument("--chains", type=int, default=4)
    parser.add_argument("--dps-every", type=int, default=4, help="0: never")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/blind.json"))
    options = parser.parse_args()
    settings = {"method": repr(METHOD), "solver": repr(SOLVER), "chains": options.chains}
    rows = []
    if options.out.exists():
        stored = json.loads(options.out.read_text())
        if stored.get("settings") == settings:
            rows = stored["rows"]
        else:
            print(f"{options.out} is of other settings and will be replaced")
    done = {json.dumps(row["case"]) for row in rows}
    priors, every = (ms.load("natural-color"), ms.load("kernels-64")), kernels(options.data)
    first = time.monotonic()
    for i, case in enumerate(cases(list(every))[: options.cases]):
        if json.dumps(case) in done:
            continue
        if time.monotonic() - first > 60 * options.minutes:
            break
        x = photograph(options.data, case["photograph"], case["size"])
        dps = options.dps_every > 0 and i % options.dps_every == 0
        row = one_case(x, every[case["kernel"]], 2 * case["noise"], options.chains, priors, dps)
        rows.append({"case": case, **row})
        print(json.dumps(rows[-1]), flush=True)
        record = {
            "command": "python benchmarks/blind.py",
            "settings": settings,
            "machine": f"{platform.processor() or platform.machine()}, one thread of "
            f"{os.cpu_count()} cores that other work shares",
            "torch": torch.__version__,
            "cases": f"{len(rows)} of {2 * PHOTOGRAPHS}",
            "summary": {"all": summarised(rows)}
            | {
                f"{size} pixels": summarised(part)
                for size in SIZES
                if (part := [row for row in rows if row["case"]["size"] == size])
            },
            "rows": rows,
        }
        partial = options.out.with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=1) + "\n")
        partial.replace(options.out)  # a stop leaves the last whole file


def summarised(rows: list[dict]) -> dict:
    """Mean PSNR and median kernel correlation of every method, and over how many cases."""
    found = {}
    for name in dict.fromkeys(key for row in rows for key in row if key != "case"):
        parts = [row[name] for row in rows if name in row]
        found[name] = {"cases": len(parts)}
        for key, mean in (("psnr", statistics.mean), ("kernel", statistics.median)):
            if key in parts[0]:
                found[name][f"{mean.__name__} {key}"] = mean(part[key] for part in parts)
        below = [row["bound"]["psnr"] - row[name]["psnr"] for row in rows if name in row]
        found[name]["mean below the bound"] = statistics.mean(below)
        covered = [p["coverage of 90 %"] for p in parts if "coverage of 90 %" in p]
        if covered:
            found[name]["mean coverage of 90 %"] = statistics.mean(covered)
    return found


if __name__ == "__main__":
    main()
