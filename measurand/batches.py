"""What a step of training, or a case that is held out, is made of: named fields of aligned items.

    {"x": images}                                     a prior of images
    {"x": clear, "radar": other}                      pairs of images of one place
    {"x": slices, "guide": neighbours}                slices of a volume and what lies beside them
    {"measurement": k_space, "maps": maps}            measurements, with or without their images

A measurement, a mask or an operator has one entry per item, or a single one for all of them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .measurement import Measurement, moved
from .operators import LinearOperator

__all__ = ["Batch"]


class Batch(Mapping[str, Any]):
    """Named fields with one entry per item, and values that all items share.

    Losses read both by name, `batch["x"]`; a batch that is cut into parts cuts every field at the
    same items, and no shared value.

    Args:
        fields: Tensors, measurements and operators by name, of one leading size, or of size 1:
            one entry for all items.
        shared: Numbers and whatever else belongs to the whole batch, by name.
    Raises:
        ValueError: Two fields have other sizes, there is none, or a name stands for two things.
        TypeError: A field is nothing that has items.
    """

    def __init__(self, fields: Mapping[str, Any], shared: Mapping[str, Any] | None = None) -> None:
        self.fields, self.shared = dict(fields), dict(shared or {})
        sizes = {name: _entries(name, value) for name, value in self.fields.items()}
        self.size = max(sizes.values(), default=0)
        if not self.size or not set(sizes.values()) <= {1, self.size}:
            raise ValueError(f"Batch: got fields of sizes {sizes}, wanted one size above 0, or 1")
        if twice := self.fields.keys() & self.shared.keys():
            raise ValueError(f"Batch: got {', '.join(sorted(twice))} as a field and as shared")

    def __getitem__(self, name: str) -> Any:
        return self.fields[name] if name in self.fields else self.shared[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.fields
        yield from self.shared

    def __len__(self) -> int:
        """The number of names; `size` is that of items."""
        return len(self.fields) + len(self.shared)

    def __repr__(self) -> str:
        return f"Batch({self.size} items of {', '.join(self.fields)}; shared: {self.shared})"

    def rows(self, part: slice) -> "Batch":
        """Return the batch of some items."""

        def cut(value: Any) -> Any:
            return value if self.size > 1 and _entries("", value) == 1 else value[part]

        return Batch({name: cut(value) for name, value in self.fields.items()}, self.shared)

    def to(self, device: torch.device | str) -> "Batch":
        """Return the batch with all of its fields on a device."""

        def there(value: Any) -> Any:
            if isinstance(value, LinearOperator):
                return moved(value, device)
            return value.to(device)

        return Batch({name: there(value) for name, value in self.fields.items()}, self.shared)

    def adding(
        self, fields: Mapping[str, Any], shared: Mapping[str, Any] | None = None
    ) -> "Batch":
        """Return the batch with further fields and shared values; those of a name are replaced."""
        return Batch({**self.fields, **fields}, {**self.shared, **(shared or {})})


def _entries(name: str, value: Any) -> int:
    """The leading size of a field."""
    if isinstance(value, LinearOperator):
        return value.batch
    if isinstance(value, Measurement) or (isinstance(value, Tensor) and value.ndim):
        return len(value)
    raise TypeError(
        f"Batch: got {type(value).__name__} as field {name!r}, wanted a tensor with an axis of "
        "items, a measurement or an operator; what all items share is given as shared"
    )
