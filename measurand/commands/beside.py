"""What `deblur`, `denoise` and `upscale` share: a picture in, a picture beside it out.

The result has the form and bit depth of the input. `photo-deblurred.png` comes with
`photo-deblurred.json`, which says of which input it is and how to repeat it: it is replaced when
the same input is done again, and any other file of that name is left alone: the result is then
`photo-deblurred-2.png`.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import count
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from .. import operators
from ..data.arrays import split_key
from ..files import write_atomic
from ..jobs.arguments import files_of, word
from ..jobs.folders import choosing, named_inputs
from ..jobs.manifest import Scan, is_many, name_of
from ..jobs.reading import Reading
from ..jobs.reconstruction import Reconstruction
from ..jobs.restore import bar
from ..records import json_text
from .reconstruct import Reconstruct
from .shared import File, Level

__all__ = ["Picture"]


@dataclass(frozen=True)
class Picture:
    """A picture to restore, and what is said of it.

    Args:
        file: The picture: PNG, JPEG, TIFF, BMP, WebP, PGM, PPM or .npy.
        sigma: Noise standard deviation, in units of the image scaled to [-1, 1] (s grey levels of
            255 are 2 s / 255); estimated from the picture when absent.
        prior: A prior that ships, a weight file, or total-variation; the best when absent.
        out: Folder for all results, as `reconstruct` writes them, instead of the picture.
        value_range: Samples that mean black and white, for floating-point files.
        device: cpu, cuda, or auto.
        quiet: Print nothing but errors.
        json: Print the record, as JSON.
    """

    file: Positional[File]
    sigma: Level = None
    prior: str | None = None
    out: Path | None = None
    value_range: tuple[float, float] | None = None
    device: str = "auto"
    quiet: bool = False
    json: bool = False

    def restored(
        self, operator: Any, command: list[str], *, ending: str, remarks: Sequence[str] = ()
    ) -> int:
        """Restores the picture, writes it beside the input and says what was chosen.

        Args:
            operator: What happened to it, as an operator of the command line.
            command: The words of the command line.
            ending: What the name of the result ends in.
            remarks: What the command itself chose, a sentence each.
        Returns:
            The exit code.
        """
        file, out, quiet = self.file, self.out, self.quiet
        how = Reconstruction(
            operator,
            reading=Reading(self.sigma, self.value_range),
            prior=self.prior,
            device=self.device,
        )
        if is_many(file):
            raise ValueError(
                f"{command[0]}: got {file}, wanted a picture; `measurand reconstruct` takes "
                "folders and tables of files"
            )
        if out is None and (file.is_dir() or file.suffix.lower() == ".mhd"):
            raise ValueError(f"{file}: the result is several files; say --out FOLDER")
        if out is not None:
            shared = {field.name: getattr(self, field.name) for field in fields(Picture)}
            return Reconstruct(operator=operator, **shared)(self._as_reconstruct(operator, out))
        runner, of = how.ready(), named_inputs(file)
        problem = runner.problem(Scan(file.name, str(file), None))
        if not (quiet or self.json):
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
                target = _free(first, of, [source, *files_of(operator).values()])
                write_atomic(target, picture)
                record["picture"] = target.name
                write_atomic(target.with_suffix(".json"), json_text(record, indent=1) + "\n")
        except OSError as error:
            raise OSError(
                f"cannot write beside {source}: {error.strerror or error}; choose a folder with "
                "--out"
            ) from error
        if self.json:
            print(json_text(record | {"out": str(target)}))
        elif not quiet:
            for note in record["notes"][len(remarks) + len(problem.notes) :]:
                print(f"note: {note}")
            print(f"{target} ({type(problem.method).__name__}, {record['seconds']:.1f} s)")
        return 0

    def _as_reconstruct(self, operator: Any, out: Path) -> list[str]:
        """The words of the command that does the same into a folder, as its run.json has them."""
        name = word(getattr(operators, type(operator).__name__))
        words = ["reconstruct", str(self.file), "--operator", name]
        for field in fields(operator):
            value = getattr(operator, field.name)
            if value is not None:
                words += [f"--operator.{field.name}", str(value)]
        for name, given in (("sigma", self.sigma), ("prior", self.prior)):
            if given is not None:
                words += [f"--{name}", str(given)]
        if self.value_range is not None:
            words += ["--value-range", *map(str, self.value_range)]
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
