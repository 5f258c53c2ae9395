"""The door: what a user hands over arrives right, comes back as it came, or is refused by name."""

import json

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scans import dicom
from test_cli import run

from measurand.data.ranges import value_range
from measurand.data.sources import UnreadableFile
from measurand.jobs.kspace import kspace_noise
from measurand.jobs.noise_kinds import Poisson
from measurand.noises import ComplexGaussian
from measurand.operators import (
    SENSE,
    Blur,
    ParallelCT,
    birdcage_maps,
    even_angles,
    gaussian_kernel,
    random_lines,
)

FAST = ["--prior", "total-variation:3", "--method", "fista", "--method.steps", 40]
SMALL = ["--prior", "total-variation:1e-6", "--method", "fista", "--method.steps", 20]
RNG = np.random.default_rng(3)


def scene(n=1, h=24, w=28):
    i, j, k = np.mgrid[:n, :h, :w]
    return 0.5 + 0.4 * np.sin(0.3 * j + 0.5 * i) * np.cos(0.25 * k)  # in [0, 1]


def restored(name, *words):
    command = ["reconstruct", name, "--operator", "identity", "--sigma", 1e-3, *SMALL, *words]
    assert run(*command, "--out", "r", "--quiet") == 0
    return json.loads(open("r/run.json").read())


def test_a_stack_of_pages_keeps_its_calibration(here):
    u = (scene(7) * 60000).astype(np.uint16)
    tifffile.imwrite(
        "a.tif",
        u,
        imagej=True,
        resolution=(10.0, 8.0),
        metadata={"unit": "um", "spacing": 0.3, "axes": "ZYX"},
    )
    record = restored("a.tif")
    assert record["images"] == 7
    with tifffile.TiffFile("r/estimate.tif") as back, tifffile.TiffFile("a.tif") as source:
        assert back.asarray().shape == u.shape and back.asarray().dtype == np.uint16
        assert np.abs(back.asarray().astype(float) - u).max() < 60
        for tag in (282, 283):
            assert back.pages[0].tags[tag].value == source.pages[0].tags[tag].value
        for key in ("unit", "spacing", "slices"):
            assert back.imagej_metadata[key] == source.imagej_metadata[key]
    assert restored("a.tif:3")["images"] == 1  # a page that is named is one image


def test_a_hyperstack_keeps_its_axes(here):
    u = (scene(12) * 4000).astype(np.uint16).reshape(2, 3, 2, 24, 28)
    told = {"axes": "TZCYX", "unit": "um", "finterval": 2.0, "Ranges": (0.0, 9.0, 0.0, 9.0)}
    tifffile.imwrite("a.tif", u, imagej=True, metadata=told)
    assert restored("a.tif")["images"] == 12
    with tifffile.TiffFile("r/estimate.tif") as back:
        assert back.series[0].axes == "TZCYX" and back.asarray().shape == u.shape
        assert np.abs(back.asarray().astype(float) - u).max() < 60
        for key in ("unit", "finterval", "Ranges", "channels"):
            assert back.imagej_metadata[key] == {**told, "channels": 2}[key]


def test_an_ome_tiff_stays_one(here):
    u = (scene(6) * 60000).astype(np.uint16).reshape(2, 3, 24, 28)
    told = {"axes": "CZYX", "PhysicalSizeX": 0.1, "PhysicalSizeXUnit": "µm"}
    tifffile.imwrite("a.ome.tif", u, ome=True, metadata=told)
    assert restored("a.ome.tif")["images"] == 6
    with tifffile.TiffFile("r/estimate.tif") as back:
        assert back.is_ome and back.series[0].axes == "CZYX"
        assert np.abs(back.asarray().astype(float) - u).max() < 60
        assert 'PhysicalSizeX="0.1"' in back.ome_metadata


