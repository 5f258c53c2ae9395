"""Weights on the disk: one safetensors file that carries its own card and digests.

A file of ours is safetensors with two strings in its metadata:

    card     JSON: what the tensors are; "tensors" lists dtype, shape and SHA-256 of each
    sha256   digest of the card's text

safetensors itself cannot run code and checks its own table, but it accepts changed payload bytes
and several changed header bytes. Here each tensor is compared with its digest, the card with its
own, and the set of names with the card: a flipped bit, a swapped tensor or a lost byte anywhere in
the file is an error that names the file, never a slightly wrong image.

Training states (`State`) are written beside each other, `step-00001000.safetensors`, the last two
are kept, and reading falls back to the previous one if the last is damaged. Nothing here is
pickled.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .files import atomic, sha256
from .nets import ConvUNet
from .priors.edm import EDMDenoiser, fast_dtype

__all__ = [
    "DamagedFile",
    "State",
    "known_priors",
    "load_prior",
    "load_state",
    "load_tensors",
    "save_prior",
    "save_state",
    "save_tensors",
]

WEIGHTS = Path(__file__).parent / "weights"
FORMAT = "measurand-1"
KINDS = {"float32": torch.float32, "complex64": torch.complex64}  # of images


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
    """Writes tensors and their card to one safetensors file, atomically.

    Args:
        path: The file to write or replace.
        tensors: Name and value of each.
        card: Anything JSON can hold; "format" and "tensors" are added.
    """
    from safetensors.torch import save_file

    arrays = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    lines = {k: digest(k, v) for k, v in arrays.items()}
    text = json.dumps({**card, "format": FORMAT, "tensors": lines}, ensure_ascii=False)
    with atomic(path) as temporary:
        save_file(arrays, temporary, metadata={"card": text, "sha256": sha256(text)})


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


def save_prior(
    path: str | os.PathLike[str], prior: EDMDenoiser, *, dtype: torch.dtype = torch.bfloat16
) -> None:
    """Writes a prior with a `ConvUNet` to one file.

    Args:
        path: The file, `<name>@<version>.safetensors`.
        prior: The denoiser; its `card` goes into the file.
        dtype: Precision of the stored weights.
    """
    if not isinstance(prior.net, ConvUNet):
        raise TypeError(f"save_prior: the network is a {type(prior.net).__name__}, not a ConvUNet")
    card = {
        **prior.card,
        "kind": "edm",
        "net": prior.net.config,
        "channels": prior.channels,
        "dtype": str(prior.dtype).removeprefix("torch."),
        "mean": prior.mean,
        "sigma_data": prior.sigma_data,
        "range": list(prior.range),
        "sigma_range": list(prior.sigma_range),
    }
    save_tensors(path, {k: v.to(dtype) for k, v in prior.net.state_dict().items()}, card)


def known_priors() -> dict[str, Path]:
    """Returns the priors that ship with the package, by name and version, oldest first."""
    files = WEIGHTS.glob("*@*.safetensors")

    def key(path: Path) -> tuple[str, int]:
        name, _, version = path.stem.rpartition("@")
        return name, int(version)

    return {path.stem: path for path in sorted(files, key=key)}


def load_prior(
    name: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> EDMDenoiser:
    """Returns a trained prior: one that ships with the package, or a file.

    Args:
        name: "natural-color" for the newest version, "natural-color@2" for a fixed one, or the
            path of a `.safetensors` file.
        device: Where it runs.
        dtype: Precision of the network; None is bfloat16 where the device has units for it and
            float32 elsewhere. Images are float32 in either case.
    Raises:
        ValueError: No prior has this name; the message lists those there are.
        DamagedFile: The file is not what was written.
    """
    known = known_priors()
    path = Path(name)
    if path.suffix != ".safetensors":
        versions = [k for k in known if str(name) in (k, k.rpartition("@")[0])]
        if not versions:
            listed = ", ".join(known) or "none"
            raise ValueError(
                f"no prior is called {str(name)!r}; known priors: {listed}; or give the path of a "
                "weight file (.safetensors)"
            )
        path = known[versions[-1]]
    tensors, card = load_tensors(path)
    if card.get("kind") != "edm":
        raise DamagedFile(f"{path}: holds {card.get('kind', 'no kind')!r}, not an EDM prior")
    net = ConvUNet(**card["net"])
    net.load_state_dict(tensors)
    net.to(device, dtype or fast_dtype(device))
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    prior = EDMDenoiser(
        net,
        channels=card["channels"],
        dtype=KINDS[card.get("dtype", "float32")],
        mean=card.get("mean", 0.0),
        sigma_data=card["sigma_data"],
        range=tuple(card["range"]),
        sigma_range=tuple(card["sigma_range"]),
        card={k: v for k, v in card.items() if k != "tensors"},
    )
    return prior.eval().requires_grad_(False)


@dataclass
class State:
    """Everything a training run needs to go on as if it had never stopped.

    Args:
        step: Steps done.
        tensors: Weights, averages and optimiser moments, by name.
        facts: JSON values: schedule, seconds trained, digest of the configuration.
    """

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any] = field(default_factory=dict)


def save_state(folder: str | os.PathLike[str], state: State, *, keep: int = 2) -> Path:
    """Writes a training state atomically and removes all but the newest ones.

    Args:
        folder: Where the states of one run live.
        state: What to write.
        keep: Number of states that stay.
    Returns:
        The new file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{state.step:08d}.safetensors"
    save_tensors(path, state.tensors, {"step": state.step, "facts": state.facts})
    for old in sorted(folder.glob("step-*.safetensors"))[:-keep]:
        old.unlink()
    return path


def load_state(folder: str | os.PathLike[str]) -> State | None:
    """Returns the newest intact training state of a folder, None where there is none at all.

    Raises:
        DamagedFile: There are states and every one is damaged.
    """
    error: DamagedFile | None = None
    for path in sorted(Path(folder).glob("step-*.safetensors"), reverse=True):
        try:
            tensors, card = load_tensors(path)
            return State(card["step"], tensors, card["facts"])
        except DamagedFile as damage:
            error = error or damage
    if error is not None:
        raise error
    return None
