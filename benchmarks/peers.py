"""Ours beside other libraries, in one process and turn by turn: `make bench-peers`.

Each job is computed by ours and by the peers that know it, on the same input. A time counts only
where the results agree: the relative difference stands beside it (projectors discretise the image
differently: a few per cent). What is compared, and how its environment is made, is said in
`peers.md`. CPU time of one thread; medians of turns.

    python benchmarks/peers.py      writes results/peers.json
"""

import importlib.abc
import importlib.machinery
import math
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from machine import alternating, ratio, settle_allocator, write
from torch import Tensor

from measurand import Measurement, operators
from measurand.noises import Gaussian
from measurand.operators import ParallelCT, even_angles, fbp
from measurand.priors import TotalVariation
from measurand.solvers import HQS

Call = Callable[[], Any]
SIDE, CT_SIDE, MRI_SIDE, COILS = 256, 256, 320, 15
GAMMA = 0.02


class WithoutTorchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Lets DeepInverse be imported where torchvision is not: nothing here calls it."""

    def find_spec(self, name: str, *_: Any) -> importlib.machinery.ModuleSpec | None:
        ours = name.partition(".")[0] == "torchvision"
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if ours else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = types.ModuleType(spec.name)

        def named(name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

        module.__dict__["__getattr__"] = named
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing is inside."""


@dataclass
class Job:
    """One job: our call, those of peers, and what they have to agree on.

    Attributes:
        name: What is computed.
        ours: Our call.
        peers: Calls of others, by name.
        same: Largest relative difference at which a peer's result counts; where it is infinite
            the results are not compared.
        exact: What the results are compared with; ours where absent.
    """

    name: str
    ours: Call
    peers: dict[str, Call]
    same: float = 1e-3
    exact: Call | None = None


def photograph(*size: int) -> Tensor:
    """A smooth random image in [-1, 1] with shape (1, *size)."""
    x = torch.randn(1, *size, generator=torch.Generator().manual_seed(0)).cumsum(-1).cumsum(-2)
    return x / x.abs().max()


def blur() -> Iterator[Job]:
    """Circular blur of a colour image: A, its proximal map, and HQS without a network."""
    from deepinv.optim import HQS as TheirHQS
    from deepinv.optim import L2, PnP
    from deepinv.physics import BlurFFT

    x = photograph(3, SIDE, SIDE)
    a = operators.GaussianBlur(tuple(x.shape[1:]), 1.6)
    theirs = BlurFFT(tuple(x.shape[1:]), filter=a.kernel.expand(1, 3, -1, -1))
    y, v = a(x), x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    kept, weight = a.prepare(y), torch.tensor([GAMMA])
    yield Job("circular blur 3x256x256: A", lambda: a(x), {"deepinv": lambda: theirs.A(x)})
    yield Job(
        "circular blur 3x256x256: proximal map",
        lambda: a.prox(v, y, weight, prepared=kept),
        {"deepinv": lambda: theirs.prox_l2(v, y, 1 / GAMMA)},
    )
    steps = 8
    m = Measurement(a, Gaussian(0.02), y)
    loop = HQS(steps=steps)
    plain = TheirHQS(
        data_fidelity=L2(), prior=PnP(Itself()), stepsize=50.0, sigma_denoiser=0.1, max_iter=steps
    )
    yield Job(
        f"HQS, {steps} steps on this blur, with a denoiser that returns its input",
        lambda: loop(m, Same()),
        {"deepinv": lambda: plain(y, theirs)},
        same=math.inf,  # other levels; the work of a step is the same
    )


class Same:
    """A denoiser that returns its input."""

    range, dtype = (-1.0, 1.0), torch.float32

    def denoise(self, v: Tensor, sigma: Any, condition: Any = None) -> Tensor:
        """Return v."""
        return v


class Itself(torch.nn.Module):
    """The same for DeepInverse."""

    def forward(self, x: Tensor, sigma: Any = None) -> Tensor:
        """Return x."""
        return x


def downsampling() -> Iterator[Job]:
    """A blur and every fourth pixel of a colour image."""
    from deepinv.physics import Downsampling

    x = photograph(3, SIDE, SIDE)
    profile = torch.exp(-(torch.arange(-7.0, 8.0) ** 2) / (2 * 2.0**2))
    kernel = torch.outer(profile, profile) / profile.sum() ** 2
    a = operators.Downsample(tuple(x.shape[1:]), kernel, 4)
    theirs = Downsampling(tuple(x.shape[1:]), filter=kernel[None, None], factor=4)
    y, v = a(x), x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    y_theirs, weight = theirs.A(x), torch.tensor([GAMMA])
    yield Job("super-resolution x4: A", lambda: a(x), {"deepinv": lambda: theirs.A(x)})
    yield Job(
        "super-resolution x4: proximal map",
        lambda: a.prox(v, y, weight),
        {"deepinv": lambda: theirs.prox_l2(v, y_theirs, 1 / GAMMA)},
    )


