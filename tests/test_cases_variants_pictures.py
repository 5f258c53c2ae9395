"""Variants of the cases of pictures (`test_cases_photo`): stored in other ways, or dark."""

import io

import h5py
import numpy as np
import pytest
import tifffile
from cases import SMALL, record, refused, rng, scene
from PIL import Image, PngImagePlugin
from test_cli import run

from measurand.data.files import read_image, read_stored

pytestmark = pytest.mark.usefixtures("here")
DEEP = (scene() * 60000).astype("u2")
BYTES = (scene() * 255).astype("u1")


def restored(name, *words):
    command = ["reconstruct", name, "--operator", "identity", "--sigma", 1e-3, *SMALL, *words]
    assert run(*command, "--out", "r") == 0
    return record()


@pytest.mark.parametrize("page, channel", [(0, "dapi"), (1, "gfp"), (4, "dapi")])
@pytest.mark.parametrize("larger", [False, True])
def test_a_page_of_an_ome_tiff_keeps_its_description(page, channel, larger):
    stack = np.stack([np.roll(DEEP, k) for k in range(6)]).reshape(3, 2, 40, 48)
    told = {"PhysicalSizeX": 0.2, "PhysicalSizeY": 0.3, "Channel": {"Name": ["dapi", "gfp"]}}
    tifffile.imwrite("a.ome.tif", stack, metadata={"axes": "ZCYX", **told})
    if larger:
        words = ["--operator", "block-average", "--operator.factor", 2, "--sigma", 1e-3, *SMALL]
        assert run("reconstruct", f"a.ome.tif:{page}", *words, "--out", "r") == 0
    else:
        restored(f"a.ome.tif:{page}")
    with tifffile.TiffFile("r/estimate.tif") as back:
        assert back.is_ome and len(back.series) == 1
        (image,) = (tifffile.xml2dict(back.ome_metadata)["OME"]["Image"],)
        pixels = image["Pixels"]
        shape = (80, 96) if larger else (40, 48)
        assert back.series[0].shape == shape == (pixels["SizeY"], pixels["SizeX"])
    assert pixels["Channel"]["Name"] == channel and pixels["SizeZ"] == pixels["SizeC"] == 1
    assert pixels["PhysicalSizeX"] == pytest.approx(0.1 if larger else 0.2)
    assert pixels["TiffData"]["IFD"] == 0


def test_a_page_of_the_second_image_of_an_ome_tiff_is_of_that_one():
    with tifffile.TiffWriter("m.ome.tif", ome=True) as out:
        out.write(np.stack([DEEP] * 2), metadata={"axes": "ZYX", "Name": "first"})
        out.write(np.stack([DEEP] * 3), metadata={"axes": "ZYX", "PhysicalSizeX": 0.7})
    restored("m.ome.tif:3")
    with tifffile.TiffFile("r/estimate.tif") as back:
        assert 'PhysicalSizeX="0.7"' in back.ome_metadata and "first" not in back.ome_metadata


def test_a_page_has_its_own_resolution():
    with tifffile.TiffWriter("a.tif") as out:
        out.write(DEEP, resolution=(100, 100))
        out.write(DEEP[:20, :24], resolution=(30, 20))
    restored("a.tif:1")
    with tifffile.TiffFile("r/estimate.tif") as back:
        tags = back.pages[0].tags
        assert tags[282].value == (30, 1) and tags[283].value == (20, 1)


@pytest.mark.parametrize("u", [BYTES, DEEP, BYTES > 127])
def test_white_that_is_zero_stays_so(u):
    options = {"photometric": "miniswhite"} if u.dtype != bool else {}
    if u.dtype == bool:
        Image.fromarray(u).save("a.tif", tiffinfo={262: 0})
    else:
        tifffile.imwrite("a.tif", u, **options)
    restored("a.tif")
    assert np.array_equal(read_image("r/estimate.tif").x, read_image("a.tif").x)
    with tifffile.TiffFile("a.tif") as before, tifffile.TiffFile("r/estimate.tif") as after:
        assert before.pages[0].photometric == after.pages[0].photometric


AS_IT_IS = ["--operator", "identity", "--sigma", 0.01, *SMALL, "--out", "r"]


