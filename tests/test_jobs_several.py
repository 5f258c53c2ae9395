"""Several processes on one folder of results: no scan is lost, no settings are mixed, and nobody
fails for another's sake, whatever their speed, their settings and their end."""

import json
import multiprocessing
import os
import random
import time
from dataclasses import replace

import pytest
from jobs import begun, files_for, job_on, results

from measurand.jobs.batch import run
from measurand.jobs.executors import Loop
from measurand.jobs.manifest import shard

FORK = multiprocessing.get_context("fork")
SCANS = 6


def attempt(job, idle, start, told, replacing=False):
    """What a command does with a folder of scans, at its own speed; tells what became of it."""
    start.wait()
    own = replace(job, work=replace(job.work, idle=idle))
    try:
        own.open(replace=replacing)
        told.put([(o.name, o.status, o.error) for o in run(own, Loop())])
    except Exception as error:
        told.put(f"{type(error).__name__}: {error}")


def together(jobs, idles, *, victim=None, at=0.0, replacing=()):
    """Runs jobs on one folder at once; one may be killed. Gives what became of the others."""
    start, tolds = FORK.Barrier(len(jobs)), [FORK.SimpleQueue() for _ in jobs]
    processes = [
        FORK.Process(target=attempt, args=(job, idle, start, told, k in replacing))
        for k, (job, idle, told) in enumerate(zip(jobs, idles, tolds, strict=True))
    ]
    for process in processes:
        process.start()
    if victim is not None:
        while not begun(jobs[victim].work.ledger):
            time.sleep(0.002)
        time.sleep(at)
        processes[victim].kill()
    for process in processes:
        process.join(120)
        assert process.exitcode is not None
    return [told.get() for k, told in enumerate(tolds) if k != victim]


def settings_of(out):
    """The digests of the settings in the results of a folder."""
    return {json.loads(p.read_text())["batch"]["digest"] for p in out.glob("s*/run.json")}


def is_whole(job, calm):
    """All scans are done, with the bits of one process alone, and nothing is left over."""
    assert job.missing()[0] == ()
    assert settings_of(job.out) == {job.task.digest}
    assert json.loads((job.out / "job.json").read_text())["settings"] == job.settings
    assert results(job.out) == results(calm.out)
    assert sorted(p.name for p in job.out.iterdir()) == sorted(
        ["job.json", *(scan.name for scan in job.scans)]
    )


def counted(outcomes, ledger):
    """The scans that were done: nobody failed, and none was begun in vain."""
    assert [o for one in outcomes for o in one if o[1] == "failed"] == []
    made = sorted(name for one in outcomes for name, status, _ in one if status == "new")
    assert made == sorted(begun(ledger))
    return made


def same_settings(folder, out, rng, calm):
    job = job_on(folder, out)
    outcomes = together([job] * 4, [rng.choice((0.0, 0.01, 0.04)) for _ in range(4)])
    assert counted(outcomes, job.work.ledger) == [scan.name for scan in job.scans]
    is_whole(job, calm[1.0])


def shards(folder, out, rng, calm):
    """Three shards, and a command for everything."""
    job = job_on(folder, out)
    parts = [replace(job, scans=shard(job.scans, i, 3)) for i in (1, 2, 3)]
    outcomes = together([*parts, job], [rng.choice((0.0, 0.01, 0.04)) for _ in range(4)])
    assert counted(outcomes, job.work.ledger) == [scan.name for scan in job.scans]
    is_whole(job, calm[1.0])


def other_settings(folder, out, rng, calm):
    """Two of one kind, two of another: one kind is accepted, and does its work."""
    jobs = [job_on(folder, out, scale=scale) for scale in (1.0, 2.0, 1.0, 2.0)]
    outcomes = together(jobs, [rng.choice((0.0, 0.01)) for _ in jobs])
    refused = [isinstance(one, str) for one in outcomes]
    assert refused in ([True, False] * 2, [False, True] * 2)
    assert all(
        "holds results of other settings" in one for one in outcomes if isinstance(one, str)
    )
    job = jobs[refused.index(False)]
    accepted = [one for one in outcomes if not isinstance(one, str)]
    assert counted(accepted, job.work.ledger) == [scan.name for scan in job.scans]
    is_whole(job, calm[job.work.scale])


def replacing(folder, out, rng, calm):
    """One is to replace what the others may be in the middle of making."""
    old, new = job_on(folder, out), job_on(folder, out, scale=2.0)
    old.open()
    idles = [rng.choice((0.0, 0.01)), 0.01, rng.choice((0.0, 0.02))]
    first, second, third = together([old, old, new], idles, replacing=[2])
    if isinstance(third, str):
        assert "in use by a job of other settings" in third
        assert counted([first, second], old.work.ledger) == [scan.name for scan in old.scans]
        is_whole(old, calm[1.0])
    else:
        for one in (first, second):  # done before, or refused
            assert not isinstance(one, str) or "holds results of other settings" in one
        assert [o for o in third if o[1] == "failed"] == []
        is_whole(new, calm[2.0])


def killed(folder, out, rng, calm):
    """One of three is killed; the others do all but what it was at, and a rerun does the rest."""
    job = job_on(folder, out, seconds=0.01)
    outcomes = together([job] * 3, [0.0, 0.01, 0.02], victim=0, at=rng.uniform(0.0, 0.06))
    assert [one for one in outcomes if isinstance(one, str)] == []
    assert [o for one in outcomes for o in one if o[1] == "failed"] == []
    assert len(job.missing()[0]) <= 1
    quick = job_on(folder, out)
    quick.open()
    assert {o.status for o in run(quick, Loop())} <= {"new", "kept"}
    is_whole(job, calm[1.0])


KINDS = [same_settings, shards, other_settings, replacing, killed]


def inject(tmp_path, kinds, times):
    folder, calm = files_for(tmp_path / "in", SCANS), {}
    for scale in (1.0, 2.0):
        calm[scale] = job_on(folder, f"calm {scale}", scale=scale)
        calm[scale].open()
        run(calm[scale], Loop())
    for k in range(times):
        for kind in kinds:
            (tmp_path / "ledger").unlink(missing_ok=True)
            kind(folder, f"{kind.__name__} {k}", random.Random(k), calm)
            yield kind.__name__


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_several_processes_on_one_folder(tmp_path, kind):
    assert len(list(inject(tmp_path, [kind], 3))) == 3


@pytest.mark.slow
def test_several_processes_on_one_folder_a_hundred_times(tmp_path, injected):
    injected("4: several processes on one job folder: none lost, none mixed, none failed", 100)
    assert len(list(inject(tmp_path, KINDS, 20))) == 100


def test_a_job_of_other_settings_waits_for_the_end_of_the_first(tmp_path):
    folder = files_for(tmp_path / "in", 2)
    old, new = job_on(folder), job_on(folder, scale=2.0)
    old.open()
    with old.at_work():
        with pytest.raises(
            ValueError, match=r"in use by a job of other settings \(process \d+ on"
        ):
            new.open(replace=True)
        old.open(replace=True)
    new.open(replace=True)
    with pytest.raises(ValueError, match="holds results of other settings"):
        run(old, Loop())
    assert os.listdir(old.out) == ["job.json"]
