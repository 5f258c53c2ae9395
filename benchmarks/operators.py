"""Time of operators and their proximal maps, relative to a plain FFT of the same size.

One function per operator returns its `Case`; `CASES` lists them. Each call of ours stands beside a
plain reference that computes the same thing from cached spectra, and its result is compared with
ours in float64 first: a time counts only if the error is small.

    python benchmarks/operators.py            writes results/operators.json
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from machine import alternating, ratio, settle_allocator, write
from torch import Tensor

from measurand import operators
from measurand.linalg import cg
from measurand.operators.convolution import transfer_function

Call = Callable[[], Tensor]
SIZE = (3, 256, 256)


@dataclass
class Case:
    """An operator on the bench.

    Attributes:
        name: What it is.
        base: The plain FFT of the same size (or another yardstick), which is ratio 1.
        ours: Our calls, by name.
        truth: Their results in float64, by the same names.
        reference: Plain implementations of some of them.
        limits: Ratio to the base that a call should not exceed.
    """

    name: str
    base: Call
    ours: dict[str, Call]
    truth: dict[str, Tensor]
    reference: dict[str, Call] = field(default_factory=dict)
    limits: dict[str, float] = field(default_factory=dict)


def photograph(*size: int) -> Tensor:
    """A smooth random image in [-1, 1] with shape (1, *size)."""
    x = torch.randn(1, *size, generator=torch.Generator().manual_seed(0))
    x = x.cumsum(-1).cumsum(-2)
    return x / x.abs().max()


def fft_pair(x: Tensor) -> Call:
    """One real transform there and back."""
    return lambda: torch.fft.irfft2(torch.fft.rfft2(x), s=x.shape[-2:])


def blur() -> Case:
    x = photograph(*SIZE)
    a = operators.GaussianBlur(SIZE, sigma=1.6)
    y, v, gamma = a(x), x + 0.1 * torch.randn_like(x), torch.tensor([1e-2])
    k = transfer_function(a.kernel, *SIZE[1:])
    power = k.abs() ** 2
    kept, back = a.prepare(y), k.conj() * torch.fft.rfft2(y)
    exact = a.prox(v.double(), y.double(), 1e-2)

    def reference_prox() -> Tensor:
        spectrum = (back + gamma * torch.fft.rfft2(v)) / (power + gamma)
        return torch.fft.irfft2(spectrum, s=x.shape[-2:])

    return Case(
        name="circular blur 3x256x256",
        base=fft_pair(x),
        ours={
            "A": lambda: a(x),
            "A^H": lambda: a.adjoint(y),
            "A^H A": lambda: a.gram(x),
            "prox": lambda: a.prox(v, y, gamma, prepared=kept),
            "prox, y unprepared": lambda: a.prox(v, y, gamma),
        },
        truth={
            "A": a(x.double()),
            "A^H": a.adjoint(y.double()),
            "A^H A": a.gram(x.double()),
            "prox": exact,
            "prox, y unprepared": exact,
        },
        reference={
            "A": lambda: torch.fft.irfft2(torch.fft.rfft2(x) * k, s=x.shape[-2:]),
            "prox": reference_prox,
        },
        limits={"A": 0.80 / 0.80, "prox": 0.99 / 0.80},
    )


def super_resolution() -> Case:
    x = photograph(*SIZE)
    a = operators.BicubicDownsample(SIZE, 4)
    y, v, gamma = a(x), x + 0.1 * torch.randn_like(x), torch.tensor([1e-2])
    k = transfer_function(a.kernel, *SIZE[1:], phase=a.phase)
    g = a.spectra(x)[1]
    size = x.shape[-2:]

    def forward(x: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * k, s=size)[..., ::4, ::4]

    def reference_prox() -> Tensor:
        small = torch.fft.rfft2(y - forward(v)) / (g + gamma)
        wide = torch.zeros_like(v)
        wide[..., ::4, ::4] = torch.fft.irfft2(small, s=y.shape[-2:])
        return v + torch.fft.irfft2(torch.fft.rfft2(wide) * k.conj(), s=size)

    return Case(
        name="super-resolution x4, bicubic, 3x256x256",
        base=fft_pair(x),
        ours={
            "A": lambda: a(x),
            "A^H": lambda: a.adjoint(y),
            "prox": lambda: a.prox(v, y, gamma),
        },
        truth={
            "A": a(x.double()),
            "A^H": a.adjoint(y.double()),
            "prox": a.prox(v.double(), y.double(), 1e-2),
        },
        reference={"A": lambda: forward(x), "prox": reference_prox},
        limits={"A": 0.75 / 0.80, "prox": 2.12 / 0.80},
    )


def block_average() -> Case:
    x = photograph(*SIZE)
    a = operators.BlockAverage(SIZE, 4)
    y, v, gamma = a(x), x + 0.1 * torch.randn_like(x), torch.tensor([1e-2])
    return Case(
        name="super-resolution x4, block average, 3x256x256",
        base=fft_pair(x),
        ours={"A": lambda: a(x), "prox": lambda: a.prox(v, y, gamma)},
        truth={"A": a(x.double()), "prox": a.prox(v.double(), y.double(), 1e-2)},
    )


def mask() -> Case:
    x = photograph(*SIZE)
    a = operators.Mask(SIZE, operators.random_mask(SIZE, 0.7))
    y, v, gamma = a(x), x + 0.1 * torch.randn_like(x), torch.tensor([1e-2])
    return Case(
        name="mask 3x256x256",
        base=fft_pair(x),
        ours={"A": lambda: a(x), "prox": lambda: a.prox(v, y, gamma)},
        truth={"A": a(x.double()), "prox": a.prox(v.double(), y.double(), 1e-2)},
    )


def fourier_mask() -> Case:
    x = photograph(*SIZE)
    a = operators.FourierMask(SIZE, operators.random_lines(SIZE, 4.0))
    y, v, gamma = a(x), x + 0.1 * torch.randn_like(x), torch.tensor([1e-2])
    back = a.adjoint(y)
    return Case(
        name="Fourier mask of a real image, 3x256x256",
        base=fft_pair(x),
        ours={"A": lambda: a(x), "prox": lambda: a.prox(v, y, gamma, prepared=back)},
        truth={"A": a(x.double()), "prox": a.prox(v.double(), y.to(torch.complex128), 1e-2)},
    )


def single_coil() -> Case:
    size = (1, 320, 320)
    x = torch.complex(photograph(*size), photograph(*size).mT)
    a = operators.CartesianMRI(size, operators.random_lines(size, 4.0))
    y, v, gamma = a(x), x + 0.1 * torch.randn_like(x), torch.tensor([1e-2])
    back, wide = a.adjoint(y), torch.complex128
    return Case(
        name="single-coil MRI 320x320",
        base=lambda: torch.fft.ifft2(torch.fft.fft2(x)),
        ours={
            "A": lambda: a(x),
            "A^H A": lambda: a.gram(x),
            "prox": lambda: a.prox(v, y, gamma, prepared=back),
        },
        truth={
            "A": a(x.to(wide)),
            "A^H A": a.gram(x.to(wide)),
            "prox": a.prox(v.to(wide), y.to(wide), 1e-2),
        },
    )


def _sense(name: str, mask: Tensor) -> Case:
    size, gamma = (1, 320, 320), 1e-3
    x = torch.complex(photograph(*size), photograph(*size).mT)
    maps = operators.birdcage_maps(size, 8)
    a = operators.SENSE(size, maps, mask)
    wide = operators.SENSE(size, maps, mask).double()
    conj = maps.conj().resolve_conj()
    natural = torch.fft.ifftshift(mask, dim=(-2, -1)).float()
    y, coils = a(x), maps * x
    b, exact_b = a.adjoint(y), wide.adjoint(y.to(torch.complex128))

    def plain(x: Tensor) -> Tensor:  # the textbook form, two-dimensional transforms
        seen = torch.fft.ifft2(natural * torch.fft.fft2(maps * x))
        return (conj * seen).sum(1, keepdim=True)

    def steps(gram: Callable[[Tensor], Tensor], b: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a fixed number of steps, not a solution
            return cg(lambda x: gram(x) + gamma * x, b, tol=0.0, max_iter=20)

    return Case(
        name=f"SENSE 8x320x320, {name}",
        base=lambda: torch.fft.ifft2(torch.fft.fft2(coils)),
        ours={
            "A": lambda: a(x),
            "A^H": lambda: a.adjoint(y),
            "A^H A": lambda: a.gram(x),
            "20 CG steps": lambda: steps(a.gram, b),
        },
        truth={
            "A": wide(x.to(torch.complex128)),
            "A^H": exact_b,
            "A^H A": wide.gram(x.to(torch.complex128)),
            "20 CG steps": steps(wide.gram, exact_b),
        },
        reference={"A^H A": lambda: plain(x), "20 CG steps": lambda: steps(plain, b)},
    )


def sense_lines() -> Case:
    return _sense("mask of lines", operators.random_lines((320, 320), 4.0))


def sense_points() -> Case:
    return _sense("mask of points", operators.variable_density_mask((320, 320), 4.0))


def tomography() -> Case:
    from skimage.transform import radon

    size, angles = (1, 256, 256), operators.even_angles(180)
    t = torch.linspace(-1, 1, 256)
    x = photograph(*size) * (t**2 + t[:, None] ** 2 < 0.98)
    image, degrees = x[0, 0].numpy(), angles.rad2deg().numpy()
    a = operators.ParallelCT(size, angles, detectors=256)
    wide = operators.ParallelCT(size, angles, detectors=256).double()
    y = a(x)
    many, many_y = x.repeat(8, 1, 1, 1), y.repeat(8, 1, 1, 1)
    exact, exact_back = wide(x.double()), wide.adjoint(y.double())
    return Case(
        name="CT 256x256, 180 angles (base: skimage radon)",
        base=lambda: torch.from_numpy(radon(image, degrees)),
        ours={
            "A": lambda: a(x),
            "A^H": lambda: a.adjoint(y),
            "A, 8 images": lambda: a(many),
            "A^H, 8 images": lambda: a.adjoint(many_y),
            "FBP": lambda: operators.fbp(a, y),
        },
        truth={
            "A": exact,
            "A^H": exact_back,
            "A, 8 images": exact.expand(8, -1, -1, -1),
            "A^H, 8 images": exact_back.expand(8, -1, -1, -1),
            "FBP": operators.fbp(wide, y.double()),
        },
        limits={"A": 1 / 4},
    )


CASES: list[Callable[[], Case]] = [
    blur,
    super_resolution,
    block_average,
    mask,
    fourier_mask,
    single_coil,
    sense_lines,
    sense_points,
    tomography,
]


def measure(case: Case) -> list[dict[str, object]]:
    """The rows of one operator: times, ratios to the base, errors, verdicts."""
    calls = {"base": case.base}
    for name, call in case.ours.items():
        calls[name] = call
        if name in case.reference:
            calls[f"reference {name}"] = case.reference[name]
    times = alternating(calls)
    rows: list[dict[str, object]] = []
    for name, call in case.ours.items():
        exact = case.truth[name]
        middle, low, high = ratio(times[name], times["base"])
        row: dict[str, object] = {
            "operator": case.name,
            "call": name,
            "ms": round(1e3 * sorted(times[name])[len(times[name]) // 2], 3),
            "base ms": round(1e3 * sorted(times["base"])[len(times["base"]) // 2], 3),
            "ratio to base": middle,
            "quartiles": [low, high],
            "relative error": float(f"{float((call() - exact).norm() / exact.norm()):.1e}"),
        }
        if name in case.reference:
            row["ratio to reference"] = ratio(times[name], times[f"reference {name}"])[0]
            row["reference to base"] = ratio(times[f"reference {name}"], times["base"])[0]
        if name in case.limits:
            row["limit"] = round(case.limits[name], 2)
            row["achieved / limit"] = round(middle / case.limits[name], 2)
        rows.append(row)
    return rows


def main() -> None:
    torch.set_num_threads(1)
    settle_allocator()
    rows = []
    with torch.no_grad():
        for build in CASES:
            rows += measure(build())
    print(
        f"{'operator':46s} {'call':20s} {'ms':>7s} {'x base':>7s} {'limit':>6s} {'x ref':>6s}"
        "  error"
    )
    for row in rows:
        print(
            f"{row['operator']:46s} {row['call']:20s} {row['ms']:7.3f} "
            f"{row['ratio to base']:7.2f} "
            f"{row.get('limit', ''):>6} {row.get('ratio to reference', ''):>6} "
            f"{row['relative error']:.0e}"
        )
    print(write("operators", {"rows": rows}))


if __name__ == "__main__":
    main()
