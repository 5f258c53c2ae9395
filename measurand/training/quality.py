r"""How good a network is on images that it was not trained on, and whether it is calibrated.

    psnr          of D(x + sigma n, sigma), sigma = width level / 255, in dB of the range's width;
                  of unfolded networks, of images restored from simulated measurements
    calibration   E |D(v, sigma) - x|^2 against sigma^2 div D(v, sigma), which are equal for the
                  conditional mean D(v, sigma) = E[x given v] (Stein, Tweedie)

The divergence is that of the real coordinates, by random signs. `HeldOut` is what a network of any
kind is measured on: its class says which of these (`Trained.quality`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from ..measurement import Measurement
from ..metrics import psnr
from ..priors.edm import EDMDenoiser
from ..priors.trained import Score, Trained
from ..problems.random import Problems, drawn, problem_of
from ..tensors import randn_like, to_channels

__all__ = ["HeldOut", "LEVELS", "SIGMAS", "calibration", "denoising_psnr", "restoration_psnr"]

LEVELS = (5.0, 15.0, 25.0, 50.0, 75.0, 100.0)  # 255ths of the range's width
SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # image units


@dataclass(frozen=True)
class HeldOut:
    """Images that a network was not trained on, and how it is to be measured on them.

    Args:
        images: Images, each (1, C, H, W); what is random for image k has seed k.
        levels: Noise levels for denoisers, in 255ths of the range's width; 15, 25 and 50 where
            None.
        calibrated: Whether to compare the error that a denoiser expects with its true error.
        problems: Kinds of problems for unfolded networks; those of the training where empty.
        noise: Smallest and largest noise of a measurement, relative to the operator's norm; that
            of the training where None.
    """

    images: Sequence[Tensor]
    levels: tuple[float, ...] | None = None
    calibrated: bool = False
    problems: tuple[Problems, ...] = ()
    noise: tuple[float, float] | None = None

    def denoised(self, prior: EDMDenoiser) -> list[Score]:
        """Returns the PSNR of denoised images, and where it is asked for the calibration."""
        self._check(problems=False)
        words = "PSNR in dB of denoised images, by noise level in 255ths of the range"
        levels = (15.0, 25.0, 50.0) if self.levels is None else self.levels
        scores = [Score("psnr", words, denoising_psnr(prior, self.images, levels=levels))]
        if self.calibrated:
            words = "predicted over measured squared error, by noise level sigma"
            scores.append(Score("calibration", words, calibration(prior, self.images)))
        return scores

    def restored(
        self, network: Trained, restore: Callable[[Measurement, torch.Generator], Tensor]
    ) -> list[Score]:
        """Returns the PSNR of images restored from simulated measurements, by kind of problem."""
        self._check(levels=False)
        mix = self.problems or tuple(problem_of(text) for text in network.problems)
        noise = self.noise or network.recipe.get("sigma_y")
        if not mix or not noise:
            raise ValueError(
                f"{type(network).__name__}: its card names no problems that it was trained on, "
                "and their noise; say them by --problems 'Denoising()' and --noise-range 0.05 0.05"
            )
        low, high = map(float, noise)
        words = (
            f"PSNR in dB of images restored from simulated measurements with a noise of {low:g} "
            f"to {high:g}, relative to the norm of the operator"
        )
        found = restoration_psnr(restore, mix, self.images, sigma=(low, high))
        return [Score("psnr", words, found)]

    @torch.no_grad()
    def each(
        self, name: str, words: str, value: Callable[[Tensor, torch.Generator], Tensor]
    ) -> list[Score]:
        """Returns the mean of a number over the images."""
        self._check(levels=False, problems=False)
        total = sum(
            float(value(x, torch.Generator(x.device).manual_seed(k)))
            for k, x in enumerate(self.images)
        )
        return [Score(name, words, {name: total / len(self.images)} if self.images else {})]

    def _check(self, *, levels: bool = True, problems: bool = True) -> None:
        """Raise a `ValueError` where something is asked for that is not measured."""
        if not levels and (self.levels is not None or self.calibrated):
            raise ValueError("evaluate: --levels and --calibration are for denoisers")
        if not problems and (self.problems or self.noise):
            raise ValueError("evaluate: --problems and --noise-range are for unfolded networks")


@torch.no_grad()
def restoration_psnr(
    restore: Callable[[Measurement, torch.Generator], Tensor],
    mix: Sequence[Problems],
    images: Sequence[Tensor],
    *,
    sigma: tuple[float, float] = (0.05, 0.05),
) -> dict[str, float]:
    """Returns the mean PSNR in dB of restored images, by kind of problem.

    Args:
        restore: Makes an image of a measurement; may draw random numbers.
        mix: Kinds of problems; image k has the instance and the noise of seed k.
        images: Images, each (1, C, H, W).
        sigma: Smallest and largest noise of a measurement, relative to the operator's norm.
    """
    results = {}
    for kind in mix:
        values = []
        for k, x in enumerate(images):
            generator = torch.Generator(x.device).manual_seed(k)
            estimate = restore(drawn([kind], x, sigma, generator), generator)
            pair = to_channels(estimate), to_channels(x)
            values.append(float(psnr(*pair, data_range=2.0)))
        if values:
            results[repr(kind)] = sum(values) / len(values)
    return results


@torch.no_grad()
def denoising_psnr(
    prior: EDMDenoiser,
    images: Sequence[Tensor],
    *,
    levels: Sequence[float] = (25,),
    dtype: torch.dtype = torch.float32,
) -> dict[str, float]:
    """Returns the mean PSNR in dB of denoised images, by noise level.

    Args:
        prior: The denoiser.
        images: Images, each (1, C, H, W); the noise of image k has seed k.
        levels: Noise standard deviations, in 255ths of the range's width.
        dtype: Precision of the network's arithmetic.
    """
    width = prior.range[1] - prior.range[0]
    results = {}
    for level in levels:
        sigma, values = width * level / 255, []
        for k, x in enumerate(images):
            x = x.to(next(prior.parameters()).device)
            noise = noise_like(x, k)
            with torch.autocast(x.device.type, torch.bfloat16, enabled=dtype == torch.bfloat16):
                estimate = prior.denoise(x + sigma * noise, sigma)
            pair = to_channels(estimate), to_channels(x)
            values.append(float(psnr(*pair, data_range=width)))
        if values:
            results[f"{level:g}"] = sum(values) / len(values)
    return results


def calibration(
    prior: EDMDenoiser,
    images: Sequence[Tensor],
    *,
    sigmas: Sequence[float] = SIGMAS,
    probes: int = 1,
) -> dict[str, float]:
    """Returns predicted over measured squared error, by noise level; 1 is right.

    Args:
        prior: The denoiser.
        images: Images, each (1, C, H, W).
        sigmas: Noise levels, in image units.
        probes: Random signs and noises for each image; more make the divergence less random.
    """
    results = {}
    for sigma in sigmas:
        predicted = measured = 0.0
        for first, x in batched([x for x in images for _ in range(probes)]):
            x = x.to(next(prior.parameters()).device)
            each = list(enumerate(x.split(1), first))
            v = x + sigma * torch.cat([noise_like(one, k) for k, one in each])
            v.requires_grad_()
            signs = to_channels(torch.cat([noise_like(one, 1000 + k) for k, one in each])).sign()
            estimate = prior.denoise(v, sigma)
            (back,) = torch.autograd.grad((to_channels(estimate) * signs).sum(), v)
            predicted += sigma**2 * float((to_channels(back) * signs).sum())
            measured += float((estimate - x).detach().abs().square().sum())
        results[f"{sigma:g}"] = predicted / measured
    return results


def batched(images: Sequence[Tensor], pixels: int = 1 << 16) -> Iterator[tuple[int, Tensor]]:
    """Yields batches of successive images of one shape, and the number of the first of each."""
    k = 0
    while k < len(images):
        most = max(1, pixels // images[k][0, 0].numel())
        _, group = next(groupby(images[k : k + most], lambda x: x.shape))
        batch = list(group)
        yield k, torch.cat(batch)
        k += len(batch)


def noise_like(x: Tensor, seed: int) -> Tensor:
    """Returns standard normal noise of a seed, the same on every device."""
    noise = randn_like(x.cpu(), torch.Generator().manual_seed(seed))
    return noise.to(x.device)
