"""Variants of the cases of MRI (`test_cases_scan`): how k-space is stored."""

import numpy as np
import pytest
import torch
from cases import FEW, SMALL, drawn, error_of, record, refused, scan
from test_cli import run

from measurand.operators import SENSE, birdcage_maps, equispaced_lines, fft2c, ifft2c

pytestmark = pytest.mark.usefixtures("here")
SIZE, COILS = 48, 4
GIVEN = ["--operator", "sense", "--operator.maps", "maps.npy", "--operator.mask", "mask.npy"]
WHITE = ["--sigma", 0.005, *SMALL, "--out", "r"]


def head():
    i, j = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    inside = (i / 0.8) ** 2 + (j / 0.6) ** 2 < 1
    return (inside * (1 + 0.5 * np.sin(9 * i) * np.cos(8 * j))).astype(np.complex64)


def scanned(rate=1.0):
    """k-space of a head (coils, H, W), with its maps and its mask in files."""
    maps = birdcage_maps((SIZE, SIZE), COILS)[0]
    mask = equispaced_lines((SIZE, SIZE), rate, 0.2).flatten(0, -2)[0]
    y = fft2c(maps * torch.from_numpy(head())[None]) + 0.005 * torch.complex(
        drawn((COILS, SIZE, SIZE), 1), drawn((COILS, SIZE, SIZE), 2)
    )
    np.save("maps.npy", maps), np.save("mask.npy", mask)
    return (y * mask).numpy()


@pytest.mark.parametrize("axes", [(-2, -1), (-1,)])
def test_uncentred_k_space_is_refused_with_maps_and_mask_said(axes, capsys):
    y = scanned(2.0)
    np.save("k.npy", np.fft.ifftshift(y, axes=axes))
    np.save("mask.npy", np.fft.ifftshift(np.load("mask.npy")))
    assert "np.fft.fftshift" in refused(capsys, "reconstruct", "k.npy", *GIVEN, *WHITE)


@pytest.mark.parametrize("rate", [1.0, 2.0])
@pytest.mark.parametrize("operator", [GIVEN, ["--operator", "sense"]])
def test_images_are_no_k_space(rate, operator, capsys):
    y = torch.from_numpy(scanned(rate))
    np.save("mask.npy", np.ones(SIZE))
    np.save("k.npy", ifft2c(y).numpy())
    assert "images, not k-space" in refused(capsys, "reconstruct", "k.npy", *operator, *WHITE)


def test_an_image_of_one_coil_is_no_k_space(capsys):
    np.save("k.npy", head())
    words = ["reconstruct", "k.npy", "--operator", "cartesian-mri", *WHITE]
    assert "images, not k-space" in refused(capsys, *words)


@pytest.mark.parametrize("span", [(0.12, 0.12), (0.9, 0.1), (1.0, 1.0)])
def test_k_space_of_small_and_large_objects_is_k_space(span):
    i, j = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    x = ((abs(i) < span[0]) & (abs(j) < span[1])).astype(np.complex64)
    np.save("k.npy", fft2c(torch.from_numpy(x))[None].numpy())
    assert run("reconstruct", "k.npy", "--operator", "cartesian-mri", *WHITE) == 0
    assert error_of(np.load("r/estimate.npy")[0], x) < 0.05


def test_slices_along_the_last_axis_are_named(capsys):
    np.save("k.npy", np.stack([scanned()] * 3, -1))
    message = refused(capsys, "reconstruct", "k.npy", *GIVEN, *WHITE)
    assert "slices: np.moveaxis(kspace, -1, 0)" in message


@pytest.mark.parametrize("turn, said", [(lambda a: a, False), (np.fft.fftshift, True)])
def test_maps_of_another_place_leave_more_than_the_noise(turn, said, capsys):
    np.save("k.npy", scanned(2.0))
    maps = np.load("maps.npy")
    np.save("maps.npy", np.stack([turn(one) for one in maps]))
    words = [word for word in WHITE if word != "--quiet"]
    assert run("reconstruct", "k.npy", *GIVEN, *words) == 0
    assert ("times the noise of the data" in record()["notes"][-1]) == said
    assert ("times the noise of the data" in capsys.readouterr().out) == said


READINGS = {
    "np.conj(maps)": np.conj,
    "np.swapaxes(maps, -1, -2)": lambda a: np.swapaxes(a, -1, -2),
    "np.conj(np.swapaxes(maps, -1, -2))": lambda a: np.conj(np.swapaxes(a, -1, -2)),
    "maps[..., ::-1, :]": lambda a: a[..., ::-1, :],
    "np.rot90(maps, -1, (-2, -1))": lambda a: np.rot90(a, 1, (-2, -1)),
    "np.fft.fftshift(maps, axes=(-2, -1))": lambda a: np.fft.fftshift(a, axes=(-2, -1)),
    "": lambda a: a,
}


@pytest.mark.parametrize("rate", [1.0, 4.0])
@pytest.mark.parametrize("way", READINGS)
def test_maps_read_in_another_way_are_named(way, rate, capsys):
    """Square maps that are turned or conjugated have the right shape; the data tell."""
    i, j = np.mgrid[-1:1:64j, -1:1:64j]
    places = [(1.2 * np.sin(a), 1.2 * np.cos(a), a) for a in (0.1, 1.3, 2.4, 3.3, 4.6, 5.7)]
    maps = [
        np.exp(-((i - y) ** 2 + (j - x) ** 2) + 1j * (3 * a + a * i - j)) for y, x, a in places
    ]
    maps = np.stack(maps) / np.sqrt((np.abs(maps) ** 2).sum(0))
    x, _, mask, _ = scan(rate=max(rate, 1.01))
    mask = mask if rate > 1 else torch.ones(64)
    y = SENSE((1, 64, 64), torch.from_numpy(maps), mask)(x)
    np.save("k.npy", (y + 0.01 * drawn(y.shape) * (y != 0))[0].numpy().astype("c8"))
    np.save("mask.npy", mask.numpy())
    np.save("maps.npy", READINGS[way](maps).astype("c8"))
    assert run("reconstruct", "k.npy", *GIVEN, *FEW, "--out", "r") == 0
    notes = [note for note in record()["notes"] if note.startswith("coils")]
    assert len(notes) == (1 if way else 0)
    same = "y * (-1)**(i + j)" if "shift" in way else way  # halves of the image, or of its maps
    assert not way or notes[0].endswith((f": {way}", f": {same}"))
    assert run("check", "k.npy", *GIVEN, "--prior", "total-variation") == (1 if way else 0)
    said = capsys.readouterr().out
    assert way in said or same in said
