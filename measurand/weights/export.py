r"""Trained denoisers as files that run without Python.

Of an unfolded network only the learned part D(v, r) is compiled, with AOTInductor: the physics
and the loop around it are a few closed formulas, the same for every network, and are written out
in `cpp/`. Complex numbers stay outside (the compiler accepts them and the compiled code fails):
complex images go in and out as real channels.

    NAME.pt2            compiled for this torch and this kind of processor: a model "block" + k
                        for each learned step k = 0, 1, ..., in: v (B, C, H, W), r (B,), out: z
    NAME-portable.pt2   the exported program of a block, not compiled (-k where there are several):
                        `torch.export.load` reads it, and `compile_portable` makes NAME.pt2 of it
                        on another machine, where the weights need not be

Both carry what `cpp/main.cpp` needs to know of the network as text: numbers of the steps, size and
kind of the images. A portable file also says which block it holds.

Both end with a comment of the archive, `measurand-sha256` and the digest of all bytes before it.
The loaders of torch do not compare the check sums of an archive: they would run, or compute with,
whatever a damaged one holds. `verified` and the C++ program compare the digest before they open
the file. It tells of damage, not of malice: whoever can write a file can write its digest.
"""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from ..files import atomic, sha256_file
from ..priors.trained import Trained, numbers
from .tensorfile import DamagedFile

__all__ = ["compile_portable", "compiled_file", "export", "verified"]

_MARK = b"measurand-sha256 "
_TRAILER = len(_MARK) + 64  # bytes of the comment
_END = b"PK\5\6"  # signature of the last record of an archive; its last field, of two bytes,
_RECORD = 22  # is the length of the comment


