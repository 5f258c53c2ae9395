r"""The noise level of an image, from the finest details of its flattest parts, and its doubts.

The image is cut into blocks of 8 x 8 pixels, and of each the orthonormal cosine transform is
taken. White noise has the same energy sigma^2 in every coefficient, and they are independent, so

    the flattest tenth of the blocks is chosen by the energy of low frequencies,  1 <= i + j <= 4,
    sigma^2 is the median over them of the mean energy of high frequencies,       i + j >= 9,

and the choice does not bias the estimate. A picture has little energy at high frequencies where it
has little at low ones. Blocks that say nothing of the noise are left out: those that touch a
constant window of 7 x 7 pixels (black borders, letter boxes, nodata), and those near pixels at the
lowest or highest value where more than 0.1 % of the image is (clipped).

An estimate is doubted where the coefficients are not those of white noise:

    spectrum     middle frequencies, 5 <= i + j <= 7, have another energy than high ones, or
                 horizontal details another than vertical ones: noise that is correlated
                 (demosaicked, resized, JPEG), or texture
    spread       energies vary more from block to block than a chi-squared variable: texture
    brightness   bright blocks are noisier than dark ones, or the other way round
    channels     channels that are not copies have the same noise: converted colors, as in JPEG
    holes        more than a quarter of the pixels, among others, were not measured
    too little   hardly any block is left: the image is small, constant or clipped

Pixels that were not measured are filled in by the mean of those that were in the 5 x 5 around
them. Where these are a share q of the pixels, with holes scattered among them, high frequencies
have about the energy q sigma^2, and the estimate is divided by sqrt(q).

Magnitudes of complex images (MRI) have Rayleigh noise where there is no signal: with the least
value of the image as zero, its mean is 1.91 of its standard deviations, which are 0.655 of sigma,
and its skewness 0.63. Where the darkest blocks have these, sigma is told by them.

References:
    | An Automated Technique of Noise Variance Estimation in the DCT Domain (Ponomarenko et al.,
      2003)
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["NoiseEstimate", "noise_seen"]

_BLOCK = 8
_WINDOW = 7  # constant windows of this side are no picture
_CLIPPED = 1e-3  # share of an image at its extreme value from which it is clipped there
_SHARE = 0.1  # of the blocks, the flattest
_MOST = 20_000  # blocks of one item
_FEWEST = 16
_HOLED = 0.75  # share of measured pixels, among which the others are scattered
_SPECTRUM = 1.12  # ratios of standard deviations that white noise does not have
_DIRECTIONS = 1.35
_SPREAD = 1.7
_BRIGHTNESS = 1.3
_CORRELATION = 0.3
_RAYLEIGH = math.sqrt(2 - math.pi / 2)  # standard deviation of magnitudes of noise of level one

_ORDER = torch.arange(_BLOCK)[:, None] + torch.arange(_BLOCK)
_LOW, _MIDDLE, _HIGH = (_ORDER > 0) & (_ORDER <= 4), (_ORDER >= 5) & (_ORDER <= 7), _ORDER >= 9
_ACROSS = (torch.arange(_BLOCK) >= 5) & (torch.arange(_BLOCK)[:, None] <= 2)

_NOT_WHITE = (
    "the finest details do not look like white noise (correlated noise, JPEG or texture): the "
    "true level may be another"
)
_UNEVEN = "bright parts have another noise than dark ones: one level is not true of both"
_SHARED = (
    "the channels share their noise (converted from other colors, such as those of JPEG): the "
    "true level may be another"
)
_MAGNITUDES = (
    "the dark parts have the noise of magnitudes (MRI): the level is that of bright parts, the "
    "dark ones have 0.66 of it about a mean that is not zero"
)
_HOLES = (
    "many pixels among the others were not measured: in fine texture the true level may be lower"
)
_TOO_LITTLE = "the image is small, constant or clipped almost everywhere: hardly any noise to see"


class NoiseEstimate(NamedTuple):
    """A noise level and what makes it doubtful.

    Attributes:
        sigma: Standard deviations, one per item, with shape (B,).
        doubts: Why they may be off by more than a fifth, in words; empty where nothing speaks
            against them.
    """

    sigma: Tensor
    doubts: tuple[str, ...]


def noise_seen(y: Tensor, seen: Tensor | None = None) -> NoiseEstimate:
    """Return the standard deviation of white noise in images, and doubts about it.

    Args:
        y: Images, with shape (B, C, H, W), at least 2 pixels high and wide. Of complex images the
            noise per real component is estimated.
        seen: Which values were measured, with the shape of y; all when absent. Good to a tenth
            where that is at least half of them.
    """
    if y.ndim != 4 or min(y.shape[-2:]) < 2:
        raise ValueError(
            f"estimate_sigma: got shape {tuple(y.shape)}, wanted (B, C, H, W) with H, W >= 2"
        )
    if y.is_complex():
        y = torch.view_as_real(y).movedim(-1, 1).flatten(1, 2)
        seen = None if seen is None else seen.repeat(1, 2, 1, 1)
    share = y.new_ones(len(y))
    if seen is not None and not bool(seen.all()):
        y, share = _filled(y, seen)
    items = [_one(item) for item in y.detach()]
    doubts = {doubt: None for _, own in items for doubt in own}
    if bool((share < _HOLED).any()):
        doubts[_HOLES] = None
    return NoiseEstimate(y.new_tensor([sigma for sigma, _ in items]) / share.sqrt(), tuple(doubts))


def _filled(y: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Images without their holes, and the share of measured pixels where these are scattered."""
    measured = seen.to(y.dtype)
    around, light = (
        functional.avg_pool2d(u, 5, 1, 2, count_include_pad=False)
        for u in (measured, torch.where(seen, y, 0.0))
    )
    among = (around > 0.2).to(y.dtype)  # not the inside of a large hole, which is constant
    share = (measured * among).flatten(1).sum(1) / among.flatten(1).sum(1).clamp_min(1.0)
    return torch.where(seen, y, light / around.clamp_min(0.01)), share.clamp_min(0.01)


