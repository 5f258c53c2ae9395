"""A lease has one living owner at a time, and none that is dead keeps it."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from measurand import leases
from measurand.leases import alone, lease, living, void
from measurand.owners import owner_of, stamp, unstamped

FORK = multiprocessing.get_context("fork")


def dead():
    """The stamp of a process that is dead: this pid, when it was another one's."""
    word, place, pid, started, number = stamp().split("-")
    return f"{word}-{place}-{pid}-{int(started) - 1}-{number}"


def left(path, token, age=0.0):
    """The lease of somebody else."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"token": token, "host": "elsewhere", "pid": 7, "about": "x"}))
    os.utime(path, (time.time() - age,) * 2)
    return path


def ours(path):
    with lease(path) as mine:
        return mine is not None


def test_a_lease_is_of_one_and_gone_afterwards(tmp_path):
    path, found = tmp_path / "a" / "b" / "x.lease", []
    with lease(path, "this") as mine:
        assert not mine.lost and [p.name for p in path.parent.iterdir()] == ["x.lease"]
        with lease(path, found=found) as other:
            assert other is None
        assert [other.about for other in living(path.parent)] == ["this"]
    assert mine.lost and list(path.parent.iterdir()) == [] and living(path.parent) == []
    assert found[0].about == "this" and f"process {os.getpid()} on " in str(found[0])
    with pytest.raises(RuntimeError), lease(path):
        raise RuntimeError
    assert ours(path)


def hold(path):
    with lease(path):
        time.sleep(60)


def test_the_lease_of_a_dead_process_is_void_and_that_of_a_stopped_one_is_not(tmp_path):
    path = tmp_path / "x.lease"
    process = FORK.Process(target=hold, args=(path,))
    process.start()
    while not path.exists():
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGSTOP)
    os.utime(path, (0, 0))  # it gives no sign, and lives
    assert not ours(path)
    void(tmp_path)
    assert path.exists()
    process.kill()
    while living(tmp_path):
        time.sleep(0.005)
    assert ours(path)  # though nobody has asked for its exit code
    process.join()
    assert list(tmp_path.iterdir()) == []


def test_a_pid_that_is_used_again_is_not_the_owner(tmp_path):
    path = left(tmp_path / "x.lease", dead())
    assert living(tmp_path) == [] and ours(path)


def test_another_machine_is_dead_when_it_gives_no_sign(tmp_path):
    path = left(tmp_path / "x.lease", "measurand-ffffffff-1-1-0", age=100.0)
    assert not ours(path) and [other.host for other in living(tmp_path)] == ["elsewhere"]
    os.utime(path, (time.time() - 130.0,) * 2)
    assert living(tmp_path) == []
    assert ours(path)


def test_a_lease_that_cannot_be_read_is_void_after_a_while(tmp_path):
    path = tmp_path / "x.lease"
    path.touch()  # of a machine that lost its power, or that is making it without links
    assert not ours(path)
    os.utime(path, (0, 0))
    assert ours(path) and list(tmp_path.iterdir()) == []


def test_signs_are_given_and_a_sleeper_sees_that_it_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "BEAT", 0.01)
    monkeypatch.setattr(leases, "_beating", False)  # a thread that beats faster
    path = tmp_path / "x.lease"
    with lease(path) as mine:
        os.utime(path, (0, 0))
        until = time.monotonic() + 20
        while path.stat().st_mtime < time.time() - 60:
            assert time.monotonic() < until
            time.sleep(0.01)
        left(path, "measurand-ffffffff-1-1-0")  # as if this machine had slept
        assert mine.lost
        os.utime(path, (0, 0))
        time.sleep(0.1)
        assert path.stat().st_mtime == 0  # no sign for another one
    assert path.exists()  # and it keeps it


def test_void_leases_are_removed_and_no_others(tmp_path):
    left(tmp_path / "a.lease", dead())
    left(tmp_path / "b.lease", "measurand-ffffffff-1-1-0")
    left(tmp_path / "void-0123.lease", dead())
    with lease(tmp_path / "c.lease"):
        void(tmp_path)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["b.lease", "c.lease"]


def test_the_remover_of_a_void_lease_may_die_too(tmp_path, monkeypatch):
    path = left(tmp_path / "x.lease", dead())
    monkeypatch.setattr("pathlib.Path.unlink", lambda *_, **__: os._exit(0))
    process = FORK.Process(target=void, args=(tmp_path,))
    process.start()
    process.join()
    monkeypatch.undo()
    assert path.exists() and len(list(tmp_path.iterdir())) > 1
    assert ours(path)
    void(tmp_path)
    assert not list(tmp_path.glob("*.lease"))


def test_a_lease_that_could_not_be_let_go_of_is_not_kept_for_ever(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    path = tmp_path / "x.lease"
    with pytest.raises(OSError, match="Read-only"), lease(path):
        monkeypatch.setattr("pathlib.Path.unlink", refuse)
    monkeypatch.undo()
    assert path.exists() and ours(path)


def test_file_systems_without_links(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("os.link", none)
    with lease(tmp_path / "x.lease") as mine:
        assert mine and not ours(tmp_path / "x.lease")
    left(tmp_path / "x.lease", dead())
    assert ours(tmp_path / "x.lease") and list(tmp_path.iterdir()) == []


def test_a_link_whose_answer_was_lost_was_made(tmp_path, monkeypatch):
    link = os.link

    def twice(*words):
        link(*words)
        link(*words)

    monkeypatch.setattr("os.link", twice)
    assert ours(tmp_path / "x.lease")


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to("gone")
    for name in ("file", "nowhere"):
        with pytest.raises(OSError), lease(tmp_path / name / "x.lease"):
            pass


def often(path, times, told):
    """Has a lease often; a file that only one may make shows whether it was alone."""
    had = 0
    for _ in range(times):
        with lease(path) as mine:
            if mine is not None:
                os.close(os.open(path.with_name("alone"), os.O_CREAT | os.O_EXCL))
                os.unlink(path.with_name("alone"))
                had += 1
    told.put(had)


def test_a_lease_has_one_owner_however_fast_they_change(tmp_path):
    path, told = tmp_path / "folder" / "x.lease", FORK.Queue()

    def come_and_go():
        while any(process.is_alive() for process in processes):
            left(path.with_name("y.lease"), dead()) if path.parent.exists() else None
            void(path.parent)
            try:
                path.parent.rmdir()
            except OSError:
                pass

    processes = [FORK.Process(target=often, args=(path, 150, told)) for _ in range(3)]
    for process in processes:
        process.start()
    come_and_go()
    had = [told.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sum(had) >= 150


def test_a_folder_that_goes_and_comes_back_is_tried_again(tmp_path, monkeypatch):
    """Another process removed it before the file was made, a third has made it since."""
    write, lost = Path.write_text, []

    def gone_at_first(path, text):
        if not lost:
            lost.append(path)
            raise FileNotFoundError(errno.ENOENT, "gone", str(path))
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", gone_at_first)
    with lease(tmp_path / "x.lease") as mine:
        assert mine is not None and lost


def test_threads_share_a_lease_as_processes_do(tmp_path):
    inside, most = [0], [0]

    def enter(_):
        with alone(tmp_path / "x.lease"):
            inside[0] += 1
            most[0] = max(most[0], inside[0])
            time.sleep(0.001)
            inside[0] -= 1

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(enter, range(40)))
    assert most == [1]
    with (
        lease(tmp_path / "x.lease"),
        pytest.raises(TimeoutError, match="x.lease: process .* does not let go"),
        alone(tmp_path / "x.lease", patience=0.05),
    ):
        pass


def take_over(path, start, told):
    start.wait()
    with lease(path) as mine:
        told.put(mine is not None)
        start.wait()  # all have asked


@pytest.mark.parametrize("rounds", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_a_dead_owner_is_followed_by_exactly_one(tmp_path, rounds):
    start, told = FORK.Barrier(5), FORK.Queue()
    for k in range(rounds):
        path = left(tmp_path / f"{k}.lease", dead())
        processes = [FORK.Process(target=take_over, args=(path, start, told)) for _ in range(5)]
        for process in processes:
            process.start()
        assert sum(told.get(timeout=30) for _ in processes) == 1
        for process in processes:
            process.join()
    assert list(tmp_path.iterdir()) == []


def test_a_fork_has_none_of_the_leases(tmp_path):
    path, told = tmp_path / "x.lease", FORK.Queue()
    with lease(path):
        process = FORK.Process(target=lambda: told.put((ours(path), stamp())))
        process.start()
        had, name = told.get(timeout=30)
        process.join()
        assert not had and path.exists()
        assert owner_of(name).pid == process.pid != os.getpid()
    assert not path.exists()


def test_a_stamp_is_found_in_a_name():
    name = stamp()
    assert stamp() != name and owner_of(f".x.{name}.png").alive
    assert unstamped(f".x.{name}.png") == ".x." and unstamped("x.png") == "x.png"
    for name in ("2026-11-30.png", "20261130-12-30-01.png", "deadbeef-1-2-3"):
        assert owner_of(name) is None  # a name that somebody else has given
    assert owner_of(dead()).alive is False
    assert owner_of("measurand-ffffffff-1-1-0").alive is None


def test_leases_need_nothing_heavy():
    code = "import measurand.leases, measurand.files, sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr
