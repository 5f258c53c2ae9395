"""Operators that say in which basis they are diagonal, and those that say that they are not."""

import pytest
import torch

from measurand import operators
from measurand.noises import ComplexGaussian, Gaussian
from measurand.operators import (
    SENSE,
    Blur,
    CartesianMRI,
    FourierMask,
    GaussianBlur,
    Identity,
    Mask,
    MotionBlur,
    Scaled,
    gaussian_kernel,
    random_lines,
    random_mask,
)
from measurand.tensors import generators, inner, randn_like

LINES = random_lines((6, 9), 2.0, 0.2, generator=generators(0, 2))
KNOWN = {
    "identity": lambda: Identity((2, 5, 4)),
    "complex identity": lambda: Identity((1, 5, 4), torch.complex64),
    "mask": lambda: Mask((2, 3, 4), random_mask((2, 3, 4), 0.5, n=2)),
    "gains": lambda: Mask((2, 3, 4), torch.tensor([0.5, -2.0, 0.0, 1.0])),
    "complex mask": lambda: Mask((1, 4, 4), random_mask((1, 4, 4), 0.5), torch.complex64),
    "Fourier mask": lambda: FourierMask((2, 6, 9), LINES),
    "MRI": lambda: CartesianMRI((1, 6, 9), LINES),
    "one coil": lambda: SENSE(
        (1, 6, 9), 0.7 * torch.exp(1j * torch.linspace(0, 5, 54).reshape(1, 6, 9)), LINES
    ),
    "blur": Blur.example,
    "Gaussian blur": GaussianBlur.example,
    "motion blur": MotionBlur.example,
    "scaled": lambda: Scaled(GaussianBlur((1, 6, 8), 0.8), -3.0),
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_basis_is_orthonormal_and_the_gram_operator_diagonal_in_it(name):
    operator = KNOWN[name]().double()
    basis, n = operator.diagonal(), max(operator.batch, 2)
    x = randn_like(operator.blank_input(n), generators(1, n))
    c = basis.analysis(x)
    assert basis.values.shape[1:] == c.shape[1:] and len(basis.values) in (1, operator.batch)
    assert torch.allclose(basis.synthesis(c), x, atol=1e-12)
    assert torch.allclose(inner(c, c), inner(x, x), rtol=1e-12)
    gram = basis.synthesis(basis.values.square() * c)
    assert torch.allclose(gram, operator.gram(x), atol=1e-11)


@pytest.mark.parametrize("name", KNOWN)
def test_data_without_noise_give_the_coordinates_that_are_seen(name):
    operator = KNOWN[name]().double()
    basis, n = operator.diagonal(), max(operator.batch, 2)
    x = randn_like(operator.blank_input(n), generators(1, n))
    c = basis.coordinates(operator.adjoint(operator(x)))
    seen = basis.seen(x.dtype).expand(c.shape)
    assert seen.any() and torch.allclose(c[seen], basis.analysis(x)[seen], atol=1e-8)
    assert not c[~seen].any()


def test_what_a_narrow_type_cannot_tell_from_zero_is_not_seen():
    operator = Mask((1, 1, 3), torch.tensor([1.0, 1e-3, 0.0]))
    basis = operator.diagonal()
    assert basis.seen(torch.float32).flatten().tolist() == [True, False, False]
    wide = operator.double().diagonal()
    assert wide.seen(torch.float64).flatten().tolist() == [True, True, False]
    assert wide.seen(torch.complex64).flatten().tolist() == [True, False, False]


@pytest.mark.parametrize("name", ["gains", "Fourier mask", "MRI", "one coil", "blur", "scaled"])
def test_white_noise_of_the_data_stands_as_sigma_over_s_in_the_coordinates(name):
    """Measured by what white noise in the image leaves there."""
    operator = KNOWN[name]().double()[0]
    basis, n = operator.diagonal(), 20000
    zeros = torch.zeros(n, *operator.out_shape, dtype=torch.float64)
    if operator.out_dtype.is_complex:
        noise = ComplexGaussian(0.3)(zeros.to(torch.complex128), torch.Generator().manual_seed(0))
    else:
        noise = Gaussian(0.3)(zeros, torch.Generator().manual_seed(0))
    one = basis.analysis(randn_like(operator.blank_input(n), torch.Generator().manual_seed(1)))
    seen = basis.seen(torch.float64)[0]
    found = basis.coordinates(operator.adjoint(noise)).abs().square().mean(0)[seen]
    wanted = (one.abs().square().mean(0)[seen]) * (0.3 / basis.values[0][seen]) ** 2
    assert torch.allclose(found, wanted, rtol=0.08)


def test_all_others_say_which_operators_can():
    known = {type(make()) for make in KNOWN.values()}
    refusing = []
    for name in operators.__all__:
        kind = getattr(operators, name)
        if isinstance(kind, type) and hasattr(kind, "example") and kind not in known:
            if kind is operators.LinearOperator:
                continue
            example = kind.example()
            with pytest.raises(TypeError, match="GaussianBlur") as error:
                example.diagonal()
            assert type(example).__name__ in str(error.value)
            refusing.append(name)
    assert {"ValidBlur", "ReflectiveBlur", "ParallelCT", "Stacked", "Composed"} <= set(refusing)


def test_several_coils_and_a_coil_that_fades_are_refused():
    for maps in (torch.ones(2, 6, 9), torch.linspace(0.5, 1, 54).reshape(1, 6, 9)):
        with pytest.raises(TypeError, match="one coil of constant magnitude"):
            SENSE((1, 6, 9), maps.to(torch.complex64), LINES).diagonal()


def test_one_kernel_per_item_has_one_row_of_values_per_item():
    blur = Blur((1, 12, 12), gaussian_kernel(torch.tensor([0.6, 1.2])))
    assert blur.diagonal().values.shape == (2, 1, 12, 12)
    assert torch.allclose(blur[1].diagonal().values, blur.diagonal().values[1:])
