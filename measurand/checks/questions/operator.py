"""Questions of the operator: its laws, its gain and its kernel."""

import warnings

import torch
from torch import Tensor

from ...linalg import Unconverged
from ...measurement import Measurement
from ...operators import LinearOperator
from ...operators.convolution import Convolution
from ...tensors import generators, norm, randn_like
from ..laws import adjoint_error, norm_error
from .verdict import DOUBTFUL, FITS, NOT, Verdict

__all__ = ["adjoint", "gain", "norm_confirmed", "point_spread", "prox_optimality", "wraps"]

DIVIDE = "divide the kernel by its sum: np.save('kernel.npy', k / k.sum())"


def adjoint(operator: LinearOperator, seed: int) -> Verdict:
    """Whether `<A u, w> = <u, A^H w>` on random vectors, to 1e-5 (1e-10 in double precision)."""
    limit = 1e-10 if operator.blank_input().real.dtype == torch.float64 else 1e-5
    error = adjoint_error(operator, seed=seed)
    words = f"<Au, w> = <u, A^H w> to {error:.1e} (limit {limit:.0e})"
    if error <= limit:
        return Verdict("adjoint", FITS, words)
    advice = (
        "adjoint is not the adjoint of forward: methods will drift; AutogradOperator derives one"
    )
    return Verdict("adjoint", NOT, words, advice)


def norm_confirmed(operator: LinearOperator, seed: int) -> Verdict:
    """Whether `||A||` is what 100 power iterations find, to 2 %."""
    value = operator.norm
    if not value > 0 or not torch.isfinite(torch.tensor(value)):
        advice = "it measures nothing: an all-zero mask or kernel?"
        return Verdict("norm", NOT, f"||A|| = {value:.4g}", advice)
    error = norm_error(operator, iterations=100, seed=seed)
    words = f"||A|| = {value:.4g}, confirmed to {error:.1e}"
    if error <= 2e-2:
        return Verdict("norm", FITS, words)
    return Verdict("norm", NOT, words, "a step of 1/||A||^2 would be wrong: correct `norm`")


def prox_optimality(measurement: Measurement, seed: int) -> Verdict:
    """Whether prox ends where the gradient `A^H (A p - y) + gamma (p - v)` vanishes."""
    operator, y = measurement.operator, measurement.y
    # in the precision of the data: an operator may hold tables in double precision
    v = randn_like(measurement.adjoint_y, generators(seed, len(y), y.device))
    worst = 0.0
    sigma = float(measurement.sigma.max()) or 1e-2
    for r in (1.0, sigma / max(operator.norm, 1e-12)):
        gamma = (sigma / r) ** 2
        with warnings.catch_warnings():  # the gradient says what was reached
            warnings.simplefilter("ignore", Unconverged)
            p = measurement.operator.prox(v, y, gamma)
        left = operator.adjoint(operator(p) - y) + gamma * (p - v)
        start = norm(operator.adjoint(operator(v) - y)) + gamma * norm(v)
        worst = max(worst, float((norm(left) / start).max()))
    words = f"gradient left at the minimum: {worst:.1e} of the start (limit 1e-03)"
    if worst <= 1e-3:
        return Verdict("prox optimality", FITS, words)
    advice = "the closed form does not solve its problem; without one, the default CG does"
    return Verdict("prox optimality", NOT, words, advice)


def gain(
    measurement: Measurement, guess: Tensor, expected: tuple[float, float] | None, noise: float
) -> Verdict:
    """Whether the data have the gain that the operator gives to an image of ones."""
    operator, y = measurement.operator, measurement.y
    if guess.is_complex() or y.is_complex():
        return Verdict("gain", FITS, "complex data: not asked")
    seen = operator(torch.ones_like(guess[: operator.batch]))
    seen = seen[(operator.observed(torch.ones_like(seen)) != 0).expand_as(seen)]
    low, high = float(seen.min()), float(seen.max())
    words = f"A makes {low:.3g} to {high:.3g} of an image of ones"
    if high - low > 1e-3 * max(abs(low), abs(high)) or abs(high) < 1e-3:
        return Verdict("gain", FITS, words)
    words = f"A makes {high:.4g} of an image of ones"
    if abs(high - 1) <= 0.02 or expected is None:
        return Verdict("gain", FITS, words)
    # data of such a gain leave the range where it is above one, and their quotient stays in it
    u, reach = (y, 1.0) if high > 1 else (guess, 1.1)
    most = reach * max(abs(expected[0]), abs(expected[1])) + 2.6 * noise * max(high, 1.0)
    within = float((u.abs() <= most).double().mean()) > 0.99
    if within and high < 1:
        if not isinstance(operator, Convolution):
            return Verdict("gain", FITS, words)
        words += ", and the data do not tell whether they have it"
        return Verdict("gain", DOUBTFUL, words, DIVIDE)
    if not within and high > 1:
        return Verdict("gain", FITS, words)
    words += ", and the data have no such gain"
    return Verdict("gain", NOT if not 0.8 <= high <= 1.25 else DOUBTFUL, words, DIVIDE)


