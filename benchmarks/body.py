"""Sparse-view CT of the body: the prior `ct-body` against total variation and FBP.

Protocol. Slices in Hounsfield units (`ct_test.npz`), attenuation `mu = 0.0192 (1 + HU / 1000)` per
mm, 60 parallel views over half a turn, 2e4 photons per ray, Poisson counts N. The data are
`p = -ln(N / N0)` with weights N (their inverse variance), so that the measurement is linear in the
image with unit noise. PSNR over a range of 3000 HU, averaged by group of slices. The weights below
were chosen on the val slices (`--search`).

    python benchmarks/body.py                     writes results/body.json
    python benchmarks/body.py --search            prints the quality by setting on val
"""

import argparse
import itertools
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import write
from torch import Tensor

from measurand.domains import Body
from measurand.measurement import Measurement
from measurand.metrics import psnr
from measurand.noises import Gaussian
from measurand.operators import Mask, ParallelCT, even_angles, fbp
from measurand.priors import TotalVariation
from measurand.solvers import ADMM, FISTA
from measurand.weights.store import load_prior

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
VIEWS, PHOTONS = 60, 2e4
WATER = 0.0192  # per mm at about 70 keV

# chosen on val
SETTINGS: dict[str, tuple[float, ...]] = {"TV": (10.0,), "ADMM ct-body": (0.5, 16)}
GRIDS: dict[str, tuple[tuple[float, ...], ...]] = {
    "TV": ((5.0, 10.0, 20.0, 40.0),),
    "ADMM ct-body": ((0.12, 0.25, 0.5, 1.0, 2.0), (16,)),
}


def groups_of(subjects: np.ndarray) -> list[str]:
    """Whose slices they are: the training set has two patients, one of them also in `test`."""
    known = {"PHANTOM": "head phantom", "AND": "training patient, other slices"}
    return [known.get(str(s), "other patients") for s in subjects]


class Scan:
    """One slice, measured: x in [-1, 1] is affine in attenuation, mu = gain x + offset."""

    def __init__(self, hu: np.ndarray, pixel: float, seed: int) -> None:
        low, high = Body().window
        self.gain = WATER * (high - low) / 2000
        self.offset = WATER * (1 + (high + low) / 2000)
        self.x = Body().image(torch.from_numpy(hu.astype(np.float32))[None, None], None)
        a = ParallelCT((1, 256, 256), even_angles(VIEWS), pixel=pixel, spacing=1.0)
        self.plain = a
        clean = a(self.gain * self.x + self.offset)
        generator = torch.Generator().manual_seed(seed)
        counts = torch.poisson(PHOTONS * (-clean).exp(), generator=generator).clamp_min(1)
        self.p = -(counts / PHOTONS).log()
        root = counts.sqrt()
        y = root * (self.p - a(torch.full_like(self.x, self.offset)))
        operator = Mask(a.out_shape, root) @ (self.gain * a)
        self.measurement = Measurement(operator, Gaussian(1.0), y)

    def by_fbp(self) -> Tensor:
        return ((fbp(self.plain, self.p) - self.offset) / self.gain).clamp(-1, 1)


def method(name: str, settings: tuple[float, ...], prior: Any) -> Any:
    if name == "TV":
        tv = TotalVariation(weight=settings[0], tol=1e-3, box=(-1.0, 1.0))
        return partial(FISTA(steps=200), prior=tv)
    weight, steps = settings
    return partial(ADMM(steps=int(steps), weight=weight), prior=prior)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prior", default="ct-body", help="name or .safetensors file")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--search", action="store_true", help="quality by setting on val")
    parser.add_argument("--methods", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    file = args.data / f"ct_{'val' if args.search else 'test'}.npz"
    if not file.is_file():
        print(f"skipped: no data set {file.name}")
        return
    stored = np.load(file)
    groups = groups_of(stored["subject"])
    # all slices of other patients, which count, and every fourth of the groups beside them
    rare = "other patients" if not args.search else ""
    chosen = [k for k, group in enumerate(groups) if group == rare or k % 4 == 0]
    scans = {k: Scan(stored["hu"][k], float(stored["pixel_mm"][k]), k) for k in chosen}
    prior = load_prior(args.prior) if "ADMM ct-body" in args.methods else None
    tried: list[tuple[str, tuple[float, ...]]] = [("FBP", ())]
    for name in args.methods:
        grid = itertools.product(*GRIDS[name]) if args.search else [SETTINGS[name]]
        tried += [(name, settings) for settings in grid]
    rows: list[dict[str, Any]] = []
    for name, settings in tried:
        found: dict[str, list[float]] = {}
        started = time.process_time()
        for k, scan in scans.items():
            with torch.no_grad():
                if name == "FBP":
                    x = scan.by_fbp()
                else:
                    x = method(name, settings, prior)(scan.measurement)
            value = float(psnr(x, scan.x, data_range=2.0))
            found.setdefault(groups[k], []).append(value)
        seconds = (time.process_time() - started) / len(scans)
        row = {group: round(sum(v) / len(v), 2) for group, v in found.items()}
        cost = {"cpu seconds per slice": round(seconds, 2)}
        rows.append({"method": name, "settings": settings, **row, **cost})
        print(rows[-1], flush=True)
    if not args.search:
        measured = [groups[k] for k in chosen]
        counts = {group: measured.count(group) for group in sorted(set(measured))}
        print(write("body", {"prior": args.prior, "slices": counts, "rows": rows}))


if __name__ == "__main__":
    main()
