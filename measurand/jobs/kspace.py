"""What k-space tells of its own operator: its mask, its coil maps, its noise.

    mask     sampled is what is not zero in some coil
    maps     of the innermost samples, see `fastmri.low_resolution_maps`; of them at least 8 lines
             and columns have to be sampled without a gap
    reading  of maps from a file: conjugated, transposed or mirrored ones that explain the data far
             better are named (`checks.questions.kspace.coils`)
    noise    median of the magnitudes of real and imaginary parts beyond 0.9 of the highest
             frequencies, over 0.6745: there is little else

An option of an operator that the data can tell (`LinearOperator.estimated`) is "auto" on the
command line unless it is said.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .. import operators
from ..checks.questions.kspace import coils
from ..checks.questions.verdict import NOT
from ..data.fastmri import CENTRE, low_resolution_maps
from ..data.sampling import misplaced, unordered, untransformed
from ..measurement import Measurement
from ..operators import SENSE, LinearOperator

__all__ = ["AUTO", "check_kspace", "estimated", "known", "kspace_noise", "other_coils"]

AUTO = "auto"
_LEAST = 8  # lines from which maps can be seen at all


def estimated(twin: Any, y: Tensor, file: str) -> tuple[Mapping[str, Tensor], list[str]]:
    """Return the options of an operator that are left to the data, and how they were found.

    Args:
        twin: The operator as the command line knows it.
        y: k-space, with shape (N, coils, H, W).
        file: Its name, for messages.
    Raises:
        ValueError: The data cannot tell.
    """
    found: dict[str, Tensor] = {}
    notes: list[str] = []
    if not known(twin):
        return found, notes
    check_kspace(y, file)
    asked = [name for name in known(twin) if getattr(twin, name) == AUTO]
    if not asked:
        return found, notes
    y = _finite(y)
    sampled = (y != 0).any(1, keepdim=True)
    if bool((sampled == sampled.any(2, keepdim=True)).all()):
        sampled = sampled.any(2, keepdim=True)  # whole columns
    if "mask" in asked:
        share = float(sampled.float().mean())
        found["mask"] = sampled.float()
        notes.append(f"mask: what is not zero is sampled, {100 * share:.3g} % of k-space")
    if "maps" in asked:
        width = min(_innermost(sampled, axis) for axis in (2, 3))
        if width < _LEAST:
            raise ValueError(
                f"{file}: the innermost {width} lines of k-space have no gap, wanted "
                f"{_LEAST} to see the coil maps in (is the zero frequency in the middle?); say "
                "--operator.maps FILE"
            )
        size = min(width, CENTRE)
        maps = [torch.from_numpy(low_resolution_maps(one.numpy(), size)) for one in y]
        found["maps"] = torch.stack(maps)
        notes.append(f"maps: of the innermost {size} x {size} samples of k-space")
    return found, notes


def check_kspace(y: Tensor, file: str) -> None:
    """Raise a `ValueError` unless data are k-space with the zero frequency in the middle.

    Args:
        y: Data, with shape (N, coils, H, W).
        file: Their name, for messages.
    """
    if not y.is_complex():
        raise ValueError(
            f"{file}: got real data, wanted complex k-space; where an axis holds real and "
            "imaginary parts, save a[..., 0] + 1j * a[..., 1]"
        )
    if not bool((y != 0).any()):
        raise ValueError(f"{file}: every sample of k-space is zero")
    real = torch.view_as_real(y)
    if y.ndim != 4 or bool(real.isinf().any()):
        raise ValueError(f"{file}: wanted k-space (slices, coils, H, W) without infinite values")
    y = _finite(y)
    middle = y[len(y) // 2].numpy()
    if wrong := unordered(middle) or misplaced(y.numpy()) or untransformed(middle):
        raise ValueError(f"{file}: {wrong}")


def _finite(y: Tensor) -> Tensor:
    """k-space in which what is NaN, which was not measured, is zero."""
    return torch.where(torch.view_as_real(y).isnan().any(-1), torch.zeros_like(y), y)


def known(twin: Any) -> tuple[str, ...]:
    """The options of an operator that data can tell."""
    cls: type[LinearOperator] = getattr(operators, type(twin).__name__)
    return cls.estimated


def other_coils(measurement: Measurement, twin: Any) -> list[str]:
    """Return a note where k-space or coil maps read in another way explain the data far better.

    Args:
        measurement: The data of N items, the middle one of which is asked.
        twin: The operator as the command line knows it; maps of the data themselves fit them.
    """
    if not isinstance(measurement.operator, SENSE) or getattr(twin, "maps", AUTO) == AUTO:
        return []
    middle = len(measurement) // 2
    verdict = coils(measurement[middle : middle + 1])
    return [f"coils: {verdict.found}; {verdict.advice}"] if verdict.verdict == NOT else []


def kspace_noise(y: Tensor) -> float | None:
    """Return the standard deviation of the noise of k-space, per real component.

    Args:
        y: k-space with the zero frequency in the middle, with shape (N, coils, H, W), zero where
            it is not sampled.
    Returns:
        The deviation; None where fewer than 100 samples lie beyond 0.9 of the frequencies.
    """
    rows, columns = (torch.linspace(-1, 1, n).abs() for n in y.shape[-2:])
    outer = torch.maximum(rows[:, None], columns) > 0.9
    samples = torch.view_as_real(y[..., outer]).flatten()
    samples = samples[samples != 0]
    return float(samples.abs().median()) / 0.6744897501960817 if len(samples) >= 100 else None


def _innermost(sampled: Tensor, axis: int) -> int:
    """How many lines around the zero frequency are sampled, without a gap, in every item."""
    others = tuple(k for k in range(sampled.ndim) if k != axis)
    n = sampled.shape[axis]
    if n == 1:  # of a mask of whole columns
        return CENTRE
    # of the other axis its middle counts: lines end where a square of samples does
    line = sampled.movedim(axis, -1)
    line = line[..., line.shape[-2] // 2, :].flatten(0, -2).all(0) if others else line
    width = 0
    while width < n // 2 and bool(line[n // 2 - width]) and bool(line[min(n // 2 + width, n - 1)]):
        width += 1
    return max(2 * width - 1, 0)
