"""Memory that runs out: how an error says so, how much there is, and work that then takes less.

A process that asks for more than it may have gets an error only where a limit is set (`ulimit`, a
GPU); otherwise the system ends it without a word. What long work will need is therefore estimated
before it begins, and compared with what is `free`.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

import torch

__all__ = ["exhausted", "free", "lacking", "tight"]

_CGROUP = Path("/sys/fs/cgroup")
_ASKED = re.compile(r"(?:allocate|Unable to allocate) ([\d.]+) ?(bytes|[KMGT]iB)")
_TIMES = 30
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def exhausted(error: BaseException) -> bool:
    """Return whether an error says that memory ran out, on any device."""
    typed = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return typed or "allocate memory" in str(error)  # the CPU allocator has no type of its own


def lacking(error: BaseException) -> str:
    """Return one sentence on memory that ran out: how much was asked for, and what takes less."""
    found = _ASKED.search(str(error))
    more = f", {said(float(found[1]) * _UNITS[found[2]])} more were asked for" if found else ""
    return f"out of memory{more}; smaller images, a smaller --tile or fewer --draws take less"


def free(device: str | torch.device = "cpu") -> int | None:
    """Return the bytes that this process may still take; None where nobody knows.

    Args:
        device: The device; of a processor the least of what the system, its control group and the
            limit of addresses (`ulimit -v`) leave.
    """
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type != "cpu":
        return None
    with suppress(OSError, ValueError, IndexError, ImportError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        rooms = [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable")]
        with suppress(OSError, ValueError):  # "max" where there is no limit
            most = int((_CGROUP / "memory.max").read_text())
            rooms.append(most - int((_CGROUP / "memory.current").read_text()))
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            rooms.append(limit - pages * os.sysconf("SC_PAGE_SIZE"))
        return max(0, min(rooms))
    return None


def tight(size: int, device: str | torch.device = "cpu") -> str:
    """Return a sentence where a reconstruction may need more memory than is free, or nothing.

    Methods take some 20 to 40 times the image (`benchmarks/results/memory.json`).

    Args:
        size: Bytes of what is reconstructed at a time.
        device: Where.
    """
    room, wanted = free(device), _TIMES * size
    if room is None or wanted <= room:
        return ""
    return (
        f"this may take {said(wanted)} of memory, {said(room)} are free; parts of the picture, or "
        "fewer slices or draws, take less"
    )


def said(size: float) -> str:
    """Return a number of bytes in words."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(size / 1e6, 0.1):.3g} MB"
