"""One scan of many: done once, whole or not at all, the same wherever it is done.

A `Task` is the function of one scan that every executor calls, in this process or on another
machine. What it promises does not depend on who calls it, how often, or in what order:

* Complete: a result is `out/NAME/run.json` with the digest of the settings, and the inputs and
  outputs as it describes them. The folder is renamed into place when all in it is on the disk, so
  a process that dies leaves a whole result or none.
* Once: a scan belongs to one process at a time, by a lease in `out/.partial`. What a dead one has
  left there is removed when the job is run again.
* One job: where `out/job.json` says that the folder is of other settings by now, nothing is put
  into it.
* The same: random numbers come from (seed, name), and from nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, Protocol

from ..files import discard, publish, room, sha256, write_atomic
from ..leases import Lease, holder, lease
from ..owners import owner_of
from ..records import json_text
from .folders import foreign
from .manifest import Scan
from .provenance import digest_of_input, seal

__all__ = ["Outcome", "Restore", "Task", "Work", "forget", "scan_seed"]

Restore = Callable[[Scan, Path, int], dict[str, Any]]


class Work(Protocol):
    """What is done to one scan: a frozen value that can be hashed and pickled."""

    def __hash__(self) -> int: ...

    def settings(self) -> dict[str, Any]:
        """All that decides a result but its scan and its seed, as plain JSON."""

    def ready(self) -> Restore:
        """Loads what the scans share.

        Returns:
            A function of the scan, an empty folder to fill and the seed, which gives the record
            that `run.json` keeps.
        """


@dataclass(frozen=True)
class Outcome:
    """What became of one scan.

    Args:
        name: The scan.
        status: "new" if it was done now, "kept" if it was complete before, "failed", or
            "elsewhere" if another living process is doing it.
        error: Why it failed.
        seconds: Time of its method.
        metrics: What is known of its result.
    """

    name: str
    status: str
    error: str = ""
    seconds: float = 0.0
    metrics: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Task:
    """The function of one scan, the same wherever it is called.

    Args:
        work: What is done.
        out: Folder of the results, absolute.
        seed: Seed of the job.
        digest: Digest of settings and seed.
        timeout: Seconds that a scan may take; None for any.
    """

    work: Work
    out: Path
    seed: int
    digest: str
    timeout: float | None = None

    def __call__(self, scan: Scan) -> Outcome:
        """Does a scan, unless it is complete. A scan that fails is an outcome, not an error."""
        partial, key = self.out / ".partial", _key(scan.name)
        try:
            with lease(partial / f"{key}.lease", self.digest) as mine:
                if mine is None:
                    return Outcome(scan.name, "elsewhere")
                for left in partial.glob(f".{key}.*"):
                    if left.is_dir() and owner_of(left.name):  # whoever it was, it is our turn
                        discard(left)
                before = self.kept(scan)
                if before is not None:
                    return before
                self._check_settings()
                with room(self.out / scan.name, partial, key) as stage:
                    try:
                        record = self._made(scan, stage)
                    except Exception:
                        if not mine.lost:
                            raise
                    if mine.lost:  # this machine has slept: another one does it, or has done it
                        return Outcome(scan.name, "elsewhere")
                    _check_free(self.out / scan.name)
                    self._check_settings()
                    publish(stage, self.out / scan.name)
                return _outcome(scan, "new", record)
        except Exception as error:  # whatever is wrong with one scan, the others go on
            return Outcome(scan.name, "failed", _said(error))

    def _made(self, scan: Scan, stage: Path) -> dict[str, Any]:
        """Fills the folder of a scan; returns its record."""
        inputs = {key: _fingerprint(path) for key, path in scan.inputs.items()}
        restore = _ready(self.work)
        with limited(self.timeout):
            record = restore(scan, stage, scan_seed(self.seed, scan.name))
        record["batch"] = {
            "name": scan.name,
            "digest": self.digest,
            "inputs": inputs,
            "outputs": _sizes(stage),
        }
        digests = {str(path): inputs[key]["sha256"] for key, path in scan.inputs.items()}
        record = seal(stage, record, digests)
        write_atomic(stage / "run.json", json_text(record, indent=1) + "\n")
        return record

    def _check_settings(self) -> None:
        """Raise a `ValueError` where the folder of results is of another job by now."""
        found = settings_in(self.out)
        if found is not None and digest_of(found) != self.digest:
            raise ValueError(
                f"{self.out} is of a job with other settings by now (--replace); nothing is put "
                "into it"
            )

    def holder(self, scan: Scan) -> Lease | None:
        """The lease of the process that does a scan, or did until it died; None without one."""
        return holder(self.out / ".partial" / f"{_key(scan.name)}.lease")

    def kept(self, scan: Scan) -> Outcome | None:
        """The outcome of a scan that is complete; None for one that is still to be done."""
        folder = self.out / scan.name
        record = _record(folder)
        if record is None or record["batch"].get("digest") != self.digest:
            return None
        batch = record["batch"]
        seen = batch["inputs"]
        if set(seen) != set(scan.inputs):
            return None
        if any(_changed(path, seen[key]) for key, path in scan.inputs.items()):
            return None
        if any(_size(folder / name) != size for name, size in batch["outputs"].items()):
            return None
        return _outcome(scan, "kept", record)


def digest_of(settings: dict[str, Any]) -> str:
    """The digest of the settings of a job."""
    return sha256(json.dumps(settings, sort_keys=True))


def settings_in(out: Path) -> dict[str, Any] | None:
    """The settings that a folder of results is of; None where there are none yet.

    Raises:
        ValueError: `job.json` is damaged.
        OSError: It cannot be read.
    """
    card = out / "job.json"
    try:
        return dict(json.loads(card.read_text())["settings"])
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{card}: damaged; it should say what the results are of") from error


def _key(name: str) -> str:
    """The name of a scan as the name of a file, one to one."""
    return f"{re.sub('[^0-9A-Za-z-]', '_', name)[:40]}-{sha256(name)[:12]}"


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """A block that may last so long, in the main thread of a process.

    A signal interrupts it, between two lines of Python: one call of a library goes on to its end.

    Args:
        seconds: How long; None for any time.
    Raises:
        TimeoutError: It lasted longer.
        ValueError: This system, or a thread beside the main one, has no such signal.
    """
    if seconds is None:
        yield
        return
    if not hasattr(signal, "setitimer") or current_thread() is not main_thread():
        raise ValueError("--timeout: needs the signals of Unix, and the main thread of a process")

    running = True

    def ring(number: int, frame: Any) -> None:
        if running:
            raise _Overrun

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again, where somebody has caught it
    try:
        yield
    except _Overrun:
        raise TimeoutError(f"it took longer than {seconds:g} s (--timeout)") from None
    finally:
        running = False
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


class _Overrun(BaseException):
    """The time is over: no `Exception`, which the block itself could take for one of its own."""


def scan_seed(seed: int, name: str) -> int:
    """The seed of one scan of a job, an integer below 2^48."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:6], "little")


