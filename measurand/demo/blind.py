"""The blind case of the demo: a photograph and the kernel that blurred it, both unknown."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..blind import BlindMeasurement, Unknowns
from ..methods import Step
from ..metrics import psnr, ssim
from ..noises import Gaussian
from ..operators import UnknownBlur
from ..priors.capabilities import Denoiser
from ..samplers import BlindPnPDM, summary
from ..samplers.blind_summary import correlation
from ..solvers import HQS, BlindEdges, BlindTV
from ..tensors import generators
from .page import Panel, Row
from .scenes import BlindScene, photograph

__all__ = ["CHAINS", "METHOD", "solved"]

CHAINS = 2
METHOD = BlindPnPDM.quick()


def solved(
    scene: BlindScene,
    prior: Denoiser,
    theta_prior: Denoiser,
    seed: int,
    device: torch.device,
    advance: Callable[[int], None],
) -> tuple[Row, dict[str, Any]]:
    """The blind methods on one scene: what to look at, and the numbers.

    Args:
        scene: Photograph, kernel and noise.
        prior: The prior of the image.
        theta_prior: The prior of the kernel.
        seed: Seed of the noise and of the chains.
        device: Where to compute.
        advance: Called with one for every sweep.
    """
    x = photograph(scene.photo, scene.corner).to(device)
    family = UnknownBlur(tuple(x.shape[1:]), scene.side)
    theta = family.theta(scene.kernel.to(device))
    noise = Gaussian(scene.sigma).to(device)
    y = noise(family.at(theta)(x), generators(seed, 1, device))
    blind, true = BlindMeasurement(family, noise, y), family.kernel(theta)
    truth = x
    panels = [Panel("photograph", x.cpu()), Panel("measured", y.cpu())]
    scores: dict[str, dict[str, float]] = {}

    def shown(name: str, x: Tensor, kernel: Tensor, seconds: float) -> list[int]:
        """One estimate, moved to where its kernel is nearest to the true one."""
        shift, like = correlation(true, kernel)
        x = x.roll([-n for n in shift], (-2, -1))
        scores[name] = {
            "psnr": float(psnr(x, truth, data_range=2.0)),
            "ssim": float(ssim(x, truth, data_range=2.0)),
            "kernel": like,
            "seconds": seconds,
        }
        error = (x - truth).abs().mean(1, keepdim=True).cpu()
        panels.append(Panel(name, x.cpu(), f"{scores[name]['psnr']:.2f} dB", error))
        return shift

    started = time.perf_counter()
    tv = BlindTV()(blind)
    shown("Blind TV", tv.x, family.kernel(tv.theta), time.perf_counter() - started)
    started = time.perf_counter()
    edges: Unknowns = BlindEdges()(blind)
    kernel = family.kernel(edges.theta)
    shown("Blind edges", edges.x, kernel, time.perf_counter() - started)
    x = HQS()(blind.at(edges.theta), prior)
    shown("edges, then HQS", x, kernel, time.perf_counter() - started)

    def on_step(step: Step) -> None:
        advance(1)

    started = time.perf_counter()
    seeds = generators(seed, CHAINS, device)
    draws = METHOD(blind.repeat(CHAINS), prior, theta_prior, generator=seeds, callback=on_step)
    result = summary(blind, draws, prior)[0]
    seconds = time.perf_counter() - started
    shift = shown("Blind PnP-DM", result.x, result.kernel, seconds)
    panels.append(Panel("kernel found", picture(result.kernel, shift, len(x[0, 0]))))
    panels.append(Panel("true kernel", picture(true, [0, 0], len(x[0, 0]))))
    sd = torch.zeros_like(x) if result.sd is None else result.sd.roll([-n for n in shift], (2, 3))
    panels.append(Panel("Blind PnP-DM, uncertainty", sd.cpu(), map=True))
    best = max(scores, key=lambda name: scores[name]["psnr"])
    panels = [replace(panel, best=panel.title == best) for panel in panels]
    record = {"problem": scene.title, "text": scene.text, "best": best, "methods": scores}
    return Row(scene.title, scene.text, panels, scene.zoom), record


def picture(kernel: Tensor, shift: list[int], side: int) -> Tensor:
    """The middle of a kernel (1, 1, s, s), enlarged to side x side pixels in [-1, 1]."""
    k = kernel.roll(shift, (-2, -1)).cpu()
    edge = k.shape[-1] // 4
    k = k[..., edge : k.shape[-1] - edge, edge : k.shape[-1] - edge]
    return functional.interpolate(2 * k / k.max() - 1, (side, side)).expand(-1, 3, -1, -1)
