"""The figure of the page on blind problems, drawn from `benchmarks/results/blind.json`."""

import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[2]
FIGURE = ROOT / "docs" / "figures" / "blind.png"
METHODS = {
    "blurred": ("blurred", "#9aa3ad", "o"),
    "blind-tv": ("BlindTV", "#c98a2b", "v"),
    "edges": ("BlindEdges", "#b5483a", "s"),
    "edges + HQS": ("BlindEdges, then HQS", "#7a5aa6", "D"),
    "blind-pnpdm": ("Blind-PnPDM", "#0b7a53", "o"),
    "bound": ("HQS, kernel known", "#1b1f24", "_"),
}


def main() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "blind.json").read_text())["rows"]
    rows.sort(key=lambda row: row["bound"]["psnr"])
    names = [
        f"{row['case']['kernel'].replace('levin09_', 'Levin ')}, {row['case']['size']} px, "
        f"{row['case']['noise']:g}"
        for row in rows
    ]
    figure, axes = plt.subplots(2, 1, figsize=(11, 7), sharex=True, layout="constrained")
    for key, (label, color, marker) in METHODS.items():
        size = 90 if key == "bound" else 60 if key == "blind-pnpdm" else 28
        for axis, what in zip(axes, ("psnr", "kernel"), strict=True):
            seen = [(i, row[key][what]) for i, row in enumerate(rows) if what in row[key]]
            x, y = [i for i, _ in seen], [value for _, value in seen]
            axis.scatter(x, y, s=size, c=color, marker=marker, label=label)
    axes[0].set_ylabel("PSNR of the image, dB")
    axes[1].set_ylabel("correlation of the kernel")
    axes[0].legend(fontsize=8, ncols=3, frameon=False, loc="upper left")
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(low, high + 0.25 * (high - low))  # for the legend
    axes[1].axhline(0.9, color="#9aa3ad", lw=0.8, ls="--")
    axes[1].set_xticks(range(len(rows)), names, fontsize=7, rotation=90)
    for axis in axes:
        axis.grid(axis="y", lw=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=110)


if __name__ == "__main__":
    main()
