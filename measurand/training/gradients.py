"""The gradient of a batch, whole or in parts, on one thread, several, or several processes.

The mean loss of a batch of n items is a sum over its items divided by n, so the batch may be cut
anywhere and the parts' gradients added, always in the same order:

    ranks      each process takes its rows of the batch, and gradients are summed over them
    workers    on a CPU each part has a thread of its own: cores meet once per step and not in
               every convolution, which on a machine that has other work is several times faster;
               a single one has as many threads inside as torch has
    micro      at most so many items are differentiated at once, one portion after the other;
               where memory runs out, the number is halved and the step goes on

Nothing else changes with them but rounding.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from ..batches import Batch
from ..memory import exhausted
from .distributed import all_reduce, rank, ranks

__all__ = ["Gradients", "Loss", "laid_out_as"]

Loss = Callable[[Any, Batch], Tensor]


class Gradients:
    """Writes the gradient of the mean loss to the parameters, and returns the losses.

    Args:
        model: Any module.
        loss: (model, batch) -> the loss of each item, (B,).
        autocast: Precision of the network's arithmetic; None for that of its weights.
        workers: Parts of the batch, each on a thread of its own.
        micro: Most items differentiated at once; None for all of a part.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        *,
        autocast: torch.dtype | None = None,
        workers: int = 1,
        micro: int | None = None,
    ) -> None:
        self.model, self.loss, self.autocast = model, loss, autocast
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.device = self.parameters[0].device
        self.workers, self.micro = workers, micro
        threads = 1 if workers > 1 else torch.get_num_threads()
        self.pool = ThreadPoolExecutor(workers, initializer=prepare_thread, initargs=(threads,))

    def __call__(self, batch: Batch) -> Tensor:
        """Returns the loss of each item, (B,); the gradient stands in `grad` of each parameter.

        Args:
            batch: Fields of aligned items by name; every rank gives the same batch.
        Raises:
            MemoryError: Not even one item fits into the memory.
        """
        n = batch.size
        stride = ranks() * self.workers
        parts = [slice(rank() + i * ranks(), None, stride) for i in range(self.workers)]
        parts = [part for part in parts if part.start < n]
        jobs = [(batch.rows(part), n) for part in parts]
        run = self.pool.map if self.device.type == "cpu" else map
        results = list(run(lambda job: self.part(*job), jobs))
        losses = torch.zeros(n, device=self.device)
        total = [torch.zeros_like(p) for p in self.parameters] if not results else results[0][1]
        for i, (part, (values, gradients)) in enumerate(zip(parts, results, strict=True)):
            losses[part] = values
            if i:
                torch._foreach_add_(total, gradients)
        all_reduce([losses, *total])
        for p, gradient in zip(self.parameters, total, strict=True):
            p.grad = laid_out_as(p, gradient)
        return losses

    def part(self, batch: Batch, n: int) -> tuple[Tensor, list[Tensor]]:
        """Returns the losses of a part of a batch of n, and its share of the gradient."""
        most = self.micro or batch.size
        try:
            losses, total = self.portion(batch.rows(slice(most)), n)
            for start in range(most, batch.size, most):
                more, gradients = self.portion(batch.rows(slice(start, start + most)), n)
                losses = torch.cat((losses, more))
                torch._foreach_add_(total, gradients)
            return losses, total
        except (RuntimeError, MemoryError) as error:
            if not exhausted(error):
                raise
            if most == 1:
                raise MemoryError(f"one item of the batch does not fit: {error}") from error
        # outside the handler: what the failed attempt held is free by now
        self.micro = most // 2
        return self.part(batch, n)

    def portion(self, batch: Batch, n: int) -> tuple[Tensor, list[Tensor]]:
        """Returns the losses of what is differentiated at once, and its share of the gradient."""
        batch = batch.to(self.device)
        precision = self.autocast or torch.bfloat16
        # no cache of cast weights: it is one for all threads, and whoever is done first empties it
        with torch.autocast(
            self.device.type, precision, enabled=self.autocast is not None, cache_enabled=False
        ):
            losses = self.loss(self.model, batch)
        gradients = torch.autograd.grad(
            losses.sum() / n, self.parameters, allow_unused=True, materialize_grads=True
        )
        return losses.detach().to(torch.get_default_dtype()), list(gradients)


def prepare_thread(threads: int) -> None:
    """Gives this thread so many threads inside, and takes its denormal numbers as zero.

    The derivative of a SiLU far on its negative side is below 1e-38: gradients are full of such
    numbers, and a processor may take a hundred times as long for each of their products. Threads
    inside begin as this one is, and so does nobody else's.
    """
    torch.set_flush_denormal(True)
    torch.set_num_threads(threads)


def laid_out_as(p: Tensor, value: Tensor) -> Tensor:
    """Returns the tensor in the memory layout of a parameter of its shape.

    Fused optimisers walk parameter, gradient and moments as flat memory, without a look at their
    strides; a file holds the contiguous layout, a parameter may be channels-last.
    """
    if value.shape != p.shape or value.stride() == p.stride():
        return value
    return torch.empty_like(p, dtype=value.dtype).copy_(value)
