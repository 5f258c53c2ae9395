"""What the tests of reported situations share: files, scenes and the words of a command."""

import json

import numpy as np
import torch
from test_cli import run

from measurand.operators import SENSE, birdcage_maps, equispaced_lines

TV = ["--prior", "total-variation", "--method", "fista", "--quiet"]
FEW = [*TV, "--method.steps", 25]
SMALL = ["--prior", "total-variation:1e-6", "--method", "fista", "--method.steps", 20, "--quiet"]


def rng(seed=0):
    return np.random.default_rng(seed)


def drawn(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scene(h=40, w=48):
    i, j = np.mgrid[:h, :w]
    return (0.5 + 0.4 * np.sin(0.3 * i) * np.cos(0.25 * j)).astype(np.float32)


def record(folder="r"):
    return json.loads(open(f"{folder}/run.json").read())


def refused(capsys, *words):
    assert run(*words) == 2
    return capsys.readouterr().err


def error_of(e, x):
    return float(np.linalg.norm(e - x) / np.linalg.norm(x))


def disc(size=48):
    t = np.linspace(-1, 1, size)
    body = (t[:, None] ** 2 + 2 * t**2 < 0.5) * 1.0
    return (body + ((t[:, None] - 0.3) ** 2 + t**2 < 0.02)).astype(np.float32)


def as_tensor(a):
    return torch.from_numpy(np.ascontiguousarray(a))[None, None]


def scan(side=64, coils=6, rate=3.0):
    """An image, its maps, the mask of its lines and its k-space (coils, H, W)."""
    x = torch.zeros(1, 1, side, side, dtype=torch.complex64)
    x[..., 12:50, 16:48], x[..., 20:30, 24:36] = 0.6, 1.0
    maps = birdcage_maps((side, side), coils)[0]
    mask = equispaced_lines((side, side), rate, 0.16)[0, 0, 0].float()
    return x, maps, mask, SENSE((1, side, side), maps, mask)(x)
