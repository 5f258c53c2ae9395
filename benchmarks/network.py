"""What the network costs, and what a method adds to it: `python benchmarks/network.py`.

One thread, CPU time, alternating in one process, median of ratios:

    precision    a 3x256x256 call in bfloat16 with channels_last against float32, the latter in
                 either memory format, and the PSNR of what both denoise
    end to end   HQS and DiffPIR on a blur against their network calls alone
"""

import statistics
import time

import torch
from machine import write
from skimage.data import astronaut, chelsea, coffee

import measurand as ms
from measurand.tensors import generators, randn_like

ROUNDS = 7


def seconds(call) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def ratios(calls: dict, base: str) -> dict:
    """Median seconds of each call, and the median of its ratio to the base, pair by pair."""
    for call in calls.values():
        call()
    runs = [{name: seconds(call) for name, call in calls.items()} for _ in range(ROUNDS)]
    return {
        name: {
            "ms": round(1e3 * statistics.median(run[name] for run in runs), 1),
            f"ratio to {base}": round(statistics.median(r[name] / r[base] for r in runs), 3),
        }
        for name in calls
    }


@torch.no_grad()
def main() -> None:
    torch.set_num_threads(1)
    fast = ms.load_prior("natural-color")
    slow = ms.load_prior("natural-color", dtype=torch.float32)
    plain = ms.load_prior("natural-color", dtype=torch.float32)
    plain.net.to(memory_format=torch.contiguous_format)
    crops = (astronaut()[:256, 100:356], chelsea()[20:276, 100:356], coffee()[80:336, 150:406])
    x = torch.stack([torch.tensor(c).permute(2, 0, 1) for c in crops]) / 127.5 - 1
    one = x[:1]
    sigma = 50 / 255

    precision = ratios(
        {
            "bfloat16, channels_last": lambda: fast.denoise(one, sigma),
            "float32, channels_last": lambda: slow.denoise(one, sigma),
            "float32, NCHW": lambda: plain.denoise(one, sigma),
        },
        "bfloat16, channels_last",
    )
    change = {}
    for level in (15, 25, 50):
        s = 2 * level / 255
        v = x + s * randn_like(x, generators(0, len(x)))
        a, b = (ms.psnr(p.denoise(v, s), x, data_range=2.0).mean() for p in (fast, slow))
        change[level] = round(float(a - b), 4)

    A = ms.operators.GaussianBlur((3, 256, 256), sigma=1.6)
    noise = ms.noises.Gaussian(0.04)
    m = ms.Measurement(A, noise, noise(A(one)))
    ends = {}
    for method in (ms.solvers.HQS(steps=8), ms.samplers.DiffPIR(steps=8)):

        def network_alone() -> None:
            for _ in range(8):
                fast.denoise(one, sigma)

        def whole(method=method) -> None:
            method(m, fast)

        name = type(method).__name__
        ends[name] = ratios({"network": network_alone, name: whole}, "network")
    print(precision, change, ends, sep="\n")
    content = {
        "precision": precision,
        "PSNR of bfloat16 minus float32, dB": change,
        "end to end": ends,
    }
    print(write("network", content))


if __name__ == "__main__":
    main()
