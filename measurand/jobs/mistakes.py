"""Data that contradict what was said of them: the mask of other data, noise in other units.

    mask     of k-space: samples that are zero are selected, and others that are not are left out;
             of pictures: what is selected has one value, what is left out has not; or what is
             zero is what the turned mask leaves out, or as much elsewhere; or what is selected
             is noise around zero
    holes    zeros one by one among samples that are not, without a mask (a note)
    noise    has three times the deviation of all data, which contain it
    blur     is more than three times as wide as the picture

What is refused here would give an image without a word, and a wrong one.
"""

import torch
from torch import Tensor
from torch.nn import functional

from ..data.ranges import Range
from ..data.sampling import gaps
from ..operators.convolution import FramedBlur
from .noise_kinds import Poisson

__all__ = [
    "TURNED",
    "check_counts",
    "check_level",
    "check_selection",
    "check_width",
    "narrow",
    "unmeasured",
]

_VALUES = 16  # that a picture has at least, if it is neither dithered nor drawn
_PICTURE = 0.15  # of the samples, the least that a picture is left out of by mistake
_SHARE = 0.05  # of the samples of a mask that may be wrong
_ALIKE = 0.005  # difference of two shares of all pixels that are hardly so by chance
_HOLES = 0.02  # of the samples that are zero among others
_FILLED = 0.02  # of a range that samples fill at least
_COUNTS = 30  # whole numbers below are counts of light, which are zero at times
_BESIDE = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]])[None, None]
_TIMES = 3.0
_WIDE = 3  # times a picture that a blur may be wide: its image has nine more around the picture
TURNED = {
    "mask[::-1]": lambda a: a.flip(-2),
    "mask[:, ::-1]": lambda a: a.flip(-1),
    "mask[::-1, ::-1]": lambda a: a.flip(-2, -1),
    "mask.T": lambda a: a.mT,
    "np.rot90(mask)": lambda a: a.rot90(1, (-2, -1)),
    "np.rot90(mask, -1)": lambda a: a.rot90(-1, (-2, -1)),
    "np.rot90(mask, 2).T": lambda a: a.flip(-2, -1).mT,
}


