"""Tensors on the disk: one safetensors file that carries its own card and digests.

A file of ours is safetensors with two strings in its metadata:

    card     JSON: what the tensors are; "tensors" lists dtype, shape and SHA-256 of each
    sha256   digest of the card's text

safetensors itself cannot run code and checks its own table, but it accepts changed payload bytes
and several changed header bytes. Here each tensor is compared with its digest, the card with its
own, and the set of names with the card: a flipped bit, a swapped tensor or a lost byte anywhere in
the file is an error that names the file, never a slightly wrong image.

Nothing is pickled. A digest proves no good will: the table of a file is compared with limits and
with the size of the file before anything is allocated, and a file is read and not mapped, so that
one that is cut off meanwhile is an error, and not the end of the process.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from ..files import atomic, sha256
from ..records import json_text

__all__ = ["DamagedFile", "load_tensors", "save_tensors"]

FORMAT = "measurand-1"
LARGEST = 10 * 2**30  # bytes of a file; the largest of ours has 35 thousand
TENSORS = 10_000  # in a file; the largest of ours has 807
TABLE = 2**24  # bytes of the table with the card, about 300 for each tensor
DTYPES = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}


class DamagedFile(ValueError):
    """A weight file that is truncated, altered, or not one of ours."""


def digest(name: str, tensor: Tensor) -> dict[str, Any]:
    """Returns the card's line on one tensor: dtype, shape and SHA-256 of its bytes."""
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return {
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "sha256": sha256(raw.data),
    }


def save_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Tensor], card: Mapping[str, Any]
) -> None:
    """Writes tensors and their card to one file, atomically: the same ones give the same bytes.

    Args:
        path: The file to write or replace.
        tensors: Name and value of each.
        card: Anything JSON can hold; "format" and "tensors" are added.
    """
    arrays = {k: v.detach().cpu().contiguous() for k, v in sorted(tensors.items())}
    lines = {k: digest(k, v) for k, v in arrays.items()}
    text = json_text({**card, "format": FORMAT, "tensors": lines})
    raw = safetensors.torch.save(arrays, metadata={"card": text, "sha256": sha256(text)})
    with atomic(path) as temporary, temporary.open("wb") as file:
        size = int.from_bytes(raw[:8], "little")
        head = ordered(raw[8 : 8 + size])
        file.write(len(head).to_bytes(8, "little") + head)
        file.write(memoryview(raw)[8 + size :])


def ordered(head: bytes) -> bytes:
    """Returns the head of a safetensors file with its metadata sorted, which come in any order."""
    table = json.loads(head)
    table["__metadata__"] = dict(sorted(table["__metadata__"].items()))
    text = json.dumps(table, ensure_ascii=False, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)  # what follows is aligned


def load_tensors(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns the tensors and the card of a file, after checking every byte of both.

    Args:
        path: A file written by `save_tensors`.
    Raises:
        FileNotFoundError: There is no such file.
        DamagedFile: Something in it is not what was written.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weight file")
    try:
        content = path.read_bytes() if path.stat().st_size <= LARGEST else b""
        tensors, card, said = parsed(content)
    except (OSError, ValueError, RuntimeError, RecursionError, SafetensorError) as error:
        raise DamagedFile(f"{path}: not a readable weight file ({error})") from error
    if set(tensors) != set(said):
        raise DamagedFile(f"{path}: the tensors are not those of the card")
    for name, tensor in tensors.items():
        if digest(name, tensor) != said[name]:
            raise DamagedFile(f"{path}: tensor {name} differs from its digest")
    return tensors, card


def parsed(content: bytes) -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    """Returns the tensors of a file, its card, and what the card says of each tensor."""
    if len(content) < 8:
        raise ValueError(f"it is cut off, or has more than {LARGEST} bytes")
    size = int.from_bytes(content[:8], "little")
    if size > min(TABLE, len(content) - 8):
        raise ValueError(f"its table has {size} bytes, of {len(content)} and at most {TABLE}")
    table = mapping(json.loads(content[8 : 8 + size]), "table")
    metadata = mapping(table.pop("__metadata__", {}), "metadata")
    if len(table) > TENSORS:
        raise ValueError(f"it has {len(table)} tensors, wanted at most {TENSORS}")
    for name, entry in table.items():
        kind = mapping(entry, "table").get("dtype")
        if kind not in DTYPES:
            raise ValueError(f"tensor {name!r:.60} is of {kind!r:.20}, wanted one of {DTYPES}")
    text = metadata.get("card", "")
    if set(metadata) != {"card", "sha256"} or sha256(str(text)) != metadata["sha256"]:
        raise ValueError("the card is missing or differs from its digest")
    card = mapping(json.loads(text), "card")
    return safetensors.torch.load(content), card, mapping(card.get("tensors"), "card")


def mapping(value: Any, what: str) -> dict[str, Any]:
    """Returns a value of a JSON text that has to be an object."""
    if not isinstance(value, dict):
        raise ValueError(f"its {what} is {value!r:.40}, wanted names and values")
    return value
