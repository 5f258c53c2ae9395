r"""Questions of k-space: its samples, its order, its coils.

    samples  points that the mask calls measured, and where all coils are exactly zero
    order    the largest magnitudes stand at the zero frequency, at index (H // 2, W // 2)
    coils    many coils see one image: what no image explains, `min_x ||A x - y|| / ||y||`, is
             noise. Where it is more, the same is asked of data that are conjugated, mirrored,
             or of an image whose halves are exchanged, and of maps that are conjugated,
             transposed, mirrored or exchanged in that way

Each answer is a `Verdict`.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from ...measurement import Measurement
from ...operators import SENSE, CartesianMRI, FourierMask, LinearOperator
from .verdict import DOUBTFUL, FITS, NOT, Verdict

__all__ = ["coils", "halves", "is_kspace", "order", "samples"]


def is_kspace(operator: LinearOperator) -> bool:
    """Whether the data are centred k-space behind a mask."""
    return isinstance(operator, SENSE | CartesianMRI | FourierMask)


def samples(operator: LinearOperator, y: Tensor) -> Verdict:
    """Whether data (B, coils, H, W) are there wherever the mask says so."""
    measured = operator.observed(torch.ones_like(y)) != 0
    empty = measured.all(1) & (y == 0).all(1)
    share = float(empty.sum() / measured.all(1).sum().clamp_min(1))
    words = f"{100 * share:.2g} % of the samples in the mask are exactly zero"
    if share <= 0.01:
        return Verdict("samples", FITS, words)
    advice = (
        "the mask is not that of the data; theirs is (abs(y) > 0).any(coils): save it and name it "
        "by --operator.mask"
    )
    return Verdict("samples", NOT if share > 0.05 else DOUBTFUL, words, advice)


def order(y: Tensor) -> Verdict:
    """Whether the zero frequency of data (B, coils, H, W) stands in the middle."""
    energy = y.abs().square().sum((0, 1))
    axes = []
    for axis, name in ((0, "rows"), (1, "columns")):
        profile = energy.sum(1 - axis)
        n = len(profile)
        # circular, and over three neighbours: the peak of an odd phase lies between two
        smooth = profile + profile.roll(1) + profile.roll(-1)
        peak = int(smooth.argmax())
        if n >= 8 and abs(peak - n // 2) > n / 4:
            axes.append((axis - 2, name, peak))
    if not axes:
        return Verdict("k-space order", FITS, "the largest magnitudes are in the middle")
    found = " and ".join(f"{name} at {peak}" for _, name, peak in axes)
    over = tuple(axis for axis, _, _ in axes)
    advice = f"the zero frequency belongs in the middle: np.fft.fftshift(y, axes={over})"
    return Verdict("k-space order", NOT, f"largest in {found}", f"{advice}, and of the mask alike")


def halves(guess: Tensor) -> Verdict:
    """Whether a complex image stands in the middle, or its halves have changed places."""
    energy = guess.abs().square().sum((0, 1))
    rows, columns = energy.shape
    middle = energy[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4].sum()
    rolled = energy.roll((rows // 2, columns // 2), (0, 1))
    outer = rolled[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4].sum()
    words = f"energy in the middle {float(middle / energy.sum().clamp_min(1e-30)):.2f}"
    if float(outer) < 2.0 * float(middle):
        return Verdict("centre of the image", FITS, words)
    advice = (
        "the halves of the image have changed places: multiply y by (-1)**(i + j), i and j the "
        "indices of k-space, or transform fftshift(fft2(ifftshift(x)))"
    )
    return Verdict("centre of the image", DOUBTFUL, f"{words}, in the corners more", advice)


def _checkerboard(y: Tensor) -> Tensor:
    i, j = (torch.arange(n, device=y.device) for n in y.shape[-2:])
    return y * (1 - 2 * ((i[:, None] + j) % 2))


def _mirrored(*axes: int) -> Callable[[Tensor], Tensor]:
    """The frequencies in the other direction; zero stays where it is, at n // 2."""

    def mirror(y: Tensor) -> Tensor:
        shifts = [1 - y.shape[axis] % 2 for axis in axes]
        return y.flip(axes).roll(shifts, axes)

    return mirror


