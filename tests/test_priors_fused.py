"""Total variation in one pass: as Python, as machine code where numba is, and when it is used."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch.autograd import forward_ad

from measurand.priors import ISOTROPIC, Variation, fused, tv_prox, variation
from measurand.priors.differences import Grid


@pytest.fixture(params=["as Python", "compiled"])
def run(request):
    if request.param == "as Python":
        return fused.descend
    pytest.importorskip("numba")
    return fused.compiled()


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "shape, kind",
    [
        ((2, 3, 9, 7), ISOTROPIC),
        ((2, 1, 8, 5), Variation(axis_weights=(0.5, 2.0))),
        ((2, 2, 3, 4, 6), Variation(axes=(-2, -1))),
        ((2, 1, 1, 5), ISOTROPIC),
        ((2, 1, 5, 1), ISOTROPIC),
    ],
)
@pytest.mark.parametrize("tau", [0.1, 0.0, 1e-30, [0.02, 3.0]])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # Python's scalars tell of underflow
def test_one_pass_is_the_closed_form_to_rounding(run, shape, kind, tau):
    v, radius = randn(*shape), torch.as_tensor(tau, dtype=torch.float32)
    radius = radius.reshape(-1, *[1] * (len(shape) - 1))
    x = fused.one_pass(run, Grid(kind, v), v, radius)
    exact = tv_prox(v.double(), radius.flatten().double(), kind)
    torch.testing.assert_close(x, exact.float(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_is_not_finite_spreads_as_in_torch(run, value):
    v = randn(1, 1, 6, 6)
    v[0, 0, 2, 3] = value
    x = fused.one_pass(run, Grid(ISOTROPIC, v), v, torch.full((1, 1, 1, 1), 0.1))
    torch.testing.assert_close(x, tv_prox(v, 0.1), equal_nan=True)


def test_images_that_are_not_contiguous(run):
    v = randn(1, 6, 5, 2).permute(0, 3, 2, 1)
    x = fused.one_pass(run, Grid(ISOTROPIC, v), v, torch.full((1, 1, 1, 1), 0.1))
    torch.testing.assert_close(x, tv_prox(v, 0.1), rtol=1e-6, atol=1e-6)


def test_the_image_and_its_kind_decide_what_is_done_in_one_pass(monkeypatch):
    calls = []

    def counted(*arrays):
        calls.append(1)
        fused.descend(*arrays)

    monkeypatch.setattr(variation, "compiled", lambda: counted)
    monkeypatch.setattr(fused, "_LARGE", 100)
    v = randn(1, 2, 8, 8)
    for kind in (ISOTROPIC, Variation(axis_weights=(1.0, 2.0)), Variation(axes=(2, 3))):
        calls.clear()
        x = tv_prox(v, 0.1, kind)
        assert calls == [1]
        torch.testing.assert_close(x, tv_prox(v.double(), 0.1, kind).float())
    calls.clear()
    tv_prox(v[:, :1], 0.1)  # small
    tv_prox(v, 0.1, inner=1)
    tv_prox(v.bfloat16(), 0.1)
    tv_prox(torch.complex(v, v), 0.1)
    for other in ({"isotropic": False}, {"joint": True}, {"periodic": True}, {"axes": (-1,)}):
        tv_prox(v, 0.1, Variation(**other))
    tv_prox(v, 0.1, Variation(axes=(3, 2), axis_weights=(1.0, 2.0)))
    tv_prox(v.clone().requires_grad_(), 0.1).sum().backward()
    assert not calls
    with torch.no_grad():
        tv_prox(v.clone().requires_grad_(), 0.1)
    assert calls == [1]


def test_without_numba_torch_does_it(monkeypatch, recwarn):
    monkeypatch.setitem(sys.modules, "numba", None)
    assert fused.compiled.__wrapped__() is None
    assert not recwarn


def test_where_nothing_compiled_can_be_kept_torch_does_it_and_says_so(monkeypatch):
    def njit(*args, **options):
        raise RuntimeError("cannot cache function 'descend': no locator available")

    monkeypatch.setitem(sys.modules, "numba", SimpleNamespace(njit=njit))
    with pytest.warns(UserWarning, match="no compiled code from numba.*no locator.*torch does"):
        assert fused.compiled.__wrapped__() is None


def test_forward_derivatives_are_not_lost():
    v = randn(1, 1, 1024, 1024)
    assert fused.fits(Grid(ISOTROPIC, v), v)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(v, torch.ones_like(v))
        assert not fused.fits(Grid(ISOTROPIC, dual), dual)
