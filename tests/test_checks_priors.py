"""Every prior of the package obeys the laws of what it can do, and is named or says why not."""

import inspect
import math
import pickle
from dataclasses import replace

import pytest
import torch
from torch import nn

import measurand.priors as priors
from measurand.checks.laws import minimum_error, normalization_error, prior_laws
from measurand.jobs.arguments import kebab
from measurand.jobs.restore import prior_loaded
from measurand.nets import ConvUNet, Glow
from measurand.priors import (
    VE,
    CallableDenoiser,
    Denoiser,
    FlowPrior,
    FromImage,
    FromNoise,
    Gaussian,
    GaussianMixture,
    Penalty,
    Posterior,
    TotalVariation,
    Wavelets,
)
from measurand.tensors import per_item

ASKED = ("denoise", "prox", "log_prob", "given", "restore", "denoise_code")
CLASSES = [
    cls
    for name in priors.__all__
    if inspect.isclass(cls := getattr(priors, name))
    and not getattr(cls, "_is_protocol", False)
    and any(hasattr(cls, method) for method in ASKED)
]
every = pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)


def images(dtype=torch.float32, n=3):
    generator = torch.Generator().manual_seed(0)
    smooth = nn.functional.interpolate(
        torch.rand(n, 1, 3, 3, generator=generator), (8, 8), mode="bilinear"
    )
    x = 0.6 * smooth + 0.05 * torch.randn(n, 1, 8, 8, generator=generator)
    return x.to(dtype) * (1 + 0.5j) if dtype.is_complex else x.to(dtype)


def failed(prior, x):
    return [law for law in prior_laws(prior, x) if not law.holds]


@every
def test_laws(cls):
    assert not failed(cls.example(), images())


@pytest.mark.parametrize(
    "cls", [cls for cls in CLASSES if issubclass(cls, nn.Module)], ids=lambda cls: cls.__name__
)
def test_laws_in_double_precision(cls):
    assert not failed(cls.example().double(), images(torch.float64))


@pytest.mark.parametrize(
    "prior",
    [
        TotalVariation(weight=0.3, tol=1e-6),
        Wavelets(weight=0.3, moments=2),
        Gaussian(torch.zeros(1, 1, 8, 8) + 0.1j, 0.2 * torch.eye(64)),
        FromImage(lambda x, t: x / (1 + 4 * per_item(t, x) ** 2), VE(), dtype=torch.complex64),
    ],
    ids=lambda prior: type(prior).__name__,
)
def test_laws_of_complex_images(prior):
    assert not failed(prior, images(torch.complex64))


def broken(**methods):
    """A prior of the methods given."""
    return type("Broken", (), {"range": None, "dtype": torch.float32, **methods})()


def stated(weight):
    """Total variation whose map has another weight than its value."""
    right = TotalVariation(weight=weight, tol=1e-6)
    return broken(
        not_by_name="",
        usual_weight=lambda noise, determined: 0.1 / noise,
        approximate=False,
        weight=1.0,
        value=lambda self, x: TotalVariation(weight=0.3).value(x),
        prox=lambda self, v, tau: right.prox(v, tau),
    )


@pytest.mark.parametrize(
    ("prior", "names"),
    [
        (
            broken(denoise=lambda self, v, sigma, condition=None: v.double()),
            {"denoise: shape, dtype and device kept"},
        ),
        (
            broken(denoise=lambda self, v, sigma, condition=None: v - v.mean()),
            {"denoise: batch rows independent", "denoise: small noise"},
        ),
        (FromNoise(lambda x, t: 6 * x, VE()), {"denoise: small noise", "denoise: range"}),
        (
            CallableDenoiser(lambda v, sigma: v * (1 - torch.as_tensor(sigma).mean())),
            {"denoise: batch rows independent", "denoise: range"},
        ),
        (stated(0.33), {"prox"}),
        (stated(0.27), {"prox"}),
        (
            broken(
                prox=lambda self, v, tau: v / (1 + per_item(tau, v).sqrt()),
                log_prob=lambda self, x: -x.square().flatten(1).sum(1) / 2,
            ),
            {"prox"},
        ),
        (
            broken(log_prob=lambda self, x: -x.square().flatten(1).sum(1) + x.detach().sum()),
            {"log_prob: batch rows independent", "gradient"},
        ),
        (broken(log_prob=lambda self, x: -x.square().sum()), {"log_prob: one number per item"}),
    ],
    ids=range(9),
)
def test_a_broken_prior_is_caught(prior, names):
    assert {law.name for law in failed(prior, images())} == names


