"""Writes the weights that ship in 8 bits (`weights.quantized`), each as its next version.

    python benchmarks/requantize.py                 in measurand/weights; the old files are removed
    python benchmarks/requantize.py --into FOLDER   into a folder; the old files stay

The newest version of each name is converted unless it is in 8 bits already. The card stays, gains
and results too; "of" in it says which file the new one was made of. Prints the sizes in megabytes
and the relative error of all weights. What 8 bits cost in quality is measured by
`quantization.py`, before; `licences.py` is run after.
"""

import argparse
from pathlib import Path

import torch

from measurand.files import sha256_file
from measurand.weights.store import WEIGHTS, known_weights, load, opened, save


def requantized(path: Path, folder: Path) -> Path:
    """Writes the next version of a weight file, in 8 bits; returns the new file."""
    name, _, version = path.stem.rpartition("@")
    new = folder / f"{name}@{int(version) + 1}.safetensors"
    if new.exists():
        raise FileExistsError(new)
    network = load(path, dtype=torch.float32)
    of = {"file": path.stem, "sha256": sha256_file(path)}
    network.card = {**network.card, "version": int(version) + 1, "of": of}
    save(new, network)
    _, _, before = opened(path)
    _, _, after = opened(new)
    changed = {k for k in before if before[k] != after.get(k)} - {"version", "tensors"}
    if changed - {"measurand"}:
        raise ValueError(f"{new}: the card differs in {', '.join(sorted(changed))}")
    return new


def error(path: Path, new: Path) -> float:
    """Returns the relative error of all weights of a file."""
    (_, old, _), (_, read, _) = opened(path), opened(new)
    square = sum(float((read[k].double() - x.double()).square().sum()) for k, x in old.items())
    return (square / sum(float(x.double().square().sum()) for x in old.values())) ** 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--into", type=Path, help="folder for the new files; the old ones stay")
    args = parser.parse_args()
    total = 0.0
    for path in {name.rpartition("@")[0]: path for name, path in known_weights().items()}.values():
        size = path.stat().st_size / 1e6
        if "storage" in opened(path)[2]:
            print(f"{path.stem}: {size:.2f}, is in 8 bits")
        else:
            new = requantized(path, args.into or WEIGHTS)
            now = new.stat().st_size / 1e6
            print(f"{new.stem}: {size:.2f} -> {now:.2f}, error {error(path, new):.4f}", flush=True)
            if args.into is None:
                path.unlink()
            size = now
        total += size
    print(f"all: {total:.2f}")


if __name__ == "__main__":
    main()