_OTHERS: tuple[tuple[str, str, Callable[[Tensor], Tensor]], ...] = (
    ("conjugated", "np.conj(y)", torch.conj_physical),
    ("mirrored along the rows' axis", "y[..., ::-1, :]", _mirrored(-2)),
    ("mirrored along the columns' axis", "y[..., ::-1]", _mirrored(-1)),
    ("mirrored along both axes", "y[..., ::-1, ::-1]", _mirrored(-2, -1)),
    ("of an image with its halves exchanged", "y * (-1)**(i + j)", _checkerboard),
    ("of coils in the reverse order", "y[:, ::-1]", lambda y: y.flip(1)),
)


_MAPS: tuple[tuple[str, str, Callable[[Tensor], Tensor]], ...] = (
    ("conjugated", "np.conj(maps)", torch.conj_physical),
    ("transposed", "np.swapaxes(maps, -1, -2)", lambda m: m.mT),
    ("transposed and conjugated", "np.conj(np.swapaxes(maps, -1, -2))", lambda m: m.mH),
    ("mirrored along the rows' axis", "maps[..., ::-1, :]", lambda m: m.flip(-2)),
    ("mirrored along the columns' axis", "maps[..., ::-1]", lambda m: m.flip(-1)),
    ("mirrored along both axes", "maps[..., ::-1, ::-1]", lambda m: m.flip(-2, -1)),
    ("turned to the left", "np.rot90(maps, 1, (-2, -1))", lambda m: m.rot90(1, (-2, -1))),
    ("turned to the right", "np.rot90(maps, -1, (-2, -1))", lambda m: m.rot90(-1, (-2, -1))),
    (
        "with their halves exchanged",
        "np.fft.fftshift(maps, axes=(-2, -1))",
        lambda m: torch.fft.fftshift(m, dim=(-2, -1)),
    ),
)


def coils(measurement: Measurement) -> Verdict:
    """Whether one image explains the data of all coils, as far as the noise allows."""
    operator, y = measurement.operator, measurement.y
    count = y.shape[1]
    if not isinstance(operator, SENSE) or count < 3:
        return Verdict("coils", FITS, "fewer than three: any image explains them")
    number = int((operator.observed(torch.ones_like(y)) != 0).sum())
    floor = float(measurement.sigma.max()) * (2 * number) ** 0.5 / float(y.norm())
    left = _unexplained(operator, y)
    words = f"{100 * left:.2g} % is explained by no image, the noise is {100 * floor:.2g} %"
    # a number of images as large as the coils' data explains some of the noise, never more of it
    if left <= max(1.5 * floor, 0.1):
        return Verdict("coils", FITS, words)
    changes = []
    for name, code, change in _OTHERS:
        other = change(y)
        if bool((operator.observed(other) == other).all()):
            changes.append((_unexplained(operator, other), f"the data were {name}", code))
    for name, code, change in _MAPS:
        maps = change(operator.maps)
        if maps.shape == operator.maps.shape:
            changed = SENSE(operator.in_shape, maps.resolve_conj().contiguous(), operator.mask)
            changes.append((_unexplained(changed, y), f"the maps were {name}", code))
    best = min(changes, default=(left, "", ""))
    if best[0] < 0.6 * left:
        advice = f"as if {best[1]}: {best[2]}"
        return Verdict("coils", NOT, f"{words}, if {best[1]} {100 * best[0]:.2g} %", advice)
    advice = "the maps are those of other data, or the coils are in another order"
    return Verdict("coils", NOT if left > 3 * floor else DOUBTFUL, words, advice)


def _unexplained(operator: LinearOperator, y: Tensor) -> float:
    """The relative residual of the least squares image."""
    y = operator.observed(y)
    x = operator.solve(operator.adjoint(y), 1e-3 * operator.norm**2)
    return float((operator(x) - y).norm() / y.norm().clamp_min(1e-30))
