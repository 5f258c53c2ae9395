import copy
import math

import pytest
import torch
from flows import shaken
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.data import astronaut

from measurand.nets import Glow
from measurand.nets.glow import ActNorm, Coupling, Mix, bounded
from measurand.weights.store import load
from measurand.weights.tensorfile import load_tensors, save_tensors


def tiny(channels=1, levels=2, seed=0):
    torch.manual_seed(seed)
    return shaken(Glow(channels, levels=levels, steps=2, hidden=16))


def images(*shape, seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=dtype) * 2 - 1


INPUTS = {
    "clean": images(2, 3, 16, 24, dtype=torch.float64),
    "noisy": images(2, 3, 16, 24, dtype=torch.float64)
    + 0.4 * torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(2)).double(),
    "zeros": torch.zeros(2, 3, 16, 24, dtype=torch.float64),
}


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("kind", INPUTS)
def test_the_inverse_is_exact(kind, dtype, most):
    flow, x = tiny(3, levels=3).to(dtype), INPUTS[kind].to(dtype)
    flow.initialize(INPUTS["clean"].to(dtype))
    latents, _ = flow(x)
    assert latents[0].dtype == dtype
    assert (flow.inverse(latents) - x).abs().max() <= most


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
@pytest.mark.parametrize("name", ["flow-color", "flow-denoise", "flow-inpaint", "flow-deblur"])
def test_the_inverse_of_every_flow_that_ships_is_exact(name, dtype, most):
    picture = torch.from_numpy(astronaut()).movedim(-1, 0) / 127.5 - 1
    clean = torch.stack([picture[:, i : i + 64, j : j + 64] for i in (0, 100) for j in (0, 100)])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    x = torch.cat((clean, clean + 0.4 * noise, torch.zeros_like(clean))).to(dtype)
    model = load(name).to(dtype)
    for prior in getattr(model, "priors", [model]):
        with torch.no_grad():
            assert (prior.flow.inverse(prior.flow(x)[0]) - x).abs().max() <= most


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-3), (torch.float64, 1e-9)])
def test_every_list_of_latents_is_an_image(dtype, most):
    flow, generator = tiny(3).to(dtype), torch.Generator().manual_seed(0)
    shapes = flow.latent_shapes((3, 8, 12))
    latents = [torch.randn(2, *s, generator=generator, dtype=dtype) for s in shapes]
    again, _ = flow(flow.inverse(latents))
    for a, b in zip(again, latents, strict=True):
        assert (a - b).abs().max() <= most


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("levels", [1, 2])
def test_the_log_determinant_is_that_of_the_jacobian(channels, levels):
    flow, x = tiny(channels, levels).double(), images(2, channels, 4, 4, dtype=torch.float64)

    def packed(x):
        return torch.cat([z.flatten(1) for z in flow(x)[0]], dim=1)

    _, found = flow(x)
    for i in range(2):
        jacobian = torch.autograd.functional.jacobian(packed, x[i : i + 1])
        n = x[i].numel()
        exact = torch.linalg.slogdet(jacobian.reshape(n, n))[1]
        assert abs(found[i] - exact) <= 1e-5
        assert abs(exact) > 1  # the identity would pass


@pytest.mark.parametrize("layer", [ActNorm(6), Mix(6), Coupling(6, 8)], ids=str)
def test_every_layer_has_its_inverse_and_its_log_determinant(layer):
    layer = shaken(copy.deepcopy(layer)).double()
    x = images(1, 6, 2, 2, dtype=torch.float64)
    y, logdet = layer(x)
    assert (layer.inverse(y) - x).abs().max() < 1e-12
    jacobian = torch.autograd.functional.jacobian(lambda x: layer(x)[0], x).reshape(24, 24)
    exact = float(torch.linalg.slogdet(jacobian)[1])
    assert float(logdet.detach()) == pytest.approx(exact, abs=1e-10)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_any_channels_and_sizes_that_the_levels_divide(channels, levels, height, width):
    flow = tiny(channels, levels).double()
    x = images(2, channels, height * 2**levels, width * 2**levels, dtype=torch.float64)
    latents, logdet = flow(x)
    assert [z.shape[1:] for z in latents] == flow.latent_shapes(x.shape[1:])
    assert sum(z[0].numel() for z in latents) == x[0].numel() and logdet.shape == (2,)
    assert (flow.inverse(latents) - x).abs().max() < 1e-9


@pytest.mark.parametrize("shape", [(1, 8, 12), (3, 8, 10), (3, 6, 8), (3, 8)])
def test_an_image_that_does_not_fit_is_named(shape):
    with pytest.raises(ValueError, match="H and W multiples of 4"):
        tiny(3)(torch.zeros(1, *shape))


def test_batch_rows_are_independent():
    flow, x = tiny().double(), images(3, 1, 8, 8, dtype=torch.float64)
    latents, logdet = flow(x)
    for i in range(3):
        own, alone = flow(x[i : i + 1])
        assert torch.allclose(alone, logdet[i : i + 1], atol=1e-12)
        for a, b in zip(own, latents, strict=True):
            assert torch.allclose(a, b[i : i + 1], atol=1e-12)


