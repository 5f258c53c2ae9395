"""Who does the scans of a job: this process, processes of this machine, Ray, Slurm.

Each is a frozen value, called with the task and the scans that are missing, and gives one outcome
for each scan as it comes. All call the same function of one scan, on one thread of torch, so the
results are the same bits whoever does them.

A process that dies takes the scan with it that it was at, if any. That scan is done again,
`retries` times; then it is reported as failed and the others go on. The scan that kills its
process cannot be told from one that was hit by chance, but a scan that is lost `retries + 1` times
can be called guilty.

Nothing here is a scheduler: Ray and Slurm (through submitit) are asked for what they do well.
"""

from __future__ import annotations

import inspect
import json
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TextIO
from uuid import uuid4

import torch

from ..records import json_text
from .manifest import Scan
from .task import Outcome, Task, forget
from .workers import Guard, Worker

__all__ = ["Loop", "Pool", "Ray", "Slurm", "executors"]


@dataclass(frozen=True)
class Loop:
    """This process, one scan after the other, on one thread."""

    def __call__(self, task: Task, scans: Sequence[Scan]) -> Iterator[Outcome]:
        with _one_thread():
            try:
                yield from map(task, scans)
            finally:
                forget()


@dataclass(frozen=True)
class Pool:
    """Processes of this machine, one thread each.

    They end with the process that started them, however that ends. A Python program that uses
    this needs the usual `if __name__ == "__main__":`, as for any `multiprocessing` by spawn.

    Args:
        workers: Number of processes; 0 is one per core.
        retries: How often a scan is done again whose process died.
    """

    workers: int = 0
    retries: int = 2

    def __call__(self, task: Task, scans: Sequence[Scan]) -> Iterator[Outcome]:
        if self.workers < 0 or self.retries < 0:
            raise ValueError(f"{self}: wants workers and retries of 0 or more")
        count = min(self.workers or _cores(), len(scans))
        waiting = deque((scan, 0) for scan in scans)
        under_way: dict[Any, tuple[Worker, Scan, int]] = {}
        done = deaths = 0
        guard = Guard()

        def begin(worker: Worker | None = None) -> None:
            scan, lost = waiting.popleft()
            worker = worker or Worker(task, guard)
            try:
                worker.begin(scan)
            except OSError:  # it died between two scans, and neither is to blame
                worker.stop()
                worker = Worker(task, guard)
                with suppress(OSError):  # that it is dead, too, is seen when its outcome is read
                    worker.begin(scan)
            under_way[worker.end] = (worker, scan, lost)

        try:
            for _ in range(count):
                begin()
            while under_way:
                for end in wait(list(under_way)):
                    worker, scan, lost = under_way.pop(end)
                    try:
                        outcome = worker.outcome()
                        done += 1
                    except (EOFError, OSError):
                        worker.stop()
                        deaths += 1
                        if not done and deaths > (self.retries + 1) * count:
                            raise ChildProcessError(
                                f"{self}: {deaths} processes died, and none has done a scan"
                            ) from None
                        again = lost < self.retries
                        if again:
                            waiting.append((scan, lost + 1))
                        if waiting:
                            begin()
                        if again:
                            continue
                        outcome = _lost(scan, lost + 1)
                    else:
                        if waiting:
                            begin(worker)
                        else:
                            worker.stop()
                    yield outcome
        finally:
            for worker, *_ in under_way.values():
                worker.stop()
            guard.close()


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True)
class Ray:
    """A Ray cluster (extra `cluster`), which all see the folders of the job.

    Args:
        address: The cluster: auto for the one this machine belongs to, ray://HOST:PORT; one of
            this machine is started when absent.
        cpus: Cores for one scan; the scan uses one thread.
        gpus: Accelerators for one scan; a part of one lets scans share it.
        retries: How often a scan is done again whose process or machine died.
    """

    address: str | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    retries: int = 2

    def __call__(self, task: Task, scans: Sequence[Scan]) -> Iterator[Outcome]:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of this
        ray = _imported("ray", "cluster")
        ours = not ray.is_initialized()
        if ours:
            ray.init(address=self.address, log_to_driver=False, logging_level="ERROR")
        asked = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_retries": self.retries}
        remote = ray.remote(**asked)(_on_one_thread)
        shared = ray.put(task)
        waiting = deque(scans)
        under_way: dict[Any, Scan] = {}
        try:
            while waiting or under_way:
                while waiting and len(under_way) < 1000:  # enough for any cluster to choose from
                    scan = waiting.popleft()
                    under_way[remote.remote(shared, scan)] = scan
                ready, _ = ray.wait(list(under_way), num_returns=1)
                for reference in ready:
                    scan = under_way.pop(reference)
                    try:
                        yield ray.get(reference)
                    except ray.exceptions.WorkerCrashedError:
                        yield _lost(scan, self.retries + 1)
                    except ray.exceptions.RayError as error:
                        yield Outcome(scan.name, "failed", f"Ray: {str(error).strip()}")
        finally:
            for reference in under_way:
                ray.cancel(reference, force=True)
            if ours:
                ray.shutdown()


