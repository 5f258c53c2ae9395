"""Weights on the disk: one safetensors file that carries its own card and digests.

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

from .files import atomic, sha256
from .nets import ConvUNet
from .priors.edm import EDMDenoiser, fast_dtype
from .unfolded import UnfoldedDR, UnfoldedHQS, UnfoldedPGM
from .unfolded.posterior_score import Unfolded

__all__ = [
    "DamagedFile",
    "known_priors",
    "load_prior",
    "load_tensors",
    "load_unfolded",
    "load_weights",
    "save_prior",
    "save_tensors",
    "save_unfolded",
]

WEIGHTS = Path(__file__).parent / "weights"
FORMAT = "measurand-1"
KINDS = {"float32": torch.float32, "complex64": torch.complex64}  # of images
METHODS = {kind.__name__: kind for kind in (UnfoldedDR, UnfoldedHQS, UnfoldedPGM)}


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
    card = {**prior.card, "kind": "edm", **card_of(prior)}
    save_tensors(path, {k: v.to(dtype) for k, v in prior.net.state_dict().items()}, card)


def save_unfolded(
    path: str | os.PathLike[str],
    network: Unfolded,
    card: Mapping[str, Any],
    *,
    dtype: torch.dtype = torch.bfloat16,
) -> None:
    """Writes an unfolded network to one file; the numbers of its steps stay in float32.

    Args:
        path: The file, `<name>@<version>.safetensors`.
        network: The network; its priors have a `ConvUNet` each.
        card: What is known of the weights.
        dtype: Precision of the stored weights of the priors.
    """
    facts = {
        **card,
        "kind": "unfolded",
        "method": type(network).__name__,
        "depth": network.depth,
        "sigma_data": network.sigma_data,
        "mean": network.mean,
        "priors": [card_of(prior) for prior in network.priors],
    }
    weights = {
        k: v.to(dtype if k.startswith("priors.") else torch.float32)
        for k, v in network.state_dict().items()
    }
    save_tensors(path, weights, facts)


def card_of(prior: EDMDenoiser) -> dict[str, Any]:
    """Returns what it takes to build a prior again, but for its weights."""
    if not isinstance(prior.net, ConvUNet):
        raise TypeError(f"save_prior: the network is a {type(prior.net).__name__}, not a ConvUNet")
    return {
        "net": prior.net.config,
        "channels": prior.channels,
        "dtype": str(prior.dtype).removeprefix("torch."),
        "mean": prior.mean,
        "sigma_data": prior.sigma_data,
        "range": list(prior.range),
        "sigma_range": list(prior.sigma_range),
    }


def built(card: Mapping[str, Any]) -> EDMDenoiser:
    """Returns the prior of a card, untrained."""
    return EDMDenoiser(
        ConvUNet(**card["net"]),
        channels=card["channels"],
        dtype=KINDS[card.get("dtype", "float32")],
        mean=card.get("mean", 0.0),
        sigma_data=card["sigma_data"],
        range=tuple(card["range"]),
        sigma_range=tuple(card["sigma_range"]),
    )


def known_priors() -> dict[str, Path]:
    """Returns the priors that ship with the package, by name and version, oldest first."""
    files = WEIGHTS.glob("*@*.safetensors")

    def key(path: Path) -> tuple[str, int]:
        name, _, version = path.stem.rpartition("@")
        return name, int(version)

    return {path.stem: path for path in sorted(files, key=key)}


def opened(name: str | os.PathLike[str]) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """Returns the file, the tensors and the card of weights, by name or path.

    Raises:
        ValueError: No weights have this name; the message lists those there are.
        DamagedFile: The file is not what was written.
    """
    path = Path(name)
    if path.suffix != ".safetensors":
        known = known_priors()
        versions = [k for k in known if str(name) in (k, k.rpartition("@")[0])]
        if not versions:
            listed = ", ".join(known) or "none"
            raise ValueError(
                f"no prior is called {str(name)!r}; known priors: {listed}; or give the path of a "
                "weight file (.safetensors)"
            )
        path = known[versions[-1]]
    return path, *load_tensors(path)


def load_weights(
    name: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> EDMDenoiser | Unfolded:
    """Returns what a file of weights holds: a prior or an unfolded network; see `load_prior`."""
    path, tensors, card = opened(name)
    made: EDMDenoiser | Unfolded
    if card.get("kind") == "edm":
        made = built(card)
        made.net.load_state_dict(tensors)
        nets = made.net
    elif card.get("kind") == "unfolded":
        made = METHODS[card["method"]](
            [built(one) for one in card["priors"]],
            card["depth"],
            sigma_data=card["sigma_data"],
            mean=card["mean"],
        )
        made.load_state_dict(tensors)
        nets = made.priors
    else:
        raise DamagedFile(f"{path}: holds {card.get('kind', 'no kind')!r}, not weights of ours")
    made.card = {k: v for k, v in card.items() if k != "tensors"}
    made.to(device)
    nets.to(dtype or fast_dtype(device)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return made.eval().requires_grad_(False)


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
    prior = load_weights(name, device=device, dtype=dtype)
    if not isinstance(prior, EDMDenoiser):
        raise ValueError(f"{name}: holds an unfolded network, not a prior; load_unfolded reads it")
    return prior


def load_unfolded(
    name: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Unfolded:
    """Returns a trained unfolded network: one that ships with the package, or a file.

    Args:
        name: Its name, with or without a version, or the path of a `.safetensors` file.
        device: Where it runs.
        dtype: Precision of the priors inside; see `load_prior`.
    Raises:
        ValueError: No network has this name.
        DamagedFile: The file is not what was written.
    """
    network = load_weights(name, device=device, dtype=dtype)
    if isinstance(network, EDMDenoiser):
        raise ValueError(f"{name}: holds a prior, not an unfolded network; load_prior reads it")
    return network
