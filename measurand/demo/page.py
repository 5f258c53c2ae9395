"""What the demo shows: an overview of several problems as a picture, and a page.

Everything shown side by side has one scale. The overview is drawn at one pixel per pixel: nothing
is resampled but the enlarged details. Needs matplotlib (extra `plot`).
"""

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..figures import enlarged, heat, pixels, png, quantile, with_matplotlib
from ..files import atomic, write_atomic

__all__ = ["Panel", "Row", "overview", "page"]

_INK, _SOFT, _GOOD = "#1b1f24", "#68717d", "#0b7a53"


@dataclass(frozen=True)
class Panel:
    """One image of a row.

    Args:
        title: What it is.
        x: The image in [-1, 1], with shape (1, C, H, W).
        caption: What was measured on it; empty for none.
        error: Absolute error, with shape (1, 1, H, W); None where there is no truth to compare.
        map: Whether `x` is a standard deviation, not an image.
        best: Whether it is the best of its row.
    """

    title: str
    x: Tensor
    caption: str = ""
    error: Tensor | None = None
    map: bool = False
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One problem: its images side by side.

    Args:
        title: Name of the problem.
        text: What was done to the photograph.
        panels: The images, all of one size.
        zoom: Top, left and side of the square that is enlarged, in pixels.
    """

    title: str
    text: str
    panels: Sequence[Panel]
    zoom: tuple[int, int, int]

    @property
    def scale(self) -> float:
        """Upper end of the colour scale of the row's errors and deviations, in image units."""
        maps = [p.error for p in self.panels if p.error is not None]
        maps += [p.x.mean(1, keepdim=True) for p in self.panels if p.map]
        if not maps:
            return 1.0
        tops = [quantile(m, 0.995) for m in maps]
        return max(float(np.median(tops)), 1e-3)


