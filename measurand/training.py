r"""One training loop for every trainable thing.

`train` needs a model, a function that gives the batch of a step, and a function that gives the
loss of each item. The rest is the same for all:

    schedule   constant learning rate after a linear warm-up, linear decay to zero in the last
               part; small crops first (stage 0), large crops at the end (stage 1)
    budget     a time budget becomes a number of steps once, from the throughput of the first
               minute; the number is stored with the state, so a resumed run follows it exactly
    average    power-function EMA of the weights, w_t = beta_t w_{t-1} + (1 - beta_t) theta_t with
               beta_t = (1 - 1/t)^(gamma + 1): a fixed profile relative to the length of the run,
               whose relative width r gives gamma by r^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3))
    guards     a step with a non-finite gradient is skipped; ten in a row reload the last state at
               half the learning rate; if that repeats three times, training stops with an error
    resume     a batch is a pure function of its step, so that weights, moments, averages and the
               step are the whole state: a killed and resumed run ends with the same bits
    signals    SIGTERM and Ctrl-C save and exit with code 128 + signal; SIGUSR1 starts the decay
               now and ends the run within what is left of its time budget

On a CPU the batch is cut into `workers` parts, each differentiated on a thread of its own with one
thread inside: cores meet once per step and not in every convolution, which on a machine that is
also busy otherwise is several times faster. The parts are added in a fixed order.

References:
    T. Karras et al. Analyzing and improving the training dynamics of diffusion models. 2024.
        https://arxiv.org/abs/2312.02696 (power-function EMA)
"""

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .checkpoints import State, load_state, save_state

