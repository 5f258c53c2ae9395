"""Everyone who does scans gives the same bits, and survives the death of those who help."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jobs import begun, files_for, job_on, results

from measurand.jobs.batch import run
from measurand.jobs.executors import Loop, Pool, Ray, Slurm, executors

HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def jobs_can_be_found(monkeypatch):
    """Ray and submitit start processes of their own, which import by name."""
    path = [str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # or it leaves a file in the home folder


def done_by(executor, folder, out="out"):
    job = job_on(folder, out)
    job.open()
    return job, {o.name: o for o in run(job, executor)}


def starts(job, name):
    return len(begun(job.work.ledger, name))


def survives(executor, folder):
    """The bits of a loop on one thread; a death costs one scan's work, a failure nothing.

    The first scan kills its process once, the second always, the third is an error.
    """
    alone, _ = done_by(Loop(), files_for(folder / "harmless", 6), "alone")
    os.unlink(alone.work.ledger)
    files_for(folder / "in", 6, s00="deadly 1", s01="deadly 99", s02="broken")
    job, found = done_by(executor, folder / "in")
    assert {n: o.status for n, o in found.items()} == {
        "s00": "new", "s01": "failed", "s02": "failed", "s03": "new", "s04": "new", "s05": "new"
    }  # fmt: skip
    assert "died 2 times" in found["s01"].error and "s02.png: broken" in found["s02"].error
    assert [starts(job, f"s0{i}") for i in (0, 1, 3, 4, 5)] == [2, 2, 1, 1, 1]
    wanted = {k: v for k, v in results(alone.out).items() if k[:3] in ("s03", "s04", "s05")}
    assert {k: v for k, v in results(job.out).items() if k[:3] != "s00"} == wanted
    assert len(wanted) == 6 and len(results(job.out)) == 8
    for name in ("s00", "s05"):
        assert '"threads": 1,' in (job.out / name / "run.json").read_text()


def test_a_loop_works_on_one_thread_and_gives_the_threads_back(tmp_path):
    torch.set_num_threads(2)
    try:
        job, found = done_by(Loop(), files_for(tmp_path / "in", 1))
        assert torch.get_num_threads() == 2 and found["s00"].status == "new"
    finally:
        torch.set_num_threads(1)
    assert '"threads": 1' in (job.out / "s00" / "run.json").read_text()


def test_a_pool_gives_the_bits_of_a_loop_and_survives_a_worker(tmp_path):
    survives(Pool(2, retries=1), tmp_path)


def test_a_pool_whose_workers_cannot_work_gives_up(tmp_path):
    folder = files_for(tmp_path / "in", 3, **{f"s0{i}": "deadly 99" for i in range(3)})
    job = job_on(folder)
    job.open()
    with pytest.raises(ChildProcessError, match="2 processes died, and none has done a scan"):
        run(job, Pool(1, retries=0))


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_workers_that_die_between_scans_cost_nothing(tmp_path):
    """Who looks at the outcomes is slow; meanwhile both workers come to rest, and are killed."""
    job = job_on(files_for(tmp_path / "in", 8))
    job.open()
    found = []
    for outcome in Pool(2, retries=0)(job.task, job.scans):
        found.append(outcome)
        if len(found) == 1:  # one worker has been given its second scan
            until(lambda: len(job.missing()[0]) == 5 and not list(job.out.glob(".partial/*")))
            time.sleep(1.0)  # the outcomes are on their way
            workers = pids(job)
            assert len(workers) == 2
            kill_all(workers)
            time.sleep(1.0)  # the pool sees it
    assert sorted(o.name for o in found) == [scan.name for scan in job.scans]
    assert {o.status for o in found} == {"new"}
    assert sorted(begun(job.work.ledger)) == [scan.name for scan in job.scans]
    assert len(pids(job)) == 4


def kill_all(ids):
    for pid in ids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: all(map(gone, ids)))


def pids(job):
    """The processes that have begun a scan."""
    return {int(line.split()[1]) for line in Path(job.work.ledger).read_text().splitlines()}


def until(condition, seconds=120):
    """Waits: a process takes seconds to start, and on a busy machine a minute."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def batch(folder, seconds, workers):
    """A batch in a process group of its own."""
    words = [sys.executable, HERE / "jobs.py", folder, str(seconds), str(workers)]
    return subprocess.Popen(
        words,
        start_new_session=True,
        stderr=subprocess.DEVNULL,
        # a shell that starts the tests in the background makes them deaf to SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def when_begun(job, count, process, workers=1):
    """The ids of the processes at work, once so many scans have been begun by so many of them."""
    deadline = time.monotonic() + 120
    ids = []
    while len(ids) < count or len(set(ids)) < workers:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.005)
        if len(begun(job.work.ledger)) >= count:
            lines = Path(job.work.ledger).read_text().splitlines()
            ids = [int(line.split()[1]) for line in lines]
    return ids


