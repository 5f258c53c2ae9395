r"""Pictures for the eye: `show` some images, `compare` them with a truth, `save_image` one.

Images that are shown side by side have one window (what is black and what is white), their errors
and standard deviations one colour scale, which starts at zero; both are written beside them.
Complex images are shown by magnitude, volumes by their middle slice. An image is drawn pixel by
pixel: small ones enlarged by a whole factor without smoothing, very large ones by the mean over
blocks of pixels. Needs matplotlib (extra `plot`), but for `save_image`.

PSNR, where there is a truth x: `20 log10(w / rms(x_hat - x))`, with w the width of the window; of
complex images `w = max |x|`, and errors are those of the magnitudes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .files import write_atomic

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

__all__ = ["Figure", "compare", "save_image", "show"]

_INK, _SOFT = "#1b1f24", "#68717d"
_LEAST, _MOST = 220, 1600  # pixels that a panel is wide
_GAP, _HEAD, _MARGIN, _BAR = 10, 26, 16, 64
_LETTER = 7  # pixels of a letter of a title, on average

Window = tuple[float, float]


@dataclass(frozen=True, repr=False)
class Figure:
    """A picture that has been drawn; a notebook shows it, `save` writes it.

    Args:
        png: The bytes of a PNG file.
    """

    png: bytes

    def _repr_png_(self) -> bytes:
        return self.png

    def save(self, path: str | Path) -> Path:
        """Write the PNG; return its path."""
        write_atomic(path, self.png)
        return Path(path)

    def __repr__(self) -> str:
        return f"Figure({len(self.png)} bytes of PNG; .save(path) writes it)"


def show(
    *images: ArrayLike | Tensor, titles: Sequence[str] = (), window: Window | None = None
) -> Figure:
    """Return a figure of images side by side, in one window.

    Args:
        images: Tensors with shape (B, C, H, W), (C, H, W) or (H, W), of which every item is shown;
            or numpy arrays with shape (H, W), (H, W, 3), or shaped like the tensors.
        titles: A title for each picture.
        window: Values shown black and white. Where absent: 0 and 255 of bytes; -1 and 1 of images
            that lie in [-1, 1]; else the least and the largest value.
    Raises:
        ValueError: There is nothing to show, or a shape is not that of an image.
    """
    shown = [item for image in images for item in as_images(image)]
    if not shown:
        raise ValueError("show: got no image")
    if titles and len(titles) != len(shown):
        raise ValueError(f"show: got {len(titles)} titles for {len(shown)} images")
    window = _window(shown, window)
    panels = [_scaled(x, window) for x in shown]
    return _drawn([panels], list(titles) or [""] * len(panels), _said(window), [None])


def compare(
    images: Mapping[str, ArrayLike | Tensor],
    *,
    truth: ArrayLike | Tensor | None = None,
    deviation: ArrayLike | Tensor | None = None,
    window: Window | None = None,
    zoom: tuple[int, int, int] | None = None,
    title: str = "",
) -> Figure:
    """Return a figure of estimates of one image: themselves, details, errors and deviation.

    Args:
        images: The images by name, each one image; see `show`. One of another size (a measurement
            of fewer pixels) has neither PSNR nor an error map.
        truth: The true image; adds PSNR to the titles and a row of absolute errors.
        deviation: A standard deviation, shown on the scale of the errors.
        window: Values shown black and white; see `show`.
        zoom: Top, left and side of a square, in pixels, which is enlarged in a row of its own.
        title: A line above.
    Raises:
        ValueError: There is nothing to compare, or several images under one name.
    """
    named = {name: _one(image, name) for name, image in images.items()}
    if not named:
        raise ValueError("compare: got no image")
    true = None if truth is None else _one(truth, "truth")
    if true is not None:
        named["truth"] = true
    spread = None if deviation is None else _one(deviation, "deviation").abs()
    window = _window(list(named.values()) if true is None else [true], window)
    first = [_scaled(x, window) for x in named.values()]
    titles = list(named)
    errors: list[Tensor | None] = [None] * len(first)
    if true is not None:
        width = float(true.abs().max()) if true.is_complex() else window[1] - window[0]
        for i, (name, x) in enumerate(named.items()):
            if name == "truth" or x.shape != true.shape:
                continue
            error = (_magnitude(x) - _magnitude(true)).abs()
            errors[i], titles[i] = error, f"{name}   {_decibels(error, width)}"
    maps = [m for m in [*errors, spread] if m is not None]
    top = max(max((quantile(m, 0.995) for m in maps), default=0.0), 1e-12)
    rows: list[list[np.ndarray | None]] = [list(first)]
    bars: list[float | None] = [None]
    if spread is not None:
        titles.append("standard deviation")
        rows[0].append(heat(spread[None], top))
        errors.append(None)
        bars[0] = top
    if zoom is not None:
        rows.append([None if p is None else _detail(p, zoom, first[-1]) for p in rows[0]])
        bars.append(None)
    if any(e is not None for e in errors):
        rows.append([None if e is None else heat(e[None], top) for e in errors])
        bars.append(top)
    words = _said(window) + ("; absolute errors below" if true is not None else "")
    return _drawn(rows, titles, words, bars, title)


def save_image(
    x: ArrayLike | Tensor, path: str | Path, *, window: Window = (-1.0, 1.0), bits: int = 8
) -> Path:
    """Write one image as a picture that any program opens; the write is atomic.

    Args:
        x: The image, see `show`; complex ones by magnitude.
        path: The file: .png, .jpg (8 bits) or .tif.
        window: Values written as black and white; what is beyond them is clipped.
        bits: 8 or 16 for each sample.
    Returns:
        The path.
    Raises:
        ValueError: Several images, values that are not finite, or a format that has no such bits.
    """
    from .data.form import Form
    from .data.writing import write_image

    if bits not in (8, 16):
        raise ValueError(f"save_image: got {bits} bits, wanted 8 or 16")
    path, image = Path(path), _magnitude(_one(x, "the image")).double()
    suffix = path.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg", ".tif", ".tiff"):
        raise ValueError(f"save_image: {path} is no .png, .jpg or .tif")
    if bits == 16 and suffix in (".jpg", ".jpeg"):
        raise ValueError(f"save_image: {path}: a JPEG has 8 bits; write a .png or .tif")
    low, high = window
    if not low < high:
        raise ValueError(f"save_image: got the window {window}, wanted (black, white)")
    form = Form(suffix=suffix, dtype=f"uint{bits}", low=0.0, high=2.0**bits - 1)
    return write_image(path, ((image - low) * (2 / (high - low)) - 1)[None], form)


def as_images(x: ArrayLike | Tensor) -> list[Tensor]:
    """Return images (C, H, W), C = 1 or 3, from whatever holds some; see `show`.

    Raises:
        ValueError: The shape is not that of an image.
    """
    array = not isinstance(x, Tensor)
    t = torch.as_tensor(np.asarray(x)) if array else x.detach().cpu()  # type: ignore[union-attr]
    if t.numel() == 0 or t.ndim < 2 or t.ndim > 5:
        raise ValueError(f"got an image of shape {tuple(t.shape)}, wanted (B, C, H, W) or (H, W)")
    if array and t.ndim == 3 and t.shape[2] in (3, 4) and t.shape[0] not in (1, 3):
        t = t[..., :3].permute(2, 0, 1)
    t = t[None] if t.ndim == 2 else t
    t = t[None] if t.ndim == 3 else t
    items = []
    for item in t:
        while item.ndim > 3:
            item = item[:, item.shape[1] // 2]  # of a volume the middle slice
        if item.is_complex() and len(item) > 1:
            item = item.abs().square().sum(0, keepdim=True).sqrt()
        if len(item) not in (1, 3):
            item = item.to(torch.float64).mean(0, keepdim=True)
        items.append(item)
    return items


def pixels(x: Tensor) -> np.ndarray:
    """Return an image in [-1, 1] as something to look at, with shape (H, W, 3) and dtype uint8.

    Complex images are shown by magnitude, scaled to their maximum; more than three channels by
    their mean; volumes by their middle slice.
    """
    (image, *_) = as_images(x)
    return _scaled(image, (0.0, float(image.abs().max())) if image.is_complex() else (-1.0, 1.0))


def heat(x: Tensor, top: float) -> np.ndarray:
    """Return a map >= 0 through a colour scale from 0 (black) to `top`, (H, W, 3) uint8."""
    u = (x.detach().cpu().abs().float().mean((0, 1)) / top).clamp(0.0, 1.0).numpy()
    colors = with_matplotlib().colormaps["inferno"](u)[..., :3]
    return np.asarray((255.0 * colors).round(), dtype=np.uint8)


def enlarged(image: np.ndarray, zoom: tuple[int, int, int], side: int) -> np.ndarray:
    """Return a square of an image, enlarged to `side` pixels without smoothing."""
    top, left, size = zoom
    at = np.arange(side) * size // side
    return image[top : top + size, left : left + size][at][:, at]


def png(image: np.ndarray) -> bytes:
    """Return the bytes of a PNG file."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", optimize=True)
    return out.getvalue()