def _one(y: Tensor) -> tuple[float, list[str]]:
    """The level and the doubts of an image (C, H, W)."""
    if min(y.shape[-2:]) < _BLOCK:
        return _diagonal_details(y), [_TOO_LITTLE]
    blocks, clear = _blocks(y)
    c = _coefficients(blocks)
    energies = c.square()
    if int(clear.sum()) < _FEWEST:
        if bool((y == y.flatten()[0]).all()):
            return 0.0, [_TOO_LITTLE]
        kept = energies[clear] if bool(clear.any()) else energies.flatten(0, 1)
        return _level(_flattest(kept), _HIGH), [_TOO_LITTLE]
    flat = _flattest(energies[clear])
    dark = _of_magnitudes(y, blocks[clear])
    if dark is not None:
        return _level(energies[clear][dark], _HIGH) / _RAYLEIGH, [_MAGNITUDES]
    doubts = [] if _white(flat) else [_NOT_WHITE]
    if _brightness_matters(blocks[clear].mean((-2, -1)), energies[clear]):
        doubts.append(_UNEVEN)
    everywhere = clear.all(0)
    if len(y) > 1 and int(everywhere.sum()) >= _FEWEST and _shared(c[:, everywhere]):
        doubts.append(_SHARED)
    return _level(flat, _HIGH), doubts


def _of_magnitudes(y: Tensor, blocks: Tensor) -> Tensor | None:
    """Which of the blocks (N, 8, 8) are dark, where these have Rayleigh noise; None where not."""
    count = max(_FEWEST, int(_SHARE * len(blocks)))
    means = blocks.mean((-2, -1)) - y.min()
    darkest = means.topk(min(count, len(blocks)), largest=False)
    u = (blocks[darkest.indices] - y.min()).double().flatten()
    deviation = float(u.std())
    if deviation == 0:
        return None
    skewness = float((u - u.mean()).pow(3).mean()) / deviation**3
    ratio = float(u.mean()) / deviation
    if not (1.75 < ratio < 2.05 and 0.5 < skewness < 0.76):
        return None
    return means < 1.3 * darkest.values.mean()  # not the darkest alone, which are quieter


def _brightness_matters(brightness: Tensor, energies: Tensor) -> bool:
    """Whether the darkest and the brightest third of the blocks have white noise of two levels."""
    low, high = brightness.quantile(1 / 3), brightness.quantile(2 / 3)
    dark, bright = _flattest(energies[brightness <= low]), _flattest(energies[brightness >= high])
    differ = _apart(_level(dark, _HIGH), _level(bright, _HIGH)) > _BRIGHTNESS
    return differ and _white(dark) and _white(bright)


