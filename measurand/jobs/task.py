"""One scan of many: done once, whole or not at all, the same wherever it is done.

A `Task` is the function of one scan that every executor calls, in this process or on another
machine. What it promises does not depend on who calls it, how often, or in what order:

* Complete: a result is `out/NAME/run.json` with the digest of the settings, and the inputs and
  outputs as it describes them. The folder is renamed into place when all in it is on the disk, so
  a process that dies leaves a whole result or none.
* Once: a scan belongs to one process at a time (`files.claimed`). What a dead one has left is
  hidden in `out/.partial` and removed when the job is run again.
* The same: random numbers come from (seed, name), and from nothing else.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from ..files import claimed, publish, sha256, sha256_file, write_atomic
from ..records import json_text
from .folders import foreign
from .manifest import Scan

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
    """

    work: Work
    out: Path
    seed: int
    digest: str

    def __call__(self, scan: Scan) -> Outcome:
        """Does a scan, unless it is complete. A scan that fails is an outcome, not an error."""
        partial = self.out / ".partial" / scan.name
        try:
            with claimed(partial) as ours:
                if not ours:
                    return Outcome(scan.name, "elsewhere")
                before = self.kept(scan)
                if before is not None:
                    return before
                inputs = {key: _fingerprint(path) for key, path in scan.inputs.items()}
                stage = partial / "results"
                stage.mkdir()
                record = _ready(self.work)(scan, stage, scan_seed(self.seed, scan.name))
                record["batch"] = {
                    "name": scan.name,
                    "digest": self.digest,
                    "inputs": inputs,
                    "outputs": _sizes(stage),
                }
                write_atomic(stage / "run.json", json_text(record, indent=1) + "\n")
                _check_free(self.out / scan.name)
                publish(stage, self.out / scan.name, partial / "replaced")
                return _outcome(scan, "new", record)
        except Exception as error:  # whatever is wrong with one scan, the others go on
            return Outcome(scan.name, "failed", _said(error))

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
    return {"bytes": size, "mtime_ns": time, "sha256": _digest(path)}


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time of a file; of a folder those of all files in it, and the latest."""
    found = [file.stat() for file in _files(path)]
    return sum(f.st_size for f in found), max((f.st_mtime_ns for f in found), default=0)


def _digest(path: Path) -> str:
    """Digest of a file; of a folder that of the names and contents in it."""
    if not path.is_dir():
        return sha256_file(path)
    lines = [f"{file.relative_to(path).as_posix()} {sha256_file(file)}" for file in _files(path)]
    return sha256("\n".join(lines))


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
    return time != seen["mtime_ns"] and _digest(path) != seen["sha256"]


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
