import hashlib
import multiprocessing
import os
import stat
import time

import pytest
from test_leases import dead

from measurand import files
from measurand.files import atomic, publish, room, sha256, sha256_file, sweep, write_atomic


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


FORK = multiprocessing.get_context("fork")


def killed(work, *words):
    """Runs a function in a process that dies in it."""
    process = FORK.Process(target=work, args=words)
    process.start()
    process.join()
    assert process.exitcode != 0


def die(*_, **__):
    os._exit(9)


def half_saved(path):
    with atomic(path) as temporary:
        temporary.write_text("half")
        die()


def test_the_next_save_removes_what_a_killed_one_left(tmp_path):
    write_atomic(tmp_path / "x.json", "old")
    for _ in range(3):
        killed(half_saved, tmp_path / "x.json")
    assert len(list(tmp_path.iterdir())) == 2  # the last one's
    with atomic(tmp_path / "y.json") as other:  # of a living process, with a name of its own
        other.write_text("y")
        write_atomic(tmp_path / "x.json", "new")
        assert sorted(tmp_path.iterdir()) == sorted([tmp_path / "x.json", other])
    assert (tmp_path / "x.json").read_text() == "new"
    assert (tmp_path / "y.json").read_text() == "y"


def test_what_another_machine_left_is_removed_after_a_day(tmp_path):
    names = [".a.measurand-ffffffff-1-1-0.png", ".b.measurand-ffffffff-1-1-1.png"]
    mine = [".hidden", ".20261130-12-30-01.png", "20261130-12-30-01.png", names[0][1:]]
    for name in [*names, *mine]:
        (tmp_path / name).touch()
        if name != names[1]:
            os.utime(tmp_path / name, (time.time() - 90000.0,) * 2)
    sweep(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {names[1], *mine}
    sweep(tmp_path / "none")


def filled(folder, word, *, dies=None):
    """Puts a folder with a word in its place."""
    with room(folder, folder.parent, folder.name) as stage:
        (stage / "word").write_text(word)
        if dies:
            dies(stage)
        publish(stage, folder)


def test_a_filled_folder_takes_the_place_of_another_one(tmp_path):
    for word in ("one", "two"):
        filled(tmp_path / "a" / "r", word)
        assert (tmp_path / "a" / "r" / "word").read_text() == word
        assert [p.name for p in (tmp_path / "a").iterdir()] == ["r"]
    with pytest.raises(RuntimeError), room(tmp_path / "a" / "r", tmp_path / "a", "r"):
        raise RuntimeError
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["r"]


def without_exchange(monkeypatch):
    """A file system that cannot exchange two folders."""
    monkeypatch.setattr("measurand.files._exchanged", lambda *_: False)


@pytest.mark.parametrize("exchange", [True, False])
@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_after_any_rename_leaves_a_result(tmp_path, monkeypatch, exchange, renames):
    """Seen at once where folders can be exchanged, and when the next run has begun elsewhere."""
    folder = tmp_path / "r"
    filled(folder, "old")
    if not exchange:
        without_exchange(monkeypatch)

    def then_dies(stage):
        made = [0]
        rename, exchanged = os.replace, files._exchanged

        def counted(call, *words):
            if made[0] == renames:
                die()
            done = call(*words)
            made[0] += done is not False
            return done

        os.replace = lambda *words: counted(rename, *words)
        files._exchanged = lambda *words: counted(exchanged, *words)
        publish(stage, folder)
        die()

    killed(lambda: filled(folder, "new", dies=then_dies))
    assert len(list(tmp_path.glob(".r.*"))) == 1
    if exchange or renames != 1:
        assert (folder / "word").read_text() in ("old", "new")
    sweep(tmp_path)
    assert (folder / "word").read_text() == ("old" if renames < (1 if exchange else 2) else "new")
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def often_filled(folder, word, times):
    for _ in range(times):
        filled(folder, word)


@pytest.mark.parametrize("exchange", [True, False])
def test_processes_that_fill_one_folder_do_not_fail(tmp_path, monkeypatch, exchange):
    if not exchange:
        without_exchange(monkeypatch)
    folder = tmp_path / "r"
    filled(folder, "0")
    processes = [FORK.Process(target=often_filled, args=(folder, str(k), 40)) for k in range(3)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes):
        sweep(tmp_path)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert (folder / "word").read_text() in "012" and [*tmp_path.iterdir()] == [folder]


def test_a_result_that_was_put_aside_is_not_removed_while_it_is_the_only_one(tmp_path):
    place = tmp_path / f".r.{dead()}"
    (place / "replaced-0").mkdir(parents=True)
    (place / "for").write_text("../none/r")  # the folder above it is gone
    sweep(tmp_path)
    (place,) = tmp_path.glob(".r.*")
    assert (place / "replaced-0").exists()
