import errno
import hashlib
import multiprocessing
import os
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from measurand.files import atomic, claimed, sha256, sha256_file, sweep, write_atomic


def test_writes_bytes_and_text(tmp_path):
    write_atomic(tmp_path / "a.bin", b"\x00\xff")
    write_atomic(tmp_path / "b.txt", "größe")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\xff"
    assert (tmp_path / "b.txt").read_text(encoding="utf-8") == "größe"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "b.txt"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    write_atomic(path, "old")
    with pytest.raises(RuntimeError), atomic(path) as temporary:
        assert temporary.suffix == ".json" and temporary.parent == tmp_path
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "x"
    write_atomic(path, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_has_ordinary_permissions(tmp_path):
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "x", "")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def test_digests(tmp_path):
    write_atomic(tmp_path / "x", b"abc")
    wanted = hashlib.sha256(b"abc").hexdigest()
    assert sha256(b"abc") == sha256("abc") == sha256_file(tmp_path / "x") == wanted


def test_a_folder_that_cannot_be_cleared_is_not_claimed_for_ever(tmp_path, monkeypatch):
    def refuse(folder):
        raise OSError("read-only file system")

    with pytest.raises(OSError, match="read-only"), claimed(tmp_path / "a"):
        monkeypatch.setattr("measurand.files._clear", refuse)
    monkeypatch.undo()
    with claimed(tmp_path / "a") as ours:
        assert ours


def test_a_claimed_folder_is_empty_ours_and_gone_afterwards(tmp_path):
    folder = tmp_path / "a" / "b"
    (folder / "left" / "over").mkdir(parents=True)
    with claimed(folder) as ours:
        assert ours and [p.name for p in folder.iterdir()] == ["lock"]
        (folder / "made").mkdir()
        with claimed(folder) as other:
            assert not other
        assert (folder / "made").exists()
    assert not folder.exists() and folder.parent.exists()
    with pytest.raises(RuntimeError), claimed(folder):
        raise RuntimeError
    assert not folder.exists()


def hold(folder):
    with claimed(folder):
        (folder / "half").write_text("x")
        time.sleep(60)


def test_the_claim_of_a_dead_process_is_void(tmp_path):
    process = multiprocessing.get_context("fork").Process(target=hold, args=(tmp_path / "a",))
    process.start()
    while not (tmp_path / "a" / "half").exists():
        time.sleep(0.005)
    with claimed(tmp_path / "a") as ours:
        assert not ours
    process.kill()
    process.join()
    assert (tmp_path / "a" / "half").exists()
    with claimed(tmp_path / "a") as ours:
        assert ours and not (tmp_path / "a" / "half").exists()


def test_a_folder_has_one_owner_at_a_time_however_fast_they_change(tmp_path):
    inside, most, owned = [0], [0], [0]

    def often():
        for _ in range(300):
            with claimed(tmp_path / "a") as ours:
                if ours:
                    inside[0] += 1
                    (tmp_path / "a" / "mine").mkdir()  # an error if somebody else's is there
                    most[0], owned[0] = max(most[0], inside[0]), owned[0] + 1
                    inside[0] -= 1

    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(often) for _ in range(4)]:
            done.result()
    assert most == [1] and owned[0] > 20 and not (tmp_path / "a").exists()


def none(*_):
    raise OSError(errno.ENOLCK, "no locks available")


def test_without_locks_everybody_is_let_in(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", none)
    with claimed(tmp_path / "a") as ours:
        assert ours
    assert not (tmp_path / "a").exists()


def test_what_a_dead_owner_left_is_swept_and_nothing_else(tmp_path, monkeypatch):
    folder = tmp_path / "a"
    sweep(folder)
    folder.mkdir()
    sweep(folder)
    assert list(tmp_path.iterdir()) == []
    (folder / "half").mkdir(parents=True)
    (folder / "lock").touch()
    with monkeypatch.context() as patch:  # without locks nobody can tell who is dead
        patch.setattr("fcntl.flock", none)
        sweep(folder)
        assert (folder / "half").exists()
    sweep(folder)
    assert list(tmp_path.iterdir()) == []
    with claimed(folder):
        (folder / "half").mkdir()
        sweep(folder)
        assert (folder / "half").exists()
    (tmp_path / ".a.sweep").mkdir()  # of one that died while it swept
    (tmp_path / ".a.sweep" / "lock").touch()
    sweep(folder)
    assert list(tmp_path.iterdir()) == []


def test_sweeping_takes_a_folder_from_nobody_however_often(tmp_path):
    folder, stop = tmp_path / "a", threading.Event()

    def sweeps():
        while not stop.is_set():
            sweep(folder)

    with ThreadPoolExecutor(3) as threads:
        others = [threads.submit(sweeps) for _ in range(3)]
        try:
            for _ in range(150):
                with suppress(FileExistsError):
                    os.mkdir(folder)
                with claimed(folder) as ours:
                    assert ours
                    (folder / "results").mkdir()
                    time.sleep(0.0001)
                    assert (folder / "results").exists()
        finally:
            stop.set()
        for other in others:
            other.result()
