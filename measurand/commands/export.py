"""The command that makes files that run without Python: export."""

import glob
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from tyro.conf import Positional

from ..devices import device_named
from ..weights.export import compile_portable, compiled_file, export
from ..weights.store import load

__all__ = ["Export"]


Weights = Annotated[
    tuple[str, ...],
    tyro.conf.arg(metavar="WEIGHTS | NAME-portable.pt2 ...", help_behavior_hint="(required)"),
]
Size = Annotated[
    tuple[int, int],
    tyro.conf.arg(metavar="HEIGHT WIDTH", help_behavior_hint="(required for weights)"),
]


@dataclass(frozen=True)
class Export:
    """Write a prior or an unfolded network for use without Python.

    A compiled file for this machine, which the program in `cpp/` runs, and a portable one to
    compile elsewhere: `measurand export NAME-portable.pt2` does that, without the weights.

    Args:
        weights: Weights that ship, or a file: a prior, or a network of Diff-Unfolding. Or the
            portable files of one, all of them, to compile for this machine.
        size: Height and width of the images, in pixels; portable files have theirs.
        out: The compiled file; exported/NAME.pt2 when absent, of portable files NAME.pt2 beside
            them.
        batch: Largest number of images at once.
        precision: float32, bfloat16, or auto for what runs fastest on the device.
        portable_only: Do not compile.
        device: cpu, cuda, or auto.
        quiet: Print nothing but errors.
    """

    weights: Positional[Weights]
    size: Size = (0, 0)
    out: Path | None = None
    batch: int = 8
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    portable_only: bool = False
    device: str = "cpu"
    quiet: bool = False

    def __call__(self, command: list[str]) -> int:
        compiling = bool(self.weights) and all(name.endswith(".pt2") for name in self.weights)
        files = [self._compiled()] if compiling else self._exported()
        if not self.quiet:
            print("\n".join(str(path) for path in files))
        return 0

    def _compiled(self) -> Path:
        """The compiled file of portable ones."""
        if self != Export(self.weights, out=self.out, quiet=self.quiet):
            raise ValueError(
                "export: size, batch, precision and device are in the portable files already, "
                "beside them there is only --out and --quiet"
            )
        first = Path(self.weights[0])
        name = re.sub(r"-portable(-\d+)?$", "", first.stem)
        out = compiled_file(self.out or first.with_name(f"{name}.pt2"))
        _check_new(out)
        return compile_portable(self.weights, out)

    def _exported(self) -> list[Path]:
        """The files of weights."""
        if len(self.weights) != 1:
            raise ValueError(
                f"export: got {' '.join(self.weights) or 'nothing'}, wants one name or file of "
                "weights, or the portable files (.pt2) of one network"
            )
        if self.size == (0, 0):
            raise ValueError("export: wants --size HEIGHT WIDTH, that of the images in pixels")
        (weights,) = self.weights
        dtype = None if self.precision == "auto" else getattr(torch, self.precision)
        model = load(weights, device=device_named(self.device), dtype=dtype)
        name = Path(weights).name.removesuffix(".safetensors")
        out = compiled_file(self.out or Path("exported") / f"{name}.pt2")
        compiled = not self.portable_only
        portable = out.with_name(f"{out.stem}-portable")
        _check_new(
            *([out] if compiled else []), *out.parent.glob(f"{glob.escape(portable.name)}*.pt2")
        )
        return export(model, out, size=self.size, batch=self.batch, compiled=compiled)


def _check_new(*paths: Path) -> None:
    """Raise a `ValueError` where a file is there: it does not say of which weights it is."""
    for path in paths:
        if os.path.lexists(path):
            raise ValueError(
                f"export: {path} exists and would be replaced: wants another name, by --out, or "
                "that the file is removed"
            )
