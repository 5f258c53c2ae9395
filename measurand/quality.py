r"""How good a prior is on images that it was not trained on, and whether it knows its own error.

    psnr          of D(x + sigma n, sigma), sigma = width level / 255, in dB of the range's width
    calibration   E |D(v, sigma) - x|^2 against sigma^2 div D(v, sigma), which are equal for the
                  conditional mean D(v, sigma) = E[x given v] (Stein, Tweedie)

The divergence is that of the real coordinates, by random signs.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
from torch import Tensor

from .measurement import Measurement
from .metrics import psnr
from .priors.edm import EDMDenoiser
from .problems import Problems, drawn
from .tensors import randn_like, to_channels

__all__ = ["LEVELS", "SIGMAS", "calibration", "denoising_psnr", "restoration_psnr"]

LEVELS = (5.0, 15.0, 25.0, 50.0, 75.0, 100.0)  # 255ths of the range's width
SIGMAS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # image units


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
        for first, x in alike([x for x in images for _ in range(probes)]):
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


def alike(images: Sequence[Tensor], pixels: int = 1 << 16) -> Iterator[tuple[int, Tensor]]:
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
