"""Priors on one line: what `repr` says of a prior, whatever network is inside."""

from torch import nn

__all__ = ["brief", "one_line", "weights_in"]

LONG = 140  # characters of a part; a prior with two of them fits on two lines of a terminal


def one_line(module: nn.Module) -> str:
    """Return the class of a module, the modules inside and its settings, on one line."""
    parts = [*map(brief, module.children()), module.extra_repr()]
    return f"{type(module).__name__}({', '.join(filter(None, parts))})"


def brief(thing: object) -> str:
    """Return a module on one line, a large one by its class and size; a function by its name."""
    if not isinstance(thing, nn.Module):
        return getattr(thing, "__name__", type(thing).__name__)
    text = repr(thing)
    if "\n" not in text and len(text) <= LONG:
        return text
    return f"{type(thing).__name__} of {weights_in(thing)}"


def weights_in(module: nn.Module) -> str:
    """Return the number of weights of a module, as text."""
    return f"{sum(p.numel() for p in module.parameters()):,} weights"
