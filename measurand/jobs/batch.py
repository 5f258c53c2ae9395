"""Many scans: a folder of results for each, and a rerun that does only what is missing.

A `Job` is a plain value: what is done to one scan (`Work`), the scans, the folder of results, the
seed. Its `task` is the function of one scan that every executor calls; `task.py` says what that
promises. `run` hands what is missing to an executor and counts:

    job = Job(work, scans_in(folder), out, seed=0)
    job.open()
    outcomes = run(job, Pool(workers=4))

The folder of results is of one job: `job.json` says of which settings. Others are an error, unless
they are to be replaced and nobody is at work there. Scans may be added at any time.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from ..files import sweep, write_atomic
from ..leases import alone, lease, living, void
from ..owners import stamp
from ..records import json_text
from .manifest import Scan
from .task import Outcome, Task, Work, digest_of, settings_in

__all__ = ["Executor", "Job", "failures", "run", "summary", "table"]


Progress = Callable[[int], AbstractContextManager[Callable[[int], None]]]


class Executor(Protocol):
    """Who does the scans: a frozen value of `executors`."""

    def __call__(self, task: Task, scans: Sequence[Scan]) -> Iterator[Outcome]:
        """Gives one outcome for each scan, in any order, as they come."""


@dataclass(frozen=True)
class Job:
    """What is to be done.

    Args:
        work: What is done to one scan.
        scans: The scans, each with a name of its own.
        out: Folder of the results, absolute.
        seed: The random numbers of a scan depend on (seed, name) alone.
        timeout: Seconds that a scan may take before it counts as failed; None for any.
    """

    work: Work
    scans: tuple[Scan, ...]
    out: Path
    seed: int = 0
    timeout: float | None = None

    def __post_init__(self) -> None:
        if not self.out.is_absolute():
            raise ValueError(f"Job: out is {self.out}, wanted an absolute path")
        if self.timeout is not None and not self.timeout > 0:
            raise ValueError(f"--timeout: got {self.timeout:g}, wanted seconds, more than 0")

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All that decides the results but the scans, as plain JSON."""
        return json.loads(json_text({**self.work.settings(), "seed": self.seed}))

    @cached_property
    def task(self) -> Task:
        """The function of one scan."""
        digest = digest_of(self.settings)
        return Task(self.work, self.out, self.seed, digest, self.timeout)

    def missing(self) -> tuple[tuple[Scan, ...], list[Outcome]]:
        """The scans that are still to be done, and the outcomes of those that are complete."""
        kept = {scan.name: self.task.kept(scan) for scan in self.scans}
        done = [outcome for outcome in kept.values() if outcome is not None]
        return tuple(scan for scan in self.scans if kept[scan.name] is None), done

    def open(
        self, *, replace: bool = False, command: Sequence[str] = (), inputs: Sequence[str] = ()
    ) -> None:
        """Makes the folder of results, and sees that it is of this job.

        Args:
            replace: Take over a folder with other settings; its results count as missing.
            command: The line that asked for the job, for `job.json`.
            inputs: The folder or the manifest that it names, for `job.json`.
        Raises:
            ValueError: The folder holds results of other settings; the message says which differ.
                Or it is to be replaced, and processes with other settings are at work in it.
            OSError: It cannot be written.
        """
        try:
            with self._door():
                self._enter(replace, command, inputs)
        except OSError as error:
            raise _unwritable(self.out, error) from error
        finally:
            _tidy(self.out)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """A block in which the folder stays of this job: nobody replaces it meanwhile.

        Raises:
            ValueError: It is of other settings.
            OSError: It cannot be written.
        """
        with ExitStack() as stack:
            try:
                stack.callback(_tidy, self.out)
                with self._door():
                    self._enter(False, (), ())
                    mine = self.out / ".partial" / f"job-{stamp()}.lease"
                    stack.enter_context(lease(mine, self.task.digest))
            except OSError as error:
                raise _unwritable(self.out, error) from error
            yield

    def _door(self) -> AbstractContextManager[None]:
        """One process at a time asks of what settings the folder is, or says so."""
        return alone(self.out / ".partial" / "settings.lease")

    def _enter(self, replace: bool, command: Sequence[str], inputs: Sequence[str]) -> None:
        """Sees that the folder is of this job, at the door."""
        found = settings_in(self.out)
        if found == self.settings:
            return
        if found is not None and not replace:
            raise ValueError(
                f"{self.out} holds results of other settings ({_difference(found, self.settings)})"
                "; choose another folder with --out, or replace them with --replace"
            )
        for other in living(self.out / ".partial"):
            if other.about not in ("", self.task.digest):
                raise ValueError(
                    f"{self.out} is in use by a job of other settings ({other}); wait for its end,"
                    " or choose another folder with --out"
                )
        content = {"settings": self.settings, "command": list(command), "inputs": list(inputs)}
        write_atomic(self.out / "job.json", json_text(content, indent=1) + "\n")


