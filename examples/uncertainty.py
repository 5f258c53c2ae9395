r"""Posterior draws, their standard deviation, and how often the truth is where they say.

Three quarters of the pixels of a photograph are missing:

    y = M x + n,    n ~ N(0, sigma^2).

Many images explain y. PnP-DM draws some of them, x_1, ..., x_S ~ p(x | y), by turns of an exact
draw that fits the data and a reverse diffusion with a denoiser. Their mean is the estimate, their
standard deviation says pixel by pixel how well it is known. Draws are calibrated if their central
interval of the level (S - 1) / (S + 1), from the least to the largest of S draws, covers the truth
in that share of the pixels.
"""

import torch
from skimage.data import astronaut

import measurand as ms
from measurand.figures import Figure


def main(size: int = 64, draws: int = 12) -> Figure:
    """Return the figure of the mean of draws of a photograph of size x size pixels."""
    # ---- the photograph, in [-1, 1]
    face = torch.from_numpy(astronaut()[40:232:3, 128:320:3].copy())
    x = (face.movedim(-1, 0)[None] / 127.5 - 1)[..., :size, :size]

    # ---- the measurement: one pixel of four, the same in all colours
    seen = torch.rand(1, size, size, generator=torch.Generator().manual_seed(0)) < 0.25
    A = ms.operators.Mask((3, size, size), seen)
    noise = ms.noises.Gaussian(sigma=0.04)
    m = ms.Measurement(A, noise, noise(A(x)))

    # ---- draws of the posterior
    result = ms.restore(m, ms.load("natural-color"), ms.samplers.PnPDM.quick(), draws=draws)
    print(f"{draws} draws, {result.seconds:.0f} s, {result.nfe} network evaluations each")

    # ---- are they calibrated?
    level = (draws - 1) / (draws + 1)
    covered = float(ms.metrics.coverage(result.draws.transpose(0, 1), x, level=level))
    print(f"the truth lies between the draws in {covered:.0%} of the pixels, wanted {level:.0%}")
    return ms.compare(
        {
            "filled": ms.solvers.first_guess(m),
            "one draw": result.draws[0],
            "another": result.draws[1],
            "mean": result.estimate,
        },
        truth=x,
        deviation=result.sd,
        title=f"One pixel of four: {covered:.0%} of the pixels between {draws} draws",
    )


if __name__ == "__main__":
    print(main().save("uncertainty.png"))
