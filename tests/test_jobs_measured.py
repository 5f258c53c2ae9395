"""What a measured file says: values, gains, units, frames and masks arrive as they were meant."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import picture, run

from measurand import psnr
from measurand.jobs.arguments import twins
from measurand.jobs.measured import measured, operator_for
from measurand.jobs.reading import Reading
from measurand.operators import (
    SENSE,
    Blur,
    Mask,
    ParallelCT,
    ValidBlur,
    birdcage_maps,
    equispaced_lines,
    even_angles,
    gaussian_kernel,
)
from measurand.tensors import generators, randn_like

TV = ["--prior", "total-variation:2", "--method", "fista", "--method.steps", 30, "--quiet"]


def image(h=24, w=30):
    i, j = np.mgrid[:h, :w] / 30
    return (0.5 + 0.4 * np.sin(6 * i) * np.cos(5 * j)).astype(np.float32)  # in [0, 1]


def of(twin, shape=None):
    return lambda stored: operator_for(twin, shape, stored)


def record(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize("suffix", [".npy", ".png"])
def test_gains_are_applied_once(here, suffix):
    """y = g x of an image x in [-1, 1], whatever range the file has: never g^2 x, nor g u - 1."""
    t = np.linspace(-0.5, 0.5, 30)
    gain = (1 - 1.2 * (t[:24, None] ** 2 + t**2)).astype(np.float32)
    np.save("gain.npy", gain)
    u = image()
    if suffix == ".npy":
        np.save("y.npy", gain * u)
    else:
        Image.fromarray((gain * u * 255).round().astype(np.uint8)).save("y.png")
    twin = twins()["mask"](mask="gain.npy")
    y = measured(f"y{suffix}", of(twin), Reading(0.01)).measurement.y[0, 0].numpy()
    assert np.abs(y - gain * (2 * u - 1)).max() < 0.006
    # and what simulate writes is g x + n
    np.save("x.npy", u)
    words = ["--operator", "mask", "--operator.mask", "gain.npy", "--sigma", 1e-4]
    assert run("simulate", "x.npy", *words, "--out", "seen", "--quiet") == 0
    seen = np.load("seen/measurement.npz")["y"].reshape(24, 30)
    assert np.abs(seen - gain * (2 * u - 1)).max() < 1e-3
    again = measured("seen/measurement.npz", of(twin), Reading(1e-4)).measurement.y[0, 0].numpy()
    assert np.abs(again - seen).max() < 1e-6


def test_what_was_not_measured_is_zero_and_may_be_nan(here):
    seen = np.random.default_rng(0).random((24, 30)) > 0.4
    np.save("seen.npy", seen)
    np.save("y.npy", np.where(seen, image(), np.nan).astype(np.float32))
    found = measured("y.npy", of(twins()["mask"](mask="seen.npy")), Reading(0.01))
    y = found.measurement.y[0, 0].numpy()
    assert (y[~seen] == 0).all() and np.abs(y - (2 * image() - 1))[seen].max() < 1e-6
    np.save("bad.npy", np.where(seen, np.nan, image()).astype(np.float32))
    with pytest.raises(ValueError, match="NaN"):
        measured("bad.npy", of(twins()["mask"](mask="seen.npy")), Reading(0.01))
    np.save("few.npy", np.random.default_rng(0).random((24, 30)) > 0.6)
    with pytest.raises(ValueError, match="cannot be seen"):
        measured("y.npy", of(twins()["mask"](mask="few.npy")))


def projections(x, **options):
    A = ParallelCT((1, *x.shape), even_angles(40), **options)  # noqa: N806
    return A, A(torch.from_numpy(x)[None, None])


def test_a_sinogram_keeps_its_units(here):
    x = image(32, 32)
    A, y = projections(x)  # noqa: N806
    np.save("sino.npy", y[0, 0].numpy())
    twin = twins()["parallel-ct"](angles="even_angles:40")
    found = measured("sino.npy", of(twin, (1, 32, 32)), Reading(0.05))
    assert torch.allclose(found.measurement.y, y)
    assert float(found.measurement.sigma) == pytest.approx(0.05)
    assert any("units of their own" in note for note in found.notes)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.5, 2.0), (0.0, 0.0576)])
def test_the_range_of_a_sinogram_is_that_of_its_image(here, low, high):
    """v = A u with u = low + w (x + 1) / 2 becomes A x, not 2 v / w - 1."""
    u = low + (high - low) * image(32, 32)
    A, v = projections(u, pixel=3.0, spacing=3.0)  # noqa: N806
    np.save("sino.npy", v[0, 0].numpy())
    twin = twins()["parallel-ct"](angles="even_angles:40", pixel=3.0, spacing=3.0)
    found = measured("sino.npy", of(twin, (1, 32, 32)), Reading(0.05, (low, high)))
    x = torch.from_numpy(2 * image(32, 32) - 1)[None, None]
    assert float((found.measurement.y - A(x)).abs().max()) < 1e-4 * float(A(x).abs().max())
    assert float(found.measurement.sigma) == pytest.approx(0.05 * 2 / (high - low))


@pytest.mark.parametrize("kind", ["npy", "tif"])
def test_a_sinogram_is_recovered_in_its_units(here, kind):
    tifffile = pytest.importorskip("tifffile")
    x = image(32, 32)
    _, y = projections(x)
    counts = (y[0, 0] / y.max() * 65535).numpy()
    scale = 1.0 if kind == "npy" else 65535 / float(y.max())
    np.save("sino.npy", y[0, 0].numpy())
    tifffile.imwrite("sino.tif", counts.astype(np.uint16))
    words = [f"sino.{kind}", "--operator", "parallel-ct", "--operator.angles", "even_angles:40"]
    words += ["--shape", 1, 32, 32, "--sigma", 0.05 * scale]
    method = ["--prior", f"total-variation:{2 / scale}", "--method", "fista", "--quiet"]
    assert run("reconstruct", *words, *method, "--out", "r") == 0
    read = np.load if kind == "npy" else tifffile.imread
    e = read(here / "r" / f"estimate.{kind}").astype(np.float64)
    assert e.dtype.kind == "f" and np.abs(e / scale - x).mean() < 0.05
    np.save("x.npy", scale * x)
    assert run("reconstruct", *words, *method, "--out", "r", "--truth", "x.npy") == 0
    assert "psnr" in record(here / "r")["metrics"]


def test_a_kernel_of_any_sum_gives_one_image(here):
    psf = gaussian_kernel(1.5)
    A = ValidBlur((1, 40, 42), psf)  # noqa: N806
    y = A(torch.from_numpy(image(40, 42))[None, None])
    np.save("y.npy", y[0, 0].numpy())
    np.save("one.npy", psf.numpy())
    np.save("counts.npy", (psf * 5432).numpy())
    for name in ("one", "counts"):
        words = ["--operator", "blur", "--operator.kernel", f"{name}.npy", "--sigma", 0.02]
        assert run("reconstruct", "y.npy", *words, *TV, "--out", name) == 0
    one, counts = np.load("one/estimate.npy"), np.load("counts/estimate.npy")
    assert np.abs(one - counts).max() < 1e-4
    assert any("5432" in note for note in record(here / "counts")["notes"])


def test_an_estimate_has_the_frame_of_the_measurement(here):
    picture(here / "photo.png", 40, 48, 3)
    words = ["--operator", "blur", "--operator.kernel", "gaussian_kernel:1.0"]
    assert run("simulate", "photo.png", *words, "--sigma", 0.02, "--out", "s", "--quiet") == 0
    words += ["--sigma", 0.02, *TV]
    whole = Image.open("photo.png")
    size = Image.open("s/measurement.png").size
    assert size == (48 - 8, 40 - 8)
    whole.crop((4, 4, 44, 36)).save("inside.png")
    for truth in ("photo.png", "inside.png"):
        assert run("reconstruct", "s/measurement.png", *words, "--truth", truth, "--out", "r") == 0
        assert Image.open("r/estimate.png").size == size
        found = record(here / "r")["metrics"]["psnr"]
        e = np.asarray(Image.open("r/estimate.png")).astype(float)
        e -= np.asarray(Image.open("inside.png"))
        assert found == pytest.approx(20 * np.log10(255 / np.sqrt((e**2).mean())), abs=0.1)
    assert run("reconstruct", "s/measurement.png", *words, "--truth", "inside.png", "--margins",
               "--out", "m") == 0  # fmt: skip
    assert Image.open("m/estimate.png").size == whole.size
    assert record(here / "m")["metrics"]["psnr"] == pytest.approx(found)
    assert run("reconstruct", "s/measurement.png", *words, "--truth", "s/measurement.npz",
               "--out", "r") == 0  # fmt: skip
    picture(here / "other.png", 30, 30, 3)
    assert (
        run("reconstruct", "s/measurement.png", *words, "--truth", "other.png", "--out", "r") == 2
    )


def test_the_frame_of_other_operators_is_the_image():
    x = torch.zeros(1, 1, 8, 9)
    for A in (Blur((1, 8, 9), gaussian_kernel(1.0, 3)), Mask((1, 8, 9), torch.ones(8, 9))):  # noqa: N806
        assert A.framed(x) is x
    valid = ValidBlur((1, 8, 9), gaussian_kernel(1.0, 3))
    assert (0.5 * valid).framed(x).shape == (1, 1, 6, 7)


@pytest.mark.parametrize("unit", [1e-5, 1.0, 3e4])
def test_the_unit_of_k_space_does_not_matter(here, unit):
    x = torch.from_numpy(image(32, 32)).to(torch.complex64)[None, None]
    maps = birdcage_maps((32, 32), 4)[0]
    mask = equispaced_lines((32, 32), 2.0, 0.2)[0, 0, 0].float()
    y = SENSE((1, 32, 32), maps, mask)(x)
    y = (y + 0.01 * randn_like(y, generators(0, 1))) * mask
    np.save("maps.npy", maps.numpy()), np.save("mask.npy", mask.numpy())
    np.save("y.npy", (unit * y[0]).numpy()), np.save("x.npy", (unit * x[0]).numpy())
    words = ["y.npy", "--operator", "sense", "--operator.maps", "maps.npy"]
    words += ["--operator.mask", "mask.npy", "--sigma", 0.01 * unit, "--truth", "x.npy"]
    method = ["--prior", "total-variation", "--method", "fista", "--quiet", "--out", "r"]
    assert run("reconstruct", *words, *method) == 0
    e = torch.from_numpy(np.load("r/estimate.npy"))[None] / unit
    error = float((e - x).abs().square().sum().sqrt() / x.abs().square().sum().sqrt())
    assert error == pytest.approx(0.0311, abs=1e-4)  # the same for all units
    found = record(here / "r")
    assert found["sigma"] == pytest.approx(0.01 * unit)
    size = psnr(e.abs(), x.abs(), data_range=float(x.abs().max()))
    assert found["metrics"]["psnr"] == pytest.approx(float(size), abs=0.01)
    assert any("divided by" in note for note in found["notes"])


def test_all_slices_of_a_volume_are_recovered(here):
    h5py = pytest.importorskip("h5py")
    x = torch.zeros(3, 1, 32, 32, dtype=torch.complex64)
    for k in range(3):
        x[k, 0, 8:24, 5 + 5 * k : 15 + 5 * k] = 0.5 + 0.2 * k
    maps = birdcage_maps((32, 32), 4)[0]
    mask = equispaced_lines((32, 32), 2.0, 0.2)[0, 0, 0].float()
    np.save("maps.npy", maps.numpy()), np.save("mask.npy", mask.numpy())
    with h5py.File("volume.h5", "w") as file:
        file["kspace"] = SENSE((1, 32, 32), maps, mask)(x).numpy()
    words = ["volume.h5", "--operator", "sense", "--operator.maps", "maps.npy", "--sigma", 0.003]
    words += ["--operator.mask", "mask.npy", "--quiet", "--out", "r", "--prior"]
    for method in (["total-variation", "--method", "fista"], ["mri-brain", "--method.steps", 2]):
        assert run("reconstruct", *words, *method) == 0
        with h5py.File("r/estimate.h5") as file:
            assert list(file) == ["image"] and file["image"].shape == (3, 1, 32, 32)
            error = np.abs(file["image"][()] - x.numpy()).mean((1, 2, 3))
        assert (error < 0.1).all(), error
    quick = ["--method", "diffpir", "--method.steps", 2, "--draws", 3]
    assert run("reconstruct", *words, "mri-brain", *quick) == 0
    with h5py.File("r/draws/02.h5") as file:
        assert file["image"].shape == (3, 1, 32, 32)
    assert np.load("r/sd.npy").shape == (3, 1, 32, 32)
