"""Leases: which living process has something to itself, on one machine or on many.

A lease is a small file that exists as long as its owner needs it: whoever makes it has it, whoever
finds it leaves the thing alone, and what a dead owner left is void:

    owner      the process, see `owners`
    making     the whole file under a name of its own, then `link`: of many one gets it
    sign       the owner touches the file every 10 s
    death      on the machine of the owner: there is no such process. Seen from other machines: no
               sign for two minutes, by the clock of the file system
    removal    a void lease is removed under a lease on its removal, so that nobody removes the
               lease of whoever came after it

Limits. A machine that sleeps for more than two minutes is dead to the others: its process has to
ask `Lease.lost` before it makes anything final (the time between the question and the deed stays).
Ages are differences of times that the file system wrote, so clocks of machines do not matter where
it keeps its own, as local disks and NFS do; on one that writes the time of each client they may
differ by a minute. A process that is stopped, not dead, keeps its leases on its own machine. On a
file system without hard links the file is made first and then filled: for that moment its owner
is unknown, and it counts as alive for two minutes. On Windows, processes are judged by their sign.
"""

import errno
import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from .owners import me, owner_of, stamp
from .records import json_text

__all__ = ["Lease", "alone", "holder", "lease", "living", "sign", "void"]

BEAT = 10.0  # seconds between two signs of life
STALE = 120.0  # seconds without one after which another machine is dead
DAY = 86400.0  # the same of temporary files, whose owner gives no other sign than writing them

_held: dict[str, Path] = {}  # what this process has, by token; a folder or a lease that is touched
_guard = threading.Lock()
_beating = False


@dataclass(frozen=True)
class Lease:
    """What a lease says.

    Args:
        path: Its file.
        token: Stamp of the owner; empty where the file cannot be read.
        host: Name of the machine.
        pid: The process.
        about: What it is for.
        since: When it began, in seconds since 1970, by the clock of the owner.
        age: Seconds since its last sign.
    """

    path: Path
    token: str
    host: str = ""
    pid: int = 0
    about: str = ""
    since: float = 0.0
    age: float = 0.0

    @property
    def lost(self) -> bool:
        """Whether it is no longer the lease of whoever made this."""
        found = _read(self.path)
        return found is None or found.token != self.token

    @property
    def alive(self) -> bool:
        """Whether the owner lives and has not let go of it."""
        owner = owner_of(self.token)
        if owner == me():
            return self.token in _held
        known = owner.alive if owner is not None else None
        return self.age < STALE if known is None else known

    @property
    def certain(self) -> bool:
        """Whether `alive` is known, and not only supposed for want of a sign."""
        owner = owner_of(self.token)
        return owner is not None and owner.alive is not None

    def __str__(self) -> str:
        if not self.host:
            return f"a process that {self.path} does not name yet"
        since = time.strftime("%H:%M on %d %B", time.localtime(self.since))
        return f"process {self.pid} on {self.host}, since {since}"


@contextmanager
def lease(
    path: str | os.PathLike[str], about: str = "", *, found: list[Lease] | None = None
) -> Iterator[Lease | None]:
    """Has a lease while the block lasts, or tells at once that another one has it.

    Args:
        path: Its file; folders above it are made.
        about: What it is for, for others to read.
        found: Takes the lease of the other one.
    Yields:
        The lease; None where a living owner has it.
    Raises:
        OSError: It cannot be written.
    """
    path, token = Path(path), stamp()
    _held[token] = path  # before the file is there: others of this process may look at once
    try:
        other = _acquire(path, token, about)
        if other is not None:
            if found is not None:
                found.append(other)
            yield None
            return
        _beat()
        try:
            yield _read(path) or Lease(path, token)
        finally:
            mine = _read(path)
            if mine is not None and mine.token == token:
                path.unlink(missing_ok=True)
    finally:
        _held.pop(token, None)


@contextmanager
def alone(path: str | os.PathLike[str], *, patience: float = 600.0) -> Iterator[None]:
    """The block of one process at a time: waits until nobody else has the lease.

    Args:
        path: File of the lease.
        patience: Seconds to wait at most.
    Raises:
        TimeoutError: A living process keeps it.
        OSError: It cannot be written.
    """
    deadline = time.monotonic() + patience
    while True:
        found: list[Lease] = []
        with lease(path, found=found) as mine:
            if mine is not None:
                yield
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path}: {found[0]} does not let go of it; end that process")
        time.sleep(0.01)