@dataclass(frozen=True)
class Slurm:
    """An array of jobs on a Slurm cluster, through submitit (extra `slurm`).

    The scans are dealt out to the jobs of the array, and this process waits for them. A job that
    is preempted or times out goes on where it was; the scans of one that dies go to another job,
    but for those that it did or that failed.

    Args:
        jobs: Number of jobs in the array.
        partition: Partition of the cluster.
        minutes: Time limit of a job.
        cpus: Cores of a job; a scan uses one thread.
        gpus: Accelerators of a job.
        memory: Memory of a job, in GB.
        at_once: Most jobs that run at a time; all when 0.
        folder: Folder for scripts, logs and notes, seen by all machines; .slurm in that of the
            results when absent.
        local: Start the jobs as processes of this machine instead, to try it out.
        poll: Time between two looks at the jobs, in seconds.
        retries: How often a job is started again because of one scan.
    """

    jobs: int = 8
    partition: str | None = None
    minutes: int = 240
    cpus: int = 1
    gpus: int = 0
    memory: float = 8.0
    at_once: int = 0
    folder: Path | None = None
    local: bool = False
    poll: float = 5.0
    retries: int = 2

    def __call__(self, task: Task, scans: Sequence[Scan]) -> Iterator[Outcome]:
        folder = (self.folder or task.out / ".slurm").absolute()
        executor = self._executor(folder)
        count = min(self.jobs, len(scans))
        deaths = dict.fromkeys(scans, 0)

        def submit(parts: list[list[Scan]]) -> dict[Any, tuple[list[Scan], Path]]:
            notes = [folder / f"{uuid4().hex}.jsonl" for _ in parts]
            jobs = executor.map_array(_Part(task), parts, notes)
            return dict(zip(jobs, zip(parts, notes, strict=True), strict=True))

        under_way = submit([list(scans[i::count]) for i in range(count)])
        try:
            while under_way:
                ended = [job for job in under_way if job.done()]
                again = []
                for job in ended:
                    part, notes = under_way.pop(job)
                    error = job.exception()
                    if error is None:
                        yield from job.result()
                        continue
                    noted = _noted(notes)
                    left = []
                    for scan in part:
                        outcome = noted.get(scan.name)
                        kept = task.kept(scan) if outcome is None else None
                        if kept is not None:  # it died when the result was there, not yet noted
                            outcome = replace(kept, status="new")
                        if outcome is None:
                            left.append(scan)
                        else:
                            yield outcome
                    if left:
                        # one that was begun and has no outcome; if the job died before it began
                        # any, the first: whatever is wrong, this comes to an end
                        guilty = next((scan for scan in left if scan.name in noted), left[0])
                        deaths[guilty] += 1
                        if deaths[guilty] > self.retries:
                            yield _lost(guilty, deaths[guilty], f" (log: {job.paths.stderr})")
                            left.remove(guilty)
                    again += [left] if left else []
                if again:
                    under_way |= submit(again)
                if under_way:
                    time.sleep(self.poll)
        finally:
            for job in under_way:
                job.cancel()

    def _executor(self, folder: Path) -> Any:
        submitit = _imported("submitit", "slurm")
        if not self.local and shutil.which("sbatch") is None:
            raise FileNotFoundError(
                "Slurm: there is no sbatch on this machine; start where there is, or try it out "
                "here with --executor.local"
            )
        cluster = "local" if self.local else "slurm"
        executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        executor.update_parameters(
            name="measurand",
            timeout_min=self.minutes,
            cpus_per_task=self.cpus,
            gpus_per_node=self.gpus,
            mem_gb=self.memory,
            slurm_partition=self.partition,
            slurm_array_parallelism=self.at_once or self.jobs,
        )
        return executor


@dataclass(frozen=True)
class _Part:
    """What one job of an array does. It notes how far it is, for what must be known if it dies."""

    task: Task

    def __call__(self, scans: list[Scan], notes: Path) -> list[Outcome]:
        notes.parent.mkdir(parents=True, exist_ok=True)
        outcomes = []
        with open(notes, "w") as file:  # anew when preempted: what is complete is told again
            for scan in scans:
                _note(file, {"begun": scan.name})
                outcomes.append(_on_one_thread(self.task, scan))
                _note(file, asdict(outcomes[-1]))
        return outcomes

    def checkpoint(self, scans: list[Scan], notes: Path) -> Any:
        """What submitit starts anew when the job is preempted: the same, which does the rest."""
        return _imported("submitit", "slurm").helpers.DelayedSubmission(self, scans, notes)


def _note(file: TextIO, record: dict[str, Any]) -> None:
    """Adds a line that stays when the machine dies."""
    file.write(json_text(record) + "\n")
    file.flush()
    os.fsync(file.fileno())


def _noted(notes: Path) -> dict[str, Outcome | None]:
    """The outcomes that a job noted, by scan; None of the scan that it was at when it died."""
    found: dict[str, Outcome | None] = {}
    for line in notes.read_text().splitlines() if notes.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:  # the last line, cut short
            continue
        if "begun" in record:
            found[record["begun"]] = None
        else:
            metrics = tuple((name, value) for name, value in record.pop("metrics"))
            found[record["name"]] = Outcome(**record, metrics=metrics)
    return found


def executors() -> dict[str, type]:
    """Every executor, by its name on the command line."""
    here = sys.modules[__name__]
    found = ((name, getattr(here, name)) for name in __all__)
    return {name.lower(): cls for name, cls in found if inspect.isclass(cls)}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums are rounded by how they are split among threads: one thread, one result."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _on_one_thread(task: Task, scan: Scan) -> Outcome:
    with _one_thread():
        return task(scan)


def _lost(scan: Scan, times: int, where: str = "") -> Outcome:
    why = f"the process that did it died {times} times (out of memory?){where}"
    return Outcome(scan.name, "failed", why)


def _imported(name: str, extra: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError as error:
        raise ImportError(
            f"this executor needs {name}: pip install 'measurand[{extra}]'"
        ) from error
