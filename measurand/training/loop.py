r"""One training loop for every trainable thing.

`train` needs a model, a function that gives the batch of a step, and a function that gives the
loss of each item. The rest is the same for all:

    schedule   linear warm-up, constant learning rate, linear decay to zero in the last part;
               small crops first (stage 0), large ones at the end (stage 1)
    budget     a time budget becomes a number of steps once, from the throughput of the first
               minute; it is stored with the state, so that a resumed run follows it exactly
    average    power-function averages of the weights, see `ema`
    gradient   in parts, on threads or on several processes, see `gradients` and `distributed`
    guards     a step with a non-finite gradient is skipped; ten in a row reload the last state at
               half the learning rate; when that was done three times, training ends with an error
    resume     a batch is a pure function of its step, so that step, weights, averages and moments
               are the whole state: a killed and resumed run ends with the same bits
    signals    SIGTERM and Ctrl-C save and exit with code 128 + signal; SIGUSR1 starts the decay
               now, to end within what is left of the time budget
    folder     a run has it to itself, by a lease; a second run in it is an error
    ranks      every process of `torchrun` takes the same steps; rank 0 keeps the time and the
               states, and a signal to any of them is one to all
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..batches import Batch
from ..leases import Lease
from .distributed import all_equal, broadcast, largest, rank
from .ema import EMA
from .gradients import Gradients, Loss, laid_out_as
from .plan import Plan
from .states import State, check_unused, load_state, owned, save_state

__all__ = ["Progress", "adamw", "train"]


@dataclass(frozen=True)
class Progress:
    """What `on_step` is told after each step.

    Args:
        step: Steps done.
        plan: The schedule.
        seconds: Training time of the whole run so far, resumed parts included.
        losses: Loss of each item of the batch, (B,).
        batch: The batch.
        gradient: Norm of the gradient before clipping.
        rate: Learning rate of the step, relative to the full one.
    """

    step: int
    plan: Plan
    seconds: float
    losses: Tensor
    batch: Batch
    gradient: float
    rate: float


def adamw(model: nn.Module, *, lr: float = 1e-3, decay: float = 1e-2) -> torch.optim.AdamW:
    """Returns AdamW with betas (0.9, 0.99); weight decay on weights, not on biases."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.99), fused=True)


