"""Reported by users of other software, with the right value: photographs, microscopy, tomography.

The kinds are tested in depth elsewhere (`test_door`, `test_jobs_measured`, `test_data_*`); here
each case is as it was met.
"""

import numpy as np
import pytest
import tifffile
import torch
from cases import SMALL, TV, as_tensor, disc, drawn, error_of, record, refused, rng, scene
from PIL import Image
from scipy.ndimage import shift
from test_cli import run

import measurand as ms
from measurand.data.files import read_image
from measurand.jobs.arguments import read_tensor
from measurand.operators import (
    Mask,
    ParallelCT,
    ReflectiveBlur,
    ValidBlur,
    even_angles,
    fbp,
    gaussian_kernel,
    rotation_axis,
)

pytestmark = pytest.mark.usefixtures("here")


def test_01_planar_tiff_of_16_bits():
    u = (scene()[..., None] * [60000, 36000, 18000]).astype(np.uint16)
    planes = np.moveaxis(u, -1, 0)
    tifffile.imwrite("a.tif", planes, photometric="rgb", planarconfig="separate")
    got = (read_image("a.tif").x[0].movedim(0, -1).double().numpy() + 1) / 2
    assert np.abs(got - u / 65535).max() < 1e-5


@pytest.mark.parametrize("channels", [2, 4])
def test_03_the_last_channel_of_an_array_is_data(channels):
    bands = np.stack([scene()] * channels, -1) * np.linspace(1, 0.5, channels, dtype=np.float32)
    np.save("bands.npy", bands)
    words = ["--operator", "identity", "--sigma", 0.01, *SMALL, "--out", "r"]
    assert run("reconstruct", "bands.npy", *words) == 0
    assert np.abs(np.load("r/estimate.npy") - bands).max() < 0.01


def test_04_gains_are_applied_once():
    t = np.linspace(-0.5, 0.5, 48)
    gain = (1 - 1.2 * (t[:, None] ** 2 + t**2)).astype(np.float32)
    x = scene(48, 48)
    np.save("gain.npy", gain), np.save("x.npy", x)
    mask = ["--operator", "mask", "--operator.mask", "gain.npy", "--sigma", 0.005]
    assert run("simulate", "x.npy", *mask, "--out", "seen", "--quiet") == 0
    y = np.load("seen/measurement.npz")["y"].reshape(48, 48)
    assert np.abs(y - gain * (2 * x - 1)).max() < 0.03
    assert run("reconstruct", "seen/measurement.npz", *mask, *SMALL, "--truth", "x.npy",
               "--out", "r") == 0  # fmt: skip
    a, noise = Mask((1, 48, 48), gain), ms.noises.Gaussian(0.005)
    m = ms.Measurement(a, noise, torch.from_numpy(y)[None, None])
    tv = ms.solvers.FISTA(steps=20)(m, ms.priors.TotalVariation(weight=1e-6))
    assert record()["metrics"]["psnr"] > 40
    assert ms.psnr(tv, as_tensor(2 * x - 1), data_range=2.0).item() > 40


@pytest.mark.parametrize("kind", ["npy", "tif"])
def test_05_a_sinogram_keeps_its_units(kind):
    x = disc() / 2
    y = ParallelCT((1, 48, 48), even_angles(60))(as_tensor(x))[0, 0].numpy()
    scale = 1.0 if kind == "npy" else 65535 / y.max()
    np.save("s.npy", y), tifffile.imwrite("s.tif", (scale * y).astype(np.uint16))
    words = ["--operator", "parallel-ct", "--operator.angles", "even_angles:60"]
    words += ["--shape", 1, 48, 48, "--sigma", 0.05 * scale, *TV, "--out", "r"]
    assert run("reconstruct", f"s.{kind}", *words) == 0
    read = np.load if kind == "npy" else tifffile.imread
    assert error_of(read(f"r/estimate.{kind}") / scale, x) < 0.2