__all__ = ["EMA", "Plan", "Progress", "adamw", "train"]

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """The learning rate and the stage of every step.

    Args:
        steps: Length of the run; 0 while a time budget waits for its first throughput.
        warmup: Steps of the linear warm-up.
        decay_from: First step of the linear decay to zero.
        large_from: First step of stage 1 (large crops).
        peak: Learning rate where the decay starts, relative to the full one.
    """

    steps: int = 0
    warmup: int = 200
    decay_from: int = 0
    large_from: int = 0
    peak: float = 1.0

    @staticmethod
    def of(steps: int, *, warmup: int = 200, decay: float = 0.35, large: float = 0.175) -> "Plan":
        """Returns the plan whose last `decay` part decays and last `large` part is stage 1."""
        return Plan(steps, warmup, round(steps * (1 - decay)), round(steps * (1 - large)))

    def finish(self, step: int, remaining: int) -> "Plan":
        """Returns the plan that decays from now and ends after `remaining` more steps."""
        large = min(self.large_from, step + remaining // 2) if self.steps else step + remaining // 2
        return Plan(step + remaining, self.warmup, step, large, self.rate(step))

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step, relative to the full one."""
        warm = min(1.0, (step + 1) / max(self.warmup, 1))
        if not self.steps or step < self.decay_from:
            return warm
        left = (self.steps - step) / max(self.steps - self.decay_from, 1)
        return min(warm, self.peak * left)

    def stage(self, step: int) -> int:
        """Returns 0 for small and 1 for large crops."""
        return int(bool(self.steps) and step >= self.large_from)


class EMA:
    """Power-function average of a model's parameters.

    Args:
        model: Whose parameters to follow.
        width: Standard deviation of the averaging window, relative to the steps done so far.
        every: Steps between updates.
    """

    def __init__(self, model: nn.Module, width: float = 0.05, every: int = 4) -> None:
        # (gamma + 1) / r^2 = (gamma + 2)^2 (gamma + 3), expanded in powers of gamma
        t = width**-2
        roots = np.roots([1, 7, 16 - t, 12 - t])
        self.width, self.every = width, every
        self.gamma = float(roots.real[np.abs(roots.imag) < 1e-9].max())
        self.source = dict(model.named_parameters())
        self.values = {k: p.detach().clone() for k, p in self.source.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Takes in the weights after `step` steps, 1 being the first."""
        if step % self.every == 0:
            weight = 1 - (1 - self.every / step) ** (self.gamma + 1)
            torch._foreach_lerp_(list(self.values.values()), list(self.source.values()), weight)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the averaged weights inside the block, and its own after."""
        own = {k: p.detach().clone() for k, p in self.source.items()}
        try:
            self.copy(self.values)
            yield
        finally:
            self.copy(own)

    @torch.no_grad()
    def copy(self, values: Mapping[str, Tensor]) -> None:
        """Writes `values` into the model's parameters."""
        for k, p in self.source.items():
            p.copy_(values[k])


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
    loss: Callable[[nn.Module, Batch], Tensor],
    *,
    steps: int | None = None,
    time_budget: float | None = None,
    plan: Plan | None = None,
    optimizer: torch.optim.Optimizer | None = None,
    ema: Sequence[EMA] = (),
    on_step: Callable[[Progress], None] | None = None,
    folder: Path | str | None = None,
    save_every: float = 120.0,
    resume: bool = False,
    config: str = "",
    autocast: torch.dtype | None = None,
    workers: int = 1,
    clip: float = 1.0,
) -> Plan:
    """Trains a model in place.

    Args:
        model: Any module.
        batches: (step, stage) -> tensors by name, all with one leading size; a pure function.
        loss: (model, batch) -> the loss of each item, (B,).
        steps: Length of the run; or
        time_budget: seconds to train, turned into steps after the first minute.
        plan: Schedule, where the usual one of `steps` is not wanted.
        optimizer: AdamW at 1e-3 when None.
        ema: Averages to keep.
        on_step: Called after each step.
        folder: Where states are saved, None for nowhere.
        save_every: Seconds between states.
        resume: Go on from the newest state of the folder, if there is one.
        config: Digest of the configuration; a state of another one is refused.
        autocast: Precision of the networks' arithmetic, None for that of the weights.
        workers: Parts of the batch, each on a thread of its own.
        clip: Largest norm of the gradient.
    Returns:
        The plan that was followed.
    Raises:
        FloatingPointError: Losses stay non-finite.
        ValueError: The state to resume belongs to another configuration.
        SystemExit: A signal ended the run; the state is saved, the code is 128 + signal.
    """
    if steps is None and time_budget is None and plan is None:
        raise ValueError("train: wants steps, a time budget or a plan")
    plan = plan or (Plan.of(steps) if steps else Plan())
    run = Run(model, optimizer or adamw(model), ema, plan, Path(folder) if folder else None, config)
    if resume:
        run.restore()
    gradients = Gradients(model, loss, autocast, workers)
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
            if (time_budget and not run.plan.steps and clock.settled) or signals.finish:
                decays = run.plan.finish(run.step, clock.remaining)
                run.plan = decays if signals.finish else Plan.of(run.step + clock.remaining)
                signals.finish, clock.due = False, True
            if signals.stop or clock.due:
                run.save()
                clock.saved()
            if signals.stop:
                raise SystemExit(128 + signals.stop)
    run.save()
    return run.plan


