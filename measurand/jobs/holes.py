"""Data that were not measured, or not equally well, whatever the operator: a mask behind it."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..data.form import Stored
from ..operators import Identity, LinearOperator, Mask
from .arguments import read_tensor
from .mistakes import check_selection
from .reading import Reading

__all__ = ["behind", "without_holes"]


def without_holes(
    stored: Stored, operator: LinearOperator, how: Reading
) -> tuple[Stored, LinearOperator, list[str]]:
    """Return data that are zero where nothing was measured, and the operator that says where.

    NaN is not measured, nor what `how.seen` and `how.saturated` name.

    Args:
        stored: The data.
        operator: The operator for data without holes.
        how: What the user says of the file.
    Raises:
        ValueError: Nothing is left of an image.
    """
    real = torch.view_as_real(stored.x).sum(-1) if stored.x.is_complex() else stored.x
    good, notes = ~real.isnan(), []
    if not bool(good.all()):
        notes.append(
            f"{int((~good).sum())} of {good.numel()} values are NaN or nodata: not measured"
        )
    if how.seen is not None:
        mask = read_tensor(how.seen, "mask", tuple(operator.out_shape)) != 0
        try:
            mask = mask.expand(good.shape)
        except RuntimeError as error:
            raise ValueError(
                f"--seen {how.seen}: got a mask of shape {tuple(mask.shape)}, wanted that of the "
                f"data, {tuple(good.shape[-2:])}"
            ) from error
        check_selection(stored.name, stored.x, mask)
        good &= mask
        notes.append(f"--seen: {int((~mask).sum())} values not measured")
    if how.saturated is not None:
        if stored.x.is_complex():
            raise ValueError("--saturated: complex data have no largest value")
        kind = np.dtype(stored.form.dtype)  # 1.4 is more than what single precision has for it
        full = real >= (float(kind.type(how.saturated)) if kind.kind == "f" else how.saturated)
        notes.append(
            f"--saturated: {int((full & good).sum())} values at {how.saturated:g} or above"
        )
        good &= ~full
    if not notes:
        return stored, operator, notes
    good &= operator.observed(torch.ones_like(stored.x)) != 0
    if not bool(good.flatten(1).any(1).all()):
        raise ValueError(f"{stored.name}: every value of an image is NaN, missing or saturated")
    x = torch.where(good, stored.x, torch.zeros_like(stored.x))
    return replace(stored, x=x, missing=False), behind(good.float(), operator), notes


def behind(weights: Tensor, operator: LinearOperator) -> LinearOperator:
    """Return an operator whose data are weighed; a diagonal one where it was.

    Args:
        weights: One for each datum of each item.
        operator: The operator.
    """
    if isinstance(operator, Identity):
        return Mask(operator.out_shape, weights, operator.out_dtype)
    if isinstance(operator, Mask):
        return Mask(operator.out_shape, weights * operator.mask, operator.out_dtype)
    return Mask(operator.out_shape, weights, operator.out_dtype) @ operator
