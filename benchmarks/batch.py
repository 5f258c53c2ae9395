"""What a job costs beside a plain loop over its files, in CPU time.

Colour images of 128 x 128, HQS with 8 network calls, one thread. The plain loop reads, restores
and writes, and knows nothing of claims, digests, flushes or other processes. Beside it:

    loop     the job in one process
    pool     the job on a pool of one process, so that two do not share a cache
    shard    `measurand reconstruct --shard`, as a process of its own

A process that starts has to import torch and read the prior, whoever starts it; so a pool and a
shard are timed on two scans and on many: the slope is the cost of a scan, the rest that of a
start. The gate is on the slope. With the start, a job is within 5 % of the loop from a number of
scans per process on, which depends on how long a scan takes; it is given for these scans and for
the defaults (24 calls at 256 x 256).

    python benchmarks/batch.py             writes results/batch.json
"""

import multiprocessing
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import ratio, settle_allocator, write
from PIL import Image

from measurand.jobs.arguments import twins
from measurand.jobs.batch import Job, run
from measurand.jobs.executors import Loop, Pool
from measurand.jobs.manifest import Scan, scans_in
from measurand.jobs.reading import Reading
from measurand.jobs.reconstruction import Reconstruction
from measurand.solvers import HQS

GATE = 1.05  # cost of a scan in a job, beside one in a plain loop
FEW, MANY, SIDE, ROUNDS = 2, 16, 128, 5
HOW = Reconstruction(twins()["circular-gaussian-blur"](sigma=1.6), HQS(steps=8), Reading(0.04))
WORDS = ["--operator", "circular-gaussian-blur", "--operator.sigma", "1.6", "--method", "hqs"]


def pictures(folder: Path, side: int, count: int) -> Path:
    """Smooth pictures with a little noise, as files."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    i, j = np.mgrid[:side, :side] / side
    for k in range(count):
        planes = [np.sin(5 * i + k + c) * np.cos(7 * j - c) for c in range(3)]
        u = 127.5 * (1 + 0.8 * np.stack(planes, -1)) + rng.normal(0, 5, (side, side, 3))
        Image.fromarray(u.clip(0, 255).astype(np.uint8)).save(folder / f"{k:03d}.png")
    return folder


def cpu(call: Callable[[], Any]) -> float:
    """CPU time of a call, with that of the processes it starts and ends."""

    def used() -> float:
        own, others = (
            resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
        )
        return sum(u.ru_utime + u.ru_stime for u in (own, others))

    start = used()
    call()
    while multiprocessing.active_children():
        time.sleep(0.01)
    return used() - start


def plain(how: Reconstruction, scans: tuple[Scan, ...], out: Path) -> None:
    restorer = how.ready()
    for seed, scan in enumerate(scans):
        folder = out / scan.name
        folder.mkdir(parents=True)
        restorer(scan, folder, seed)


def shard(folder: Path, out: Path, part: str) -> None:
    line = [sys.executable, "-m", "measurand.cli", "reconstruct", folder, *WORDS]
    line += ["--method.steps", "8", "--sigma", "0.04", "--out", out, "--quiet"]
    subprocess.run([*line, "--device", "cpu", "--shard", part], check=True)


def measure(folder: Path, scratch: Path) -> list[dict[str, float]]:
    """CPU times of every way, round by round."""
    scans = scans_in(folder)
    assert len(scans) == 2 * MANY
    many, few = scans[:MANY], scans[:FEW]
    fresh = iter(range(10**6))

    def job(some: tuple[Scan, ...], executor: Loop | Pool) -> Callable[[], None]:
        def call() -> None:
            whole = Job(HOW, some, scratch / str(next(fresh)))
            whole.open()
            found = run(whole, executor)
            assert all(outcome.status == "new" for outcome in found)

        return call

    ways = {
        "plain": lambda: plain(HOW, many, scratch / str(next(fresh))),
        "loop": job(many, Loop()),
        "pool few": job(few, Pool(1)),
        "pool many": job(many, Pool(1)),
        "shard few": lambda: shard(folder, scratch / str(next(fresh)), f"1/{MANY}"),
        "shard many": lambda: shard(folder, scratch / str(next(fresh)), "1/2"),
    }
    ways["plain"]()
    return [{name: cpu(call) for name, call in ways.items()} for _ in range(ROUNDS)]


def default_scan(folder: Path, scratch: Path) -> float:
    """CPU time of one scan with the defaults of the command line."""
    how = replace(HOW, method=HQS(steps=24))
    scans = scans_in(folder)
    restorer = how.ready()
    times = []
    for k, scan in enumerate((scans[0], *scans)):
        target = scratch / f"default{k}"
        target.mkdir()
        times.append(cpu(lambda s=scan, t=target: restorer(s, t, 0)))
    return statistics.median(times[1:])


def main() -> None:
    torch.set_num_threads(1)
    settle_allocator()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        rounds = measure(pictures(scratch / "many", SIDE, 2 * MANY), scratch)
        default = default_scan(pictures(scratch / "default", 256, 3), scratch)
    base = [r["plain"] / MANY for r in rounds]
    rows: dict[str, Any] = {
        "loop": {"scan / plain": ratio([r["loop"] / MANY for r in rounds], base)}
    }
    for way in ("pool", "shard"):
        slope = [(r[f"{way} many"] - r[f"{way} few"]) / (MANY - FEW) for r in rounds]
        start = statistics.median(
            r[f"{way} few"] - FEW * s for r, s in zip(rounds, slope, strict=True)
        )
        scan = statistics.median(base)
        rows[way] = {
            "scan / plain": ratio(slope, base),
            "start, s": round(start, 2),
            "scans per process within 5 %": round(start / (0.05 * scan)),
            "with the defaults": round(start / (0.05 * default)),
        }
    for way, row in rows.items():
        print(way, row)
    times = {name: round(statistics.median(r[name] for r in rounds), 3) for name in rounds[0]}
    facts = {
        "side": SIDE,
        "scans": MANY,
        "cpu_seconds": times,
        "cpu_seconds_of_a_default_scan": round(default, 2),
        "gate": GATE,
    }
    print(write("batch", {**facts, "rows": rows}))
    over = [way for way, row in rows.items() if row["scan / plain"][0] > GATE]
    if over:
        raise SystemExit(f"more than 5 % above the plain loop: {', '.join(over)}")


if __name__ == "__main__":
    main()
