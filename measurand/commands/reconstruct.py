"""The command that recovers the image behind measured files: reconstruct."""

import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ..data.sources import split_key
from ..files import sha256_file
from ..jobs.arguments import files_of
from ..jobs.batch import Job, failures, run, summary, table
from ..jobs.blind import BlindReconstruction
from ..jobs.executors import Loop
from ..jobs.folders import check_outside, choosing, free, named_inputs, reserved, staged
from ..jobs.manifest import Scan, is_many, name_of, scans_in, shard, shard_named
from ..jobs.provenance import write_record
from ..jobs.reconstruction import Reconstruction, rounds_of, with_operands
from ..jobs.restore import bar, resolved
from ..methods import Step
from ..records import json_text
from ..samplers import BlindPnPDM
from ..tuning.settings import Settings, read_settings
from .measured import Measured
from .shared import AnyMethod, Executor, seconds

__all__ = ["Reconstruct"]


@dataclass(frozen=True)
class Reconstruct(Measured):
    """Recover the image behind a measured file, or behind each of many.

    A folder or a manifest stands for many scans, with a folder of results for each. A rerun does
    what is missing; the exit code is 1 when a scan failed.

    Args:
        file: The measurement: PNG, JPEG, TIFF[:page], BMP, WebP, PGM, PPM, .npy, .npz[:key],
            .h5[:dataset], .mat[:name], NIfTI, MetaImage or DICOM, also a folder of one DICOM
            series; a folder of these; or a manifest, .csv or .jsonl, with columns file, truth,
            name and options of the operator. Several pages or slices in, several out.
        method: How the image is recovered; the best that ships for the problem when absent (hqs
            where --method.NAME sets something).
        settings: A settings file, as `tune` writes it: the method with its settings, and a prior.
        draws: Number of draws of a sampler.
        seed: Seed of everything random; the same seed gives the same bits.
        out: Folder for the results; runs/NAME-METHOD when absent, with -2, -3 where that is of
            another file. What an earlier run has left there is replaced as a whole; no other
            folder is taken unless it is empty, and none that holds what is read.
        truth: The true image, where it is known: adds metrics and an error map. For a folder, a
            folder of truths under the same names.
        truth_range: The same of the truth; that of the measurement when absent, if both are files
            of one kind.
        tile: Larger images are denoised in overlapping tiles, of at most this size in
            pixels.
        margins: Write all of the estimate, also what lies beyond the frame of the measurement
            (blurs see as far as their kernel reaches).
        device: cpu, cuda, or auto.
        executor: Many scans: who does them.
        timeout: Many scans: how long one may take, like 90s, 20m or 2h; one that takes longer has
            failed, and the others go on.
        shard: Many scans: only part I of N, written I/N, like 2/8.
        replace: Many scans: replace results in the folder that other settings made.
        figures: Many scans: draw comparison.png for each.
        quiet: Print nothing but errors.
        json: Print the record of the run, as JSON.
    """

    method: AnyMethod = None
    settings: Path | None = None
    draws: int = 4
    seed: int = 0
    out: Path | None = None
    truth: Path | None = None
    truth_range: tuple[float, float] | None = None
    tile: int = 1024
    margins: bool = False
    device: str = "auto"
    executor: Executor = field(default_factory=Loop)
    timeout: str | None = None
    shard: str | None = None
    replace: bool = False
    figures: bool = False
    quiet: bool = False
    json: bool = False

    def __call__(self, command: list[str]) -> int:
        if self.settings is None:
            return self._run(command, [])
        if any(word.startswith(("--method", "method:")) for word in command):
            raise ValueError(f"--settings {self.settings} names the method: leave --method out")
        found = read_settings(self.settings)
        tuned = replace(self, method=found.method, prior=self.prior or found.prior_name)
        return tuned._run(command, _doubts(found, self))

    def _run(self, command: list[str], doubts: list[str]) -> int:
        if not (self.quiet or self.json):
            for doubt in doubts:
                print(f"note: {doubt}")
        if is_many(self.file):
            return self._many(command)
        self._for_many_only()
        inputs = self._inputs()
        check_outside(self.out, inputs)
        restorer = self._how(figure=True).ready()
        truth = None if self.truth is None else str(self.truth)
        problem = restorer.problem(Scan(self.file.name, str(self.file), truth))
        if not (self.quiet or self.json):
            for note in problem.notes:
                print(f"note: {note}")
        method, of = problem.method, named_inputs(self.file)
        name = type(method).__name__
        first = f"{name_of(split_key(self.file)[0])}-{name.lower()}"
        with (
            reserved(self.out, first, of, by="reconstruct", inputs=inputs) as out,
            staged(out, by="reconstruct", inputs=inputs) as folder,
        ):
            total = method.settled(problem.measurement[:1]).rounds
            rounds = rounds_of(method, self.draws) * len(problem.measurement)
            with bar(name, total and total * rounds, quiet=self.quiet) as update:

                def on_step(done: int, step: Step) -> None:
                    update(done * (total or 0) + step.step + 1)

                record = restorer.solve(problem, folder, self.seed, on_step)
            record = {"command": ["measurand", *command], "inputs": of, **record}
            record = write_record(folder / "run.json", record, inputs)
        if self.json:
            print(json_text(record | {"out": str(out)}))
        elif not self.quiet:
            for note in record["notes"][len(problem.notes) :]:
                print(f"note: {note}")
            numbers = "".join(f", {key} {value:.4g}" for key, value in record["metrics"].items())
            calls = f", {record['nfe']} denoiser calls" if record["nfe"] else ""
            print(f"{name}: {record['seconds']:.1f} s{calls}{numbers}")
            print(f"results in {out}")
        return 0

    def _inputs(self) -> list[Path]:
        """What is read; the names of what ships among them."""
        named = [self.file, self.truth, self.settings, self.prior and Path(self.prior)]
        named += [split_key(name)[0] for name in (self.seen, self.flat, self.dark) if name]
        return [*(path for path in named if path), *files_of(self.operator).values()]

    def _how(self, *, figure: bool) -> Reconstruction:
        blind = self.blind
        how = partial(BlindReconstruction, theta_prior=self.theta_prior)
        return (how if blind else Reconstruction)(
            self.operator,
            self.method or (BlindPnPDM() if blind else None),
            reading=self.reading,
            prior=self.prior,
            draws=self.draws,
            shape=self.shape,
            truth_range=self.truth_range,
            tile=self.tile,
            margins=self.margins,
            device=self.device,
            figure=figure,
        )

    def _for_many_only(self) -> None:
        given = {
            "timeout": self.timeout is not None,
            "shard": self.shard is not None,
            "executor": self.executor != Loop(),
            "replace": self.replace,
            "figures": self.figures,
        }
        for name, used in given.items():
            if used:
                raise ValueError(
                    f"--{name} is for many scans; {self.file} is not a folder or a manifest"
                )

    def _many(self, command: list[str]) -> int:
        scans = scans_in(self.file, truth=self.truth)
        data = [path for scan in scans for path in scan.inputs.values()]
        check_outside(self.out, [*data, *self._inputs()[1:]])
        parts = [".partial", "job.json", *(scan.name for scan in scans)]
        check_outside(self.out, [self.file], parts=parts)  # a manifest may lie beside these
        if self.shard is not None:
            scans = shard(scans, *shard_named(self.shard))
        for scan in scans:
            with_operands(self.operator, scan.operands)  # before the first is begun
        method = type(self.method).__name__ if self.method else "best"
        how, of = self._how(figure=self.figures).anywhere(), named_inputs(self.file)
        first = Path("runs") / f"{name_of(self.file.absolute())}-{method.lower()}"
        with nullcontext() if self.out else choosing(first):
            out = self.out or free(first, of, by="reconstruct", inputs=data, records=["job.json"])
            limit = None if self.timeout is None else seconds(self.timeout, "--timeout")
            job = Job(how, scans, out.absolute(), self.seed, limit)
            job.open(replace=self.replace, command=("measurand", *command), inputs=of)
        started = time.perf_counter()
        silent = self.quiet or self.json
        found = run(
            job,
            self.executor,
            progress=lambda total: bar(method, total, quiet=silent, unit="scan"),
        )
        record = {"out": str(out), **summary(found)}
        record["wall_seconds"] = round(time.perf_counter() - started, 3)
        if self.json:
            print(json_text(record))
        else:
            if not self.quiet:
                print(table(found))
                print(f"results in {out}")
            for line in failures(found):
                print(line, file=sys.stderr)
        return 1 if record["failed"] else 0


def _doubts(settings: Settings, asked: Reconstruct) -> list[str]:
    """In what the problem at hand differs from the one for which settings were found."""
    found, tuned, prior = [], settings.tuned, settings.prior
    operator = tuned.get("operator")
    if isinstance(operator, dict) and operator != resolved(asked.operator):
        found.append(f"the settings were found for {operator}")
    sigma = tuned.get("sigma")
    if asked.sigma is not None and isinstance(sigma, float) and sigma != asked.sigma:
        found.append(f"the settings were found for noise of sigma {sigma:g}")
    if asked.prior not in (None, settings.prior_name) and prior:
        found.append(f"the settings were found for the prior {settings.prior_name}")
    elif "sha256" in prior and Path(prior.get("name", "")).is_file():
        if sha256_file(prior["name"]) != prior["sha256"]:
            found.append(f"{prior['name']} is not the file for which the settings were found")
    return found
