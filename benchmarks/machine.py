"""What every benchmark needs: facts of the machine, alternating CPU times, a results file.

Peer and ours run in one process, turn by turn, and only ratios within a turn are compared: what
else the machine does then falls on both alike. Times are CPU times, of one thread unless said.
"""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch

RESULTS = Path(__file__).resolve().parent / "results"


def facts() -> dict[str, Any]:
    """What the machine is and how busy it is, for the head of a results file."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in _lines("/proc/cpuinfo")
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "load": [round(n, 2) for n in os.getloadavg()],
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "mkl": torch.backends.mkl.is_available(),
        "system": platform.system(),
    }


def settle_allocator() -> None:
    """Free one large block, so that the C library keeps later ones instead of returning them.

    Without it a loop over images of a megabyte falls by chance into one of two regimes, with or
    without a page fault per page and call, a factor of two apart. Any process that has run a
    network is in the second.
    """
    torch.empty(31 << 20, dtype=torch.uint8)


def alternating(
    calls: dict[str, Callable[[], Any]], *, rounds: int = 15, seconds: float = 0.02
) -> dict[str, list[float]]:
    """CPU times of several functions, called turn by turn.

    Args:
        calls: The functions, by name.
        rounds: Number of turns.
        seconds: How long each function runs in a turn, about.
    Returns:
        For each name its time per call in every turn, in seconds.
    """
    repeats = {}
    for name, call in calls.items():
        call()
        start = time.process_time()
        call()
        repeats[name] = max(1, round(seconds / max(time.process_time() - start, 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            for _ in range(repeats[name]):
                call()
            times[name].append((time.process_time() - start) / repeats[name])
    return times


def ratio(times: list[float], base: list[float]) -> tuple[float, float, float]:
    """Median of the turn-by-turn ratios, with the quartiles."""
    found = [a / b for a, b in zip(times, base, strict=True)]
    low, middle, high = statistics.quantiles(found, n=4)
    return round(middle, 3), round(low, 3), round(high, 3)


def write(name: str, content: dict[str, Any]) -> Path:
    """Write `results/<name>.json`, machine facts first; the file appears whole or not at all."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    draft = path.with_suffix(".tmp")
    draft.write_text(json.dumps({"machine": facts(), **content}, indent=1) + "\n")
    draft.replace(path)
    return path


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
