"""How a training run goes: `metrics.jsonl`, a line on the screen, and TensorBoard where wanted."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..batches import Batch
from ..records import json_text
from .loop import Progress

__all__ = ["Journal", "tell"]


class Journal:
    """Records how a run goes, called after each step.

    A line says step and steps, patches (of the small crops' size), seconds, images per second,
    achieved TFLOP/s (three times the forward pass), mean loss, in the bands of the noise level
    that `edges` parts where items have one, norm of the gradient, relative learning rate, steps
    skipped so far, seconds to go, and now and then the quality of an average of the weights, under
    the name of what is measured.

    Args:
        path: The file that lines are appended to.
        quality: Measures an average of the weights: numbers by name.
        measure: What it measures: "psnr" in dB, "bits".
        level: The noise level of each item of a batch; None where they have none.
        forward: The forward pass of one patch, for its arithmetic.
        batch: Patches per step.
        evaluate_every: Seconds between measurements of the quality.
        quiet: Print nothing.
        tensorboard: Also write events for TensorBoard, beside the file.
        every: Seconds between lines.
    """

    edges = (0.05, 0.2, 0.8)

    def __init__(
        self,
        path: Path,
        quality: Callable[[], Mapping[str, float]],
        *,
        measure: str,
        level: Callable[[Batch], Tensor | None],
        forward: Callable[[], Any],
        batch: int,
        evaluate_every: float,
        quiet: bool = False,
        tensorboard: bool = False,
        every: float = 30.0,
    ) -> None:
        self.path, self.quality, self.batch, self.quiet = path, quality, batch, quiet
        self.measure, self.level = measure, level
        self.every, self.evaluate_every = every, evaluate_every
        self.work = 3 * flops(forward)
        self.skipped = 0
        self.evaluated: float | None = None
        self.last = (0, 0.0)
        self.bands: list[list[float]] = []
        self.events = events_at(path.parent) if tensorboard else None

    def __call__(self, progress: Progress) -> None:
        self.skipped += not math.isfinite(progress.gradient)
        losses, sigma = progress.losses.tolist(), self.level(progress.batch)
        at, bands = [0] * len(losses), 1
        if sigma is not None:
            at = torch.bucketize(sigma.cpu(), torch.tensor(self.edges)).tolist()
            bands = len(self.edges) + 1
        self.bands = self.bands or [[] for _ in range(bands)]
        for band, loss in zip(at, losses, strict=True):
            self.bands[band].append(loss)
        if self.evaluated is None:
            self.evaluated, self.last = progress.seconds, (progress.step, progress.seconds)
        end = progress.step == progress.plan.steps
        seconds = progress.seconds - self.last[1]
        if seconds < self.every and not end:
            return
        speed = (progress.step - self.last[0]) / max(seconds, 1e-9)
        means = [finite(sum(x) / len(x), 4) if x else None for x in self.bands]
        line: dict[str, Any] = {
            "step": progress.step,
            "steps": progress.plan.steps,
            "patches": progress.step * self.batch,
            "seconds": round(progress.seconds, 1),
            "images_per_second": float(f"{speed * self.batch:.3g}"),
            "tflops": float(f"{speed * self.batch * self.work / 1e12:.3g}"),
            "loss": means if len(means) > 1 else means[0],
            "gradient": finite(progress.gradient, 3),
            "rate": round(progress.rate, 4),
            "skipped": self.skipped,
        }
        if progress.plan.steps:
            line["eta"] = round((progress.plan.steps - progress.step) / max(speed, 1e-9))
        if progress.seconds - self.evaluated >= self.evaluate_every or end:
            found = dict(self.quality())
            line[self.measure] = found.get(self.measure, found)  # one number, or several by name
            self.evaluated = progress.seconds
        self.write(line)
        self.last = (progress.step, progress.seconds)
        self.bands = [[] for _ in self.bands]

    def write(self, line: dict[str, Any]) -> None:
        """Writes one line to all that listen."""
        with self.path.open("a") as file:
            file.write(json_text(line) + "\n")
        if not self.quiet:
            stamp = time.strftime("%H:%M:%S ")
            words = " ".join(f"{k}={v}" for k, v in line.items())
            tell(stamp + words)
        if self.events is not None:
            for name, value in line.items():
                numbers = dict(enumerate(value)) if isinstance(value, list) else value
                numbers = numbers if isinstance(numbers, dict) else {"": numbers}
                for key, number in numbers.items():
                    if number is not None:
                        tag = f"{name}/{key}" if key != "" else name
                        self.events.add_scalar(tag, number, line["step"])
            self.events.flush()


def tell(words: str) -> None:
    """Prints a line on stderr; a run does not end because nobody reads it."""
    if sys.stderr is not None:
        with suppress(OSError):
            print(words, file=sys.stderr, flush=True)


def finite(value: float, digits: int) -> float | None:
    """Returns a number rounded, None where it is none: JSON knows no NaN."""
    return round(value, digits) if math.isfinite(value) else None


def events_at(folder: Path) -> Any:
    """Returns a writer of TensorBoard events.

    Raises:
        ImportError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(
            "--tensorboard needs TensorBoard: pip install 'measurand[tensorboard]'"
        ) from error
    return SummaryWriter(str(folder))  # type: ignore[no-untyped-call]


def flops(forward: Callable[[], Any]) -> int:
    """Returns the floating-point operations of a forward pass, those of Fourier transforms not."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        forward()
    return counter.get_total_flops()