def test_actnorm_standardises_once_and_the_file_remembers(tmp_path):
    torch.manual_seed(0)
    flow, x = Glow.tiny(2), 3 * images(8, 2, 8, 8) + 5
    flow.initialize(x)
    for z in flow(x)[0]:  # every coupling and split is still the identity
        assert z.mean().abs() < 0.1 and 0.7 < z.std() < 1.4
    first = flow.levels[0][0]
    y = first(torch.nn.functional.pixel_unshuffle(x, 2))[0]
    assert y.mean((0, 2, 3)).abs().max() < 1e-5
    assert (y.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-5
    before = copy.deepcopy(flow.state_dict())
    save_tensors(tmp_path / "flow.safetensors", before, {})
    again = Glow(**flow.config)
    again.load_state_dict(load_tensors(tmp_path / "flow.safetensors")[0])
    for other in (flow, again):
        other.initialize(x - 7)
        assert other.state_dict().keys() == before.keys()
        assert all(torch.equal(v, before[k]) for k, v in other.state_dict().items())
    assert torch.equal(flow(x)[1], again(x)[1])


def test_a_channel_without_contrast_is_not_magnified():
    flow = Glow.tiny(1)
    flow.initialize(torch.zeros(4, 1, 8, 8))
    latents, logdet = flow(torch.zeros(1, 1, 8, 8))
    assert logdet.isfinite().all() and all(z.isfinite().all() for z in latents)


def test_every_parameter_learns():
    flow, x = tiny().double(), images(2, 1, 8, 8, dtype=torch.float64)
    latents, logdet = flow(x)
    (sum(z.square().sum() for z in latents) / 2 - logdet.sum()).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in flow.parameters())


def test_gradient_of_forward_and_inverse():
    flow, x = tiny().double(), images(1, 1, 4, 4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: flow(x)[1], (x,), fast_mode=True)
    z = [level.detach().requires_grad_() for level in flow(x)[0]]
    assert torch.autograd.gradcheck(lambda *z: flow.inverse(z), z, fast_mode=True)


def test_scales_are_bounded_however_far_the_image_is():
    raw = torch.tensor([-1e6, -0.1, 0.0, 0.1, 1e6], dtype=torch.float64)
    assert bounded(raw, 2).tolist() == pytest.approx([-2, -0.1, 0, 0.1, 2], abs=1e-4)
    flow, x = shaken(tiny(3), std=1.0), 1e3 * images(1, 3, 8, 8)
    latents, logdet = flow(x)
    assert logdet.isfinite().all() and all(z.isfinite().all() for z in latents)


def test_autocast_does_not_reach_the_flow():
    flow, x = tiny(3, levels=3), images(1, 3, 16, 16)
    latents, logdet = flow(x)
    with torch.autocast("cpu", torch.bfloat16):
        inside, other = flow(x)
        assert torch.equal(flow.inverse(inside), flow.inverse(latents))
    assert torch.equal(other, logdet)


def test_sizes():
    def count(flow):
        return sum(p.numel() for p in flow.parameters())

    assert count(Glow.tiny()) == pytest.approx(0.04e6, rel=0.05)
    assert count(Glow.small()) == pytest.approx(1.6e6, rel=0.05)
    assert count(Glow.base()) == pytest.approx(5.9e6, rel=0.05)


def test_least_pivot():
    flow = tiny()
    with torch.no_grad():
        flow.levels[1][1].log_diagonal[2] = math.log(1e-4)
    assert flow.least_pivot == pytest.approx(1e-4)


def test_layers_agree_with_normflows():
    """A second implementation, with its weights copied into ours."""
    other = pytest.importorskip("normflows", reason="normflows, the second implementation")
    x = images(2, 4, 6, 6)
    theirs, ours = shaken(other.flows.Invertible1x1Conv(4, use_lu=True)), Mix(4)
    with torch.no_grad():
        ours.permutation.copy_(theirs.P)
        ours.sign.copy_(theirs.sign_S)
        ours.lower.copy_(theirs.L)
        ours.upper.copy_(theirs.U)
        ours.log_diagonal.copy_(theirs.log_S)
        # theirs maps latents to images: its inverse is our forward
        (y, logdet), (wanted, other_logdet) = ours(x), theirs.inverse(x)
        assert torch.allclose(y, wanted, atol=1e-5)
        assert float(logdet) == pytest.approx(float(other_logdet), abs=1e-4)
        assert torch.allclose(ours.inverse(x), theirs.forward(x)[0], atol=1e-5)
    scale, moved = shaken(other.flows.affine.AffineConstFlow((4, 1, 1))), ActNorm(4)
    with torch.no_grad():
        moved.log_scale.copy_(scale.s.flatten())
        moved.bias.copy_((scale.t * torch.exp(-scale.s)).flatten())
        (y, logdet), (wanted, other_logdet) = moved(x), scale.forward(x)
    assert torch.allclose(y, wanted, atol=1e-5)
    assert float(logdet) == pytest.approx(float(other_logdet), abs=1e-4)
