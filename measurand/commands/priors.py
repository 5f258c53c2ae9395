"""The command that lists the weights that ship: priors."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

from ..domains import domain_of
from ..files import sha256_file
from ..records import json_text
from ..weights.store import kinds, known_weights, weight_file
from ..weights.tensorfile import load_tensors

__all__ = ["Priors"]


Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="[NAME ...]")]


@dataclass(frozen=True)
class Priors:
    """The priors and networks that ship: a line each, or all about some of them.

    Args:
        names: Those of which to print what the card says, with its digests; names or weight
            files.
        json: Print whole cards, as JSON.
    """

    names: Positional[Names] = ()
    json: bool = False

    def __call__(self, command: list[str]) -> int:
        files = {path.stem: path for path in map(weight_file, self.names)} or known_weights()
        cards: dict[str, dict[str, Any]] = {}
        for name, path in files.items():
            try:
                cards[name] = load_tensors(path)[1]
            except (OSError, ValueError) as error:  # one file less, not an end of the list
                cards[name] = {"error": str(error)}
        if self.json:
            told = {k: {**c, "tensors": len(c.get("tensors", ()))} for k, c in cards.items()}
            print(json_text(told))
            return 0
        width = max((len(name) for name in cards), default=0)
        for name, card in cards.items():
            print(f"{name:<{width}}  {_line(card, files[name])}")
            for line in _details(card, files[name]) if self.names else ():
                print(f"    {line}")
        if not cards:
            print("no prior ships with this package")
        return 0


def _line(card: dict[str, Any], path: Path) -> str:
    """What weights are, how good, of what, how large and under which licence, in a line."""
    if "error" in card:
        return f"cannot be read: {card['error']}"
    cls = kinds().get(str(card.get("kind")))
    try:
        what = (
            f"of a kind unknown here, {card.get('kind')!r}" if cls is None else cls.summary(card)
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        what = f"its card is not one of ours ({type(error).__name__}: {error})"
    recipe = card.get("recipe")
    domain = _domain(recipe.get("domain")) if isinstance(recipe, dict) else ""
    size = f"{path.stat().st_size / 1e6:.1f} MB"
    parts = (what, domain, size, f"licence: {card.get('licence') or 'not said'}")
    return "; ".join(part for part in parts if part)


def _domain(text: Any) -> str:
    """The domain of a card, without the fields that have their defaults."""
    try:
        domain: Any = domain_of(text)
    except ValueError:
        return str(text or "")
    said = [(f.name, getattr(domain, f.name)) for f in fields(domain)]
    other = [f"{k}={v!r}" for k, v in said if v != type(domain).__dataclass_fields__[k].default]
    return type(domain).__name__ + (f"({', '.join(other)})" if other else "")


def _details(card: dict[str, Any], path: Path) -> Iterator[str]:
    """What a card says of its weights, a line for each, and the digest of the file."""
    held_out = [key for key in card if key.startswith("held_out")]
    for key in ("data", *held_out, "notes", "init"):
        if card.get(key):
            yield f"{key.replace('_', ' ')}: {_words(card[key])}"
    for key, label in (
        ("psnr", "PSNR in dB, by noise of 255"),
        ("calibration", "predicted over measured error, by sigma"),
        ("measured_on", "measured on"),
    ):
        if card.get(key):
            yield f"{label}: {_words(card[key])}"
    yield f"file: {path}, sha256: {sha256_file(path)}"


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_words(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    return f"{value:.2f}" if isinstance(value, float) else str(value)
