r"""Accelerated MRI with several coils, by total variation, wavelets and a trained prior.

The scanner measures some lines of the Fourier transform of the image, seen by each coil c:

    y_c = M F (C_c x) + n,    n complex white noise,

with the coil sensitivities C_c and the mask M of the lines (SENSE). The penalties solve

    x_hat = argmin_x ||y - A x||^2 / (2 sigma^2) + weight g(x),

with g total variation or the l1 norm of wavelet coefficients; `mri-brain`, a denoiser of complex
images of brains, is used by half-quadratic splitting.
"""

import torch
from skimage.data import shepp_logan_phantom
from skimage.transform import resize

import measurand as ms
from measurand.domains.brain import smooth_phase
from measurand.figures import Figure


def main(size: int = 192) -> Figure:
    """Return the figure of the estimates of a phantom of size x size pixels."""
    # ---- the phantom, complex with a smooth phase, shape (1, 1, H, W)
    phantom = resize(shepp_logan_phantom(), (size, size), anti_aliasing=True)
    magnitude = torch.from_numpy(phantom).float().sqrt()[None, None]  # a less bright skull
    phase = smooth_phase(1, magnitude.shape[2:], torch.Generator().manual_seed(0))
    x = torch.polar(magnitude, phase)

    # ---- the measurement: a quarter of the lines, eight coils
    maps = ms.operators.birdcage_maps((size, size), coils=8)
    mask = ms.operators.random_lines((size, size), acceleration=4)
    A = ms.operators.SENSE((1, size, size), maps, mask)
    noise = ms.noises.ComplexGaussian(sigma=0.02)
    m = ms.Measurement(A, noise, noise(A(x)))

    # ---- penalties, and the denoiser
    fista = ms.solvers.FISTA(steps=30)
    results = {
        "total variation": ms.restore(m, ms.priors.TotalVariation(weight=15.0), fista),
        "wavelets": ms.restore(m, ms.priors.Wavelets(weight=15.0, shifts=2), fista),
        "mri-brain": ms.restore(m, ms.load("mri-brain"), ms.solvers.HQS()),
    }

    # ---- beside the image of zero-filled k-space
    for name, result in results.items():
        nmse = float(ms.metrics.nmse(result.estimate, x))
        print(f"{name:16} NMSE {nmse:.4f}, {result.seconds:.1f} s")
    images = {name: result.estimate for name, result in results.items()}
    return ms.compare(
        {"zero-filled": m.adjoint_y, **images},
        truth=x,
        window=(0.0, 1.0),
        zoom=(size // 2, size * 3 // 8, size // 4),
        title=f"{int(mask.sum())} of {size} lines of k-space, 8 coils",
    )


if __name__ == "__main__":
    print(main().save("mri.png"))
