"""What a prior is worth on images of its domain that it has never seen: numbers and a figure.

    python benchmarks/priors.py mri-brain           writes results/prior_mri_brain.json
                                                    and docs/figures/mri_brain_draws.png
    python benchmarks/priors.py mri-brain --draws   only the figure
    python benchmarks/priors.py mri-brain --publish only the card, from the results file
    python benchmarks/priors.py runs/x.safetensors --as mri-brain     only prints

PSNR of denoised images by noise level, and calibration: the squared error that the prior expects,
sigma^2 div D, over the true one; of CT for each group of slices, where those of patients who were
not trained on are what counts. `--publish` writes both numbers into the card of the weights that
ship. The figure shows draws from the prior by the reverse SDE.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from body import groups_of
from torch import Tensor

from measurand import recipes
from measurand.domains.material import generator_of
from measurand.figures import pixels
from measurand.priors.edm import EDMDenoiser
from measurand.samplers import ReverseSDE
from measurand.tensors import generators
from measurand.training.quality import LEVELS, calibration, denoising_psnr
from measurand.weights.store import load_prior, weight_file
from measurand.weights.tensorfile import load_tensors, save_tensors

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"
SIDE = {"kernels-64": 64, "faces-128": 128}
TEST = {  # file, folder in it, every n-th image
    "natural-color": ("natural_bsds500.zip", "test", 4),
    "natural-gray": ("natural_bsds500.zip", "test", 4),
    "mri-brain": ("mri_brain_test.npz", "", 6),
    "ct-body": ("ct_test.npz:hu", "", 1),
    "faces-128": ("faces_utk128.zip", "test", 8),
}


def unseen(name: str) -> list[Tensor]:
    """Images of the prior's domain that no training run has used, each (1, C, H, W)."""
    domain = next(r.domain for r in vars(recipes).values() if getattr(r, "name", "") == name)
    if name not in TEST:  # made by a program: another seed
        drawn = domain.draw(192, generator_of(977, 0, "cpu"))
        return list(domain.scaled(drawn).split(1))
    file, under, every = TEST[name]
    return domain.look(DATA / file, under)[::every]


def measured(called: str, name: str, prior: EDMDenoiser) -> dict[str, Any]:
    """The numbers of a prior."""
    images = unseen(name)
    where = " ".join(TEST[name][:2]).strip() if name in TEST else "made by the program"
    if name != "ct-body":
        return {"prior": called, **numbers(prior, images, where)}
    groups = groups_of(np.load(DATA / "ct_test.npz")["subject"])
    of: dict[str, list[Tensor]] = {}
    for group, x in zip(groups, images, strict=True):
        of.setdefault(group, []).append(x)
    return {
        "prior": called,
        **numbers(prior, of.pop("other patients"), f"{where}, other patients"),
        "beside it": [numbers(prior, x[::3], f"{where}, {group}") for group, x in of.items()],
    }


def numbers(prior: EDMDenoiser, images: list[Tensor], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "images": f"{len(images)} of {where}",
        "psnr": denoising_psnr(prior, images, levels=LEVELS),
        "predicted over measured error": calibration(prior, images, probes=4),
    }
    print(found["images"])
    for key in ("psnr", "predicted over measured error"):
        print(key, {k: round(v, 3) for k, v in found[key].items()})
    return found


def publish(name: str) -> None:
    """Writes the numbers of the results file into the card of the weights that ship."""
    found = json.loads((machine.RESULTS / f"prior_{name.replace('-', '_')}.json").read_text())
    path = weight_file(name)
    tensors, card = load_tensors(path)  # as they are stored
    if found["prior"] not in (name, path.stem):
        raise SystemExit(f"{name}: the numbers are those of {found['prior']}")
    facts = {key: card[key] for key in card if key not in ("format", "tensors")}
    known = {
        "psnr": {k: round(v, 2) for k, v in found["psnr"].items()},
        "calibration": {k: round(v, 3) for k, v in found["predicted over measured error"].items()},
        "measured_on": found["images"],
    }
    save_tensors(path, tensors, {**facts, **known})


def draws(prior: EDMDenoiser, side: int, n: int = 12) -> Tensor:
    """Images from the prior, (n, C, side, side)."""
    start = torch.zeros(n, prior.channels, side, side, dtype=prior.dtype)
    return ReverseSDE(steps=60)(None, prior, x0=start, generator=generators(0, n))


def figure(path: Path, samples: Tensor) -> None:
    """Draws two rows of images from the prior; pictures of the data sets are not ours to show."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    columns = len(samples) // 2
    fig, axes = plt.subplots(2, columns, figsize=(1.6 * columns, 3.25), layout="constrained")
    for axis, x in zip(axes.flat, samples, strict=True):
        axis.set_axis_off()
        axis.imshow(pixels(x[None]))
    fig.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("prior", help="a prior that ships, or a weight file")
    parser.add_argument("--as", dest="name", help="whose data; the prior's own name when absent")
    parser.add_argument("--draws", action="store_true", help="only the figure")
    parser.add_argument("--publish", action="store_true", help="only the card of what ships")
    words = parser.parse_args()
    if words.publish:
        publish(words.prior)
        return
    torch.set_num_threads(1)
    name = words.name or words.prior.split("@")[0]
    prior = load_prior(words.prior)
    found: dict[str, Any] = {} if words.draws else measured(words.prior, name, prior)
    samples = draws(prior, SIDE.get(name, 96))
    if name.startswith("kernels"):
        kernels = (samples + 1) / 2 * prior.card["alpha"]
        found["draws"] = {
            "lowest value": float(kernels.min()),
            "largest error of the sum": float((kernels.sum((1, 2, 3)) - 1).abs().max()),
        }
        print(found["draws"])
    file = name.replace("-", "_")
    if words.prior != name:
        figure(Path(f"{file}.png"), samples)
        return
    figure(ROOT / f"docs/figures/{file}_draws.png", samples)
    if not words.draws:
        print(machine.write(f"prior_{file}", found))


if __name__ == "__main__":
    main()