def test_06_counts_and_a_picture_are_one_kernel():
    k = gaussian_kernel(1.5)
    y = ReflectiveBlur((1, 40, 48), k)(as_tensor(scene()))
    counts = (k / k.max() * 255).round().numpy()
    np.save("y.npy", y[0, 0].numpy()), np.save("k.npy", counts)
    tifffile.imwrite("k.tif", counts.astype(np.uint8))
    for name in ("k.npy", "k.tif"):
        words = ["--operator", "reflective-blur", "--operator.kernel", name, "--sigma", 0.01]
        assert run("reconstruct", "y.npy", *words, *SMALL, "--out", name[2:]) == 0
        assert any("divided by its sum" in note for note in record(name[2:])["notes"])
    first, second = (np.load(f"{name}/estimate.npy") for name in ("npy", "tif"))
    assert (first == second).all() and np.abs(first - scene())[6:-6, 6:-6].max() < 0.1


def test_07_a_stack_is_no_kernel():
    t = np.arange(-7, 8)
    planes = np.stack([np.exp(-(t[:, None] ** 2 + t**2) / (1 + abs(z))) for z in range(-3, 4)])
    tifffile.imwrite("psf.tif", (planes * 60000).astype(np.uint16))
    with pytest.raises(ValueError, match="7 pages"):
        read_tensor("psf.tif", "kernel", (1, 64, 64))
    kernel = read_tensor("psf.tif:3", "kernel", (1, 64, 64)).numpy()
    assert np.abs(kernel - planes[3] / planes[3].sum()).max() < 1e-4


@pytest.mark.parametrize("degrees", [np.arange(180), np.arange(0, 180, 2.0)])
def test_09_and_scan_13_angles_in_degrees_are_no_radians(degrees, capsys):
    with pytest.raises(ValueError, match="degrees"):
        ParallelCT((1, 48, 48), degrees)
    right = ParallelCT((1, 48, 48), np.deg2rad(degrees))
    assert ParallelCT((1, 48, 48), degrees, degrees=True).angles.allclose(right.angles)
    np.save("angles.npy", degrees), np.save("s.npy", right(as_tensor(disc()))[0, 0].numpy())
    words = ["s.npy", "--operator", "parallel-ct", "--operator.angles", "angles.npy"]
    words += ["--shape", 1, 48, 48, "--sigma", 0.1, *TV, "--out", "r"]
    assert "degrees" in refused(capsys, "reconstruct", *words)
    assert run("reconstruct", *words, "--operator.degrees") == 0
    assert error_of(np.load("r/estimate.npy"), disc()) < 0.3


def test_10_the_rotation_axis_is_found_and_named():
    x, angles = disc(64), even_angles(90)
    own = ParallelCT((1, 64, 64), angles, detectors=96)(as_tensor(x))
    right = float((fbp(ParallelCT((1, 64, 64), angles, detectors=96), own) - x).square().mean())
    moved = as_tensor(shift(own[0, 0].numpy(), (0, 5), order=1))
    axis = rotation_axis(moved[0, 0], angles)
    assert float(axis) == pytest.approx(5, abs=0.1)
    a = ParallelCT((1, 64, 64), angles, detectors=96, axis=float(axis))
    assert float((fbp(a, moved) - x).square().mean()) < 1.2 * right


def test_13_twelve_bits_in_sixteen():
    x = scene() * 4000
    y = (x + rng().normal(0, 100, x.shape)).clip(0, 4095).round().astype(np.uint16)
    tifffile.imwrite("y.tif", y)
    words = ["y.tif", "--operator", "identity", "--sigma", 0.05, *TV]
    assert run("reconstruct", *words, "--out", "r") == 0
    assert any("12 bits" in note for note in record()["notes"])
    assert run("reconstruct", *words, "--value-range", 0, 4095, "--out", "s") == 0
    assert (tifffile.imread("r/estimate.tif") == tifffile.imread("s/estimate.tif")).all()


def test_14_the_edges_of_a_blurred_photograph():
    x = scene(76, 80)
    a = ValidBlur((1, 76, 80), gaussian_kernel(1.6))
    y = a(as_tensor(x)) + 0.01 * drawn((1, *a.out_shape))
    np.save("y.npy", y[0, 0].numpy())
    words = ["--operator", "gaussian-blur", "--operator.sigma", 1.6, "--sigma", 0.02]
    assert run("reconstruct", "y.npy", *words, *TV, "--out", "r") == 0
    e = np.load("r/estimate.npy") - a.framed(as_tensor(x))[0, 0].numpy()
    border = np.ones(e.shape, bool)
    border[4:-4, 4:-4] = False
    assert (e[border] ** 2).mean() < 6 * (e[~border] ** 2).mean() < 6 * 0.04**2


