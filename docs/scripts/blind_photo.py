"""A photograph blurred without wrap-around and one kernel for it: the second figure of blind.md.

    python docs/scripts/blind_photo.py        writes docs/figures/blind_photo.png and
                                              benchmarks/results/blind_photo.json

The picture is scikit-image's `coffee`, the kernel that of a shaken hand as `motion_kernel` makes
none: an arc. 25 more rows and columns than the frame are blurred, so that nothing wraps around;
noise of 0.01 of the range is added, and the kernel has to be found from the frame alone.
"""

import json
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage.data import coffee

import measurand as ms
from measurand.registration import inner, registered
from measurand.samplers.blind_summary import correlation

ROOT = Path(__file__).resolve().parents[2]
HEIGHT, WIDTH, REACH, SIGMA = 192, 224, 12, 0.02


def arc() -> torch.Tensor:
    """A kernel along a third of a circle, travelled ever faster, with shape (25, 25)."""
    k = torch.zeros(2 * REACH + 1, 2 * REACH + 1)
    for t in torch.linspace(0, 1, 400):
        angle = 2.1 * float(t) ** 1.5 + 0.4
        y, x = REACH + 8 * np.sin(angle) - 5, REACH + 8 * np.cos(angle) - 1
        i, j = int(y), int(x)
        for di, dj in ((0, 0), (0, 1), (1, 0), (1, 1)):
            share = (1 - abs(y - i - di)) * (1 - abs(x - j - dj))
            k[i + di, j + dj] += share
    return k / k.sum()


def main() -> None:
    torch.set_num_threads(1)
    scene = torch.from_numpy(coffee().copy()).movedim(-1, 0)[None].float() / 127.5 - 1
    wide = scene[..., 60 : 60 + HEIGHT + 2 * REACH, 150 : 150 + WIDTH + 2 * REACH]
    truth = wide[..., REACH:-REACH, REACH:-REACH]
    blur = ms.operators.ValidBlur(tuple(wide.shape[1:]), arc()[None, None])
    noise = ms.noises.Gaussian(sigma=SIGMA)
    y = noise(blur(wide), torch.Generator().manual_seed(0))
    family = ms.operators.UnknownValidBlur.of(y.shape[1:], 64)
    blind = ms.BlindMeasurement(family, noise, y)
    prior, kernels = ms.load("natural-color"), ms.load("kernels-64")
    started = time.process_time()
    draws = ms.samplers.BlindPnPDM.quick()(blind.repeat(2), prior, kernels)
    found = ms.samplers.summary(blind, draws, prior)[0]
    seconds = time.process_time() - started
    known = ms.solvers.HQS()(blind.at(family.theta(arc())), prior)

    def quality(x: torch.Tensor) -> float:
        moved, by = registered(family.framed(x), truth, periodic=False)
        return float(ms.psnr(inner(moved, by), inner(truth, by), data_range=2.0))

    edges = ms.solvers.BlindEdges()(blind)
    record = {
        "psnr": {
            "blurred": float(ms.psnr(y, truth, data_range=2.0)),
            "BlindEdges, then HQS": quality(ms.solvers.HQS()(blind.at(edges.theta), prior)),
            "BlindPnPDM, quick": quality(found.x),
            "HQS, kernel known": quality(known),
        },
        "kernel": {
            "BlindEdges": correlation(arc()[None, None], family.kernel(edges.theta))[1],
            "BlindPnPDM, quick": correlation(arc()[None, None], found.kernel)[1],
        },
        "cpu_seconds": seconds,
        "torch": torch.__version__,
    }
    path = ROOT / "benchmarks" / "results" / "blind_photo.json"
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(record)

    def shown(x: torch.Tensor) -> np.ndarray:
        return ((x[0].clamp(-1, 1) + 1) / 2).movedim(0, -1).numpy()

    panels = [
        ("measured", shown(y)),
        (f"found, {record['psnr']['BlindPnPDM, quick']:.1f} dB", shown(family.framed(found.x))),
        (
            f"kernel known, {record['psnr']['HQS, kernel known']:.1f} dB",
            shown(family.framed(known)),
        ),
        ("photograph", shown(truth)),
        ("kernel found", found.kernel[0, 0, 16:49, 16:49].numpy()),
        ("true kernel", torch.nn.functional.pad(arc(), (4, 4, 4, 4)).numpy()),
    ]
    figure, axes = plt.subplots(1, 6, figsize=(15, 2.5), layout="constrained")
    for axis, (title, image) in zip(axes, panels, strict=True):
        axis.imshow(image, cmap="magma", interpolation="nearest")
        axis.set_title(title, fontsize=9)
        axis.axis("off")
    figure.savefig(ROOT / "docs" / "figures" / "blind_photo.png", dpi=110)


if __name__ == "__main__":
    main()
