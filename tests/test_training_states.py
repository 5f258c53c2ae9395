import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch

from measurand.training.states import State, load_state, save_state
from measurand.weights import tensorfile as tensorfile
from measurand.weights.tensorfile import DamagedFile


def test_the_last_two_states_stay(tmp_path):
    for step in (1, 2, 30):
        save_state(tmp_path / "s", State(step, {"x": torch.full((3,), float(step))}, {"a": step}))
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == [
        "step-00000002.safetensors",
        "step-00000030.safetensors",
    ]
    state = load_state(tmp_path / "s")
    assert (state.step, state.record) == (30, {"a": 30}) and state.tensors["x"].tolist() == [
        30.0
    ] * 3


def test_a_damaged_state_falls_back_to_the_one_before(tmp_path):
    assert load_state(tmp_path / "none") is None
    paths = [save_state(tmp_path, State(k, {"x": torch.ones(9)})) for k in (1, 2)]
    content = bytearray(paths[1].read_bytes())
    content[-5] ^= 1
    paths[1].write_bytes(content)
    assert load_state(tmp_path).step == 1
    paths[0].write_bytes(b"")
    with pytest.raises(DamagedFile):
        load_state(tmp_path)


WRITER = """
import sys, torch
from measurand.training.states import State, save_state
torch.set_num_threads(1)
for step in range(1, 100000):
    save_state(sys.argv[1], State(step, {"x": torch.full((500_000,), float(step))}))
    print(step, flush=True)
"""


@pytest.mark.parametrize(
    "kills", [2, pytest.param(100, marks=pytest.mark.slow)], ids=["few", "all"]
)
def test_sigkill_while_writing_leaves_a_readable_state(tmp_path, kills, injected):
    injected("2: SIGKILL inside checkpoint writing", kills)
    draw = random.Random(0)
    for k in range(kills):
        folder = tmp_path / str(k)
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, folder], stdout=subprocess.PIPE, env={**os.environ}
        )
        process.stdout.readline()
        time.sleep(draw.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        lines = process.stdout.read().split()
        process.wait()
        state = load_state(folder)
        assert state.step >= int(lines[-1]) if lines else state.step >= 1
        assert (state.tensors["x"] == state.step).all()
        assert len(list(folder.glob("step-*"))) <= 3


def test_nothing_is_damaged_by_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    save_state(tmp_path, State(1, {"x": torch.ones(3)}))

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(tensorfile, "atomic", refuse)
    with pytest.raises(OSError, match="Read-only"):
        save_state(tmp_path, State(2, {"x": torch.ones(3)}))
    assert load_state(tmp_path).step == 1
