import math
import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from measurand.batches import Batch
from measurand.training.ema import EMA
from measurand.training.loop import Plan, adamw, train
from measurand.training.states import load_state
from measurand.weights.tensorfile import load_tensors


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 1))


def batches(step, stage):
    g = torch.Generator().manual_seed(step)
    x = torch.randn(8, 4, generator=g)
    return Batch({"x": x, "y": (x[:, :1] - 2 * x[:, 1:2]).tanh()})


def loss(net, batch):
    return (net(batch["x"]) - batch["y"]).square().mean(1)


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_it_learns():
    net, seen = model(), []
    plan = train(
        net,
        batches,
        loss,
        steps=400,
        warmup=10,
        on_step=seen.append,
        optimizer=adamw(net, lr=1e-2),
    )
    assert plan.steps == 400 and [p.step for p in seen] == list(range(1, 401))
    first, last = (sum(p.losses.mean() for p in part) for part in (seen[:50], seen[-50:]))
    assert last < 0.3 * first
    assert seen[-1].rate == pytest.approx(1 / 140)


def test_schedule():
    plan = Plan(warmup=10).lasting(1000)
    assert (plan.decay_from, plan.large_from) == (650, 825)
    assert plan.rate(0) == 0.1 and plan.rate(9) == plan.rate(649) == 1
    assert plan.rate(825) == pytest.approx(0.5) and 0 < plan.rate(999) < 0.003
    assert (plan.stage(824), plan.stage(825)) == (0, 1)
    assert Plan().rate(10**6) == 1 and Plan().stage(10**6) == 0


def test_finishing_goes_on_from_the_present_rate():
    plan = Plan(warmup=10).lasting(1000)
    early = plan.finishing(300, 100)
    assert (early.steps, early.large_from, early.rate(300), early.stage(350)) == (400, 350, 1, 1)
    late = plan.finishing(825, 50)
    assert late.rate(825) == pytest.approx(plan.rate(825))
    assert late.rate(850) == pytest.approx(plan.rate(825) / 2)
    assert late.stage(825) == 1
    assert Plan(warmup=10).finishing(100, 10).stage(104) == 0


def test_resumed_run_has_the_same_bits(tmp_path):
    def run(steps_before_stop, folder):
        net = model()
        average = EMA(net, 0.1)

        def stop(progress):
            if progress.step == steps_before_stop:
                os.kill(os.getpid(), signal.SIGTERM)

        train(
            net, batches, loss, steps=60, ema=[average], folder=folder, resume=True, on_step=stop
        )
        return torch.cat([weights(net), *(v.flatten() for v in average.values.values())])

    usual = signal.getsignal(signal.SIGTERM)
    wanted = run(None, tmp_path / "a")
    for step in (7, 41, 59):
        with pytest.raises(SystemExit) as stopped:
            run(step, tmp_path / "b")
        assert stopped.value.code == 128 + signal.SIGTERM
        assert load_state(tmp_path / "b").step == step
    assert torch.equal(run(None, tmp_path / "b"), wanted)
    assert signal.getsignal(signal.SIGTERM) == usual


@pytest.mark.parametrize("count", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_signals_at_any_step_lose_nothing(tmp_path, count, injected):
    injected("3: SIGTERM and Ctrl-C in training", count)
    draw, whole = random.Random(0), model()
    train(whole, batches, loss, steps=60)
    for k in range(count):
        number, at = (signal.SIGTERM, signal.SIGINT)[k % 2], draw.randrange(1, 60)

        def stop(progress, number=number, at=at):
            if progress.step == at:
                os.kill(os.getpid(), number)

        with pytest.raises(SystemExit) as stopped:
            train(model(), batches, loss, steps=60, folder=tmp_path / str(k), on_step=stop)
        assert stopped.value.code == 128 + number and load_state(tmp_path / str(k)).step == at
        net = model()
        train(net, batches, loss, steps=60, folder=tmp_path / str(k), resume=True)
        assert torch.equal(weights(net), weights(whole))


def test_ctrl_c_saves_and_has_its_exit_code(tmp_path):
    def stop(progress):
        if progress.step == 5:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit) as stopped:
        train(model(), batches, loss, steps=60, folder=tmp_path, on_step=stop)
    assert stopped.value.code == 130 and load_state(tmp_path).step == 5


def test_a_signal_ends_the_run_early_with_a_whole_decay():
    seen = []

    def finish(progress):
        seen.append(progress)
        if progress.step == 100:
            os.kill(os.getpid(), signal.SIGUSR1)

    plan = train(model(), batches, loss, steps=10**6, warmup=1, on_step=finish)
    assert plan.steps == len(seen) == 150
    assert seen[100].rate == 1 and seen[125].rate == pytest.approx(0.5) and seen[-1].rate < 0.03