def train(
    model: nn.Module,
    batches: Callable[[int, int], Batch],
    loss: Loss,
    *,
    steps: int | None = None,
    time_budget: float | None = None,
    warmup: int = 200,
    optimizer: torch.optim.Optimizer | None = None,
    ema: Sequence[EMA] = (),
    on_step: Callable[[Progress], None] | None = None,
    folder: Path | None = None,
    save_every: float = 120.0,
    resume: bool = False,
    config: str = "",
    autocast: torch.dtype | None = None,
    workers: int = 1,
    micro: int | None = None,
    clip: float = 1.0,
) -> Plan:
    """Trains a model in place.

    Args:
        model: Any module.
        batches: (step, stage) -> the batch of a step; a pure function.
        loss: (model, batch) -> the loss of each item, (B,).
        steps: Length of the run; or
        time_budget: seconds to train, turned into steps after the first minute.
        warmup: Steps of the warm-up.
        optimizer: AdamW at 1e-3 when None.
        ema: Averages to keep.
        on_step: Called after each step.
        folder: Where states are saved; None for nowhere.
        save_every: Seconds between states.
        resume: Go on from the newest state of the folder, if there is one.
        config: Digest of the configuration; the state of another one is refused.
        autocast: Precision of the network's arithmetic; None for that of its weights.
        workers: Parts of the batch, each on a thread of its own.
        micro: Most items differentiated at once; None for as many as fit into the memory.
        clip: Largest norm of the gradient.
    Returns:
        The plan that was followed.
    Raises:
        FloatingPointError: Gradients stay non-finite.
        ValueError: Neither steps nor a budget, or a number that is not positive; without `resume`
            a folder with states; with it a state of another configuration or request, or ranks
            that do not all have the same state; another run is at work in the folder.
        SystemExit: A signal ended the run: the state is saved, the code is 128 + signal.
    """
    if steps is None and time_budget is None:
        raise ValueError("train: got neither steps nor a time budget, wants one of them")
    given = {"steps": steps, "time_budget": time_budget, "workers": workers, "micro": micro}
    for name, value in given.items():
        if value is not None and not value > 0:
            raise ValueError(f"train: got {name} {value}, wants a positive number")
    plan = Plan(warmup=warmup).lasting(steps) if steps else Plan(warmup=warmup)
    asked = {"steps": steps, "time_budget": time_budget}
    with nullcontext() if folder is None or rank() else owned(folder) as mine:
        run = Run(model, optimizer or adamw(model), ema, plan, folder, config, asked, mine)
        if folder is not None and not resume:
            check_unused(folder)
        known = resume and run.restore()
        # waits for all: no rank may find the first state of another one
        if not all_equal(run.step):
            raise ValueError(
                f"train: not all ranks begin at step {run.step}, as this one does; they have to "
                f"see the same folder {folder}"
            )
        broadcast(list(model.state_dict().values()))
        if not known:
            run.save()
        gradients = Gradients(model, loss, autocast=autocast, workers=workers, micro=micro)
        clock = Clock(run, time_budget, save_every)
        with Signals() as signals:
            while not run.plan.steps or run.step < run.plan.steps:
                rate = run.plan.rate(run.step) * 0.5**run.halvings
                batch = batches(run.step, run.plan.stage(run.step))
                losses = gradients(batch)
                norm = float(nn.utils.clip_grad_norm_(gradients.parameters, clip))
                if math.isfinite(norm):
                    for group in run.optimizer.param_groups:
                        group["lr"] = group["initial_lr"] * rate
                    run.optimizer.step()
                run.bad = 0 if math.isfinite(norm) else run.bad + 1
                run.optimizer.zero_grad(set_to_none=True)
                run.step += 1
                for average in ema:
                    average.update(run.step)
                clock.tick()
                if on_step is not None:
                    on_step(Progress(run.step, run.plan, run.seconds, losses, batch, norm, rate))
                if run.bad == 10:
                    run.retreat()
                stop, finish, due, settled, remaining = clock.orders(signals)
                if settled:
                    run.plan = run.plan.lasting(run.step + remaining)
                if finish:
                    run.plan = run.plan.finishing(run.step, remaining)
                if stop or due or settled or finish:
                    run.save()
                    clock.mark()
                if stop:
                    raise SystemExit(128 + stop)
        run.save()
        return run.plan


