"""One scan of many: whole or not at all, once, and the same whoever does it."""

import builtins
import errno
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
from jobs import begun, files_for, job_on, results
from test_leases import dead

from measurand.jobs.task import _key, scan_seed
from measurand.leases import lease
from measurand.owners import stamp


@pytest.fixture
def job(tmp_path):
    job = job_on(files_for(tmp_path / "in", 3, s01="broken"))
    job.open()
    return job


def test_a_scan_is_done_once(job):
    scan = job.scans[0]
    first = job.task(scan)
    assert first.status == "new" and first.seconds == 0.5 and dict(first.metrics)["mean"]
    again = job.task(scan)
    assert again.status == "kept" and again.metrics == first.metrics
    assert begun(job.work.ledger) == ["s00"]
    record = json.loads((job.out / "s00" / "run.json").read_text())
    assert record["batch"]["outputs"].keys() == {"early.npy", "more/late.npy"}
    assert list(results(job.out)) == ["s00/early.npy", "s00/more/late.npy"]


def test_a_scan_that_fails_is_told_and_leaves_nothing(job):
    outcome = job.task(job.scans[1])
    assert outcome.status == "failed" and outcome.error.endswith("s01.png: broken")
    assert not (job.out / "s01").exists() and not (job.out / ".partial" / "s01").exists()
    (job.out.parent / "in" / "s02.png").unlink()
    outcome = job.task(job.scans[2])
    assert outcome.status == "failed" and "s02.png" in outcome.error


def test_an_error_that_is_no_message_names_its_kind(job, monkeypatch):
    monkeypatch.setattr("measurand.jobs.task._ready", lambda work: {}["nothing"])
    assert job.task(job.scans[0]).error == "KeyError: 'nothing'"


@pytest.mark.parametrize("damage", ["lost file", "short file", "no record", "half a record"])
def test_a_result_that_is_not_whole_is_missing(job, damage):
    scan = job.scans[0]
    job.task(scan)
    before, folder = results(job.out), job.out / "s00"
    if damage == "lost file":
        (folder / "more" / "late.npy").unlink()
    elif damage == "short file":
        (folder / "early.npy").write_bytes(b"short")
    elif damage == "no record":
        shutil.rmtree(folder)
    else:
        (folder / "run.json").write_text((folder / "run.json").read_text()[:50])
    assert job.task.kept(scan) is None
    outcome = job.task(scan)
    if damage == "half a record":  # the folder may be anyone's
        assert outcome.status == "failed" and "no result of a job" in outcome.error
    else:
        assert outcome.status == "new" and results(job.out) == before


def test_an_input_that_has_changed_is_done_again_and_a_copy_of_it_is_not(job):
    scan = job.scans[0]
    path = scan.inputs["file"]
    job.task(scan)
    os.utime(path, (1, 1))
    assert job.task.kept(scan) is not None
    path.write_text("else")
    assert job.task.kept(scan) is None and job.task(scan).status == "new"
    path.unlink()
    assert job.task.kept(scan) is not None  # it cannot be done again


def test_a_folder_of_someone_else_is_left_alone(job):
    (job.out / "s00").mkdir()
    (job.out / "s00" / "thesis.txt").write_text("x")
    outcome = job.task(job.scans[0])
    assert outcome.status == "failed" and "no result of a job" in outcome.error
    assert [p.name for p in (job.out / "s00").iterdir()] == ["thesis.txt"]


def test_what_a_living_process_has_is_left_to_it_and_what_a_dead_one_had_is_not(job):
    partial, key = job.out / ".partial", _key("s00")
    half = partial / f".{key}.{stamp()}" / "results" / "early.npy"
    half.parent.mkdir(parents=True)
    half.write_text("half")
    with lease(partial / f"{key}.lease"):
        assert job.task(job.scans[0]).status == "elsewhere"
        assert half.read_text() == "half" and not results(job.out)
    assert job.task(job.scans[0]).status == "new" and list(partial.iterdir()) == []


def test_a_result_that_a_killed_process_put_aside_is_there_again(job):
    """It died between two renames, on a disk that cannot exchange folders."""
    job.task(job.scans[0])
    before = results(job.out)
    place = job.out / ".partial" / f".{_key('s00')}.{dead()}"
    place.mkdir()
    (place / "for").write_text("../../s00")
    (job.out / "s00").rename(place / "replaced-0")
    assert job.task(job.scans[0]).status == "kept" and results(job.out) == before
    assert not place.exists()


