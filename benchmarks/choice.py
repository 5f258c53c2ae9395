"""Which prior and method are best for a photograph: what `jobs/choice.py` was chosen by.

    python benchmarks/choice.py                     writes results/choice.json

Six pictures (McMaster), centre crops of 128 x 128 pixels in the frame of the measurement, in
colour and as luminance. Blurs are a camera's: the scene goes on beyond the frame. Noise is in
units of images in [-1, 1]. HQS and ADMM with their defaults and the denoiser of such images,
beside the posterior mean of the unfolded network; PSNR in dB, mean over the pictures.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from machine import write
from unfolding_rivals import DATA

from measurand.domains import Photographs
from measurand.measurement import Measurement
from measurand.metrics import psnr
from measurand.noises import ComplexGaussian, Gaussian
from measurand.operators import (
    BlockAverage,
    FourierMask,
    Identity,
    LinearOperator,
    Mask,
    ValidBlur,
    box_mask,
    disk_kernel,
    gaussian_kernel,
    motion_kernel,
    random_lines,
    random_mask,
)
from measurand.solvers import ADMM, HQS, PosteriorMean
from measurand.weights.store import load, load_prior

SIDE = 128


def camera(channels: int, kernel: torch.Tensor) -> LinearOperator:
    height, width = kernel.shape[-2:]
    return ValidBlur((channels, SIDE + height - 1, SIDE + width - 1), kernel)


def problems(channels: int) -> dict[str, tuple[LinearOperator, float]]:
    shape = (channels, SIDE, SIDE)
    return {
        "Gaussian blur 1.6, noise 0.01": (camera(channels, gaussian_kernel(1.6)), 0.01),
        "Gaussian blur 1.6, noise 0.04": (camera(channels, gaussian_kernel(1.6)), 0.04),
        "Gaussian blur 3.0, noise 0.04": (camera(channels, gaussian_kernel(3.0)), 0.04),
        "motion blur 12, noise 0.01": (camera(channels, motion_kernel(12, 0.5)), 0.01),
        "motion blur 12, noise 0.1": (camera(channels, motion_kernel(12, 0.5)), 0.1),
        "defocus 3, noise 0.02": (camera(channels, disk_kernel(3)), 0.02),
        "denoising, noise 0.04": (Identity(shape), 0.04),
        "denoising, noise 0.1": (Identity(shape), 0.1),
        "denoising, noise 0.2": (Identity(shape), 0.2),
        "denoising, noise 0.4": (Identity(shape), 0.4),
        "block average 2, noise 0.01": (BlockAverage(shape, 2), 0.01),
        "block average 4, noise 0.01": (BlockAverage(shape, 4), 0.01),
        "block average 4, noise 0.1": (BlockAverage(shape, 4), 0.1),
        "50 % missing, noise 0.04": (Mask(shape, random_mask(shape, 0.5)), 0.04),
        "90 % missing, noise 0.04": (Mask(shape, random_mask(shape, 0.9)), 0.04),
        "box missing, noise 0.04": (Mask(shape, box_mask(shape, (36, 36))), 0.04),
        "Fourier lines R = 4, noise 0.04": (FourierMask(shape, random_lines(shape, 4.0)), 0.04),
    }


def methods(channels: int) -> dict[str, tuple[Any, Any]]:
    name = "natural-color" if channels == 3 else "natural-gray"
    denoiser, network = load_prior(name), load("unfold-color")
    return {
        f"HQS, {name}": (HQS(), denoiser),
        f"ADMM, {name}": (ADMM(), denoiser),
        "posterior mean, unfold-color": (
            PosteriorMean(),
            network if channels == 3 else network.in_grey(),
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--images", type=int, default=6)
    args = parser.parse_args()
    torch.set_num_threads(1)
    file = args.data / "natural_testsets.zip"
    if not file.is_file():
        print(f"skipped: no data set {file.name}")
        return
    rows = []
    for channels in (3, 1):
        images = Photographs(grey=channels == 1).look(file, "McMaster")[: args.images]
        every = methods(channels)
        for label, (operator, sigma) in problems(channels).items():
            row: dict[str, Any] = {"channels": channels, "problem": label}
            kind = ComplexGaussian if operator.out_dtype.is_complex else Gaussian
            noise = kind(sigma)
            for name, (method, prior) in every.items():
                found, started = [], time.process_time()
                for k, whole in enumerate(images):
                    sides = zip(whole.shape[2:], operator.in_shape[1:], strict=True)
                    (i, h), (j, w) = (((n - m) // 2, m) for n, m in sides)
                    x = whole[..., i : i + h, j : j + w].contiguous()
                    y = noise(operator(x), torch.Generator().manual_seed(k))
                    m = Measurement(operator, noise, operator.observed(y))
                    with torch.no_grad():
                        made = operator.framed(method(m, prior))
                    found.append(float(psnr(made, operator.framed(x), data_range=2.0)))
                row[name] = round(sum(found) / len(found), 2)
                seconds = (time.process_time() - started) / len(images)
                row[f"{name}: CPU seconds per image"] = round(seconds, 2)
            rows.append(row)
            print(row, flush=True)
    print(write("choice", {"images": args.images, "side": SIDE, "rows": rows}))


if __name__ == "__main__":
    main()
