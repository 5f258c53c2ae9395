"""The states of a training run: files beside each other, of which the newest intact one counts.

`step-00001000.safetensors` and so on, written atomically with a digest of every tensor. The last
two are kept, and reading falls back to the previous one if the last is damaged.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..leases import Lease, lease
from ..weights.tensorfile import DamagedFile, load_tensors, save_tensors

__all__ = ["State", "check_unused", "load_state", "owned", "save_state"]


@dataclass
class State:
    """Everything a training run needs to go on as if it had never stopped.

    Args:
        step: Steps done.
        tensors: Weights, averages and optimiser moments, by name.
        record: JSON values: schedule, seconds trained, digest of the configuration.
    """

    step: int
    tensors: dict[str, Tensor]
    record: dict[str, Any] = field(default_factory=dict)


def save_state(folder: str | os.PathLike[str], state: State, *, keep: int = 2) -> Path:
    """Writes a training state atomically and removes all but the newest ones.

    Args:
        folder: Where the states of one run live.
        state: What to write.
        keep: Number of states that stay.
    Returns:
        The new file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{state.step:08d}.safetensors"
    save_tensors(path, state.tensors, {"step": state.step, "facts": state.record})
    for old in sorted(folder.glob("step-*.safetensors"))[:-keep]:
        old.unlink()
    return path


def check_unused(folder: str | os.PathLike[str]) -> None:
    """Makes sure that a folder holds no states: of two runs in one, the newer would lose its own.

    Raises:
        ValueError: There are some.
    """
    if any(Path(folder).glob("step-*.safetensors")):
        raise ValueError(
            f"{folder}: holds the states of a run; go on with it (--resume), or train into "
            "another folder (--out)"
        )


@contextmanager
def owned(folder: str | os.PathLike[str]) -> Iterator[Lease]:
    """A folder that a run has to itself while the block lasts.

    Raises:
        ValueError: Another living run has it.
        OSError: It cannot be written.
    """
    found: list[Lease] = []
    with lease(Path(folder) / ".lease", "train", found=found) as mine:
        if mine is None:
            raise ValueError(
                f"{folder}: another run is at work in it ({found[0]}); wait for its end, or train "
                "into another folder (--out)"
            )
        yield mine


def load_state(folder: str | os.PathLike[str]) -> State | None:
    """Returns the newest intact training state of a folder, None where there is none at all.

    Raises:
        DamagedFile: There are states and every one is damaged.
    """
    error: DamagedFile | None = None
    for path in sorted(Path(folder).glob("step-*.safetensors"), reverse=True):
        try:
            tensors, card = load_tensors(path)
            return State(card["step"], tensors, card["facts"])
        except DamagedFile as damage:
            error = error or damage
    if error is not None:
        raise error
    return None
