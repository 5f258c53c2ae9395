"""Owners: which process a file or a folder belongs to, told from its name.

    owner      host name, boot and pid namespace (where a pid means something), pid, and the start
               time of the process, so that a pid that is used again is not taken for the owner

`stamp()` is the owner as a part of a name, for temporary files and folders: `owner_of` reads it,
and what has one and a dead owner is left over.
"""

import hashlib
import os
import re
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path

__all__ = ["Owner", "me", "owner_of", "stamp", "unstamped"]

_numbers = count()


@dataclass(frozen=True)
class Owner:
    """A process.

    Args:
        place: Digest of the host name, the boot and the pid namespace.
        pid: Its number there.
        started: Its start time there, in units of the system; 0 where that is unknown.
    """

    place: str
    pid: int
    started: int

    @property
    def alive(self) -> bool | None:
        """Whether the process lives; None where that cannot be told from here."""
        started = _start_of(self.pid) if self.place == _place() else 0
        return None if started == 0 else started == self.started


def stamp() -> str:
    """A word that names this process and is given once: measurand-PLACE-PID-STARTED-NUMBER."""
    here = me()
    return f"measurand-{here.place}-{here.pid}-{here.started}-{next(_numbers)}"


# its first word is there so that no name of a user's file is taken for one
_STAMP = re.compile(r"measurand-([0-9a-f]{8})-(\d+)-(\d+)-\d+")


def owner_of(name: str) -> Owner | None:
    """The process whose stamp is in a name; None where there is none."""
    found = _STAMP.search(name)
    return Owner(found[1], int(found[2]), int(found[3])) if found else None


def unstamped(name: str) -> str:
    """What stands before the stamp in a name."""
    found = _STAMP.search(name)
    return name[: found.start()] if found else name


@cache
def me() -> Owner:
    """This process."""
    return Owner(_place(), os.getpid(), _start_of(os.getpid()) or 0)


# a child is another process
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=me.cache_clear)


@cache
def _place() -> str:
    """Where a pid means something: this boot of this machine, and its pid namespace."""
    words = [socket.gethostname()]
    with suppress(OSError):
        words.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        words.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]


def _start_of(pid: int) -> int | None:
    """Start time of a process here, above 0; None where there is none, 0 where nobody can tell."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        return None if words[0] in "ZX" else int(words[19])
    except (OSError, IndexError):
        pass
    if os.name != "posix":
        return 0
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:  # of another user
        return 0
    if Path("/proc/self/stat").exists():
        return 0
    ps = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True)
    return 1 + int(hashlib.sha256(ps.stdout).hexdigest()[:8], 16) if ps.stdout.strip() else 0
