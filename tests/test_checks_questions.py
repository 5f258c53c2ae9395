"""The questions of the data, the operator and the residual: each fault is named where it is."""

import numpy as np
import pytest
import torch

from measurand.checks.questions import DOUBTFUL, FITS, NOT
from measurand.checks.questions.data import clipped, shape_and_kind, value_range
from measurand.checks.questions.kspace import coils, halves, order, samples
from measurand.checks.questions.operator import point_spread
from measurand.checks.questions.prior import domain
from measurand.checks.questions.projections import angles, axis
from measurand.checks.questions.residual import kernel, noise_level
from measurand.measurement import Measurement
from measurand.noises import ComplexGaussian, Gaussian
from measurand.operators import (
    SENSE,
    Blur,
    CartesianMRI,
    Identity,
    ParallelCT,
    birdcage_maps,
    disk_kernel,
    equispaced_lines,
    gaussian_kernel,
    motion_kernel,
)
from measurand.priors import CallableDenoiser
from measurand.priors.edm import EDMDenoiser
from measurand.tensors import generators, randn_like

AXIS = torch.linspace(-1, 1, 48)
HEAD = ((1.4 * AXIS[:, None] ** 2 + AXIS**2) < 0.6) * (1 + 0.4 * AXIS)
HEAD = HEAD * (1 - 0.6 * ((AXIS[:, None] + 0.2) ** 2 + (AXIS - 0.3) ** 2 < 0.04))
IMAGE = torch.polar(HEAD, 0.6 * AXIS * torch.ones(48, 1))[None, None]
MAPS = birdcage_maps((48, 48), 6)[0]
LINES = equispaced_lines((48, 48), 2.0, 0.12)[0, 0, 0].float()


def scan(lines=LINES, maps=MAPS):
    operator = SENSE((1, 48, 48), maps, lines)
    y = ComplexGaussian(0.003)(operator(IMAGE), generators(0, 1)) * lines
    return operator, y


def seen_by(operator, y):
    return Measurement(operator, ComplexGaussian(0.003), operator.observed(y))


def fft_order(y):
    return torch.fft.ifftshift(y, dim=(-2, -1))


def test_what_fits_of_k_space_is_said_to_fit():
    for lines in (LINES, torch.ones(48)):
        operator, y = scan(lines)
        assert samples(operator, y).verdict == FITS
        assert order(y).verdict == FITS
        assert coils(seen_by(operator, y)).verdict == FITS
    assert halves(IMAGE).verdict == FITS


def test_a_mask_that_is_not_that_of_the_data_is_found():
    _, y = scan()
    for lines in (LINES.roll(1), torch.ones(48)):
        v = samples(SENSE((1, 48, 48), MAPS, lines), y)
        assert v.verdict == NOT and "abs(y) > 0" in v.advice


def test_k_space_that_is_not_centred_is_found_and_the_axes_named():
    _, y = scan()
    v = order(fft_order(y))
    assert v.verdict == NOT and "np.fft.fftshift(y, axes=(-2, -1))" in v.advice
    assert "axes=(-1,)" in order(torch.fft.ifftshift(y, dim=-1)).advice


def test_halves_that_changed_places_are_found():
    rolled = IMAGE.roll((24, 24), (-2, -1))
    v = halves(rolled)
    assert v.verdict == DOUBTFUL and "(-1)**(i + j)" in v.advice


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (torch.conj_physical, "np.conj(y)"),
        (lambda y: y.flip(-2).roll(1, -2), "y[..., ::-1, :]"),
        (lambda y: y * (-1) ** (torch.arange(48)[:, None] + torch.arange(48)), "(i + j)"),
        (lambda y: y.flip(1), "y[:, ::-1]"),
        (lambda y: y[:, [1, 0, 3, 2, 5, 4]], "another order"),
    ],
)
def test_coils_that_see_no_one_image_are_found_and_the_change_is_named(change, words):
    operator, y = scan()
    v = coils(seen_by(operator, change(y)))
    assert v.verdict == NOT and words in v.advice, v
    single = CartesianMRI((1, 48, 48), LINES)
    assert coils(seen_by(single, single(IMAGE))).verdict == FITS  # any image explains one


def test_coils_last_are_permuted_back():
    operator, y = scan()
    v = shape_and_kind(operator, y.permute(0, 2, 3, 1))
    assert v.verdict == NOT and "np.transpose(y, (0, 3, 1, 2))" in v.advice


BODY = (2 * HEAD - 1)[None, None].roll((3, -4), (-2, -1))


def tomograph(count=40, turn=np.pi, seen=None, change=lambda y: y, sigma=0.1):
    true = np.arange(count) * turn / count
    y = Gaussian(sigma)(ParallelCT((1, 48, 48), true, detectors=90)(BODY), generators(0, 1))
    operator = ParallelCT((1, 48, 48), true if seen is None else seen(true), detectors=90)
    return Measurement(operator, Gaussian(sigma), change(y))


def test_projections_from_the_right_angles_fit():
    for m in (tomograph(), tomograph(60, 2 * np.pi), tomograph(sigma=1.0)):
        assert angles(m).verdict == FITS and axis(m).verdict == FITS, (angles(m), axis(m))


@pytest.mark.parametrize(
    ("turn", "seen", "change"),
    [
        (np.pi, lambda a: np.mod(np.rad2deg(a), 2 * np.pi), lambda y: y),
        (np.pi, lambda a: 2 * a, lambda y: y),
        (2 * np.pi, lambda a: a / 2, lambda y: y),
        (np.pi, lambda a: a, lambda y: torch.cat((y[..., ::2, :], y[..., 1::2, :]), -2)),
    ],
)
def test_wrong_angles_are_found(turn, seen, change):
    v = angles(tomograph(turn=turn, seen=seen, change=change))
    assert v.verdict == NOT and "degrees" in v.advice


