"""Volumes: read as slices, written back with the same grid, values and types."""

import zlib

import numpy as np
import pytest

from measurand.data.files import read_image, read_stored
from measurand.data.grid import resized
from measurand.data.sources import UnreadableFile
from measurand.data.writing import write_image

RNG = np.random.default_rng(0)
HU = RNG.integers(-1000, 1500, (5, 7, 6)).astype(np.int16)
HU[0, 0, 0] = -1000


def nifti(path, voxels, affine, slope=None):
    nibabel = pytest.importorskip("nibabel")
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_data_dtype(voxels.dtype)
    if slope is not None:
        image.header.set_slope_inter(*slope)
    nibabel.save(image, path)
    return nibabel


def rotated(order, signs, zooms, origin):
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (to, sign, zoom) in enumerate(zip(order, signs, zooms, strict=True)):
        affine[to, axis] = sign * zoom
    affine[:3, 3] = origin
    return affine


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (1, -1, 1)])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_comes_back_bit_for_bit(tmp_path, order, signs, suffix):
    """What `read` turns, cuts and flips, `write` undoes, in any orientation."""
    affine = rotated(order, signs, (0.7, 0.8, 3.0), (10, -20, 5))
    nibabel = nifti(tmp_path / f"a{suffix}", HU, affine)
    picture = read_image(tmp_path / f"a{suffix}")
    write_image(tmp_path / f"b{suffix}", picture.x, picture.form)
    back = nibabel.load(tmp_path / f"b{suffix}")
    assert (np.asarray(back.dataobj) == HU).all() and back.get_data_dtype() == np.int16
    assert np.allclose(back.affine, affine)
    assert any("Hounsfield" in note for note in picture.notes)
    assert picture.form.low == -1000 and picture.form.high == 2000


def test_nifti_keeps_scaling_times_and_complex_values(tmp_path):
    series = RNG.integers(0, 4000, (6, 5, 3, 2)).astype(np.uint16)
    nibabel = nifti(tmp_path / "a.nii", series, np.diag([1, 1, 5, 1.0]), (0.25, -10.0))
    stored = read_stored(tmp_path / "a.nii")
    assert stored.x.shape == (6, 1, 5, 6)
    picture = stored.image((-10.0, 990.0))
    write_image(tmp_path / "b.nii", picture.x, picture.form)
    back = nibabel.load(tmp_path / "b.nii")
    source = nibabel.load(tmp_path / "a.nii")
    assert (back.dataobj.get_unscaled() == source.dataobj.get_unscaled()).all()
    assert (back.dataobj.slope, back.dataobj.inter) == (source.dataobj.slope, source.dataobj.inter)
    z = (RNG.normal(size=(4, 5, 2)) + 1j * RNG.normal(size=(4, 5, 2))).astype(np.complex64)
    nifti(tmp_path / "z.nii", z, np.eye(4))
    picture = read_image(tmp_path / "z.nii")
    assert picture.x.is_complex() and picture.x.shape == (2, 1, 5, 4)
    write_image(tmp_path / "w.nii", picture.x, picture.form)
    assert np.array_equal(np.asarray(nibabel.load(tmp_path / "w.nii").dataobj), z)


def test_a_finer_grid_covers_the_same_volume(tmp_path):
    affine = rotated((1, 0, 2), (-1, 1, 1), (0.5, 0.8, 3.0), (10, -20, 5))
    nibabel = nifti(tmp_path / "a.nii", HU, affine)
    picture = read_image(tmp_path / "a.nii")
    doubled = picture.x.repeat_interleave(2, -1).repeat_interleave(2, -2)
    write_image(tmp_path / "b.nii", doubled, picture.form)
    back = nibabel.load(tmp_path / "b.nii")
    assert back.shape == (10, 14, 6)
    assert np.allclose(back.header.get_zooms(), (0.25, 0.4, 3.0))
    # the first voxel of old covers the first two by two of new
    assert np.allclose(back.affine @ [0.5, 0.5, 0, 1], affine @ [0, 0, 0, 1])
    assert np.allclose(back.affine @ [9.5 - 1, 13.5 - 1, 5, 1], affine @ [4, 6, 5, 1])


def test_the_centre_of_a_grid_stays():
    for before, after in ((8, 16), (8, 4), (8, 12), (9, 9)):
        f, o = resized(before, after)
        assert f * (after - 1) / 2 + o == pytest.approx((before - 1) / 2)
    assert resized(8, 16)[0] == 0.5 and resized(8, 4)[0] == 2 and resized(8, 12)[0] == 1


def metaimage(path, values, **lines):
    """A MetaImage as ITK writes it; `values` has axes (z, y, x[, channels])."""
    local = path.suffix == ".mha"
    color = values.ndim == 4
    size = values.shape[:3][::-1]
    names = {"int16": "MET_SHORT", "uint8": "MET_UCHAR", "float32": "MET_FLOAT"}
    content = values.tobytes()
    if lines.get("CompressedData") == "True":
        content = zlib.compress(content)
    head = {"ObjectType": "Image", "NDims": 3, "BinaryData": "True"}
    head |= {"BinaryDataByteOrderMSB": str(values.dtype.byteorder == ">"), **lines}
    head |= {
        "DimSize": " ".join(map(str, size)),
        "ElementNumberOfChannels": values.shape[3] if color else 1,
    }
    head |= {"ElementType": names[values.dtype.newbyteorder("=").name]}
    head |= {"ElementDataFile": "LOCAL" if local else "a.raw"}
    text = "".join(f"{k} = {v}\n" for k, v in head.items()).encode()
    path.write_bytes(text + content if local else text)
    if not local:
        path.with_name("a.raw").write_bytes(content)
    return path


@pytest.mark.parametrize("suffix", [".mhd", ".mha"])
@pytest.mark.parametrize("packed", ["True", "False"])
@pytest.mark.parametrize("kind", ["<i2", ">i2"])
def test_metaimage_comes_back(tmp_path, suffix, packed, kind):
    lines = {"ElementSpacing": "0.5 0.8 3", "Offset": "1 2 3", "CompressedData": packed}
    path = metaimage(tmp_path / f"a{suffix}", HU.astype(kind), **lines)
    picture = read_image(path)
    assert picture.x.shape == (5, 1, 7, 6)
    write_image(tmp_path / f"b{suffix}", picture.x, picture.form)
    again = read_stored(tmp_path / f"b{suffix}")
    assert (again.x[:, 0].numpy() == HU).all()
    assert b"ElementSpacing = 0.5 0.8 3\n" in (tmp_path / f"b{suffix}").read_bytes()
    doubled = picture.x.repeat_interleave(2, -1).repeat_interleave(2, -2)
    write_image(tmp_path / f"c{suffix}", doubled, picture.form)
    head = (tmp_path / f"c{suffix}").read_bytes()
    assert b"ElementSpacing = 0.25 0.4 3\n" in head and b"Offset = 0.875 1.8 3\n" in head


def test_metaimage_that_cannot_be_believed_is_refused(tmp_path):
    path = metaimage(tmp_path / "a.mhd", HU)
    text = path.read_bytes()
    for old, new, message in (
        (b"a.raw", b"../a.raw", "wanted a file beside it"),
        (b"a.raw", b"LIST", "in several files"),
        (b"a.raw", b"b.raw", "which is not there"),
        (b"6 7 5", b"6 7 6", "the data are"),
        (b"6 7 5", b"6 0 5", "positive numbers"),
        (b"MET_SHORT", b"MET_STRING", "wanted MET_CHAR"),
        (b"ElementDataFile", b"Elements", "no ElementDataFile"),
    ):
        path.write_bytes(text.replace(old, new))
        with pytest.raises(UnreadableFile, match=message):
            read_stored(path)


def test_matlab_files_of_both_kinds(tmp_path):
    h5py = pytest.importorskip("h5py")
    from scipy.io import loadmat, savemat

    u, z = RNG.random((5, 7)), RNG.normal(size=(5, 7)) + 1j
    savemat(tmp_path / "a.mat", {"u": u, "z": z, "words": "text", "cell": {"a": 1}})
    with h5py.File(tmp_path / "b.mat", "w", userblock_size=512) as file:
        file["u"] = u.T
        file["z"] = _pairs(z.T)
    content = (tmp_path / "b.mat").read_bytes()
    (tmp_path / "b.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(512, b" ") + content[512:])
    for name in ("a.mat", "b.mat"):
        picture = read_image(f"{tmp_path / name}:u")
        assert np.allclose(picture.x[0, 0].numpy(), 2 * u - 1, atol=1e-6)
        assert np.allclose(read_stored(f"{tmp_path / name}:z").x[0, 0].numpy(), z)
        write_image(tmp_path / "c.mat", picture.x, picture.form)
        assert np.allclose(loadmat(tmp_path / "c.mat")["u"], u, atol=1e-6)
        with pytest.raises(UnreadableFile, match="which array.*NAME one of: u z"):
            read_stored(tmp_path / name)


def _pairs(z):
    pairs = np.empty(z.shape, [("real", "f8"), ("imag", "f8")])
    pairs["real"], pairs["imag"] = z.real, z.imag
    return pairs


def test_dicom_comes_back_as_a_derived_object(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from scans import dicom

    folder = tmp_path / "series"
    folder.mkdir()
    for k, image in enumerate(HU):  # backwards: the order is that of the positions
        dicom(
            folder / f"{9 - k}.dcm",
            (image + 1024).astype(np.uint16),
            position=3.0 * k,
            StudyInstanceUID="1.2",
        )
    stored = read_stored(folder)
    assert (stored.x[:, 0].numpy() == HU).all()
    picture = stored.image()
    write_image(tmp_path / "b.dcm", picture.x, picture.form)
    files = sorted((tmp_path / "b").iterdir())
    assert len(files) == 5
    sources = {str(ds.SOPInstanceUID): ds for ds in map(pydicom.dcmread, sorted(folder.iterdir()))}
    for file, truth in zip(files, HU, strict=True):
        ds = pydicom.dcmread(file)
        assert (ds.pixel_array * ds.RescaleSlope + ds.RescaleIntercept == truth).all()
        assert ds.ImageType[0] == "DERIVED" and ds.SOPInstanceUID not in sources
        source = sources[ds.SourceImageSequence[0].ReferencedSOPInstanceUID]
        assert ds.ImagePositionPatient == source.ImagePositionPatient
        assert ds.StudyInstanceUID == source.StudyInstanceUID
    assert (read_stored(tmp_path / "b").x == stored.x).all()


def test_dicom_of_colour_of_low_white_and_of_frames(tmp_path):
    pydicom = pytest.importorskip("pydicom")
    from scans import dicom

    frames = RNG.integers(0, 255, (3, 6, 5), dtype=np.uint8)
    color = RNG.integers(0, 255, (6, 5, 3), dtype=np.uint8)
    low = RNG.integers(0, 4096, (6, 5)).astype(np.uint16)
    for name, samples, options in (
        ("frames", frames, {"slope": None, "modality": "US"}),
        ("color", color, {"slope": None, "modality": "XC"}),
        ("low", low, {"slope": None, "modality": "DX", "BitsStored": 12, "HighBit": 11,
                      "PhotometricInterpretation": "MONOCHROME1"}),
    ):  # fmt: skip
        path = dicom(tmp_path / f"{name}.dcm", samples, **options)
        picture = read_stored(path).image((0.0, 4095.0) if name == "low" else None)
        write_image(tmp_path / "b.dcm", picture.x, picture.form)
        assert (pydicom.dcmread(tmp_path / "b.dcm").pixel_array == samples).all(), name


def test_a_folder_of_two_series_is_not_one_volume(tmp_path):
    pytest.importorskip("pydicom")
    from scans import dicom

    for k in range(2):
        dicom(tmp_path / f"{k}.dcm", HU[0] + 1024, position=1.0, series=f"1.{k}")
    with pytest.raises(UnreadableFile, match="holds 2 series of images"):
        read_stored(tmp_path)


@pytest.mark.parametrize("right", [True, False])
def test_bytes_in_the_wrong_order_are_said(tmp_path, right):
    i, j = np.mgrid[:24, :28]
    u = (2000 + 900 * np.sin(0.3 * i) * np.cos(0.2 * j) + 20 * RNG.normal(size=i.shape)).astype(
        "<i2"
    )
    head = "NDims = 2\nDimSize = 28 24\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    (tmp_path / "a.mha").write_bytes(head.encode() + (u if right else u.astype(">i2")).tobytes())
    notes = [note for note in read_stored(tmp_path / "a.mha").notes if "byte order" in note]
    assert len(notes) == (not right)