def point_spread(operator: Convolution) -> Verdict:
    """Whether a kernel stands in its middle, and on no pedestal.

    A pedestal is a rim that is flat and above zero, and much lower than the peak: a background
    that was measured with the point. Kernels of moving cameras have their centre of mass up to a
    seventh of their side off; what is cut in four, with its peak at index 0, has nothing in its
    middle.
    """
    worst = Verdict("kernel", FITS, "centred, and zero at its rim")
    for kernel in operator.kernel.double().flatten(0, 1):
        verdict = _spread_of(kernel / kernel.sum())
        if verdict.verdict == NOT or worst.verdict == FITS:
            worst = verdict
    return worst


def _spread_of(kernel: Tensor) -> Verdict:
    rows, columns = kernel.shape
    if min(rows, columns) < 5:
        return Verdict("kernel", FITS, f"{rows} x {columns}: too small to have a rim")
    rim = torch.cat((kernel[0], kernel[-1], kernel[1:-1, 0], kernel[1:-1, -1]))
    level, least = float(rim.median()), float(rim.quantile(0.1))
    share = level * kernel.numel()
    if least > 0.6 * level > 0 and float(kernel.max()) > 3 * level and share > 0.03:
        words = f"its rim is at {level:.3g} of its sum: a pedestal with {100 * share:.2g} % of it"
        advice = f"subtract it: np.save('kernel.npy', np.maximum(k - {level:.3g} * k.sum(), 0))"
        return Verdict("kernel", NOT if share > 0.1 else DOUBTFUL, words, advice)
    inner = kernel[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    if float(inner.sum()) < 0.2:
        words = f"{100 * float(inner.sum()):.2g} % of it in its middle"
        advice = "the peak belongs at (h // 2, w // 2): np.save('kernel.npy', np.fft.fftshift(k))"
        return Verdict("kernel", NOT, words, advice)
    i, j = (torch.arange(n, dtype=kernel.dtype) - n // 2 for n in kernel.shape)
    down, right = float((kernel.sum(1) * i).sum()), float((kernel.sum(0) * j).sum())
    words = f"centre of mass ({down:+.1f}, {right:+.1f}) pixels from its middle"
    if abs(down) <= 1 + 0.12 * rows and abs(right) <= 1 + 0.12 * columns:
        return Verdict("kernel", FITS, words)
    advice = (
        "the picture will be shifted by as much; where that is not meant, np.roll(k, "
        f"({-round(down)}, {-round(right)}), (0, 1)), with room for it"
    )
    return Verdict("kernel", DOUBTFUL, words, advice)


def wraps(operator: LinearOperator) -> bool:
    """Whether an operator is periodic and mixes pixels, so that opposite edges touch."""
    shape = operator.in_shape
    real = not (operator.in_dtype.is_complex or operator.out_dtype.is_complex)
    if not real or len(shape) < 3 or operator.out_shape != shape:
        return False
    point = operator.blank_input().clone()
    point[..., 0, 0] = 1
    answer = operator(point.expand(operator.batch, *shape).contiguous())
    shift = tuple(n // 2 for n in shape[-2:])
    moved = operator(point.roll(shift, (-2, -1)).expand(operator.batch, *shape).contiguous())
    least = 1e-4 * answer.abs().max()
    if bool((moved - answer.roll(shift, (-2, -1))).abs().max() > least):
        return False
    return bool((answer[..., -1, :].abs().max() > least) | (answer[..., -1].abs().max() > least))
