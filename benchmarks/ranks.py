"""Training on one process and on two of `torchrun`, the same batch: what is the second core worth?

python benchmarks/ranks.py        writes results/ranks.json; needs two idle cores
"""

import os
import re
import statistics
import subprocess
import sys

import torch
from machine import write

from measurand.batches import Batch
from measurand.priors.edm import edm_loss, lognormal_sigma
from measurand.recipes import natural_color
from measurand.training.distributed import joined, rank
from measurand.training.loop import Progress, train

STEPS, WARM, BATCH, TURNS = 25, 5, 32, 3


def one_run() -> None:
    """Trains the network of the recipe natural-color for some steps, and prints the patches/s."""
    torch.set_num_threads(1)
    seconds = []

    def batches(step: int, stage: int) -> Batch:
        g = torch.Generator().manual_seed(step)
        x = torch.rand(BATCH, 3, 64, 64, generator=g) * 2 - 1
        noise = torch.randn(x.shape)
        return Batch({"x": x, "sigma": lognormal_sigma(BATCH, g), "noise": noise})

    def note(progress: Progress) -> None:
        seconds.append(progress.seconds)

    with joined(torch.device("cpu")) as device:
        prior = natural_color.new().to(device, memory_format=torch.channels_last)
        train(prior, batches, edm_loss, steps=STEPS, on_step=note, autocast=torch.bfloat16)
        if rank() == 0:
            print("speed", BATCH * (STEPS - WARM) / (seconds[-1] - seconds[WARM - 1]))


def speed(processes: int) -> float:
    """Patches per second of a run with so many processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, *(launcher if processes > 1 else []), __file__, "run"]
    told = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ).stdout
    return float(re.search(r"speed (\S+)", told)[1])


def main() -> None:
    one, two = [], []
    for _ in range(TURNS):
        one.append(speed(1))
        two.append(speed(2))
        print(f"one {one[-1]:.1f}, two {two[-1]:.1f} patches/s")
    ratios = [b / a for a, b in zip(one, two, strict=True)]
    found = {
        "what": f"natural-color, batch {BATCH} of 64x64, bfloat16, gloo, one thread per process",
        "patches_per_second": {"one": one, "two": two},
        "speed_up": {"median": statistics.median(ratios), "all": ratios},
    }
    print(write("ranks", found))


if __name__ == "__main__":
    one_run() if "run" in sys.argv else main()
