import json
import os
import random
import signal
import struct
import subprocess
import sys
import time

import pytest
import torch

from measurand import checkpoints
from measurand.checkpoints import (
    DamagedFile,
    State,
    known_priors,
    load_prior,
    load_state,
    load_tensors,
    save_prior,
    save_state,
    save_tensors,
)
from measurand.nets import ConvUNet
from measurand.priors.edm import EDMDenoiser


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
    with pytest.raises(DamagedFile, match="'glow', not an EDM prior"):
        load_prior(tmp_path / "x.safetensors")
    with pytest.raises(TypeError, match="Conv2d, not a ConvUNet"):
        save_prior(tmp_path / "y.safetensors", EDMDenoiser(torch.nn.Conv2d(3, 3, 1)))


@pytest.mark.parametrize("name", list(known_priors()))
def test_shipped_priors_are_intact_and_say_where_they_come_from(name):
    path = known_priors()[name]
    assert path.stat().st_size < 10e6
    prior = load_prior(name)
    assert prior.card["licence"] and prior.card["data"] and prior.card["patches"] > 0


def test_the_last_two_states_stay(tmp_path):
    for step in (1, 2, 30):
        save_state(tmp_path / "s", State(step, {"x": torch.full((3,), float(step))}, {"a": step}))
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == [
        "step-00000002.safetensors",
        "step-00000030.safetensors",
    ]
    state = load_state(tmp_path / "s")
    assert (state.step, state.facts) == (30, {"a": 30}) and state.tensors["x"].tolist() == [
        30.0
    ] * 3


def test_a_damaged_state_falls_back_to_the_one_before(tmp_path):
    assert load_state(tmp_path / "none") is None
    paths = [save_state(tmp_path, State(k, {"x": torch.ones(9)})) for k in (1, 2)]
    content = bytearray(paths[1].read_bytes())
    content[-5] ^= 1
    paths[1].write_bytes(content)
    assert load_state(tmp_path).step == 1
    paths[0].write_bytes(b"")
    with pytest.raises(DamagedFile):
        load_state(tmp_path)


WRITER = """
import sys, torch
from measurand.checkpoints import State, save_state
torch.set_num_threads(1)
for step in range(1, 100000):
    save_state(sys.argv[1], State(step, {"x": torch.full((500_000,), float(step))}))
    print(step, flush=True)
"""


@pytest.mark.parametrize(
    "kills", [2, pytest.param(100, marks=pytest.mark.slow)], ids=["few", "all"]
)
def test_sigkill_while_writing_leaves_a_readable_state(tmp_path, kills, injected):
    injected("2: SIGKILL inside checkpoint writing", kills)
    draw = random.Random(0)
    for k in range(kills):
        folder = tmp_path / str(k)
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, folder], stdout=subprocess.PIPE, env={**os.environ}
        )
        process.stdout.readline()
        time.sleep(draw.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.read().split()
        process.wait()
        state = load_state(folder)
        assert state.step >= int(lines[-1]) if lines else state.step >= 1
        assert (state.tensors["x"] == state.step).all()
        assert len(list(folder.glob("step-*"))) <= 3


def test_nothing_is_damaged_by_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    save_state(tmp_path, State(1, {"x": torch.ones(3)}))

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(checkpoints, "atomic", refuse)
    with pytest.raises(OSError, match="Read-only"):
        save_state(tmp_path, State(2, {"x": torch.ones(3)}))
    assert load_state(tmp_path).step == 1


def test_the_card_is_plain_json(file):
    content = file.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    card = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["card"])
    assert card["format"] == "measurand-1" and set(card["tensors"]) == set(small())
