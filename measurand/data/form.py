"""What a file holds, what its samples mean, and how a file like it is written.

    Stored     the samples of a file, N images of C channels, before they have a meaning
    Form       how the file stores them: all that `writing` needs for another one like it
    Picture    the images in [-1, 1], with the form

A file's samples u become an image by `x = 2 (u - low) / (high - low) - 1`. What `low` and `high`
are is stated by the user or the file, given by the domain of the prior (Hounsfield units), or
recognised and said (`ranges`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from .arrays import all_finite
from .ranges import Range, Unit, value_range
from .sources import UnreadableFile

__all__ = ["Form", "Picture", "Stored", "Template", "complete"]


class Template(Protocol):
    """What a file keeps beside its samples (geometry, calibration), and a file with the same."""

    def write(self, path: Path, values: np.ndarray, form: Form) -> None:
        """Writes images (N, H, W, C) in units of the file; the write is atomic.

        Args:
            path: Where to write.
            values: The images; H and W may differ from those of the file.
            form: The form that this is a part of.
        """
        ...


@dataclass(frozen=True)
class Form:
    """How a file stores its images: what `write_image` needs to write another one like it.

    Args:
        suffix: The format, as the lower-case ending of the name.
        dtype: Sample type, as numpy names it.
        axes: Order of the axes in an array file: HW, HWC, CHW or 1CHW for one image; NHW, NHWC or
            NCHW for several; "" keeps values and axes, as complex arrays do whatever it says.
        low: The sample that means -1.
        high: The sample that means 1.
        key: Name of the array inside an .npz, .mat or HDF5 file.
        alpha: Opacity, with shape (H, W) and the sample type of the file.
        multiplied: Whether the colours of the file are multiplied by the opacity.
        further: Channels at the end of a TIFF that are neither grey nor one of three colours.
        profile: ICC colour profile.
        unit: What the values of complex images are multiplied by when they are written.
        template: What else the file keeps; None where that is nothing.
    """

    suffix: str = ".png"
    dtype: str = "uint8"
    axes: str = "HWC"
    low: float = 0.0
    high: float = 255.0
    key: str | None = None
    alpha: np.ndarray | None = None
    multiplied: bool = False
    further: int = 0
    profile: bytes | None = None
    unit: float = 1.0
    template: Template | None = None


@dataclass(frozen=True)
class Picture:
    """The images of a file, and its form.

    Args:
        x: The images in [-1, 1], with shape (N, C, H, W); or complex values as they were stored.
        form: How the file stores them.
        notes: What was decided on the way, one sentence each.
    """

    x: Tensor
    form: Form
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stored:
    """What a file holds, before its samples are given a meaning.

    Args:
        name: The file, for messages.
        x: Its samples, with shape (N, C, H, W), NaN where the file calls a pixel missing.
        form: How the file stores them.
        notes: What was decided on the way, one sentence each.
        range: The samples that mean black and white, where the file says so.
        missing: Whether the file calls pixels missing.
        unit: What the samples are, where the format says so; see `ranges`.
    """

    name: str
    x: Tensor
    form: Form
    notes: tuple[str, ...] = ()
    range: Range | None = None
    missing: bool = False
    unit: Unit | None = None

    def image(self, stated: Range | None = None, window: Range | None = None) -> Picture:
        """Return the samples as images in [-1, 1]; complex ones as they are.

        Args:
            stated: The samples that mean black and white; see `read_image`.
            window: What they are in the domain of the prior, where that has a unit.
        Raises:
            UnreadableFile: Some are missing or not finite, or what they mean is not known.
        """
        if self.missing:
            complete(self.name, self.x.isnan().any(1).numpy())
        all_finite(self.name, self.x.numpy())
        if self.x.is_complex():
            return Picture(self.x, self.form, self.notes)
        low, high, note = value_range(
            self.name,
            self.x.numpy(),
            np.dtype(self.form.dtype),
            stated or self.range,
            window,
            self.unit,
        )
        try:
            x = torch.empty(self.x.shape, dtype=torch.float32)
            for image, samples in zip(x, self.x, strict=True):  # in double precision, each alone
                image.copy_(2.0 * (samples - low) / (high - low) - 1.0)
        except RuntimeError as error:  # what torch raises where memory is at its end
            raise UnreadableFile(f"{self.name}: too large for the memory") from error
        if not bool(x.isfinite().all()):
            raise UnreadableFile(
                f"{self.name}: samples up to {float(self.x.abs().max()):.4g} are beyond single "
                f"precision, with {low:g} as black and {high:g} as white (--value-range)"
            )
        form = replace(self.form, low=low, high=high)
        return Picture(x, form, self.notes + ((note,) if note else ()))


def complete(path: Path | str, missing: np.ndarray | None) -> None:
    """Checks that a picture file calls none of its pixels missing.

    Args:
        path: The file, for the message.
        missing: Which pixels are, as a boolean array; None where the file says nothing.
    Raises:
        UnreadableFile: Some are; the message says how many.
    """
    if missing is not None and missing.any():
        raise UnreadableFile(
            f"{path}: {int(missing.sum())} of {missing.size} pixels are missing (they equal the "
            "nodata value that the file states)"
        )
