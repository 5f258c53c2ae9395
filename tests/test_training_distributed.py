"""Two processes on one machine, as torchrun starts them on many."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from measurand.training.distributed import all_reduce, barrier, largest, rank, ranks
from measurand.training.states import load_state

RUN = """
import os, signal, sys, time, torch
from pathlib import Path
from torch import nn
from measurand.batches import Batch
from measurand.training.ema import EMA
from measurand.training.distributed import joined, rank
from measurand.training.loop import train
torch.set_num_threads(1)
folder, steps, pause = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])

def batches(step, stage):
    g = torch.Generator().manual_seed(step)
    n = 7 if stage == 0 else 1  # odd, and fewer than there are ranks
    x = torch.randn(n, 4, generator=g, dtype=torch.float64)
    return Batch({"x": x, "y": (x[:, :1] - 2 * x[:, 1:2]).tanh()})

def loss(net, batch):
    time.sleep(pause)
    return (net(batch["x"]) - batch["y"]).square().mean(1)

def tell(progress):
    (folder / f"rank {rank()}").write_text(f"{os.getpid()} {progress.step}")

with joined(torch.device("cpu")):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 1)).double()
    plan = train(net, batches, loss, steps=steps, folder=folder / "states", ema=[EMA(net, 0.1)],
                 resume=True, save_every=0.0, on_step=tell)
    torch.save(net.state_dict(), folder / f"net-{rank()}.pt")
"""


def start(folder, processes, steps=40, pause=0.0, restarts=3, other=("", "")):
    """A run that torchrun starts again where a process fails, be it in finding its peers."""
    folder.mkdir(exist_ok=True)
    script = folder / "run.py"
    script.write_text(RUN.replace(*other))
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--max-restarts={restarts}"]
    command = [sys.executable, *launcher, f"--nproc-per-node={processes}", script]
    return subprocess.Popen(
        [*map(str, command), str(folder), str(steps), str(pause)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()},
        stderr=(folder / "errors").open("a"),
    )


def net(folder, rank):
    return torch.load(folder / f"net-{rank}.pt", weights_only=True)


def process_at(folder, rank, step):
    """The process of a rank, as soon as it has done some steps."""
    while True:
        try:
            pid, done = (folder / f"rank {rank}").read_text().split()
        except (FileNotFoundError, ValueError):
            done = -1
        if int(done) >= step:
            return int(pid)
        time.sleep(0.002)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    assert start(folder, 2).wait() == 0
    return folder


def test_alone_everything_is_free():
    total = torch.ones(3)
    all_reduce([total])
    barrier()
    assert (rank(), ranks(), largest(3, 0)) == (0, 1, [3, 0]) and torch.equal(total, torch.ones(3))


def test_two_ranks_train_as_one(tmp_path, undisturbed):
    assert start(tmp_path, 1).wait() == 0
    one, two = net(tmp_path, 0), net(undisturbed, 0)
    for name, value in one.items():
        assert torch.equal(two[name], net(undisturbed, 1)[name])
        assert torch.allclose(two[name], value, rtol=1e-5, atol=1e-10)


def test_ranks_take_the_weights_of_the_first(tmp_path, undisturbed):
    own = ("torch.manual_seed(0)", "torch.manual_seed(rank())")
    assert start(tmp_path, 2, other=own).wait() == 0
    for k in range(2):
        assert all(torch.equal(v, net(undisturbed, 0)[n]) for n, v in net(tmp_path, k).items())


def test_ranks_that_do_not_see_one_folder_are_refused(tmp_path):
    own = ('folder / "states"', 'folder / f"states {rank()}"')
    process = start(tmp_path, 2, pause=0.01, restarts=0, other=own)
    os.kill(process_at(tmp_path, 0, 5), signal.SIGTERM)
    assert process.wait() != 0  # rank 0 has saved, the other has nothing
    assert start(tmp_path, 2, restarts=0, other=own).wait() != 0
    assert "not all ranks begin at step" in (tmp_path / "errors").read_text()


def test_a_signal_to_one_rank_stops_all_and_the_run_goes_on(tmp_path, undisturbed):
    process = start(tmp_path, 2, pause=0.01, restarts=0)
    os.kill(process_at(tmp_path, 1, 5), signal.SIGTERM)
    assert process.wait() != 0
    assert 5 <= load_state(tmp_path / "states").step < 40
    assert start(tmp_path, 2).wait() == 0
    assert all(torch.equal(v, net(undisturbed, 0)[k]) for k, v in net(tmp_path, 1).items())


@pytest.mark.parametrize("kills", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_a_dead_rank_is_started_again_and_nothing_is_lost(tmp_path, undisturbed, kills, injected):
    injected("12: death of a rank in training", kills)
    for k in range(kills):
        folder = tmp_path / str(k)
        process = start(folder, 2, pause=0.01, restarts=5)
        os.kill(process_at(folder, k % 2, 1 + 7 * k % 30), signal.SIGKILL)
        assert process.wait() == 0
        assert all(torch.equal(v, net(undisturbed, 0)[k]) for k, v in net(folder, 1).items())
