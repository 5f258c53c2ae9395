"""Metrics against scikit-image, against closed forms, and against exact ensembles."""

import math
import statistics

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from measurand.metrics import (
    conformal_factor,
    coverage,
    crps,
    interval_coverage,
    lpips,
    nmse,
    psnr,
    sam,
    ssim,
)


def noisy_pair(shape, seed=0, level=0.2):
    g = torch.Generator().manual_seed(seed)
    reference = torch.rand(shape, generator=g) * 2 - 1
    return (reference + level * torch.randn(shape, generator=g)).clamp(-1, 1), reference


@settings(max_examples=15, deadline=None)
@given(st.integers(7, 24), st.integers(7, 24), st.sampled_from([1, 3]), st.integers(0, 99))
def test_psnr_and_ssim_equal_scikit_image(height, width, channels, seed):
    x, r = noisy_pair((2, channels, height, width), seed)
    ours, theirs = psnr(x, r, data_range=2.0), ssim(x, r, data_range=2.0)
    for i in range(2):
        a, b = x[i].double().numpy(), r[i].double().numpy()
        assert abs(ours[i] - peak_signal_noise_ratio(b, a, data_range=2.0)) < 1e-6
        expected = structural_similarity(b, a, data_range=2.0, channel_axis=0)
        assert abs(theirs[i] - expected) < 1e-6


@pytest.mark.parametrize("unbiased", [True, False])
def test_gaussian_window_equals_scikit_image(unbiased):
    x, r = noisy_pair((1, 3, 31, 40))
    expected = structural_similarity(
        r[0].double().numpy(),
        x[0].double().numpy(),
        data_range=2.0,
        channel_axis=0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=unbiased,
    )
    ours = ssim(x, r, data_range=2.0, gaussian=1.5, unbiased=unbiased)
    assert abs(ours.item() - expected) < 1e-6


def test_ssim_of_volumes_and_lines_equals_scikit_image():
    for spatial in [(9, 10, 11), (33,)]:
        x, r = noisy_pair((1, 1, *spatial))
        expected = structural_similarity(
            r[0, 0].double().numpy(), x[0, 0].double().numpy(), data_range=2.0
        )
        assert abs(ssim(x, r, data_range=2.0).item() - expected) < 1e-6


def test_psnr_of_complex_images_counts_both_components():
    r = torch.zeros(1, 1, 4, 4, dtype=torch.complex64)
    x = r + (0.03 + 0.04j)
    assert psnr(x, r, data_range=1.0).item() == pytest.approx(20 * math.log10(1 / 0.05), abs=1e-5)
    assert torch.isinf(psnr(r, r, data_range=1.0)).all()


def test_nmse_and_sam_have_their_closed_forms():
    r = torch.rand(2, 4, 5, 5, generator=torch.Generator().manual_seed(1)) + 0.1
    torch.testing.assert_close(nmse(1.1 * r, r), torch.full((2,), 0.01, dtype=torch.float64))
    assert sam(3.0 * r, r).max() < 1e-6  # a spectrum's length is no angle
    x = torch.zeros(1, 2, 1, 2)
    y = torch.zeros(1, 2, 1, 2)
    x[0, 0], y[0, 1] = 1.0, 1.0
    x[..., 1] = 0.0  # an empty pixel is left out
    assert sam(x, y).item() == pytest.approx(math.pi / 2)


def test_crps_equals_its_definition_and_the_gaussian_closed_form():
    g = torch.Generator().manual_seed(0)
    draws, truth = torch.randn(2, 6, 1, 3, generator=g), torch.randn(2, 1, 3, generator=g)
    pairs = (draws[:, :, None] - draws[:, None]).abs().sum((1, 2)) / (2 * 6 * 5)
    direct = ((draws - truth[:, None]).abs().mean(1) - pairs).flatten(1).mean(1)
    torch.testing.assert_close(crps(draws, truth).float(), direct)
    # E over exact draws and truth: 2 E CRPS = E|X - X'| = 2/sqrt(pi)
    draws, truth = torch.randn(1, 20, 40000, generator=g), torch.randn(1, 40000, generator=g)
    assert crps(draws, truth).item() == pytest.approx(1 / math.sqrt(math.pi), abs=0.01)
    assert crps(draws[:, :1], truth).item() == pytest.approx(
        (draws[:, 0] - truth).abs().mean().item(), rel=1e-5
    )


@pytest.mark.parametrize(("count", "level"), [(4, 0.6), (9, 0.8), (19, 0.9), (39, 0.5)])
def test_exact_draws_are_covered_at_their_level(count, level):
    g = torch.Generator().manual_seed(count)
    everything = torch.randn(1, count + 1, 60000, generator=g)
    hit = coverage(everything[:, 1:], everything[:, 0], level=level).item()
    assert hit == pytest.approx(level, abs=0.01)


def test_coverage_between_two_ranks_lies_between_their_levels():
    g = torch.Generator().manual_seed(7)
    draws, truth = torch.randn(1, 7, 20000, generator=g), torch.randn(1, 20000, generator=g)
    low, middle, high = (coverage(draws, truth, level=level) for level in (0.25, 0.4, 0.5))
    assert low < middle < high


