"""Reported by users of other software, with the right value: MRI, CT, DICOM, satellites.

The kinds are tested in depth elsewhere (`test_door`, `test_jobs_measured`, `test_data_*`); here
each case is as it was met.
"""

import io

import h5py
import numpy as np
import pytest
import tifffile
import torch
from cases import (
    FEW,
    TV,
    as_tensor,
    drawn,
    error_of,
    record,
    refused,
    rng,
    scan,
)
from PIL import Image
from scans import dicom
from test_cli import run

import measurand as ms
from measurand.checks.compatibility import check_fit
from measurand.data import dicom as dicom_files
from measurand.data.collection import images
from measurand.data.files import read_stored
from measurand.domains import Body
from measurand.operators import (
    SENSE,
    ParallelCT,
    even_angles,
    fft2c,
)

pytestmark = pytest.mark.usefixtures("here")


@pytest.mark.filterwarnings("ignore:.*calls none of the last")
def test_03_near_infrared_is_no_opacity():
    for bands, photometric in (([800, 900, 700, 3000], "rgb"), ([5000, 200], "minisblack")):
        u = np.broadcast_to(bands, (32, 32, len(bands))).astype(np.uint16)
        extra = {"planarconfig": "contig", "extrasamples": ["unspecified"]}
        tifffile.imwrite("a.tif", u, photometric=photometric, **extra)
        got = np.atleast_1d(images("a.tif").images[0][0, 0] * 257).round().tolist()
        assert got[: len(bands) // 4 * 2 + 1] == bands[: len(bands) // 4 * 2 + 1]
        assert (read_stored("a.tif").x[0, :, 0, 0].numpy() == bands).all()


def test_04_nodata_are_no_pixels():
    z = np.full((32, 32), 0.6, np.float32)
    z[:4] = -9999
    tifffile.imwrite("dem.tif", z, extratags=[(42113, "s", 0, "-9999", True)])
    with pytest.raises(ValueError, match="missing"):
        images("dem.tif")
    words = ["--operator", "identity", "--sigma", 0.01, *TV, "--out", "r"]
    assert run("reconstruct", "dem.tif", *words) == 0
    assert np.abs(tifffile.imread("r/estimate.tif") - 0.6).max() < 0.01


def test_05_an_imagej_stack_with_one_directory():
    u = np.arange(20, dtype=np.uint16)[:, None, None] * np.ones((64, 64), np.uint16)
    tifffile.imwrite("big.tif", u, imagej=True, truncate=True)
    found = images("big.tif").images
    assert len(found) == 20 and read_stored("big.tif").x[7, 0, 0, 0] == 7


def test_06_the_unit_of_k_space_does_not_matter():
    x, maps, mask, y = scan()
    np.save("maps.npy", maps.numpy()), np.save("mask.npy", mask.numpy())
    words = ["--operator", "sense", "--operator.maps", "maps.npy", "--operator.mask", "mask.npy"]
    found = []
    for unit in (1.0, 1e-5):
        np.save("y.npy", (unit * y[0].numpy()).astype(np.complex64))
        assert run("reconstruct", "y.npy", *words, "--sigma", unit * 0.005, *TV, "--out", "r") == 0
        found.append(np.load("r/estimate.npy")[0] / unit)
    assert error_of(found[1], found[0]) < 1e-4 and error_of(found[0], x[0, 0].numpy()) < 0.1


def test_07_all_slices_of_a_volume():
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


def test_08_air_stays_empty_where_the_maps_are_zero():
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
def test_09_zeros_where_nothing_was_sampled_are_not_judged(rate):
    x, maps, mask, _ = scan(64, 8, rate)
    a = SENSE((1, 64, 64), maps, mask)
    noise = torch.complex(drawn((1, 8, 64, 64)), drawn((1, 8, 64, 64), 1))
    found = check_fit(a, ms.noises.ComplexGaussian(0.01), a(x) + 0.01 * noise * mask,
                      ms.priors.TotalVariation(1.0))  # fmt: skip
    level = next(v for v in found if v.name == "noise level")
    assert level.verdict == "fits"


def test_10_k_space_that_is_not_centred_is_refused(capsys):
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


def test_11_masked_k_space_without_a_mask_is_refused():
    y = scan()[3].numpy()
    with h5py.File("a.h5", "w") as file:
        file["kspace"] = y
    with pytest.raises(ValueError, match="zero|mask"):
        images("a.h5")


def test_12_line_integrals_with_a_range():
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
def test_14_ct_that_is_not_in_hounsfield_units(capsys):
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
def test_19_an_overlay_in_high_bits(packed):
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


def test_20_real_world_values_are_the_counts():
    from pydicom.dataset import Dataset

    u = np.arange(1024, dtype="<u2").reshape(32, 32) * 64
    m = Dataset()
    m.RealWorldValueSlope, m.RealWorldValueIntercept = 0.0125, 0.0
    m.RealWorldValueFirstValueMapped, m.RealWorldValueLastValueMapped = 0, 65535
    dicom("a.dcm", u, modality="NM", slope=None, intercept=None,
          RealWorldValueMappingSequence=[m])  # fmt: skip
    assert dicom_files.series("a.dcm")[0].images[0].max() == pytest.approx(u.max() * 0.0125)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0)])
def test_22_coils_first_or_last(order):
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


def test_23_and_25_complex_images_of_two_axes_and_their_psnr():
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