def check_selection(name: str, x: Tensor, seen: Tensor) -> None:
    """Check that a mask is that of the data.

    Args:
        name: The file of the data.
        x: All data of it, with shape (N, C, H, W), also what was not measured.
        seen: What the mask selects, with the same shape.
    Raises:
        ValueError: It is the mask of other data.
    """
    if bool(seen.all()) or x.ndim != 4:
        return
    if x.is_complex():
        chosen, empty = seen.all(1), (x == 0).all(1)
        wrong = [float(w.sum() / chosen.sum()) for w in (chosen & empty, ~(chosen | empty))]
        if min(wrong) > _SHARE and gaps(x[len(x) // 2].numpy()):
            raise ValueError(
                f"{name}: the mask is not that of the data: {100 * wrong[0]:.0f} % of the samples "
                "in it are zero, and others that are not lie beside it. Leave --operator.mask "
                "away, if the operator sees the mask in the data, or save the mask "
                "(abs(kspace) > 0).any(0) of (coils, H, W)"
            )
        return
    inside, outside = x[seen], x[~seen & ~x.isnan()]  # what is NaN is left out rightly
    if not len(outside):
        return
    value = inside.median()
    if (
        float((inside == value).double().mean())
        > 0.99
        > 0.1 + float((outside == value).double().mean())
    ):
        raise ValueError(
            f"{name}: the mask selects pixels that all have the value {float(value):.4g}, and "
            "leaves out those that differ: is it inverted? Not zero is what was measured; save "
            "mask == 0"
        )
    spread, apart = (float((v - v.median()).abs().median()) for v in (inside, outside))
    if (
        float(seen.double().mean()) > _SHARE
        and float((~seen).double().mean()) > _PICTURE  # stars and lamps are masked rightly
        and spread < 0.2 * apart
        and abs(float(value)) < 3 * spread < abs(float(outside.median()))
    ):
        raise ValueError(
            f"{name}: the mask selects pixels that are noise around zero, of {spread:.3g}, and "
            f"leaves out those that vary by {apart:.3g}: is it inverted? Not zero is what was "
            "measured; save mask == 0"
        )
    _check_place(name, (x == 0).all(1), ~seen.any(1))


def narrow(x: Tensor, seen: Tensor, stated: Range | None) -> list[str]:
    """Return a note where samples fill a fiftieth of the range that was said for them, or less.

    Args:
        x: Real data, with shape (N, C, H, W).
        seen: What counts as measured, with the same shape.
        stated: The samples that mean black and white, where the user says it.
    """
    values = x[seen & ~x.isnan()]
    if stated is None or not len(values):
        return []
    low, high = float(values.min()), float(values.max())
    if low == high or high - low > _FILLED * (stated[1] - stated[0]):
        return []
    return [
        f"samples span [{low:.4g}, {high:.4g}], hardly any of --value-range {stated[0]:g} "
        f"{stated[1]:g}: without contrast to the prior; is it in the units of the file?"
    ]


def unmeasured(x: Tensor, seen: Tensor) -> list[str]:
    """Return a note where samples that count as measured look like holes: zero, one by one.

    More than 2 % are exactly zero, most of them beside others that are not, and hardly any others
    are near zero; few counts and pictures of few values are like that rightly.

    Args:
        x: Real data, with shape (N, C, H, W).
        seen: What counts as measured, with the same shape.
    """
    zero, counts = (x == 0).all(1, keepdim=True), seen.all(1, keepdim=True)
    others = x[(~zero & counts & ~x.isnan()).expand(x.shape)].abs()
    share = float((zero & counts).sum() / counts.sum().clamp_min(1))
    if share < _HOLES or len(others[:100_000].unique()) < _VALUES:
        return []
    usual = float(others.median())
    few = usual < _COUNTS and bool((others == others.round()).all())
    faint = float((others < 0.1 * usual).double().mean())
    if few or faint > _HOLES:  # so is noise that was cut at zero
        return []
    full = (~zero).to(x.dtype)
    beside = functional.conv2d(full, _BESIDE.to(x.dtype), padding=1) > 0
    holes = zero & counts
    if float((holes & beside).sum() / holes.sum()) < 0.5:
        return []
    return [
        f"{100 * share:.3g} % of the samples are exactly zero, one by one among others: if they "
        "were not measured, say which were (--seen MASK, or --operator mask)"
    ]


def _check_place(name: str, zero: Tensor, left_out: Tensor) -> None:
    """Raise a `ValueError` where data were zeroed by the same mask, but in another place.

    Args:
        name: The file of the data.
        zero: Which pixels are zero in all channels, with shape (N, H, W).
        left_out: Which pixels the mask leaves out, with the same shape.
    """
    share, apart = left_out.double().mean(), (left_out & ~zero).sum() / left_out.sum()
    if not (share > _SHARE and apart > _SHARE and zero.double().mean() < 1 - _SHARE):
        return
    for way, turned in TURNED.items():
        other = turned(left_out)
        if other.shape == zero.shape and bool(zero[other].double().mean() > 0.99):
            raise ValueError(
                f"{name}: the pixels that are zero are not those that the mask leaves out, but "
                f"those of the mask turned: save {way} (a picture is turned upright by its EXIF "
                "orientation, an array is not)"
            )
    if apart > 0.25 and float((zero.double().mean() - share).abs()) < _ALIKE:
        raise ValueError(
            f"{name}: as many pixels are zero as the mask leaves out, {100 * share:.3g} %, but "
            f"{100 * apart:.3g} % of these are others: is it shifted, or another image's?"
        )


def check_level(name: str, y: Tensor, seen: Tensor, sigma: float, unit: float, said: str) -> None:
    """Check that a noise level can be one of the data: they contain it.

    Args:
        name: The file of the data.
        y: The data.
        seen: Which of them were measured.
        sigma: Noise level in units of y, per real component.
        unit: What `--sigma` is in, in units of y.
        said: What it is in, in words.
    Raises:
        ValueError: It is too large for any data like these.
    """
    values = torch.view_as_real(y[seen]).flatten() if y.is_complex() else y[seen]
    spread = float(values.double().std()) if values.numel() > 1 else 0.0
    if spread > 0 and sigma > _TIMES * spread:
        raise ValueError(
            f"--sigma: got {sigma * unit:.4g}, and all data of {name} have a deviation of "
            f"{spread * unit:.3g}, noise included; --sigma is in {said}"
        )


def check_counts(name: str, noise: Poisson, u: Tensor, deviation: Tensor) -> None:
    """Check that samples can be counts of a detector.

    Args:
        name: The file of the data.
        noise: The detector.
        u: Samples that were measured.
        deviation: Their standard deviation by that detector.
    Raises:
        ValueError: They lie below the offset, or vary far less than their counts would.
    """
    if float(u.double().mean()) <= noise.offset:
        raise ValueError(
            f"--noise.offset: got {noise.offset:g}, and the mean sample of {name} is "
            f"{float(u.double().mean()):.4g}; wanted the sample without any light, below it"
        )
    spread = float(u.double().std()) if u.numel() > 1 else 0.0
    if spread > 0 and float(deviation.min()) > _TIMES * spread:
        raise ValueError(
            f"--noise.gain: with {noise.gain:g} samples per count and a read noise of "
            f"{noise.read:g} every sample of {name} has a deviation above "
            f"{float(deviation.min()):.3g}, and all of them vary by {spread:.3g}; wanted samples "
            "of the file per count"
        )


def check_width(operator: FramedBlur, name: str) -> None:
    """Check that a blur leaves something of a picture to see.

    Args:
        operator: The blur.
        name: The file of the picture.
    Raises:
        ValueError: It is far wider than the picture, and would take as long.
    """
    kernel = tuple(operator.kernel.shape[-2:])
    frame = operator.framed(torch.empty(0, *operator.in_shape)).shape[-2:]
    if max(kernel) > _WIDE * max(frame):
        raise ValueError(
            f"{name}: got a blur of {kernel[0]} x {kernel[1]} pixels and a picture of "
            f"{frame[0]} x {frame[1]}, wanted a blur at most {_WIDE} times as wide; are its "
            "numbers in pixels of this picture?"
        )