def export(
    model: Trained,
    out: str | os.PathLike[str],
    *,
    size: tuple[int, int],
    batch: int = 8,
    compiled: bool = True,
) -> list[Path]:
    """Writes a prior or an unfolded network for use without Python.

    Args:
        model: A prior, or `UnfoldedDR`, in the precision that it shall run in.
        out: The compiled file, `NAME.pt2`; the portable ones are named after it.
        size: Height and width of the images, in pixels.
        batch: Largest number of images at once.
        compiled: Compile, too; it takes a C++ compiler and a minute or two.
    Returns:
        The files.
    Raises:
        ValueError: The network has steps that the program in `cpp/` does not know, the batch is
            not positive, or there is no compiler.
    """
    exported = model.exported()
    if batch < 1 or min(size) < 1:
        raise ValueError(
            f"export: got a batch of {batch} and images of {size}, wants them above 0"
        )
    out = compiled_file(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    programs = [program(block, exported.channels, size, batch) for block in exported.blocks]
    about = exported.about | {
        "name": str(model.card.get("name", "")),
        "licence": str(model.card.get("licence", "")),
        "size": numbers(size),
        "batch": str(batch),
        "device": next(model.parameters()).device.type,
    }
    files = []
    for k, one in enumerate(programs):
        label = f"-{k}" if len(programs) > 1 else ""
        files.append(out.with_name(f"{out.stem}-portable{label}.pt2"))
        with atomic(files[-1]) as temporary:
            torch.export.save(one, temporary, extra_files=about | {"block": str(k)})
            seal(temporary)
    return [*files, package(programs, about, out)] if compiled else files


def compile_portable(files: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Path:
    """Compiles the portable form of a network for this machine.

    What comes out is what `export` would write here. Like every `torch.export` file, a portable
    one can run code when it is opened: take it from people whom you trust.

    Args:
        files: The portable files of one network, all of them, in any order.
        out: The compiled file, `NAME.pt2`.
    Returns:
        The compiled file.
    Raises:
        ValueError: A file is no portable one of `export`, they are not all the blocks of one
            network, the compiled file would replace one of them, or there is no compiler.
    """
    out = compiled_file(out)
    if any(out.resolve() == Path(path).resolve() for path in files):
        raise ValueError(f"export: {out} is a portable file, wants another name for the compiled")
    found = sorted((portable(path) for path in files), key=lambda one: one[1])
    about = found[0][2] if found else {}
    blocks = int(about.get("blocks", "1"))  # a prior is one
    if [k for _, k, _ in found] != list(range(blocks)) or any(a != about for _, _, a in found):
        raise ValueError(
            f"export: got blocks {[k for _, k, _ in found]} of {blocks}, wants the portable files "
            "of all blocks of one network, each once"
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    return package([one for one, _, _ in found], about, out)


def portable(
    path: str | os.PathLike[str],
) -> tuple[torch.export.ExportedProgram, int, dict[str, str]]:
    """Returns the program in a portable file, which block it is, and what the file says."""
    about = {"block": ""}  # torch would not fill one without keys
    try:
        one = torch.export.load(verified(path), extra_files=about)
        return one, int(about.pop("block")), about
    except (RuntimeError, KeyError) as error:
        raise ValueError(f"export: {path} is no portable file of `measurand export`") from error


def verified(path: str | os.PathLike[str]) -> Path:
    """Returns the path of an exported file whose content is what was written, to the last bit.

    For programs that load a package by themselves: `load_package(str(verified(path)), "block0")`.
    A file with its digest can still run code when it is loaded: see `compile_portable`.

    Args:
        path: A compiled or a portable file.
    Raises:
        FileNotFoundError: There is no such file.
        DamagedFile: It differs from its digest, or has none.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"export: {path} is not there, or no file")
    with open(path, "rb") as file:
        start = file.seek(0, os.SEEK_END) - _TRAILER
        file.seek(max(start, 0))
        comment = file.read()
    if start < 0 or not comment.startswith(_MARK):
        raise DamagedFile(
            f"export: {path} is no file of `measurand export`, or one without its digest (cut "
            "off, or made by an earlier version): export it again"
        )
    if sha256_file(path, size=start) != comment[len(_MARK) :].decode("latin-1"):
        raise DamagedFile(
            f"export: {path} is damaged, it differs from its digest: copy or export it again"
        )
    return path


def compiled_file(out: str | os.PathLike[str]) -> Path:
    """Returns the path of a compiled file."""
    out = Path(out)
    return out if out.suffix == ".pt2" else out.with_name(f"{out.name}.pt2")


def program(
    block: nn.Module, channels: int, size: tuple[int, int], batch: int
) -> torch.export.ExportedProgram:
    """Returns the exported program of one block, for up to `batch` images."""
    n = min(batch, 2)  # an example of one item would fix the batch to one
    device = next(block.parameters()).device
    v, r = torch.randn(n, channels, *size, device=device), torch.rand(n, device=device) + 0.1
    shapes = None
    if batch > 1:
        items = torch.export.Dim("items", min=1, max=batch)
        shapes = ({0: items}, {0: items})
    with torch.no_grad():
        return torch.export.export(block, (v, r), dynamic_shapes=shapes)


def package(
    programs: list[torch.export.ExportedProgram], about: dict[str, str], out: Path
) -> Path:
    """Writes and returns the compiled file of the blocks of a network."""
    from torch._inductor import aot_compile
    from torch._inductor.package import package_aoti

    compiled: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        for k, one in enumerate(programs):
            options = {
                "aot_inductor.package": True,
                "aot_inductor.metadata": about,
                # blocks of one shape are one graph: each in a folder of its own
                "aot_inductor.output_path": str(Path(folder) / f"block{k}"),
            }
            try:
                compiled[f"block{k}"] = aot_compile(
                    one.module(check_guards=False), *one.example_inputs, options=options
                )
            except (torch._inductor.exc.InductorError, subprocess.CalledProcessError) as error:
                reason = str(error).split("\n")[0]
                raise ValueError(
                    f"export: the portable form is there, but could not be compiled ({reason}); "
                    "it takes a C++ compiler"
                ) from error
        with atomic(out) as temporary:
            package_aoti(str(temporary), compiled)
            seal(temporary)
    return out


def seal(path: Path) -> None:
    """Puts the digest of an archive without a comment at its end."""
    with open(path, "r+b") as file:
        file.seek(-_RECORD, os.SEEK_END)
        if not (file.read(4) == _END and file.read()[-2:] == b"\0\0"):
            raise ValueError(f"export: {path} is no archive that a digest can be added to")
        file.seek(-2, os.SEEK_END)
        file.write(_TRAILER.to_bytes(2, "little"))
    digest = sha256_file(path)
    with open(path, "ab") as file:
        file.write(_MARK + digest.encode())
