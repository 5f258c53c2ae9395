"""Priors are called with (v, sigma), and printed on two lines of a terminal."""

import pytest
import torch
from torch import nn

import measurand as ms
from measurand import priors
from measurand.weights.store import known_weights

TWO_LINES = 198
EXAMPLES = {
    name: thing.example
    for name, thing in ((name, getattr(priors, name)) for name in priors.__all__)
    if hasattr(thing, "example")
}


def fits(prior):
    text = repr(prior)
    return (
        text.startswith(type(prior).__name__ + "(") and "\n" not in text and len(text) <= TWO_LINES
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_prior_is_printed_on_two_lines(name):
    assert fits(EXAMPLES[name]())


@pytest.mark.parametrize("name", known_weights())
def test_a_prior_that_ships_is_printed_on_two_lines(name):
    prior = ms.load(name)
    assert fits(prior)
    if isinstance(prior, priors.Denoiser):
        wrapped = priors.Tiled(priors.Rescaled(prior, (0.0, 1.0)))
        assert fits(priors.Counted(wrapped)) and "tile=1024" in repr(wrapped)
        assert fits(priors.FromImage(prior, priors.VE()))


def test_a_network_inside_is_named_with_its_size():
    class Network(nn.Sequential):
        pass

    prior = ms.priors.FromNoise(Network(*[nn.Conv2d(3, 3, 1) for _ in range(9)]), priors.VE())
    assert repr(prior) == "FromNoise(Network of 108 weights, VE(), range=(-1.0, 1.0))"

    def shrink(v, sigma):
        return v / (1 + sigma.square().mean() * 4)

    assert "shrink" in repr(ms.as_prior(shrink)) and "shrink" in repr(
        priors.CallableDenoiser(shrink)
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_denoiser_is_called_with_v_and_sigma(name):
    prior = EXAMPLES[name]()
    if not isinstance(prior, priors.Denoiser):
        assert not hasattr(prior, "denoise")
        return
    v = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=prior.dtype)
    assert torch.equal(prior(v, 0.3), prior.denoise(v, 0.3))
    if name != "Conditioned":  # holds its own, and says so
        assert torch.equal(prior(v, 0.3, condition=None), prior.denoise(v, 0.3))


def test_the_denoiser_of_a_posterior_is_called_with_v_and_sigma():
    network = ms.unfolded.UnfoldedDR.tiny(1)
    blur = ms.operators.GaussianBlur((1, 8, 8), 1.0)
    v = torch.zeros(1, 1, 8, 8)
    prior = network.given(ms.Measurement(blur, ms.noises.Gaussian(0.1), v))
    assert torch.equal(prior(v, 0.3), prior.denoise(v, 0.3))
