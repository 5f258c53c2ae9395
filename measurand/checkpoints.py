"""Weights: priors, unfolded networks and flows, each one file that says what it is.

A file is tensors and a card (see `tensorfile`); `kind` in the card says how to build the module
that the tensors belong to. Those in the folder `weights` ship with the package and have names.
"""

import os
from collections.abc import Mapping
from functools import singledispatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from . import __version__
from .nets import ConvUNet, Glow
from .priors.edm import EDMDenoiser, fast_dtype
from .priors.flow import FlowPrior
from .tensorfile import DamagedFile, load_tensors, save_tensors
from .unfolded import (
    FlowProximal,
    Fold,
    GainStep,
    GradientStep,
    ProximalStep,
    ShrinkStep,
    UnfoldedDR,
    UnfoldedHQS,
    UnfoldedPGM,
)
from .unfolded.posterior_score import Unfolded

__all__ = [
    "known_weights",
    "load_prior",
    "load_unfolded",
    "load_weights",
    "save_weights",
]

WEIGHTS = Path(__file__).parent / "weights"
KINDS = {"float32": torch.float32, "complex64": torch.complex64}  # of images
METHODS = {kind.__name__: kind for kind in (UnfoldedDR, UnfoldedHQS, UnfoldedPGM)}
DATA_STEPS = {kind.__name__: kind for kind in (GradientStep, ProximalStep)}
PRIOR_STEPS: dict[str, Any] = {
    "GainStep": lambda prior, clip: GainStep(prior, clip=clip),
    "ShrinkStep": lambda prior, clip: ShrinkStep(clip=clip),
}


def save_weights(
    path: str | os.PathLike[str], model: nn.Module, *, dtype: torch.dtype | None = None
) -> None:
    """Writes a prior, an unfolded network or a flow to one file.

    Args:
        path: The file, `<name>@<version>.safetensors`.
        model: An `EDMDenoiser` or an `Unfolded` of `ConvUNet`s, a `FlowPrior` or a `FlowProximal`
            of `Glow`s; its `card` goes into the file.
        dtype: Precision of the stored weights: bfloat16 where None, float16 for flows, whose
            inverse is more exact so. Step sizes and the like stay in float32.
    """
    facts = described(model)
    whole = model.net if isinstance(model, EDMDenoiser) else model
    flow = facts["kind"].startswith("flow")
    dtype = dtype or (torch.float16 if flow else torch.bfloat16)

    def stored(name: str, x: Tensor) -> Tensor:
        if flow:  # only the networks inside couplings
            return x.to(dtype) if x.ndim == 4 else x
        own = isinstance(model, Unfolded) and not name.startswith("priors.")
        return x.to(torch.float32 if own else dtype)

    tensors = {name: stored(name, x) for name, x in whole.state_dict().items()}
    known: Any = model
    save_tensors(path, tensors, {**known.card, **facts, "measurand": __version__})


@singledispatch
def described(model: nn.Module) -> dict[str, Any]:
    """Returns what it takes to build a module again, but for its weights."""
    raise TypeError(f"save_weights: got a {type(model).__name__}, wants a prior or a network")


@described.register
def _(prior: EDMDenoiser) -> dict[str, Any]:
    if not isinstance(prior.net, ConvUNet):
        raise TypeError(
            f"save_weights: the network is a {type(prior.net).__name__}, not a ConvUNet"
        )
    return {
        "kind": "edm",
        "net": prior.net.config,
        "channels": prior.channels,
        "dtype": str(prior.dtype).removeprefix("torch."),
        "mean": prior.mean,
        "fixed_sum": prior.fixed_sum,
        "gains": None if prior.gains is None else list(prior.gains),
        "sigma_data": prior.sigma_data,
        "range": list(prior.range),
        "sigma_range": list(prior.sigma_range),
    }


@described.register
def _(network: Unfolded) -> dict[str, Any]:
    return {
        "kind": "unfolded",
        "method": type(network).__name__,
        "depth": network.depth,
        "radii": "shrinking",
        "sigma_data": network.sigma_data,
        "priors": [described(prior) for prior in network.priors],
    }


@described.register
def _(prior: FlowPrior) -> dict[str, Any]:
    if not isinstance(prior.flow, Glow):
        raise TypeError(f"save_weights: the flow is a {type(prior.flow).__name__}, not a Glow")
    return {
        "kind": "flow",
        "flow": prior.flow.config,
        "shape": list(prior.shape),
        "dtype": str(prior.dtype).removeprefix("torch."),
    }


