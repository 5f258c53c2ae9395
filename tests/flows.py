"""What the tests of flows share: a flow with known answers, and images made by a procedure."""

import math

import torch
from torch import nn

from measurand.priors import FlowPrior, Gaussian

F64 = torch.float64


class PCAFlow(nn.Module):
    """The linear flow of a Gaussian, `z = C^(-1/2) Q^T (x - m)`: its latents are the principal
    components, so that its kappa are the variances."""

    multiple = 1

    def __init__(self, gaussian):
        super().__init__()
        self.gaussian = gaussian

    def latent_shapes(self, shape):
        return [(math.prod(shape),)]

    def __call__(self, x):
        variances = self.gaussian.variances
        z = self.gaussian.analysis(x - self.gaussian.mean) / variances.sqrt()
        return [z], (-0.5 * variances.log().sum()).expand(len(x))

    def inverse(self, latents):
        g = self.gaussian
        return g.mean + g.synthesis(latents[0] * g.variances.sqrt())


def pca_prior(shape, seed=0, *, calibrated=True):
    """A correlated Gaussian image and the prior of its flow, in float64."""
    generator = torch.Generator().manual_seed(seed)
    n = math.prod(shape)
    root = torch.randn(n, n, generator=generator, dtype=F64)
    covariance = root @ torch.diag(torch.logspace(0, -2, n, dtype=F64)) @ root.T / n
    mean = 0.3 * torch.randn(1, *shape, generator=generator, dtype=F64)
    gaussian = Gaussian(mean, covariance + 1e-3 * torch.eye(n, dtype=F64))
    prior = FlowPrior(PCAFlow(gaussian), shape=shape).double()
    if calibrated:
        prior.kappa_0.copy_(gaussian.variances[0])
    return gaussian, prior


def grid(size):
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    return torch.meshgrid(axis, axis, indexing="ij")


def eight_bits(x):
    return ((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def ellipses(n, size, seed):
    """A gradient of random direction with three ellipses on it, (n, 1, size, size)."""
    g = torch.Generator().manual_seed(seed)
    rows, columns = grid(size)

    def draw(low, high):
        return (low + (high - low) * torch.rand(n, generator=g))[:, None, None]

    x = draw(-0.3, 0.3) * rows + draw(-0.3, 0.3) * columns + draw(-0.4, 0.4)
    for _ in range(3):
        turn = draw(0, math.pi)
        r, c = rows - draw(-0.8, 0.8), columns - draw(-0.8, 0.8)
        u, v = r * turn.cos() + c * turn.sin(), c * turn.cos() - r * turn.sin()
        inside = (u / draw(0.2, 0.7)).square() + (v / draw(0.2, 0.7)).square() < 1
        x = torch.where(inside, draw(-0.8, 0.8), x)
    return eight_bits(x)[:, None]


def stripes(n, size, seed):
    """Stripes of random direction, width and contrast, (n, 1, size, size): none of the above."""
    g = torch.Generator().manual_seed(seed)
    rows, columns = grid(size)
    turn, phase = 2 * math.pi * torch.rand(2, n, 1, 1, generator=g)
    pitch = size * (0.2 + 0.15 * torch.rand(n, 1, 1, generator=g))
    contrast = 0.3 + 0.5 * torch.rand(n, 1, 1, generator=g)
    wave = (pitch * math.pi * (rows * turn.cos() + columns * turn.sin()) / 2 + phase).sin()
    return eight_bits(contrast * wave.sign())[:, None]


def shaken(net, std=0.3, seed=0):
    """The network with all weights moved: at the start its couplings are the identity.

    By `std` over the root of what a weight is summed with, so that matrices stay well conditioned.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            p += std * noise / (p[0].numel() if p.ndim else 1) ** 0.5
    return net
