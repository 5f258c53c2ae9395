"""What every method promises because it is a `Method`, and what the frame does for a new one."""

import math
import re
import textwrap
from dataclasses import FrozenInstanceError, dataclass, fields, is_dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import pytest
import torch
from known_answers import gaussian_problem
from torch import Tensor

from measurand import methods, samplers, solvers
from measurand.measurement import Measurement
from measurand.methods import Method, Sampler, Step, fitting
from measurand.noises import Gaussian as GaussianNoise
from measurand.noises import Poisson
from measurand.operators import GaussianBlur
from measurand.priors import CallableDenoiser, CosineGaussian, Denoiser, TotalVariation, require
from measurand.tensors import generators, randn_like

F64 = torch.float64


def public(folder):
    named = [getattr(folder, name) for name in folder.__all__]
    classes = [cls for cls in named if isinstance(cls, type) and issubclass(cls, Method)]
    # methods of two unknowns have another call: test_samplers_blind, test_solvers_blind
    return [c for c in classes if c is not samplers.Reverse and "Blind" not in c.__name__]


CLASSES = public(solvers) + public(samplers)
every = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def small(cls):
    """A method of few steps."""
    return cls(**{f.name: 4 for f in fields(cls) if f.name in ("steps", "sweeps")})


class Able:
    """A prior with every capability that methods ask for; it may return NaN for the last item."""

    range = None
    dtype = F64
    factor, error = 1, 0.0  # of a code that is the image

    def __init__(self, broken=False):
        self.prior, self.broken = gaussian_problem()[0], broken

    def told(self, x):
        keep = torch.ones(len(x), 1, dtype=F64)
        keep[-1] = torch.nan if self.broken else 1
        return x * keep

    def denoise(self, v, sigma, condition=None):
        return self.told(self.prior.denoise(v, sigma))

    def encode(self, x):
        return x

    def decode(self, z):
        return z

    def code_noise(self, sigma):
        return sigma

    def denoise_code(self, z, sigma):
        return self.denoise(z, sigma)

    def prox(self, v, tau):
        return self.told(self.prior.prox(v, tau))

    def restore(self, measurement):
        return self.told(self.prior.given(measurement).mean)

    def given(self, measurement):
        posterior = self.prior.given(measurement)
        return CallableDenoiser(
            lambda v, s: self.told(posterior.denoise(v, s)), range=None, dtype=F64
        )


def three_items():
    _, one = gaussian_problem()
    y = torch.cat([one.y, -one.y, 2 * one.y])
    return Measurement(one.operator, GaussianNoise(torch.tensor([0.3, 0.1, 0.5])), y)


@every
def test_a_method_is_a_frozen_dataclass_that_writes_its_loop(cls):
    assert is_dataclass(cls) and cls.__call__ is Method.__call__
    method = small(cls)
    assert method == eval(repr(method), {**vars(solvers), **vars(samplers)})
    with pytest.raises(FrozenInstanceError):
        method.anything = 3


@every
def test_a_method_declares_what_it_needs_and_makes(cls):
    assert cls.needs and all(getattr(need, "_is_protocol", False) for need in cls.needs)
    assert cls.draws is (cls.__name__ in samplers.__all__)
    of_the_line = not issubclass(cls, samplers.Reverse)  # which draw without a measurement too
    assert bool(cls.command) == of_the_line
    names = [other.command for other in CLASSES if other.command]
    assert len(names) == len(set(names))


@every
def test_rounds_are_the_steps_that_the_callback_sees(cls):
    method, seen = small(cls), []
    x = method(three_items(), Able(), callback=seen.append)
    assert [step.step for step in seen] == list(range(len(seen)))
    assert method.rounds == len(seen) >= 1
    assert all(step.x.shape == step.x0.shape == x.shape for step in seen)