def test_a_machine_that_slept_puts_nothing_in_place_of_what_others_did(job, monkeypatch):
    """Its lease was taken over, and its folder of the scan removed."""
    scan, make = job.scans[0], type(job.work).make

    def slept(work, scan, folder, seed):
        (path,) = (job.out / ".partial").glob(f"{_key('s00')}.lease")
        path.write_text(path.read_text().replace("token", "other"))
        return make(work, scan, folder, seed)

    monkeypatch.setattr(type(job.work), "make", slept)
    assert job.task(scan).status == "elsewhere" and not results(job.out)


def test_a_process_of_a_job_that_was_replaced_puts_nothing_into_the_folder(job):
    """One whose command was killed may go on, on another machine."""
    other = job_on(job.out.parent / "in", scale=2.0)
    other.open(replace=True)
    outcome = job.task(job.scans[0])
    assert outcome.status == "failed" and "of a job with other settings by now" in outcome.error
    assert not results(job.out) and other.task(job.scans[0]).status == "new"


def test_a_scan_that_takes_too_long_fails_and_the_next_one_does_not(tmp_path):
    folder = files_for(tmp_path / "in", 2)
    slow = replace(job_on(folder, seconds=30.0), timeout=0.1)
    outcome = slow.task(slow.scans[0])
    assert outcome.status == "failed"
    assert outcome.error == "it took longer than 0.1 s (--timeout)"
    assert list(slow.out.glob(".partial/*")) == [] and not results(slow.out)
    quick = replace(job_on(folder), timeout=60.0)
    assert quick.task(quick.scans[1]).status == "new"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    with ThreadPoolExecutor(1) as threads:
        outcome = threads.submit(quick.task, quick.scans[0]).result()
    assert outcome.status == "failed" and "main thread" in outcome.error
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="--timeout: got"):
            replace(quick, timeout=bad)


def test_results_of_other_settings_are_replaced_as_a_whole(job):
    scan = job.scans[0]
    job.task(scan)
    other = job_on(job.out.parent / "in", scale=2.0)
    (job.out / "s00" / "only-in-the-old.npy").write_text("x")
    other.open(replace=True)
    outcome = other.task(scan)  # nobody's file is not to be lost
    assert outcome.status == "failed" and "s00: holds only-in-the-old.npy" in outcome.error
    record = json.loads((job.out / "s00" / "run.json").read_text())
    record["batch"]["outputs"]["only-in-the-old.npy"] = 1
    (job.out / "s00" / "run.json").write_text(json.dumps(record))
    assert other.task.kept(scan) is None and other.task(scan).status == "new"
    assert list(results(job.out)) == ["s00/early.npy", "s00/more/late.npy"]
    assert job.task.kept(scan) is None


def test_the_seed_of_a_scan_is_its_own():
    seeds = {scan_seed(seed, name) for seed in range(4) for name in ("a", "b", "a/b")}
    assert len(seeds) == 12 and max(seeds) < 2**48
    assert scan_seed(0, "a") == scan_seed(0, "a")


@pytest.mark.parametrize("moment", ["flush", "rename"])
def test_a_disk_that_is_full_leaves_the_old_result(job, monkeypatch, moment):
    job.task(job.scans[0])
    before = results(job.out)
    other = job_on(job.out.parent / "in", scale=2.0)
    other.open(replace=True)
    rename = os.replace
    monkeypatch.setattr("measurand.files._exchanged", lambda *_: False)

    def full(*words):
        if moment == "flush" or str(words[0]).endswith("/results"):
            raise OSError(28, "No space left on device")
        rename(*words)

    monkeypatch.setattr("measurand.files.flush" if moment == "flush" else "os.replace", full)
    outcome = other.task(job.scans[0])
    monkeypatch.undo()
    assert outcome.status == "failed" and "No space left" in outcome.error
    assert results(job.out) == before and job.task.kept(job.scans[0]) is not None
    assert other.task(job.scans[0]).status == "new"