class Run:
    """The state of a run: what is saved, and all that a resumed run needs."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema: Sequence[EMA],
        plan: Plan,
        folder: Path | None,
        config: str,
        asked: Mapping[str, Any],
        mine: Lease | None,
    ) -> None:
        self.model, self.optimizer, self.ema, self.plan = model, optimizer, ema, plan
        self.folder, self.config, self.asked, self.mine = folder, config, dict(asked), mine
        self.step, self.seconds, self.halvings = 0, 0.0, 0
        self.bad = 0  # non-finite steps in a row
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def save(self) -> None:
        """Writes the state, where there is a folder and the last step was sound.

        Raises:
            ValueError: The folder is no longer that of this run.
        """
        if self.folder is None or self.bad or rank():
            return
        if self.mine is not None and self.mine.lost:
            raise ValueError(
                f"{self.folder}: this run has lost it (this machine slept?), another one may have "
                "gone on with it; nothing more is saved: see what is there, and --resume"
            )
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for average in self.ema:
            tensors |= {f"ema{average.width:g}.{k}": v for k, v in average.values.items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in moments.items()}
        record = {
            "plan": asdict(self.plan),
            "seconds": self.seconds,
            "halvings": self.halvings,
            "config": self.config,
            "asked": self.asked,
        }
        save_state(self.folder, State(self.step, tensors, record))

    def restore(self) -> bool:
        """Returns whether there was a state, and takes it."""
        state = load_state(self.folder) if self.folder else None
        if state is None:
            return False
        if state.record["config"] != self.config:
            raise ValueError(
                f"{self.folder}: got a state of configuration {state.record['config']!r}, wants "
                f"{self.config!r}; train into another folder"
            )
        if state.record["asked"] != self.asked:
            raise ValueError(
                f"{self.folder}: the run was asked for {said(state.record['asked'])}, and now for "
                f"{said(self.asked)}; resume it as it was, or start another from its weights"
            )
        self.model.load_state_dict(under(state.tensors, "model."))
        for average in self.ema:
            for k, v in under(state.tensors, f"ema{average.width:g}.").items():
                average.values[k].copy_(v)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for name, v in under(state.tensors, "optimizer.").items():
            i, _, k = name.partition(".")
            moments.setdefault(int(i), {})[k] = laid_out_as(parameters[int(i)], v)
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.step, self.seconds = state.step, state.record["seconds"]
        self.halvings, self.plan = state.record["halvings"], Plan(**state.record["plan"])
        return True

    def retreat(self) -> None:
        """Goes back to the last state, at half the learning rate.

        Raises:
            FloatingPointError: There is none, or this was done three times already.
        """
        step, halvings = self.step, self.halvings + 1
        if halvings > 3 or not self.restore():
            raise FloatingPointError(
                f"train: the ten steps up to step {step} all had a non-finite gradient, after "
                f"{halvings - 1} halvings of the learning rate; the data or the loss is at fault"
            )
        self.bad, self.halvings = 0, halvings


class Clock:
    """The time of a run: its throughput, when a save is due, how many steps are left."""

    def __init__(self, run: Run, budget: float | None, save_every: float) -> None:
        self.run, self.budget, self.save_every = run, budget, save_every
        self.start = time.monotonic() - run.seconds
        self.warm = run.step + 3  # the first steps allocate and do not count as throughput
        self.marks = [(run.step, run.seconds)]
        self.due = False

    def tick(self) -> None:
        """Notes that a step is done."""
        self.run.seconds = time.monotonic() - self.start
        self.due = self.run.seconds - self.marks[-1][1] > self.save_every
        if self.run.step == self.warm:
            self.marks = [(self.run.step, self.run.seconds)]

    def mark(self) -> None:
        """Notes that the state is saved; the throughput is that since the save before."""
        self.marks = [self.marks[-1], (self.run.step, self.run.seconds)]

    def orders(self, signals: "Signals") -> list[int]:
        """Returns what all ranks do now: stop, finish, due, settled, and the steps that remain.

        Signals count from any rank, the time is that of rank 0.
        """
        mine = [0, 0, 0]
        if rank() == 0:
            settled = not self.run.plan.steps and self.settled
            mine = [int(self.due), int(settled), self.remaining]
        finish, signals.finish = signals.finish, False
        return largest(signals.stop, int(finish), *mine)

    @property
    def settled(self) -> bool:
        """Whether the throughput is known: after a minute, or 5 % of a shorter budget."""
        wanted = min(60.0, 0.05 * (self.budget or 0.0))
        return self.run.step > self.warm and self.run.seconds - self.marks[0][1] >= wanted

    @property
    def remaining(self) -> int:
        """Steps that fit in the rest of the budget; half of those done where there is none."""
        if not self.budget:
            return max(1, self.run.step // 2)
        step, seconds = self.marks[0]
        speed = (self.run.step - step) / max(self.run.seconds - seconds, 1e-9)
        return max(1, int((self.budget - self.run.seconds) * speed))


class Signals:
    """Notes SIGTERM and Ctrl-C in `stop`, SIGUSR1 in `finish`, where signals can be caught."""

    def __init__(self) -> None:
        self.stop, self.finish = 0, False
        self.old: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self.old[number] = signal.signal(number, self.on_stop)
            if hasattr(signal, "SIGUSR1"):
                self.old[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, self.on_finish)
        return self

    def on_stop(self, number: int, frame: Any) -> None:
        self.stop = number

    def on_finish(self, number: int, frame: Any) -> None:
        self.finish = True

    def __exit__(self, *error: object) -> None:
        for number, old in self.old.items():
            signal.signal(number, old)


def said(asked: Mapping[str, Any]) -> str:
    """Returns how long a run was asked to be, in words."""
    steps, seconds = asked["steps"], asked["time_budget"]
    return f"{steps} steps" if steps else f"{seconds:g} s"


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Returns the tensors whose name starts with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