@every
def test_a_wrong_prior_is_refused_by_name_with_what_is_wanted(cls):
    with pytest.raises(TypeError, match=rf"^{cls.__name__}: got a .*object") as error:
        small(cls)(three_items(), object())
    if not issubclass(cls, samplers.Reverse):  # which says more
        assert all(f"a {need.__name__} (" in str(error.value) for need in cls.needs)


@every
def test_a_prior_that_returns_nan_is_an_error_of_the_method(cls):
    name = rf"^{cls.__name__}\(.*not finite for 1 of 3 items"
    with pytest.raises(FloatingPointError, match=name):
        small(cls)(three_items(), Able(broken=True))


@every
@pytest.mark.parametrize(
    "x0",
    [torch.zeros(2, 6, dtype=F64), torch.zeros(3, 5, dtype=F64), torch.zeros(3, 6), 0.5],
    ids=["items", "pixels", "dtype", "number"],
)
def test_a_start_that_does_not_fit_is_refused(cls, x0):
    with pytest.raises(ValueError, match=rf"^{cls.__name__}: got x0 .*wanted"):
        small(cls)(three_items(), Able(), x0=x0)


@every
def test_generators_that_do_not_fit_are_refused(cls):
    with pytest.raises(ValueError, match="got 2 generators for a batch of 3"):
        small(cls)(three_items(), Able(), generator=generators(0, 2))


@every
def test_the_same_seed_gives_the_same_bits(cls):
    method, m = small(cls), three_items()
    first = method(m, Able())
    assert torch.equal(first, method(m, Able(), generator=generators(0, 3)))
    if cls.draws:
        assert (first - method(m, Able(), generator=generators(1, 3))).abs().max() > 0


@every
def test_a_start_is_used_and_stays_as_it_is(cls):
    method, m = small(cls), three_items()
    x0 = torch.full((3, 6), 0.5, dtype=F64)
    found = method(m, Able(), x0=x0)
    assert bool((x0 == 0.5).all())
    if cls is not solvers.FlowUnfolding:  # which begins where it was trained to
        assert not torch.equal(found, method(m, Able()))


@every
@pytest.mark.parametrize("ambient", [True, False])
def test_nothing_is_on_a_graph(cls, ambient):
    modes, seen = [], []

    def told(step):
        modes.append(torch.is_grad_enabled())
        seen.extend((step.x, step.x0))

    x0 = torch.zeros(3, 6, dtype=F64, requires_grad=True)
    with torch.set_grad_enabled(ambient):
        x = small(cls)(three_items(), Able(), x0=x0, callback=told)
        assert torch.is_grad_enabled() == ambient
    assert modes and not any(modes)
    assert not any(part.requires_grad for part in (x, *seen))


@every
def test_inference_mode_changes_nothing(cls):
    method, m, prior = small(cls), three_items(), Able()
    wanted = method(m, prior)
    with torch.inference_mode():
        assert torch.equal(method(m, prior), wanted)
        inside = Measurement(m.operator, m.noise, m.y.clone())
        start = method.start(inside, None) + 0
        assert start.is_inference()
        assert torch.equal(method(inside, prior, x0=start), wanted)


@every
def test_steps_are_kept_as_they_were_told(cls):
    kept, copies = [], []

    def told(step):
        kept.extend((step.x, step.x0))
        copies.extend((step.x.clone(), step.x0.clone()))

    small(cls)(three_items(), Able(), callback=told)
    assert all(torch.equal(a, b) for a, b in zip(kept, copies, strict=True))


# ---- what the frame does for methods that are yet to be written


class ImageAndKernel(NamedTuple):
    image: Tensor
    kernel: Tensor


class Blurred(NamedTuple):
    """A measurement whose operator is not known."""

    y: Tensor
    size: int


@runtime_checkable
class Pair(Protocol):
    """`image`, `kernel`: knows images and kernels, a denoiser each."""

    image: Denoiser
    kernel: Denoiser


class Two(NamedTuple):
    image: Any
    kernel: Any


