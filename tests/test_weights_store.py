import json

import pytest
import torch

from measurand.measurement import Measurement
from measurand.nets import ConvUNet, Glow
from measurand.noises import Gaussian
from measurand.operators import Identity
from measurand.priors.edm import EDMDenoiser
from measurand.priors.flow import FlowPrior
from measurand.training.quality import SIGMAS
from measurand.unfolded import (
    FlowProximal,
    Fold,
    GradientStep,
    ShrinkStep,
    Unfolded,
    UnfoldedDR,
    proximal_folds,
)
from measurand.weights import store as checkpoints
from measurand.weights.quantized import dequantize, quantize
from measurand.weights.store import known_weights, load, load_prior, save, stored
from measurand.weights.tensorfile import DamagedFile, load_tensors, save_tensors


def tiny_prior(**card):
    torch.manual_seed(0)
    net = ConvUNet(3, widths=(8, 8), features=8)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return EDMDenoiser(net, card=card, sigma_range=(0.01, 50.0), gains=[0.01] * 29)


def test_a_prior_comes_back(tmp_path):
    path, v = tmp_path / "p@1.safetensors", torch.randn(1, 3, 12, 10)
    prior = tiny_prior(licence="ours")
    save(path, prior, dtype=torch.float32)
    again = load_prior(path, dtype=torch.float32)
    assert torch.allclose(again.denoise(v, 0.2), prior.denoise(v, 0.2), atol=1e-5)
    for k, value in prior.state_dict().items():
        assert torch.equal(again.state_dict()[k], value)
    assert again.card["licence"] == "ours" and again.sigma_range == (0.01, 50.0)
    assert again.gains == prior.gains
    assert again.range == (-1.0, 1.0) and not any(p.requires_grad for p in again.parameters())


def test_precision_by_choice(tmp_path):
    save(tmp_path / "p.safetensors", tiny_prior())
    low = load_prior(tmp_path / "p.safetensors", dtype=torch.bfloat16)
    assert next(low.parameters()).dtype == torch.bfloat16
    assert low.denoise(torch.zeros(1, 3, 8, 8), 0.1).dtype == torch.float32


def test_names_versions_and_the_list_of_the_known(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "WEIGHTS", tmp_path)
    with pytest.raises(ValueError, match="'natural-color'; there are: none"):
        load_prior("natural-color")
    for version in (2, 10, 9):
        save(tmp_path / f"natural-color@{version}.safetensors", tiny_prior(v=version))
    assert list(known_weights()) == ["natural-color@2", "natural-color@9", "natural-color@10"]
    assert load_prior("natural-color").card["v"] == 10
    assert load_prior("natural-color@9").card["v"] == 9
    with pytest.raises(ValueError, match="'natural'; there are: natural-color@2, natural-col"):
        load_prior("natural")


def test_other_kinds_are_refused(tmp_path):
    save_tensors(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {"kind": "glow"})
    with pytest.raises(DamagedFile, match="'glow', not weights of ours"):
        load_prior(tmp_path / "x.safetensors")
    with pytest.raises(TypeError, match="Conv2d, not a ConvUNet"):
        save(tmp_path / "y.safetensors", EDMDenoiser(torch.nn.Conv2d(3, 3, 1)))


def test_an_unfolded_network_comes_back(tmp_path):
    torch.manual_seed(1)
    network = UnfoldedDR([tiny_prior(), tiny_prior()], 2, sigma_data=0.4)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    path = tmp_path / "n.safetensors"
    network.card = {"licence": "none"}
    save(path, network, dtype=torch.float32)
    again = load(path, dtype=torch.float32)
    assert (type(again), again.depth, again.sigma_data) == (UnfoldedDR, 2, 0.4)
    weights = again.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in network.state_dict().items())
    assert again.card["licence"] == "none" and not again.alpha.requires_grad
    half = load(path, dtype=torch.bfloat16)
    assert half.alpha.dtype == torch.float32
    assert next(half.priors.parameters()).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="holds UnfoldedDR, wanted Denoiser"):
        load_prior(path)
    save(tmp_path / "p.safetensors", tiny_prior())
    with pytest.raises(ValueError, match="holds EDMDenoiser, wanted Unfolded"):
        load(tmp_path / "p.safetensors", Unfolded)


