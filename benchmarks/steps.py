"""Tiles, iterative data steps and solves of decomposed SENSE: what they cost, before and after.

Tiles. Pixels that `Tiled` gives the denoiser, over those of the image, and the CPU time of one
call of `natural-color` over that of an untiled one, for tiles of a fixed length (before) and for
tiles that fit the image.

Data steps. HQS and ADMM with their defaults and the shipped priors on operators without a closed
form. Before: every data step is solved to an error of 1e-4 of its correction. Now: to a relative
residual that falls from 1e-3 to 1e-4 over the steps. PSNR, CPU seconds in all and outside the
network, and the number of applications of A^H A (ValidBlur: of its preconditioned form). One image
each:

    SENSE           8 coils, 256 x 256, random lines R = 4, noise 0.01 (`brain.py`)
    SENSE, points   the same with a variable-density mask of points
    ValidBlur       a photograph of 256 x 256 in colour, motion kernel, noise of 0.02 of the range
    ReflectiveBlur  the same
    ParallelCT      128 x 128, 60 views, 2e4 photons per ray (`body.py`)

Decomposed SENSE. One `solve`, with the conjugate of the eigenvectors formed in every call (before)
and without.

    python benchmarks/steps.py                     writes results/steps.json
    python benchmarks/steps.py --only tiles lines  some parts anew; the others stay as they are
    python benchmarks/steps.py --only ValidBlur    the rows of one problem anew
"""

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import body
import brain
import numpy as np
import torch
from deblurring import photographs
from machine import RESULTS, alternating, ratio, settle_allocator, write
from torch import Tensor
from torch.nn import functional

from measurand import linalg
from measurand.domains import Body, Brain
from measurand.measurement import Measurement
from measurand.metrics import psnr
from measurand.noises import ComplexGaussian, Gaussian
from measurand.operators import (
    SENSE,
    Mask,
    ParallelCT,
    ReflectiveBlur,
    ValidBlur,
    birdcage_maps,
    even_angles,
    random_lines,
    variable_density_mask,
)
from measurand.operators.lines import Modes
from measurand.priors import CallableDenoiser, Tiled
from measurand.solvers import ADMM, HQS
from measurand.tensors import generators, per_item, randn_like
from measurand.weights.store import load_prior

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


# -- tiles -------------------------------------------------------------------------------------


class FixedTiles(Tiled):
    """Tiles of one length, whatever the image: as they were."""

    def _spans(self, length: int) -> list[slice]:
        if length <= self.tile:
            return [slice(0, length)]
        n = math.ceil((length - self.overlap) / (self.tile - self.overlap))
        starts = torch.linspace(0, length - self.tile, n).round().long().tolist()
        return [slice(start, start + self.tile) for start in starts]


def pixels(kind: type[Tiled], tile: int, side: int) -> float:
    spans = kind(CallableDenoiser(lambda v, sigma: v), tile)._spans(side)
    return sum(span.stop - span.start for span in spans) ** 2 / side**2


def tiles() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "side": side,
            "pixels, fixed 512": round(pixels(FixedTiles, 512, side), 3),
            "pixels, at most 512": round(pixels(Tiled, 512, side), 3),
            "pixels, at most 1024 (default)": round(pixels(Tiled, 1024, side), 3),
        }
        for side in (520, 768, 1024, 1025, 1500, 2000, 3000)
    ]
    prior = load_prior("natural-color")
    for row in rows[:1]:
        v = torch.randn(1, 3, row["side"], row["side"], generator=torch.manual_seed(0)) * 0.3
        calls: dict[str, Callable[[], Tensor]] = {
            "whole": lambda v=v: prior.denoise(v, 0.1),
            "fixed 512": lambda v=v: FixedTiles(prior, 512).denoise(v, 0.1),
            "at most 512": lambda v=v: Tiled(prior, 512).denoise(v, 0.1),
            "at most 1024 (default)": lambda v=v: Tiled(prior).denoise(v, 0.1),
        }
        with torch.no_grad():
            times = alternating(calls, rounds=5)
        for name in list(calls)[1:]:
            row[f"CPU time, {name}, over whole"] = ratio(times[name], times["whole"])
    for row in rows:
        print(row)
    return rows


