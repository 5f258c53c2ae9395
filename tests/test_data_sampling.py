"""What k-space says of how it was stored: by the place of its energy, and by its zeros."""

import numpy as np
import pytest
import torch
from scans import brain

from measurand.data.sampling import gaps, misplaced, unordered
from measurand.operators.kspace import equispaced_lines, fft2c, random_lines, variable_density_mask

Y = fft2c(torch.from_numpy(brain((64, 48), coils=6, slices=1)[1][0])).numpy()
NOISE = np.random.default_rng(0).normal(size=(6, 64, 48, 2)) @ [1, 1j]


def masks():
    g = torch.Generator().manual_seed(0)
    return {
        "all": np.ones((1, 48)),
        "equispaced": equispaced_lines((64, 48), 4.0, 0.1)[0, 0].numpy(),
        "random": random_lines((64, 48), 4.0, 0.1, generator=g)[0, 0].numpy(),
        "rows": equispaced_lines((48, 64), 4.0, 0.1)[0, 0].numpy().T,
        "points": variable_density_mask((64, 48), 4.0, generator=g)[0, 0].numpy(),
    }


@pytest.mark.parametrize("mask", masks())
def test_centred_k_space_is_in_order_however_it_is_sampled(mask):
    y = Y * masks()[mask]
    assert unordered(y) == "" and misplaced(y) == ""
    assert bool(gaps(y)) == (mask != "all")
    assert misplaced(np.fft.ifftshift(y, axes=(-2, -1))).startswith("its zero frequency")
    assert "that of the coils" in unordered(np.moveaxis(y, 0, -1))


@pytest.mark.parametrize("axis", [-2, -1])
def test_one_axis_alone_may_be_misplaced(axis):
    name = {-2: "rows", -1: "columns"}[axis]
    assert f"index 0 of the {name}" in misplaced(np.fft.ifftshift(Y, axes=axis))
    n = Y.shape[axis]
    sign = (-1.0) ** np.arange(n)
    turned = Y * (sign[:, None] if axis == -2 else sign)
    assert f"the origin at index 0 of the {name}" in misplaced(turned)


@pytest.mark.parametrize("y", [NOISE, Y * 0, np.ones((6, 64, 48)), np.ones((1, 4, 6)), Y * 1e30])
def test_what_says_nothing_is_let_pass(y):
    assert unordered(y) == "" and misplaced(y) == "" and gaps(y) == ""


def test_corners_and_margins_may_be_zero():
    i, j = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1, 1, 48), indexing="ij")
    assert gaps(Y * (i**2 + j**2 < 1.05)) == ""
    y = Y.copy()
    y[:, :9], y[..., 40:] = 0, 0
    assert gaps(y) == ""
    y[:, 30] = 0
    assert gaps(y) == "1 of 55 rows are zero between others that are not"