def test_a_time_budget_becomes_steps_once(tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("measurand.training.loop.time.monotonic", lambda: now[0])

    def slow(step, stage):
        now[0] += 0.01
        return batches(step, stage)

    plan = train(model(), slow, loss, time_budget=1.5, folder=tmp_path, warmup=3)
    assert plan.steps == pytest.approx(150, abs=1) and now[0] == pytest.approx(101.5, abs=0.02)
    assert load_state(tmp_path).record["plan"]["steps"] == plan.steps
    assert plan.decay_from == round(0.65 * plan.steps)


def poisoned(bad):
    def poison(step, stage):
        batch = batches(step, stage)
        return batch.adding({"x": batch["x"] * (math.nan if step in bad else 1)})

    return poison


def test_single_bad_steps_are_skipped():
    net, seen = model(), []
    train(net, poisoned({3, 4, 9}), loss, steps=30, on_step=seen.append)
    assert weights(net).isfinite().all()
    assert [p.step - 1 for p in seen if not math.isfinite(p.gradient)] == [3, 4, 9]


@pytest.mark.parametrize("count", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_non_finite_data_never_reach_the_weights(tmp_path, count, injected):
    injected("6: NaN or infinity in data and gradients of training", count)
    draw = random.Random(0)
    for k in range(count):
        bad, value = draw.sample(range(30), 3), draw.choice([math.nan, math.inf, -math.inf])

        def spoiled(step, stage, bad=bad, value=value):
            batch = Batch({name: v.clone() for name, v in batches(step, stage).items()})
            if step in bad:
                batch[draw.choice("xy")][draw.randrange(8), 0] = value
            return batch

        net, seen = model(), []
        average = EMA(net, 0.1)
        train(
            net, spoiled, loss, steps=30, ema=[average], folder=tmp_path / str(k),
            on_step=seen.append,
        )  # fmt: skip
        assert weights(net).isfinite().all()
        assert all(v.isfinite().all() for v in average.values.values())
        state = load_state(tmp_path / str(k)).tensors
        assert all(v.isfinite().all() for v in state.values())
        assert [p.step - 1 for p in seen if not math.isfinite(p.gradient)] == sorted(bad)


def test_ten_bad_steps_go_back_at_half_the_rate(tmp_path):
    calls, seen, net = [], [], model()

    def once(step, stage):  # a fault of the machine, not of the data: gone the second time
        calls.append(step)
        first = calls.count(step) == 1
        return poisoned(range(20, 30) if first else ())(step, stage)

    train(net, once, loss, steps=40, warmup=1, folder=tmp_path, on_step=seen.append)
    assert weights(net).isfinite().all()
    assert calls == [*range(30), *range(40)]
    assert seen[10].rate == 1 and seen[40].rate == 0.5
    assert load_state(tmp_path).record["halvings"] == 1


def test_lasting_non_finite_losses_are_an_error(tmp_path):
    always = poisoned(range(20, 1000))
    for folder in (None, tmp_path):
        with pytest.raises(FloatingPointError, match=r"up to step 30 .*non-finite"):
            train(model(), always, loss, steps=100, folder=folder)
    assert all(v.isfinite().all() for v in load_state(tmp_path).tensors.values())


def test_the_state_of_another_configuration_is_refused(tmp_path):
    train(model(), batches, loss, steps=5, folder=tmp_path, config="a")
    with pytest.raises(ValueError, match="configuration 'a', wants 'b'"):
        train(model(), batches, loss, steps=5, folder=tmp_path, config="b", resume=True)


def test_a_run_does_not_begin_in_the_folder_of_another(tmp_path):
    train(model(), batches, loss, steps=30, folder=tmp_path)
    states = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=r"--resume.*--out"):
        train(model(), batches, loss, steps=5, folder=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == states


def test_a_run_is_not_resumed_as_something_else(tmp_path):
    train(model(), batches, loss, steps=5, folder=tmp_path)
    with pytest.raises(ValueError, match="asked for 5 steps, and now for 9 steps"):
        train(model(), batches, loss, steps=9, folder=tmp_path, resume=True)
    with pytest.raises(ValueError, match="asked for 5 steps, and now for 60 s"):
        train(model(), batches, loss, time_budget=60, folder=tmp_path, resume=True)


def test_some_length_is_needed():
    with pytest.raises(ValueError, match="neither steps nor a time budget"):
        train(model(), batches, loss)


@pytest.mark.parametrize(
    "numbers",
    [
        {"steps": 0},
        {"steps": -3},
        {"time_budget": 0.0},
        {"steps": 5, "workers": 0},
        {"steps": 5, "micro": -1},
    ],
)
def test_numbers_have_to_be_positive(numbers):
    *_, (name, value) = numbers.items()
    with pytest.raises(ValueError, match=f"got {name} {value}, wants a positive number"):
        train(model(), batches, loss, **numbers)


def test_frozen_and_unused_parameters_are_left_alone():
    net = nn.ModuleDict({"used": model(), "unused": nn.Linear(2, 2), "frozen": nn.Linear(4, 4)})
    net["frozen"].requires_grad_(False)
    before = {k: v.clone() for k, v in net.state_dict().items()}

    def through(net, batch):
        return loss(net["used"], {**batch, "x": net["frozen"](batch["x"])})

    train(net, batches, through, steps=5, optimizer=adamw(net, decay=0.0))
    for k, v in net.state_dict().items():
        assert torch.equal(v, before[k]) != k.startswith("used")


RUN = """
import sys, torch
from dataclasses import replace
import numpy as np
from measurand import recipes
from measurand.domains import photographs
torch.set_num_threads(1)
random = np.random.default_rng(0)
images = [random.integers(0, 256, (40, 48, 3), dtype=np.uint8) for _ in range(3)]
photographs.pictures = lambda path, under="", skip_bad=False: [] if under else images
recipe = replace(
    recipes.natural_color, widths=(8, 8), batch=4, crops=(16, 32), blocks=1, warmup=3, name="t"
)
recipes.train_recipe(recipe, ["x"], sys.argv[1], steps=40, workers=2, save_every=0.0,
                     resume=True, quiet=True)
"""


def launch(folder):
    return subprocess.Popen([sys.executable, "-c", RUN, folder], stdout=subprocess.DEVNULL)


def steps_done(folder):
    names = [path.stem for path in (folder / "states").glob("step-*.safetensors")]
    return max((int(name.removeprefix("step-")) for name in names), default=0)


@pytest.mark.parametrize(
    "kills", [4, pytest.param(100, marks=pytest.mark.slow)], ids=["few", "all"]
)
def test_sigkill_and_resume_gives_the_same_bits(tmp_path, kills, injected):
    """A run that is killed at random times ends with the weight files of one that is not."""
    injected("1: SIGKILL at a random time in training", kills)
    assert launch(tmp_path / "calm").wait() == 0
    wanted, _ = load_tensors(tmp_path / "calm" / "t-0.05.safetensors")
    final = load_state(tmp_path / "calm" / "states").tensors
    draw = random.Random(0)
    for k in range(kills // 4):
        folder = tmp_path / f"run {k}"
        # the steps are told by the states, so that no machine is too fast or too slow
        for step in sorted(draw.sample(range(35), 4)):
            process = launch(folder)
            while process.poll() is None and steps_done(folder) < step:
                time.sleep(0.001)
            time.sleep(draw.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL
        assert launch(folder).wait() == 0
        found, _ = load_tensors(folder / "t-0.05.safetensors")
        assert all(torch.equal(found[k], v) for k, v in wanted.items())
        state = load_state(folder / "states").tensors
        assert state.keys() == final.keys()
        assert all(torch.equal(state[k], v) for k, v in final.items())


def test_a_resumed_run_of_a_channels_last_network_gives_the_same_bits(tmp_path):
    """Fused AdamW reads flat memory: moments from a file take the layout of the weights."""

    def net():
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 8, 3), nn.SiLU(), nn.Conv2d(8, 8, 1), nn.SiLU(), nn.Conv2d(8, 4, 3)
        return nn.Sequential(*layers).to(memory_format=torch.channels_last)

    def crops(step, stage):
        generator = torch.Generator().manual_seed(step)
        return Batch({"x": torch.randn(2, 3, 8, 8, generator=generator)})

    def power(net, batch):
        return net(batch["x"]).square().mean((1, 2, 3))

    def stop(progress):
        if progress.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    whole, half, resumed = net(), net(), net()
    train(whole, crops, power, steps=10)
    with pytest.raises(SystemExit):
        train(half, crops, power, steps=10, folder=tmp_path, on_step=stop)
    train(resumed, crops, power, steps=10, folder=tmp_path, resume=True)
    assert not torch.equal(weights(half), weights(whole))
    assert torch.equal(weights(resumed), weights(whole))
