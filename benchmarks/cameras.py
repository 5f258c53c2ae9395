"""Time of HQS with the blur of a camera, relative to the circular blur of the same picture.

`ValidBlur` solves each data step by conjugate gradients, `Blur` in closed form. Both see a picture
of 3 x 1024 x 1024; the camera's image has margins as wide as the kernel. The prior is
`natural-color`, in tiles; `--bare` puts the identity in its place, so that all of the time is the
method's and the operator's. One process, turn by turn, CPU time of one thread. The file is written
after each kernel.

    python benchmarks/cameras.py            writes results/cameras.json
    python benchmarks/cameras.py --bare     adds the rows without a network
"""

import argparse
import json
import time
from typing import Any

import torch
from machine import RESULTS, settle_allocator, write

from measurand import Measurement
from measurand.noises import Gaussian
from measurand.operators import Blur, ValidBlur, disk_kernel, gaussian_kernel, motion_kernel
from measurand.priors import CallableDenoiser
from measurand.priors.trained import Images
from measurand.solvers import HQS
from measurand.weights.store import load

LIMIT = 2.5
KERNELS = {
    "gaussian 1.6": gaussian_kernel(1.6),
    "disk 4": disk_kernel(4.0),
    "motion 15": motion_kernel(15.0, 0.5),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bare", action="store_true", help="without a network")
    parser.add_argument("--kernels", nargs="+", default=list(KERNELS), choices=list(KERNELS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    settle_allocator()
    file = RESULTS / "cameras.json"
    found = json.loads(file.read_text()) if file.is_file() else {}
    found.pop("machine", None)
    rows = found.setdefault("without a network" if args.bare else "kernels", {})
    generator = torch.Generator().manual_seed(0)
    network = load("natural-color")
    for name in args.kernels:
        kernel = KERNELS[name]
        wide = ValidBlur(ValidBlur.image_shape((3, 1024, 1024), kernel), kernel)
        scene = torch.randn(1, *wide.in_shape, generator=generator).cumsum(-1).cumsum(-2)
        y = Gaussian(0.04)(wide(scene / scene.abs().max()), generator)
        calls = {}
        for kind, a in (("circular", Blur((3, 1024, 1024), kernel)), ("camera", wide)):
            prior: Any = CallableDenoiser(lambda v, sigma: v)
            if not args.bare:
                prior = network.fitted(Images(a.in_shape, a.in_dtype, str(a))).prior
            m = Measurement(a, Gaussian(0.04), y)
            calls[kind] = lambda m=m, prior=prior: HQS()(m, prior)
        times: dict[str, list[float]] = {kind: [] for kind in calls}
        for _ in range(3 if args.bare else 2):
            for kind, call in calls.items():
                started = time.process_time()
                call()
                times[kind].append(time.process_time() - started)
        rows[name] = {f"{kind}_seconds": round(min(t), 2) for kind, t in times.items()}
        rows[name] |= {"ratio": round(min(times["camera"]) / min(times["circular"]), 2)}
        print(f"{name:14} {rows[name]}", flush=True)
        found |= {"size": [3, 1024, 1024], "method": str(HQS()), "limit": LIMIT}
        write("cameras", found)


if __name__ == "__main__":
    main()