@dataclass(frozen=True)
class Blind(Sampler):
    """Two unknowns, another kind of measurement, and two networks."""

    needs: ClassVar[tuple[type, ...]] = (Pair,)

    steps: int = 3

    def check(self, measurement, prior):
        require(prior, *self.needs, by=self)
        if not isinstance(measurement, Blurred):
            raise TypeError(f"Blind: got a {type(measurement).__name__}, wanted Blurred")

    def start(self, measurement, x0):
        n = len(measurement.y)
        kernel = torch.full((n, 1, measurement.size, measurement.size), 1 / measurement.size**2)
        begin = ImageAndKernel(measurement.y, kernel)
        return begin if x0 is None else fitting(x0, begin, by=self)

    def iterate(self, measurement, prior, x, generator):
        for k in range(self.steps):
            image = prior.image.denoise(x.image + 0.1 * randn_like(x.image, generator), 0.1)
            x = ImageAndKernel(image, prior.kernel.denoise(x.kernel, 0.1))
            yield Step(k, 0.1, x, x)
        return x


def blind_problem(*, broken=False):
    factor = math.nan if broken else 0.5
    networks = [CallableDenoiser(lambda v, s, f=f: f * v) for f in (0.9, factor)]
    return Blurred(torch.ones(2, 1, 6, 6), 3), Two(*networks)


def test_two_unknowns_travel_as_one():
    (m, prior), seen = blind_problem(), []
    x = Blind()(m, prior, callback=seen.append)
    assert isinstance(x, ImageAndKernel) and len(seen) == Blind().rounds == 3
    assert torch.equal(x.kernel, torch.full((2, 1, 3, 3), 1 / 72))
    assert torch.equal(seen[-1].x0.image, x.image)
    alone = Blind()(m._replace(y=m.y[:1]), prior, generator=generators(0, 2)[:1])
    assert torch.equal(alone.image, x.image[:1])
    with pytest.raises(ValueError, match="got 3 generators for a batch of 2"):
        Blind()(m, prior, generator=generators(0, 3))


def test_the_start_of_two_unknowns_is_checked_part_by_part():
    m, prior = blind_problem()
    x0 = ImageAndKernel(0 * m.y, torch.ones(2, 1, 3, 3))
    assert torch.equal(Blind()(m, prior, x0=x0).kernel, torch.full((2, 1, 3, 3), 1 / 8))
    with pytest.raises(ValueError, match=r"Blind: got x0.kernel with shape \(2, 1, 5, 5\)"):
        Blind()(m, prior, x0=x0._replace(kernel=torch.ones(2, 1, 5, 5)))
    with pytest.raises(ValueError, match="Blind: got x0 of .*Tensor.*, wanted a ImageAndKernel"):
        Blind()(m, prior, x0=m.y)


def test_the_part_that_is_not_finite_is_named():
    m, prior = blind_problem(broken=True)
    with pytest.raises(FloatingPointError, match=r"^Blind\(.*the kernel of the result is not fin"):
        Blind()(m, prior)


def test_a_method_says_itself_what_it_measures():
    m, prior = blind_problem()
    with pytest.raises(TypeError, match="Blind: got a Measurement, wanted Blurred"):
        Blind()(three_items(), prior)


def test_a_capability_of_a_file_of_its_own_has_its_own_words():
    m, prior = blind_problem()
    with pytest.raises(TypeError, match=r"Blind: .* wanted a Pair \(image, kernel: knows images"):
        Blind()(m, prior.image)


def test_the_method_of_the_docstring_runs():
    code = textwrap.dedent(
        re.search(r"\n(    @dataclass.*?\n)\nEverything", methods.__doc__, re.S)[1]
    )
    names = {**vars(methods)}
    exec(code, names)
    method, seen = names["Alternating"](), []
    method(three_items(), Able(), callback=seen.append)
    assert len(seen) == method.rounds == 10


def test_a_loop_that_yields_nothing_is_named():
    @dataclass(frozen=True)
    class Direct(Method):
        needs: ClassVar[tuple[type, ...]] = ()

        def iterate(self, measurement, prior, x, generator):
            return x

    with pytest.raises(TypeError, match="Direct.iterate: got a Tensor, wanted a loop that yields"):
        Direct()(three_items(), None)