@pytest.mark.parametrize("shape", [(3, 24, 28), (24, 28, 3)])
def test_an_ome_tiff_of_a_larger_image_says_its_own_size(here, shape):
    u = (np.broadcast_to(scene(3).reshape(3, 24, 28), (3, 24, 28)) * 60000).astype(np.uint16)
    u = u if shape[0] == 3 else np.ascontiguousarray(np.moveaxis(u, 0, -1))
    axes = "ZYX" if shape[0] == 3 else "YXS"
    told = {"axes": axes, "PhysicalSizeX": 0.1, "PhysicalSizeY": 0.2, "PhysicalSizeXUnit": "µm"}
    tifffile.imwrite("a.ome.tif", u, ome=True, metadata=told)
    restored("a.ome.tif")
    with tifffile.TiffFile("r/estimate.tif") as back:
        assert back.is_ome and back.series[0].axes == axes and back.asarray().shape == u.shape
    words = ["--operator", "block-average", "--operator.factor", 2, "--sigma", 1e-3, *SMALL]
    assert run("reconstruct", "a.ome.tif", *words, "--out", "r", "--quiet") == 0
    with tifffile.TiffFile("r/estimate.tif") as back:
        assert back.is_ome and back.series[0].axes == axes
        assert back.asarray().shape == tuple(2 * n if n > 3 else n for n in u.shape)
        for words in ('SizeX="56"', 'SizeY="48"', 'PhysicalSizeX="0.05"', 'PhysicalSizeY="0.1"'):
            assert words in back.ome_metadata


@pytest.mark.parametrize("suffix", [".npy", ".mat"])
def test_images_along_the_last_axis_are_refused(here, capsys, suffix):
    """The order of MATLAB: it is not the first axis that counts the images."""
    from scipy.io import savemat

    def save(a):
        np.save("a.npy", a) if suffix == ".npy" else savemat("a.mat", {"a": a})

    a = np.moveaxis(scene(10), 0, -1).astype(np.float32)
    save(a)
    words = [f"a{suffix}", "--operator", "identity", *FAST, "--out", "r"]
    assert run("reconstruct", *words) == 2
    assert "save np.moveaxis(a, -1, 0)" in capsys.readouterr().err
    save(np.moveaxis(a, -1, 0))
    assert restored(f"a{suffix}")["images"] == 10
    save(a[:, None])
    assert restored(f"a{suffix}")["images"] == 24


def test_a_mat_file_without_arrays_says_so(here, capsys):
    from scipy.io import savemat

    savemat("a.mat", {"s": {"x": np.eye(8)}})
    assert run("reconstruct", "a.mat", "--operator", "identity", *FAST, "--out", "r") == 2
    assert "holds none of numbers" in capsys.readouterr().err


def test_a_folder_of_series_is_many_scans_and_notes_are_none(here):
    pytest.importorskip("pydicom")
    for series in ("1.1", "1.2"):
        (here / "in" / series).mkdir(parents=True)
        for k in range(2):
            u = (scene(2)[k] * 1000).astype(np.uint16)
            dicom(f"in/{series}/{k}.dcm", u, position=3.0 * k, series=series)
        (here / "in" / series / "readme.txt").write_text("of 2 slices")
    words = ["--operator", "identity", "--sigma", 1e-3, *SMALL, "--quiet", "--out", "all"]
    assert run("reconstruct", "in", *words) == 0
    assert len(list((here / "all/1.1/estimate").iterdir())) == 2
    before = (here / "all/1.2/run.json").stat().st_mtime_ns
    dicom("in/1.1/1.dcm", u // 2, position=3.0, series="1.1")
    assert run("reconstruct", "in", *words) == 0  # what has changed is done again, alone
    assert json.loads(open("all/1.1/run.json").read())["images"] == 2
    assert (here / "all/1.2/run.json").stat().st_mtime_ns == before


def test_a_geotiff_keeps_its_place_and_covers_the_same_ground(here):
    u = (scene()[0] * 60000).astype(np.uint16)
    geo = [
        (33550, 12, 3, (10.0, 10.0, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, 5e5, 4e6, 0.0), True),
        (34735, 3, 4, (1, 1, 0, 0), True),
    ]
    tifffile.imwrite("a.tif", u, extratags=geo, metadata=None)
    restored("a.tif")
    with tifffile.TiffFile("r/estimate.tif") as back:
        tags = back.pages[0].tags
        assert tags[33550].value == (10.0, 10.0, 0.0) and tags[33922].value[3:5] == (5e5, 4e6)
    words = ["--operator", "block-average", "--operator.factor", 2, "--sigma", 1e-3, *SMALL]
    assert run("reconstruct", "a.tif", *words, "--out", "r", "--quiet") == 0
    with tifffile.TiffFile("r/estimate.tif") as back:
        tags = back.pages[0].tags
        assert back.asarray().shape == (48, 56) and tags[33550].value == (5.0, 5.0, 0.0)
        assert tags[33922].value == (0.0, 0.0, 0.0, 5e5, 4e6, 0.0)  # corners, not centres


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".mat", ".npy"])
def test_volumes_go_slice_by_slice_and_come_back(here, suffix):
    hu = (scene(5) * 2500 - 1000).round().astype(np.int16)
    hu[:, 0, 0] = -1000
    name = f"ct{suffix}"
    if suffix == ".nii.gz":
        nibabel = pytest.importorskip("nibabel")
        nibabel.save(nibabel.Nifti1Image(hu.transpose(2, 1, 0), np.diag([-1, -1, 3, 1.0])), name)
    elif suffix == ".mha":
        head = "NDims = 3\nDimSize = 28 24 5\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
        open(name, "wb").write(head.encode() + hu.tobytes())
    elif suffix == ".mat":
        from scipy.io import savemat

        savemat(name, {"hu": hu})
    else:
        np.save(name, hu)
    record = restored(name)
    assert record["images"] == 5 and any("Hounsfield" in note for note in record["notes"])
    from measurand.data.files import read_stored

    back, source = (read_stored(f).x[:, 0].numpy() for f in (f"r/estimate{suffix}", name))
    assert np.abs(back - source).max() < 5 and back.shape == (5, 24, 28)


