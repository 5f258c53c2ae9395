"""Weights: trained networks, each one file that says what it is.

A file is tensors and a card (see `tensorfile`); `kind` in the card says which class the network is
of: one of the `Trained` that the folders of networks name in their `__init__`. The class does the
rest. Files in the folder `weights` ship with the package and have names.
"""

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import priors, unfolded
from ..priors.capabilities import Denoiser, Trained
from ..priors.edm import fast_dtype
from .tensorfile import DamagedFile, load_tensors, save_tensors

__all__ = ["kinds", "known_weights", "load", "load_prior", "save", "saveable", "weight_file"]

WEIGHTS = Path(__file__).parent
FOLDERS = (priors, unfolded)  # of networks


def kinds() -> dict[str, type[Trained]]:
    """Returns the classes of trained networks, by the word for them in a card."""
    named = [getattr(folder, name) for folder in FOLDERS for name in folder.__all__]
    classes = [one for one in named if isinstance(one, type) and issubclass(one, Trained)]
    return {one.kind: one for one in classes if "kind" in vars(one)}  # its subclasses inherit it


def saveable(model: nn.Module) -> Trained:
    """Returns a network that has a card, so that it can be saved.

    Raises:
        TypeError: It has none, or has parts that no card can describe.
    """
    if not isinstance(model, Trained):
        raise TypeError(
            f"save: got a {type(model).__name__}, wants a network that a weight file can describe "
            "(priors.Trained)"
        )
    json.dumps(model.to_card())
    return model


def save(
    path: str | os.PathLike[str], model: nn.Module, *, dtype: torch.dtype | None = None
) -> None:
    """Writes a trained network to one file.

    Args:
        path: The file, `<name>@<version>.safetensors`.
        model: The network, a `Trained`; its `card` goes into the file.
        dtype: Precision of the stored weights; that of its kind where None. What has to be exact,
            such as step sizes, keeps its own.
    Raises:
        TypeError: The network has no card.
    """
    network = saveable(model)
    tensors = {
        name: x if network.keeps(name, x) else x.to(dtype or network.storage)
        for name, x in network.weights.state_dict().items()
    }
    save_tensors(
        path, tensors, {**network.card, **network.to_card(), "measurand": version("measurand")}
    )


def known_weights() -> dict[str, Path]:
    """Returns the weights that ship with the package, by name and version, oldest first."""
    files = WEIGHTS.glob("*@*.safetensors")

    def key(path: Path) -> tuple[str, int]:
        name, _, version = path.stem.rpartition("@")
        return name, int(version)

    return {path.stem: path for path in sorted(files, key=key)}


def weight_file(name: str | os.PathLike[str]) -> Path:
    """Returns the file of weights.

    Args:
        name: "natural-color" for the newest version of those that ship, "natural-color@2" for a
            fixed one, or the path of a `.safetensors` file.
    Raises:
        ValueError: No weights have this name; the message lists those there are.
        FileNotFoundError: There is no such file.
    """
    path = Path(name)
    if path.suffix != ".safetensors":
        known = known_weights()
        versions = [k for k in known if str(name) in (k, k.rpartition("@")[0])]
        if not versions:
            listed = ", ".join(known) or "none"
            raise ValueError(
                f"no weights are called {str(name)!r}; there are: {listed}; or give the path of a "
                "weight file (.safetensors)"
            )
        path = known[versions[-1]]
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such weight file")
    return path


def opened(name: str | os.PathLike[str]) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """Returns the file, the tensors and the card of weights, by name or path; see `weight_file`.

    Raises:
        DamagedFile: The file is not what was written.
    """
    path = weight_file(name)
    return path, *load_tensors(path)


def load(
    name: str | os.PathLike[str],
    kind: type = Trained,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Any:
    """Returns a trained network: one that ships with the package, or one of a file.

    Args:
        name: "natural-color" for the newest version, "natural-color@2" for a fixed one, or the
            path of a `.safetensors` file.
        kind: What it has to be: a class such as `FlowPrior`, or a capability such as `Posterior`.
        device: Where it runs.
        dtype: Precision of the part that may run in bfloat16: of denoisers, also those inside
            unfolded networks. None is bfloat16 where the device has units for it and float32
            elsewhere. Images, step sizes and flows are float32 in either case.
    Raises:
        ValueError: No weights have this name, with a list of those there are; or they are of
            another kind.
        DamagedFile: The file is not what was written.
    """
    path, tensors, card = opened(name)
    try:
        cls = kinds().get(card["kind"]) if "kind" in card else None
        if cls is None:
            raise ValueError(f"holds {card.get('kind', 'no kind')!r}, not weights of ours")
        network = cls.from_card(card)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"{path}: its card is not one of ours ({error})") from error
    if not isinstance(network, kind):
        raise ValueError(f"{name}: holds {type(network).__name__}, wanted {kind.__name__}")
    try:
        network.weights.load_state_dict(tensors)
    except RuntimeError as error:
        raise DamagedFile(f"{path}: its weights do not fit its card ({error})") from error
    network.card = {k: v for k, v in card.items() if k != "tensors"}
    network.to(device)
    if network.fast is not None:
        network.fast.to(dtype or fast_dtype(device)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)


def load_prior(
    name: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Any:
    """Returns a trained denoiser: `load` of one; see there."""
    return load(name, Denoiser, device=device, dtype=dtype)
