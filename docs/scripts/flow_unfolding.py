"""The figure of the page on flow unfolding: the networks that ship, at what they were trained for.

The photographs ship with scikit-image and were not trained on. The numbers in the figure also go
to `benchmarks/results/flow_figure.json`. Total variation has the weight that is best here.
"""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from skimage.data import astronaut, chelsea, coffee

import measurand as ms
from measurand.problems import Denoising, GaussianBlurs, MissingPixels, drawn
from measurand.solvers import FISTA, FlowUnfolding, first_guess

ROOT = Path(__file__).resolve().parents[2]
FIGURE = ROOT / "docs" / "figures" / "flow_unfolding.png"
NUMBERS = ROOT / "benchmarks" / "results" / "flow_figure.json"
ROWS = (
    ("noise of 0.2", "flow-denoise", Denoising(), 0.2, astronaut, (30, 120)),
    (
        "half of the pixels missing",
        "flow-inpaint",
        MissingPixels(0.5, 0.5),
        0.03,
        chelsea,
        (60, 140),
    ),
    ("blur of 1.5 pixels", "flow-deblur", GaussianBlurs(1.5, 1.5), 0.03, coffee, (140, 240)),
)
WEIGHTS = (1.0, 2.0, 4.0, 8.0, 16.0)


def total_variation(m: ms.Measurement, x: torch.Tensor) -> torch.Tensor:
    """The best image over all weights."""
    found = [
        FISTA(steps=100)(m, ms.priors.TotalVariation(weight=w, joint=True, tol=1e-3))
        for w in WEIGHTS
    ]
    return max(found, key=lambda image: float(ms.psnr(image, x, data_range=2.0)))


def main() -> None:
    psnr: dict[str, dict[str, float]] = {}
    titles = ("photograph", "first guess", "total variation", "flow unfolding")
    figure, axes = plt.subplots(3, 4, figsize=(9, 7), layout="constrained")
    for row, (name, weights, kind, noise, picture, (top, left)) in zip(axes, ROWS, strict=True):
        piece = picture()[top : top + 192, left : left + 192, :3]
        x = torch.tensor(piece).permute(2, 0, 1)[None] / 127.5 - 1
        m = drawn([kind], x, (noise, noise), torch.Generator().manual_seed(0))
        images = (
            x,
            first_guess(m),
            total_variation(m, x),
            FlowUnfolding()(m, ms.load(weights)),
        )
        for axis, image, title in zip(row, images, titles, strict=True):
            axis.imshow(((image[0].permute(1, 2, 0) + 1) / 2).clamp(0, 1).numpy())
            words = title
            if image is not x:
                value = round(float(ms.psnr(image, x, data_range=2.0)), 2)
                psnr.setdefault(name, {})[title] = value
                words = f"{title}, {value:.2f} dB"
            axis.set_title(words, fontsize=8)
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(name, fontsize=9)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=100)
    NUMBERS.write_text(json.dumps({"psnr": psnr}, indent=1) + "\n")


if __name__ == "__main__":
    main()