@pytest.mark.parametrize("bins", [-4, 1, 3])
def test_an_axis_off_the_middle_is_measured(bins):
    def moved(y):  # as it is, or as projections of an image that is not negative
        return y.roll(bins, -1)

    def lifted(y):
        ones = tomograph().operator(torch.ones(1, 1, 48, 48))
        return (y + ones).roll(bins, -1) - ones

    for change in (moved, lifted):
        m = tomograph(change=change)
        v = axis(m)
        assert v.verdict in (DOUBTFUL, NOT) and angles(m).verdict == FITS
        found = float(v.advice.split("--operator.axis ")[1].split()[0])
        assert found == pytest.approx(bins, abs=0.1)


def test_an_axis_that_is_told_is_no_fault():
    angles_ = np.arange(40) * np.pi / 40
    operator = ParallelCT((1, 48, 48), angles_, axis=3.0, detectors=80)
    m = Measurement(operator, Gaussian(0.1), operator(BODY))
    assert axis(m).verdict == FITS and angles(m).verdict == FITS
    untold = Measurement(ParallelCT((1, 48, 48), angles_, detectors=80), Gaussian(0.1), m.y)
    assert axis(untold).verdict == NOT


def test_projections_that_are_cut_off_are_not_asked():
    operator = ParallelCT((1, 48, 48), np.arange(40) * np.pi / 40, detectors=20)
    m = Measurement(operator, Gaussian(0.1), operator(BODY).roll(4, -1))
    assert "not asked" in axis(m).found and "not asked" in angles(m).found


def of(k):
    return point_spread(Blur((1, 48, 48), k))


@pytest.mark.parametrize(
    "k", [gaussian_kernel(1.5), disk_kernel(3.0), motion_kernel(9, 0.4), torch.ones(7, 7) / 49]
)
def test_ordinary_kernels_fit_and_their_faults_are_found(k):
    assert of(k).verdict == FITS
    wide = torch.nn.functional.pad(k, (4, 4, 4, 4))
    v = of(0.8 * wide + 0.2 / wide.numel())
    assert v.verdict == NOT and "pedestal" in v.found and "np.save" in v.advice
    v = of(torch.fft.ifftshift(wide))
    assert v.verdict == NOT and "np.fft.fftshift(k)" in v.advice
    n = wide.shape[-1] // 4
    assert of(wide.roll((n, n), (0, 1))).verdict in (DOUBTFUL, NOT)


def test_saturated_data_are_found_and_black_borders_are_not():
    identity = Identity((1, 48, 48))
    y = Gaussian(0.1)(BODY, generators(1, 1))
    assert clipped(identity, y).verdict == FITS
    assert clipped(identity, y.clamp(max=0.6)).verdict in (DOUBTFUL, NOT)
    v = clipped(identity, y.clamp(min=-1.0))
    assert v.verdict == NOT and "smallest" in v.advice
    border = y.clone()
    border[..., :12, :] = -3.0
    assert clipped(identity, border).verdict == FITS
    operator, k = scan()
    assert clipped(operator, k).verdict == FITS
    parts = torch.view_as_real(k).clamp(-0.3, 0.3)
    assert clipped(operator, torch.view_as_complex(parts)).verdict != FITS


@pytest.mark.parametrize(("bits", "top"), [(12, "4095"), (10, "1023"), (14, "16383")])
def test_few_bits_in_a_file_of_sixteen_are_named(bits, top):
    y = (BODY.clamp(-1, 1) + 1) * 2.0 ** (bits - 16) - 1
    v = value_range(y, (-1.0, 1.0), 0.0, pictures=True)
    assert v.verdict == DOUBTFUL and f"--value-range 0 {top}" in v.advice


def test_a_residual_with_structure_at_middle_frequencies_names_the_kernel():
    white = randn_like(BODY, generators(2, 1))
    assert kernel(white, randn_like(BODY, generators(3, 1))).verdict == FITS
    wave = torch.sin(2 * np.pi * 0.15 * torch.arange(48)).expand(48, 48)
    v = kernel(white + wave, white)
    assert v.verdict == NOT and "unknown-blur" in v.advice
    assert "noise first" in kernel(3 * white + wave, white).found


def test_noise_that_is_seen_counts_where_the_residual_follows_the_claim():
    y = Gaussian(0.1)(0.5 * BODY.clamp(-1, 1), generators(1, 1))
    identity = Identity((1, 48, 48))
    for sigma, wanted in ((0.1, FITS), (0.033, NOT), (0.3, NOT)):
        m = Measurement(identity, Gaussian(sigma), y)
        same = randn_like(y, generators(4, 1))
        assert noise_level(m, same, same).verdict == wanted


def test_only_special_trained_priors_of_real_images_are_asked_for_their_domain():
    x = torch.zeros(1, 1, 16, 16)
    assert domain(x, CallableDenoiser(lambda v, s: v, range=(-1.0, 1.0)), 0) is None
    network = EDMDenoiser.example().requires_grad_(False)
    assert domain(x, network, 0) is None  # it has no name
    network.card["name"] = "natural-gray"
    assert domain(x, network, 0) is None
    network.card["name"] = "something-else"
    wave = torch.sin(torch.arange(16.0))[None, None, None].expand(1, 1, 16, 16)
    v = domain(0.5 * wave, network, 0)
    assert v is not None and v.verdict != FITS and "--prior natural-gray" in v.advice
