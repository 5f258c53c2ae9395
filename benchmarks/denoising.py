"""Denoising quality of a prior beside FFDNet: `python benchmarks/denoising.py [PRIOR]`.

The protocol of the reference numbers: pictures in the order of their names, centre crops of
256 x 256, noise of standard deviation 15, 25 and 50 (of 255) from seed k for picture k, PSNR over
all pixels and channels without clipping, averaged over the pictures of a set. FFDNet is the
published colour network (0.85 M parameters; Zhang, Zuo, Zhang 2018, arXiv:1710.04026) measured on
the same noisy pictures; it is no part of this package. A grey prior is measured on the whole
pictures of Set12, beside the published numbers of DnCNN (Zhang et al. 2017, arXiv:1608.03981).
"""

import argparse
import io
import sys
import time
import zipfile
from pathlib import Path

import machine
import numpy as np
import torch
from PIL import Image

from measurand.metrics import psnr
from measurand.weights.store import load_prior

LEVELS = (15, 25, 50)
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SETS = {  # name: (zip, folder in it, pictures, FFDNet at the three levels)
    "BSDS500 test": ("natural_bsds500.zip", "test", 62, (33.53, 30.86, 27.53)),
    "BSDS500 val": ("natural_bsds500.zip", "val", 100, (33.36, 30.65, 27.35)),
    "McMaster": ("natural_testsets.zip", "McMaster", 18, (34.38, 32.07, 28.88)),
    "Set14": ("natural_testsets.zip", "Set14", 12, (32.92, 30.79, 27.94)),
    "Urban100sub": ("natural_testsets.zip", "Urban100sub", 8, (32.05, 29.38, 25.93)),
}
GREY_SETS = {"Set12": ("natural_testsets.zip", "Set12", 12, (32.86, 30.44, 27.18))}  # DnCNN


def whole_grey(folder: Path, archive: str, under: str) -> list[torch.Tensor]:
    """Grey pictures as they are, each (1, 1, H, W) in [-1, 1]."""
    found = []
    with zipfile.ZipFile(folder / archive) as zipped:
        for name in sorted(n for n in zipped.namelist() if n.startswith(f"{under}/")):
            if not name.endswith("/"):
                image = np.array(Image.open(io.BytesIO(zipped.read(name))).convert("L"))
                found.append(torch.from_numpy(image)[None, None].float() / 127.5 - 1)
    return found


def color_crops(folder: Path, archive: str, under: str) -> list[torch.Tensor]:
    """Centre crops (1, 3, 256, 256) in [-1, 1] of the large enough pictures stored in colour."""
    crops = []
    with zipfile.ZipFile(folder / archive) as found:
        names = sorted(n for n in found.namelist() if n.startswith(f"{under}/") and n[-1] != "/")
        for name in names:
            picture = Image.open(io.BytesIO(found.read(name)))
            if min(picture.size) < 256 or picture.mode == "L":
                continue
            image = np.asarray(picture.convert("RGB"))
            top, left = (image.shape[0] - 256) // 2, (image.shape[1] - 256) // 2
            x = torch.from_numpy(image[top : top + 256, left : left + 256].copy())
            crops.append(x.permute(2, 0, 1)[None].float() / 127.5 - 1)
    return crops


@torch.no_grad()
def mean_psnr(prior, crops: list[torch.Tensor], level: float) -> float:
    """Mean PSNR in dB over the pictures, noise of picture k from seed k."""
    sigma, total = 2 * level / 255, 0.0
    for k, x in enumerate(crops):
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(k))
        total += float(psnr(prior.denoise(x + sigma * noise, sigma), x, data_range=2.0))
    return total / len(crops)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prior", nargs="?", default="natural-color", help="name or weight file")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the zips")
    parser.add_argument("--sets", nargs="*", help="names of sets")
    parser.add_argument("--limit", type=int, help="only the first pictures of each set")
    parser.add_argument("--float32", action="store_true", help="run the network in float32")
    parser.add_argument(
        "--output",
        help="name of the results file; none is written when absent "
        "unless the prior is one that ships",
    )
    options = parser.parse_args()
    if not all((options.data / archive).is_file() for archive, *_ in SETS.values()):
        print(f"{options.data}: the pictures are not here, nothing measured", file=sys.stderr)
        return
    prior = load_prior(options.prior, dtype=torch.float32 if options.float32 else None)
    precision = str(next(prior.parameters()).dtype).removeprefix("torch.")
    rows = {}
    start = time.process_time()
    print(
        f"{options.prior} ({precision}); PSNR in dB, ours / reference, at noise 15, 25, 50 of 255"
    )
    known, pictures = (GREY_SETS, whole_grey) if prior.channels == 1 else (SETS, color_crops)
    for name in options.sets or known:
        archive, under, count, reference = known[name]
        crops = pictures(options.data, archive, under)
        if len(crops) != count:
            raise SystemExit(f"{name}: got {len(crops)} pictures, the reference has {count}")
        crops = crops[: options.limit]
        ours = [round(mean_psnr(prior, crops, level), 3) for level in LEVELS]
        rows[name] = {"pictures": len(crops), "ours": ours, "reference": reference}
        cells = "   ".join(f"{a:.2f} / {b:.2f}" for a, b in zip(ours, reference, strict=True))
        print(f"{name:14s} {len(crops):4d}   {cells}", flush=True)
    shipped = Path(options.prior).suffix != ".safetensors"
    output = options.output or (f"denoising_{options.prior.replace('-', '_')}" if shipped else "")
    if output and not options.limit:
        facts = {
            key: prior.card.get(key) for key in ("name", "licence", "steps", "patches", "ema")
        }
        content = {"prior": facts, "precision": precision, "levels": LEVELS, "sets": rows}
        content["cpu_seconds"] = round(time.process_time() - start, 1)
        print(machine.write(output, content))


if __name__ == "__main__":
    main()
