"""Makes the tables and the figure of the page on total variation.

    python docs/scripts/total_variation.py

writes `benchmarks/results/tv_error_vs_step.json` and `tv_sparse_view.json`, the figure
`docs/figures/total_variation.png`, and the tables between the marks of the page itself (that of
speed from what `benchmarks/tv.py` wrote).
"""

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import measurand as ms
from measurand.operators import ParallelCT, even_angles, fbp
from measurand.priors import (
    ClosedFormTotalVariation,
    TotalVariation,
    Variation,
    tv_norm,
    tv_prox,
    tv_prox_exact,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "methods" / "total_variation.md"
FIGURE = ROOT / "docs" / "figures" / "total_variation.png"
sys.path.insert(0, str(ROOT / "benchmarks"))
from machine import RESULTS, write  # noqa: E402

WEIGHT = 0.05
STEPS = {1.0: 60, 0.1: 200, 0.01: 600, 0.001: 2000}


def phantom() -> Tensor:
    """A square and a disk of unit contrast on 32x32, with noise of sd 0.1."""
    i = torch.arange(32, dtype=torch.float64) / 32
    x = ((i - 0.35).abs() < 0.2).outer((i - 0.4).abs() < 0.25).double()
    disk = ((i[:, None] - 0.7) ** 2 + (i - 0.7) ** 2 < 0.04).double()
    noise = torch.randn(32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return (torch.maximum(x, disk) + 0.1 * noise)[None, None]


def error_against_step() -> dict[str, Any]:
    """Denoising by accelerated proximal gradient with the closed form, for falling steps."""
    y = phantom()
    table: dict[str, Any] = {}
    one_shot: dict[str, Any] = {}
    for name, isotropic in (("anisotropic", False), ("isotropic", True)):
        kind = Variation(isotropic=isotropic, periodic=True)

        def objective(x: Tensor, kind: Variation = kind) -> float:
            return float(WEIGHT * tv_norm(x, kind) + 0.5 * (x - y).square().sum())

        exact, _ = tv_prox_exact(y, WEIGHT, kind, tol=1e-10)
        rows = []
        for step, steps in STEPS.items():
            # the momentum of a strongly convex problem of modulus 1
            momentum = (1 - math.sqrt(step)) / (1 + math.sqrt(step))
            x = z = y
            for _ in range(steps):
                last, x = x, tv_prox(z - step * (z - y), step * WEIGHT, kind)
                z = x + momentum * (x - last)
            rows.append(
                {
                    "step": step,
                    "objective_gap": objective(x) - objective(exact),
                    "bound": step * WEIGHT**2 * 4**2 * y.numel() / 2,
                    "snr_db": 20 * math.log10(float(exact.norm() / (x - exact).norm())),
                    "relative_tv": float(tv_norm(x, kind) / tv_norm(exact, kind)) - 1,
                }
            )
        table[name] = rows
        one_shot[name] = []
        for tau in (0.001, 0.01, 0.03, 0.1):
            solution, _ = tv_prox_exact(y, tau, kind, tol=1e-8)
            error = (tv_prox(y, tau, kind) - solution).square().mean().sqrt()
            one_shot[name].append({"tau": tau, "rms_over_tau": float(error) / tau})
    return {"weight": WEIGHT, "pixels": y.numel(), "method": table, "one_shot": one_shot}


def sparse_view() -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Shepp-Logan 128x128 from 30 parallel views without noise, by both maps."""
    from skimage.data import shepp_logan_phantom
    from skimage.transform import resize

    n, weight, rho = 128, 0.1, 10.0
    x = torch.from_numpy(resize(shepp_logan_phantom(), (n, n), anti_aliasing=True)).float()
    x = x[None, None]
    A = ParallelCT((1, n, n), even_angles(30))
    m = ms.Measurement(A, ms.noises.Gaussian(1.0), A(x))  # sigma only scales the objective
    prior = TotalVariation(weight=weight)

    def closed() -> Tensor:
        return ms.solvers.FISTA(steps=600)(m, ClosedFormTotalVariation(weight=weight))

    def fista() -> Tensor:
        return ms.solvers.FISTA(steps=600)(m, prior)

    def admm() -> Tensor:
        u = z = torch.zeros_like(x)
        for _ in range(80):
            w = m.prox(u - z, rho**-0.5)
            u = prior.prox(w + z, 1 / rho)
            z = z + w - u
        return u

    images, rows = {"truth": x}, {}
    for name, method in (
        ("filtered back-projection", lambda: fbp(A, m.y)),
        ("FISTA, closed form, 600 steps", closed),
        ("FISTA, exact map, 600 steps", fista),
        ("ADMM, exact map, 80 steps", admm),
    ):
        start = time.process_time()
        images[name] = method()
        rows[name] = {
            "psnr_db": float(ms.psnr(images[name], x, data_range=1.0)),
            "objective": float(m.nll(images[name]) + prior.value(images[name])),
            "cpu_seconds": time.process_time() - start,
        }
    return {"weight": weight, "rho": rho, "views": 30, "size": n, "rows": rows}, images


def draw(images: dict[str, Tensor], rows: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    truth = images["truth"][0, 0]
    figure, axes = plt.subplots(
        2, len(images), figsize=(2.9 * len(images), 6.6), layout="constrained"
    )
    for column, (name, image) in zip(axes.T, images.items(), strict=True):
        score = f"\n{rows[name]['psnr_db']:.1f} dB" if name in rows else "\n30 views"
        column[0].imshow(image[0, 0], cmap="gray", vmin=0, vmax=1)
        column[0].set_title(name.replace(", ", ",\n", 1) + score, fontsize=10)
        if name in rows:
            shown = column[1].imshow((image[0, 0] - truth), cmap="RdBu", vmin=-0.1, vmax=0.1)
        for axis in column:
            axis.axis("off")
    bar = figure.colorbar(shown, ax=axes[1, 0], fraction=0.9, shrink=0.8)
    bar.set_label("error (contrast of the skull: 1)")
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=90)


def step_table(found: dict[str, Any]) -> str:
    lines = [
        "| step | bound | anisotropic gap | SNR | TV | isotropic gap | SNR | TV |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for a, b in zip(found["method"]["anisotropic"], found["method"]["isotropic"], strict=True):
        cells = [f"{a['step']:g}", f"{a['bound']:.3g}"]
        for row in (a, b):
            cells += [f"{row['objective_gap']:.2g}", f"{row['snr_db']:.1f} dB"]
            cells += [f"{100 * row['relative_tv']:+.2g} %"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def shot_table(found: dict[str, Any]) -> str:
    lines = ["| tau | anisotropic RMS / tau | isotropic RMS / tau |", "|---|---|---|"]
    for a, b in zip(found["one_shot"]["anisotropic"], found["one_shot"]["isotropic"], strict=True):
        lines.append(f"| {a['tau']:g} | {a['rms_over_tau']:.3f} | {b['rms_over_tau']:.3f} |")
    return "\n".join(lines)


def view_table(found: dict[str, Any]) -> str:
    lines = ["| method | PSNR | objective | CPU time |", "|---|---|---|---|"]
    for name, row in found["rows"].items():
        lines.append(
            f"| {name} | {row['psnr_db']:.2f} dB | {row['objective']:.2f} "
            f"| {row['cpu_seconds']:.1f} s |"
        )
    return "\n".join(lines)


def speed_table(found: dict[str, Any]) -> str:
    lines = [
        "| size | weight | peer's iterations | peer's error | closed form's error "
        "| closed form | against the call | against one iteration |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for case in found["cases"]:
        peer, closed = case["rows"]["Chambolle, its defaults"], case["rows"]["closed form"]
        lines.append(
            f"| {case['size']} | {case['weight']:g} | {peer['iterations']} "
            f"| {peer['relative_error']:.1e} | {closed['relative_error']:.1e} "
            f"| {closed['milliseconds']:.2f} ms | {closed['times_faster_than_peer']:.1f} x "
            f"| {closed['times_faster_than_one_iteration_of_peer']:.1f} x |"
        )
    return "\n".join(lines)


def fill(name: str, table: str) -> None:
    """Puts a table between `<!-- name -->` and `<!-- end -->` of the page."""
    page = PAGE.read_text()
    mark = f"<!-- {name} -->"
    head, _, rest = page.partition(mark)
    if not rest:
        raise ValueError(f"{PAGE.name}: got no mark {mark}, wanted one to fill")
    _, end, tail = rest.partition("<!-- end -->")
    PAGE.write_text(f"{head}{mark}\n{table}\n{end}{tail}")


def main() -> None:
    torch.set_num_threads(1)
    found = error_against_step()
    write("tv_error_vs_step", found)
    fill("error against step", step_table(found))
    fill("one shot", shot_table(found))
    seen, images = sparse_view()
    write("tv_sparse_view", seen)
    fill("sparse view", view_table(seen))
    draw(images, seen["rows"])
    fill("speed", speed_table(json.loads((RESULTS / "tv.json").read_text())))


if __name__ == "__main__":
    main()
