"""Weight files whose digests are right and whose cards are made to do harm."""

import copy
import json
import resource
import struct

import pytest
import safetensors.torch
import torch

from measurand.files import sha256
from measurand.nets import ConvUNet
from measurand.priors.edm import EDMDenoiser
from measurand.weights import known_weights
from measurand.weights.store import load, save
from measurand.weights.tensorfile import DamagedFile, load_tensors, save_tensors


@pytest.fixture
def made(tmp_path):
    path = tmp_path / "w.safetensors"
    save(path, EDMDenoiser(ConvUNet(3, widths=(8, 16), blocks=1, features=16)))
    return path, *load_tensors(path)


def changed(card, value, *keys):
    """A card with another value in one place."""
    card = copy.deepcopy(card)
    inside = card
    for key in keys[:-1]:
        inside = inside[key]
    inside[keys[-1]] = value
    return card


FORGED = {
    "wide": ([10**6, 10**6], "net", "widths"),
    "overflow": ([2**40, 2**40], "net", "widths"),
    "deep": (10**9, "net", "blocks"),
    "stem": (10**6, "net", "stem"),
    "features": (10**12, "net", "features"),
    "levels": ([8] * 5000, "net", "widths"),
    "negative": (-3, "net", "blocks"),
    "zero": (0, "net", "stem"),
    "text": ("x", "net", "widths"),
    "none": (None, "net", "blocks"),
    "list": ([], "net"),
    "unknown": (3, "net", "colour"),
    "dtype": ("float8", "dtype"),
    "kind": (["edm"], "kind"),
    "range": (3, "range"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_card_is_an_error_with_the_name_of_the_file(name, made):
    path, tensors, card = made
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    save_tensors(path, tensors, changed(card, *FORGED[name]))
    with pytest.raises(DamagedFile, match="w.safetensors"):
        load(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # kB


def test_forged_flows_are_not_built(tmp_path):
    tensors, card = load_tensors(known_weights()["flow-color@2"])
    for key, value in (
        ("levels", 10**6),
        ("steps", 10**9),
        ("hidden", 10**9),
        ("channels", 10**7),
    ):
        save_tensors(tmp_path / "f.safetensors", tensors, changed(card, value, "flow", key))
        with pytest.raises(DamagedFile, match="f.safetensors"):
            load(tmp_path / "f.safetensors")


def raw(path, table, data=b""):
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def metadata(card):
    text = card if isinstance(card, str) else json.dumps(card)
    return {"card": text, "sha256": sha256(text)}


NESTED = "[" * 100_000
TABLES = {
    "nested": b'{"a":' + NESTED.encode(),
    "nested-card": {"__metadata__": metadata(NESTED)},
    "list": [1, 2],
    "list-card": {"__metadata__": metadata([1])},
    "no-tensors": {"__metadata__": metadata({"kind": "edm"})},
    "tensors-list": {"__metadata__": metadata({"tensors": [1]})},
    "text-tensor": {"__metadata__": metadata({"tensors": {}}), "a": "x"},
    "shape": {
        "__metadata__": metadata({"tensors": {}}),
        "a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 0]},
    },
    "offsets": {
        "__metadata__": metadata({"tensors": {}}),
        "a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 2**62]},
    },
    "dtype": {
        "__metadata__": metadata({"tensors": {}}),
        "a": {"dtype": "F8_E5M2", "shape": [4], "data_offsets": [0, 4]},
    },
    "many": {
        "__metadata__": metadata({"tensors": {}}),
        **{f"{k}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for k in range(10_001)},
    },
    "bytes": b"\xff" * 100,
}


@pytest.mark.parametrize("name", TABLES)
def test_a_forged_table_is_an_error_with_the_name_of_the_file(name, tmp_path):
    path = raw(tmp_path / "w.safetensors", TABLES[name], bytes(16))
    with pytest.raises(DamagedFile, match="w.safetensors"):
        load(path)


def test_a_table_or_a_file_beyond_its_limit_is_not_read(tmp_path):
    path = tmp_path / "w.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(DamagedFile, match="w.safetensors.*its table has"):
        load(path)
    with open(path, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(DamagedFile, match="w.safetensors.*more than"):
        load(path)


def test_tensors_of_another_type_are_refused(made):
    path, tensors, card = made
    name = next(name for name, x in tensors.items() if x.dtype.is_floating_point)
    for other in (tensors[name].to(torch.complex64), tensors[name].to(torch.uint16)):
        try:
            save_tensors(path, tensors | {name: other}, card)
        except (ValueError, KeyError, safetensors.SafetensorError):
            continue
        with pytest.raises(DamagedFile, match="w.safetensors"):
            load(path)