@described.register
def _(network: FlowProximal) -> dict[str, Any]:
    folds: Any = network.folds
    steps = []
    for fold in folds:
        names = type(fold.data_step).__name__, type(fold.prior_step).__name__
        if names[0] not in DATA_STEPS or names[1] not in PRIOR_STEPS:
            raise TypeError(f"save_weights: knows no fold of {names[0]} and {names[1]}")
        steps.append([*names, fold.prior_step.clip])
    return {
        "kind": "flow-unfolded",
        "prior": described(network.priors[0]),
        "share": len(network.priors) < len(folds),
        "folds": steps,
    }


def built(card: Mapping[str, Any]) -> nn.Module:
    """Returns the module of a card, untrained.

    Raises:
        ValueError: It is not a card of ours.
    """
    match card.get("kind"):
        case "edm":
            return EDMDenoiser(
                ConvUNet(**card["net"]),
                channels=card["channels"],
                dtype=KINDS[card.get("dtype", "float32")],
                mean=card.get("mean", 0.0),
                fixed_sum=card.get("fixed_sum"),
                gains=card.get("gains"),
                sigma_data=card["sigma_data"],
                range=tuple(card["range"]),
                sigma_range=tuple(card["sigma_range"]),
            )
        case "unfolded" if card.get("radii") != "shrinking":
            raise ValueError("of an earlier kind, whose radii did not shrink: train it again")
        case "unfolded":
            return METHODS[card["method"]](
                [built({"kind": "edm", **one}) for one in card["priors"]],
                card["depth"],
                sigma_data=card["sigma_data"],
            )
        case "flow":
            glow = Glow(**card["flow"])
            return FlowPrior(glow, shape=tuple(card["shape"]), dtype=KINDS[card["dtype"]])
        case "flow-unfolded":
            prior: Any = built(card["prior"])
            folds = []
            for data_step, prior_step, *clip in card["folds"]:
                own = PRIOR_STEPS[prior_step](prior, clip[0] if clip else 6.0)
                folds.append(Fold(DATA_STEPS[data_step](), own))
            return FlowProximal(prior, folds, share=card["share"])
        case other:
            raise ValueError(f"holds {other or 'no kind'!r}, not weights of ours")


def known_weights() -> dict[str, Path]:
    """Returns the weights that ship with the package, by name and version, oldest first."""
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
        known = known_weights()
        versions = [k for k in known if str(name) in (k, k.rpartition("@")[0])]
        if not versions:
            listed = ", ".join(known) or "none"
            raise ValueError(
                f"no weights are called {str(name)!r}; there are: {listed}; or give the path of a "
                "weight file (.safetensors)"
            )
        path = known[versions[-1]]
    return path, *load_tensors(path)


def load_weights(
    name: str | os.PathLike[str],
    kind: type = nn.Module,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Any:
    """Returns trained weights: some that ship with the package, or a file.

    Args:
        name: "natural-color" for the newest version, "natural-color@2" for a fixed one, or the
            path of a `.safetensors` file.
        kind: What they have to be: `EDMDenoiser`, `Unfolded`, `FlowPrior`, `FlowProximal`.
        device: Where they run.
        dtype: Precision of the denoisers inside; None is bfloat16 where the device has units for
            it and float32 elsewhere. Images, step sizes and flows are float32 in either case.
    Raises:
        ValueError: No weights have this name, with a list of those there are; or they are of
            another kind.
        DamagedFile: The file is not what was written.
    """
    path, tensors, card = opened(name)
    try:
        made: Any = built(card)
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedFile(f"{path}: its card is not one of ours ({error})") from error
    if not issubclass(type(made), kind):
        raise ValueError(f"{name}: holds {type(made).__name__}, wanted {kind.__name__}")
    nets = made.net if isinstance(made, EDMDenoiser) else made
    try:
        nets.load_state_dict(tensors)
    except RuntimeError as error:
        raise DamagedFile(f"{path}: its weights do not fit its card ({error})") from error
    made.card = {k: v for k, v in card.items() if k != "tensors"}
    made.to(device)
    if isinstance(made, EDMDenoiser | Unfolded):
        denoisers: Any = made.priors if isinstance(made, Unfolded) else made.net
        denoisers.to(dtype or fast_dtype(device)).to(memory_format=torch.channels_last)
    return made.eval().requires_grad_(False)


def load_prior(
    name: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> EDMDenoiser:
    """Returns a trained prior; see `load_weights`."""
    prior: EDMDenoiser = load_weights(name, EDMDenoiser, device=device, dtype=dtype)
    return prior


def load_unfolded(
    name: str | os.PathLike[str],
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Unfolded:
    """Returns a trained network of Diff-Unfolding; see `load_weights`."""
    network: Unfolded = load_weights(name, Unfolded, device=device, dtype=dtype)
    return network
