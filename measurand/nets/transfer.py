r"""Starts a network from the weights of another one, of other channels, inputs or attention.

What a network has learnt of edges and textures is worth much for other images too. Everything
between the first and the last layer is copied. The channels are joined by the matrix M that
interpolates linearly between them, the first of one beside the first of the other:

    stem_new = stem M,   head_new = M^+ head,   M: new channels -> old channels

so that for one new channel the old network sees it in each of its own and their mean is the
output: what it did with images without colour. Where the channels are the same, M = 1.

A condition that is new has zero weights: the new network starts as the old one, bit for bit.
"""

import torch
from torch import Tensor, nn

from .unet import Attention, Block, ConvUNet

__all__ = ["transfer"]


@torch.no_grad()
def transfer(old: nn.Module, new: nn.Module) -> None:
    """Copies the weights of a network into one whose channels or attention may differ.

    Attention that the old one lacks keeps its weights, and starts as the identity. Further
    channels of a condition, after those that the old one knows, have zero weights.

    Args:
        old: Where the weights come from, a `ConvUNet`.
        new: Where they go, in place; another one.
    Raises:
        TypeError: One of them is no `ConvUNet`.
        ValueError: Another part of the networks differs, or the new one sees less of a condition.
    """
    if not isinstance(old, ConvUNet) or not isinstance(new, ConvUNet):
        names = f"{type(old).__name__} and {type(new).__name__}"
        raise TypeError(f"transfer: got networks {names}, wants a ConvUNet each")
    for key in ("widths", "blocks", "stem", "features"):
        if old.config[key] != new.config[key]:
            raise ValueError(
                f"transfer: got a network of {key} {old.config[key]}, wants {new.config[key]}; "
                "only channels, condition and attention may differ"
            )
    seen, more = old.condition_channels, new.condition_channels - old.condition_channels
    if more < 0:
        raise ValueError(
            f"transfer: got a network with {seen} condition channels, wants at most "
            f"{new.condition_channels}, those of the new one"
        )
    for name in ("embedding", "down", "up", "merge"):
        getattr(new, name).load_state_dict(getattr(old, name).state_dict())
    for name in ("encoder", "decoder"):
        for theirs, ours in zip(getattr(old, name), getattr(new, name), strict=True):
            for kind in (Block, Attention):
                given = [layer for layer in theirs if isinstance(layer, kind)]
                wanted = [layer for layer in ours if isinstance(layer, kind)]
                for source, target in zip(given, wanted, strict=False):
                    target.load_state_dict(source.state_dict())
    pixels = new.config["stem"] ** 2
    if new.condition_channels:
        known = new.condition_stem.weight[:, : seen * pixels]
        nn.init.zeros_(new.condition_stem.weight)
        if seen:
            known.copy_(old.condition_stem.weight)
    inputs = joining(old.config["in_channels"], new.config["in_channels"]).to(old.stem.weight)
    outputs = joining(old.config["out_channels"], new.config["out_channels"])
    outputs = torch.linalg.pinv(outputs).to(old.stem.weight)
    stem, head = old.stem.state_dict(), old.head.state_dict()
    weight = torch.einsum("wopij,on->wnpij", stem["weight"].unflatten(1, (-1, pixels)), inputs)
    new.stem.load_state_dict({"weight": weight.flatten(1, 2), "bias": stem["bias"]})
    weight = torch.einsum("no,opwij->npwij", outputs, head["weight"].unflatten(0, (-1, pixels)))
    bias = outputs @ head["bias"].unflatten(0, (-1, pixels))
    new.head.load_state_dict({"weight": weight.flatten(0, 1), "bias": bias.flatten()})


def joining(old: int, new: int) -> Tensor:
    """Returns M, with shape (old, new): linear interpolation of the new channels at the old.

    One old channel stands for the mean of the new ones.
    """
    if old == 1:
        return torch.full((1, new), 1 / new)
    place = torch.linspace(0, new - 1, old)
    return (1 - (place[:, None] - torch.arange(new)).abs()).clamp_min(0)