def tiny_flow(**card):
    torch.manual_seed(0)
    prior = FlowPrior(Glow.tiny(1), shape=(1, 16, 16), card=card)
    for p in prior.parameters():
        torch.nn.init.normal_(p, std=0.05)
    prior.flow.initialize(torch.randn(8, 1, 16, 16))
    prior.calibrate(torch.randn(4, 1, 16, 16))
    return prior


def eights(state):
    """What a file keeps of weights: the networks inside couplings in 8 bits."""
    return dequantize(quantize(state, [k for k, v in state.items() if v.ndim == 4]))


def test_a_flow_comes_back(tmp_path):
    path, prior = tmp_path / "f.safetensors", tiny_flow(licence="ours")
    save(path, prior)
    again = load(path, FlowPrior)
    wanted = eights(prior.state_dict())
    assert all(torch.equal(v, wanted[k]) for k, v in again.state_dict().items())
    assert again.shape == (1, 16, 16) and again.card["licence"] == "ours"
    x = torch.rand(2, 1, 16, 16)
    assert torch.allclose(again.image(again.latents(x)), x, atol=1e-5)
    assert torch.equal(again.kappa[0], prior.kappa[0])
    again.flow.initialize(100 * x)  # not a second time
    assert all(torch.equal(v, wanted[k]) for k, v in again.state_dict().items())


@pytest.mark.parametrize("share", [False, True])
def test_an_unfolded_network_of_flows_comes_back(tmp_path, share):
    prior = tiny_flow()
    folds = [*proximal_folds(prior, 2), Fold(GradientStep(), ShrinkStep(0.3))]
    network = FlowProximal(prior, folds, share=share)
    save(tmp_path / "n.safetensors", network)
    again = load(tmp_path / "n.safetensors", FlowProximal)
    wanted = eights(network.state_dict())
    assert all(torch.equal(v, wanted[k]) for k, v in again.state_dict().items())
    assert len(again.priors) == (1 if share else 3)
    a = Identity((1, 16, 16))
    m = Measurement(a, Gaussian(0.1), torch.rand(2, 1, 16, 16))
    network.load_state_dict(wanted)
    assert torch.allclose(again(m), network(m), atol=1e-5)


def wide():
    """A denoiser of 100,000 weights, whose convolutions have many inputs."""
    torch.manual_seed(0)
    net = ConvUNet(3, widths=(32, 48), blocks=1)
    torch.nn.init.normal_(net.head.weight, std=0.02)
    return EDMDenoiser(net, gains=[0.01] * 29)


def unfolded():
    network = UnfoldedDR([wide(), wide()], 2, sigma_data=0.4)
    network.alpha.data.add_(0.0123)
    return network


def flows():
    return FlowProximal(tiny_flow(), proximal_folds(tiny_flow(), 2))


def kept(name, x, make):
    """How a tensor of these networks is stored."""
    if make in (tiny_flow, flows):
        return torch.int8 if x.ndim == 4 else x.dtype
    if make is unfolded and not name.startswith("priors."):
        return x.dtype  # physics
    first_or_last = name.split(".")[-2] in ("stem", "head")
    return torch.int8 if x.ndim >= 2 and not first_or_last else torch.bfloat16


@pytest.mark.parametrize("make", [wide, unfolded, tiny_flow, flows])
def test_weights_are_kept_in_8_bits_but_for_first_and_last_layers(make, tmp_path):
    network, path = make(), tmp_path / "w.safetensors"
    save(path, network)
    tensors, card = load_tensors(path)
    assert card["storage"] == "int8/32"
    state = network.weights.state_dict()
    for name, x in state.items():
        assert tensors[name].dtype == kept(name, x, make), name
        if tensors[name].dtype == torch.int8:
            assert tensors[f"{name}.scale"].dtype == torch.bfloat16
        else:
            assert torch.equal(tensors[name], x.to(tensors[name].dtype))
    again = load(path, dtype=torch.float32)
    assert "storage" not in again.card
    for name, x in again.weights.state_dict().items():
        if tensors[name].dtype == torch.int8:  # from float32, not from bfloat16
            assert torch.equal(x, dequantize(quantize({"w": state[name]}, ["w"]))["w"])
    ours = stored(network).state_dict()
    assert all(torch.equal(ours[name], x) for name, x in again.state_dict().items())
    save(tmp_path / "again.safetensors", again)  # nothing more is lost
    twice, _ = load_tensors(tmp_path / "again.safetensors")
    assert twice.keys() == tensors.keys()
    assert all(torch.equal(twice[name], x) for name, x in tensors.items())
    save(tmp_path / "half.safetensors", again, dtype=torch.bfloat16)  # and not by choice
    chosen, card = load_tensors(tmp_path / "half.safetensors")
    assert "storage" not in card and torch.int8 not in {x.dtype for x in chosen.values()}


