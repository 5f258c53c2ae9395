"""What one evaluation of an unfolded network costs, and what its training costs.

    python benchmarks/unfolding_speed.py inference     writes results/unfolding_speed.json
    python benchmarks/unfolding_speed.py training      writes results/unfolding_training.json

The network of the recipe unfold-color (one shared block of 4.5 million weights), a posterior mean
of blurred images of 256 x 256: eager in float32 and, where the processor has units for it, in
bfloat16, compiled by `torch.compile` block by block, and the C++ program of `cpp/` with the block
compiled by AOTInductor. One thread, CPU seconds per image, median over rounds in which the
variants take turns; each variant has a process of its own, so that the peak of its memory is its
own. Every image is compared with that of eager float32. Training: patches of 64 x 64, loss and
gradient, a plain loop in float32 against the engine (`gradients`), which computes in bfloat16
where the processor has units for it and takes denormal numbers as zero.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from machine import write
from torch import Tensor

from measurand.batches import Batch
from measurand.measurement import Measurement
from measurand.metrics import psnr
from measurand.noises import Gaussian
from measurand.operators import Blur, motion_kernel
from measurand.priors.edm import fast_dtype
from measurand.problems import drawn
from measurand.recipes import unfold_color
from measurand.solvers import PosteriorMean
from measurand.tensors import randn_like
from measurand.training.gradients import Gradients
from measurand.unfolded.posterior_score import Unfolded
from measurand.unfolded.score_matching import posterior_loss
from measurand.weights.export import export

HERE = Path(__file__).resolve().parent
SIDE, NOISE = 256, 0.05
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
INFERENCE = (
    "eager float32 NCHW",
    "eager float32 channels_last",
    "eager bfloat16 channels_last",
    "compiled float32",
    "compiled bfloat16",
    "C++ float32",
    "C++ bfloat16",
)
TRAINING = ("float32 NCHW", "fast channels_last", "fast channels_last recomputed")


def precisions() -> tuple[str, ...]:
    """Those that the processor computes in; bfloat16 by emulation says nothing of it."""
    return ("float32", "bfloat16") if fast_dtype() == torch.bfloat16 else ("float32",)


def network(precision: str, *, channels_last: bool = True) -> Unfolded:
    """The network at the start of its training, in a precision and layout."""
    made: Any = unfold_color.new()
    made.priors.to(PRECISIONS[precision])
    layout = torch.channels_last if channels_last else torch.contiguous_format
    made.priors.to(memory_format=layout)
    return made.eval().requires_grad_(False)


def smooth(n: int, side: int, generator: torch.Generator) -> Tensor:
    """Random images whose details have 16 pixels."""
    coarse = torch.rand(n, 3, side // 16, side // 16, generator=generator) * 1.6 - 0.8
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")


def problem(batch: int) -> tuple[Measurement, Tensor, Tensor]:
    """Blurred smooth images, their kernel, and the noise that an evaluation starts from."""
    shape = (3, SIDE, SIDE)
    generator = torch.Generator().manual_seed(0)
    x = smooth(batch, SIDE, generator)
    kernel = motion_kernel(17.0, 0.6)
    operator, noise = Blur(shape, kernel), Gaussian(NOISE)
    m = Measurement(operator, noise, noise(operator(x), generator))
    return m, kernel, randn_like(x, torch.Generator().manual_seed(1))


def timed(call: Callable[[], Any], repeats: int) -> float:
    """CPU seconds of a call, after one that does not count."""
    call()
    started = time.process_time()
    for _ in range(repeats):
        call()
    return (time.process_time() - started) / repeats


def inference(variant: str, batch: int, folder: Path) -> dict[str, Any]:
    """CPU seconds per image of one variant, and its image."""
    kind, precision = variant.split()[:2]
    m, _, _ = problem(batch)
    repeats = max(1, 3 // batch)
    out = folder / f"{variant.replace(' ', '-')}-{batch}.npy"
    if kind == "C++":
        words = [folder / "cpp" / "measurand-run", folder / f"{precision}.pt2"]
        words += ["--y", f"y{batch}.npy", "--sigma", str(NOISE), "--kernel", "kernel.npy"]
        words += ["--noise", f"n{batch}.npy", "--out", out, "--repeat", str(repeats)]
        found = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
        seconds = json.loads(found.stdout)["cpu_seconds"]
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    else:
        net = network(precision, channels_last="NCHW" not in variant)
        if kind == "compiled":
            prior: Any = net.priors[0]
            prior.net = torch.compile(prior.net, dynamic=False)

        def call() -> Tensor:
            return PosteriorMean()(m, net, generator=torch.Generator().manual_seed(1))

        with torch.no_grad():
            seconds = timed(call, repeats)
            np.save(out, call().numpy())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds / batch, "peak MiB": peak / 1024}


def training(variant: str) -> dict[str, Any]:
    """Patches per CPU second of one variant of the training loop."""
    n = unfold_color.batch
    net: Any = unfold_color.new()
    net.recompute = "recomputed" in variant
    plain = "NCHW" in variant
    net.to(memory_format=torch.contiguous_format if plain else torch.channels_last)
    dtype = torch.float32 if plain else fast_dtype()
    generator = torch.Generator().manual_seed(0)
    x = smooth(n, 64, generator)
    fields = {
        "x": x,
        "sigma": torch.full((n,), 0.5),
        "noise": randn_like(x, generator),
        "measurement": drawn(unfold_color.mix, x, (0.05, 0.05), generator),
    }
    batch = Batch(fields, {"early": 0.0})

    engine = Gradients(net, posterior_loss, autocast=None if dtype == torch.float32 else dtype)

    def call() -> None:
        if plain:
            posterior_loss(net, batch).mean().backward()
        else:
            engine(batch)
        net.zero_grad()

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = timed(call, 2)
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak
    return {"seconds": seconds / n, "peak MiB": more / 1024}


def prepared(folder: Path) -> dict[str, Any]:
    """Exports the block, builds the program and writes the arrays; how long both took."""
    took: dict[str, Any] = {}
    for precision in precisions():
        started = time.perf_counter()
        *_, file = export(
            network(precision), folder / f"{precision}.pt2", size=(SIDE, SIDE), batch=8
        )
        took[f"export {precision}, s"] = round(time.perf_counter() - started, 1)
        took[f"package {precision}, MiB"] = round(file.stat().st_size / 2**20, 1)
    prefix = torch.utils.cmake_prefix_path
    source = HERE.parent / "cpp"
    for words in (
        ["-S", source, "-B", folder / "cpp", f"-DCMAKE_PREFIX_PATH={prefix}"],
        ["--build", folder / "cpp"],
    ):
        subprocess.run(["cmake", *words], check=True, capture_output=True)
    for batch in (1, 8):
        m, kernel, noise = problem(batch)
        for name, value in ((f"y{batch}", m.y), (f"n{batch}", noise), ("kernel", kernel)):
            np.save(folder / f"{name}.npy", value.numpy())
    return took


def child(*words: Any) -> dict[str, Any]:
    found = subprocess.run(
        [sys.executable, __file__, *map(str, words)], capture_output=True, text=True
    )
    if found.returncode:
        raise RuntimeError(found.stderr)
    result: dict[str, Any] = json.loads(found.stdout.splitlines()[-1])
    return result


def rounds(variants: dict[str, tuple[Any, ...]], n: int) -> dict[str, dict[str, Any]]:
    """Median seconds and ratio to the first variant, the variants taking turns."""
    runs = [{name: child(*words) for name, words in variants.items()} for _ in range(n)]
    first = next(iter(variants))
    table = {}
    for name in variants:
        ratio = [run[first]["seconds"] / run[name]["seconds"] for run in runs]
        table[name] = {
            "cpu ms per image": round(
                1e3 * statistics.median(r[name]["seconds"] for r in runs), 1
            ),
            "times as fast as the first": round(statistics.median(ratio), 2),
            "peak MiB": round(max(run[name]["peak MiB"] for run in runs)),
        }
        print(name, table[name], flush=True)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=("inference", "training"))
    parser.add_argument("--one", nargs="+", help="for the children: what to time")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.one:
        variant, *rest = args.one
        if args.what == "training":
            found = training(variant)
        else:
            found = inference(variant, int(rest[0]), Path(rest[1]))
        print(json.dumps(found))
        return
    if args.what == "training":
        table = rounds({v: ("training", "--one", v) for v in TRAINING}, args.rounds)
        print(write("unfolding_training", {"depth": unfold_color.depth, "training": table}))
        return
    with TemporaryDirectory() as name:
        folder = Path(name)
        content: dict[str, Any] = {"depth": unfold_color.depth, "built": prepared(folder)}
        names = [v for v in INFERENCE if v.split()[1] in precisions()]
        for batch in (1, 8):
            variants = {v: ("inference", "--one", v, batch, folder) for v in names}
            table = rounds(variants, args.rounds)
            wanted = torch.from_numpy(
                np.load(folder / f"{INFERENCE[0].replace(' ', '-')}-{batch}.npy")
            )
            for variant in names:
                image = np.load(folder / f"{variant.replace(' ', '-')}-{batch}.npy")
                x = torch.from_numpy(image)
                away = float((x - wanted).abs().max())
                table[variant]["largest difference"] = float(f"{away:.2g}")
                if "bfloat16" in variant:
                    quality = float(psnr(x, wanted, data_range=2.0).min())
                    table[variant]["psnr to float32"] = round(quality, 1)
            content[f"inference, batch {batch}"] = table
    print(write("unfolding_speed", content))


if __name__ == "__main__":
    main()