class Run:
    """The state of a run: what is saved and what a resumed run needs."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        ema: Sequence[EMA],
        plan: Plan,
        folder: Path | None,
        config: str,
    ) -> None:
        self.model, self.optimizer, self.ema, self.plan = model, optimizer, ema, plan
        self.folder, self.config = folder, config
        self.step, self.seconds, self.bad, self.halvings = 0, 0.0, 0, 0
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    def save(self) -> None:
        """Writes the state, where there is a folder for it."""
        if self.folder is None:
            return
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        for average in self.ema:
            tensors |= {f"ema{average.width:g}.{k}": v for k, v in average.values.items()}
        for i, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{i}.{k}": torch.as_tensor(v) for k, v in moments.items()}
        facts = {
            "plan": asdict(self.plan),
            "seconds": self.seconds,
            "halvings": self.halvings,
            "config": self.config,
        }
        save_state(self.folder, State(self.step, tensors, facts))

    def restore(self) -> bool:
        """Returns whether there was a state to go on from."""
        state = load_state(self.folder) if self.folder else None
        if state is None:
            return False
        if state.facts["config"] != self.config:
            raise ValueError(
                f"{self.folder}: the state belongs to another configuration "
                f"({state.facts['config']!r}, not {self.config!r}); train into another folder"
            )
        self.model.load_state_dict(part(state.tensors, "model."))
        for average in self.ema:
            for k, v in part(state.tensors, f"ema{average.width:g}.").items():
                average.values[k].copy_(v)
        known = self.optimizer.state_dict()
        known["state"] = {}
        for name, v in part(state.tensors, "optimizer.").items():
            i, _, k = name.partition(".")
            known["state"].setdefault(int(i), {})[k] = v
        self.optimizer.load_state_dict(known)
        self.step, self.seconds = state.step, state.facts["seconds"]
        self.halvings, self.plan = state.facts["halvings"], Plan(**state.facts["plan"])
        return True

    def retreat(self) -> None:
        """Goes back to the last state at half the learning rate.

        Raises:
            FloatingPointError: There is no state, or going back did not help three times.
        """
        step, halvings = self.step, self.halvings + 1
        if halvings > 3 or not self.restore():
            raise FloatingPointError(
                f"train: ten steps in a row up to step {step} had a non-finite gradient"
            )
        self.bad, self.halvings = 0, halvings


class Clock:
    """The time of a run: its throughput, when a save is due, how many steps are left."""

    def __init__(self, run: Run, budget: float | None, save_every: float) -> None:
        self.run, self.budget, self.save_every = run, budget, save_every
        self.start, self.steps = time.monotonic() - run.seconds, 0
        self.first: tuple[int, float] | None = None
        self.due = False
        self.saved()

    def tick(self) -> None:
        """Notes that a step is done; the first three, which warm up, do not count as speed."""
        now = time.monotonic()
        self.run.seconds = now - self.start
        self.due = now - self.last > self.save_every
        self.steps += 1
        if self.steps == 3:
            self.first = (self.run.step, self.run.seconds)

    def saved(self) -> None:
        """Notes that the state is on the disk."""
        self.last = time.monotonic()

    @property
    def settled(self) -> bool:
        """Whether the throughput is known: after a minute, or 5 % of a shorter budget."""
        wanted = min(60.0, 0.05 * (self.budget or math.inf))
        return self.first is not None and self.run.seconds - self.first[1] >= wanted

    @property
    def remaining(self) -> int:
        """Steps that fit in the rest of the budget; half of those done where there is none."""
        if self.budget is None or self.first is None:
            return max(1, self.run.step // 2)
        speed = (self.run.step - self.first[0]) / max(self.run.seconds - self.first[1], 1e-9)
        return max(1, int((self.budget - self.run.seconds) * speed))


class Gradients:
    """Writes the gradient of the mean loss to the parameters, and returns the losses."""

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[nn.Module, Batch], Tensor],
        autocast: torch.dtype | None,
        workers: int,
    ) -> None:
        self.model, self.loss, self.autocast = model, loss, autocast
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.workers = workers
        self.pool = None
        if workers > 1:
            self.pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))

    def __call__(self, batch: Batch) -> Tensor:
        n = len(next(iter(batch.values())))
        batch = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
        pieces = [
            {k: v[i::self.workers] for k, v in batch.items()} for i in range(min(self.workers, n))
        ]
        run = map if self.pool is None else self.pool.map
        results = list(run(lambda piece: self.part(piece, n), pieces))
        total = results[0][1]
        for _, gradients in results[1:]:
            torch._foreach_add_(total, gradients)
        for p, gradient in zip(self.parameters, total, strict=True):
            p.grad = gradient
        losses = torch.empty(n, device=self.device)
        for i, (values, _) in enumerate(results):
            losses[i::self.workers] = values
        return losses

    def part(self, batch: Batch, n: int) -> tuple[Tensor, list[Tensor]]:
        """Returns the losses of a part of the batch, and their gradient divided by n."""
        with torch.autocast(
            self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None
        ):
            losses = self.loss(self.model, batch)
        gradients = torch.autograd.grad(
            losses.sum() / n, self.parameters, allow_unused=True, materialize_grads=True
        )
        return losses.detach().float(), list(gradients)


class Signals:
    """Notes SIGTERM and Ctrl-C in `stop`, SIGUSR1 in `finish`; only where signals can be caught."""

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


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Returns the tensors whose name starts with a prefix, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
