"""Situations that users of other software have reported, each with the value that is right.

The kinds are tested in depth elsewhere (`test_door`, `test_jobs_measured`, `test_data_*`); here
each case is as it was met. `photo`: photographs, microscopy, tomography. `scan`: MRI, CT, DICOM,
satellites.
"""

import io
import json

import h5py
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scans import dicom
from scipy.ndimage import shift
from test_cli import run

import measurand as ms
from measurand.checks.compatibility import check_fit
from measurand.data import dicom as dicom_files
from measurand.data.collection import images
from measurand.data.files import read_image, read_stored
from measurand.domains import Body
from measurand.jobs.arguments import read_tensor
from measurand.operators import (
    SENSE,
    Mask,
    ParallelCT,
    ReflectiveBlur,
    ValidBlur,
    birdcage_maps,
    equispaced_lines,
    even_angles,
    fbp,
    fft2c,
    gaussian_kernel,
    rotation_axis,
)

TV = ["--prior", "total-variation", "--method", "fista", "--quiet"]
FEW = [*TV, "--method.steps", 25]
SMALL = ["--prior", "total-variation:1e-6", "--method", "fista", "--method.steps", 20, "--quiet"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rng(seed=0):
    return np.random.default_rng(seed)


def drawn(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def scene(h=40, w=48):
    i, j = np.mgrid[:h, :w]
    return (0.5 + 0.4 * np.sin(0.3 * i) * np.cos(0.25 * j)).astype(np.float32)


def record(folder="r"):
    return json.loads(open(f"{folder}/run.json").read())


def refused(capsys, *words):
    assert run(*words) == 2
    return capsys.readouterr().err


def error_of(e, x):
    return float(np.linalg.norm(e - x) / np.linalg.norm(x))


def disc(size=48):
    t = np.linspace(-1, 1, size)
    body = (t[:, None] ** 2 + 2 * t**2 < 0.5) * 1.0
    return (body + ((t[:, None] - 0.3) ** 2 + t**2 < 0.02)).astype(np.float32)


def as_tensor(a):
    return torch.from_numpy(np.ascontiguousarray(a))[None, None]


def scan(side=64, coils=6, rate=3.0):
    """An image, its maps, the mask of its lines and its k-space (coils, H, W)."""
    x = torch.zeros(1, 1, side, side, dtype=torch.complex64)
    x[..., 12:50, 16:48], x[..., 20:30, 24:36] = 0.6, 1.0
    maps = birdcage_maps((side, side), coils)[0]
    mask = equispaced_lines((side, side), rate, 0.16)[0, 0, 0].float()
    return x, maps, mask, SENSE((1, side, side), maps, mask)(x)


def test_photo_01_planar_tiff_of_16_bits():
    u = (scene()[..., None] * [60000, 36000, 18000]).astype(np.uint16)
    planes = np.moveaxis(u, -1, 0)
    tifffile.imwrite("a.tif", planes, photometric="rgb", planarconfig="separate")
    got = (read_image("a.tif").x[0].movedim(0, -1).double().numpy() + 1) / 2
    assert np.abs(got - u / 65535).max() < 1e-5


@pytest.mark.parametrize("channels", [2, 4])
def test_photo_03_the_last_channel_of_an_array_is_data(channels):
    bands = np.stack([scene()] * channels, -1) * np.linspace(1, 0.5, channels, dtype=np.float32)
    np.save("bands.npy", bands)
    words = ["--operator", "identity", "--sigma", 0.01, *SMALL, "--out", "r"]
    assert run("reconstruct", "bands.npy", *words) == 0
    assert np.abs(np.load("r/estimate.npy") - bands).max() < 0.01


def test_photo_04_gains_are_applied_once():
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
def test_photo_05_a_sinogram_keeps_its_units(kind):
    x = disc() / 2
    y = ParallelCT((1, 48, 48), even_angles(60))(as_tensor(x))[0, 0].numpy()
    scale = 1.0 if kind == "npy" else 65535 / y.max()
    np.save("s.npy", y), tifffile.imwrite("s.tif", (scale * y).astype(np.uint16))
    words = ["--operator", "parallel-ct", "--operator.angles", "even_angles:60"]
    words += ["--shape", 1, 48, 48, "--sigma", 0.05 * scale, *TV, "--out", "r"]
    assert run("reconstruct", f"s.{kind}", *words) == 0
    read = np.load if kind == "npy" else tifffile.imread
    assert error_of(read(f"r/estimate.{kind}") / scale, x) < 0.2


def test_photo_06_counts_and_a_picture_are_one_kernel():
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


def test_photo_07_a_stack_is_no_kernel():
    t = np.arange(-7, 8)
    planes = np.stack([np.exp(-(t[:, None] ** 2 + t**2) / (1 + abs(z))) for z in range(-3, 4)])
    tifffile.imwrite("psf.tif", (planes * 60000).astype(np.uint16))
    with pytest.raises(ValueError, match="7 pages"):
        read_tensor("psf.tif", "kernel", (1, 64, 64))
    kernel = read_tensor("psf.tif:3", "kernel", (1, 64, 64)).numpy()
    assert np.abs(kernel - planes[3] / planes[3].sum()).max() < 1e-4


@pytest.mark.parametrize("degrees", [np.arange(180), np.arange(0, 180, 2.0)])
def test_photo_09_and_scan_13_angles_in_degrees_are_no_radians(degrees, capsys):
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


def test_photo_10_the_rotation_axis_is_found_and_named():
    x, angles = disc(64), even_angles(90)
    own = ParallelCT((1, 64, 64), angles, detectors=96)(as_tensor(x))
    right = float((fbp(ParallelCT((1, 64, 64), angles, detectors=96), own) - x).square().mean())
    moved = as_tensor(shift(own[0, 0].numpy(), (0, 5), order=1))
    axis = rotation_axis(moved[0, 0], angles)
    assert float(axis) == pytest.approx(5, abs=0.1)
    a = ParallelCT((1, 64, 64), angles, detectors=96, axis=float(axis))
    assert float((fbp(a, moved) - x).square().mean()) < 1.2 * right


def test_photo_13_twelve_bits_in_sixteen():
    x = scene() * 4000
    y = (x + rng().normal(0, 100, x.shape)).clip(0, 4095).round().astype(np.uint16)
    tifffile.imwrite("y.tif", y)
    words = ["y.tif", "--operator", "identity", "--sigma", 0.05, *TV]
    assert run("reconstruct", *words, "--out", "r") == 0
    assert any("12 bits" in note for note in record()["notes"])
    assert run("reconstruct", *words, "--value-range", 0, 4095, "--out", "s") == 0
    assert (tifffile.imread("r/estimate.tif") == tifffile.imread("s/estimate.tif")).all()


def test_photo_14_the_edges_of_a_blurred_photograph():
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


def test_photo_15_nan_behind_a_mask():
    seen = rng().random((32, 32)) > 0.4
    y = np.where(seen, 0.5, np.nan).astype(np.float32)
    np.save("y.npy", y), np.save("seen.npy", seen)
    words = ["--operator", "mask", "--operator.mask", "seen.npy", "--sigma", 0.05, *TV]
    assert run("reconstruct", "y.npy", *words, "--out", "r") == 0
    assert np.abs(np.load("r/estimate.npy") - 0.5).max() < 0.01
    a = Mask((1, 32, 32), seen)
    m = ms.Measurement(a, ms.noises.Gaussian(0.05), torch.from_numpy(y)[None, None])
    assert bool(ms.solvers.FISTA(steps=3)(m, ms.priors.TotalVariation(0.1)).isfinite().all())


def test_photo_17_metrics_are_those_of_the_file():
    x = (scene() * 300 - 20).clip(0, 255).round().astype(np.uint8)  # black and white
    y = (x + rng().normal(0, 30, x.shape)).clip(0, 255).round().astype(np.uint8)
    Image.fromarray(x).save("x.png"), Image.fromarray(y).save("y.png")
    words = ["y.png", "--operator", "identity", "--sigma", 0.2, *SMALL, "--truth", "x.png"]
    assert run("reconstruct", *words, "--out", "r") == 0
    e = np.asarray(Image.open("r/estimate.png")).astype(float) - x
    psnr = 20 * np.log10(255 / np.sqrt((e**2).mean()))
    assert record()["metrics"]["psnr"] == pytest.approx(psnr, abs=1e-3)


@pytest.mark.parametrize("suffix", ["tif", "npy"])
def test_photo_18_a_stack_is_as_many_images_with_its_calibration(suffix):
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


def test_photo_19_advice_leads_to_what_works():
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


def test_photo_21_bytes_and_negative_noise_are_refused():
    prior = ms.load_prior("natural-gray")
    with pytest.raises((ValueError, TypeError), match="uint8"):
        prior.denoise(torch.full((1, 1, 32, 32), 200, dtype=torch.uint8), 25.0)
    with pytest.raises(ValueError, match="-1"):
        prior.denoise(torch.zeros(1, 1, 32, 32), -1.0)


@pytest.mark.filterwarnings("ignore:.*calls none of the last")
def test_scan_03_near_infrared_is_no_opacity():
    for bands, photometric in (([800, 900, 700, 3000], "rgb"), ([5000, 200], "minisblack")):
        u = np.broadcast_to(bands, (32, 32, len(bands))).astype(np.uint16)
        extra = {"planarconfig": "contig", "extrasamples": ["unspecified"]}
        tifffile.imwrite("a.tif", u, photometric=photometric, **extra)
        got = np.atleast_1d(images("a.tif").images[0][0, 0] * 257).round().tolist()
        assert got[: len(bands) // 4 * 2 + 1] == bands[: len(bands) // 4 * 2 + 1]
        assert (read_stored("a.tif").x[0, :, 0, 0].numpy() == bands).all()


def test_scan_04_nodata_are_no_pixels():
    z = np.full((32, 32), 0.6, np.float32)
    z[:4] = -9999
    tifffile.imwrite("dem.tif", z, extratags=[(42113, "s", 0, "-9999", True)])
    with pytest.raises(ValueError, match="missing"):
        images("dem.tif")
    words = ["--operator", "identity", "--sigma", 0.01, *TV, "--out", "r"]
    assert run("reconstruct", "dem.tif", *words) == 0
    assert np.abs(tifffile.imread("r/estimate.tif") - 0.6).max() < 0.01


def test_scan_05_an_imagej_stack_with_one_directory():
    u = np.arange(20, dtype=np.uint16)[:, None, None] * np.ones((64, 64), np.uint16)
    tifffile.imwrite("big.tif", u, imagej=True, truncate=True)
    found = images("big.tif").images
    assert len(found) == 20 and read_stored("big.tif").x[7, 0, 0, 0] == 7


def test_scan_06_the_unit_of_k_space_does_not_matter():
    x, maps, mask, y = scan()
    np.save("maps.npy", maps.numpy()), np.save("mask.npy", mask.numpy())
    words = ["--operator", "sense", "--operator.maps", "maps.npy", "--operator.mask", "mask.npy"]
    found = []
    for unit in (1.0, 1e-5):
        np.save("y.npy", (unit * y[0].numpy()).astype(np.complex64))
        assert run("reconstruct", "y.npy", *words, "--sigma", unit * 0.005, *TV, "--out", "r") == 0
        found.append(np.load("r/estimate.npy")[0] / unit)
    assert error_of(found[1], found[0]) < 1e-4 and error_of(found[0], x[0, 0].numpy()) < 0.1


def test_scan_07_all_slices_of_a_volume():
    x, maps, mask, _ = scan(48, 4, 2.0)
    volume = torch.cat([x, x.roll(3, -1), 0.5 * x])
    np.save("maps.npy", maps.numpy()), np.save("mask.npy", mask.numpy())
    with h5py.File("vol.h5", "w") as file:
        file["kspace"] = SENSE((1, 48, 48), maps, mask)(volume).numpy()
    words = ["--operator", "sense", "--operator.maps", "maps.npy", "--operator.mask", "mask.npy"]
    assert run("reconstruct", "vol.h5", *words, "--sigma", 0.003, *FEW, "--out", "r") == 0
    back = read_stored("r/estimate.h5").x.numpy()
    assert back.shape == (3, 1, 48, 48) and error_of(back, volume.numpy()) < 0.15
    with h5py.File("r/estimate.h5") as file:
        assert "kspace" not in file


def test_scan_08_air_stays_empty_where_the_maps_are_zero():
    x, maps, mask, _ = scan(64, 8, 4.0)
    body = torch.zeros(64, 64)
    body[10:52, 14:50] = 1.0
    a = SENSE((1, 64, 64), maps * body, mask)
    noise = torch.complex(drawn((1, 8, 64, 64)), drawn((1, 8, 64, 64), 1))
    m = ms.Measurement(a, ms.noises.ComplexGaussian(0.01), a(x) + 0.01 * noise * mask)
    for method, prior in (
        (ms.solvers.FISTA(steps=20), ms.priors.TotalVariation(0.1)),
        (ms.solvers.HQS(steps=4), ms.load_prior("mri-brain")),
    ):
        assert float(method(m, prior)[0, 0][body == 0].abs().max()) < 1e-3


@pytest.mark.parametrize("rate", [1.0, 2.0, 4.0])
def test_scan_09_zeros_where_nothing_was_sampled_are_not_judged(rate):
    x, maps, mask, _ = scan(64, 8, rate)
    a = SENSE((1, 64, 64), maps, mask)
    noise = torch.complex(drawn((1, 8, 64, 64)), drawn((1, 8, 64, 64), 1))
    found = check_fit(a, ms.noises.ComplexGaussian(0.01), a(x) + 0.01 * noise * mask,
                      ms.priors.TotalVariation(1.0))  # fmt: skip
    level = next(v for v in found if v.name == "noise level")
    assert level.verdict == "fits"


def test_scan_10_k_space_that_is_not_centred_is_refused(capsys):
    x, maps, mask, y = scan()
    corner = np.fft.ifftshift(y[0].numpy(), axes=(-2, -1))
    np.save("k.npy", corner)
    words = ["k.npy", "--operator", "sense", "--sigma", 0.005, *TV, "--out", "r"]
    assert "np.fft.fftshift" in refused(capsys, "reconstruct", *words)
    full = np.fft.fft2((maps * x[0]).numpy(), norm="ortho").astype(np.complex64)
    with h5py.File("own.h5", "w") as file:
        file["kspace"] = full[None]
    with pytest.raises(ValueError, match="fftshift"):
        images("own.h5")


def test_scan_11_masked_k_space_without_a_mask_is_refused():
    y = scan()[3].numpy()
    with h5py.File("a.h5", "w") as file:
        file["kspace"] = y
    with pytest.raises(ValueError, match="zero|mask"):
        images("a.h5")


def test_scan_12_line_integrals_with_a_range():
    i, j = np.mgrid[-1:1:48j, -1:1:48j]
    mu = (0.02 * (i**2 + j**2 < 0.6) + 0.02 * ((i - 0.2) ** 2 + j**2 < 0.02)).astype("f4")
    a = ParallelCT((1, 48, 48), even_angles(90), pixel=3.0, spacing=3.0)
    np.save("p.npy", a(as_tensor(mu))[0, 0].numpy())
    words = ["--operator", "parallel-ct", "--operator.angles", "even_angles:90"]
    words += ["--operator.pixel", 3, "--operator.spacing", 3, "--shape", 1, 48, 48]
    words += ["--value-range", 0, 0.0576, "--sigma", 0.02, "--prior", "ct-body", "--quiet"]
    words += ["--method", "hqs", "--method.steps", 8]
    assert run("reconstruct", "p.npy", *words, "--out", "r") == 0
    e = np.load("r/estimate.npy")
    assert abs(e[2, 2]) < 0.001 and np.median(e[18:30, 14:18]) == pytest.approx(0.02, abs=0.001)


@pytest.mark.filterwarnings("ignore")
def test_scan_14_ct_that_is_not_in_hounsfield_units(capsys):
    i, j = np.mgrid[-1:1:48j, -1:1:48j]
    hu = np.where(i**2 + j**2 < 0.7, 40.0, -1000.0) + 900 * ((i - 0.2) ** 2 + j**2 < 0.03)
    Image.fromarray((hu + 32768).astype(np.uint16)).save("deeplesion.png")
    np.save("unit.npy", ((hu + 1000) / 3000).astype("f4"))
    np.save("mu.npy", (0.0192 * (1 + hu / 1000)).astype("f4"))
    words = ["--operator", "identity", "--sigma", 0.02, "--prior", "ct-body", "--quiet"]
    for name in ("unit.npy", "mu.npy"):
        assert "Hounsfield" in refused(capsys, "reconstruct", name, *words, "--out", "r")
        with pytest.raises(ValueError, match="Hounsfield"):
            Body().read(name, "")
    assert run("reconstruct", "deeplesion.png", *words, "--out", "r") == 0
    back = np.asarray(Image.open("r/estimate.png")).astype(float) - 32768
    assert abs(np.median(back[hu == 40]) - 40) < 30 and abs(np.median(back[hu < 0]) + 1000) < 30


@pytest.mark.parametrize("packed", [True, False])
def test_scan_19_an_overlay_in_high_bits(packed):
    from pydicom.encaps import encapsulate
    from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless

    hu = rng().integers(-1000, 1000, (32, 32))
    overlay = (rng(1).random((32, 32)) > 0.9).astype(np.uint16) << 12
    stored = ((hu + 1024).astype(np.uint16) | overlay).astype("<u2")
    out = io.BytesIO()
    Image.fromarray(stored).save(out, "JPEG2000", irreversible=False, no_jp2=True)
    syntax = JPEG2000Lossless if packed else ExplicitVRLittleEndian
    data = encapsulate([out.getvalue()]) if packed else stored.tobytes()
    dicom("a.dcm", stored, syntax=syntax, BitsStored=12, HighBit=11, PixelData=data)
    (series,) = dicom_files.series("a.dcm")
    assert (series.images[0] == hu).all()


def test_scan_20_real_world_values_are_the_counts():
    from pydicom.dataset import Dataset

    u = np.arange(1024, dtype="<u2").reshape(32, 32) * 64
    m = Dataset()
    m.RealWorldValueSlope, m.RealWorldValueIntercept = 0.0125, 0.0
    m.RealWorldValueFirstValueMapped, m.RealWorldValueLastValueMapped = 0, 65535
    dicom("a.dcm", u, modality="NM", slope=None, intercept=None,
          RealWorldValueMappingSequence=[m])  # fmt: skip
    assert dicom_files.series("a.dcm")[0].images[0].max() == pytest.approx(u.max() * 0.0125)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0)])
def test_scan_22_coils_first_or_last(order):
    x, maps, _, _ = scan(64, 8)
    k = fft2c(maps * x[0])[None].numpy()
    with h5py.File("v.h5", "w") as file:
        file["kspace"] = k.transpose(0, *(1 + o for o in order))
    if order == (0, 1, 2):
        (found,) = images("v.h5").images
        assert found.shape[-2:] == (64, 64)
    else:
        with pytest.raises(ValueError, match="coils"):
            images("v.h5")
    pairs = np.zeros(k.shape, [("real", "f4"), ("imag", "f4")])
    pairs["real"], pairs["imag"] = k.real, k.imag  # as MATLAB writes complex numbers
    with h5py.File("m.h5", "w") as file:
        file["kspace"] = pairs
    (found,) = images("m.h5").images
    size = np.abs(x[0, 0].numpy())
    assert np.corrcoef(np.abs(found).ravel(), size.ravel())[0, 1] > 0.95


def test_scan_23_and_25_complex_images_of_two_axes_and_their_psnr():
    x = scan(32)[0][0, 0].numpy()
    mask = np.zeros(32, "f4")
    mask[::2], mask[12:20] = 1, 1
    k = (fft2c(torch.from_numpy(x)).numpy() * mask).astype("c8")
    np.save("k.npy", k), np.save("k3.npy", k[None]), np.save("mask.npy", mask), np.save("x.npy", x)
    words = ["--operator", "cartesian-mri", "--operator.mask", "mask.npy", "--sigma", 0.005, *FEW]
    found = []
    for name in ("k.npy", "k3.npy"):
        assert run("reconstruct", name, *words, "--truth", "x.npy", "--out", "r") == 0
        found.append(np.load("r/estimate.npy"))
    assert found[0].shape == (32, 32) and np.array_equal(found[0], found[1][0])
    e = np.abs(found[0]) - np.abs(x)
    psnr = 20 * np.log10(np.abs(x).max() / np.sqrt((e**2).mean()))  # as fastMRI has it
    assert record()["metrics"]["psnr"] == pytest.approx(psnr, abs=1e-2)