def test_too_narrow_draws_are_found_out():
    g = torch.Generator().manual_seed(3)
    draws, truth = 0.5 * torch.randn(1, 19, 20000, generator=g), torch.randn(1, 20000, generator=g)
    assert coverage(draws, truth, level=0.9).item() < 0.7


def test_wrong_arguments_are_named():
    x = torch.zeros(1, 1, 8, 8)
    with pytest.raises(ValueError, match=r"psnr: got .*\(1, 1, 8, 8\).*\(1, 1, 8, 7\)"):
        psnr(x, x[..., :7], data_range=2.0)
    with pytest.raises(ValueError, match="window of side 7"):
        ssim(x[..., :6], x[..., :6], data_range=2.0)
    with pytest.raises(TypeError, match="magnitudes"):
        ssim(x.to(torch.complex64), x.to(torch.complex64), data_range=2.0)
    with pytest.raises(ValueError, match="at least 19 draws"):
        coverage(x[:, None].expand(1, 5, 1, 8, 8), x, level=0.9)
    with pytest.raises(FileNotFoundError, match="no weights file"):
        lpips(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64), weights="absent.safetensors")


def test_lpips_is_a_distance_on_alexnet_features(tmp_path):
    from safetensors.torch import save_file

    g = torch.Generator().manual_seed(0)
    shapes = [
        (64, 3, 11, 11),
        (192, 64, 5, 5),
        (384, 192, 3, 3),
        (256, 384, 3, 3),
        (256, 256, 3, 3),
    ]
    tensors = {}
    for i, (index, shape) in enumerate(zip((0, 3, 6, 8, 10), shapes, strict=True)):
        fan = float(np.prod(shape[1:]))
        tensors[f"features.{index}.weight"] = torch.randn(shape, generator=g) / fan**0.5
        tensors[f"features.{index}.bias"] = torch.zeros(shape[0])
        tensors[f"lin{i}.model.1.weight"] = torch.rand(1, shape[0], 1, 1, generator=g)
    save_file(tensors, str(tmp_path / "alex.safetensors"))
    x, r = noisy_pair((2, 3, 64, 64))
    value = lpips(x, r, weights=tmp_path / "alex.safetensors")
    assert value.shape == (2,) and (value > 0).all()
    assert lpips(r, r, weights=tmp_path / "alex.safetensors").abs().max() == 0
    nearer = lpips(r + 0.1 * (x - r), r, weights=tmp_path / "alex.safetensors")
    assert (nearer < value).all()
    tensors.pop("lin3.model.1.weight")
    save_file(tensors, str(tmp_path / "short.safetensors"))
    with pytest.raises(KeyError, match="lin3"):
        lpips(x, r, weights=tmp_path / "short.safetensors")


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("wrong", [0.4, 1.0, 3.0])
def test_a_conformal_factor_mends_deviations_that_are_wrong_by_a_factor(level, wrong):
    """Errors normal with sd: q is the quantile of |n| over the factor that the deviations have."""
    g = torch.Generator().manual_seed(0)
    sd = torch.rand(40, 1, 32, 32, generator=g) + 0.1
    x = torch.randn(40, 1, 32, 32, generator=g)
    estimate = x + sd * torch.randn(x.shape, generator=g)
    fit, test = slice(0, 20), slice(20, 40)
    factor = conformal_factor(estimate[fit], wrong * sd[fit], x[fit], level=level)
    exact = statistics.NormalDist().inv_cdf((1 + level) / 2)
    assert factor == pytest.approx(exact / wrong, rel=0.02)
    covered = interval_coverage(estimate[test], wrong * sd[test], x[test], factor=factor)
    assert covered.shape == (20,) and float(covered.mean()) == pytest.approx(level, abs=0.01)


def test_a_conformal_factor_of_few_pixels_by_hand():
    x, sd = torch.zeros(1, 1, 2, 2), torch.tensor([[[[1.0, 2.0], [4.0, 1.0]]]])
    estimate = torch.tensor([[[[1.0, 1.0], [-8.0, 0.0]]]])  # scores 1, 0.5, 2, 0
    assert conformal_factor(estimate, sd, x, level=0.5) == 1.0  # rank ceil(5 / 2) = 3
    assert conformal_factor(estimate, sd, x, level=0.4) == 0.5
    assert conformal_factor(estimate, sd, x, level=0.9) == 2.0
    assert interval_coverage(estimate, sd, x, factor=1.0).tolist() == [0.75]
    sd[..., 0, 0] = 0  # an error that no deviation explains
    assert conformal_factor(estimate, sd, x, level=0.4) == 0.5
    with pytest.raises(ValueError, match="1 of 4 pixels"):
        conformal_factor(estimate, sd, x, level=0.9)
    for bad in (-sd, sd[..., :1], sd.to(torch.complex64)):
        with pytest.raises(ValueError, match="deviations"):
            interval_coverage(estimate, bad, x)
    with pytest.raises(ValueError, match="level"):
        conformal_factor(estimate, sd, x, level=1.0)
