"""A whole job: nothing lost, nothing done twice, whatever is killed; and what is said of it."""

import json
import multiprocessing
import os
import random
import threading
import time
from contextlib import nullcontext
from dataclasses import replace

import pytest
from jobs import begun, files_for, job_on, results
from test_leases import dead

from measurand import leases
from measurand.jobs.batch import Job, failures, run, summary, table
from measurand.jobs.executors import Loop
from measurand.jobs.manifest import shard
from measurand.jobs.task import Outcome, _key


def test_a_rerun_does_what_is_missing(tmp_path):
    job = job_on(files_for(tmp_path / "in", 4, s02="broken"))
    job.open()
    told = []
    found = run(job, Loop(), progress=lambda total: nullcontext(lambda n: told.append((n, total))))
    assert [o.status for o in found] == ["new", "new", "failed", "new"]
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert not (job.out / ".partial").exists()
    (tmp_path / "in" / "s02.png").write_text("file")
    files_for(tmp_path / "in", 5)
    job = job_on(tmp_path / "in")
    job.open()
    found = run(job, Loop())
    assert [o.status for o in found] == ["kept", "kept", "new", "kept", "new"]
    assert begun(job.work.ledger) == ["s00", "s01", "s02", "s03", "s02", "s04"]


def test_the_bits_depend_on_the_seed_and_the_name_alone(tmp_path):
    folder = files_for(tmp_path / "in", 7)
    jobs = {out: job_on(folder, out) for out in ("whole", "shards", "backwards")}
    jobs["other"] = job_on(folder, "other", seed=1)
    for job in jobs.values():
        job.open()
    backwards = jobs["backwards"]
    for part in (backwards.scans[::-1], backwards.scans[3:4]):
        run(replace(backwards, scans=part), Loop())
    for i in (3, 1, 2):
        run(replace(jobs["shards"], scans=shard(jobs["shards"].scans, i, 3)), Loop())
    run(jobs["whole"], Loop())
    run(jobs["other"], Loop())
    whole = results(tmp_path / "whole")
    assert len(whole) == 14 and len(set(whole.values())) == 14
    assert whole == results(tmp_path / "shards") == results(tmp_path / "backwards")
    assert not set(whole.values()) & set(results(tmp_path / "other").values())


def leave(job, name, *, results=False):
    """What a process that is dead by now has left of a scan."""
    partial, key, token = job.out / ".partial", _key(name), dead()
    partial.mkdir(exist_ok=True)
    (partial / f"{key}.lease").write_text(json.dumps({"token": token}))
    if results:
        (partial / f".{key}.{token}" / "results").mkdir(parents=True)


def test_what_a_process_left_that_died_after_its_result_is_removed(tmp_path):
    job = job_on(files_for(tmp_path / "in", 3))
    job.open()
    run(job, Loop())
    leave(job, "s00", results=True)
    leave(job, "s01")
    with leases.lease(job.out / ".partial" / "living.lease"):
        run(job, Loop())
        assert [p.name for p in (job.out / ".partial").iterdir()] == ["living.lease"]
    run(job, Loop())
    assert not (job.out / ".partial").exists()


def elsewhere(job, name):
    """The lease of a scan that a process of another machine does."""
    path = job.out / ".partial" / f"{_key(name)}.lease"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"token": "measurand-ffffffff-1-1-0", "host": "other"}))
    return path


def test_the_scan_of_another_machine_that_dies_meanwhile_is_done_here(tmp_path, monkeypatch):
    """Until it is known to be dead its scan is under way elsewhere: that is not the last word."""
    monkeypatch.setattr(leases, "STALE", 1.0)
    job = job_on(files_for(tmp_path / "in", 3))
    job.open()
    elsewhere(job, "s00")
    found = run(job, Loop())
    assert [o.status for o in found] == ["new", "new", "new"]
    assert begun(job.work.ledger) == ["s01", "s02", "s00"]
    assert not (job.out / ".partial").exists()


def test_the_scan_of_another_machine_that_lives_is_left_to_it(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "STALE", 60.0)
    job = job_on(files_for(tmp_path / "in", 2))
    job.open()
    path, over = elsewhere(job, "s00"), threading.Event()

    def lives():
        while not over.wait(0.6):
            os.utime(path)

    thread = threading.Thread(target=lives)
    thread.start()
    try:
        assert [o.status for o in run(job, Loop())] == ["elsewhere", "new"]
    finally:
        over.set()
        thread.join()
    assert path.exists() and begun(job.work.ledger) == ["s01"]


def test_other_settings_are_refused_or_replace(tmp_path):
    folder = files_for(tmp_path / "in", 2)
    first = job_on(folder)
    first.open(command=["measurand", "x"])
    run(first, Loop())
    assert json.loads((first.out / "job.json").read_text())["command"] == ["measurand", "x"]
    before = results(first.out)
    other = job_on(folder, scale=2.0, seed=5)
    with pytest.raises(ValueError, match=r"other settings \(scale was 1.0, is 2.0; seed was 0, i"):
        other.open()
    assert results(first.out) == before
    other.open(replace=True)
    assert [o.status for o in run(other, Loop())] == ["new", "new"]
    after = results(first.out)
    assert after.keys() == before.keys() and not set(after.values()) & set(before.values())
    with pytest.raises(ValueError, match="other settings"):
        first.open()