def overview(path: str | Path, rows: Sequence[Row], *, title: str, footer: str = "") -> None:
    """One picture of all problems: images, enlarged details, error and deviation maps.

    Args:
        path: The PNG to write.
        rows: The problems, with equally many panels of one size.
        title: The line at the top.
        footer: A line at the bottom.
    """
    with_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    side = rows[0].panels[0].x.shape[-1]
    half, gap, margin, head = (side - 4) // 2, 10, 28, 62
    columns = len(rows[0].panels)
    band = side + half + 4
    width = 2 * margin + columns * side + (columns - 1) * gap
    height = 76 + len(rows) * (head + band + 14) + 34
    figure = Figure(figsize=(width / 100, height / 100), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)

    def text(x: float, y: float, words: str, size: float, **style: Any) -> None:
        figure.text(x / width, 1 - y / height, words, fontsize=size * 0.72, va="baseline", **style)

    def image(x: int, y: int, array: np.ndarray) -> Any:
        h, w = array.shape[:2]
        axes = figure.add_axes((x / width, 1 - (y + h) / height, w / width, h / height))
        axes.imshow(array, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        return axes

    text(margin, 44, title, 26, color=_INK, weight="bold")
    y = 76
    for row in rows:
        text(margin, y + 18, row.title, 18, color=_INK, weight="bold")
        text(margin + 2 * (side + gap), y + 18, row.text, 14, color=_SOFT)
        top = y + head
        for i, panel in enumerate(row.panels):
            x = margin + i * (side + gap)
            style = {"weight": "bold", "color": _GOOD} if panel.best else {"color": _INK}
            text(x, top - 10, panel.title, 14, **style)
            if panel.caption:
                text(x + side, top - 10, panel.caption, 13, ha="right", **style)
            shown = heat(panel.x, row.scale) if panel.map else pixels(panel.x)
            axes = image(x, top, shown)
            z0, z1, size = row.zoom
            axes.add_patch(Rectangle((z1, z0), size, size, fill=False, ec="white", lw=0.9))
            image(x, top + side + 4, enlarged(shown, row.zoom, half))
            if panel.error is not None:
                error = heat(panel.error, row.scale)
                image(x + half + 4, top + side + 4, error[::2, ::2][:half, :half])
            elif panel.map:
                ramp = torch.linspace(1.0, 0.0, half)[None, None, :, None].repeat(1, 1, 1, 14)
                at = x + half + 32
                image(x + half + 12, top + side + 4, heat(ramp, 1.0))
                limit = f"{127.5 * row.scale:.0f} / 255"
                text(at, top + side + 16, limit, 12, color=_SOFT)
                text(at, top + side + half // 2 + 2, "error, sd", 12, color=_SOFT)
                text(at, top + band, "0", 12, color=_SOFT)
        y = top + band + 14
    text(margin, height - 20, footer, 13, color=_SOFT)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png")


_STYLE = """
:root{--ink:#1b1f24;--soft:#68717d;--line:#e3e6ea;--back:#fff;--card:#f7f8fa;--good:#0b7a53}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#9aa3ad;--line:#30363d;--back:#111418;
--card:#191d22;--good:#4fd1a5}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1480px;padding:40px 32px 64px;background:var(--back);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}
h1{font-size:34px;line-height:1.2;margin:0 0 8px;letter-spacing:-.02em}
h2{font-size:22px;margin:56px 0 2px;letter-spacing:-.01em}
p{margin:0 0 16px;max-width:76ch;color:var(--soft)} p b{color:var(--ink);font-weight:600}
table{border-collapse:collapse;margin:24px 0;font-variant-numeric:tabular-nums}
th,td{padding:7px 18px 7px 0;text-align:right;border-bottom:1px solid var(--line);
white-space:nowrap}
th:first-child,td:first-child{text-align:left} th{font-weight:600;color:var(--soft);font-size:14px}
td.best{color:var(--good);font-weight:700}
.row{display:grid;grid-template-columns:repeat(var(--n),minmax(0,1fr));gap:10px}
figure{margin:0} figcaption{display:flex;justify-content:space-between;gap:8px;font-size:13.5px;
padding:5px 1px 3px;white-space:nowrap} figcaption span{color:var(--soft)}
.best figcaption,.best figcaption span{color:var(--good);font-weight:700}
.view,.zoom{background-image:var(--i)}
.view{position:relative;width:100%;aspect-ratio:1;background-size:100% 100%;cursor:crosshair;
border-radius:3px;overflow:hidden}
.view i{position:absolute;border:1.5px solid #fff;box-shadow:0 0 0 1px #0007;pointer-events:none}
.zoom{width:100%;aspect-ratio:1;margin-top:6px;border-radius:3px;image-rendering:pixelated}
.error{width:100%;display:block;margin-top:6px;border-radius:3px;image-rendering:pixelated}
.key{margin-top:6px;font-size:12.5px;color:var(--soft)}
.scale{height:10px;border-radius:3px;margin-bottom:3px}
footer{margin-top:56px;border-top:1px solid var(--line);padding-top:14px;font-size:14px;
color:var(--soft)}
@media(max-width:900px){.row{grid-template-columns:repeat(3,minmax(0,1fr))}body{padding:20px 14px}}
"""

_SCRIPT = """
document.querySelectorAll('section').forEach(s=>{
 const f=+s.dataset.size, views=s.querySelectorAll('.view');
 const show=(u,v)=>views.forEach(w=>{
  u=Math.min(Math.max(u,f/2),1-f/2); v=Math.min(Math.max(v,f/2),1-f/2);
  const box=w.querySelector('i').style, z=w.nextElementSibling.style;
  box.left=100*(u-f/2)+'%'; box.top=100*(v-f/2)+'%'; box.width=box.height=100*f+'%';
  z.backgroundSize=100/f+'% '+100/f+'%';
  z.backgroundPosition=100*(u-f/2)/(1-f)+'% '+100*(v-f/2)/(1-f)+'%';});
 const home=()=>show(+s.dataset.u,+s.dataset.v);
 views.forEach(w=>{
  w.addEventListener('pointermove',e=>{const r=w.getBoundingClientRect();
   show((e.clientX-r.left)/r.width,(e.clientY-r.top)/r.height);});
  w.addEventListener('pointerleave',home);});
 home();});
"""


def page(
    path: str | Path,
    rows: Sequence[Row],
    *,
    title: str,
    intro: str,
    table: Sequence[Sequence[str]],
    best: Sequence[Sequence[bool]],
    footer: str,
) -> None:
    """One HTML file with everything in it: table, images, details that follow the pointer.

    Args:
        path: The file to write.
        rows: The problems.
        title: Headline.
        intro: A paragraph below it.
        table: Header and lines of the table of results.
        best: Which cells of the lines are the best of their line.
        footer: A line at the end.
    """
    e = html.escape
    head = "".join(f"<th>{e(cell)}</th>" for cell in table[0])
    lines = "".join(
        "<tr>"
        + "".join(
            f"<td{' class=best' if good else ''}>{e(cell)}</td>"
            for cell, good in zip(line, marks, strict=True)
        )
        + "</tr>"
        for line, marks in zip(table[1:], best, strict=True)
    )
    sections = "".join(_section(row) for row in rows)
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{e(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{e(title)}</h1><p>{e(intro)}</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>{sections}"
        f"<footer>{e(footer)}</footer><script>{_SCRIPT}</script></body></html>\n"
    )
    write_atomic(path, text)


def _section(row: Row) -> str:
    """The HTML of one problem."""
    side = row.panels[0].x.shape[-1]
    top, left, size = row.zoom
    u, v = (left + size / 2) / side, (top + size / 2) / side
    figures = "".join(_figure(panel, row.scale) for panel in row.panels)
    return (
        f'<section data-size="{size / side:.4f}" data-u="{u:.4f}" data-v="{v:.4f}">'
        f"<h2>{html.escape(row.title)}</h2><p>{html.escape(row.text)}</p>"
        f'<div class=row style="--n:{len(row.panels)}">{figures}</div></section>'
    )


def _figure(panel: Panel, scale: float) -> str:
    """The HTML of one image: itself, its enlarged detail, its error map."""
    shown = heat(panel.x, scale) if panel.map else pixels(panel.x)
    below = ""
    if panel.error is not None:
        below = f'<img class=error alt="error" src="{_data(heat(panel.error, scale))}">'
    elif panel.map:
        ramp = heat(torch.linspace(0.0, 1.0, 128)[None, None, None], 1.0)
        below = (
            f'<div class=key><div class=scale style="background:url({_data(ramp)}) 0/100% 100%">'
            f"</div>0 to {127.5 * scale:.0f} of 255, for the absolute errors too</div>"
        )
    kind = " class=best" if panel.best else ""
    return (
        f'<figure{kind} style="--i:url({_data(shown)})">'
        f"<figcaption>{html.escape(panel.title)}<span>{html.escape(panel.caption)}</span>"
        f"</figcaption><div class=view><i></i></div><div class=zoom></div>{below}</figure>"
    )


def _data(image: np.ndarray) -> str:
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()
