"""The prior and the method of a problem for which none is named."""

import pytest

from measurand.jobs.choice import choice, method_of
from measurand.operators import (
    SENSE,
    BlockAverage,
    CartesianMRI,
    FourierMask,
    GaussianBlur,
    Identity,
    Mask,
    ParallelCT,
    ValidGaussianBlur,
    birdcage_maps,
    even_angles,
    random_lines,
    random_mask,
)
from measurand.priors import EDMDenoiser, TotalVariation
from measurand.samplers import PnPDM
from measurand.solvers import ADMM, FISTA, HQS, PosteriorMean
from measurand.weights.store import known_weights

COLOR, GREY, MANY = (3, 16, 16), (1, 16, 16), (5, 16, 16)
LINES = random_lines((1, 16, 16), 2.0)
TV = "total-variation"


@pytest.mark.parametrize(
    ("operator", "prior", "method"),
    [
        (ValidGaussianBlur(COLOR, 0.8), "unfold-color", PosteriorMean()),
        (GaussianBlur(COLOR, 1.0), "unfold-color", PosteriorMean()),
        (BlockAverage(COLOR, 2), "unfold-color", PosteriorMean()),
        (Mask(COLOR, random_mask(COLOR, 0.5)), "unfold-color", PosteriorMean()),
        (FourierMask(COLOR, random_lines(COLOR, 2.0)), "unfold-color", PosteriorMean()),
        (Mask(COLOR, random_mask(COLOR, 0.9)), "natural-color", ADMM()),
        (Identity(COLOR), "natural-color", ADMM()),
        (Identity(GREY), "natural-gray", ADMM()),
        (ValidGaussianBlur(GREY, 0.8), "natural-gray", HQS()),
        (GaussianBlur(GREY, 1.0), "natural-gray", HQS()),
        (Mask(GREY, random_mask(GREY, 0.5)), "natural-gray", ADMM()),
        (BlockAverage(GREY, 2), "natural-gray", ADMM()),
        (Identity(MANY), TV, FISTA()),
        (ParallelCT(GREY, even_angles(5)), TV, FISTA()),
        (CartesianMRI((1, 16, 16), LINES), "mri-brain", ADMM()),
        (SENSE((1, 16, 16), birdcage_maps((16, 16), 4), LINES), "unfold-brain", PosteriorMean()),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_the_best_that_ship(operator, prior, method):
    found = choice(operator)
    assert (found.prior, found.method) == (prior, method)
    assert prior in found.why and method.command in found.why
    assert prior == TV or any(name.startswith(f"{prior}@") for name in known_weights())


def test_a_method_that_is_named_has_the_prior_of_the_images():
    color, grey, brain = Identity(COLOR), Identity(GREY), CartesianMRI((1, 16, 16), LINES)
    for method in (HQS(), ADMM(), PnPDM()):
        names = [choice(operator, method).prior for operator in (color, grey, brain)]
        assert names == ["natural-color", "natural-gray", "mri-brain"]
        assert choice(color, method).method == method
    assert choice(grey, PosteriorMean()).prior == "unfold-color"
    assert choice(brain, PosteriorMean()).prior == "unfold-brain"
    assert choice(color, FISTA()).prior == TV


def test_a_prior_that_is_named_has_a_method():
    blur, mask = GaussianBlur(COLOR, 1.0), Mask(COLOR, random_mask(COLOR, 0.5))
    assert method_of(EDMDenoiser.example(), blur) == HQS()
    assert method_of(EDMDenoiser.example(), mask) == ADMM()
    assert method_of(TotalVariation(weight=1.0), blur) == FISTA()


def test_slices_in_hounsfield_units_have_the_prior_of_ct():
    for operator in (Identity((1, 8, 8)), ParallelCT((1, 8, 8), [0.0, 1.0])):
        found = choice(operator, ct=True)
        assert found.prior == "ct-body" and found.method == ADMM()
    assert choice(Identity((3, 8, 8)), ct=True).prior == "natural-color"
    assert choice(ParallelCT((1, 8, 8), [0.0, 1.0])).prior == "total-variation"