@pytest.mark.parametrize("shape", [(28, 24), (28, 24, 3), (28, 24, 3, 1), (28, 24, 3, 2)])
def test_a_nifti_file_has_the_axes_it_had_and_may_lack_voxels(here, shape):
    nibabel = pytest.importorskip("nibabel")
    u = np.broadcast_to(scene().T.reshape(28, 24, *(1,) * (len(shape) - 2)), shape).copy()
    u[3:5, 3:5] = np.nan
    nibabel.save(nibabel.Nifti1Image(u.astype(np.float32), np.eye(4)), "a.nii.gz")
    record = restored("a.nii.gz")
    assert any("NaN or nodata: not measured" in note for note in record["notes"])
    back = nibabel.load("r/estimate.nii.gz")
    assert back.header.get_data_shape() == shape
    assert np.nanmax(np.abs(back.get_fdata() - u)) < 1e-2 and np.isfinite(back.get_fdata()).all()


def test_a_folder_of_one_dicom_series_is_one_volume(here):
    pytest.importorskip("pydicom")
    (here / "ct").mkdir()
    hu = (scene(5) * 2500 - 1000).round().astype(np.int16)
    hu[:, 0, 0] = -700  # no air: DICOM says that it is CT
    for k, image in enumerate(hu):
        dicom(
            f"ct/{5 - k}.dcm",
            (image + 1024).astype(np.uint16),
            position=3.0 * k,
            StudyInstanceUID="1.2",
        )
    record = restored("ct")
    assert record["images"] == 5 and any("Hounsfield" in note for note in record["notes"])
    assert len(list((here / "r/estimate").iterdir())) == 5


def test_a_folder_of_volumes_is_many_scans(here):
    nibabel = pytest.importorskip("nibabel")
    (here / "in").mkdir()
    for k in range(2):
        hu = (scene(3) * 2500 - 1000 * (k + 1) / (k + 1)).astype(np.int16)
        hu[:, 0, 0] = -1000
        nibabel.save(nibabel.Nifti1Image(hu, np.eye(4)), f"in/p{k}.nii.gz")
    words = ["--operator", "identity", "--sigma", 1e-3, *SMALL, "--quiet", "--out", "all"]
    assert run("reconstruct", "in", *words) == 0
    assert sorted(p.name for p in (here / "all").iterdir() if p.is_dir()) == ["p0", "p1"]
    assert (here / "all/p1/estimate.nii.gz").is_file()


