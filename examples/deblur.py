r"""Deblur a photograph, with a trained prior and with total variation.

A lens out of focus and a sensor with noise:

    y = k * x + n,    n ~ N(0, sigma^2).

A camera sees a part of the scene only: the blur reaches beyond the frame, so that y has fewer
pixels than x (`ValidBlur`). Two estimates:

    x_tv  = argmin_x ||y - k * x||^2 / (2 sigma^2) + weight TV(x)               FISTA
    x_hqs : x <- D(u, s),  u <- argmin ||y - k * x||^2 / (2 sigma^2) + ||x - u||^2 / (2 s^2)

where D(u, s) is the denoiser `natural-color`, and the noise level s falls (half-quadratic
splitting, HQS).
"""

import torch
from skimage.data import chelsea

import measurand as ms
from measurand.figures import Figure


def main(size: int = 192) -> Figure:
    """Return the figure of the estimates of a photograph of size x size pixels."""
    # ---- the photograph, with values in [-1, 1], shape (1, 3, H, W)
    cat = torch.from_numpy(chelsea()[20 : 20 + size, 110 : 110 + size])
    x = cat.movedim(-1, 0)[None] / 127.5 - 1

    # ---- the measurement
    A = ms.operators.ValidBlur((3, size, size), ms.operators.disk_kernel(radius=2.5))
    noise = ms.noises.Gaussian(sigma=0.02)
    m = ms.Measurement(A, noise, noise(A(x)))

    # ---- total variation
    tv = ms.restore(m, ms.priors.TotalVariation(weight=4.0), ms.solvers.FISTA(steps=30))

    # ---- a denoiser trained on photographs
    hqs = ms.restore(m, ms.load("natural-color"), ms.solvers.HQS())

    # ---- what the camera has seen, and what was found in the same frame
    for name, result in (("total variation", tv), ("natural-color", hqs)):
        quality = float(ms.psnr(A.framed(result.estimate), A.framed(x), data_range=2.0))
        print(f"{name:16} {quality:.2f} dB, {result.seconds:.1f} s")
    return ms.compare(
        {
            "measured": m.y,
            "total variation": A.framed(tv.estimate),
            "natural-color": A.framed(hqs.estimate),
        },
        truth=A.framed(x),
        zoom=(size * 3 // 8, size // 4, size // 4),
        title="A photograph out of focus",
    )


if __name__ == "__main__":
    print(main().save("deblur.png"))
