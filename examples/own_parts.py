r"""Bring your own operator and your own denoiser.

A scanner with thick slices averages four rows of the image,

    (A x)_i = (x_{4i} + x_{4i+1} + x_{4i+2} + x_{4i+3}) / 4,    (A^H y)_j = y_{j // 4} / 4,

and the denoiser is the non-local means of scikit-image. `as_operator` takes the two functions and
tests the adjoint, `as_prior` takes the denoiser and tries it; then every method can use both, here
half-quadratic splitting,

    x <- D(u, s),    u <- argmin_x ||y - A x||^2 / (2 sigma^2) + ||x - u||^2 / (2 s^2).
"""

import torch
from skimage.data import camera
from skimage.restoration import denoise_nl_means
from torch import Tensor

import measurand as ms
from measurand.figures import Figure


# ---- the operator: two functions of batches (B, C, H, W)
def thick(x: Tensor) -> Tensor:
    """Return the means of four rows."""
    return x.unflatten(-2, (-1, 4)).mean(-2)


def thick_adjoint(y: Tensor) -> Tensor:
    """Return a quarter of every row, four times."""
    return y.repeat_interleave(4, -2) / 4


# ---- the denoiser: a function of noisy images and their noise level
def non_local_means(v: Tensor, sigma: Tensor) -> Tensor:
    """Return the denoised images, with values in [0, 1]."""
    images = [
        denoise_nl_means(image, 5, 6, h=0.8 * level, sigma=level)
        for image, level in zip(v[:, 0].numpy(), sigma.tolist(), strict=True)
    ]
    return torch.stack([torch.from_numpy(image) for image in images])[:, None].clamp(0, 1).to(v)


def main(size: int = 200) -> Figure:
    """Return the figure of the estimates of a photograph of size x size pixels."""
    # ---- the photograph, in [0, 1]
    x = torch.from_numpy(camera()[60 : 60 + 2 * size : 2, 100 : 100 + 2 * size : 2].copy())
    x = x[None, None] / 255

    # ---- what is ours becomes an operator and a prior; mistakes are told at once
    A = ms.as_operator((thick, thick_adjoint), (1, size, size))
    prior = ms.as_prior(non_local_means, range=(0.0, 1.0), channels=1)
    crops = torch.cat([x[..., :32, :32], x[..., -32:, -32:]])
    for law in [*ms.checks.operator_laws(A), *ms.checks.prior_laws(prior, crops)]:
        print(f"{law.name:12} {law.error:.1e} {'holds' if law.holds else 'FAILS'}")

    # ---- the measurement
    noise = ms.noises.Gaussian(sigma=0.02)
    m = ms.Measurement(A, noise, noise(A(x)))

    # ---- the estimates
    nlm = ms.restore(m, prior, ms.solvers.HQS(steps=12))
    tv = ms.restore(m, ms.priors.TotalVariation(weight=4.0), ms.solvers.FISTA(steps=100))
    return ms.compare(
        {
            "repeated rows": m.adjoint_y / A.norm**2,
            "total variation": tv.estimate,
            "non-local means": nlm.estimate,
        },
        truth=x,
        window=(0.0, 1.0),
        zoom=(size // 8, size // 4, size // 4),
        title="Thick slices: means of four rows",
    )


if __name__ == "__main__":
    print(main().save("own_parts.png"))
