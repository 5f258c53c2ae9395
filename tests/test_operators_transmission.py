"""Counts, line integrals, attenuation and Hounsfield units."""

import numpy as np
import pytest
import torch

from measurand.operators import (
    ParallelCT,
    attenuation,
    even_angles,
    fbp,
    hounsfield,
    line_integrals,
)

RNG = np.random.default_rng(0)
FLAT = RNG.integers(9000, 11000, 40)
DARK = RNG.integers(90, 110, 40)
P = RNG.random((7, 40)) * 4
COUNTS = (FLAT - DARK) * np.exp(-P) + DARK


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u2"])
def test_line_integrals_undo_the_law_of_beer_and_lambert(dtype):
    p = line_integrals(COUNTS.astype(dtype), FLAT.astype(dtype), DARK.astype(dtype))
    assert p.dtype == torch.float32 and p.shape == (7, 40)
    np.testing.assert_allclose(p, P, atol=5e-3 if dtype[0] in "iu" else 1e-5)
    volume = line_integrals(torch.from_numpy(COUNTS).expand(3, 7, 40), 10000)
    assert volume.shape == (3, 7, 40)
    torch.testing.assert_close(volume[0].double(), -torch.log(torch.from_numpy(COUNTS) / 10000))


def test_samples_without_light_are_counted():
    counts = COUNTS.round()
    counts[2, 3:6] = DARK[3:6] - [0, 5, -1]
    with pytest.warns(
        UserWarning, match="2 of 280 counts are less than 0.5 above .* to -5"
    ) as said:
        p = line_integrals(counts, FLAT, DARK)
    assert len(said) == 1 and p.isfinite().all()
    np.testing.assert_allclose(p[2, 3:6], np.log((FLAT - DARK)[3:6] / [0.5, 0.5, 1]), rtol=1e-5)
    with pytest.warns(UserWarning, match="less than 20 above"):
        raised = line_integrals(counts, FLAT, DARK, least=20)
    assert float(raised.max()) <= np.log(11000 / 20)


@pytest.mark.parametrize(
    ("counts", "flat", "dark", "words"),
    [
        (COUNTS, COUNTS[:5], 0, r"flat of shape \(5, 40\) .* wanted .*\(40,\); .*flat.mean\(0\)"),
        (COUNTS, FLAT[:39], 0, r"flat of shape \(39,\)"),
        (COUNTS, FLAT, np.zeros((1, 7, 40)), r"dark of shape \(1, 7, 40\)"),
        (COUNTS, np.where(np.arange(40) == 4, 100, FLAT), DARK * 0 + 100, "for 7 of 280"),
        (COUNTS / FLAT, 1.0 / 3, 0, "no counts say the smallest"),
        (FLAT + 0 * COUNTS, COUNTS, DARK, "are counts and flat field exchanged"),
        (COUNTS * np.nan, FLAT, 0, "counts that are complex or not finite"),
        (COUNTS, FLAT + 0j, 0, "flat that are complex"),
    ],
)
def test_what_are_no_counts_is_named(counts, flat, dark, words):
    with pytest.raises(ValueError, match=f"line_integrals: .*{words}"):
        line_integrals(counts, flat, dark)
    with pytest.raises(ValueError, match="least = 0"):
        line_integrals(COUNTS, FLAT, DARK, least=0)


def test_transmissions_are_counts_of_a_small_unit():
    p = line_integrals((COUNTS - DARK) / (FLAT - DARK), 1.0, least=1e-4)
    np.testing.assert_allclose(p, P, atol=1e-5)


def test_hounsfield_units_compare_with_water():
    mu = torch.tensor([0.0, 0.0192, 0.0384])
    hu = hounsfield(mu, water=0.0192)
    torch.testing.assert_close(hu, torch.tensor([-1000.0, 0, 1000]))
    torch.testing.assert_close(attenuation(hu, water=0.0192), mu)
    for function in (hounsfield, attenuation):
        for water in (0, -1.0, float("nan")):
            with pytest.raises(ValueError, match=f"{function.__name__}: got water"):
                function(mu, water=water)


def test_from_counts_to_hounsfield_units():
    """A cylinder of water with bone in it, pixels of 2 mm."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    hu = np.where(x**2 + y**2 < 0.6, 0.0, -1000) + 800 * ((x - 0.3) ** 2 + y**2 < 0.04)
    operator = ParallelCT((1, 64, 64), even_angles(180), pixel=2.0)
    p = operator(attenuation(torch.from_numpy(hu).float()[None, None], water=0.0192))
    counts = np.random.default_rng(1).poisson(1e6 * np.exp(-p.numpy()))
    found = hounsfield(fbp(operator, line_integrals(counts, 1e6)), water=0.0192)[0, 0].numpy()
    means = [found[k].mean() for k in (x**2 + y**2 > 0.8, (x + 0.3) ** 2 + y**2 < 0.1,
                                       (x - 0.3) ** 2 + y**2 < 0.02)]  # fmt: skip
    np.testing.assert_allclose(means, [-1000, 0, 800], atol=15)
