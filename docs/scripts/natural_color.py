"""The figure of the page on `natural-color`: three noise levels, before and after.

The photograph ships with scikit-image and was not trained on.
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from skimage.data import chelsea

import measurand as ms
from measurand.tensors import generators, randn_like

FIGURE = Path(__file__).resolve().parents[1] / "figures" / "natural_color.png"
LEVELS = (15, 25, 50)


def main() -> None:
    prior = ms.load_prior("natural-color")
    x = torch.tensor(chelsea()[20:276, 100:356]).permute(2, 0, 1)[None] / 127.5 - 1
    figure, axes = plt.subplots(2, 4, figsize=(10, 5.3), layout="constrained")

    def show(axis, image, title):
        axis.imshow(((image[0].permute(1, 2, 0) + 1) / 2).clamp(0, 1).numpy())
        axis.set_title(title, fontsize=9)

    show(axes[0, 0], x, "truth")
    axes[1, 0].axis("off")
    for i, level in enumerate(LEVELS, 1):
        sigma = 2 * level / 255
        v = x + sigma * randn_like(x, generators(0, 1))
        x_hat = prior.denoise(v, sigma)
        for row, (image, name) in enumerate(((v, "noisy"), (x_hat, "denoised"))):
            db = float(ms.psnr(image, x, data_range=2.0))
            show(axes[row, i], image, f"noise {level} of 255, {name}: {db:.2f} dB")
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110)


if __name__ == "__main__":
    main()
