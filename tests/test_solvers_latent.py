"""RELD: with linear decoders and denoisers its result is known; see the page on the method."""

import pytest
import torch
from torch import nn

import measurand as ms
from measurand.operators import GaussianBlur, Identity, Mask
from measurand.priors import CallableDenoiser, LatentPrior, PixelCode
from measurand.solvers import RELD, Constant, EncodedRELD
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


def test_in_pixels_it_is_the_analytic_map():
    """D = E = identity and f of pixels N(0, c^2): t is a Wiener estimate."""
    c, sigma, level, weight = 0.5, 0.3, 0.2, 1.5
    prior = PixelCode(CallableDenoiser(lambda v, s: v * c**2 / (c**2 + s**2)))
    y = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    m = ms.Measurement(Identity((1, 8, 8)), ms.noises.Gaussian(sigma=sigma), y)
    t = RELD(steps=200, weight=weight, levels=Constant(level=level))(m, prior)
    shrink = 1 / (1 + weight * level**2 / (c**2 + level**2))  # v = shrink t
    gain = (1 - shrink) / level**2  # of t in the gradient of |t - v|^2 / (2 r^2)
    assert torch.allclose(t, y / (1 + sigma**2 * gain), atol=1e-5)


def test_without_a_prior_it_tends_to_least_squares():
    prior, (m, A) = PixelCode(CallableDenoiser(lambda v, s: 0 * v)), blurred(sigma=0.1)
    t = RELD(steps=300, weight=0.0, levels=Constant(level=2.0))(m, prior)
    assert torch.allclose((A @ t.flatten()), m.y.flatten(), atol=1e-4)


def test_with_a_strong_prior_codes_are_fixed_points_of_it():
    prior, (m, _) = Linear(), blurred()
    seen = []
    method = RELD(steps=60, weight=1e6, levels=Constant(level=LEVEL), step=1.0)
    method(m, prior, callback=lambda s: seen.append(prior.encode(s.x0)))
    assert float((seen[-1] - prior.denoise_code(seen[-1], 1.0)).norm()) < 1e-4  # only zero is


def test_a_product_with_the_jacobian_against_finite_differences():
    prior = LatentPrior.example().double()
    z = torch.randn(2, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    like = torch.zeros(2, 1, 10, 11, dtype=torch.float64)
    u, d = torch.randn_like(like), torch.randn_like(z)
    image = Decoded(prior, z, like)
    ahead, behind = (Decoded(prior, z + k * 1e-5 * d, like).x for k in (1, -1))
    along = ((ahead - behind) / 2e-5 * u).sum()
    assert float((image.pullback(u) * d).sum()) == pytest.approx(float(along), rel=1e-6)


def test_the_norm_of_the_jacobian_of_each_item():
    prior = LatentPrior.example().double()
    z = torch.randn(2, 2, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = squared_norm(prior, z, iterations=200)
    for item, value in zip(z.split(1), found, strict=True):
        J = torch.autograd.functional.jacobian(lambda v: prior.decode(v).flatten(), item)
        largest = torch.linalg.matrix_norm(J.flatten(1), 2) ** 2
        assert float(value) == pytest.approx(float(largest), rel=1e-3)
    assert float(squared_norm(Linear(), torch.ones(1, CODE, 1, 1).double())) == pytest.approx(1)


def photograph(n=1, size=(30, 41)):
    random = torch.Generator().manual_seed(2)
    x = torch.randn(n, 1, *size, generator=random)
    return nn.functional.avg_pool2d(x, 5, 1, 2)


@pytest.mark.parametrize("method", [RELD(steps=4), EncodedRELD(steps=4)])
def test_sizes_that_the_code_does_not_divide_and_batches(method):
    x = photograph(2)
    operator = Mask((1, 30, 41), (torch.rand(1, 1, 30, 41) > 0.3).float())
    noise = ms.noises.Gaussian(sigma=torch.tensor([0.05, 0.2]))
    m = ms.Measurement(operator, noise, operator(x))
    prior, seen = LatentPrior.example().requires_grad_(False), []
    t = method(m, prior, callback=seen.append)
    assert t.shape == x.shape and len(seen) == method.rounds == 4
    assert torch.equal(seen[-1].x, t) and seen[-1].x0.shape == x.shape
    assert seen[0].level.shape == (2,)
    alone = torch.cat([method(m[i], prior) for i in range(2)])
    assert torch.allclose(alone, t, atol=1e-4)


@pytest.mark.parametrize("method", [RELD(steps=4), EncodedRELD(steps=4)])
def test_data_without_noise_are_met(method):
    x = photograph()
    m = ms.Measurement(Identity(x.shape[1:]), ms.noises.Gaussian(sigma=0.0), x)
    t = method(m, LatentPrior.example().requires_grad_(False))
    assert torch.allclose(t, x, atol=1e-3)


def test_what_is_no_latent_prior_is_refused():
    x = photograph()
    m = ms.Measurement(Identity(x.shape[1:]), ms.noises.Gaussian(sigma=0.1), x)
    with pytest.raises(TypeError, match="RELD: got a EDMDenoiser, .* wanted a Latent"):
        RELD()(m, ms.priors.EDMDenoiser.example())
    with pytest.raises(TypeError, match="HQS: got a LatentPrior, .* wanted a Denoiser"):
        ms.solvers.HQS()(m, LatentPrior.example())
    y = x.to(torch.complex64)
    operator = Identity(x.shape[1:], torch.complex64)
    m = ms.Measurement(operator, ms.noises.ComplexGaussian(sigma=0.1), y)
    with pytest.raises(TypeError, match="LatentPrior of real images for a measurement of complex"):
        RELD()(m, LatentPrior.example())
    color = x.expand(-1, 3, -1, -1).contiguous()
    m = ms.Measurement(Identity(color.shape[1:]), ms.noises.Gaussian(sigma=0.1), color)
    with pytest.raises(ValueError, match=r"wants real \(B, 1, H, W\)"):
        RELD()(m, LatentPrior.example())
    for wrong in ({"step": 0.0}, {"weight": -1.0}, {"steps": 0}, {"halvings": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            RELD(**wrong)


def test_one_step_is_one_decoding_one_product_and_one_denoised_code():
    counts = {"decode": 0, "denoise_code": 0, "encode": 0}

    class Counting(Linear):
        def decode(self, z):
            counts["decode"] += 1
            return super().decode(z)

        def encode(self, x):
            counts["encode"] += 1
            return super().encode(x)

        def denoise_code(self, z, sigma):
            counts["denoise_code"] += 1
            return super().denoise_code(z, sigma)

    (m, _), steps = blurred(), 10
    linear(steps)(m, Counting())
    # one more decoding for the norm of the Jacobian; the last t needs no further code
    assert counts == {"decode": steps + 1, "denoise_code": steps - 1, "encode": 1}
    EncodedRELD(steps=steps)(m, Counting())
    assert counts["encode"] == 1 + steps
