"""Coil maps from files, as the programs that estimate them write them.

    order     (coils, H, W), (B, coils, H, W), or coils last, (H, W, coils), as BART has them; axes
              of length one count for nothing
    NaN       no coil sees anything there: zero
    real      of one coil, or of both signs: maps without a phase; magnitudes have lost it, and are
              refused

Anything else is refused.
"""

from __future__ import annotations

import numpy as np

__all__ = ["coil_maps"]


def coil_maps(
    told: str, values: np.ndarray, size: tuple[int, ...]
) -> tuple[np.ndarray, list[str]]:
    """Return complex maps (coils, H, W) or (B, coils, H, W), and what was decided about them.

    Args:
        told: What they are, for messages.
        values: The values of a file.
        size: Rows H and columns W of the image.
    Raises:
        ValueError: They are no maps of such an image; the message says what to do.
    """
    shape, notes = values.shape, list[str]()
    wide = (1,) * (3 - values.ndim) + shape
    leading = tuple(n for n in wide[:-2] if n > 1) or (1,)
    trailing = tuple(n for n in wide[2:] if n > 1) or (1,)
    if wide[-2:] == size and len(leading) <= 2:
        maps = values.reshape(*leading, *size)
    elif wide[:2] == size and len(trailing) <= 2:
        maps = np.moveaxis(values.reshape(*size, *trailing), (0, 1), (-2, -1))
        maps = maps.swapaxes(0, 1) if maps.ndim == 4 else maps
        notes.append(f"shape {shape} taken as rows, columns, coils")
    else:
        advice = ""
        if wide[-2:] == size[::-1] != size:
            advice = "; rows and columns seem to be exchanged: save np.swapaxes(maps, -1, -2)"
        elif shape[-1] == 2 and not np.iscomplexobj(values):
            advice = (
                "; where an axis holds real and imaginary parts, save maps[..., 0] + 1j * "
                "maps[..., 1]"
            )
        elif shape[-1] <= 2:
            advice = "; of several sets of maps save the first, maps[..., 0]"
        raise ValueError(
            f"{told} has shape {shape}, wanted (coils, {size[0]}, {size[1]}), the rows and "
            f"columns of the image{advice}"
        )
    empty = np.isnan(maps).any(-3, keepdims=True)
    if empty.any():
        notes.append(f"NaN at {int(empty.sum())} pixels, where no coil sees anything")
        maps = np.where(empty, 0, maps)
    if not np.isfinite(maps).all():
        raise ValueError(f"{told} has values that are infinite")
    if not np.iscomplexobj(maps):
        if maps.shape[-3] > 1 and maps.min() >= 0:
            raise ValueError(
                f"{told} has real values of one sign, wanted complex maps: magnitudes have lost "
                "the phases of the coils (maps that have none are saved by maps.astype(complex))"
            )
        notes.append("real: maps without a phase")
    roots = np.sqrt((np.abs(maps.astype(np.complex128)) ** 2).sum(-3))
    middle = float(np.median(roots[roots > 0])) if (roots > 0).any() else 1.0
    if not 0.5 < middle < 2:
        notes.append(
            f"the root of the sum of their squares is {middle:.3g}, not 1: the image is in units "
            "of the data divided by that"
        )
    return maps.astype(np.complex64), notes