@pytest.mark.parametrize("nodata", ["0", "-3.4028234663852886e+38", "nan"])
def test_an_estimate_lacks_no_pixel(nodata, capfd):
    x = scene()
    x[:4, :4] = float(nodata)
    tifffile.imwrite("a.tif", x, extratags=[(42113, 2, 0, nodata, True)])
    restored("a.tif", "--value-range", 0, 1)
    assert capfd.readouterr().err == ""
    assert not read_stored("r/estimate.tif").missing
    with tifffile.TiffFile("r/estimate.tif") as back:
        assert 42113 not in back.pages[0].tags


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_palette_of_greys_is_grey(suffix):
    if suffix == ".png":
        Image.fromarray(BYTES // 16 * 16).quantize(16).save("a.png")
    else:
        ramp = np.stack([np.arange(255, -1, -1, dtype="u2") * 257] * 3)
        tifffile.imwrite("a.tif", BYTES, photometric="palette", colormap=ramp)
    assert "palette read as grey" in restored("a" + suffix)["notes"]
    assert read_image("r/estimate" + suffix).x.shape == (1, 1, 40, 48)


@pytest.mark.parametrize("deep", [False, True])
def test_a_png_keeps_its_gamma(deep):
    told = PngImagePlugin.PngInfo()
    told.add(b"gAMA", (100000).to_bytes(4, "big"))
    Image.fromarray(DEEP if deep else BYTES).save("a.png", pnginfo=told)
    restored("a.png")
    assert Image.open("r/estimate.png").info["gamma"] == 1.0


@pytest.mark.parametrize("kind", ["u2", ">u2"])
@pytest.mark.parametrize("white", [255, 1023, 4095])
def test_few_bits_in_sixteen_are_as_good_as_all(kind, white):
    x = scene()
    y = (x + 0.05 * rng(1).normal(size=x.shape)).clip(0, 1)
    y.flat[0] = 1
    found = []
    for name, top in (("few", white), ("all", 65535)):
        np.save(f"{name}.npy", (y * top).round().astype(kind))
        np.save(f"x{name}.npy", (x * top).round().astype(kind))
        words = ["--operator", "identity", "--truth", f"x{name}.npy", "--out", "r", "--quiet"]
        assert run("reconstruct", f"{name}.npy", *words, "--prior", "total-variation") == 0
        found.append(record()["metrics"]["psnr"])
    assert found[0] == pytest.approx(found[1], abs=0.3) and found[1] > 26


@pytest.mark.parametrize("scale", [1e-3, 1e-20, 1e12])
def test_values_that_no_prior_knows_are_refused(scale, capsys):
    np.save("a.npy", scale * scene())
    command = ["reconstruct", "a.npy", "--operator", "identity", "--sigma", 0.01, *SMALL]
    assert "--value-range LOW HIGH" in refused(capsys, *command, "--out", "r")
    restored("a.npy", "--value-range", 0, scale)
    assert np.abs(np.load("r/estimate.npy") / np.float32(scale) - scene()).max() < 1e-3


@pytest.mark.parametrize("names", [("real", "imag"), ("r", "i"), ("re", "im")])
@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
def test_pairs_of_numbers_are_complex(names, suffix):
    x = (scene() * np.exp(2j * scene())).astype("c8")
    pairs = np.zeros(x.shape, [(name, "f4") for name in names])
    pairs[names[0]], pairs[names[1]] = x.real, x.imag
    if suffix == ".npy":
        np.save("a.npy", pairs)
    elif suffix == ".npz":
        np.savez("a.npz", a=pairs)
    else:
        with h5py.File("a.h5", "w") as file:
            file["a"] = pairs
    assert np.array_equal(read_stored("a" + suffix).x[0, 0].numpy(), x)


def test_what_matlab_keeps_of_cells_is_no_array():
    with h5py.File("a.mat", "w", userblock_size=512) as file:
        file["I"], file["#refs#/a"], file["#refs#/b"] = (
            scene().T,
            np.ones((1, 4), "u2"),
            np.ones(3),
        )
    assert np.array_equal(read_stored("a.mat").x[0, 0], scene())


def test_a_file_with_a_colon_is_no_page_of_another():
    tifffile.imwrite("scan.tif", DEEP)
    Image.fromarray(BYTES).save("scan.tif:2.png")
    words = ["denoise", "scan.tif:2.png", "--prior", "total-variation", "--sigma", 0.05]
    assert run(*words, "--quiet") == 0
    back = np.asarray(Image.open(io.BytesIO(open("scan.tif:2-denoised.png", "rb").read())))
    assert np.abs(back.astype(float) - BYTES).mean() < 5


def test_slices_of_coils_are_said():
    np.save("k.npy", np.zeros((4, 3, 8, 8), "c8"))
    assert read_stored("k.npy").notes == ("4 images or slices, each of 3 channels or coils",)


OME = "http://www.openmicroscopy.org/Schemas/OME/2016-06"


def ome(own, names, planes):
    data = "".join(
        f'<TiffData FirstC="{k}" IFD="0" PlaneCount="1">'
        f'<UUID FileName="{name}">urn:uuid:{k}</UUID></TiffData>'
        for k, name in enumerate(names)
    )
    channels = "".join(f'<Channel ID="Channel:0:{k}"/>' for k in range(planes))
    return (
        f'<?xml version="1.0"?><OME xmlns="{OME}" UUID="urn:uuid:{own}"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" PhysicalSizeX="0.2" '
        f'SizeX="48" SizeY="40" SizeC="{planes}" SizeZ="1" SizeT="1">'
        f"{channels}{data}</Pixels></Image></OME>"
    ).encode()


@pytest.mark.parametrize(
    ("own", "names", "planes", "said"),
    [
        (1, ["a.ome.tif", "b.ome.tif", "c.ome.tif"], 3, "others are in a.ome.tif, c.ome.tif"),
        (0, ["a.ome.tif"], 3, "of 3 planes, of which this file holds 1"),
        (0, ["renamed.ome.tif"], 1, None),
    ],
)
def test_planes_of_an_ome_stack_that_are_elsewhere_are_said(here, own, names, planes, said):
    tifffile.imwrite("b.ome.tif", DEEP, description=ome(own, names, planes), metadata=None)
    words = ["--operator", "identity", "--sigma", 1e-3, *SMALL, "--out", "r"]
    assert run("reconstruct", "b.ome.tif", *words) == 0
    notes = [note for note in record()["notes"] if "OME" in note]
    assert (said in notes[0]) if said else not notes
    with tifffile.TiffFile("r/estimate.tif") as back:
        kept = back.is_ome and 'PhysicalSizeX="0.2"' in back.ome_metadata
        assert kept == (said is None)
        assert back.series[0].shape == (40, 48)


def test_a_map_of_noise_is_no_level(capsys):
    np.save("s.npy", scene())
    np.save("a.npy", scene())
    words = ["reconstruct", "a.npy", "--operator", "identity", "--sigma", "s.npy"]
    with pytest.raises(SystemExit):
        run(*words)
    said = " ".join(capsys.readouterr().err.split())
    assert "got 's.npy', wanted one number" in said and "--noise poisson" in said


@pytest.mark.parametrize("nodata", [-1.0, -9999.0])
def test_one_negative_value_among_others_may_be_no_data(nodata, capsys):
    np.save("a.npy", np.where(scene() < 0.2, nodata, scene()).astype("f4"))
    words = ["reconstruct", "a.npy", *AS_IT_IS]
    if nodata == -1:
        assert run(*words) == 0
        said = " ".join(record()["notes"])
    else:
        said = refused(capsys, *words)
    assert f"are exactly {nodata:g} and no other is below 0: if that means no data" in said


def test_stored_samples_of_ct_are_no_hounsfield_units(capsys):
    pytest.importorskip("pydicom")
    from scans import dicom

    dicom("a.dcm", (1000 + 800 * scene()).astype("u2"), slope=None, position=0.0)
    words = ["reconstruct", "a.dcm", *AS_IT_IS]
    assert "stored samples without a rescale" in refused(capsys, *words)
    assert run(*words, "--value-range", 24, 3024) == 0
    # a rescale that is stated is believed, of a bone whose background was set to zero too
    dicom("a.dcm", (800 * scene()).astype("u2"), slope=1.0, position=0.0)
    assert run(*words[:-1], "s") == 0


@pytest.mark.parametrize("ends, said", [((0, 255), True), ((0, 1), False), ((-1, 3), False)])
def test_a_range_in_other_units_is_said(ends, said):
    np.save("a.npy", scene())
    notes = restored("a.npy", "--value-range", *ends)["notes"]
    assert any("hardly any of --value-range" in note for note in notes) == said
