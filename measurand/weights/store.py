"""Weights: trained networks, each one file that says what it is.

A file is tensors and a card (see `tensorfile`); `kind` in the card says which class the network is
of: one of the `Trained` that the folders of networks name in their `__init__`. The class does the
rest. Files in the folder `weights` ship with the package and have names.

What a network names (`Trained.coded`) is stored in 8 bits (see `quantized`; "storage" in the card
says so), and is float32 again once it is read.
"""

import copy
import json
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from .. import priors, unfolded
from ..priors.capabilities import Denoiser
from ..priors.edm import fast_dtype
from ..priors.trained import Trained
from .quantized import dequantize, quantize
from .tensorfile import DamagedFile, load_tensors, save_tensors

__all__ = [
    "kinds",
    "known_weights",
    "load",
    "load_prior",
    "save",
    "saveable",
    "stored",
    "weight_file",
]

WEIGHTS = Path(__file__).parent
FOLDERS = (priors, unfolded)  # of networks
UNFIT = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    ArithmeticError,
    IndexError,
)
STORAGE = "int8/32"  # of files with codes: 8 bits, and a scale for each group of 32 inputs


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
    """Writes a trained network to one file, which `load` reads.

        ms.save("mine@1.safetensors", network)

    Args:
        path: The file, `<name>@<version>.safetensors`.
        model: The network, a `Trained`; its `card` goes into the file.
        dtype: Precision of the stored weights; 8 bits for most of them where None, as their kind
            says. What has to be exact, such as step sizes, keeps its own.
    Raises:
        TypeError: The network has no card.
        ValueError: A weight is not finite.
    """
    network = saveable(model)
    tensors, names = packed(network, dtype)
    card = {**network.card, **network.to_card(), "measurand": version("measurand")}
    card.pop("storage", None)  # of the file that it was read from
    save_tensors(path, tensors, {**card, "storage": STORAGE} if names else card)


def stored(model: nn.Module) -> Any:
    """Returns a copy of a network with the weights that it has once it is saved and read.

    What is measured of weights for their card, or fitted to them, is that of these.
    """
    network = copy.deepcopy(saveable(model))
    network.weights.load_state_dict(dequantize(packed(network)[0]))
    return network


def packed(
    network: Trained, dtype: torch.dtype | None = None
) -> tuple[dict[str, Tensor], set[str]]:
    """Returns the tensors of the file of a network, and the names of those in 8 bits."""
    state = network.weights.state_dict()
    names = {name for name, x in state.items() if dtype is None and network.coded(name, x)}
    tensors = {
        name: x if name in names or network.keeps(name, x) else x.to(dtype or network.storage)
        for name, x in state.items()
    }
    return quantize(tensors, names), names


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
    """Returns the file, the weights and the card of a network, by name or path; see `weight_file`.

    Raises:
        DamagedFile: The file is not what was written, or is stored in a way unknown here.
    """
    path = weight_file(name)
    tensors, card = load_tensors(path)
    if card.get("storage", STORAGE) != STORAGE:
        raise DamagedFile(f"{path}: stored as {card['storage']!r}, known are codes {STORAGE!r}")
    try:
        return path, dequantize(tensors), card
    except ValueError as error:
        raise DamagedFile(f"{path}: its codes are not those of weights ({error})") from error


def load(
    name: str | os.PathLike[str],
    kind: type = Trained,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Any:
    """Returns a trained network: one that ships with the package, or one of a file.

        prior = ms.load("natural-color")
        x_hat = prior.denoise(v, 0.1)

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
        FileNotFoundError: There is no such file.
        DamagedFile: The file is not what was written.
    """
    path, tensors, card = opened(name)
    try:
        cls = kinds().get(card["kind"]) if "kind" in card else None
        if cls is None:
            raise ValueError(f"holds {card.get('kind', 'no kind')!r}, not weights of ours")
        wanted = shapes(cls, card, len(tensors))
        given = {key: tuple(x.shape) for key, x in tensors.items()}
        odd = sorted(dict(wanted.items() ^ given.items()))
        if odd:
            of = f"{odd[0]}: wanted {wanted.get(odd[0])}, got {given.get(odd[0])}"
            raise DamagedFile(f"{path}: its weights do not fit its card ({of})")
        network = cls.from_card(card)
    except DamagedFile:
        raise
    except UNFIT as error:
        raise DamagedFile(f"{path}: its card is not one of ours ({error})") from error
    if not isinstance(network, kind):
        raise ValueError(f"{name}: holds {type(network).__name__}, wanted {kind.__name__}")
    try:
        network.weights.load_state_dict(tensors)
    except RuntimeError as error:
        raise DamagedFile(f"{path}: its weights do not fit its card ({error})") from error
    network.card = {k: v for k, v in card.items() if k not in ("tensors", "storage")}
    network.to(device)
    if network.fast is not None:
        network.fast.to(dtype or fast_dtype(device)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network.eval().requires_grad_(False)


def shapes(cls: type[Trained], card: Mapping[str, Any], most: int) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of the weights that a card describes, by name; nothing is allocated.

    A forged card may describe a network of any size: it is laid out on the meta device, and given
    up once it has more parameters than there can be.

    Raises:
        ValueError: It has more than `most`.
    """
    left = most

    def one_more(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"it describes more parameters than the {most} of the file")

    counting = register_module_parameter_registration_hook(one_more)
    try:
        with torch.device("meta"):
            state = cls.from_card(card).weights.state_dict()
    finally:
        counting.remove()
    return {name: tuple(x.shape) for name, x in state.items()}


def load_prior(
    name: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Any:
    """Returns a trained denoiser: `load` of one; see there."""
    return load(name, Denoiser, device=device, dtype=dtype)
