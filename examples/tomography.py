r"""Computed tomography from counts to Hounsfield units, with a rotation axis that is found.

A detector counts photons behind the object, I, without it, F, and in the dark, D; its line
integrals of the attenuation mu are

    p = -ln((I - D) / (F - D)) = A mu + n,    mu = mu_water (1 + HU / 1000),

with the projector A of a scanner whose rotation axis is not seen in the middle of the detector.
`ct-body`, a denoiser of slices x = 2 (HU + 1000) / 3000 - 1, knows images in [-1, 1]: with
s = 1.5 mu_water, mu = s (x + 1), so that p / s - A 1 = A x + n / s measures x.
"""

import math

import numpy as np
import torch
from skimage.data import shepp_logan_phantom
from skimage.transform import resize

import measurand as ms
from measurand.figures import Figure
from measurand.operators import (
    ParallelCT,
    attenuation,
    even_angles,
    fbp,
    hounsfield,
    line_integrals,
    rotation_axis,
)

WATER = 0.0192  # 1/mm, at 70 keV


def main(size: int = 128, views: int = 90) -> Figure:
    """Return the figure of the estimates of a phantom of size x size pixels."""
    # ---- the phantom in Hounsfield units: air, soft tissue, bone; 320 mm wide
    phantom = resize(shepp_logan_phantom(), (size, size), anti_aliasing=True)
    x = torch.from_numpy(phantom).float()[None, None]
    hu = torch.where(x > 0.05, 1500 * x - 250, 20000 * x - 1000)
    pixel = 320 / size

    # ---- the scan: 20,000 photons per ray, uneven bins, the axis 3.3 bins aside
    angles, bins = even_angles(views), size * 3 // 2
    scanner = ParallelCT((1, size, size), angles, detectors=bins, pixel=pixel, axis=3.3)
    random = np.random.default_rng(0)
    flat, dark = 2e4 * (1 + 0.1 * random.random(bins)), 100 + 10 * random.random(bins)
    seen = flat * np.exp(-scanner(attenuation(hu, water=WATER)).numpy())
    counts = random.poisson(seen) + dark

    # ---- line integrals, and the axis
    p = line_integrals(counts, flat + dark, dark)
    axis = rotation_axis(p, angles)
    print(f"rotation axis {axis:+.2f} bins from the middle of the detector, in truth +3.30")
    A, aside = (
        ParallelCT((1, size, size), angles, detectors=bins, pixel=pixel, axis=a)
        for a in (axis, 0.0)
    )

    # ---- filtered back-projection, and the denoiser
    s = 1.5 * WATER
    sigma = float(np.sqrt((1 / (counts - dark).clip(1)).mean())) / s
    y = p / s - A(torch.ones(1, *A.in_shape))
    m = ms.Measurement(A, ms.noises.Gaussian(sigma), y)
    restored = ms.restore(m, ms.load("ct-body"), ms.solvers.HQS()).estimate
    images = {
        "FBP, axis in the middle": hounsfield(fbp(aside, p), water=WATER),
        "FBP": hounsfield(fbp(A, p), water=WATER),
        "ct-body": 1500 * (restored + 1) - 1000,
    }

    # ---- the errors in Hounsfield units
    for name, image in images.items():
        error = math.sqrt(float((image - hu).square().mean()))
        print(f"{name:24} error {error:4.0f} HU")
    return ms.compare(
        images,
        truth=hu,
        window=(-1000.0, 1250.0),
        zoom=(size // 2, size * 3 // 8, size // 4),
        title=f"{views} views, 20,000 photons per ray",
    )


if __name__ == "__main__":
    print(main().save("tomography.png"))