def test_15_nan_behind_a_mask():
    seen = rng().random((32, 32)) > 0.4
    y = np.where(seen, 0.5, np.nan).astype(np.float32)
    np.save("y.npy", y), np.save("seen.npy", seen)
    words = ["--operator", "mask", "--operator.mask", "seen.npy", "--sigma", 0.05, *TV]
    assert run("reconstruct", "y.npy", *words, "--out", "r") == 0
    assert np.abs(np.load("r/estimate.npy") - 0.5).max() < 0.01
    a = Mask((1, 32, 32), seen)
    m = ms.Measurement(a, ms.noises.Gaussian(0.05), torch.from_numpy(y)[None, None])
    assert bool(ms.solvers.FISTA(steps=3)(m, ms.priors.TotalVariation(0.1)).isfinite().all())


def test_17_metrics_are_those_of_the_file():
    x = (scene() * 300 - 20).clip(0, 255).round().astype(np.uint8)  # black and white
    y = (x + rng().normal(0, 30, x.shape)).clip(0, 255).round().astype(np.uint8)
    Image.fromarray(x).save("x.png"), Image.fromarray(y).save("y.png")
    words = ["y.png", "--operator", "identity", "--sigma", 0.2, *SMALL, "--truth", "x.png"]
    assert run("reconstruct", *words, "--out", "r") == 0
    e = np.asarray(Image.open("r/estimate.png")).astype(float) - x
    psnr = 20 * np.log10(255 / np.sqrt((e**2).mean()))
    assert record()["metrics"]["psnr"] == pytest.approx(psnr, abs=1e-3)


@pytest.mark.parametrize("suffix", ["tif", "npy"])
def test_18_a_stack_is_as_many_images_with_its_calibration(suffix):
    stack = (scene()[None] * np.linspace(1500, 4000, 7)[:, None, None]).astype(np.uint16)
    np.save("z.npy", stack)
    told = {"axes": "ZYX", "spacing": 0.3, "unit": "um"}
    tifffile.imwrite("z.tif", stack, imagej=True, resolution=(10, 10), metadata=told)
    words = ["--operator", "identity", "--sigma", 1e-3, *SMALL, "--value-range", 0, 4095]
    assert run("reconstruct", f"z.{suffix}", *words, "--out", "r") == 0
    e = np.load("r/estimate.npy") if suffix == "npy" else tifffile.imread("r/estimate.tif")
    assert e.shape == stack.shape and np.abs(e.astype(float) - stack).max() < 10
    if suffix == "tif":
        with tifffile.TiffFile("r/estimate.tif") as back:
            assert back.pages[0].tags[282].value[0] / back.pages[0].tags[282].value[1] == 10
            assert back.imagej_metadata["spacing"] == 0.3


def test_19_advice_leads_to_what_works():
    a = ms.operators.GaussianBlur((1, 16, 16), 1.0)
    x = 0.5 + 0.4 * torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    clean, tv = ms.Measurement(a, ms.noises.Gaussian(0.0), a(x)), ms.priors.TotalVariation(0.01)
    with pytest.raises(ValueError, match="sigma") as told:
        ms.solvers.FISTA(steps=2)(clean, tv)
    assert "step" not in str(told.value)  # which would not help
    assert ms.solvers.FISTA(steps=2)(ms.Measurement(a, ms.noises.Gaussian(1e-3), a(x)), tv).shape
    counts, prior = (
        ms.Measurement(a, ms.noises.Poisson(), a(x)),
        ms.priors.CallableDenoiser(lambda v, sigma: v),
    )
    with pytest.raises((ValueError, TypeError)) as told:
        ms.solvers.GradientRED(steps=2)(counts, prior)
    assert "step" in str(told.value) and "levels" in str(told.value)
    levels = ms.solvers.levels.Constant(level=0.1)
    assert ms.solvers.GradientRED(steps=2, step=1e-3, levels=levels)(counts, prior).shape


def test_21_bytes_and_negative_noise_are_refused():
    prior = ms.load_prior("natural-gray")
    with pytest.raises((ValueError, TypeError), match="uint8"):
        prior.denoise(torch.full((1, 1, 32, 32), 200, dtype=torch.uint8), 25.0)
    with pytest.raises(ValueError, match="-1"):
        prior.denoise(torch.zeros(1, 1, 32, 32), -1.0)
