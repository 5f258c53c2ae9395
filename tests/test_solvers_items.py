"""The result of an item is that which it has alone, whatever noise its neighbours have."""

import pytest
import torch

from measurand.measurement import Measurement
from measurand.noises import Gaussian as GaussianNoise
from measurand.operators import Blur, CartesianMRI, FunctionOperator, GaussianBlur, Mask
from measurand.operators.base import Identity
from measurand.priors import CallableDenoiser, FourierGaussian, TotalVariation
from measurand.solvers import (
    ADMM,
    FISTA,
    HQS,
    PGM,
    RED,
    Annealed,
    Constant,
    GradientRED,
    first_guess,
    noise_in_image,
)
from measurand.tensors import generators, randn_like

F64 = torch.float64
SHAPE = (1, 8, 8)
METHODS = [
    HQS(steps=6),
    HQS(steps=6, levels=Constant()),
    ADMM(steps=6),
    ADMM(steps=6, levels=Annealed(low=0.5)),
    RED(steps=6),
    RED(steps=6, levels=Annealed()),
    GradientRED(steps=6),
    PGM(steps=6),
    FISTA(steps=6),
]


def prior():
    f = torch.meshgrid(*[torch.fft.fftfreq(8, dtype=F64)] * 2, indexing="ij")
    variances = 0.05 / (0.05 + sum(axis**2 for axis in f)) ** 1.5
    return FourierGaussian(torch.zeros(1, *SHAPE, dtype=F64), variances)


def measured(A, sigma, n=2):
    y = A(prior().sample(n, generators(0, n)))
    return Measurement(A, GaussianNoise(sigma), y + 0.1 * randn_like(y, generators(1, n)))


def unequal_noise():
    return measured(GaussianBlur(SHAPE, 0.7).double(), torch.tensor([0.02, 0.4]))


def unequal_operators():
    kernels = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    kernels[1] *= 7
    return measured(Blur(SHAPE, kernels), 0.1)


@pytest.mark.parametrize("method", METHODS, ids=str)
@pytest.mark.parametrize("problem", [unequal_noise, unequal_operators])
@pytest.mark.parametrize("plugged", [False, True], ids=["prior", "denoiser"])
def test_items_do_not_depend_on_their_neighbours(method, problem, plugged):
    m, model = problem(), prior()
    if plugged:
        model = CallableDenoiser(model.denoise, range=(-1.0, 1.0))
    together = method(m, model, generator=generators(0, 2))
    for i in range(2):
        alone = method(m[i], model, generator=generators(0, 2)[i])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", [PGM(steps=4), FISTA(steps=4)], ids=str)
def test_items_have_their_own_steps_with_total_variation(method):
    m, model = unequal_noise(), TotalVariation(weight=2.0, tol=1e-10)
    together = method(m, model)
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1], method(m[i], model), rtol=1e-4, atol=1e-6)


def test_levels_are_tensors_only_where_items_differ():
    m, model = unequal_noise(), CallableDenoiser(lambda v, s: v)
    for levels in (Annealed(), Constant()):
        for level in levels(m, model, 4, 0.5):
            assert level.sigma.shape == level.r.shape == (2,) and level.sigma.dtype == F64
        alone = [levels(m[i], model, 4, 0.5) for i in range(2)]
        for step, *each in zip(levels(m, model, 4, 0.5), *alone, strict=True):
            assert [float(s) for s in step.sigma] == [one.sigma for one in each]
            assert all(isinstance(one.sigma, float) for one in each)
    assert isinstance(noise_in_image(m[0]), float) and noise_in_image(m).shape == (2,)
    one = measured(m.operator, 0.1)
    assert isinstance(HQS().levels(one, model, 4, 0.5)[0].sigma, float)
    seen = []
    HQS(steps=3)(m, prior(), callback=seen.append)
    assert all(step.level.shape == (2,) for step in seen)


def test_a_start_without_holes_does_not_see_those_of_its_neighbour():
    mask = torch.ones(2, 1, 8, 8, dtype=F64)
    mask[1, :, 2:6] = 0
    m = measured(Mask(SHAPE, mask), 0.1)
    torch.testing.assert_close(first_guess(m)[:1], m.y[:1])
    torch.testing.assert_close(first_guess(m)[1:], first_guess(m[1]))


def no_centre():
    return CartesianMRI((1, 8, 8), torch.arange(8) % 8 != 4)


def some_without_centre():
    masks = torch.ones(2, 1, 1, 8)
    masks[1, ..., 4] = 0
    return CartesianMRI((1, 8, 8), masks)


def laplacian():
    return Blur(SHAPE, torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]]) * 0.3)


@pytest.mark.parametrize(
    "build", [no_centre, some_without_centre, laplacian, FunctionOperator.example]
)
@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_an_operator_that_does_not_see_a_constant_has_a_start(build, scale):
    A = build()
    blank = A.blank_input(2)
    y = A(randn_like(blank, generators(0, 2)))
    A = scale * A
    m = Measurement(A, GaussianNoise(0.1), scale * y)
    guess = first_guess(m)
    assert bool(guess.isfinite().all())
    blind = slice(1, None) if build is some_without_centre else slice(None)
    torch.testing.assert_close(guess[blind], (m.adjoint_y / A.norm**2)[blind])
    for i in range(2):
        torch.testing.assert_close(first_guess(m[i]), guess[i : i + 1], rtol=1e-4, atol=1e-5)


def test_a_start_of_an_identity_is_the_data():
    m = measured(Identity(SHAPE), torch.tensor([0.1, 0.2]))
    assert torch.equal(first_guess(m), m.y)
