"""A job that costs nothing: what the tests of tasks, batches and executors let others do.

It lives in a file of its own because processes that are started afresh must find it by its name.
"""

import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from measurand.jobs.batch import Job, run
from measurand.jobs.executors import Loop, Pool
from measurand.jobs.manifest import scans_in
from measurand.tensors import generators


@dataclass(frozen=True)
class Noting:
    """Adds noise to the bytes of a file, and notes in a ledger that it began.

    A file that says "deadly" kills its process as often as its number says, "broken" is an error.
    """

    ledger: str
    scale: float = 1.0
    seconds: float = 0.0
    idle: float = 0.0  # seconds before the first file

    def settings(self):
        return {"scale": self.scale}

    def ready(self):
        return self.make

    def make(self, scan, folder, seed) -> dict[str, Any]:
        with open(self.ledger, "a") as file:
            file.write(f"{scan.name} {os.getpid()}\n")
        time.sleep(self.idle)
        word, *number = Path(scan.file).read_text().split()
        if word == "broken":
            raise ValueError(f"{scan.file}: broken")
        if word == "deadly" and len(begun(self.ledger, scan.name)) <= int(number[0]):
            os.kill(os.getpid(), signal.SIGKILL)
        x = self.scale * torch.randn(50, generator=generators(seed, 1)[0]) + float(word == "file")
        np.save(folder / "early.npy", x.numpy())
        time.sleep(self.seconds)
        (folder / "more").mkdir()
        np.save(folder / "more" / "late.npy", x.cumsum(0).numpy())
        record = {"seconds": 0.5, "metrics": {"mean": float(x.mean())}}
        return record | {"threads": torch.get_num_threads()}


def begun(ledger, name=None):
    """Names of the scans that were begun, in order."""
    path = Path(ledger)
    lines = path.read_text().splitlines() if path.exists() else []
    return [line.split()[0] for line in lines if name in (None, line.split()[0])]


def files_for(folder, n, **special):
    """Makes n tiny files; a keyword gives one of them another content."""
    folder.mkdir(exist_ok=True)
    for i in range(n):
        (folder / f"s{i:02d}.png").write_text(special.get(f"s{i:02d}", "file"))
    return folder


def job_on(folder, out="out", *, seconds=0.0, scale=1.0, seed=0):
    """The job on the files of a folder, with its results beside it."""
    folder = Path(folder).absolute()
    work = Noting(str(folder.parent / "ledger"), scale, seconds)
    return Job(work, scans_in(folder), folder.parent / out, seed)


def results(out):
    """Everything visible that was made, but for the record."""
    return {
        str(p.relative_to(out)): p.read_bytes()
        for p in sorted(Path(out).rglob("*.npy"))
        if not any(part.startswith(".") for part in p.relative_to(out).parts)
    }


if __name__ == "__main__":  # a whole batch in a process that can be killed
    folder, seconds, workers = sys.argv[1:]
    whole = job_on(folder, seconds=float(seconds))
    whole.open()
    run(whole, Pool(int(workers)) if int(workers) else Loop())
