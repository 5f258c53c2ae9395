r"""The inputs that splitting methods give to a denoiser: less noise than they say, and not white.

A data step leaves of white noise n at a level sigma what the data do not determine, and little of
what they do. With P the part of an image that the data determine,

    v = x + sigma (a P n + b (n - P n)),    0 <= a, b <= 1,

where P is a mask of pixels or of a box (inpainting), a low pass (blur), the mean over blocks
(super-resolution), or a set of frequency lines (MRI); a = b is white noise of a lower level. A
fifth of the shares a and b are zero: where the data are good, no noise is left. Of a blur with the
spectrum K the noise of the data themselves is left, too, most at the frequencies that K hardly
passes, where it is as strong as stated and no stronger:

    v = x + sigma a F^-1 [ 2 sqrt(gamma) |K| / (|K|^2 + gamma) F n ].

A network that was trained on noise of the stated level alone may answer such inputs with values
far out of range, most of all smooth ones: it takes for granted that there is noise to remove. The
cure are smooth images with less noise than stated. Textured ones do harm: a network that has seen
them takes the noise that is left for texture, and methods that amplify it step by step, as HQS
does on a Gaussian blur, lose decibels.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

from ..tensors import from_channels, to_channels

__all__ = ["remaining", "smooth"]

_SMOOTH = ("bilinear", "nearest")  # of a few pixels: gradients, and areas with sharp edges


def remaining(noise: Tensor, generator: torch.Generator) -> Tensor:
    """Return what a data step may leave of noise, a P n + b (n - P n), of another P for each item.

    Args:
        noise: White noise, with shape (B, C, H, W).
        generator: Draws P, a and b.
    Returns:
        The remaining noise, of noise's shape; nowhere stronger than it in the mean.
    """
    parts = (_pixels, _box, _low_pass, _blocks, _lines)
    left = []
    for n in noise.split(1):
        random = torch.rand(6, generator=generator, device=noise.device)
        a, b = (1.25 * random[:2] - 0.25).clamp_min(0)
        if random[2] < 0.35:
            left.append(a * n)
            continue
        if random[2] < 0.7:
            # rarely much weaker than stated: a method lets its levels fall with its noise
            left.append((1.25 * random[0]).clamp_max(1) * _deblurred(n, random[3:]))
            continue
        determined = parts[int(random[3] * len(parts))](n, random[4:], generator)
        left.append(a * determined + b * (n - determined))
    return torch.cat(left)


def smooth(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return smooth images: constants, ramps, and few areas.

    Half of them have the values of other images, half any of [-1, 1] (of complex images both parts
    do): a network that has seen black background alone keeps no other grey.

    Args:
        x: Images, with shape (B, C, H, W).
        generator: Draws the pixels that are kept: one, two by two, or three by three.
    Returns:
        Images of x's shape.
    """
    made = []
    for image in to_channels(x).split(1):
        n, kind, row, column = torch.rand(4, generator=generator, device=x.device).tolist()
        n, (h, w) = 1 + int(3 * n), image.shape[2:]
        rows = (torch.arange(n, device=x.device) * (h // n) + int(row * h)) % h
        columns = (torch.arange(n, device=x.device) * (w // n) + int(column * w)) % w
        few = image[:, :, rows[:, None], columns]
        others = 2 * torch.rand(few.shape, generator=generator, device=x.device) - 1
        few = few if int(8 * kind) % 2 else others.to(few)
        mode = _SMOOTH[int(4 * kind) == 0]
        made.append(functional.interpolate(few, size=(h, w), mode=mode))
    images = torch.cat(made)
    return from_channels(images) if x.is_complex() else images


def _deblurred(n: Tensor, random: Tensor) -> Tensor:
    """The noise that a data step leaves of a blur: a Gaussian one, or one of a straight motion."""
    rows, columns = (torch.fft.fftfreq(k, device=n.device) for k in n.shape[2:])
    motion = random[0] < 0.4
    width = 0.5 * 8 ** float(random[1])  # pixels: deviations of 0.5 to 4, motions of 3 to 24
    if motion:
        angle = math.pi * random[0] / 0.4
        spectrum = torch.sinc(6 * width * (rows[:, None] * angle.sin() + columns * angle.cos()))
    else:
        squares = rows[:, None].square() + columns.square()
        spectrum = (-2 * (math.pi * width) ** 2 * squares).exp()
    root = 0.003 * 200 ** float(random[2])  # of gamma: good data, or loud ones
    return _filtered(n, 2 * root * spectrum.abs() / (spectrum.square() + root**2))


def _pixels(n: Tensor, random: Tensor, generator: torch.Generator) -> Tensor:
    seen = torch.rand(n.shape[2:], generator=generator, device=n.device) < random[0]
    return n * seen


def _box(n: Tensor, random: Tensor, generator: torch.Generator) -> Tensor:
    h, w = n.shape[2:]
    mask = torch.zeros(h, w, device=n.device)
    top, left = int(random[0] * h * 0.8), int(random[1] * w * 0.8)
    mask[top : top + h // 2, left : left + w // 2] = 1
    return n * mask


def _low_pass(n: Tensor, random: Tensor, generator: torch.Generator) -> Tensor:
    cut = 0.03 * 16 ** float(
        random[0]
    )  # cycles per pixel: from blurs of ten pixels to nearly none
    rows, columns = (torch.fft.fftfreq(k, device=n.device) for k in n.shape[2:])
    gain = (-(rows[:, None].square() + columns.square()) / (2 * cut**2)).exp()
    return _filtered(n, gain)


def _blocks(n: Tensor, random: Tensor, generator: torch.Generator) -> Tensor:
    s = 2 + int(3 * random[0])
    real = to_channels(n)
    means = functional.avg_pool2d(real, s, ceil_mode=True)
    means = means.repeat_interleave(s, 2).repeat_interleave(s, 3)
    means = means[..., : n.shape[2], : n.shape[3]]
    return from_channels(means) if n.is_complex() else means


def _lines(n: Tensor, random: Tensor, generator: torch.Generator) -> Tensor:
    width = n.shape[3]
    kept = torch.rand(width, generator=generator, device=n.device) < 0.1 + 0.5 * random[0]
    index = torch.arange(width, device=n.device)
    kept = kept[torch.minimum(index, width - index)]  # of both signs, as for a real image
    kept = kept | (torch.minimum(index, width - index) < 0.04 * width)
    return _filtered(n, kept.to(torch.float32).expand(n.shape[2:]))


def _filtered(n: Tensor, gain: Tensor) -> Tensor:
    filtered = torch.fft.ifft2(torch.fft.fft2(n) * gain)
    return filtered if n.is_complex() else filtered.real
