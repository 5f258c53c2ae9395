"""Several processes that train one model, as `torchrun` starts them.

`torchrun --nproc-per-node 8 -m measurand train ...` gives every process a rank. Each takes its
rows of the batch, the gradients are added up over the ranks, and every rank takes the same step,
so that all hold the same weights. A process that was started alone is rank 0 of 1, and nothing
here costs anything.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["all_reduce", "all_equal", "joined", "largest", "barrier", "rank", "ranks", "broadcast"]


@contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Joins the other processes of `torchrun` inside the block, where there are any.

    Args:
        device: Where to train; of several GPUs each local rank takes its own.
    Yields:
        The device of this rank.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    store, own, world = next(iter(dist.rendezvous("env://")))
    # torchrun keeps one store over its restarts: without a prefix of their own, new processes
    # would read the addresses that dead ones have left there
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore(f"{attempt} of {world}", store),
        rank=own,
        world_size=world,
    )
    try:
        yield device
        barrier()  # who leaves first must not cut off the others
    finally:
        dist.destroy_process_group()


def ranks() -> int:
    """Returns how many processes train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Returns which of them this one is, from 0."""
    return dist.get_rank() if ranks() > 1 else 0


def all_reduce(tensors: Sequence[Tensor]) -> None:
    """Replaces each tensor by its sum over the ranks, the same bits on all of them."""
    if ranks() == 1:
        return
    # one message, because many small ones wait for each other
    flat = torch.cat([t.flatten() for t in tensors])
    dist.all_reduce(flat)
    for t, total in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
        t.copy_(total.view(t.shape))


def largest(*numbers: int) -> list[int]:
    """Returns the largest value of each number over the ranks."""
    if ranks() == 1:
        return list(numbers)
    values = torch.tensor(numbers)
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return values.tolist()


def all_equal(*numbers: int) -> bool:
    """Returns whether all ranks have the same numbers."""
    both = largest(*numbers, *(-n for n in numbers))
    return both[: len(numbers)] == [-n for n in both[len(numbers) :]]


def broadcast(tensors: Sequence[Tensor]) -> None:
    """Replaces each tensor by that of rank 0."""
    for t in tensors if ranks() > 1 else ():
        value = t.contiguous()
        dist.broadcast(value, 0)
        t.copy_(value)


def barrier() -> None:
    """Waits until every rank is here."""
    if ranks() > 1:
        dist.barrier()
