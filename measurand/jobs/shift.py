"""Measured files as evidence about priors: which one fits them best, and how far others are.

shift.json     the order with its intervals, and with a reference the curve of each divergence
shift.png      both as a picture
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from ..data.files import PICTURES
from ..figures import legible, with_matplotlib
from ..measurement import Measurement
from ..operators import SENSE
from ..priors import Penalty
from ..shift import Curve, Divergence, Rank, combined, ranked
from .manifest import Scan
from .measured import measured, operator_for
from .reading import Reading
from .restore import prior_for

__all__ = ["Evidence", "evidence", "judged", "masks_of", "plotted"]

MASKS = (*PICTURES, ".npy")


@dataclass(frozen=True)
class Evidence:
    """Measurements of images of one kind, and priors that are fitted to such images.

    Args:
        measurements: One per file.
        priors: The candidates, by name.
        notes: What was decided on the way, once each.
    """

    measurements: list[Measurement]
    priors: dict[str, Any]
    notes: list[str]


def evidence(
    scans: Sequence[Scan],
    operator: Any,
    priors: Sequence[str],
    *,
    sigma: float | None = None,
    shape: tuple[int, int, int] | None = None,
    value_range: tuple[float, float] | None = None,
    device: Any = "cpu",
) -> Evidence:
    """Return what files say, and the priors that are asked.

    Data of several coils are combined to those of one (`shift.combined`).

    Args:
        scans: The files.
        operator: How they were measured: an instance of one of `arguments.twins()`. A folder in
            the place of its mask has one for each file, under the same name.
        priors: Names of priors that denoise.
        sigma: Noise level; estimated from each file when None.
        shape: Shape (C, H, W) of the images, where it does not follow from the measurements.
        value_range: Samples that mean black and white, for floating-point files.
        device: Where the networks run.
    Raises:
        ValueError: A mask is missing, or a prior is no denoiser.
    """
    known = masks_of(operator)
    lacking = [scan.name for scan in scans if known and scan.name not in known]
    if lacking:
        raise ValueError(
            f"{operator.mask}: no mask there is called like {', '.join(lacking[:3])}"
            f"{' ...' if len(lacking) > 3 else ''}"
        )
    found, notes = [], []
    for scan in scans:
        twin = replace(operator, mask=known[scan.name]) if known else operator
        how = Reading(sigma, value_range)
        m, _, told, *_ = measured(scan.file, partial(operator_for, twin, shape), how)
        m, a = m.to(device), m.operator
        if isinstance(a, SENSE) and a.out_shape[0] > 1:
            m, told = combined(m), [*told, "several coils combined to one, approximately"]
        found.append(m)
        notes += [note for note in told if not note.startswith(("noise estimated", "divided by"))]
    fitted = {}
    for name in priors:
        prior, _, told = prior_for(name, found[0], device=device)
        if isinstance(prior, Penalty):
            raise ValueError(f"--priors: {name} is no denoiser, and has no density to compare")
        fitted[name] = prior
        notes += told
    return Evidence(found, fitted, list(dict.fromkeys(notes)))


def masks_of(operator: Any) -> dict[str, str]:
    """Return the masks of an operator by name, where a folder stands in the place of one."""
    folder = Path(getattr(operator, "mask", ""))
    if not folder.name or not folder.is_dir():
        return {}
    files = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in MASKS]
    return {file.stem: str(file.absolute()) for file in files}


def judged(
    found: Evidence,
    settings: Divergence,
    reference: str | None,
    generator: Any = None,
    callback: Callable[[int], None] | None = None,
) -> tuple[list[Rank], dict[str, Curve]]:
    """Return the order of the priors, and of all but the reference the divergence from it.

    Args:
        found: Measurements and priors.
        settings: Levels and weights.
        reference: The prior that is known to fit; None where none is.
        generator: As for `shift.ranked`.
        callback: Called after each level with the number of levels that are done, of all parts.
    """
    done = 0

    def told(step: int) -> None:
        if callback is not None:
            callback(done + step)

    order = ranked(
        found.measurements, found.priors, settings=settings, generator=generator, callback=told
    )
    curves = {}
    for name, prior in found.priors.items():
        if reference in (None, name):
            continue
        done += settings.nodes
        curves[name] = settings(
            found.measurements,
            prior,
            found.priors[reference],
            generator=generator,
            callback=told,
        )
    return order, curves


def plotted(path: Path, order: Sequence[Rank], curves: Mapping[str, Curve], title: str) -> None:
    """Draw the order with its intervals, and the integrals of the divergences by level."""
    with_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10 if curves else 6, 1.2 + max(0.45 * len(order), 2)), dpi=120)
    axes = figure.subplots(1, 2 if curves else 1, squeeze=False)[0]
    for row, rank in enumerate(reversed(order)):
        low, high = (abs(rank.excess - end) for end in rank.interval)
        axes[0].errorbar(rank.excess, row, xerr=[[low], [high]], fmt="o", color="C0", capsize=4)
    names = [legible(rank.name) for rank in reversed(order)]
    axes[0].set_yticks(range(len(order)), names, parse_math=False)
    axes[0].set_ylim(-0.6, len(order) - 0.4)
    axes[0].set_xlabel("loss above that of the best prior, nats per unknown")
    axes[0].grid(axis="x", alpha=0.3)
    for name, curve in curves.items():
        axes[1].semilogx(curve.levels, curve.cumulative, label=legible(name).replace("$", r"\$"))
        axes[1].set_xlabel("noise level")
        axes[1].set_ylabel("divergence up to this level, nats")
        axes[1].grid(alpha=0.3)
        axes[1].legend()
    figure.suptitle(legible(title), parse_math=False)
    figure.tight_layout()
    FigureCanvasAgg(figure).print_png(str(path))
