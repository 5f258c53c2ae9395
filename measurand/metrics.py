r"""How far an estimate is from the truth, and whether its uncertainty is honest.

Every metric takes `(B, C, ...)` tensors, works in double precision, and returns one value per item
of the batch, shape `(B,)`. With `e = x - reference`:

    psnr   10 log10(data_range^2 / mean |e|^2)                     dB, higher is better
    nmse   sum |e|^2 / sum |reference|^2
    sam    mean over pixels of the angle between the two spectra   radians
    ssim   mean of (2 m_x m_r + c1)(2 s_xr + c2) / ((m_x^2 + m_r^2 + c1)(s_x^2 + s_r^2 + c2))

with local means m, sample covariances s, `c1 = (0.01 data_range)^2`, `c2 = (0.03 data_range)^2`.
SSIM follows scikit-image: a uniform 7-pixel window (or Wang's Gaussian of sd 1.5, cut at 3.5 sd),
covariances with the N/(N-1) factor, windows that would leave the image not counted, and colour as
the mean over channels. Other libraries pad the border and differ by about 1e-4.

`data_range` is the width of the interval the images live in: 2.0 for [-1, 1].

The two metrics of an ensemble take draws with shape `(B, S, C, ...)`, S draws for each item
(`samples.unflatten(0, (B, S))` after `measurement.repeat(S)`). `crps` is the unbiased estimate of
`E|X - r| - 1/2 E|X - X'|`, averaged over pixels: the absolute error when S = 1, and smallest when
the draws follow the true posterior. `coverage` is the fraction of pixels whose truth lies in the
central interval of the draws, whose ends sit at ranks `(S + 1)(1 -+ level) / 2`, so that draws
which are exchangeable with the truth are covered with probability `level` at any S.

Deviations that are too small or too large by a factor are mended by images whose truth is known:
with the scores `|truth - estimate| / sd` of their pixels, the conformal factor q is the score that
a share `level` of them does not exceed, and `estimate -+ q sd` then covers that share of pixels of
further images of the same kind, measured in the same way (split conformal prediction). Pixels of
one image are not independent: it is the number of images that counts.
"""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "conformal_factor",
    "coverage",
    "crps",
    "interval_coverage",
    "lpips",
    "nmse",
    "psnr",
    "sam",
    "ssim",
]


