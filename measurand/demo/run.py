"""Four photographs, four problems, six methods, and a blind one: the package at work in minutes.

The photographs are 256 x 256 crops of pictures that ship with scikit-image. Each is measured with
known physics and noise, and recovered by total variation (FISTA), by score-PnP (HQS), by two
samplers (DiffPIR, PnP-DM) with the prior that ships, and by two networks with the physics inside:
Diff-Unfolding in one evaluation, and unfolded flows, trained for blur and for missing pixels,
which also serve the problems that they were not trained on. PnP-DM runs in a short preset,
134 denoiser calls for each of three draws; `samplers.PnPDM()` takes longer and mixes better. In
the last problem the blur kernel is unknown (see `demo.blind`).

Needs scikit-image and matplotlib (extra `demo`).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..jobs.folders import staged
from ..jobs.provenance import write_record
from ..jobs.restore import Restored, bar, environment, of_its_kind, restore, variation_weight
from ..measurement import Measurement
from ..methods import Step
from ..metrics import psnr, ssim
from ..noises import Gaussian
from ..operators import LinearOperator
from ..priors.capabilities import Denoiser, Posterior, Restorer
from ..priors.variation import TotalVariation
from ..samplers import DiffPIR, PnPDM
from ..solvers import FISTA, HQS, FlowUnfolding, PosteriorMean
from ..tensors import generators
from ..weights.store import load
from .blind import METHOD, solved
from .page import Panel, Row, overview, page
from .scenes import BlindScene, Scene, blind_scene, default_scenes, photograph

__all__ = ["demo"]

DRAWS = 3


def demo(
    out: str | os.PathLike[str] = "demo-output",
    *,
    prior: str = "natural-color",
    unfolded: str = "unfold-color",
    flows: tuple[str, str] = ("flow-deblur", "flow-inpaint"),
    kernels: str = "kernels-64",
    seed: int = 0,
    device: torch.device | str = "cpu",
    quiet: bool = False,
    chosen: Sequence[Scene] | None = None,
    blind: Sequence[BlindScene] | None = None,
) -> str:
    """Restore the photographs; write index.html, overview.png and results.json.

    Args:
        out: Folder for the results.
        prior: A prior that ships, or a weight file.
        unfolded: A network of Diff-Unfolding.
        flows: Unfolded networks of flows: each problem has the first that was trained on its kind,
            or else the first of all.
        kernels: A prior of blur kernels.
        seed: Seed of the noise and of the draws.
        device: Where to compute.
        quiet: Show no progress.
        chosen: The problems; the four of `default_scenes()` where None.
        blind: Problems with an unknown kernel; `blind_scene()` where this and `chosen` are None.
    Returns:
        The table, where the files are, and the best method of each problem, to print.
    """
    device = torch.device(device)
    networks = Networks(
        load(prior, Denoiser, device=device),
        load(unfolded, Posterior, device=device),
        tuple(load(name, Restorer, device=device) for name in flows),
    )
    posed = default_scenes() if chosen is None else list(chosen)
    blurred = list(blind or ([blind_scene()] if chosen is None else []))
    theta_prior: Any = load(kernels, Denoiser, device=device) if blurred else None
    with staged(out, by="demo", inputs=[prior, unfolded, *flows, kernels]) as folder:
        # one problem per core with one thread inside: cores do not wait for each other
        every: list[Scene | BlindScene] = [*blurred, *posed]  # the longest first
        workers = min(len(every), os.cpu_count() or 1) if device.type == "cpu" else 1
        lock, done, threads = threading.Lock(), [0], torch.get_num_threads()
        work = sum(calls for p in posed for _, _, _, calls in _methods(1.0, networks, p.operator))
        work += sum(METHOD.sweeps for _ in blurred)
        with bar("demo", work, quiet=quiet) as update, ThreadPoolExecutor(workers) as pool:

            def advance(calls: int) -> None:
                with lock:
                    done[0] += calls
                    update(done[0])

            def solve(problem: Scene | BlindScene) -> tuple[Row, dict[str, Any]]:
                if workers > 1:
                    torch.set_num_threads(1)
                if isinstance(problem, BlindScene):
                    return solved(problem, networks.prior, theta_prior, seed, device, advance)
                return _solve(problem, networks, seed, device, advance)

            done_all = list(pool.map(solve, every))
        torch.set_num_threads(threads)
        done_all = done_all[len(blurred) :] + done_all[: len(blurred)]
        rows, results = [row for row, _ in done_all], [found for _, found in done_all]
        known, unknown = results[: len(posed)], results[len(posed) :]
        names = {"prior": prior, "unfolded": unfolded, "flows": list(flows), "kernels": kernels}
        _write(folder, rows, known, unknown, names, seed, device)
    return _words(results, Path(out))


@dataclass(frozen=True)
class Networks:
    """What was learned: a prior, Diff-Unfolding, and unfolded flows for some problems each."""

    prior: Any
    unfolded: Any
    flows: tuple[Any, ...]


def _methods(
    weight: float, networks: Networks, operator: LinearOperator
) -> list[tuple[str, Any, Any, int]]:
    """The six competitors: name, method, prior, and work in denoiser calls of one image.

    Args:
        weight: Weight of total variation.
        networks: What was learned.
        operator: Says which flow serves it.
    """
    hqs = HQS(steps=16)
    variation = TotalVariation(weight=weight, tol=1e-3)
    sampler = PnPDM.quick()
    flows = [flow for flow in networks.flows if of_its_kind(flow, operator)] or networks.flows
    return [
        ("TV", FISTA(steps=60), variation, 20),
        ("HQS", hqs, networks.prior, 16),
        ("Unfolding", PosteriorMean(), networks.unfolded, 4),
        ("Flow", FlowUnfolding(), flows[0], 10),
        ("DiffPIR", DiffPIR(), networks.prior, DiffPIR().nfe),
        ("PnP-DM", sampler, networks.prior, DRAWS * sampler.nfe),
    ]


def _solve(
    problem: Scene,
    networks: Networks,
    seed: int,
    device: torch.device,
    advance: Callable[[int], None],
) -> tuple[Row, dict[str, Any]]:
    """All methods on one problem: what to look at, and the numbers."""
    x = photograph(problem.photo, problem.corner).to(device)
    operator = problem.operator.to(device)
    noise = Gaussian(problem.sigma).to(device)
    y = operator.observed(noise(operator(x), generators(seed, 1, device)))
    measurement = Measurement(operator, noise, y)
    weight = variation_weight(measurement)
    found: dict[str, Restored] = {}
    for name, method, prior, calls in _methods(weight, networks, operator):
        steps, told = method.rounds or 1, [0]

        def on_step(first: int, some: int, step: Step) -> None:
            now = calls * (step.step + 1) // steps  # noqa: B023 (called inside the loop only)
            advance(now - told[0])  # noqa: B023
            told[0] = now  # noqa: B023

        draws = DRAWS if name == "PnP-DM" else 1
        found[name] = restore(measurement, prior, method, draws=draws, seed=seed, on_step=on_step)
    scores = {
        name: {
            "psnr": float(psnr(r.estimate, x, data_range=2.0)),
            "ssim": float(ssim(r.estimate, x, data_range=2.0)),
            "seconds": r.seconds,
            "nfe": r.nfe,
        }
        for name, r in found.items()
    }
    best = max(scores, key=lambda name: scores[name]["psnr"])
    panels = [Panel("photograph", x.cpu()), Panel("measured", _seen(operator, y).cpu())]
    for name, r in found.items():
        panels.append(
            Panel(
                f"{name}, mean of {DRAWS}" if name == "PnP-DM" else name,
                r.estimate.cpu(),
                f"{scores[name]['psnr']:.2f} dB",
                (r.estimate - x).abs().mean(1, keepdim=True).cpu(),
                best=name == best,
            )
        )
    sd = found["PnP-DM"].sd
    assert sd is not None
    panels.append(Panel("PnP-DM, uncertainty", sd.cpu(), map=True))
    record = {"problem": problem.title, "text": problem.text, "best": best, "methods": scores}
    return Row(problem.title, problem.text, panels, problem.zoom), record


def _seen(operator: LinearOperator, y: Tensor) -> Tensor:
    """A measurement at the size of the image: small ones enlarged, missing pixels black."""
    y = torch.where(_measured(operator), y, -1.0)
    factor = operator.in_shape[-1] // y.shape[-1]
    return y.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def _measured(operator: LinearOperator) -> Tensor:
    """Which data are measured, with shape (1, *operator.out_shape)."""
    ones = torch.ones(1, *operator.out_shape, dtype=operator.out_dtype)
    return operator.observed(ones.to(operator.blank_input().device)) != 0


def _write(
    folder: Path,
    rows: list[Row],
    results: list[dict[str, Any]],
    unknown: list[dict[str, Any]],
    weights: dict[str, Any],
    seed: int,
    device: torch.device | str,
) -> None:
    names = list(results[0]["methods"])
    table = [["", *(f"{name}: PSNR" for name in names), *(f"{name}: SSIM" for name in names)]]
    table[0] += ["seconds, " + " / ".join(names), "denoiser calls"]
    best: list[list[bool]] = []
    for found in results:
        scores = found["methods"]
        top = max(scores[name]["ssim"] for name in names)
        line = [found["problem"], *(f"{scores[name]['psnr']:.2f}" for name in names)]
        line += [f"{scores[name]['ssim']:.3f}" for name in names]
        line += [" / ".join(f"{scores[name]['seconds']:.1f}" for name in names)]
        line += [" / ".join(f"{scores[name]['nfe']}" for name in names)]
        table.append(line)
        marks = [name == found["best"] for name in names]
        marks += [scores[name]["ssim"] == top for name in names]
        best.append([False, *marks, False, False])
    machine = environment(device)
    named = [
        Path(name).stem for name in (weights["prior"], weights["unfolded"], *weights["flows"])
    ]
    versions = machine["versions"]
    footer = (
        f"measurand {versions['measurand']}, torch {versions['torch']}, {machine['device']}, "
        f"weights {', '.join(named)}, seed {seed}. PnP-DM in its short preset: {DRAWS} draws of "
        "134 denoiser calls. Photographs: scikit-image."
    )
    title = "Photographs recovered from bad measurements"
    overview(folder / "overview.png", rows, title=title, footer=footer)
    page(
        folder / "index.html",
        rows,
        title=title,
        intro=(
            "Each photograph was measured with known physics and noise, then recovered by "
            "total variation, by a learned prior inside half-quadratic splitting, by two networks "
            "that have the physics inside (Diff-Unfolding, and unfolded flows), and by two "
            "samplers of the posterior. Move the pointer over an image: every enlarged detail "
            "follows. Below the details are the absolute errors; the last column is what PnP-DM "
            "itself believes about them, the standard deviation of its draws. In the last problem "
            "the blur kernel is not known and is recovered too."
        ),
        table=table,
        best=best,
        footer=footer,
    )
    command = ["measurand", "demo"]  # by which a later demo knows the folder
    record = {"command": command, **weights, "seed": seed, "results": results}
    write_record(folder / "results.json", record | {"blind": unknown, **machine})


def _words(results: list[dict[str, Any]], out: Path) -> str:
    """The results as text."""
    lines = [f"{'':<30}{'method':<16}{'PSNR':>8}{'SSIM':>8}{'seconds':>9}{'NFE':>6}"]
    for found in results:
        label = found["problem"]
        for name, s in found["methods"].items():
            last = f"  kernel {s['kernel']:.2f}" if "kernel" in s else f"{s['nfe']:>6}"
            numbers = f"{s['psnr']:>8.2f}{s['ssim']:>8.3f}{s['seconds']:>9.1f}{last}"
            lines.append(f"{label:<30}{name:<16}{numbers}")
            label = ""
    lines.append("")
    lines += [f"best by PSNR, {found['problem']}: {found['best']}" for found in results]
    lines.append(f"page:    {out / 'index.html'}")
    lines.append(f"picture: {out / 'overview.png'}")
    return "\n".join(lines)
