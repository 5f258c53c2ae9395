"""Time of HQS with the blur of a camera, relative to the circular blur of the same picture.

`ValidBlur` solves each data step by conjugate gradients, `Blur` in closed form. Both see a picture
of 3 x 1024 x 1024; the camera's image has margins as wide as the kernel. The denoiser is the
identity, so that all of the time is the method's and the operator's: with a network the ratio is
smaller. One process, turn by turn, CPU time of one thread. The aim, a ratio of at most 2.5,
is missed by far. The file is written after each kernel.

    python benchmarks/cameras.py            writes results/cameras.json
"""

import torch
from machine import alternating, ratio, settle_allocator, write

from measurand import Measurement
from measurand.noises import Gaussian
from measurand.operators import Blur, ValidBlur, disk_kernel, gaussian_kernel, motion_kernel
from measurand.priors import CallableDenoiser
from measurand.solvers import HQS

LIMIT = 2.5
KERNELS = {
    "gaussian 1.6": gaussian_kernel(1.6),
    "disk 4": disk_kernel(4.0),
    "motion 15": motion_kernel(15.0, 0.5),
}


def main() -> None:
    torch.set_num_threads(1)
    settle_allocator()
    generator, found = torch.Generator().manual_seed(0), {}
    prior = CallableDenoiser(lambda v, sigma: v)
    for name, kernel in KERNELS.items():
        wide = ValidBlur(ValidBlur.image_shape((3, 1024, 1024), kernel), kernel)
        scene = torch.randn(1, *wide.in_shape, generator=generator).cumsum(-1).cumsum(-2)
        y = Gaussian(0.04)(wide(scene / scene.abs().max()), generator)
        calls = {}
        for kind, operator in (("circular", Blur((3, 1024, 1024), kernel)), ("camera", wide)):
            m = Measurement(operator, Gaussian(0.04), y)
            calls[kind] = lambda m=m: HQS()(m, prior)
        times = alternating(calls, rounds=3, seconds=0.01)
        middle, low, high = ratio(times["camera"], times["circular"])
        found[name] = {
            "circular_seconds": min(times["circular"]),
            "camera_seconds": min(times["camera"]),
            "ratio": round(middle, 2),
            "ratio_low_high": [round(low, 2), round(high, 2)],
            "limit": LIMIT,
        }
        print(f"{name:14} {found[name]}", flush=True)
        write("cameras", {"size": [3, 1024, 1024], "method": str(HQS()), "kernels": found})


if __name__ == "__main__":
    main()