def test_ranges_are_recognised_and_said_or_refused():
    def found(samples, dtype, **options):
        return value_range("f", np.asarray(samples, float), np.dtype(dtype), **options)

    assert found([0, 3000], "u2")[:2] == (0, 4095) and "12 bits" in found([0, 3000], "u2")[2]
    assert found([0, 900], "u2")[:2] == (0, 1023) and found([0, 16000], "u2")[:2] == (0, 16383)
    assert found([0, 200], "u2")[:2] == (0, 255) and "8 bits" in found([0, 200], "u2")[2]
    assert found([0, 60000], "u2")[:2] == (0, 65535) == found([0, 0], "u2")[:2]
    assert found([-1024, 1500], "i2")[:2] == (-1000, 2000)
    assert found([-2000, 3000.5], "f4")[:2] == (-1000, 2000)
    low, high, said = found([31744, 34000], "u2")
    assert (low, high) == (31768, 34768) and "+ 32768" in said
    assert "nearly black" in found([0, 0.02], "f4")[2]
    assert "black" not in found([0, 1], "f4")[2] + found([0, 200], "u1")[2]
    assert found([0, 1], "f4")[:2] == (0, 1) and found([-0.9, 0.9], "f8")[:2] == (-1, 1)
    ct = {"window": (-1000.0, 2000.0)}
    assert found([-1024, 1500], "i2", **ct)[:2] == (-1000, 2000)
    for samples, kind in (([0, 1], "f4"), ([0, 0.05], "f4"), ([0, 255], "u1"), ([0, 4000], "u2")):
        with pytest.raises(UnreadableFile, match="prior wants Hounsfield units.*3 mu_water"):
            found(samples, kind, **ct)
    assert found([0, 0.05], "f4", stated=(0, 0.06), **ct)[:2] == (0, 0.06)
    for samples, kind in (
        ([0, 4000], "f4"),
        ([-300, 300], "i2"),
        ([0, 4000], "i4"),
        ([0, 1], "u2"),
        ([0, 0.005], "f4"),
        ([-1e-20, 1e-20], "f8"),
    ):
        with pytest.raises(UnreadableFile, match="--value-range"):
            found(samples, kind)
    for stated in ((1, 1), (2, 1), (0, np.inf), (np.nan, 1)):
        with pytest.raises(ValueError, match="LOW below HIGH"):
            found([0, 1], "f4", stated=stated)


def test_twelve_bits_of_data_are_twelve_bits_of_truth(here):
    truth = (scene()[0] * 3000).round().astype(np.uint16)
    noisy = (truth * 0.3).round().astype(np.uint16)  # at most 900: alone it would be ten bits
    truth[0, 0] = noisy[0, 0] = 3500
    tifffile.imwrite("y.tif", noisy), tifffile.imwrite("x.tif", truth)
    record = restored("y.tif", "--truth", "x.tif")
    error = tifffile.imread("r/estimate.tif").astype(float) - truth
    psnr = -10 * np.log10((error**2).mean() / 4095**2)
    assert record["metrics"]["psnr"] == pytest.approx(psnr, abs=1e-3)


def test_an_undetermined_scale_of_ct_data_is_refused(here, capsys):
    np.save("sino.npy", RNG.random((30, 47), dtype=np.float32))
    words = ["--operator", "parallel-ct", "--operator.angles", "even_angles:30", "--sigma", 0.1]
    assert run("reconstruct", "sino.npy", *words, "--prior", "ct-body", "--out", "r") == 2
    assert "Hounsfield units" in capsys.readouterr().err


def blurred(u):
    a = Blur((1, *u.shape), gaussian_kernel(1.2))
    return a(torch.from_numpy(u[None, None].astype(np.float32)))[0, 0].numpy()


BLUR = ["--operator", "reflective-blur", "--operator.kernel", "gaussian_kernel:1.2"]


def psnr_of(x):
    e = np.load("r/estimate.npy") - x
    return -10 * np.log10((e[3:-3, 3:-3] ** 2).mean())


