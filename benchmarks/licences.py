"""Writes `measurand/weights/LICENCES.md`, which says under which terms each weight file comes.

    python benchmarks/licences.py       after weights were added, changed or removed

The terms are those of the cards. The page is in the wheel, beside the weights and in its metadata.
"""

from pathlib import Path

from measurand.weights.store import WEIGHTS, known_weights
from measurand.weights.tensorfile import load_tensors

PAGE = WEIGHTS / "LICENCES.md"
HEAD = """# Licences of the weights

The code is under the licence of the package (BSD-3-Clause). Weights are under the terms of the
data that they were trained on, and of the weights that they started from. "Research only": not for
any other use, and what is trained from them inherits that.

| file | use | data and terms |
|---|---|---|
"""


def page() -> str:
    """Returns the page for the weights that ship, from their cards."""
    return HEAD + "".join(line(name, path) for name, path in sorted(known_weights().items()))


def line(name: str, path: Path) -> str:
    """Returns a row of the table."""
    terms = load_tensors(path)[1]["licence"]
    use = "research only" if "research" in terms.lower() else "as the terms say"
    return f"| `{name}` | {use} | {terms.replace('|', '/')} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(PAGE)
