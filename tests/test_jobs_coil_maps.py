"""Coil maps as they are stored: one meaning is taken, two are refused with advice."""

import numpy as np
import pytest
from cases import SMALL, drawn, error_of, refused, scan
from test_cli import run

from measurand.jobs.operands import operand

pytestmark = pytest.mark.usefixtures("here")
X, MAPS, _, Y = scan()
M = MAPS.numpy()


def read(array, shape=(1, 64, 64)):
    np.save("m.npy", array)
    return operand("m.npy", "maps", shape)


@pytest.mark.parametrize(
    "stored", [M[None, None], np.moveaxis(M, 0, -1), M.transpose(1, 2, 0)[:, :, None]]
)
def test_axes_of_length_one_and_coils_last_are_what_they_were(stored):
    maps, notes = read(stored)
    assert maps.shape == M.shape and np.array_equal(maps, M)
    assert [("rows, columns, coils" in note) for note in notes] == [True] * (stored.shape[0] > 1)


def test_nan_in_the_air_is_zero_and_real_maps_have_no_phase():
    air = X[0, 0].numpy() == 0
    maps, notes = read(np.where(air, np.nan, M))
    assert np.array_equal(maps, np.where(air, 0, M)) and "NaN at" in notes[0]
    maps, notes = read(M.real)
    assert (
        maps.is_complex() and np.array_equal(maps.real, M.real) and "without a phase" in notes[0]
    )


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.abs(M), "magnitudes have lost the phases"),
        (np.stack([M.real, M.imag], -1), "save maps[..., 0] + 1j"),
        (np.stack([M, M], -1), "save the first, maps[..., 0]"),
        (M[:, ::2, ::2], "(6, 32, 32), wanted (coils, 64, 64)"),
        (np.where(np.abs(M) == np.abs(M).max(), np.inf, M), "infinite"),
    ],
)
def test_maps_that_could_be_anything_are_refused(stored, message):
    with pytest.raises(ValueError) as error:
        read(stored)
    assert message in str(error.value)
    with pytest.raises(ValueError, match="np.swapaxes"):
        read(M[:, :, :48], (1, 48, 64))


def test_two_sets_of_maps_are_refused_and_one_of_them_works(capsys):
    y = Y + 0.003 * drawn(Y.shape) * (Y != 0)
    np.save("k.npy", y[0].numpy())
    words = ["reconstruct", "k.npy", "--operator", "sense", "--operator.maps", "m.npy", *SMALL]
    np.save("m.npy", np.stack([M, 0.1 * M])[:, None])
    assert "of several sets of coil maps (ESPIRiT) save the first" in refused(capsys, *words)
    np.save("m.npy", np.stack([M, 0.1 * M])[0])
    assert run(*words, "--out", "r") == 0
    assert error_of(np.load("r/estimate.npy").squeeze(), X.numpy().squeeze()) < 0.3


def test_maps_that_are_no_shares_are_said():
    assert "is 7, not 1" in read(7 * M)[1][-1] and not read(M)[1]