@dataclass(frozen=True)
class EM(Method):
    """Counts: a start of its own, and no step length or noise level."""

    steps: int = 5

    def start(self, measurement, x0):
        return super().start(measurement, x0).clamp_min(1e-3)

    def iterate(self, measurement, prior, x, generator):
        for k in range(self.steps):
            x = measurement.em_step(x)
            yield Step(k, 0.0, x, x)
        return x


def test_counts_have_a_frame_too():
    operator = GaussianBlur((1, 6, 6), 0.8).double()
    truth = 50 + 40 * torch.rand(1, 1, 6, 6, dtype=F64, generator=generators(0, 1)[0])
    m = Measurement(operator, Poisson(), operator(truth).round())
    prior, seen = CallableDenoiser(lambda v, s: v, range=None, dtype=F64), []
    x = EM()(m, prior, callback=seen.append)
    misfits = [float(m.nll(step.x)) for step in seen]
    assert len(seen) == 5 and misfits == sorted(misfits, reverse=True) and float(x.min()) > 0
    assert float(EM()(m, prior, x0=-truth).min()) > 0


@dataclass(frozen=True)
class Leaky(Method):
    """A loop that yields where gradients are recorded, and says when it ends."""

    ended: ClassVar[list[bool]] = []

    def iterate(self, measurement, prior, x, generator):
        try:
            with torch.enable_grad():
                for k in range(3):
                    yield Step(k, 0.1, x, x)
                    assert torch.is_grad_enabled()
        finally:
            self.ended.append(True)
        return x


def test_a_callback_never_records_and_its_error_ends_the_loop_at_once():
    Leaky.ended.clear()
    modes = []
    Leaky()(three_items(), Able(), callback=lambda s: modes.append(torch.is_grad_enabled()))
    assert modes == [False] * 3 and Leaky.ended == [True] and torch.is_grad_enabled()
    for error in (KeyboardInterrupt, StopIteration):

        def stop(step, error=error):
            raise error

        with pytest.raises(error):
            Leaky()(three_items(), Able(), callback=stop)
        assert Leaky.ended.pop() and torch.is_grad_enabled()


def test_what_is_no_prior_is_refused_by_the_name_of_the_right_door():
    m = Measurement(GaussianBlur((1, 8, 8), 1.0), GaussianNoise(0.1), torch.zeros(1, 1, 8, 8))
    for thing in (lambda v, sigma: v, torch.nn.Conv2d(1, 1, 1)):
        with pytest.raises(TypeError, match="wanted a Denoiser.*: measurand.as_prior makes"):
            solvers.HQS()(m, thing)
    with pytest.raises(TypeError, match=r"measurand.load\('natural-gray'\)"):
        solvers.HQS()(m, "natural-gray")
    with pytest.raises(TypeError, match=r"got a object; wanted a Denoiser \(.*\)$"):
        solvers.HQS()(m, object())
    with pytest.raises(TypeError, match=r"got a TotalVariation, which is a Proximable; .*\)$"):
        solvers.HQS()(m, TotalVariation(weight=1.0))
    with pytest.raises(TypeError, match="got the class CosineGaussian, wanted a prior made of it"):
        solvers.HQS()(m, CosineGaussian)


def test_data_are_no_measurement():
    m = Measurement(GaussianBlur((1, 8, 8), 1.0), GaussianNoise(0.1), torch.zeros(1, 1, 8, 8))
    with pytest.raises(TypeError, match=r"wanted measurand.Measurement\(operator, noise, y\)"):
        solvers.HQS()(m.y, CosineGaussian.example())


def test_a_prior_in_the_place_of_the_measurement_is_named():
    prior = torch.nn.Identity()
    with pytest.raises(TypeError, match="got a Identity as the measurement"):
        solvers.HQS()(prior, gaussian_problem()[1])
