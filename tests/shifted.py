"""Densities, measurements and a small denoiser on which the divergence of priors is known."""

import torch
from torch import nn

from measurand import Measurement
from measurand.noises import ComplexGaussian, Gaussian
from measurand.operators import Identity, Mask
from measurand.priors import EDMDenoiser, GaussianMixture
from measurand.priors import Gaussian as GaussianPrior
from measurand.priors.edm import edm_loss, lognormal_sigma

N = 10
SHAPE = (1, 1, N)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def normal(seed, *, shift=1.0, correlated=False):
    """A Gaussian of ten unknowns with a random mean and covariance, in float64."""
    mean = shift * torch.randn(1, *SHAPE, generator=seeded(seed), dtype=torch.float64)
    if correlated:
        root = torch.randn(N, N, generator=seeded(seed + 1), dtype=torch.float64) / N**0.5
        return GaussianPrior(mean, root @ root.T + 0.3 * torch.eye(N, dtype=torch.float64))
    variances = 0.3 + torch.rand(N, generator=seeded(seed + 1), dtype=torch.float64)
    return GaussianPrior(mean, torch.diag(variances))


def mixture(seed, moved=0.0):
    """Three modes of variance 0.15; `moved` says how far they are from those of no shift."""
    modes = torch.randn(3, 1, *SHAPE, generator=seeded(seed), dtype=torch.float64)
    way = torch.randn(3, 1, *SHAPE, generator=seeded(seed + 1), dtype=torch.float64)
    cov = 0.15 * torch.eye(N, dtype=torch.float64)
    parts = [GaussianPrior(m + moved * w, cov) for m, w in zip(modes, way, strict=True)]
    return GaussianMixture(torch.ones(3, dtype=torch.float64), parts)


def masks(n, keep, seed):
    """Bernoulli masks with at least one unknown measured."""
    kept = torch.rand(n, *SHAPE, generator=seeded(seed)) < keep
    kept[~kept.flatten(1).any(1)] = True
    return kept.double()


def seen(p, n, keep, seed, sigma=0.0, said=None):
    """Masked draws of a density, with noise; `said` is the noise that the measurement states."""
    x = p.sample(n, seeded(seed))
    operator = Identity(SHAPE).double() if keep == 1 else Mask(SHAPE, masks(n, keep, seed + 1))
    y = Gaussian(sigma)(operator(x), seeded(seed + 2))
    return Measurement(operator, Gaussian(sigma if said is None else said), y)


def through(operator, x, sigma=0.0, seed=0):
    """The measurement of given images."""
    noise = (ComplexGaussian if operator.out_dtype.is_complex else Gaussian)(sigma)
    return Measurement(operator, noise, noise(operator(x), seeded(seed)))


class Affine(nn.Module):
    """A network that is affine in every unknown, with factors that the noise level sets."""

    def __init__(self, n, features=32):
        super().__init__()
        self.factors = nn.Sequential(
            nn.Linear(1, features), nn.SiLU(), nn.Linear(features, features), nn.SiLU()
        )
        self.last = nn.Linear(features, 2 * n)

    def forward(self, x, c):
        a, b = self.last(self.factors(c[:, None])).reshape(-1, 2, *x.shape[1:]).unbind(1)
        return a * x + b


def fitted(p, steps=600):
    """A denoiser with an affine network, trained on draws of a density."""
    torch.manual_seed(0)
    prior = EDMDenoiser(Affine(N), channels=1, card={"name": "toy", "licence": "toys only"})
    optimizer = torch.optim.Adam(prior.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = seeded(7)
    for _ in range(steps):
        x = p.sample(128, generator).float()
        batch = {"x": x, "sigma": lognormal_sigma(128, generator, mean=-1.2)}
        batch["noise"] = torch.randn(x.shape, generator=generator)
        optimizer.zero_grad()
        edm_loss(prior, batch).mean().backward()
        optimizer.step()
        schedule.step()
    return prior.eval().requires_grad_(False)


def moments(prior, sigma=0.5):
    """The Gaussian whose denoiser a prior with an affine network is at a level."""
    zero, one = torch.zeros(1, *SHAPE), torch.ones(1, *SHAPE)
    offset = prior.denoise(zero, sigma).double()
    slope = (prior.denoise(one, sigma).double() - offset).clamp(1e-3, 0.999)
    variances = sigma**2 * slope / (1 - slope)
    return GaussianPrior(offset / (1 - slope), torch.diag(variances.flatten()))
