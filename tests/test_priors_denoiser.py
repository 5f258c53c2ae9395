"""Capabilities, and denoisers around denoisers."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from measurand import noises
from measurand.measurement import Measurement
from measurand.operators import Identity
from measurand.priors import (
    CallableDenoiser,
    Conditioned,
    Counted,
    Gaussian,
    Rescaled,
    Tiled,
    require,
    score,
)
from measurand.priors.capabilities import Denoiser, Density, Latent, Proximable
from measurand.solvers import HQS

F64 = torch.float64


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def shrink(v, sigma):
    """The denoiser of a unit normal image."""
    sigma = torch.as_tensor(sigma, dtype=v.dtype).reshape(-1, *[1] * (v.ndim - 1))
    return v / (1 + sigma**2)


class OnlyProx:
    def prox(self, v, tau):
        return v


class OnlyLatent:
    range, dtype, factor, error = (-1.0, 1.0), torch.float32, 1, 0.0

    def code_noise(self, sigma):
        return sigma

    def encode(self, x):
        return x

    def decode(self, z):
        return z

    def denoise_code(self, z, sigma):
        return z


class SomeMethod:
    pass


def test_protocols_recognise_what_a_prior_can_do():
    normal = Gaussian(torch.zeros(1, 2), torch.eye(2))
    assert all(isinstance(normal, c) for c in (Denoiser, Proximable, Density))
    assert not isinstance(normal, Latent)
    assert isinstance(OnlyProx(), Proximable) and not isinstance(OnlyProx(), Denoiser)
    assert isinstance(OnlyLatent(), Latent) and not isinstance(OnlyLatent(), Denoiser)
    for prior in (CallableDenoiser(shrink), Counted(normal), Tiled(normal)):
        assert isinstance(prior, Denoiser) and not isinstance(prior, Proximable)


def test_require_says_who_got_what_and_wanted_what():
    require(CallableDenoiser(shrink), Denoiser, by=SomeMethod())
    require(OnlyProx(), Denoiser, Proximable, by=SomeMethod())
    with pytest.raises(TypeError, match="SomeMethod: got a OnlyProx, which is a Proximable; "):
        require(OnlyProx(), Denoiser, by=SomeMethod())
    with pytest.raises(TypeError, match="wanted a Denoiser .* or a Proximable"):
        require(OnlyLatent(), Denoiser, Proximable, by=SomeMethod())
    with pytest.raises(TypeError, match="got a int; wanted a Density"):
        require(3, Density, by=SomeMethod())
    with pytest.raises(TypeError, match="of real images for a measurement of complex ones"):
        require(CallableDenoiser(shrink), Denoiser, by=SomeMethod(), images=torch.complex64)
    flat = CallableDenoiser(shrink, dtype=torch.complex64)
    with pytest.raises(TypeError, match="of complex images for a measurement of real ones"):
        require(flat, Denoiser, by=SomeMethod(), images=torch.float32)


def test_score_of_a_normal_image():
    v = torch.randn(3, 1, 4, 4, dtype=F64)
    sigma = torch.tensor([0.1, 1.0, 3.0], dtype=F64)
    expected = -v / (1 + sigma.reshape(-1, 1, 1, 1) ** 2)
    assert torch.allclose(score(CallableDenoiser(shrink), v, sigma), expected)


def test_callable_sees_what_the_method_has():
    seen = []
    prior = CallableDenoiser(lambda *given: seen.append(given) or given[0], range=(0.0, 1.0))
    v = torch.rand(1, 1, 2, 2)
    assert prior.denoise(v, 0.3) is v and seen[0][1] == 0.3 and prior.range == (0.0, 1.0)
    prior.denoise(v, 0.3, torch.ones(1))
    assert len(seen[1]) == 3
    with pytest.raises(ValueError, match="wanted the kind of torch.float32"):
        prior.denoise(v.to(torch.complex64), 0.3)


@pytest.mark.parametrize("outside", [(0.0, 255.0), (-3.0, 5.0)])
def test_rescaled_there_and_back(outside):
    prior = CallableDenoiser(shrink, range=(-1.0, 1.0))
    again = Rescaled(Rescaled(prior, outside), (-1.0, 1.0))
    v = torch.randn(2, 1, 3, 3, dtype=F64)
    sigma = torch.tensor([0.2, 0.7], dtype=F64)
    assert torch.allclose(again.denoise(v, sigma), prior.denoise(v, sigma), atol=1e-12)
    with pytest.raises(ValueError, match="any range"):
        Rescaled(CallableDenoiser(shrink, range=None))


@pytest.mark.parametrize("shape", [(40, 57), (16, 100), (33, 16), (16, 16), (9, 70)])
def test_tiles_of_a_pointwise_denoiser_are_invisible(shape):
    prior = CallableDenoiser(shrink)
    v = torch.randn(2, 3, *shape, dtype=F64)
    tiled = Tiled(prior, tile=16, overlap=4)
    assert torch.allclose(tiled.denoise(v, 0.7), prior.denoise(v, 0.7), atol=1e-12)


def blur(v, sigma):
    """A local denoiser: a 5 x 5 mean, with zeros outside."""
    return torch.nn.functional.avg_pool2d(v, 5, stride=1, padding=2)


def test_tiles_of_a_local_denoiser_are_close_and_smooth():
    v = torch.randn(1, 1, 64, 90, dtype=F64).cumsum(-1).cumsum(-2) / 30
    whole = CallableDenoiser(blur).denoise(v, 0.1)
    blended = Tiled(CallableDenoiser(blur), tile=32, overlap=16).denoise(v, 0.1)
    abrupt = Tiled(CallableDenoiser(blur), tile=32, overlap=1).denoise(v, 0.1)
    inside = (slice(None), slice(None), slice(3, -3), slice(3, -3))
    error = (blended - whole)[inside].abs().max()
    assert error < 0.1 * (abrupt - whole)[inside].abs().max()
    assert torch.allclose(blended[..., :12, :12], whole[..., :12, :12], atol=1e-12)


def test_tiles_stay_within_the_size_and_carry_the_condition():
    shapes = []

    def network(v, sigma, condition):
        shapes.append(tuple(v.shape[2:]))
        return v + condition

    v, condition = torch.zeros(1, 1, 40, 20, dtype=F64), torch.randn(1, 1, 40, 20, dtype=F64)
    out = Tiled(CallableDenoiser(network), tile=24, overlap=8).denoise(v, 0.1, condition)
    assert torch.allclose(out, condition, atol=1e-12)
    assert set(shapes) == {(24, 20)} and len(shapes) == 2


def test_tiles_of_volumes_signals_and_complex_images():
    for shape in ((20, 18, 21), (50,)):
        v = torch.randn(1, 2, *shape, dtype=F64)
        tiled = Tiled(CallableDenoiser(shrink), tile=12, overlap=3)
        assert torch.allclose(tiled.denoise(v, 0.5), v / 1.25, atol=1e-12)
    v = torch.randn(1, 1, 30, 30, dtype=torch.complex128)
    prior = CallableDenoiser(lambda v, sigma: v / 1.25, dtype=torch.complex64)
    assert torch.allclose(Tiled(prior, tile=12, overlap=3).denoise(v, 0.5), v / 1.25, atol=1e-12)
    with pytest.raises(ValueError, match="overlap"):
        Tiled(prior, tile=8, overlap=5)
    with pytest.raises(ValueError, match="multiple"):
        Tiled(prior, multiple=0)


def pixels_denoised(tiled, *shape):
    """Pixels given to the denoiser, over those of the image, and the shapes of the tiles."""
    shapes = []
    network = CallableDenoiser(lambda v, sigma: shapes.append(tuple(v.shape[2:])) or v)
    tiled = Tiled(network, tiled.tile, tiled.overlap, tiled.multiple)
    v = torch.randn(1, 1, *shape)
    torch.testing.assert_close(tiled.denoise(v, 0.1), v)
    return sum(map(math.prod, shapes)) / math.prod(shape), set(shapes)


@pytest.mark.parametrize(
    ("shape", "tile", "most"),
    [
        ((520, 520), 512, 1.25),
        ((520, 520), 1024, 1.0),
        ((1024, 1024), 512, 1.3),
        ((1024, 1024), 1024, 1.0),
        ((1025, 1025), 1024, 1.15),
        ((1500, 1500), 1024, 1.05),
        ((2000, 2000), 1024, 1.05),
        ((1531, 77), 1024, 1.08),
        ((601, 1999), 512, 1.25),
    ],
)
def test_tiles_fit_the_image(shape, tile, most):
    """What tiles cost in pixels; 512 of fixed length took 3.9 times an image of 520 x 520."""
    cost, shapes = pixels_denoised(Tiled(CallableDenoiser(shrink), tile), *shape)
    assert 1 <= cost <= most
    assert len(shapes) == 1 and all(
        n == whole if whole <= tile else n % 32 == 0 and n <= tile
        for n, whole in zip(*shapes, shape, strict=True)
    )


@given(
    length=st.integers(1, 5000),
    tile=st.integers(2, 600),
    share=st.floats(0.001, 0.5),
    multiple=st.sampled_from((1, 8, 32, 64)),
)
@settings(max_examples=300, deadline=None)
def test_tiles_cover_an_axis_with_at_least_the_overlap(length, tile, share, multiple):
    overlap = max(1, int(tile * share))
    spans = Tiled(CallableDenoiser(shrink), tile, overlap, multiple)._spans(length)
    assert spans[0].start == 0 and spans[-1].stop == length
    sizes = {span.stop - span.start for span in spans}
    assert len(sizes) == 1 and max(sizes) <= max(tile, min(length, tile))
    for left, right in itertools.pairwise(spans):
        assert left.stop - right.start >= overlap
    # no cover of fewer tiles, and none of shorter ones
    n = len(spans)
    assert n == 1 or (n - 1) * tile - (n - 2) * overlap < length
    assert n == 1 or n * (max(sizes) - multiple) - (n - 1) * overlap < length


@pytest.mark.parametrize("shape", [(41, 57), (33, 100), (40, 24), (97, 32)])
@pytest.mark.parametrize("dtype", [F64, torch.complex128])
def test_tiles_of_a_narrow_receptive_field_equal_the_whole(shape, dtype):
    """The tiles of a 5 x 5 mean differ from it by what two cut pixels weigh in the ramps."""

    def smooth(v, sigma, condition):
        parts = torch.view_as_real(v).movedim(-1, 0) if v.is_complex() else v[None]
        blurred = torch.stack([blur(part, sigma) for part in parts])
        found = torch.complex(*blurred) if v.is_complex() else blurred[0]
        return found + condition

    prior = CallableDenoiser(smooth, dtype=dtype)
    v = torch.randn(2, 1, *shape, dtype=dtype)
    condition = torch.randn(2, 1, *shape, dtype=dtype)
    whole = prior.denoise(v, 0.1, condition)
    tiled = Tiled(prior, tile=32, overlap=16, multiple=4).denoise(v, 0.1, condition)
    assert tiled.dtype == dtype and tiled.shape == v.shape
    assert (tiled - whole).norm() < 0.01 * whole.norm()
    assert (tiled - whole).abs().max() < 0.1  # of images of unit variance
    assert torch.allclose(tiled[..., :5, :5], whole[..., :5, :5], atol=1e-12)


def test_counted():
    prior = Counted(CallableDenoiser(shrink))
    v = torch.randn(4, 1, 2, 2)
    for _ in range(3):
        prior.denoise(v, 0.1)
    prior.denoise(v[:2], 0.1)
    assert (prior.calls, prior.items, prior.batch) == (4, 14, 4)
    assert prior.nfe == 3.5
    assert prior.range == (-1.0, 1.0) and prior.dtype == torch.float32
    tiled = Counted(Tiled(CallableDenoiser(shrink), tile=2, overlap=1))
    tiled.denoise(torch.randn(1, 1, 6, 6), 0.1)
    assert tiled.nfe == 1


BAD_LEVELS = [
    -1.0,
    -1,
    float("nan"),
    float("inf"),
    torch.tensor([0.1, -0.1]),
    torch.tensor(torch.nan),
]


@pytest.mark.parametrize("sigma", BAD_LEVELS)
def test_levels_are_finite_and_not_negative(sigma):
    prior = CallableDenoiser(shrink)
    with pytest.raises(ValueError, match="CallableDenoiser: got sigma .*wanted a finite"):
        prior.denoise(torch.zeros(2, 1, 8, 8), sigma)


def test_integers_are_no_images():
    prior = CallableDenoiser(shrink)
    for dtype in (torch.uint8, torch.int64, torch.bool):
        with pytest.raises(ValueError, match=r"CallableDenoiser: got images of .*in \[-1, 1\]"):
            prior.denoise(torch.zeros(2, 1, 8, 8, dtype=dtype), 0.1)
    for dtype in (torch.float64, torch.float16):
        prior.denoise(torch.zeros(2, 1, 8, 8, dtype=dtype), 0.0)


def seeing(v, sigma, condition):
    return v / 2 + condition


def test_a_prior_that_holds_its_condition():
    prior = CallableDenoiser(seeing)
    v = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    one, each = torch.randn(1, 1, 8, 8), torch.randn(3, 1, 8, 8)
    for condition in (one, each):
        held = Conditioned(prior, condition)
        assert isinstance(held, Denoiser) and held.range == prior.range
        assert torch.equal(held.denoise(v, 0.1), v / 2 + condition)
        twice = held.repeat(2).denoise(v.repeat_interleave(2, 0), 0.1)
        assert torch.equal(twice, held.denoise(v, 0.1).repeat_interleave(2, 0))
    with pytest.raises(ValueError, match="got 2 images for 3 conditions"):
        Conditioned(prior, each).denoise(v[:2], 0.1)
    with pytest.raises(ValueError, match="holds one already"):
        Conditioned(prior, each).denoise(v, 0.1, one)
    with pytest.raises(ValueError, match="leading size"):
        Conditioned(prior, torch.tensor(1.0))


def test_a_condition_is_cut_with_its_image():
    v, condition = torch.randn(1, 1, 40, 30), torch.randn(1, 1, 40, 30)
    tiled = Conditioned(Tiled(CallableDenoiser(seeing), 16, overlap=4, multiple=4), condition)
    torch.testing.assert_close(tiled.denoise(v, 0.1), v / 2 + condition)


def test_a_prior_with_a_condition_is_ready_for_any_method():
    y = torch.randn(1, 1, 8, 8)
    m = Measurement(Identity((1, 8, 8)), noises.Gaussian(0.1), y)
    held = Conditioned(CallableDenoiser(seeing), torch.ones(1, 1, 8, 8)).to(torch.bfloat16)
    assert HQS(steps=3)(m, held).shape == y.shape
    complex_ = Conditioned(CallableDenoiser(seeing, dtype=torch.complex64), 1j * torch.ones(1, 1))
    found = complex_.to(torch.bfloat16).denoise(torch.zeros(2, 1, dtype=torch.complex64), 0.1)
    assert torch.equal(found, 1j * torch.ones(2, 1))
