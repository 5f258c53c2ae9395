"""The figure of the page on Diff-Unfolding: one network, four operators it was not trained on.

The photographs ship with scikit-image and were not trained on. The numbers in the figure also go
to `benchmarks/results/unfolding_figure.json`.
"""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from skimage.data import astronaut, chelsea, coffee, rocket

import measurand as ms
from measurand.problems import FourierLines, MissingBox, MotionBlurs, SuperResolution, drawn
from measurand.solvers import first_guess

ROOT = Path(__file__).resolve().parents[2]
FIGURE = ROOT / "docs" / "figures" / "unfolding.png"
NUMBERS = ROOT / "benchmarks" / "results" / "unfolding_figure.json"
NOISE, DRAWS = 0.04, 4
ROWS = (
    ("motion blur", MotionBlurs(17.0, 17.0), astronaut, (30, 120)),
    ("missing box", MissingBox(0.25, 0.25), chelsea, (60, 140)),
    ("super-resolution x 4", SuperResolution(4), coffee, (140, 240)),
    ("Fourier lines", FourierLines(3.0, 3.0), rocket, (170, 230)),
)


def main() -> None:
    network, prior = ms.load("unfold-color"), ms.load_prior("natural-color")
    titles = ("photograph", "first guess", "HQS", "Diff-Unfolding: mean", "a draw", "deviation")
    psnr: dict[str, dict[str, float]] = {}
    figure, axes = plt.subplots(4, 6, figsize=(12, 8.6), layout="constrained")
    for row, (name, kind, picture, (top, left)) in zip(axes, ROWS, strict=True):
        piece = picture()[top + 32 : top + 160, left + 32 : left + 160, :3]
        x = torch.tensor(piece).permute(2, 0, 1)[None] / 127.5 - 1
        m = drawn([kind], x, (NOISE, NOISE), torch.Generator().manual_seed(0))
        solver = ms.solvers.HQS(steps=16)
        mean = ms.solvers.PosteriorMean()(m, network)
        draws = ms.samplers.DiffUnfolding()(m.repeat(DRAWS), network)
        images = (x, first_guess(m), solver(m, prior), mean, draws[:1])
        for axis, image, title in zip(row, images, titles, strict=False):
            axis.imshow(((image[0].permute(1, 2, 0) + 1) / 2).clamp(0, 1).numpy())
            words = title
            if image is not x:
                value = round(float(ms.psnr(image, x, data_range=2.0)), 2)
                psnr.setdefault(name, {})[title] = value
                words = f"{title}, {value:.2f} dB"
            axis.set_title(words, fontsize=8)
        row[5].imshow(draws.std(0).mean(0).numpy(), cmap="inferno", vmin=0)
        row[5].set_title(f"{titles[5]} of {DRAWS} draws", fontsize=8)
        row[0].set_ylabel(name, fontsize=9)
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=100)
    NUMBERS.write_text(json.dumps({"noise": NOISE, "psnr": psnr}, indent=1) + "\n")


if __name__ == "__main__":
    main()