def run(
    job: Job,
    executor: Executor,
    *,
    progress: Progress = lambda total: nullcontext(lambda done: None),
    patience: float = 10.0,
) -> list[Outcome]:
    """Runs the scans that have no result yet; other processes may run the same job meanwhile.

    Args:
        job: What is to be done.
        executor: Who does it.
        progress: Shows how far it is: from the number of scans to do it makes a context, which
            gives a function of the number done.
        patience: Time that a result of another machine may take to be seen here, in seconds.
    Returns:
        One outcome for each scan of the job, in its order.
    """
    with job.at_work():
        return _run(job, executor, progress, patience)


def _run(job: Job, executor: Executor, progress: Progress, patience: float) -> list[Outcome]:
    missing, done = job.missing()
    found = {outcome.name: outcome for outcome in done}
    left = missing
    with progress(len(missing)) if missing else nullcontext(lambda done: None) as told:
        while left:
            for outcome in executor(job.task, left):
                found[outcome.name] = outcome
                told(len(found) - len(done))
            under_way = [o.name for o in found.values() if o.status == "elsewhere"]
            left = _abandoned(job, [scan for scan in left if scan.name in under_way])
    deadline = time.monotonic() + patience
    for scan in missing:
        if scan.name not in found:
            found[scan.name] = Outcome(scan.name, "failed", "the executor gave no outcome")
        outcome = found[scan.name]
        while outcome.status == "new" and not (job.out / scan.name / "run.json").exists():
            if time.monotonic() > deadline:
                why = f"done, but not seen in {job.out}: do all machines share this folder?"
                found[scan.name] = Outcome(scan.name, "failed", why)
                break
            time.sleep(0.1)
    return [found[scan.name] for scan in job.scans]


def _abandoned(job: Job, scans: Iterable[Scan]) -> tuple[Scan, ...]:
    """Those of some scans under way elsewhere whose processes have died.

    A process of another machine counts as alive for a while: here it is waited for its next sign.
    """
    waiting, left = list(scans), []
    ages: dict[str, float] = {}
    while waiting:
        unsure = []
        for scan in waiting:
            holder = job.task.holder(scan)
            if holder is None or not holder.alive:
                if job.task.kept(scan) is None:
                    left.append(scan)
            elif not holder.certain and holder.age >= ages.setdefault(scan.name, holder.age):
                unsure.append(scan)
        waiting = unsure
        if waiting:
            time.sleep(0.25)
    return tuple(left)


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Counts, failures, and means over all complete scans, as plain JSON."""
    count = {s: sum(o.status == s for o in outcomes) for s in ("new", "kept", "elsewhere")}
    whole = [o for o in outcomes if o.status in ("new", "kept")]
    values: dict[str, list[float]] = {}
    for outcome in whole:
        for key, value in outcome.metrics:
            values.setdefault(key, []).append(value)
    return {
        "scans": len(outcomes),
        **count,
        "failed": {o.name: o.error for o in outcomes if o.status == "failed"},
        "seconds": round(sum(o.seconds for o in whole), 3),
        "metrics": {key: statistics.fmean(found) for key, found in values.items()},
    }


def table(outcomes: Sequence[Outcome]) -> str:
    """What was done, as a small table: counts, mean time, mean metrics."""
    names = list(summary(outcomes)["metrics"])
    rows = [["", "scans", "seconds each", *names]]
    labels = {
        "new": "done now",
        "kept": "done before",
        "elsewhere": "under way elsewhere",
        "failed": "failed",
    }
    for status, label in labels.items():
        some = [o for o in outcomes if o.status == status]
        if not some and status != "new":
            continue
        row = [label, str(len(some))]
        if some and status in ("new", "kept"):
            means = summary(some)["metrics"]
            row.append(f"{statistics.fmean(o.seconds for o in some):.2f}")
            row += [f"{means[name]:.4g}" if name in means else "" for name in names]
        rows.append(row + [""] * (len(rows[0]) - len(row)))
    return _aligned(rows)


def _aligned(rows: list[list[str]]) -> str:
    """Rows of words as text: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        words = [word.rjust(width) for word, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *words[1:]]).rstrip())
    return "\n".join(lines)


def failures(outcomes: Sequence[Outcome], *, most: int = 20) -> list[str]:
    """One line for each scan that failed."""
    failed = [f"failed: {o.name}: {o.error}" for o in outcomes if o.status == "failed"]
    more = [f"failed: {len(failed) - most} more (--json lists all)"] if len(failed) > most else []
    return failed[:most] + more


def _difference(old: Any, new: Any, prefix: str = "") -> str:
    """Which settings differ, and how."""
    if not (isinstance(old, dict) and isinstance(new, dict)):
        return f"{prefix} was {_short(old)}, is {_short(new)}"
    keys: Iterable[str] = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if prefix and old.get("class") != new.get("class"):
        keys = ["class"]
    dot = f"{prefix}." if prefix else ""
    return "; ".join(_difference(old.get(key), new.get(key), f"{dot}{key}") for key in keys)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:12]}..."


def _unwritable(folder: Path, error: OSError) -> OSError:
    return OSError(
        f"cannot write results to {folder}: {error.strerror or error}; choose another folder "
        "with --out"
    )


def _tidy(out: Path) -> None:
    """Removes what dead processes have left, and nothing of a living one."""
    with suppress(OSError):
        void(out / ".partial")
        sweep(out / ".partial")
        (out / ".partial").rmdir()  # an error where somebody is at work
