"""Tensors on the disk: one safetensors file that carries its own card and digests.

A file of ours is safetensors with two strings in its metadata:

    card     JSON: what the tensors are; "tensors" lists dtype, shape and SHA-256 of each
    sha256   digest of the card's text

safetensors itself cannot run code and checks its own table, but it accepts changed payload bytes
and several changed header bytes. Here each tensor is compared with its digest, the card with its
own, and the set of names with the card: a flipped bit, a swapped tensor or a lost byte anywhere in
the file is an error that names the file, never a slightly wrong image.

Nothing is pickled.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import atomic, sha256
from ..records import json_text

__all__ = ["DamagedFile", "load_tensors", "save_tensors"]

FORMAT = "measurand-1"


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
    from safetensors.torch import save

    arrays = {k: v.detach().cpu().contiguous() for k, v in sorted(tensors.items())}
    lines = {k: digest(k, v) for k, v in arrays.items()}
    text = json_text({**card, "format": FORMAT, "tensors": lines})
    raw = save(arrays, metadata={"card": text, "sha256": sha256(text)})
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
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weight file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise DamagedFile(f"{path}: not a readable safetensors file ({error})") from error
    text = metadata.get("card", "")
    if set(metadata) != {"card", "sha256"} or sha256(text) != metadata["sha256"]:
        raise DamagedFile(f"{path}: the card is missing or differs from its digest")
    card = json.loads(text)
    if set(tensors) != set(card["tensors"]):
        raise DamagedFile(f"{path}: the tensors are not those of the card")
    for name, tensor in tensors.items():
        if digest(name, tensor) != card["tensors"][name]:
            raise DamagedFile(f"{path}: tensor {name} differs from its digest")
    return tensors, card
