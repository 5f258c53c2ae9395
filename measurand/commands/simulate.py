"""The command that measures a picture: simulate."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from ..data.files import read_image
from ..data.form import Form
from ..data.sources import split_key
from ..data.writing import write_image
from ..jobs.arguments import build, files_of, notes_of
from ..jobs.folders import check_outside, named_inputs, reserved, staged
from ..jobs.manifest import name_of
from ..jobs.measured import noise_of
from ..jobs.provenance import write_record
from ..jobs.restore import environment, resolved
from ..records import json_text
from ..tensors import generators
from .shared import File, Operator

__all__ = ["Simulate"]


@dataclass(frozen=True)
class Simulate:
    """Measure a picture: apply an operator and add Gaussian noise.

    Writes measurement.npz (exact values, which `reconstruct` and `check` read), a picture of it
    where it has one, and run.json.

    Args:
        file: The picture.
        operator: How it is measured.
        sigma: Noise standard deviation, in units of the image scaled to [-1, 1].
        seed: Seed of the noise.
        out: Folder for the results; runs/NAME-measured when absent, with -2, -3 where that is of
            another file.
        value_range: Samples that mean black and white, for floating-point files.
        quiet: Print nothing but errors.
        json: Print the record of the run, as JSON.
    """

    file: Positional[File]
    operator: Operator
    sigma: float = 0.04
    seed: int = 0
    out: Path | None = None
    value_range: tuple[float, float] | None = None
    quiet: bool = False
    json: bool = False

    def __call__(self, command: list[str]) -> int:
        of, inputs = named_inputs(self.file), [self.file, *files_of(self.operator).values()]
        check_outside(self.out, inputs)
        picture = read_image(self.file, value_range=self.value_range)
        operator = build(self.operator, tuple(picture.x.shape[1:]))
        x = picture.x.to(operator.in_dtype)
        mean = operator(x)
        y = operator.observed(noise_of(self.sigma, mean)(mean, generators(self.seed, len(x))))
        notes = [*picture.notes, *notes_of(self.operator, operator.in_shape)]
        ends = (picture.form.low, picture.form.high)
        pictures = operator.pictures and not y.is_complex()
        if not (pictures or picture.x.is_complex() or ends == (-1.0, 1.0)):
            notes.append(
                f"the image is measured in [-1, 1], where {ends[0]:g} is -1 and {ends[1]:g} is 1; "
                "--value-range -1 1 measures samples as they are"
            )
        name = f"{name_of(split_key(self.file)[0])}-measured"
        with (
            reserved(self.out, name, of, by="simulate", inputs=inputs) as out,
            staged(out, by="simulate", inputs=inputs) as folder,
        ):
            kind = "complex64" if y.is_complex() else "float32"
            axes = "" if y.is_complex() else "CHW"
            form = Form(".npz", kind, axes=axes, low=-1.0, high=1.0, key="y")
            write_image(folder / "measurement.npz", y, form)
            if not y.is_complex() and len(y) == 1 and y.shape[1] in (1, 3):
                write_image(folder / "measurement.png", y, Form())
            record = {
                "command": ["measurand", *command],
                "inputs": of,
                "operator": resolved(self.operator) | {"image": list(operator.in_shape)},
                "sigma": self.sigma,
                "seed": self.seed,
                "notes": notes,
                **environment("cpu"),
            }
            record = write_record(folder / "run.json", record, inputs)
        if self.json:
            print(json_text(record | {"out": str(out)}))
        elif not self.quiet:
            for note in record["notes"]:
                print(f"note: {note}")
            print(f"{operator} with noise of sigma {self.sigma:g}: {out}/measurement.npz")
        return 0
