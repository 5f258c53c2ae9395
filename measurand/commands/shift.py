"""The command that asks which prior fits measurements: shift."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from ..devices import device_named
from ..jobs.arguments import files_of
from ..jobs.folders import check_outside, named_inputs, reserved, staged
from ..jobs.manifest import Scan, scans_in
from ..jobs.provenance import write_record
from ..jobs.restore import bar, environment, resolved
from ..jobs.shift import evidence, judged, masks_of, plotted
from ..records import json_text
from ..shift import Curve, Divergence, Rank
from ..tensors import generators
from .shared import File, Level, Operator

__all__ = ["Shift"]


@dataclass(frozen=True)
class Shift:
    """Which of some priors fits the images behind measurements, without any clean image.

    Prints the priors, the best one first, by the loss of denoising what was measured, in nats per
    unknown above the best; an interval that holds zero says that the order is not certain. With a
    reference, a prior that is known to fit, also the divergence of each other prior from it.
    Writes shift.json and shift.png.

    Args:
        file: A folder of measurements of images of one kind and size, or a manifest.
        operator: How they were measured: masks, Fourier lines, or a circular blur. The mask may
            be a folder, with one for each measurement under the same name: measurements that
            share one mask tell nothing about the rest of the image.
        priors: The candidates: priors that ship, or weight files.
        reference: One of them that is known to fit.
        fixed: It is meant that all measurements share one mask: the result is of what it shows.
        sigma: Noise standard deviation, in units of the image scaled to [-1, 1]; estimated from
            each file when absent.
        shape: Shape C H W of the images, where it does not follow from the measurements.
        value_range: Samples of an image that mean black and white, for floating-point files.
        limit: Use the first measurements only.
        nodes: Number of noise levels.
        seed: Seed of the noise.
        out: Folder for the results; runs/NAME-shift when absent, with -2, -3 where that is of
            another folder.
        device: cpu, cuda, or auto.
        quiet: Print nothing but errors.
        json: Print the record, as JSON.
    """

    file: Positional[File]
    operator: Operator
    priors: tuple[str, ...]
    reference: str | None = None
    fixed: bool = False
    sigma: Level = None
    shape: tuple[int, int, int] | None = None
    value_range: tuple[float, float] | None = None
    limit: int | None = None
    nodes: int = 40
    seed: int = 0
    out: Path | None = None
    device: str = "auto"
    quiet: bool = False
    json: bool = False

    def __call__(self, command: list[str]) -> int:
        names = tuple(
            dict.fromkeys((*self.priors, *((self.reference,) if self.reference else ())))
        )
        if len(names) < 2:
            raise ValueError(f"--priors: got {', '.join(names) or 'none'}, wants two or more")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit: got {self.limit}, wants at least one measurement")
        scans = self._scans()
        inputs = [
            *(Path(scan.file) for scan in scans),
            *files_of(self.operator).values(),
            *map(Path, masks_of(self.operator).values()),
            *(Path(name) for name in names),
        ]
        check_outside(self.out, inputs)
        device = device_named(self.device)
        found = evidence(
            scans,
            self.operator,
            names,
            sigma=self.sigma,
            shape=self.shape,
            value_range=self.value_range,
            device=device,
        )
        if not (self.quiet or self.json):
            for note in found.notes:
                print(f"note: {note}")
        settings = Divergence(nodes=self.nodes, fills=2, spread=True, fixed=self.fixed)
        parts = 1 if self.reference is None else len(names)
        of = named_inputs(self.file)
        with (
            reserved(self.out, f"{self._stem}-shift", of, by="shift", inputs=inputs) as out,
            staged(out, by="shift", inputs=inputs) as folder,
        ):
            with bar(
                "shift", parts * self.nodes, quiet=self.quiet or self.json, unit="level"
            ) as update:
                every = generators(self.seed, len(scans), device)
                order, curves = judged(found, settings, self.reference, every, update)
            record = {
                "command": ["measurand", *command],
                "inputs": of,
                "files": [scan.file for scan in scans],
                "operator": resolved(self.operator),
                "reference": self.reference,
                "seed": self.seed,
                "settings": resolved(settings),
                "order": [rank._asdict() for rank in order],
                "divergence": {name: _plain(curve) for name, curve in curves.items()},
                "notes": found.notes,
                **environment(device),
            }
            plotted(folder / "shift.png", order, curves, f"{len(scans)} of {self._stem}")
            record = write_record(folder / "shift.json", record, inputs)
        if self.json:
            print(json_text(record | {"out": str(out)}))
        elif not self.quiet:
            print("\n".join(_table(order, curves)))
            print(f"results in {out}")
        return 0

    def _scans(self) -> tuple[Scan, ...]:
        """The measurements; one file is none of many."""
        if not self.file.is_dir() and self.file.suffix.lower() not in (".csv", ".jsonl"):
            raise ValueError(f"{self.file}: wanted a folder of measurements, or a manifest")
        return scans_in(self.file)[: self.limit]

    @property
    def _stem(self) -> str:
        return self.file.absolute().stem


def _plain(curve: Curve) -> dict[str, object]:
    """A divergence as plain JSON."""
    return {
        "total": curve.total,
        "interval": list(curve.interval),
        "per_dimension": curve.per_dimension,
        "keep": curve.keep,
        "partial": curve.partial,
        "levels": curve.levels.tolist(),
        "gap": curve.gap.tolist(),
        "cumulative": curve.cumulative.tolist(),
    }


def _table(order: list[Rank], curves: dict[str, Curve]) -> list[str]:
    """The order, a line for each prior, and what it says."""
    wide = max(len(rank.name) for rank in order)
    lines = [
        f"{'prior':<{wide}}  {'excess':>9}  {'95 % interval':>22}" + "  divergence" * bool(curves)
    ]
    for rank in order:
        low, high = rank.interval
        line = f"{rank.name:<{wide}}  {rank.excess:9.4f}  {f'[{low:.4f}, {high:.4f}]':>22}"
        if rank.name in curves:
            curve = curves[rank.name]
            line += f"  {curve.total:10.4g}" + " (partial)" * curve.partial
        lines.append(line)
    best, unsure = order[0].name, [rank.name for rank in order[1:] if rank.interval[0] <= 0]
    said = f"{best} fits best" if not unsure else f"{best} fits best, {', '.join(unsure)} as well"
    return [*lines, said]