class Disk:
    """A disk on which one operation below a folder fails, or that one and all after it."""

    CHANGES = ("mkdir", "open", "fsync", "replace", "rename", "link", "unlink", "rmdir")

    def __init__(self, monkeypatch, folder):
        self.folder, self.error, self.first, self.last, self.count = str(folder), 0, 0, -1, 0
        for name in self.CHANGES:
            monkeypatch.setattr(os, name, self.watched(name, getattr(os, name)))
        opened = self.watched("file", open)
        monkeypatch.setattr(builtins, "open", opened)
        monkeypatch.setattr(io, "open", opened)

    def watched(self, name, call):
        def instead(path, *words, **more):
            if self.is_change(name, path, words, more):
                self.count += 1
                if self.first <= self.count - 1 <= self.last:
                    raise OSError(self.error, os.strerror(self.error), path)
            return call(path, *words, **more)

        return instead

    def is_change(self, name, path, words, more):
        if name == "open":  # with a folder's handle: to look, by who removes it
            return str(path).startswith(self.folder) and bool(words) and words[0] & os.O_CREAT
        if name == "file":
            mode = words[0] if words else more.get("mode", "r")
            return str(path).startswith(self.folder) and mode[0] in "wax"
        return name == "fsync" or "dir_fd" in more or str(path).startswith(self.folder)

    @contextmanager
    def fails(self, error, at, *, once):
        self.error, self.count, self.first, self.last = error, 0, at, at if once else 10**9
        try:
            yield
        finally:
            self.last = -1


@contextmanager
def files_end_at(size):
    """The system lets no file grow beyond so many bytes: a disk that is full within a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def in_a_process(job, fault):
    """The outcome of the first scan of a job, where something is wrong."""
    context = multiprocessing.get_context("fork")
    answer, end = context.Pipe(duplex=False)

    def work():
        with fault:
            outcome = job.task(job.scans[0])
        end.send(outcome)

    process = context.Process(target=work)
    process.start()
    outcome = answer.recv()
    process.join()
    return outcome


def whole(folder):
    """The files of a result, which are those of its record."""
    found = results(folder)
    record = json.loads((folder / "run.json").read_text())
    assert record["batch"]["outputs"] == {name: len(data) for name, data in found.items()}
    return found


@pytest.mark.parametrize("count", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_a_disk_that_fails_at_any_operation_leaves_old_data_whole(
    tmp_path, monkeypatch, count, injected
):
    """Row 5 of the fault table: full, an error once, read-only from some moment on.

    The file system is one that cannot exchange two folders: there is a moment between two renames.
    """
    monkeypatch.setattr("measurand.files._exchanged", lambda *_: False)
    injected("5: disk full, I/O error, read-only target of a job", count)
    folder, rng = files_for(tmp_path / "in", 2), random.Random(0)
    old, new = (job_on(folder, scale=scale) for scale in (1.0, 2.0))
    old.open()
    disk = Disk(monkeypatch, old.out)
    place, beside = (old.out / scan.name for scan in old.scans)
    assert {old.task(scan).status for scan in old.scans} == {"new"}
    (old.out / "job.json").unlink()  # both may put their results here
    first, other = whole(place), whole(beside)
    with disk.fails(0, -1, once=True):
        assert new.task(new.scans[0]).status == "new"
        operations = disk.count
    second = whole(place)
    assert operations > 20 and first != second
    for k in range(count):
        assert old.task(old.scans[0]).status in ("new", "kept") and whole(place) == first
        at = rng.randrange(operations)
        fault = [
            files_end_at(rng.randrange(1, 400)),
            disk.fails(errno.ENOSPC, at, once=True),
            disk.fails(errno.EIO, at, once=True),
            disk.fails(errno.EROFS, at, once=False),
        ][k % 4]
        os.unlink(old.work.ledger)
        outcome = in_a_process(new, fault)
        if outcome.status == "failed":
            assert outcome.error.startswith("[Errno ")
            # read-only between two renames: it is where it was put aside
            aside = next(old.out.glob(".partial/*/replaced-0"), None)
            assert whole(place if place.exists() else aside) in (first, second)
        else:  # what failed is needed by nothing: an empty folder is left
            assert whole(place) == second
        assert whole(beside) == other
        assert new.task(new.scans[0]).status in ("new", "kept")
        assert whole(place) == second and not list(new.out.glob(".partial/*s00*"))