@pytest.mark.parametrize("how", ["nan", "seen", "saturated", "false"])
def test_holes_and_saturation_combine_with_blur(here, how):
    """Samples that are missing or full are left out of the data, whatever operator made them."""
    x = scene()[0]
    y = blurred(x)
    bad = RNG.random(y.shape) < 0.1
    if how == "saturated":
        bad = y > np.quantile(y, 0.9)
    value = {"nan": np.nan, "seen": 0.0, "saturated": 1.4, "false": 1.4}[how]
    np.save("y.npy", np.where(bad, value, y).astype(np.float32))
    np.save("seen.npy", ~bad)
    words = {"seen": ["--seen", "seen.npy"], "saturated": ["--saturated", 1.4]}.get(how, [])
    assert run("reconstruct", "y.npy", *BLUR, "--sigma", 0.01, *FAST, *words, "--out", "r") == 0
    assert (psnr_of(x) > 27) == (how != "false"), psnr_of(x)
    notes = json.loads(open("r/run.json").read())["notes"]
    assert how == "false" or any(f"{bad.sum()} " in note for note in notes)


def test_everything_missing_is_refused(here, capsys):
    np.save("y.npy", np.full((8, 8), np.nan, np.float32))
    assert run("reconstruct", "y.npy", "--operator", "identity", *FAST, "--out", "r") == 2
    assert "every value of an image is NaN, missing or saturated" in capsys.readouterr().err


def test_counts_are_trusted_by_their_number(here):
    """Poisson data are restored better than with white noise of any level."""
    i, j = np.mgrid[:32, :40]
    x = 0.01 + 0.9 * (i > 15) * (0.6 + 0.4 * np.sin(0.3 * j)) + 0.04 * (i <= 15) * (j % 8 < 4)
    counts = RNG.poisson(400 * x).astype(np.uint16) * 20 + 100
    tifffile.imwrite("y.tif", counts.astype(np.uint16))
    common = ["--operator", "identity", "--value-range", 100, 8100, "--prior", "total-variation"]
    common += ["--method", "fista", "--out", "r", "--quiet"]

    def error(*words):
        assert run("reconstruct", "y.tif", *common, *words) == 0
        return (((tifffile.imread("r/estimate.tif").astype(float) - 100) / 8000 - x) ** 2).mean()

    counted = error("--noise", "poisson", "--noise.gain", 20, "--noise.offset", 100)
    record = json.loads(open("r/run.json").read())
    assert record["noise"] == {"class": "Poisson", "gain": 20.0, "offset": 100.0, "read": 0.0}
    white = [error("--sigma", s) for s in (0.01, 0.02, 0.04, 0.08)]
    assert counted < 0.95 * min(white)


def test_the_deviation_of_counts_is_theirs():
    mean = torch.linspace(20, 400, 400)[None, None, None].expand(1, 1, 400, -1)
    u = 3 * torch.poisson(mean, generator=torch.Generator().manual_seed(0)) + 50
    seen = torch.rand(u.shape, generator=torch.Generator().manual_seed(1)) > 0.3
    found = Poisson(3.0, 50.0, 4.0).deviation(torch.where(seen, u, 1e9), seen)
    expected = (9 * mean + 16).sqrt()
    assert float((found / expected - 1).abs().mean()) < 0.03


@pytest.mark.parametrize("words", [["--noise", "poisson", "--sigma", 0.1], ["--saturated", -5]])
def test_noise_and_holes_that_make_no_sense_are_refused(here, capsys, words):
    np.save("y.npy", scene()[0].astype(np.float32))
    assert run("reconstruct", "y.npy", "--operator", "identity", *FAST, *words, "--out", "r") == 2
    assert capsys.readouterr().err.startswith("measurand: ")


@pytest.mark.parametrize("wrong", [{"gain": 0}, {"gain": -1}, {"gain": np.nan}, {"read": -1}])
def test_a_detector_has_a_gain_and_no_negative_noise(wrong):
    with pytest.raises(ValueError, match="wanted a positive gain"):
        Poisson(**wrong)


def test_a_manifest_names_a_mask_for_each_scan(here, capsys):
    x = scene()[0].astype(np.float32)
    for k in range(2):
        seen = RNG.random(x.shape) > 0.3
        np.save(f"m{k}.npy", seen), np.save(f"y{k}.npy", np.where(seen, x, 0))
    open("all.csv", "w").write("file,mask\ny0.npy,m0.npy\ny1.npy,m1.npy\n")
    words = ["--operator", "mask", "--operator.mask", "m0.npy", "--sigma", 0.01, *FAST]
    assert run("reconstruct", "all.csv", *words, "--out", "r", "--quiet") == 0
    for k in range(2):
        assert np.abs(np.load(f"r/y{k}/estimate.npy") - x).mean() < 0.03
        assert json.loads(open(f"r/y{k}/run.json").read())["operator"]["mask"].endswith(
            f"m{k}.npy"
        )
    open("all.csv", "w").write("file,maks\ny0.npy,m0.npy\n")
    assert run("reconstruct", "all.csv", *words, "--out", "s", "--quiet") == 2
    assert "column 'maks': Mask has no such option" in capsys.readouterr().err


