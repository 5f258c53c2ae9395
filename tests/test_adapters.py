import numpy as np
import pytest
import scipy.sparse
import torch
from torch import nn

import measurand as ms
from measurand.operators import GaussianBlur
from measurand.priors import CallableDenoiser

SHAPE = (1, 6, 5)


def image(n=2, dtype=torch.float32):
    return torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=dtype)


def rows(x):
    return x[..., ::2, :]


def rows_back(y):
    return torch.stack([y, torch.zeros_like(y)], -2).flatten(-3, -2)


def test_a_pair_of_functions():
    a = ms.as_operator((rows, rows_back), SHAPE)
    assert a.out_shape == (1, 3, 5)
    assert torch.equal(a(image()), rows(image()))


def test_a_wrong_adjoint_is_refused_at_once():
    with pytest.raises(ValueError, match="adjoint that is none"):
        ms.as_operator((rows, lambda y: 2 * rows_back(y)), SHAPE)
    with pytest.raises(ValueError, match="not linear"):
        ms.as_operator((lambda x: x.square(), lambda y: y), SHAPE)


def test_one_function():
    a = ms.as_operator(lambda x: x.cumsum(-1), SHAPE)
    assert torch.allclose(a.H(image()), image().flip(-1).cumsum(-1).flip(-1), atol=1e-5)


def test_matrices_of_numpy_scipy_and_torch():
    dense = np.random.default_rng(0).standard_normal((7, 30))
    wanted = torch.from_numpy(dense).float() @ image().flatten(1).T
    for matrix in (dense, scipy.sparse.csr_array(dense), torch.from_numpy(dense)):
        assert torch.allclose(ms.as_operator(matrix, SHAPE)(image()), wanted.T, atol=1e-5)


def test_an_operator_of_deepinverse():
    class Physics:  # what the methods of its physics look like
        def A(self, x):  # noqa: N802
            return 3 * x

        def A_adjoint(self, y):  # noqa: N802
            return 3 * y

    assert torch.equal(ms.as_operator(Physics(), SHAPE)(image()), 3 * image())


@pytest.mark.parametrize("ishape", [SHAPE, SHAPE[1:]])
def test_an_operator_of_sigpy(ishape):
    class Linop:  # what a sigpy operator looks like: one array, no batch
        def __init__(self, matrix, ishape, oshape):
            self.matrix, self.ishape, self.oshape = matrix, ishape, oshape

        def __call__(self, x):
            assert isinstance(x, np.ndarray) and x.shape == tuple(self.ishape)
            return (self.matrix @ x.ravel()).reshape(self.oshape)

        @property
        def H(self):  # noqa: N802
            return Linop(self.matrix.conj().T, self.oshape, self.ishape)

    matrix = np.random.default_rng(0).standard_normal((8, 30)) * (1 + 2j)
    a = ms.as_operator(Linop(matrix, ishape, (2, 4)), SHAPE, dtype=torch.complex64)
    x = image(3, torch.complex64)
    wanted = x.flatten(1) @ torch.from_numpy(matrix.T).to(torch.complex64)
    assert torch.allclose(a(x), wanted.reshape(3, 2, 4), atol=1e-4)


def test_real_sigpy_operators_exist():
    sigpy = pytest.importorskip("sigpy")
    a = ms.as_operator(sigpy.linop.FFT((1, 6, 5)), SHAPE, dtype=torch.complex64)
    x = image(2, torch.complex64)
    wanted = ms.operators.fft2c(x)
    assert torch.allclose(a(x), wanted, atol=1e-5)


def test_ours_is_returned_as_it_is():
    blur = GaussianBlur(SHAPE, sigma=1.0)
    assert ms.as_operator(blur, SHAPE) is blur
    with pytest.raises(ValueError, match="wanted"):
        ms.as_operator(blur, (3, 6, 5))


def test_nonsense_is_refused_by_name():
    with pytest.raises(TypeError, match="pair of functions"):
        ms.as_operator(3.0, SHAPE)
    with pytest.raises(TypeError, match="folder of diffusers"):
        ms.as_prior(3.0)
    with pytest.raises(ValueError, match="load_prior"):
        ms.as_prior("natural-color")


class Shrink(nn.Module):
    """The best linear denoiser of white images around one half, told one level per item."""

    def forward(self, v, sigma):
        assert sigma.shape == (len(v),)
        return 0.5 + (v - 0.5) / (1 + sigma[:, None, None, None] ** 2 / 0.05)


def test_a_network_and_a_function_become_denoisers():
    prior = ms.as_prior(Shrink())
    assert prior.range == (0.0, 1.0)
    v = torch.rand(2, 3, 8, 8)
    level = torch.full((2,), 0.2)
    assert torch.equal(prior.denoise(v, 0.2), Shrink()(v, level))
    m = ms.Measurement(GaussianBlur((3, 8, 8), sigma=1.0), ms.noises.Gaussian(0.05), v)
    assert bool(torch.isfinite(ms.solvers.HQS()(m, prior)).all())
    assert ms.as_prior(prior) is prior
    with pytest.raises(ValueError, match="Rescaled"):
        ms.as_prior(prior, range=(-1.0, 1.0))


def test_a_network_stays_trainable():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, v, sigma):
            return self.scale * v

    network = Scale()
    ms.as_prior(network)
    assert network.scale.requires_grad


def test_a_folder_of_diffusers_has_images_in_minus_one_to_one(tmp_path, monkeypatch):
    from measurand import adapters

    asked = {}

    def loaded(folder, *, range):
        asked["range"] = range
        return CallableDenoiser(lambda v, sigma: v, range=range)

    monkeypatch.setattr(adapters, "from_diffusers", loaded)
    assert ms.as_prior(tmp_path).range == asked["range"] == (-1.0, 1.0)
    assert ms.as_prior(tmp_path, range=(0.0, 1.0)).range == (0.0, 1.0)


def test_a_bad_denoiser_is_refused_at_once():
    with pytest.raises(ValueError, match="shape"):
        ms.as_prior(lambda v, sigma: v[:, :1])
    with pytest.raises(ValueError, match="not finite"):
        ms.as_prior(lambda v, sigma: v / 0)
    with pytest.raises(ValueError, match="range="):
        ms.as_prior(lambda v, sigma: 255 * v)
    with pytest.raises(ValueError, match="black, white"):
        ms.as_prior(Shrink(), range=(1.0, 0.0))