def gone(pid):
    """Whether a process is dead with all of its threads: the last one closes its files."""
    process = Path(f"/proc/{pid}")
    try:
        dead = (process / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        return dead and len(list((process / "task").iterdir())) < 2
    except OSError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
def test_a_pool_ends_with_the_process_that_started_it(tmp_path):
    job = job_on(files_for(tmp_path / "in", 16))
    job.open()
    process = batch(tmp_path / "in", 0.3, 2)
    workers = set(when_begun(job, 3, process, workers=2))  # the second may start seconds later
    process.kill()
    process.wait()
    assert len(workers) == 2 and os.getpid() not in workers
    until(lambda: all(map(gone, workers)), 2.0)
    missing, done = job.missing()
    assert len(missing) >= 2, "the workers went on without their batch"
    before = len(begun(job.work.ledger))
    found = run(job, Loop())
    assert begun(job.work.ledger)[before:] == [scan.name for scan in missing]
    assert [o.status for o in found].count("kept") == len(done)
    alone, _ = done_by(Loop(), tmp_path / "in", "alone")
    assert results(job.out) == results(alone.out)


def test_an_interrupted_pool_stops_at_once(tmp_path):
    job = job_on(files_for(tmp_path / "in", 4))
    job.open()
    process = batch(tmp_path / "in", 30, 2)
    when_begun(job, 2, process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=15) != 0
    assert len(job.missing()[0]) == 4


@pytest.mark.slow
def test_twenty_killed_workers(tmp_path, injected):
    """Row 12 of the fault table: any worker at any time, one after the other."""
    injected("12: death of a worker of a pool", 20)
    rng = random.Random(0)
    folder = files_for(tmp_path / "in", 40)
    alone, _ = done_by(Loop(), folder, "alone")
    kills = 0
    for k in range(4):
        os.unlink(alone.work.ledger)
        job = job_on(folder, f"out{k}", seconds=0.1)
        job.open()
        with ThreadPoolExecutor(1) as thread:
            outcomes = thread.submit(run, job, Pool(2))
            kills += kill_workers(job, 5, rng)
        assert {o.status for o in outcomes.result()} <= {"new", "kept"}
        assert results(job.out) == results(alone.out)
        assert 40 <= len(begun(job.work.ledger)) <= 45
        assert not job.missing()[0]
    assert kills == 20


def kill_workers(job, count, rng):
    """Kills so many workers, one after the other, at a scan or between two."""
    killed = set()
    for at in sorted(rng.sample(range(1, 26), count)):
        until(lambda at=at: len(begun(job.work.ledger)) >= at, 600)
        time.sleep(rng.uniform(0.0, 0.2))
        until(lambda: pids(job) - killed, 600)  # both may be dead for now
        worker = rng.choice(sorted(pids(job) - killed))
        os.kill(worker, signal.SIGKILL)  # an error if it had ended by itself
        killed.add(worker)
    return len(killed)


def test_ray_gives_the_bits_of_a_loop_and_survives_a_worker(tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: extra 'cluster'")
    survives(Ray(cpus=0.5, retries=1), tmp_path)


def test_submitit_gives_the_bits_of_a_loop_and_survives_a_job(tmp_path, monkeypatch):
    submitit = pytest.importorskip("submitit", reason="submitit is not installed: extra 'slurm'")
    # how long it waits on a slow disk for the result of a job that has ended
    monkeypatch.setattr(submitit.Job, "_results_timeout_s", 0.5, raising=False)
    survives(Slurm(local=True, jobs=2, poll=0.1, retries=1), tmp_path)


class Forks:
    """Does as an executor of submitit: a process for each job, that can die."""

    def map_array(self, work, *columns):
        return [Fork(work, row) for row in zip(*columns, strict=True)]


class Fork:
    def __init__(self, work, row):
        context = multiprocessing.get_context("fork")
        self.answer, end = context.Pipe(duplex=False)
        self.process = context.Process(target=lambda: end.send(work(*row)))
        self.process.start()
        end.close()
        self.paths = SimpleNamespace(stderr="log.err")

    def done(self):
        return not self.process.is_alive()

    def exception(self):
        return RuntimeError("no result") if self.process.exitcode else None

    def result(self):
        return self.answer.recv()

    def cancel(self):
        self.process.kill()


@pytest.fixture
def slurm(monkeypatch):
    """A Slurm of one job, which is a process of this machine."""
    monkeypatch.setattr(Slurm, "_executor", lambda self, folder: Forks())
    return Slurm(jobs=1, poll=0.01, retries=1)


def test_the_death_of_a_job_counts_against_the_scan_it_was_at(tmp_path, slurm):
    """Not against one before it that failed, which is told as it is and not done again."""
    special = {"s00": "broken", "s02": "deadly 99", "s03": "broken", "s05": "deadly 1"}
    job, found = done_by(slurm, files_for(tmp_path / "in", 7, **special))
    assert {n: o.status for n, o in found.items()} == {
        "s00": "failed", "s01": "new", "s02": "failed", "s03": "failed", "s04": "new",
        "s05": "new", "s06": "new",
    }  # fmt: skip
    assert "s00.png: broken" in found["s00"].error and "s03.png: broken" in found["s03"].error
    assert "died 2 times" in found["s02"].error and "log.err" in found["s02"].error
    assert [starts(job, f"s0{i}") for i in range(7)] == [1, 1, 2, 1, 1, 2, 1]
    assert found["s01"].seconds == 0.5 and "mean" in dict(found["s01"].metrics)


def test_a_job_that_dies_before_its_first_scan_is_not_started_for_ever(tmp_path, slurm):
    folder = files_for(tmp_path / "in", 2)
    (tmp_path / "notes").write_text("no folder")
    job, found = done_by(replace(slurm, folder=tmp_path / "notes"), folder)
    assert [o.status for o in found.values()] == ["failed", "failed"]
    assert not begun(job.work.ledger)


def test_a_job_that_dies_when_its_result_is_there_has_done_it(tmp_path, slurm, monkeypatch):
    """Also where the machine died in the middle of a note."""
    from measurand.jobs import executors

    note = executors._note

    def half(file, record):
        if record.get("name") == "s01":
            file.write('{"name": "s0')
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        note(file, record)

    monkeypatch.setattr(executors, "_note", half)
    job, found = done_by(slurm, files_for(tmp_path / "in", 3))
    assert {o.status for o in found.values()} == {"new"}
    assert begun(job.work.ledger) == ["s00", "s01", "s02"]
    assert len(results(job.out)) == 6


def test_a_preempted_job_goes_on_with_the_same_scans(tmp_path):
    submitit = pytest.importorskip("submitit", reason="submitit is not installed: extra 'slurm'")
    from measurand.jobs.executors import _noted, _Part

    job = job_on(files_for(tmp_path / "in", 2))
    notes = tmp_path / "notes.jsonl"
    notes.write_text('{"begun": "s00"}\n')
    again = _Part(job.task).checkpoint(list(job.scans), notes)
    assert isinstance(again, submitit.helpers.DelayedSubmission)
    outcomes = again.function(*again.args)
    assert [o.status for o in outcomes] == ["new", "new"]
    assert list(_noted(notes).values()) == outcomes


def test_without_slurm_the_error_says_so(tmp_path, monkeypatch):
    pytest.importorskip("submitit", reason="submitit is not installed: extra 'slurm'")
    monkeypatch.setenv("PATH", str(tmp_path))
    job = job_on(files_for(tmp_path / "in", 1))
    job.open()
    with pytest.raises(FileNotFoundError, match="no sbatch on this machine"):
        run(job, Slurm())


@pytest.mark.parametrize(("executor", "extra"), [(Ray(), "cluster"), (Slurm(), "slurm")])
def test_an_extra_that_is_not_there_is_named(tmp_path, monkeypatch, executor, extra):
    job = job_on(files_for(tmp_path / "in", 1))
    job.open()
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=rf"measurand\[{extra}\]"):
        run(job, executor)


def test_executors_are_values_with_names():
    found = executors()
    assert set(found) == {"loop", "pool", "ray", "slurm"}
    for cls in found.values():
        assert cls() == replace(cls()) and cls.__doc__


def test_importing_executors_imports_no_engine():
    code = (
        "import measurand.commands, sys; "
        "print([m for m in ('ray', 'submitit', 'cloudpickle') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