# -- data steps --------------------------------------------------------------------------------


class Exact(Measurement):
    """A measurement whose data steps are solved as accurately as if nobody asked for less."""

    def prox(self, v: Tensor, r: float | Tensor, *, residual: float | None = None) -> Tensor:
        return super().prox(v, r)


class Timed:
    """A denoiser that adds up its CPU time."""

    def __init__(self, prior: Any) -> None:
        self.prior, self.range, self.dtype, self.seconds = prior, prior.range, prior.dtype, 0.0

    def denoise(self, v: Tensor, sigma: Any, condition: Tensor | None = None) -> Tensor:
        start = time.process_time()
        x_hat = self.prior.denoise(v, sigma, condition)
        self.seconds += time.process_time() - start
        return x_hat


@dataclass
class Case:
    """A measurement of a true image, and the name of a prior."""

    name: str
    x: Tensor
    measurement: Measurement
    prior: str

    def quality(self, found: Tensor) -> float:
        if self.x.is_complex():
            top = float(self.x.abs().max())
            return float(psnr(found.abs(), self.x.abs(), data_range=top))
        return float(psnr(found, self.x, data_range=2.0))


def sense() -> Case:
    x = torch.cat(Brain().look(DATA / "mri_brain_test.npz")[10:11])
    return Case("SENSE", x, brain.problem(x, 4, 0), "mri-brain")


def sense_points() -> Case:
    x = torch.cat(Brain().look(DATA / "mri_brain_test.npz")[10:11])
    mask = variable_density_mask((256, 256), 4.0, generator=generators(0, 1))
    a = SENSE((1, 256, 256), birdcage_maps((256, 256), 8), mask)
    noise = ComplexGaussian(brain.NOISE)
    m = Measurement(a, noise, noise(a(x), generators(1, 1)))
    return Case("SENSE, points", x, m, "mri-brain")


def blur(kind: type[ValidBlur] | type[ReflectiveBlur]) -> Case:
    x = photographs("test", 1, DATA)
    kernel = torch.from_numpy(np.load(DATA / "blur_kernels.npz")["levin09_0"]).float()
    a, noise = kind((3, 256, 256), kernel / kernel.sum()), Gaussian(0.04)
    m = Measurement(a, noise, noise(a(x), generators(0, 1)))
    return Case(kind.__name__, x, m, "natural-color")


def tomography() -> Case:
    stored = np.load(DATA / "ct_test.npz")
    hu = torch.from_numpy(stored["hu"][5].astype(np.float32))[None, None]
    x = Body().image(functional.avg_pool2d(hu, 2), None)
    low, high = Body().window
    gain, offset = body.WATER * (high - low) / 2000, body.WATER * (1 + (high + low) / 2000)
    pixel = 2 * float(stored["pixel_mm"][5])
    a = ParallelCT((1, 128, 128), even_angles(body.VIEWS), pixel=pixel, spacing=1.0)
    lines = a(gain * x + offset)
    generator = torch.Generator().manual_seed(0)
    counts = torch.poisson(body.PHOTONS * (-lines).exp(), generator=generator).clamp_min(1)
    root = counts.sqrt()
    y = root * (-(counts / body.PHOTONS).log() - a(torch.full_like(x, offset)))
    m = Measurement(Mask(a.out_shape, root) @ (gain * a), Gaussian(1.0), y)
    return Case("ParallelCT", x, m, "ct-body")


CASES: dict[str, Callable[[], Case]] = {
    "SENSE": sense,
    "SENSE, points": sense_points,
    "ValidBlur": lambda: blur(ValidBlur),
    "ReflectiveBlur": lambda: blur(ReflectiveBlur),
    "ParallelCT": tomography,
}


