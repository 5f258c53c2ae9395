"""One small run of every method, and a digest of what it returned and told.

`python tests/method_digests.py` writes `method_digests.json` anew. The file says on which machine
it was made: there every bit has to be the same. Elsewhere sums are taken in another order, and
numbers agree to 1e-11 (2e-12 was the worst of an AMD EPYC against an Intel Xeon); to 3e-5 where a
network computes parts in float32.
"""

import hashlib
import json
import platform
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from known_answers import gaussian_problem
from torch import Tensor

from measurand.measurement import Measurement
from measurand.nets import Glow
from measurand.noises import ComplexGaussian, Poisson
from measurand.noises import Gaussian as GaussianNoise
from measurand.operators import Blur, CartesianMRI, GaussianBlur, Mask
from measurand.priors import (
    CallableDenoiser,
    FlowPrior,
    FourierGaussian,
    Gaussian,
    PixelCode,
    TotalVariation,
)
from measurand.samplers import (
    DAPS,
    DPS,
    DiffPIR,
    DiffUnfolding,
    EulerFlow,
    EulerSDE,
    HeunFlow,
    HeunSDE,
    PiGDM,
    PnPDM,
    ReverseSDE,
)
from measurand.solvers import (
    ADMM,
    FISTA,
    HQS,
    PGM,
    RED,
    RELD,
    Constant,
    EncodedRELD,
    FlowUnfolding,
    GradientRED,
    PosteriorMean,
)
from measurand.tensors import generators, randn_like
from measurand.unfolded import FlowProximal, UnfoldedDR, gradient_folds, proximal_folds

FILE = Path(__file__).with_suffix(".json")
F64 = torch.float64
SHAPE = (1, 8, 8)

Case = tuple[str, Any, Any, Any]
Options = Callable[[], dict[str, Any]]


def drawn(*shape: int, seed: int, dtype: torch.dtype = F64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def images() -> FourierGaussian:
    f = torch.meshgrid(*[torch.fft.fftfreq(8, dtype=F64)] * 2, indexing="ij")
    variances = 0.05 / (0.05 + sum(axis**2 for axis in f)) ** 1.5
    return FourierGaussian(torch.zeros(1, *SHAPE, dtype=F64), variances)


def seen(operator: Any, sigma: Any) -> Measurement:
    x = images().sample(2, generators(0, 2))
    y = operator(x) + 0.1 * randn_like(operator(x), generators(1, 2))
    return Measurement(operator, GaussianNoise(sigma), y)


def problems() -> dict[str, Measurement]:
    """Two items each: with one noise, with a noise each, with an operator each, with holes."""
    kernels = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0), dtype=F64)
    holes = (torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.4).to(F64)
    blur = GaussianBlur(SHAPE, 0.7).double()
    return {
        "blur": seen(blur, 0.1),
        "noises": seen(blur, torch.tensor([0.02, 0.4], dtype=F64)),
        "kernels": seen(Blur(SHAPE, kernels), 0.1),
        "holes": seen(Mask(SHAPE, holes), 0.1),
    }


def complex_problem() -> tuple[Gaussian, Measurement]:
    """Complex images of 4 x 4 pixels, seen in k-space."""
    factor = torch.complex(drawn(16, 16, seed=2), drawn(16, 16, seed=3))
    covariance = factor @ factor.mH / 16 + 0.2 * torch.eye(16)
    prior = Gaussian(torch.zeros(1, 1, 4, 4, dtype=torch.complex128), covariance)
    operator = CartesianMRI((1, 4, 4), torch.tensor([1.0, 0, 1, 1])).double()
    y = operator(torch.complex(drawn(2, 1, 4, 4, seed=4), drawn(2, 1, 4, 4, seed=5)))
    return prior, Measurement(operator, ComplexGaussian(0.2), y)


def unfolded() -> UnfoldedDR:
    """A seeded network without training; its last layers, zero at first, are drawn too."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        network = UnfoldedDR.tiny(1).double()
        for i, weight in enumerate(network.parameters()):
            weight.copy_(0.1 * drawn(*weight.shape, seed=i))
    return network


def flows(folds: Any) -> FlowProximal:
    """Seeded flows without training, with steps of their own."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        flow = FlowPrior(Glow.tiny(1), shape=SHAPE).double()
        for level in range(len(flow.latent_shapes)):
            flow.get_buffer(f"kappa_{level}").fill_(0.05)
        network = FlowProximal(flow, folds(flow, 2)).double()
        for i, weight in enumerate(network.parameters()):
            weight.add_(0.02 * drawn(*weight.shape, seed=i))
    return network