@pytest.mark.parametrize("make", [wide, unfolded, tiny_flow, flows])
def test_8_bits_change_little(make, tmp_path):
    network = make().eval()
    save(tmp_path / "w.safetensors", network)
    again = load(tmp_path / "w.safetensors", dtype=torch.float32)
    v = torch.randn(2, 1 if make in (tiny_flow, flows) else 3, 16, 16)
    m = Measurement(Identity(tuple(v.shape[1:])), Gaussian(0.1), v)

    def answer(model):
        if make is tiny_flow:
            return model.latents(v)[0]
        if make is flows:
            return model(m)
        return model.denoise(v, 0.3) if make is wide else model.given(m).denoise(v, 0.5)

    with torch.no_grad():
        before, after = answer(network), answer(again)
    change = float((after - before).square().mean().sqrt() / before.square().mean().sqrt())
    assert 1e-7 < change < 5e-3


def test_8_bits_are_half_the_size(tmp_path):
    save(tmp_path / "a.safetensors", wide())
    save(tmp_path / "b.safetensors", wide(), dtype=torch.bfloat16)
    coded, other = ((tmp_path / f"{k}.safetensors").stat().st_size for k in "ab")
    assert coded < 0.6 * other  # cards and headers included


def test_files_without_codes_are_read_as_they_were(tmp_path):
    network = wide()
    tensors = {k: v.bfloat16() for k, v in network.net.state_dict().items()}
    save_tensors(tmp_path / "old.safetensors", tensors, network.to_card())
    again = load_prior(tmp_path / "old.safetensors", dtype=torch.float32)
    assert all(torch.equal(v, tensors[k].float()) for k, v in again.net.state_dict().items())


def test_other_storage_and_damaged_codes_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save(path, wide())
    tensors, card = load_tensors(path)
    name = next(k for k, x in tensors.items() if x.dtype == torch.int8)
    scales = tensors[f"{name}.scale"]
    for other in (scales.float(), scales[:-1], None):
        changed = tensors | {f"{name}.scale": other}
        save_tensors(path, {k: v for k, v in changed.items() if v is not None}, card)
        with pytest.raises(DamagedFile, match=f"w.safetensors: its codes .*{name} has scales"):
            load(path)
    save_tensors(path, tensors | {name: tensors[name].float()}, card)  # scales of nothing
    with pytest.raises(DamagedFile, match="its weights do not fit its card"):
        load(path)
    save_tensors(path, tensors | {name: tensors[name][:, :1]}, card)
    with pytest.raises(DamagedFile, match="w.safetensors"):
        load(path)
    save_tensors(path, tensors, card | {"storage": "int4/16"})
    with pytest.raises(DamagedFile, match="w.safetensors: stored as 'int4/16'"):
        load(path)


@pytest.mark.parametrize("name", list(known_weights()))
def test_shipped_priors_are_intact_and_say_where_they_come_from(name):
    path = known_weights()[name]
    assert path.stat().st_size < 10e6
    prior = load(name)
    assert prior.card["licence"] and prior.card["patches"] > 0
    assert prior.card["data"] or "Kernels" in prior.card["recipe"]["domain"]
    assert '"/' not in json.dumps(prior.card)  # no path of the machine it was trained on
    if prior.card["kind"] == "edm":  # what it is worth is in the card
        known = prior.card["calibration"]
        assert set(known) == {f"{sigma:g}" for sigma in SIGMAS}
        assert all(0.9 < ratio < 1.1 for ratio in known.values()), prior.card["measured_on"]
        assert 20 < prior.card["psnr"]["25"] < prior.card["psnr"]["5"]


def test_unfolded_networks_of_an_earlier_kind_are_refused(tmp_path, monkeypatch):
    """Their radii did not shrink: with two steps their weights would fit, and mean other radii."""
    path = tmp_path / "old.safetensors"
    network = UnfoldedDR.tiny()
    network.card = {"name": "old"}
    known = {k: v for k, v in network.to_card().items() if k != "radii"}
    monkeypatch.setattr(network, "to_card", lambda: known)
    save(path, network)
    with pytest.raises(DamagedFile, match="old.safetensors: .*radii did not shrink"):
        load(path)