def quantile(x: Tensor, level: float) -> float:
    """Return a quantile of a tensor of any size."""
    return float(x.flatten().kthvalue(max(1, int(level * x.numel()))).values)


def legible(text: str) -> str:
    """Return a text, such as a file's name, as one line of letters that a font can have.

    Bytes that are no text and control characters stand as escapes, like `\\xff` and `\\n`.
    """
    whole = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in whole)


def with_matplotlib() -> Any:
    """Return matplotlib.

    Raises:
        ImportError: It is not installed; the message names the extra.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise ImportError(
            "figures need matplotlib: install the extra, pip install 'measurand[plot]'"
        ) from error
    return matplotlib


def _one(image: ArrayLike | Tensor, name: str) -> Tensor:
    items = as_images(image)
    if len(items) != 1:
        raise ValueError(f"{name}: got {len(items)} images, wanted one")
    return items[0]


def _magnitude(x: Tensor) -> Tensor:
    return x.abs() if x.is_complex() else x.to(torch.float64)


def _window(images: Sequence[Tensor], window: Window | None) -> Window:
    """What is black and what is white, where nobody says it."""
    if window is not None:
        if not (math.isfinite(window[0]) and window[0] < window[1] < math.inf):
            raise ValueError(f"got the window {window}, wanted (black, white)")
        return window
    if all(x.dtype == torch.uint8 for x in images):
        return 0.0, 255.0
    values = torch.cat([_magnitude(x).double().flatten() for x in images])
    values = values[torch.isfinite(values)]
    if not len(values):
        raise ValueError("got images without a finite value")
    low, high = float(values.min()), float(values.max())
    if any(x.is_complex() for x in images):
        low = 0.0
    elif -1.05 <= low < 0 and high <= 1.05:
        return -1.0, 1.0
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _said(window: Window) -> str:
    return f"black {window[0]:.4g}, white {window[1]:.4g}"


def _scaled(x: Tensor, window: Window) -> np.ndarray:
    """An image in a window, (H, W, 3) uint8; what is not a number is magenta."""
    low, high = window
    u = (_magnitude(x).double() - low) / (high - low)
    out = (255 * u.nan_to_num(0.0).clamp(0, 1)).round().byte().expand(3, *x.shape[1:]).clone()
    bad = ~torch.isfinite(u).all(0)
    if bool(bad.any()):
        out[:, bad] = torch.tensor([255, 0, 255], dtype=torch.uint8)[:, None]
    return np.ascontiguousarray(out.permute(1, 2, 0).numpy())


def _decibels(error: Tensor, width: float) -> str:
    rms = float(error.double().square().mean().sqrt())
    return "exact" if rms == 0 else f"{20 * math.log10(width / rms):.2f} dB"


def _detail(panel: np.ndarray, zoom: tuple[int, int, int], like: np.ndarray) -> np.ndarray:
    """The square of a panel, as large as it is in the picture `like`."""
    h, w = like.shape[:2]
    top, left, side = zoom
    if not (0 <= top and 0 <= left and 0 < side and top + side <= h and left + side <= w):
        raise ValueError(f"got zoom {zoom} in an image of {h} x {w}, wanted (top, left, side)")
    scale = panel.shape[0] / h
    square = max(1, round(scale * side))
    return enlarged(panel, (round(top * scale), round(left * scale), square), min(h, w))


def _fitted(image: np.ndarray, width: int) -> np.ndarray:
    """An image about as wide as a panel: whole pixels repeated, or blocks of them averaged."""
    w = image.shape[1]
    if w < width:
        k = max(1, round(width / w))
        return image.repeat(k, 0).repeat(k, 1)
    k = round(w / width)
    if k < 2:
        return image
    h, w = (n // k * k for n in image.shape[:2])
    blocks = image[:h, :w].reshape(h // k, k, w // k, k, 3).astype(np.float32)
    return blocks.mean((1, 3)).round().astype(np.uint8)


def _drawn(
    rows: Sequence[Sequence[np.ndarray | None]],
    titles: Sequence[str],
    words: str,
    bars: Sequence[float | None],
    title: str = "",
) -> Figure:
    """Rows of pictures in columns of one width, titles above, a scale at the end of a row."""
    with_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    widest = max(image.shape[1] for row in rows for image in row if image is not None)
    width = min(max(widest, _LEAST), _MOST)
    fitted = [[None if im is None else _fitted(im, width) for im in row] for row in rows]
    column = max(im.shape[1] for row in fitted for im in row if im is not None)
    column = max(column, *(_LETTER * len(name) for name in titles))
    heights = [max(im.shape[0] for im in row if im is not None) for row in fitted]
    above = _HEAD * (2 if title else 1) + 8
    bar = _BAR if any(b is not None for b in bars) else 0
    total_w = 2 * _MARGIN + len(titles) * (column + _GAP) - _GAP + bar
    total_h = above + sum(heights) + _GAP * (len(heights) - 1) + _HEAD + 6
    figure = Canvas(figsize=(total_w / 100, total_h / 100), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)

    def text(x: float, y: float, said: str, size: float, color: str = _INK) -> None:
        where = x / total_w, 1 - y / total_h
        figure.text(
            *where, legible(said), fontsize=size, va="baseline", color=color, parse_math=False
        )

    def image(x: int, y: int, array: np.ndarray) -> None:
        h, w = array.shape[:2]
        axes = figure.add_axes((x / total_w, 1 - (y + h) / total_h, w / total_w, h / total_h))
        axes.imshow(array, interpolation="nearest", aspect="auto")
        axes.set_axis_off()

    if title:
        text(_MARGIN, _HEAD - 6, title, 10.5, _SOFT)
    for i, name in enumerate(titles):
        text(_MARGIN + i * (column + _GAP), above - 7, name, 10)
    y = above
    for row, height, top in zip(fitted, heights, bars, strict=True):
        for i, picture in enumerate(row):
            if picture is not None:
                image(_MARGIN + i * (column + _GAP), y, picture)
        if top is not None:
            x = _MARGIN + len(titles) * (column + _GAP)
            ramp = torch.linspace(1.0, 0.0, height)[None, None, :, None].repeat(1, 1, 1, 12)
            image(x, y, heat(ramp, 1.0))
            text(x + 16, y + 10, f"{top:.3g}", 8, _SOFT)
            text(x + 16, y + height, "0", 8, _SOFT)
        y += height + _GAP
    text(_MARGIN, total_h - 8, words, 8.5, _SOFT)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return Figure(out.getvalue())
