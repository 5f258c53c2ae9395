"""Ctrl-C and kills of whole commands, at any time: one line, and no process stays behind."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_cli import picture

ROOT = Path(__file__).resolve().parents[1]
TV = ["--operator", "identity", "--sigma", "0.2", "--prior", "total-variation", "--method",
      "fista", "--out", "r"]  # fmt: skip
# tells when the command has taken Ctrl-C upon itself: until then it is answered by Python
START = """
import os, signal, sys
from measurand.cli import main

def noted(*words, take=signal.signal):
    signal.signal = take
    before = take(*words)
    os.write(1, b"up")
    return before

signal.signal = noted
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def scans(tmp_path):
    (tmp_path / "in").mkdir()
    for name in "abcd":
        picture(tmp_path / "in" / f"{name}.png", 24, 24, 3)
    return tmp_path


def started(folder, *words):
    """A command in a process group of its own, as a terminal starts it."""
    process = subprocess.Popen(
        [sys.executable, "-c", START, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        # a shell that starts the tests in the background makes them deaf to SIGINT
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout.read(2) == b"up"
    return process


def interrupted(folder, seconds, *words):
    """What a command says that is interrupted so late; None if it had ended."""
    process = started(folder, "reconstruct", "in", *TV, "--quiet", *words)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out == b"" and process.returncode in (0, 130), err
    return err.decode() if process.returncode else None


def is_one_line(said):
    return re.fullmatch(r"measurand: interrupted; [a-z -]+\n", said) is not None


def moments(count):
    """Times that grow from the very start to the middle of the work, in seconds."""
    rng = random.Random(0)
    return [rng.uniform(0.0, 4.0) * (k / count) for k in range(count)]


@pytest.mark.parametrize("count", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_ctrl_c_is_one_line_at_any_time(scans, count, injected):
    injected("3: Ctrl-C while a command starts and works", count)
    said = [interrupted(scans, at, "--method.steps", "100000") for at in moments(count)]
    assert [line for line in said if not is_one_line(line)] == []
    assert said[0].endswith("nothing was begun\n")
    left = [p.name for p in (scans / "r").iterdir()] if (scans / "r").exists() else []
    assert left in ([], ["job.json"])


@pytest.mark.parametrize("count", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_ctrl_c_while_workers_start_is_one_line(scans, count, injected):
    injected("3: Ctrl-C while the workers of a pool start and work", count)
    pool = ["--method.steps", "100000", "--executor", "pool", "--executor.workers", "2"]
    for at in moments(count)[::-1]:
        said = interrupted(scans, 1.5 * at, *pool)
        assert is_one_line(said), said


def processes():
    """Parent and session of every process that is not dead, by pid."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if words[0] not in "ZX":
            found[int(folder.name)] = int(words[1]), int(words[3])
    return found


def of(command):
    """All processes of a command: its session, and what it has started outside of that."""
    known = processes()
    return {pid for pid, (parent, session) in known.items() if command in (parent, session)}


@pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")
@pytest.mark.parametrize("count", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_no_process_of_a_killed_command_lives_for_two_seconds(scans, count, injected):
    """Workers that import torch, workers at work, and who watches over them."""
    injected("12: death of the command that has started a pool", count)
    pool = ["--method.steps", "100000", "--executor", "pool", "--executor.workers", "2"]
    for k, more in enumerate(sorted(moments(count))):
        process = started(scans, "reconstruct", "in", *TV, "--quiet", *pool)
        while len(of(process.pid)) < 2 + k % 3:  # from the first that is started on
            assert process.poll() is None
            time.sleep(0.002)
        time.sleep(more)
        known = of(process.pid)
        process.kill()
        killed = time.monotonic()
        process.wait()
        while (of(process.pid) | known) & set(processes()):
            assert time.monotonic() < killed + 2.0, "they live on"
            time.sleep(0.01)
        process.stdout.close()
        process.stderr.close()


def test_training_has_its_folder_to_itself(tmp_path):
    """Also where the first run is stopped, not dead; and a dead one keeps nobody out."""
    picture(tmp_path / "a.png", 40, 40, 3)
    words = ["train", "natural-gray", "--data", "a.png", "--recipe.widths", "4", "8",
             "--recipe.blocks", "1", "--recipe.crops", "16", "16", "--recipe.batch", "2",
             "--licence", "mine", "--device", "cpu", "--quiet", "--out", "t",
             "--steps"]  # fmt: skip
    first = started(tmp_path, *words, "1000000", "--save-every", "0.05s")
    while not list(tmp_path.glob("t/states/step-0*[1-9]*.safetensors")):
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)
    before = sorted(tmp_path.rglob("*"))
    second = started(tmp_path, *words, "1000000", "--resume")
    _, err = second.communicate(timeout=60)
    assert second.returncode == 2, err
    assert re.fullmatch(
        rf"measurand: t: another run is at work in it \(process {first.pid} on .*\); .*--out\)\n",
        err.decode(),
    )
    assert sorted(tmp_path.rglob("*")) == before
    first.kill()
    first.wait()
    third = started(tmp_path, *words, "1000000", "--resume")
    time.sleep(0.1)
    third.terminate()
    _, err = third.communicate(timeout=60)
    assert third.returncode in (-signal.SIGTERM, 128 + signal.SIGTERM), err