def cases() -> Iterator[Case]:
    """Name, method, prior and measurement of every run."""
    every, prior = problems(), images()
    plugged = CallableDenoiser(prior.denoise, range=(-1.0, 1.0))
    solvers = [
        HQS(steps=4),
        ADMM(steps=4),
        ADMM(steps=4, levels=Constant()),
        RED(steps=4),
        GradientRED(steps=4),
        GradientRED(steps=4, step=0.01),
        PGM(steps=4),
        PGM(steps=4, level=0.1),
        PGM(steps=4, step=0.005),
        FISTA(steps=4),
        FISTA(steps=4, level=0.1),
    ]
    for method, (name, m) in product(solvers, every.items()):
        yield f"{method} {name}", method, plugged, m
    codes = PixelCode(plugged)
    for method, (name, m) in product([RELD(steps=4), EncodedRELD(steps=4)], every.items()):
        yield f"{method} {name}", method, codes, m
    for method in (PGM(steps=4), FISTA(steps=4)):
        yield f"{method} prox", method, prior, every["noises"]
        yield f"{method} tv", method, TotalVariation(weight=2.0), every["blur"]
    counts = Measurement(every["blur"].operator, Poisson(), (100 * every["blur"].y).round() + 900)
    yield "PGM counts", PGM(steps=3, step=20.0), TotalVariation(weight=0.05), counts
    network = unfolded()
    for name, m in every.items():
        yield f"PosteriorMean network {name}", PosteriorMean(), network, m
        yield f"DiffUnfolding network {name}", DiffUnfolding(steps=3), network, m
    yield "PosteriorMean exact", PosteriorMean(sigma_max=20.0), prior, every["noises"]
    yield "DiffUnfolding exact", DiffUnfolding(steps=4), prior, every["noises"]
    for folds in (gradient_folds, proximal_folds):
        for name in ("blur", "noises"):
            yield (
                f"FlowUnfolding {folds.__name__} {name}",
                FlowUnfolding(),
                flows(folds),
                every[name],
            )
    samplers = [
        DPS(steps=6, zeta=0.05),
        PiGDM(steps=5),
        DiffPIR(steps=5),
        DiffPIR(steps=5, zeta=0.4),
        DAPS(steps=3, flow_steps=3),
        DAPS(steps=3, flow_steps=3, tau=0.2),
        PnPDM(sweeps=4, decay=0.5),
        PnPDM(sweeps=3, reverse=ReverseSDE(steps=5, sigma_max=10.0)),
        PnPDM.quick(),
    ]
    for method, (name, m) in product(samplers, every.items()):
        yield f"{method} {name}", method, prior, m
    vectors, m6 = gaussian_problem()
    complex_prior, complex_m = complex_problem()
    reverse = [cls(steps=5) for cls in (ReverseSDE, EulerSDE, HeunSDE, EulerFlow, HeunFlow)]
    for method in reverse:
        yield f"{method} posterior", method, prior, every["noises"]
        yield f"{method} unfolded", method, network, every["blur"]
        yield f"{method} of a prior", method, prior, None
    for method in (*samplers, *reverse):
        yield f"{method} vectors", method, vectors, m6
        yield f"{method} complex", method, complex_prior, complex_m
    for method in (HQS(steps=3), ADMM(steps=3), RED(steps=3), GradientRED(steps=3)):
        yield f"{method} complex", method, complex_prior, complex_m


def runs() -> Iterator[tuple[str, Any, Any, Any, Options]]:
    """Every case, started in three ways where it can be."""
    for name, method, prior, m in cases():
        like = torch.zeros(2, *SHAPE, dtype=F64) if m is None else m.adjoint_y
        start = 0.3 * randn_like(like, generators(9, len(like)))
        if name == "PGM counts":
            start = start + 900
        if m is not None:
            yield f"{name}, as it is", method, prior, m, lambda: {}
        yield f"{name}, x0 and seeds", method, prior, m, partial(seeded, start, False)
        if name.endswith((" blur", " prior")):  # enough: all samplers have such a run
            yield (
                f"{name}, one generator",
                method,
                prior,
                m,
                partial(seeded, start if m is None else None, True),
            )


def seeded(start: Tensor | None, one: bool) -> dict[str, Any]:
    """The options of a call, with generators that no call has used yet."""
    if one:
        return {"x0": start, "generator": torch.Generator().manual_seed(6)}
    assert start is not None
    return {"x0": start, "generator": generators(5, len(start))}


def number(x: Tensor) -> float:
    """A number that every entry of a tensor has a part in."""
    x = (torch.view_as_real(x) if x.is_complex() else x).flatten()
    return float(x @ (1 + 0.7 * torch.arange(len(x), dtype=x.dtype)).cos())


def digest(method: Any, prior: Any, m: Any, options: Options) -> dict[str, Any]:
    """All bits of the result and of every `Step`, and numbers that stand for them."""
    bits, numbers = hashlib.sha256(), []

    def add(x: Any) -> None:
        array = torch.as_tensor(x, dtype=None if isinstance(x, Tensor) else F64).detach()
        bits.update(f"{array.dtype} {tuple(array.shape)}".encode() + array.numpy().tobytes())
        numbers.append(number(array.to(torch.complex128 if array.is_complex() else F64)))

    def told(step: Any) -> None:
        assert step.step == len(numbers) // 3
        for part in step[1:]:
            add(part)

    add(method(m, prior, callback=told, **options()))
    return {"bits": bits.hexdigest()[:24], "numbers": numbers}


def machine() -> str:
    """What bits depend on: torch, the processor and the number of threads."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    first = lines[: lines.index("")] if "" in lines else lines  # of several equal cores
    kept = "model", "stepping", "flags", "cache size"  # one name may stand for many processors
    cpu = [line for line in first if line.startswith(kept)] or [platform.processor()]
    parts = torch.__version__, torch.backends.cpu.get_cpu_capability(), torch.get_num_threads()
    return hashlib.sha256(f"{cpu} {parts}".encode()).hexdigest()[:24]


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {name: digest(*run) for name, *run in runs()}
    record = {"machine": machine(), "runs": found}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(run)}" for name, run in found.items())
    FILE.write_text(f'{{"machine": "{record["machine"]}",\n"runs": {{\n{lines}\n}}}}\n')
