"""The axes of an array file: which are items, channels, rows and columns, and the way back.

    (H, W)          one image                    (N, H, W)       grey images, N above 4
    (H, W, C)       one image, C at most 4       (N, H, W, C)    images, C at most 4
    (3, H, W)       one image                    (N, C, H, W)    the same, C at most 4
    (1, C, H, W)    one image

What two orders could be is said, or refused where neither is usual; so is (H, W, N), the order of
MATLAB's stacks and of spectra, which is known by a last axis below half of both others.
"""

from __future__ import annotations

import numpy as np

from .sources import UnreadableFile

__all__ = ["images_first", "laid_out"]

CHANNELS = 4  # more along the last axis of an array are columns


def images_first(name: str, samples: np.ndarray) -> tuple[np.ndarray, str, str]:
    """Return samples as (N, H, W, C), the order their axes had, and a sentence about a guess.

    Args:
        name: The file, for messages.
        samples: A real array.
    Raises:
        UnreadableFile: It is empty, or its axes could be anything.
    """
    shape = samples.shape
    if 0 in shape:
        raise UnreadableFile(f"{name}: got an empty array of shape {shape}")
    axes, note = _axes(shape)
    if axes:
        letters = "NCHW" if axes == "1CHW" else axes
        laid = samples.transpose([letters.index(a) for a in "NHWC" if a in letters])
        laid = laid if "N" in letters else laid[None]
        return laid if "C" in letters else laid[..., None], axes, note
    if len(shape) == 3 and shape[2] > CHANNELS and shape[0] > CHANNELS:
        raise UnreadableFile(
            f"{name}: got an array of shape {shape}, which looks like {shape[2]} images or bands "
            f"along the last axis, wanted (N, H, W): save np.moveaxis(a, -1, 0); if these are "
            f"{shape[0]} images of {shape[1]} x {shape[2]} pixels, save a[:, None]"
        )
    message = (
        f"{name}: got an array of shape {shape}, wanted (H, W), (H, W, C) or (N, H, W, C) with at "
        f"most {CHANNELS} channels, (3, H, W), (N, C, H, W), or (N, H, W) with N above {CHANNELS}"
    )
    if len(shape) == 3:
        message += (
            f"; if these are {shape[0]} grey images, save a[:, None]; if it is one image of "
            f"{shape[0]} channels, save a[None]"
        )
    raise UnreadableFile(message)


def _axes(shape: tuple[int, ...]) -> tuple[str, str]:
    if len(shape) == 2:
        return "HW", ""
    if len(shape) == 3 and shape[2] <= CHANNELS:
        note = f"shape {shape} taken as rows, columns, channels" if shape[0] <= CHANNELS else ""
        return "HWC", note
    if len(shape) == 3 and shape[0] in (1, 3):
        note = f"shape {shape} taken as one image of 3 channels, rows, columns"
        return "CHW", note if shape[0] == 3 else ""
    if len(shape) == 3 and shape[0] > CHANNELS and 2 * shape[2] > min(shape[:2]):
        return "NHW", f"shape {shape} taken as {shape[0]} grey images"
    if len(shape) == 4 and shape[0] == 1 and shape[1] <= CHANNELS:
        note = f"shape {shape} taken as one image of channels, rows, columns"
        return "1CHW", note if shape[3] <= CHANNELS else ""
    if len(shape) == 4 and shape[3] <= CHANNELS:
        return "NHWC", f"shape {shape} taken as {shape[0]} images of rows, columns, channels"
    if len(shape) == 4 and shape[1] <= CHANNELS:
        return "NCHW", f"shape {shape} taken as {shape[0]} images of channels, rows, columns"
    return "", ""


def laid_out(pixels: np.ndarray, axes: str) -> np.ndarray:
    """Return images (N, H, W, C) in the order that a file had; where that has no room, in NHWC.

    Args:
        pixels: The images.
        axes: What `images_first` returned; the number of images or channels may be another now.
    """
    n, channels = len(pixels), pixels.shape[3]
    letters = "NCHW" if axes == "1CHW" else axes
    if axes == "CHW" and channels not in (1, 3):  # which only (1, C, H, W) says
        letters = "NCHW"
    if channels > 1 and "C" not in letters:
        letters += "C"
    if n > 1 and "N" not in letters:
        letters = "N" + letters
    laid = pixels if "N" in letters else pixels[0]
    laid = laid if "C" in letters else laid[..., 0]
    have = [a for a in "NHWC" if a in letters]
    return np.ascontiguousarray(laid.transpose([have.index(a) for a in letters]))
