"""Processes of this machine that do scans, and end with the process that has started them.

A worker asks for a scan, does it and tells the outcome, over a pipe. Whoever started it may be
killed at any time, also while the worker imports torch, in one call of a library for seconds, and
cannot look whether its parent lives. A guard can: a process without torch that waits at a pipe
from the parent and kills the workers when the other end is closed, by hand or by a death.

Ctrl-C in a terminal goes to all processes of a command, and is for the first one alone: the others
are started with it blocked.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context, spawn
from multiprocessing.connection import Connection

import torch

from .manifest import Scan
from .task import Outcome, Task

__all__ = ["Guard", "Worker"]

_GUARD = """
import os, signal, sys
pids = set()
for line in sys.stdin:
    pid = int(line)
    pids = pids | {pid} if pid > 0 else pids - {-pid}
for pid in pids:
    try:
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    except OSError:
        pass
"""


class Guard:
    """Sees that workers end with this process."""

    def __init__(self) -> None:
        words = [spawn.get_executable(), "-I", "-S", "-c", _GUARD]
        nowhere = subprocess.DEVNULL
        with _uninterrupted():
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.PIPE,
                stdout=nowhere,
                stderr=nowhere,
                start_new_session=True,
                text=True,
                bufsize=1,
            )

    def tell(self, pid: int) -> None:
        """Notes a worker that has been started, or, with a minus, one that has ended."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{pid}\n")
        except OSError:  # somebody has killed it
            pass

    def close(self) -> None:
        """Ends the workers that are left."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.close()
        except OSError:
            pass
        self.process.wait()


class Worker:
    """A process that does scans, one after the other, on one thread.

    Args:
        task: The function of one scan.
        guard: Sees that it ends with this process.
    """

    def __init__(self, task: Task, guard: Guard) -> None:
        context = get_context("spawn")
        self.guard = guard
        self.end, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(task, theirs))
        with _uninterrupted():
            self.process.start()
            self.pid = self.process.pid or 0
            guard.tell(self.pid)
        theirs.close()

    def begin(self, scan: Scan) -> None:
        """Gives it a scan.

        Raises:
            OSError: It is dead.
        """
        self.end.send(scan)

    def outcome(self) -> Outcome:
        """Waits for what became of the scan.

        Raises:
            EOFError, OSError: It died.
        """
        return self.end.recv()

    def stop(self) -> None:
        """Ends the process, also in the middle of a scan."""
        self.process.kill()
        self.process.join()
        self.guard.tell(-self.pid)
        self.end.close()


def _serve(task: Task, end: Connection) -> None:
    """What a worker does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be blocked
    torch.set_num_threads(1)
    try:
        while True:
            end.send(task(end.recv()))
    except (EOFError, OSError):  # nobody is there any more
        pass


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """A block that Ctrl-C waits for, and what is started in it never hears of one."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
