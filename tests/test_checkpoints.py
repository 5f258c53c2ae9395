import json
import random
import struct

import pytest
import torch

from measurand import checkpoints
from measurand.checkpoints import (
    DamagedFile,
    known_priors,
    load_prior,
    load_tensors,
    load_unfolded,
    save_prior,
    save_tensors,
    save_unfolded,
)
from measurand.nets import ConvUNet
from measurand.priors.edm import EDMDenoiser
from measurand.unfolded import UnfoldedDR


def small():
    g = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(6, 5, generator=g),
        "b.weight": torch.randn(6, 5, generator=g),
        "c": torch.randn(7, generator=g).to(torch.bfloat16),
        "step": torch.tensor(3),
    }


def tiny_prior(**card):
    torch.manual_seed(0)
    net = ConvUNet(3, widths=(8, 8), features=8)
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return EDMDenoiser(net, card=card, sigma_range=(0.01, 50.0))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "x.safetensors"
    card = {"licence": "Größe \\ \n", "levels": [1e-5, 0.002], "net": {"widths": [8]}}
    save_tensors(path, small(), card)
    return path


def damaged(path):
    try:
        load_tensors(path)
    except DamagedFile as error:
        return str(path) in str(error)
    return False


def test_tensors_and_card_come_back(file):
    tensors, card = load_tensors(file)
    assert set(tensors) == set(small())
    for name, value in small().items():
        assert torch.equal(tensors[name], value) and tensors[name].dtype == value.dtype
    assert card["licence"] == "Größe \\ \n" and card["levels"] == [1e-5, 0.002]


@pytest.mark.parametrize(
    "count", [600, pytest.param(4000, marks=pytest.mark.slow)], ids=["few", "all"]
)
def test_every_flipped_bit_is_detected(file, count, injected):
    """Half of the flips hit the header, half the payload."""
    injected("7: bit flips in weight files", count)
    content = file.read_bytes()
    header = 8 + struct.unpack("<Q", content[:8])[0]
    draw = random.Random(0)
    for k in range(count):
        low, high = (0, header) if k % 2 else (header, len(content))
        position, bit = draw.randrange(low, high), draw.randrange(8)
        changed = bytearray(content)
        changed[position] ^= 1 << bit
        file.write_bytes(changed)
        assert damaged(file), f"bit {bit} of byte {position} of {len(content)}"


def test_every_truncation_is_detected(file):
    content = file.read_bytes()
    for n in [*range(0, len(content), 37), len(content) - 1]:
        file.write_bytes(content[:n])
        assert damaged(file), f"{n} of {len(content)} bytes"
    file.write_bytes(content + b"\x00")
    assert damaged(file)


def test_swapped_and_foreign_tensors_are_detected(file):
    from safetensors import safe_open
    from safetensors.torch import save_file

    tensors = small()
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    swapped = {**tensors, "a.weight": tensors["b.weight"], "b.weight": tensors["a.weight"]}
    missing = {k: v for k, v in tensors.items() if k != "c"}
    for changed in (swapped, missing, {**tensors, "d": torch.ones(1)}):
        save_file(changed, file, metadata=metadata)
        assert damaged(file)
    save_file(tensors, file, metadata=metadata)
    assert not damaged(file)
    save_file(tensors, file)
    assert damaged(file)


def test_pickles_are_not_read(tmp_path):
    path = tmp_path / "x.safetensors"
    torch.save(small(), path)
    assert damaged(path)


def test_a_file_that_is_absent_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.safetensors"):
        load_tensors(tmp_path / "gone.safetensors")


def test_a_prior_comes_back(tmp_path):
    path, v = tmp_path / "p@1.safetensors", torch.randn(1, 3, 12, 10)
    prior = tiny_prior(licence="ours")
    save_prior(path, prior, dtype=torch.float32)
    again = load_prior(path, dtype=torch.float32)
    assert torch.allclose(again.denoise(v, 0.2), prior.denoise(v, 0.2), atol=1e-5)
    for k, value in prior.state_dict().items():
        assert torch.equal(again.state_dict()[k], value)
    assert again.card["licence"] == "ours" and again.sigma_range == (0.01, 50.0)
    assert again.range == (-1.0, 1.0) and not any(p.requires_grad for p in again.parameters())


def test_precision_by_choice(tmp_path):
    save_prior(tmp_path / "p.safetensors", tiny_prior())
    low = load_prior(tmp_path / "p.safetensors", dtype=torch.bfloat16)
    assert next(low.parameters()).dtype == torch.bfloat16
    assert low.denoise(torch.zeros(1, 3, 8, 8), 0.1).dtype == torch.float32


def test_names_versions_and_the_list_of_the_known(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "WEIGHTS", tmp_path)
    with pytest.raises(ValueError, match="'natural-color'; known priors: none"):
        load_prior("natural-color")
    for version in (2, 10, 9):
        save_prior(tmp_path / f"natural-color@{version}.safetensors", tiny_prior(v=version))
    assert list(known_priors()) == ["natural-color@2", "natural-color@9", "natural-color@10"]
    assert load_prior("natural-color").card["v"] == 10
    assert load_prior("natural-color@9").card["v"] == 9
    with pytest.raises(ValueError, match="'natural'; known priors: natural-color@2, natural-col"):
        load_prior("natural")


def test_other_kinds_are_refused(tmp_path):
    save_tensors(tmp_path / "x.safetensors", small(), {"kind": "glow"})
    with pytest.raises(DamagedFile, match="'glow', not weights of ours"):
        load_prior(tmp_path / "x.safetensors")
    with pytest.raises(TypeError, match="Conv2d, not a ConvUNet"):
        save_prior(tmp_path / "y.safetensors", EDMDenoiser(torch.nn.Conv2d(3, 3, 1)))


def test_an_unfolded_network_comes_back(tmp_path):
    torch.manual_seed(1)
    network = UnfoldedDR([tiny_prior(), tiny_prior()], 2, sigma_data=0.4, mean=0.1)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    path = tmp_path / "n.safetensors"
    save_unfolded(path, network, {"licence": "none"}, dtype=torch.float32)
    again = load_unfolded(path, dtype=torch.float32)
    assert (type(again), again.depth, again.sigma_data, again.mean) == (UnfoldedDR, 2, 0.4, 0.1)
    weights = again.state_dict()
    assert all(torch.equal(weights[k], v) for k, v in network.state_dict().items())
    assert again.card["licence"] == "none" and not again.alpha.requires_grad
    half = load_unfolded(path, dtype=torch.bfloat16)
    assert half.alpha.dtype == torch.float32
    assert next(half.priors.parameters()).dtype == torch.bfloat16
    with pytest.raises(ValueError, match="holds an unfolded network, not a prior"):
        load_prior(path)
    save_prior(tmp_path / "p.safetensors", tiny_prior())
    with pytest.raises(ValueError, match="holds a prior, not an unfolded network"):
        load_unfolded(tmp_path / "p.safetensors")


@pytest.mark.parametrize("name", list(known_priors()))
def test_shipped_priors_are_intact_and_say_where_they_come_from(name):
    path = known_priors()[name]
    assert path.stat().st_size < 10e6
    prior = load_prior(name)
    assert prior.card["licence"] and prior.card["patches"] > 0
    assert prior.card["data"] or "Kernels" in prior.card["recipe"]["domain"]


def test_the_card_is_plain_json(file):
    content = file.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    card = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["card"])
    assert card["format"] == "measurand-1" and set(card["tensors"]) == set(small())