def steps(problems: Iterable[str]) -> list[dict[str, Any]]:
    rows = []
    for problem in problems:
        case = CASES[problem]()
        m, prior = case.measurement, Timed(load_prior(case.prior))
        for method in (HQS().settled(m), ADMM().settled(m)):
            row = {"problem": case.name, "method": type(method).__name__}
            row |= {"steps": method.steps, "weight": method.weight}
            for name, each in (("before", Exact(m.operator, m.noise, m.y)), ("now", m)):
                applications: list[int] = []
                prior.seconds, start = 0.0, time.process_time()
                with counted(applications):
                    found = method(each, prior)
                seconds = time.process_time() - start
                row[name] = {
                    "psnr": round(case.quality(found), 3),
                    "CPU s": round(seconds, 2),
                    "CPU s outside the network": round(seconds - prior.seconds, 2),
                    "applications of A^H A": len(applications),
                }
            rows.append(row)
            print(row, flush=True)
    return rows


class counted:  # noqa: N801 (a context, used like a function)
    """While it is open, every application of a matrix in `linalg.cg` adds to a list."""

    def __init__(self, applications: list[int]) -> None:
        self.applications = applications

    def __enter__(self) -> None:
        iterate, applications = linalg._iterate, self.applications
        self.iterate = iterate

        def watched(apply: Callable[[Tensor], Tensor], *args: Any) -> Tensor:
            return iterate(lambda x: applications.append(1) or apply(x), *args)  # type: ignore

        linalg._iterate = watched

    def __exit__(self, *_: object) -> None:
        linalg._iterate = self.iterate


# -- decomposed SENSE --------------------------------------------------------------------------


def solve_before(modes: Modes, b: Tensor, gamma: float) -> Tensor:
    """`Modes.solve` as it was: the product with `V^H` copies V."""
    rows = b[:, 0] if modes.axis == -1 else b[:, 0].mT
    scale = modes.values + per_item(gamma, rows)
    if len(modes.vectors) == 1:
        columns = rows.permute(1, 2, 0)
        inside = (modes.vectors[0].mH @ columns) / scale.permute(1, 2, 0)
        found = (modes.vectors[0] @ inside.to(b)).permute(2, 0, 1)
    else:
        inside = (modes.vectors.mH @ rows[..., None]) / scale[..., None]
        found = (modes.vectors @ inside.to(b))[..., 0]
    return (found if modes.axis == -1 else found.mT)[:, None]


def lines() -> list[dict[str, Any]]:
    rows = []
    for side, items, masks in itertools.chain(
        [(256, 1, 1), (256, 8, 1), (256, 2, 2)], [(320, 1, 1), (320, 8, 1)]
    ):
        mask = random_lines((side, side), 4.0, 0.08, generator=generators(0, masks))
        a = SENSE((1, side, side), birdcage_maps((side, side), 8), mask).decomposed()
        modes = Modes(-1, a._values, a._vectors)
        b = torch.empty(items, 1, side, side, dtype=torch.complex64)
        b = randn_like(b, generators(0, items))
        before, now = solve_before(modes, b, 0.02), modes.solve(b, 0.02)
        times = alternating(
            {
                "before": lambda m=modes, b=b: solve_before(m, b, 0.02),
                "now": lambda m=modes, b=b: m.solve(b, 0.02),
            },
            rounds=9,
        )
        row = {"side": side, "items": items, "masks": masks}
        row |= {f"{k} ms": round(statistics.median(v) * 1e3, 1) for k, v in times.items()}
        row["before / now"] = ratio(times["before"], times["now"])
        row["relative difference"] = f"{float((before - now).norm() / now.norm()):.0e}"
        rows.append(row)
        print(row, flush=True)
    return rows


PARTS = {"tiles": tiles, "lines": lines}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=[*PARTS, *CASES], help="some parts")
    args = parser.parse_args()
    torch.set_num_threads(1)
    settle_allocator()
    asked = args.only or [*PARTS, *CASES]
    stored = RESULTS / "steps.json"
    found = json.loads(stored.read_text()) if args.only and stored.is_file() else {}
    found.pop("machine", None)
    for name in PARTS:
        if name in asked:
            found[name] = PARTS[name]()
    problems = [name for name in CASES if name in asked]
    kept = [row for row in found.get("data steps", []) if row["problem"] not in problems]
    found["data steps"] = kept + steps(problems)
    print(write("steps", found))


if __name__ == "__main__":
    main()