def test_a_weight_that_is_right_is_not():
    assert not failed(stated(0.3), images())


def test_minimum_error_is_that_of_a_map_with_another_weight():
    gaussian = Gaussian(torch.zeros(1, 1, 1, 4).double(), torch.eye(4).double())
    v = torch.ones(2, 1, 1, 4).double()
    assert minimum_error(gaussian, lambda x: -gaussian.log_prob(x), v, 0.5) < 1e-12
    assert minimum_error(gaussian, lambda x: -1.2 * gaussian.log_prob(x), v, 0.5) > 1e-2


def test_what_is_no_prior_and_what_is_one_image_are_named():
    with pytest.raises(TypeError, match="got a object, wanted a Denoiser"):
        prior_laws(object(), images())
    with pytest.raises(ValueError, match="got 1 images, wanted at least 2"):
        prior_laws(Wavelets(), images(n=1))


def densities():
    one = torch.ones(1, 1, 1, 1).double()
    narrow, wide = (Gaussian(c * one, s**2 * torch.eye(1).double()) for c, s in ((1, 0.3), (0, 1)))
    mixture = GaussianMixture(torch.tensor([0.3, 0.7]).double(), [narrow, wide])
    torch.manual_seed(0)
    flow = Glow(1, levels=1, steps=2, hidden=8)
    for p in flow.parameters():
        nn.init.normal_(p, std=0.1)
    prior = FlowPrior(flow, shape=(1, 2, 2)).double()
    return [(narrow, (1, 1, 1)), (wide, (1, 1, 1)), (mixture, (1, 1, 1)), (prior, (1, 2, 2))]


@pytest.mark.parametrize(
    ("prior", "shape"), densities(), ids=["narrow", "wide", "mixture", "flow"]
)
def test_densities_are_normalized(prior, shape):
    points = 2001 if math.prod(shape) == 1 else 29
    assert normalization_error(prior, shape, reach=8.0, points=points) < 1e-4
    doubled = broken(log_prob=lambda self, x: prior.log_prob(x) + math.log(2))
    assert normalization_error(doubled, shape, reach=8.0, points=points) > 0.9


@every
def test_it_is_named_on_the_command_line_or_says_why_not(cls):
    name = kebab(cls.__name__)
    if cls.not_by_name:
        with pytest.raises(ValueError, match=f"{cls.__name__} .*{cls.not_by_name}"):
            prior_loaded(f"{name}:2.5")
        return
    prior = prior_loaded(f"{name}:2.5").prior
    assert isinstance(prior, cls) and isinstance(prior, Penalty)
    assert prior == replace(cls(), weight=2.5)


@every
def test_another_process_can_use_it(cls):
    prior, x = cls.example(), images()
    there = pickle.loads(pickle.dumps(prior))
    for ask in (
        lambda p: p.denoise(x, 0.1) if isinstance(p, Denoiser) else None,
        lambda p: p.prox(x, 0.1) if isinstance(p, priors.Proximable) else None,
        lambda p: p.log_prob(x) if isinstance(p, priors.Density) else None,
    ):
        found = ask(prior)
        assert found is None or torch.equal(ask(there), found)
    assert isinstance(there, Posterior) == isinstance(prior, Posterior)


def test_examples_leave_the_random_numbers_of_the_caller_alone():
    state = torch.get_rng_state()
    for cls in CLASSES:
        cls.example()
    assert torch.equal(torch.get_rng_state(), state)


def test_an_example_is_a_network_that_does_something():
    x = images()
    network = priors.EDMDenoiser.example()
    assert isinstance(network.net, ConvUNet)
    assert not torch.allclose(network.denoise(x, 0.5), x * 0.25 / 0.5, atol=1e-3)