def _pair(x: Tensor, reference: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Both tensors in double precision, after a check that they are comparable."""
    if x.shape != reference.shape or x.ndim < 2:
        raise ValueError(
            f"{name}: got an estimate of shape {tuple(x.shape)} and a reference of shape "
            f"{tuple(reference.shape)}, wanted two equal shapes (B, C, ...)"
        )
    if x.is_complex() != reference.is_complex():
        raise TypeError(
            f"{name}: got {x.dtype} and {reference.dtype}, wanted both real or complex"
        )
    kind = torch.complex128 if x.is_complex() else torch.float64
    return x.to(kind), reference.to(kind)


def psnr(x: Tensor, reference: Tensor, *, data_range: float) -> Tensor:
    """Peak signal-to-noise ratio, in dB.

    `10 log10(data_range^2 / mean |x - reference|^2)`; infinite for equal images.

    Args:
        x: Estimate, with shape (B, C, ...); real or complex.
        reference: Truth, of the same shape.
        data_range: Width of the interval of values: 2.0 for [-1, 1].
    Returns:
        One value per item, with shape (B,).
    """
    x, reference = _pair(x, reference, "psnr")
    error = (x - reference).abs().square().flatten(1).mean(1)
    return 10.0 * torch.log10(data_range**2 / error)


def nmse(x: Tensor, reference: Tensor) -> Tensor:
    """Normalised squared error `||x - reference||^2 / ||reference||^2`, with shape (B,).

    Args:
        x: Estimate, with shape (B, C, ...); real or complex.
        reference: Truth, of the same shape, not all zero.
    """
    x, reference = _pair(x, reference, "nmse")
    error = (x - reference).abs().square().flatten(1).sum(1)
    return error / reference.abs().square().flatten(1).sum(1)


def sam(x: Tensor, reference: Tensor) -> Tensor:
    """Spectral angle: mean over pixels of `arccos(<x, r> / (|x| |r|))`, in radians.

    The inner product runs over channels. Pixels where either spectrum is zero have no angle and
    are left out; an item without any other pixel gives NaN.

    Args:
        x: Estimate, with shape (B, C, ...), C >= 2, real, in physical (non-negative) units.
        reference: Truth, of the same shape.
    """
    x, reference = _pair(x, reference, "sam")
    scale = x.norm(dim=1) * reference.norm(dim=1)
    seen = scale > 0
    cosine = (x * reference).sum(1) / scale.clamp_min(torch.finfo(scale.dtype).tiny)
    angle = torch.where(seen, cosine.clamp(-1.0, 1.0).arccos(), 0.0)
    return angle.flatten(1).sum(1) / seen.flatten(1).sum(1)


def ssim(
    x: Tensor,
    reference: Tensor,
    *,
    data_range: float,
    window: int = 7,
    gaussian: float | None = None,
    unbiased: bool = True,
) -> Tensor:
    """Structural similarity in scikit-image's convention, with shape (B,).

    Args:
        x: Estimate, with shape (B, C, *spatial), real; 1 to 3 spatial axes.
        reference: Truth, of the same shape.
        data_range: Width of the interval of values: 2.0 for [-1, 1].
        window: Side of the uniform window, in pixels, odd.
        gaussian: Standard deviation of a Gaussian window instead, in pixels (Wang et al.: 1.5).
        unbiased: Whether covariances carry the factor N/(N-1), N the pixels of a window.
    References:
        | Image quality assessment: from error visibility to structural similarity (Wang, 2004)
        | doi:10.1109/TIP.2003.819861
    """
    x, reference = _pair(x, reference, "ssim")
    if x.is_complex():
        raise TypeError("ssim: got complex images, wanted real ones (compare magnitudes: x.abs())")
    if gaussian is None:
        weights = x.new_full((window,), 1.0 / window)
    else:
        radius = int(3.5 * gaussian + 0.5)
        offsets = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
        weights = torch.exp(-0.5 * (offsets / gaussian) ** 2)
        weights = weights / weights.sum()
    side, axes = len(weights), range(2, x.ndim)
    if side % 2 == 0 or not axes or min(x.shape[2:]) < side:
        raise ValueError(
            f"ssim: got images of {'x'.join(map(str, x.shape[2:])) or 'no'} pixels and a window "
            f"of side {side}, wanted an odd side that fits into the image"
        )

    def local_mean(image: Tensor) -> Tensor:
        for axis in axes:  # separable, without padding: only windows inside the image
            rows = image.movedim(axis, -1)
            rows = F.conv1d(rows.reshape(-1, 1, rows.shape[-1]), weights[None, None]).view(
                *rows.shape[:-1], -1
            )
            image = rows.movedim(-1, axis)
        return image

    pixels = side ** len(axes)
    bessel = pixels / (pixels - 1) if unbiased else 1.0
    m_x, m_r = local_mean(x), local_mean(reference)
    s_x = bessel * (local_mean(x * x) - m_x * m_x)
    s_r = bessel * (local_mean(reference * reference) - m_r * m_r)
    s_xr = bessel * (local_mean(x * reference) - m_x * m_r)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    above = (2.0 * m_x * m_r + c1) * (2.0 * s_xr + c2)
    below = (m_x * m_x + m_r * m_r + c1) * (s_x + s_r + c2)
    return (above / below).flatten(1).mean(1)


def _ensemble(draws: Tensor, reference: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Sorted draws (B, S, ...) and the reference (B, 1, ...), in double precision."""
    if draws.ndim != reference.ndim + 1 or draws.shape[:1] + draws.shape[2:] != reference.shape:
        raise ValueError(
            f"{name}: got draws of shape {tuple(draws.shape)} and a reference of shape "
            f"{tuple(reference.shape)}, wanted (B, S, C, ...) and (B, C, ...)"
        )
    if draws.is_complex() or reference.is_complex():
        raise TypeError(
            f"{name}: got complex images, wanted real ones (real part, magnitude, ...)"
        )
    return draws.double().sort(dim=1).values, reference.double()[:, None]


def crps(draws: Tensor, reference: Tensor) -> Tensor:
    """Continuous ranked probability score of an ensemble, averaged over pixels.

    `1/S sum_i |x_i - r| - 1/(2 S (S-1)) sum_ij |x_i - x_j|`: unbiased in the number of draws.

    Args:
        draws: S draws for each item, with shape (B, S, C, ...), real.
        reference: Truth, with shape (B, C, ...).
    Returns:
        One value per item, in image units, with shape (B,).
    References:
        | Strictly proper scoring rules, prediction, and estimation (Gneiting and Raftery, 2007)
        | doi:10.1198/016214506000001437
    """
    ordered, reference = _ensemble(draws, reference, "crps")
    count = ordered.shape[1]
    error = (ordered - reference).abs().flatten(1).mean(1)
    if count == 1:
        return error
    # sum_ij |x_i - x_j| = 2 sum_i (2 i - S - 1) x_(i) over the sorted draws, i = 1..S
    rank = torch.arange(1 - count, count, 2, dtype=torch.float64, device=ordered.device)
    spread = torch.einsum("s,bs...->b...", rank, ordered) / (count * (count - 1))
    return error - spread.flatten(1).mean(1)


def coverage(draws: Tensor, reference: Tensor, *, level: float) -> Tensor:
    """Fraction of pixels whose truth lies in the central interval of the draws.

    Args:
        draws: S draws for each item, with shape (B, S, C, ...), real.
        reference: Truth, with shape (B, C, ...).
        level: Nominal probability of the interval, at most (S-1)/(S+1).
    Returns:
        One fraction per item, with shape (B,); equal to `level` on average for exact draws.
    """
    ordered, reference = _ensemble(draws, reference, "coverage")
    count = ordered.shape[1]
    lower = (count + 1) * (1.0 - level) / 2.0 - 1.0  # rank counted from zero
    if not 0.0 < level < 1.0 or lower < -1e-9:
        needed = math.ceil((1.0 + level) / (1.0 - level) - 1e-9) if 0.0 < level < 1.0 else 3
        raise ValueError(
            f"coverage: got {count} draws and level {level}, wanted a level in (0, 1) and at "
            f"least {needed} draws"
        )

    def quantile(rank: float) -> Tensor:
        below = min(max(math.floor(rank), 0), count - 1)
        above = min(below + 1, count - 1)
        part = min(max(rank - below, 0.0), 1.0)
        return torch.lerp(ordered[:, below], ordered[:, above], part)

    low, high = quantile(lower), quantile(count - 1 - lower)
    reference = reference[:, 0]
    return ((low <= reference) & (reference <= high)).double().flatten(1).mean(1)


def conformal_factor(
    estimate: Tensor, sd: Tensor, reference: Tensor, *, level: float = 0.9
) -> float:
    """Return the factor q for which `estimate -+ q sd` covers a share `level` of the pixels.

    The quantile of rank `ceil((n + 1) level)` of the n scores `|reference - estimate| / sd`.

    Args:
        estimate: Estimates of images whose truth is known, such as means of draws, with shape
            (B, C, ...); real. A dozen images or more.
        sd: Their standard deviations, of the same shape; not negative.
        reference: The truths, of the same shape.
        level: Share of the pixels that the intervals are to cover.
    Returns:
        The factor; 1.645 at a level of 0.9 where errors are normal with these deviations.
    Raises:
        ValueError: Shapes differ, the level is not in (0, 1), or pixels without deviation have
            errors, so that no factor is large enough.
    References:
        | A Gentle Introduction to Conformal Prediction and Distribution-Free Uncertainty
          Quantification (Angelopoulos & Bates, 2021)
        | arXiv:2107.07511
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"conformal_factor: got level {level}, wanted one in (0, 1)")
    error, sd = _deviations(estimate, sd, reference, "conformal_factor")
    scores = torch.where(error > 0, error / sd, torch.zeros_like(error)).flatten()
    rank = min(math.ceil((scores.numel() + 1) * level), scores.numel())
    factor = float(scores.kthvalue(rank).values)
    if not math.isfinite(factor):
        wrong = int((~torch.isfinite(scores)).sum())
        raise ValueError(
            f"conformal_factor: {wrong} of {scores.numel()} pixels have errors and a deviation of "
            "zero, so no factor reaches the level"
        )
    return factor


def interval_coverage(
    estimate: Tensor, sd: Tensor, reference: Tensor, *, factor: float = 1.0
) -> Tensor:
    """Fraction of pixels whose truth lies in `estimate -+ factor sd`.

    Args:
        estimate: Estimates, with shape (B, C, ...); real.
        sd: Their standard deviations, of the same shape.
        reference: The truths, of the same shape.
        factor: Half the width of the interval, in deviations; see `conformal_factor`.
    Returns:
        One fraction per item, with shape (B,).
    """
    error, sd = _deviations(estimate, sd, reference, "interval_coverage")
    return (error <= factor * sd).double().flatten(1).mean(1)


def _deviations(
    estimate: Tensor, sd: Tensor, reference: Tensor, name: str
) -> tuple[Tensor, Tensor]:
    """Absolute errors and deviations, after a check that they are comparable."""
    x, truth = _pair(estimate, reference, name)
    if sd.shape != x.shape or sd.is_complex() or x.is_complex():
        raise ValueError(
            f"{name}: got deviations of {sd.dtype} with shape {tuple(sd.shape)} for an estimate "
            f"of {x.dtype} with shape {tuple(x.shape)}, wanted real ones of equal shape"
        )
    if not bool((sd >= 0).all()):
        raise ValueError(f"{name}: got deviations that are negative or NaN, wanted sd >= 0")
    return (x - truth).abs(), sd.double()


def lpips(x: Tensor, reference: Tensor, *, weights: str | Path) -> Tensor:
    """Learned perceptual distance on AlexNet features, from a local weights file.

    `sum_l mean_pixels w_l . (f_l(x)/|f_l(x)| - f_l(r)/|f_l(r)|)^2` over the five ReLU layers.

    Args:
        x: Estimate in [-1, 1], with shape (B, 3, H, W).
        reference: Truth, of the same shape.
        weights: A safetensors file with AlexNet's `features.{0,3,6,8,10}.{weight,bias}` and the
            heads `lin{0..4}.model.1.weight`. It is not part of this package.
    Returns:
        One distance per item, with shape (B,), 0 for equal images.
    References:
        | The unreasonable effectiveness of deep features as a perceptual metric (Zhang, 2018)
        | arXiv 1801.03924
    """
    from safetensors.torch import load_file

    _pair(x, reference, "lpips")
    if x.is_complex() or x.ndim != 4 or x.shape[1] != 3:
        raise ValueError(f"lpips: got shape {tuple(x.shape)}, wanted real (B, 3, H, W) in [-1, 1]")
    if not Path(weights).is_file():
        raise FileNotFoundError(
            f"lpips: no weights file at {weights}; give a local safetensors file"
        )
    tensors = load_file(str(weights), device=str(x.device))
    names = [f"features.{i}.weight" for i in (0, 3, 6, 8, 10)]
    heads = [f"lin{i}.model.1.weight" for i in range(5)]
    missing = [name for name in names + heads if name not in tensors]
    if missing:
        raise KeyError(f"lpips: {weights} lacks {missing[0]} ({len(missing)} tensors missing)")

    mean = x.new_tensor([-0.030, -0.088, -0.188]).view(3, 1, 1)
    scale = x.new_tensor([0.458, 0.448, 0.450]).view(3, 1, 1)
    f = (torch.cat([x, reference]) - mean) / scale
    distance = x.new_zeros(len(x))
    for layer, (name, head) in enumerate(zip(names, heads, strict=True)):
        if layer in (1, 2):
            f = F.max_pool2d(f, 3, 2)
        stride, padding = ((4, 2), (1, 2), (1, 1), (1, 1), (1, 1))[layer]
        kernel, bias = tensors[name], tensors[name.replace("weight", "bias")]
        f = F.relu(F.conv2d(f, kernel.to(f), bias.to(f), stride, padding))
        unit = f / (f.norm(dim=1, keepdim=True) + 1e-10)
        squared = (unit[: len(x)] - unit[len(x) :]).square()
        distance = distance + F.conv2d(squared, tensors[head].to(f)).mean((1, 2, 3))
    return distance