def test_pages_of_different_sizes_are_refused(here, capsys):
    with tifffile.TiffWriter("a.tif") as tiff:
        tiff.write(np.zeros((8, 8), np.uint8)), tiff.write(np.zeros((9, 8), np.uint8))
    assert run("reconstruct", "a.tif", "--operator", "identity", *FAST, "--out", "r") == 2
    assert "2 pages differ in size or kind; write a.tif:N" in capsys.readouterr().err


def test_check_and_simulate_take_stacks(here, capsys):
    np.save("a.npy", scene(6).astype(np.float32))
    assert run("simulate", "a.npy", "--operator", "identity", "--out", "s", "--quiet") == 0
    assert np.load("s/measurement.npz")["y"].shape == (6, 1, 24, 28)
    run("check", "a.npy", "--operator", "identity", "--sigma", 0.05, "--prior", "total-variation")
    assert "the middle one of 6 images" in capsys.readouterr().out


def test_a_picture_stays_one(here):
    Image.fromarray((scene()[0] * 255).astype(np.uint8)).save("a.png")
    assert restored("a.png")["images"] == 1 and np.asarray(Image.open("r/estimate.png")).ndim == 2


def kspace(n=2, side=64, noise=0.01):
    x = torch.zeros(n, 1, side, side, dtype=torch.complex64)
    for k in range(n):
        x[k, 0, 14:50, 10 + 6 * k : 40 + 6 * k] = 0.5 + 0.2 * k
        x[k, 0, 24:34, 20:30] = 1.0
    maps = birdcage_maps((side, side), 6)[0]
    mask = random_lines((side, side), 2.0, 0.25, generator=torch.Generator().manual_seed(0))
    a = SENSE((1, side, side), maps, mask)
    drawn = ComplexGaussian(noise)(a(x), torch.Generator().manual_seed(1))
    return x, a.observed(drawn), a


def test_a_k_space_volume_tells_its_maps_its_mask_and_its_noise(here):
    """The first command on a file of k-space: nothing is said but that it is of several coils."""
    h5py = pytest.importorskip("h5py")
    x, y, _ = kspace()
    with h5py.File("scan.h5", "w") as file:
        file["kspace"] = 1e-5 * y.numpy()
        file["reconstruction_rss"] = x.abs().numpy()[:, 0]
    words = [
        "--operator",
        "sense",
        "--method",
        "fista",
        "--prior",
        "total-variation",
        "--out",
        "r",
    ]
    assert run("reconstruct", "scan.h5", *words, "--quiet") == 0
    with h5py.File("r/estimate.h5") as file:
        e = np.abs(file["image"][:, 0]) / 1e-5
    true = x.abs().numpy()[:, 0]
    assert np.linalg.norm(e - true) / np.linalg.norm(true) < 0.15
    record = json.loads(open("r/run.json").read())
    notes = " ".join(record["notes"])
    assert record["sigma"] == pytest.approx(1e-5 * 0.01, rel=0.25)
    assert "maps: of the innermost" in notes and "noise estimated at the highest" in notes


def test_the_noise_of_k_space_is_found_where_there_is_little_else():
    i, j = torch.meshgrid(*[torch.linspace(-3, 3, 64)] * 2, indexing="ij")
    _, _, a = kspace()
    y = a(torch.exp(-(i**2) - j**2).to(torch.complex64)[None, None])
    y = a.observed(ComplexGaussian(0.02)(y, torch.Generator().manual_seed(1)))
    assert kspace_noise(y) == pytest.approx(0.02, rel=0.1)
    assert kspace_noise(y[..., :6, :6]) is None