def test_a_folder_that_cannot_be_the_place_of_results(tmp_path):
    folder = files_for(tmp_path / "in", 1)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OSError, match="cannot write results to .*file"):
        job_on(folder, "file").open()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "job.json").write_text("{")
    with pytest.raises(ValueError, match=r"job\.json: damaged"):
        job_on(folder).open()
    with pytest.raises(ValueError, match="wanted an absolute path"):
        Job(job_on(folder).work, (), tmp_path.relative_to("/"))


def test_an_executor_that_loses_a_scan_is_found_out(tmp_path):
    job = job_on(files_for(tmp_path / "in", 3))
    job.open()

    def forgetful(task, scans):
        yield task(scans[0])
        yield Outcome("s01", "new")  # as a machine with another disk would say

    found = run(job, forgetful, patience=0.2)
    assert [o.status for o in found] == ["new", "failed", "failed"]
    assert "do all machines share this folder" in found[1].error
    assert "gave no outcome" in found[2].error


def test_what_is_said():
    outcomes = [
        Outcome("a", "new", seconds=1.0, metrics=(("psnr", 30.0),)),
        Outcome("b", "kept", seconds=3.0, metrics=(("psnr", 20.0), ("ssim", 0.5))),
        Outcome("c", "elsewhere"),
        *[Outcome(f"f{i}", "failed", "broken") for i in range(3)],
    ]
    said = summary(outcomes)
    assert said == {
        "scans": 6, "new": 1, "kept": 1, "elsewhere": 1, "seconds": 4.0,
        "failed": {"f0": "broken", "f1": "broken", "f2": "broken"},
        "metrics": {"psnr": 25.0, "ssim": 0.5},
    }  # fmt: skip
    assert table(outcomes).splitlines() == [
        "                     scans  seconds each  psnr  ssim",
        "done now                 1          1.00    30",
        "done before              1          3.00    20   0.5",
        "under way elsewhere      1",
        "failed                   3",
    ]
    assert failures(outcomes, most=2) == [
        "failed: f0: broken",
        "failed: f1: broken",
        "failed: 1 more (--json lists all)",
    ]
    assert failures(outcomes[:3]) == []


def kill_a_batch(job, after, wait):
    """Starts a batch and kills it a moment after it has begun so many scans."""
    process = multiprocessing.get_context("fork").Process(target=run, args=(job, Loop()))
    process.start()
    while len(begun(job.work.ledger)) < after and process.is_alive():
        time.sleep(0.001)
    time.sleep(wait)
    process.kill()
    process.join()


def survives_kills(tmp_path, scans, kills):
    folder = files_for(tmp_path / "in", scans)
    whole = job_on(folder, "whole")
    whole.open()
    run(whole, Loop())
    wanted, rng = results(whole.out), random.Random(0)
    ledger, cut = whole.work.ledger, 0
    for k in range(kills):
        os.unlink(ledger)
        job = job_on(folder, f"out{k}", seconds=0.03)
        job.open()
        # the moment is told by the scans, so that no machine is too fast or too slow
        kill_a_batch(job, rng.randrange(scans), rng.uniform(0.0, 0.06))
        seen = [p.name for p in job.out.iterdir() if p.is_dir() and not p.name.startswith(".")]
        missing, done = job.missing()
        assert sorted(seen) == sorted(o.name for o in done)  # nothing partial is visible
        before = begun(ledger)
        found = run(job_on(folder, f"out{k}"), Loop())
        assert begun(ledger)[len(before) :] == [scan.name for scan in missing]
        assert {o.status for o in found} <= {"new", "kept"} and len(found) == scans
        assert results(job.out) == wanted and not (job.out / ".partial").exists()
        cut += 0 < len(missing) < scans
    return cut


def test_a_killed_batch_is_finished_by_a_rerun(tmp_path):
    assert survives_kills(tmp_path, scans=10, kills=4) >= 2


@pytest.mark.slow
def test_fifty_killed_batches_of_fifty_scans(tmp_path, injected):
    injected("4: SIGKILL in a batch of 50 scans", 50)
    assert survives_kills(tmp_path, scans=50, kills=50) >= 35


def together(job, idle, start, told):
    """Runs a job in this process, at its own speed, and tells the outcomes."""
    start.wait()
    own = replace(job, work=replace(job.work, idle=idle))
    told.put([(o.name, o.status, o.error) for o in run(own, Loop())])


@pytest.mark.parametrize("rounds", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_processes_of_unequal_speed_lose_no_scan_of_one_folder(tmp_path, rounds):
    folder, context = files_for(tmp_path / "in", 6), multiprocessing.get_context("fork")
    # what one process leaves when it has nothing more to do, others are in the middle of
    for k in range(rounds):
        job = job_on(folder, f"out{k}")
        job.open()
        leave(job, "s05")
        leave(job, "s04", results=True)
        start, told = context.Barrier(4), context.Queue()
        processes = [
            context.Process(target=together, args=(job, idle, start, told))
            for idle in (0.0, 0.02, 0.06, 0.15)
        ]
        for process in processes:
            process.start()
        outcomes = [outcome for _ in processes for outcome in told.get(timeout=60)]
        for process in processes:
            process.join()
        assert [o for o in outcomes if o[1] == "failed"] == []
        made = sorted(name for name, status, _ in outcomes if status == "new")
        assert made == sorted(begun(job.work.ledger)) == [scan.name for scan in job.scans]
        assert job.missing()[0] == () and not (job.out / ".partial").exists()
        os.unlink(job.work.ledger)
