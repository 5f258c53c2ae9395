import math

import pytest
import torch

from measurand.priors import Proximable, Wavelets
from measurand.priors.wavelets import daubechies, wavelet_inverse, wavelet_transform


def images(dtype=torch.float64, shape=(2, 3, 16, 24)):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def test_filters_are_those_of_the_tables():
    assert daubechies(1) == pytest.approx([math.sqrt(0.5)] * 2)
    r = math.sqrt(3)
    two = [(1 + r), (3 + r), (3 - r), (1 - r)]  # Daubechies 1988, N = 2
    found = daubechies(2)
    assert min(found, found[::-1]) == pytest.approx(
        min([v / (4 * math.sqrt(2)) for v in two], [v / (4 * math.sqrt(2)) for v in two[::-1]])
    )


@pytest.mark.parametrize("moments", range(1, 11))
def test_filters_are_orthonormal_with_vanishing_moments(moments):
    h = torch.tensor(daubechies(moments), dtype=torch.float64)
    for shift in range(0, len(h), 2):
        assert float(h[shift:] @ h[: len(h) - shift]) == pytest.approx(float(shift == 0), abs=1e-7)
    high = h.flip(0) * torch.tensor([(-1.0) ** k for k in range(len(h))]).double()
    t = torch.arange(len(h)).double() / len(h)
    for power in range(moments):
        assert float((high * t**power).sum()) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("moments", [1, 2, 4])
def test_the_transform_is_orthonormal(dtype, moments):
    x = images(dtype)
    c, (h, w) = wavelet_transform(x, moments, 3)
    assert (h, w) == (2, 3)
    assert torch.allclose(c.abs().square().sum(), x.abs().square().sum())
    assert torch.allclose(wavelet_inverse(c, moments, 3), x, atol=1e-10)


def test_smooth_images_have_no_details():
    x = torch.full((1, 1, 32, 32), 0.7, dtype=torch.float64)
    c, (h, w) = wavelet_transform(x, 4, 4)
    assert torch.allclose(c[..., :h, :w], x[..., :h, :w] * 2**4)
    c[..., :h, :w] = 0
    assert c.abs().max() < 1e-9
    assert float(Wavelets().value(x)) < 1e-7


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_prox_is_the_minimiser(dtype):
    """With one shift the map is exact: no nearby image has a smaller objective."""
    prior, v, tau = Wavelets(0.7, shifts=1, levels=2), images(dtype), torch.tensor([0.3, 1.0])
    x = prior.prox(v, tau)

    def objective(u):
        return prior.value(u) * tau + 0.5 * (u - v).abs().square().flatten(1).sum(1)

    for seed in range(20):
        d = torch.randn(x.shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))
        assert (objective(x + 1e-3 * d) > objective(x)).all()
    assert torch.equal(prior.prox(v[1:], 1.0), x[1:])


@pytest.mark.parametrize("shifts", [1, 4])
def test_prox_does_not_expand(shifts):
    prior, a = Wavelets(0.5, shifts=shifts), images()
    b = a + 0.3 * images(shape=(2, 3, 16, 24)).flip(0)
    gap, moved = a - b, prior.prox(a, 1.0) - prior.prox(b, 1.0)
    assert (moved * gap).sum() >= moved.square().sum() - 1e-9


def test_sizes_and_weights_that_cannot_be():
    assert isinstance(Wavelets(), Proximable)
    with pytest.raises(ValueError, match="15 x 24 pixels, wanted even"):
        Wavelets().prox(images()[:, :, 1:], 1.0)
    with pytest.raises(ValueError, match="got weight -1"):
        Wavelets(-1)
    with pytest.raises(ValueError, match="11 vanishing moments"):
        daubechies(11)