def test_k_space_that_tells_nothing_is_refused(here, capsys):
    _, y, a = kspace(1)
    words = [
        "--operator",
        "sense",
        "--method",
        "fista",
        "--prior",
        "total-variation",
        "--out",
        "r",
    ]

    def refused(data):
        np.save("k.npy", data)
        assert run("reconstruct", "k.npy", *words) == 2
        return capsys.readouterr().err

    assert "np.fft.fftshift" in refused(np.fft.ifftshift(y.numpy(), axes=(-2, -1)))
    thin = y.clone()
    thin[..., 30:32] = 0
    assert "say --operator.maps" in refused(thin.numpy())
    assert run("simulate", "k.npy", "--operator", "sense", "--out", "s") == 2
    assert "it cannot be told without data" in capsys.readouterr().err


def scanned(axis=0.0, water=0.02, size=48):
    """Counts of a disc of water with bone and air in it, its flat and dark fields, and its HU."""
    i, j = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    hu = np.where(i**2 + j**2 < 0.6, 0.0, -1000.0) + 800 * ((i - 0.2) ** 2 + j**2 < 0.03)
    mu = torch.from_numpy((water * (1 + hu / 1000)).astype(np.float32))[None, None]
    a = ParallelCT((1, size, size), even_angles(90), pixel=2.0, axis=axis)
    p = a(mu)[0, 0].numpy()
    flat = 1e5 * (1 + 0.2 * np.sin(np.arange(p.shape[1])))
    counts = RNG.poisson(flat * np.exp(-p)) + 50.0
    np.save("counts.npy", counts), np.save("flat.npy", flat[None].repeat(3, 0) + 50)
    np.save("dark.npy", np.full((2, p.shape[1]), 50.0)), np.save("hu.npy", hu)
    return hu


CT = ["--operator", "parallel-ct", "--operator.angles", "even_angles:90", "--operator.pixel", 2]
CT += ["--shape", 1, 48, 48, "--sigma", 0.02, "--quiet", "--out", "r"]
FIELDS = ["--flat", "flat.npy", "--dark", "dark.npy", "--water", 0.02]


@pytest.mark.parametrize("prior", ["total-variation", "ct-body"])
def test_counts_become_hounsfield_units(here, prior):
    hu = scanned()
    steps = ["--method", "fista"] if prior == "total-variation" else ["--method", "admm"]
    assert run("reconstruct", "counts.npy", *CT, *FIELDS, "--prior", prior, *steps) == 0
    e = np.load("r/estimate.npy")
    i, j = np.mgrid[-1:1:48j, -1:1:48j]
    water, air = (i + 0.3) ** 2 + j**2 < 0.04, i**2 + j**2 > 1
    assert abs(e[water].mean()) < 25 and abs(e[air].mean() + 1000) < 25
    assert abs(e[24:32, 22:26].mean() - hu[24:32, 22:26].mean()) < 80
    assert json.loads(open("r/run.json").read())["sigma"] == 0.02


def test_a_rotation_axis_elsewhere_is_told(here, capsys):
    scanned(axis=3.0)
    words = ["reconstruct", "counts.npy", *CT, *FIELDS, "--prior", "total-variation"]
    words += ["--operator.detectors", np.load("counts.npy").shape[1], "--method"]
    assert run(*words, "fista") == 0
    notes = " ".join(json.loads(open("r/run.json").read())["notes"])
    assert float(notes.split("--operator.axis ")[1].split()[0]) == pytest.approx(3, abs=0.03)
    assert run(*words, "fista", "--operator.axis", 3.0) == 0
    assert "--operator.axis" not in " ".join(json.loads(open("r/run.json").read())["notes"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dark", "dark.npy"], "counts need a --flat"),
        (["--water", -1], "attenuation of water"),
        (["--water", 0.02, "--value-range", 0, 1], "say one of them"),
        (["--flat", "hu.npy"], "flat"),
    ],
)
def test_fields_and_units_that_make_no_sense_are_refused(here, capsys, words, message):
    scanned()
    assert run("reconstruct", "counts.npy", *CT, "--prior", "total-variation", *words) == 2
    assert message in capsys.readouterr().err
    assert run("reconstruct", "hu.npy", "--operator", "identity", "--water", 0.02, *FAST) == 2