def _shared(c: Tensor) -> bool:
    """Whether channels that are not copies have the same noise, by coefficients (C, N, 8, 8)."""
    low = c[..., _LOW.to(c.device)].square().mean((0, 2))
    flat = low.topk(max(_FEWEST, int(_SHARE * len(low))), largest=False).indices
    details = c[:, flat][..., _HIGH.to(c.device)].flatten(1)
    between = torch.corrcoef(details).nan_to_num(0.0).triu(1)
    return bool(((between.abs() > _CORRELATION) & (between < 0.999)).any())


def _blocks(y: Tensor) -> tuple[Tensor, Tensor]:
    """All blocks, with shape (C, N, 8, 8), and which of them may be looked at, (C, N)."""
    step = max(3, math.ceil(math.sqrt(y.numel() / _MOST)))
    step += 1 - step % 2  # odd: all positions within the blocks of a JPEG
    blocks = functional.unfold(y[:, None], _BLOCK, stride=step).transpose(1, 2)
    void = functional.unfold(_void(y)[:, None], _BLOCK, stride=step)
    return blocks.unflatten(-1, (_BLOCK, _BLOCK)), void.amax(1) == 0


def _void(y: Tensor) -> Tensor:
    """One where a pixel says nothing of the noise, with shape (C, H, W)."""
    edge = (_WINDOW - 1,) * 4
    constant = (_highest(y) == -_highest(-y)).to(y.dtype)
    constant = _highest(functional.pad(constant, edge))
    void = constant
    for extreme in (y.min(), y.max()):
        at = ((y == extreme) & (constant == 0)).to(y.dtype)
        if float(at.mean()) > _CLIPPED:
            around = _highest(functional.pad(at, (_WINDOW // 2,) * 4))
            void = torch.maximum(void, around)
    return void


def _highest(y: Tensor) -> Tensor:
    """The largest value of each window, with shape (C, H - 6, W - 6)."""
    return functional.max_pool2d(functional.max_pool2d(y, (_WINDOW, 1), 1), (1, _WINDOW), 1)


def _coefficients(blocks: Tensor) -> Tensor:
    """The orthonormal cosine transform of blocks."""
    k = torch.arange(_BLOCK, dtype=torch.float64)
    basis = torch.cos(math.pi * (k + 0.5) * k[:, None] / _BLOCK) * math.sqrt(2 / _BLOCK)
    basis[0] /= math.sqrt(2)
    basis = basis.to(blocks.device, blocks.dtype)
    return basis @ blocks @ basis.T


def _flattest(energies: Tensor) -> Tensor:
    """Those with the least energy at low frequencies."""
    count = min(len(energies), max(_FEWEST, int(_SHARE * len(energies))))
    low = energies[:, _LOW.to(energies.device)].mean(1)
    return energies[low.topk(count, largest=False).indices]


def _level(energies: Tensor, band: Tensor) -> float:
    """The standard deviation in a band of frequencies: the median over the blocks."""
    n = int(band.sum())
    median = float(energies[:, band.to(energies.device)].mean(1).median())
    return math.sqrt(median) / (1 - 2 / (9 * n)) ** 1.5  # the median of chi-squared, of n degrees


def _white(energies: Tensor) -> bool:
    """Whether blocks have the energies of white noise."""
    high = energies[:, _HIGH.to(energies.device)].mean(1).sqrt()
    low, most = (float(high.quantile(q)) for q in (0.1, 0.9))
    return (
        most <= _SPREAD * low
        and _apart(_level(energies, _MIDDLE), _level(energies, _HIGH)) <= _SPECTRUM
        and _apart(_level(energies, _ACROSS), _level(energies, _ACROSS.T)) <= _DIRECTIONS
    )


def _apart(a: float, b: float) -> float:
    """The quotient of two levels, the larger by the smaller."""
    low, high = sorted((a, b))
    return high / max(low, 1e-30) if high else 1.0


def _diagonal_details(y: Tensor) -> float:
    """`median |h * h^T * y| / 0.6745`, with h = (1, -1)/sqrt(2), for what has not one block."""
    detail = (y[..., 1:, 1:] - y[..., 1:, :-1] - y[..., :-1, 1:] + y[..., :-1, :-1]) / 2
    return float(detail.abs().median()) / 0.6744897501960817