@lru_cache(maxsize=1)  # a process works for one job
def _ready(work: Work) -> Restore:
    return work.ready()


def forget() -> None:
    """Lets go of what the scans of the last job shared in this process."""
    _ready.cache_clear()


def _check_free(folder: Path) -> None:
    """Raise a `FileExistsError` unless a folder is new, empty, or an older result of ours."""
    if not folder.exists() or not any(folder.iterdir()):
        return
    record = _record(folder)
    if record is None:
        raise FileExistsError(
            f"{folder}: exists, and is no result of a job; move it away to have the scan done"
        )
    if others := foreign(folder, record["batch"]["outputs"]):
        raise FileExistsError(
            f"{folder}: holds {others[0]}, which no run wrote; move it away to have the scan done"
        )


def _record(folder: Path) -> dict[str, Any] | None:
    """The record of a result; None where there is none that can be understood."""
    try:
        record = json.loads((folder / "run.json").read_text())
        return record if isinstance(record["batch"]["outputs"], dict) else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _outcome(scan: Scan, status: str, record: dict[str, Any]) -> Outcome:
    metrics = tuple(record.get("metrics", {}).items())
    return Outcome(scan.name, status, "", record.get("seconds", 0.0), metrics)


def _fingerprint(path: Path) -> dict[str, Any]:
    size, time = _stamp(path)
    return {"bytes": size, "mtime_ns": time, "sha256": digest_of_input(path)}


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file; of a folder those of all files in it, and the latest."""
    found = [file.stat() for file in _files(path)]
    return sum(f.st_size for f in found), max((f.st_mtime_ns for f in found), default=0)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file())


def _changed(path: Path, seen: dict[str, Any]) -> bool:
    """Whether a file is not what it was; one that is gone cannot be done again, and is not."""
    try:
        if not path.exists():
            return False
        size, time = _stamp(path)
    except OSError:
        return False
    if size != seen["bytes"]:
        return True
    # a copy has another time: only then is the content read
    return time != seen["mtime_ns"] and digest_of_input(path) != seen["sha256"]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _sizes(folder: Path) -> dict[str, int]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _said(error: Exception) -> str:
    """An error as one line; the kind stands before those that are no message of ours."""
    from ..memory import exhausted, lacking

    if exhausted(error):
        return lacking(error)
    text = " ".join(str(error).split())
    ours = isinstance(error, ValueError | OSError | ArithmeticError | ImportError) and text
    return text if ours else f"{type(error).__name__}: {text}"
