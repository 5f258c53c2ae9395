"""What a large unfolded network costs on a GPU: `UnfoldedDR.full`, 47 million weights.

    python benchmarks/unfolding_gpu.py     writes results/unfolding_gpu.json
    python benchmarks/unfolding_gpu.py --device cpu --preset tiny --side 32 --limit 256
                                           tries the script where there is no GPU

Blurred images of 256 x 256, batches of 1 and 16. The same network, its weights random, in float32
as it comes, in bfloat16 with channels last, and that compiled into CUDA graphs. For each of them
the milliseconds of one evaluation of the posterior's denoiser (which is its score), TFLOP/s beside
those of a product of two bfloat16 matrices in the same run, seconds per image for methods of 1, 10
and 20 evaluations, peak memory, and how far the image is from that of float32. Times are medians
of wall clock, synchronised, after three calls that do not count: a GPU is not shared.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from machine import write
from torch import Tensor, nn
from unfolding_speed import NOISE, smooth

from measurand.measurement import Measurement
from measurand.metrics import psnr
from measurand.noises import Gaussian
from measurand.operators import Blur, motion_kernel
from measurand.samplers import DiffUnfolding
from measurand.solvers import PosteriorMean
from measurand.training.log import flops
from measurand.unfolded import UnfoldedDR

VARIANTS = ("eager float32", "eager bfloat16 channels_last", "compiled bfloat16 channels_last")
METHODS = {1: PosteriorMean(), 10: DiffUnfolding(steps=5), 20: DiffUnfolding(steps=10)}
LEVEL = 1.0  # noise of the evaluation that is timed


class Owned(nn.Module):
    """A compiled network whose results are the caller's: a CUDA graph writes to the same place."""

    def __init__(self, net: nn.Module, mode: str) -> None:
        super().__init__()
        self.net = torch.compile(net, dynamic=False, mode=mode)

    def forward(self, *inputs: Tensor) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return self.net(*inputs).clone()


def network(preset: str, variant: str, device: torch.device) -> UnfoldedDR:
    """The network of a preset, always with the same weights, in one of the variants."""
    torch.manual_seed(0)
    made: Any = getattr(UnfoldedDR, preset)()
    for prior in made.priors:  # untrained, its last layer is zero and an error would not show
        nn.init.normal_(prior.net.head.weight, std=0.02)
    made.to(device).eval().requires_grad_(False)
    if "bfloat16" in variant:
        made.priors.to(torch.bfloat16, memory_format=torch.channels_last)
    if "compiled" in variant:
        mode = "reduce-overhead" if device.type == "cuda" else "default"
        for prior in made.priors:
            prior.net = Owned(prior.net, mode)
    return made


def seconds(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median of the wall clock of a call."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        call()
    took = []
    for _ in range(repeats):
        wait()
        started = time.perf_counter()
        call()
        wait()
        took.append(time.perf_counter() - started)
    return statistics.median(took)


def matrix_limit(n: int, device: torch.device) -> float:
    """TFLOP/s of a product of two n x n matrices in bfloat16."""
    a, b = torch.randn(2, n, n, device=device).bfloat16()
    return 2e-12 * n**3 / seconds(lambda: a @ b, device, 20)


def problem(batch: int, side: int, device: torch.device) -> Measurement:
    """Blurred smooth images."""
    generator = torch.Generator().manual_seed(0)
    x = smooth(batch, side, generator)
    operator, noise = Blur((3, side, side), motion_kernel(7.0, 0.6)), Gaussian(NOISE)
    return Measurement(operator, noise, noise(operator(x), generator)).to(device)


@torch.no_grad()
def measured(net: UnfoldedDR, m: Measurement, work: int, repeats: int) -> dict[str, Any]:
    """Times of one network on one batch; `work` is the arithmetic of an evaluation."""
    device, batch = m.y.device, len(m)
    posterior = net.given(m)
    v = m.adjoint_y + LEVEL * torch.randn(m.adjoint_y.shape, device=device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    once = seconds(lambda: posterior.denoise(v, LEVEL), device, repeats)
    row: dict[str, Any] = {
        "ms per evaluation and image": round(1e3 * once / batch, 3),
        "TFLOP/s": float(f"{work / once / 1e12:.3g}"),
    }
    for evaluations, method in METHODS.items():

        def call(method: Any = method) -> Tensor:
            return method(m, net)

        took = seconds(call, device, max(3, repeats // evaluations))
        row[f"s per image, {evaluations} evaluations"] = round(took / batch, 4)
    if device.type == "cuda":
        row["peak MiB"] = round(torch.cuda.max_memory_allocated() / 2**20)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--preset", default="full", choices=("full", "small", "tiny"))
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batches", type=int, nargs="+", default=(1, 16))
    parser.add_argument("--limit", type=int, default=8192, help="side of the matrices")
    parser.add_argument("--repeats", type=int, default=20)
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print(
            "nothing measured: no GPU here; the first lines of this file say how to try it without"
        )
        return
    limit = matrix_limit(args.limit, device)
    content: dict[str, Any] = {
        "preset": args.preset,
        "side": args.side,
        "torch": torch.__version__,
        "TFLOP/s of a matrix product": float(f"{limit:.3g}"),
    }
    for batch in args.batches:
        m, table = problem(batch, args.side, device), {}
        for variant in VARIANTS:
            net = network(args.preset, variant, device)
            if variant == VARIANTS[0]:
                work = flops(lambda net=net, m=m: net.given(m).denoise(m.adjoint_y, LEVEL))
                wanted = PosteriorMean()(m, net)
            row = measured(net, m, work, args.repeats)
            row["of the matrix product"] = round(row["TFLOP/s"] / limit, 3)
            quality = psnr(PosteriorMean()(m, net), wanted, data_range=2.0).min()
            if variant != VARIANTS[0]:
                row["psnr to float32"] = round(float(quality), 1)
            table[variant] = row
            print(batch, variant, row, flush=True)
            torch.compiler.reset()
        content[f"batch {batch}"] = table
    if device.type == "cuda":
        print(write("unfolding_gpu", content))


if __name__ == "__main__":
    main()
