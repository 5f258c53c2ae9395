"""What `deblur`, `denoise` and `upscale` share: a picture in, a picture beside it out.

The result has the form and bit depth of the input. `photo-deblurred.png` comes with
`photo-deblurred.json`, which says of which input it is and how to repeat it: it is replaced when
the same input is done again, and any other file of that name is left alone: the result is then
`photo-deblurred-2.png`.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from itertools import count
from pathlib import Path
from typing import Any

from .. import operators
from ..data.arrays import split_key
from ..files import write_atomic
from ..jobs.arguments import files_of, word
from ..jobs.folders import choosing, named_inputs
from ..jobs.manifest import Scan, is_many, name_of
from ..jobs.reconstruction import Reconstruction
from ..jobs.restore import bar
from ..records import json_text
from .reconstruct import Reconstruct

__all__ = ["restored_beside"]


def restored_beside(
    how: Reconstruction,
    file: Path,
    command: list[str],
    *,
    ending: str,
    remarks: Sequence[str] = (),
    out: Path | None = None,
    quiet: bool = False,
    as_json: bool = False,
) -> int:
    """Restores one picture, writes it beside the input and says what was chosen.

    Args:
        how: What is done.
        file: The picture.
        command: The words of the command line.
        ending: What the name of the result ends in.
        remarks: What the command itself chose, a sentence each.
        out: A folder for results as `reconstruct` writes them, instead of the picture.
        quiet: Print nothing but errors.
        as_json: Print the record.
    Returns:
        The exit code.
    """
    if is_many(file):
        raise ValueError(
            f"{command[0]}: got {file}, wanted a picture; `measurand reconstruct` takes folders "
            "and tables of files"
        )
    if out is None and (file.is_dir() or file.suffix.lower() == ".mhd"):
        raise ValueError(f"{file}: the result is several files; say --out FOLDER")
    if out is not None:
        same = Reconstruct(
            file,
            how.operator,
            sigma=how.reading.sigma,
            prior=how.prior,
            value_range=how.reading.value_range,
            device=how.device,
            out=out,
            quiet=quiet,
            json=as_json,
        )
        return same(_as_reconstruct(how, file, out))
    runner, of = how.ready(), named_inputs(file)
    problem = runner.problem(Scan(file.name, str(file), None))
    if not (quiet or as_json):
        for note in (*remarks, *problem.notes):
            print(f"note: {note}")
    total = problem.method.settled(problem.measurement).rounds
    with tempfile.TemporaryDirectory() as room, bar(ending, total, quiet=quiet) as update:
        record = runner.solve(problem, Path(room), 0, lambda done, step: update(step.step + 1))
        picture = (Path(room) / f"estimate{problem.form.suffix}").read_bytes()
    source = split_key(file)[0]
    first = source.with_name(f"{name_of(source)}-{ending}{problem.form.suffix}")
    record = {"command": ["measurand", *command], "inputs": of, **record}
    record["notes"] = [*remarks, *record["notes"]]
    try:
        with choosing(first):
            target = _free(first, of, [source, *files_of(how.operator).values()])
            write_atomic(target, picture)
            record["picture"] = target.name
            write_atomic(target.with_suffix(".json"), json_text(record, indent=1) + "\n")
    except OSError as error:
        raise OSError(
            f"cannot write beside {source}: {error.strerror or error}; choose a folder with --out"
        ) from error
    if as_json:
        print(json_text(record | {"out": str(target)}))
    elif not quiet:
        print(f"{target} ({type(problem.method).__name__}, {record['seconds']:.1f} s)")
    return 0


def _as_reconstruct(how: Reconstruction, file: Path, out: Path) -> list[str]:
    """The words of the command that does the same into a folder, as its run.json has them."""
    name = word(getattr(operators, type(how.operator).__name__))
    words = ["reconstruct", str(file), "--operator", name]
    for field in fields(how.operator):
        value = getattr(how.operator, field.name)
        if value is not None:
            words += [f"--operator.{field.name}", str(value)]
    for name, given in (("sigma", how.reading.sigma), ("prior", how.prior)):
        if given is not None:
            words += [f"--{name}", str(given)]
    if how.reading.value_range is not None:
        words += ["--value-range", *map(str, how.reading.value_range)]
    return [*words, "--out", str(out)]


def _free(first: Path, of: Sequence[str], inputs: Sequence[Path]) -> Path:
    """The first of name.png, name-2.png, ... that does not exist, or is of the same input."""
    read = {path.resolve() for path in inputs}
    for k in count(1):
        path = first if k == 1 else first.with_name(f"{first.stem}-{k}{first.suffix}")
        beside = path.with_suffix(".json")
        if read & {path.resolve(), beside.resolve()}:
            continue
        if not (path.exists() or beside.exists()):
            return path
        record = _record(beside)
        if record.get("inputs") == list(of) and record.get("picture") == path.name:
            return path
    raise AssertionError  # counting has no end


def _record(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
