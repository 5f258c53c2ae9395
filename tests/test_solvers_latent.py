"""RELD: with linear decoders and denoisers its result is known; see the page on the method."""

import math

import pytest
import torch
from torch import nn

import measurand as ms
from measurand.operators import GaussianBlur, Identity, Mask
from measurand.priors import CallableDenoiser, LatentPrior, PixelCode
from measurand.solvers import RED, RELD, Constant, EncodedRELD
from measurand.solvers.latent import Decoded, squared_norm
from measurand.tensors import generators, randn_like

SIDE, CODE = 8, 24


class Linear:
    """Images of 64 pixels through codes of 24 numbers: D with orthonormal columns, E = D^T."""

    range, dtype, factor, error = (-1.0, 1.0), torch.float64, SIDE, 0.0

    def __init__(self, seed=0):
        random = torch.Generator().manual_seed(seed)
        square = torch.randn(SIDE * SIDE, CODE, generator=random, dtype=torch.float64)
        self.D = torch.linalg.qr(square)[0]
        basis = torch.linalg.qr(torch.randn(CODE, CODE, generator=random, dtype=torch.float64))[0]
        self.W = basis @ torch.diag(torch.linspace(0.1, 0.8, CODE).double()) @ basis.T

    def code_noise(self, sigma):
        return sigma

    def encode(self, x):
        return (x.flatten(1) @ self.D)[..., None, None]

    def decode(self, z):
        return (z.flatten(1) @ self.D.T).reshape(-1, 1, SIDE, SIDE)

    def denoise_code(self, z, sigma):
        return (z.flatten(1) @ self.W)[..., None, None]


def blurred(n=1, sigma=1.0):
    """A blurred random image in double precision, and the matrix of the blur."""
    operator = GaussianBlur((1, SIDE, SIDE), sigma=0.6).double()
    noise = ms.noises.Gaussian(sigma=torch.tensor(sigma, dtype=torch.float64))
    blank = torch.zeros(n, 1, SIDE, SIDE, dtype=torch.float64)
    x = randn_like(blank, generators(3, n))
    basis = torch.eye(SIDE * SIDE, dtype=torch.float64).reshape(-1, 1, SIDE, SIDE)
    matrix = operator(basis).flatten(1).T
    return ms.Measurement(operator, noise, operator(x)), matrix


MU, LAM = 0.5, 0.05
LEVEL = MU**-0.5  # 1 / r^2 = mu; weight / s^2 = lam


def joint_minimizer(prior, measurement, A, mu=MU, lam=LAM):
    """t and v of min 1/2 |A t - y|^2 + mu/2 |t - D v|^2 + lam/2 v^T (I - W) v, solved at once."""
    D, W, n = prior.D, prior.W, SIDE * SIDE
    top = torch.cat((A.T @ A + mu * torch.eye(n), -mu * D), 1)
    low = torch.cat((-mu * D.T, mu * torch.eye(CODE) + lam * (torch.eye(CODE) - W)), 1)
    y = measurement.y.flatten()
    right = torch.cat((A.T @ y, torch.zeros(CODE, dtype=torch.float64)))
    both = torch.linalg.solve(torch.cat((top, low)), right)
    return both[:n], both[n:]


def objective(prior, measurement, A, t, v):
    y, D = measurement.y.flatten(), prior.D
    data = (A @ t - y).square().sum() / 2 + MU * (t - D @ v).square().sum() / 2
    return float(data + LAM * (v @ (v - prior.W @ v)) / 2)


def largest_eigenvalue(prior, A):
    """Of S = mu I - mu^2 D^T (A^T A + mu I)^-1 D + lam (I - W)."""
    inner = torch.linalg.solve(A.T @ A + MU * torch.eye(len(A)).double(), prior.D)
    S = MU * torch.eye(CODE) - MU**2 * prior.D.T @ inner + LAM * (torch.eye(CODE) - prior.W)
    return float(torch.linalg.eigvalsh(S)[-1])


def linear(steps, step=1.0, **options):
    return RELD(steps=steps, weight=LAM / MU, levels=Constant(level=LEVEL), step=step, **options)


def test_converges_to_the_joint_minimizer_without_a_rise():
    prior, (m, A) = Linear(), blurred()
    seen = []
    t = linear(400)(m, prior, callback=lambda s: seen.append((s.x.flatten(), s.x0.flatten())))
    t_best, v_best = joint_minimizer(prior, m, A)
    values = [objective(prior, m, A, t, prior.D.T @ image) for t, image in seen]
    assert all(b <= a + 1e-12 for a, b in zip(values, values[1:], strict=False))
    assert values[-1] >= objective(prior, m, A, t_best, v_best) - 1e-12
    assert float((seen[199][0] - t_best).norm() / t_best.norm()) < 1e-6
    assert float((t.flatten() - t_best).norm() / t_best.norm()) < 1e-9
    assert float((seen[-1][1] - prior.D @ v_best).norm() / v_best.norm()) < 1e-9


def test_the_limit_of_the_step_is_that_of_the_reduced_hessian():
    prior, (m, A) = Linear(), blurred()
    unit = (MU + LAM) / largest_eigenvalue(prior, A)  # 1 / L_eff in units of 1 / (mu + lam)
    assert unit > 1.2
    best, _ = joint_minimizer(prior, m, A)

    def far(step, steps=1500, **options):
        t = linear(steps, step * unit, halvings=0, **options)(m, prior)
        return float((t.flatten() - best).norm() / best.norm())

    assert far(1.9) < 1e-6
    assert far(2.1) > 1e3 * far(2.1, steps=30) or far(2.1) > 1e3
    guarded = linear(1500, 2.1 * unit)(m, prior)  # halved, and so it converges
    assert float((guarded.flatten() - best).norm() / best.norm()) < 1e-6


def test_with_an_isometry_both_variants_are_the_same():
    prior, (m, _) = Linear(), blurred()
    a = linear(20)(m, prior)
    b = EncodedRELD(steps=20, weight=LAM / MU, levels=Constant(level=LEVEL))(m, prior)
    assert torch.allclose(a, b, atol=1e-6) and not torch.allclose(a, blurred()[0].y, atol=1e-2)