def sense() -> Iterator[Job]:
    """The normal operator of multi-coil MRI, for lines and for points, and the proximal map."""
    import sigpy.mri
    from deepinv.physics import MultiCoilMRI

    size = (1, MRI_SIDE, MRI_SIDE)
    x = torch.complex(photograph(*size), photograph(*size).mT)
    maps = operators.birdcage_maps(size, COILS)
    masks = {
        "lines": operators.random_lines(size, 4.0),
        "points": operators.variable_density_mask(size, 4.0),
    }
    real = torch.view_as_real(x[:, 0]).movedim(-1, 1).contiguous()
    for kind, mask in masks.items():
        a = operators.SENSE(size, maps, mask)
        full = mask.expand(1, 1, MRI_SIDE, MRI_SIDE).float()
        inv = MultiCoilMRI(mask=full, coil_maps=maps[None, :, 0] if maps.ndim == 5 else maps)
        sig = sigpy.mri.linop.Sense(
            maps.reshape(COILS, *size[1:]).numpy(), weights=full[0].numpy()
        )
        image = x[0, 0].numpy()
        yield Job(
            f"SENSE, {COILS} coils {MRI_SIDE}x{MRI_SIDE}, {kind}: A^H A",
            lambda a=a: a.gram(x),
            {
                "deepinv": lambda inv=inv: torch.complex(
                    *inv.A_adjoint(inv.A(real)).movedim(1, 0)
                )[:, None],
                "sigpy": lambda sig=sig, image=image: torch.from_numpy(
                    np.asarray(sig.H(sig(image)))
                )[None, None],
            },
        )


def tomography() -> Iterator[Job]:
    """Parallel-beam CT with 180 angles: A, and filtered back-projection."""
    from deepinv.physics import Tomography
    from skimage.data import shepp_logan_phantom
    from skimage.transform import iradon, radon, resize

    picture = resize(shepp_logan_phantom(), (CT_SIDE, CT_SIDE)).astype(np.float32)
    x = torch.from_numpy(picture)[None, None]
    count = 180
    degrees = np.arange(count) * 180 / count
    a = ParallelCT((1, CT_SIDE, CT_SIDE), even_angles(count))
    theirs = Tomography(
        angles=torch.from_numpy(degrees).float(), img_width=CT_SIDE, circle=False, normalize=False
    )
    y, y_theirs = a(x), theirs.A(x)
    y_image = radon(picture, degrees, circle=False)
    yield Job(
        "CT 256x256, 180 angles: A",
        lambda: a(x),
        {
            "deepinv": lambda: theirs.A(x),
            "scikit-image": lambda: torch.from_numpy(radon(picture, degrees, circle=False)),
        },
        same=math.inf,  # other detectors: the images below are compared
    )
    yield Job(
        "CT 256x256, 180 angles: filtered back-projection",
        lambda: fbp(a, y),
        {
            "deepinv": lambda: theirs.A_dagger(y_theirs, fbp=True),
            "scikit-image": lambda: torch.from_numpy(
                iradon(y_image, degrees, circle=False, output_size=CT_SIDE)
            )[None, None],
        },
        same=0.5,
    )


def variation() -> Iterator[Job]:
    """The proximal map of total variation, by iterations that stop."""
    from skimage.restoration import denoise_tv_chambolle

    x = photograph(1, 512, 512)
    v = x + 0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    image = v[0, 0].numpy()
    rough, exact = TotalVariation(tol=1e-2), TotalVariation(tol=1e-6)

    def chambolle() -> Tensor:
        found = denoise_tv_chambolle(image, 0.1, eps=1e-6, max_num_iter=3000)
        return torch.from_numpy(found)[None, None]

    yield Job(
        "total variation 512x512, weight 0.1, to a gap of 1 %; Chambolle to changes of 1e-6",
        lambda: rough.prox(v, 0.1),
        {"scikit-image": chambolle},
        same=0.05,
        exact=lambda: exact.prox(v, 0.1),
    )


def compared(job: Job) -> dict[str, Any]:
    """The times of a job, and how far the results are apart."""
    calls: dict[str, Call] = {"ours": job.ours, **job.peers}
    row: dict[str, Any] = {"job": job.name}
    apart: dict[str, float] = {}
    if math.isfinite(job.same):
        exact = (job.exact or job.ours)()
        apart = {name: float(rms(call() - exact) / rms(exact)) for name, call in calls.items()}
    times = alternating({n: c for n, c in calls.items() if apart.get(n, 0) <= job.same}, rounds=7)
    for name, found in times.items():
        middle, low, high = ratio(found, times["ours"])
        row[name] = {"ms": round(1e3 * float(np.median(found)), 3)}
        row[name] |= {"times ours": middle, "quartiles": [low, high]} if name != "ours" else {}
    for name, difference in apart.items():
        row.setdefault(name, {})["difference"] = float(f"{difference:.2g}")
    return row


def rms(x: Tensor) -> Tensor:
    """Root of the mean square."""
    return x.abs().square().mean().sqrt()


def main() -> None:
    torch.set_num_threads(1)
    sys.meta_path.append(WithoutTorchvision())
    settle_allocator()
    rows = []
    with torch.no_grad():
        for jobs in (blur, downsampling, sense, tomography, variation):
            for job in jobs():
                rows.append(compared(job))
                print(rows[-1], flush=True)
    used = {name: version(name) for name in ("deepinv", "sigpy", "scikit-image")}
    print(write("peers", {"versions": used, "rows": rows}))


if __name__ == "__main__":
    main()
