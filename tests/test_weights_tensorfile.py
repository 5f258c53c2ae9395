import json
import random
import struct

import pytest
import torch

from measurand.weights.tensorfile import DamagedFile, load_tensors, save_tensors


def small():
    g = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(6, 5, generator=g),
        "b.weight": torch.randn(6, 5, generator=g),
        "c": torch.randn(7, generator=g).to(torch.bfloat16),
        "step": torch.tensor(3),
    }


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


def test_the_card_is_plain_json(file):
    content = file.read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    card = json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["card"])
    assert card["format"] == "measurand-1" and set(card["tensors"]) == set(small())


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    tensors = small()
    contents = set()
    for k in range(12):  # the order of metadata is drawn anew in each call of safetensors
        save_tensors(tmp_path / "x.safetensors", tensors, {"k": "é"})
        contents.add((tmp_path / "x.safetensors").read_bytes())
        tensors = dict(sorted(tensors.items(), reverse=bool(k % 2)))
    assert len(contents) == 1
    size = struct.unpack("<Q", next(iter(contents))[:8])[0]
    assert size % 8 == 0