@contextmanager
def sign(path: Path, token: str) -> Iterator[None]:
    """Touches a file or folder of this process while the block lasts, as its leases are."""
    _held[token] = path
    _beat()
    try:
        yield
    finally:
        _held.pop(token, None)


def holder(path: str | os.PathLike[str]) -> Lease | None:
    """The lease in a file, of a living owner or of a dead one; None where there is none."""
    found = _read(Path(path))
    return found and _aged(found)


def living(folder: str | os.PathLike[str]) -> list[Lease]:
    """The leases in a folder whose owners live, ours included."""
    return [found for found in _leases(Path(folder)) if found.alive]


def void(folder: str | os.PathLike[str]) -> None:
    """Removes the leases in a folder whose owners are dead, and no other."""
    for found in _leases(Path(folder)):
        if not found.alive:
            _remove(found)


def _leases(folder: Path) -> Iterator[Lease]:
    try:
        names = [name for name in os.listdir(folder) if ".lease" in name and name[0] != "."]
    except OSError:
        return
    for name in names:
        found = holder(folder / name)
        if found is not None:
            yield found


def _acquire(path: Path, token: str, about: str) -> Lease | None:
    """Makes the file of a lease; returns that of a living owner instead where there is one."""
    record = {"token": token, "host": socket.gethostname(), "pid": os.getpid()}
    record |= {"about": about, "since": round(time.time(), 3)}
    text = json_text(record) + "\n"
    for attempt in count():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if _made(path, token, text):
                return None
            found = holder(path)
        except OSError as error:
            # its folder was removed just now, by whoever was the last in it; it may be there again
            # by now, so that a link to nowhere shows only by a thousand vain attempts
            removed = error.errno in (errno.ENOENT, errno.ESTALE, errno.EEXIST)
            if not removed or attempt > 1000:
                raise
            continue
        if found is not None and found.alive:
            return found
        if found is not None:
            _remove(found)
    raise AssertionError  # counting has no end


def _made(path: Path, token: str, text: str) -> bool:
    """Whether the file was made now, by us."""
    whole = _beside(path, token)
    try:
        whole.write_text(text)
        try:
            os.link(whole, path)
        except FileExistsError:
            # on a network the answer to a link that was made may be lost, and the second asked for
            return os.stat(whole).st_nlink == 2
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
            try:
                with open(path, "x") as file:
                    file.write(text)
            except FileExistsError:
                return False
        return True
    finally:
        whole.unlink(missing_ok=True)


def _beside(path: Path, token: str) -> Path:
    return path.with_name(f".{path.name[:40]}.{token}")


def _read(path: Path) -> Lease | None:
    """The lease in a file as it is; None where there is no file."""
    try:
        record: Any = json.loads(path.read_text())
        return Lease(path, **record)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):  # not filled yet, or by a machine that lost its power
        return Lease(path, "")


def _aged(found: Lease) -> Lease:
    """A lease with its age; on this machine nobody asks for that."""
    if found.certain:
        return found
    with suppress(FileNotFoundError):
        age = now(found.path.parent) - os.stat(found.path).st_mtime
        return replace(found, age=age)
    return found


def now(folder: Path) -> float:
    """The time by the clock of the file system of a folder, in seconds since 1970."""
    path = folder / f".now.{stamp()}"
    try:
        path.touch()
        return os.stat(path).st_mtime
    finally:
        path.unlink(missing_ok=True)


def _remove(found: Lease) -> None:
    """Removes a void lease, unless it was removed before, whatever is in its place by now.

    Of several that try, one does; the others wait a moment and look again.
    """
    key = hashlib.sha256(f"{found.path.name} {found.token}".encode()).hexdigest()[:16]
    with lease(found.path.with_name(f"void-{key}.lease")) as mine:
        if mine is None:
            time.sleep(0.001)
            return
        again = holder(found.path)
        if again is not None and again.token == found.token and not again.alive:
            found.path.unlink(missing_ok=True)


def _beat() -> None:
    """Sees that what this process has is touched, by one thread for all of it."""
    global _beating
    with _guard:
        if not _beating:
            _beating = True
            threading.Thread(target=_touch, name="leases", daemon=True).start()


def _touch() -> None:
    while True:
        time.sleep(BEAT)
        for token, path in list(_held.items()):
            with suppress(OSError):
                if path.is_dir() or not Lease(path, token).lost:
                    os.utime(path)


def _forked() -> None:
    """A child has neither the leases nor the thread of its parent."""
    global _beating, _guard
    _held.clear()
    _beating, _guard = False, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
