"""DICOM: series in order and in physical units, as scanners and archives really write them."""

import warnings
import zipfile

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from scans import dicom

from measurand.data.collection import images
from measurand.data.dicom import series
from measurand.data.dicom_writing import volume
from measurand.data.sources import File, UnreadableFile

RNG = np.random.default_rng(0)
SAMPLES = RNG.integers(0, 3000, (7, 6, 5)).astype(np.int16)


@pytest.fixture(autouse=True)
def no_warning_is_overlooked():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module="pydicom")
        yield


def scan(folder, order=(3, 0, 6, 1, 5, 2, 4), spacing=2.5, **options):
    """A CT series whose files are named in another order than they lie."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, k in enumerate(order):
        position = -40.0 + spacing * k
        dicom(folder / f"{name}.dcm", SAMPLES[k], position=position, number=9 - k, **options)
    return folder


def test_a_series_is_sorted_along_its_normal_in_hounsfield_units(tmp_path):
    (found,) = series(scan(tmp_path / "ct"))
    assert found.positions == tuple(-40 + 2.5 * k for k in range(7))
    assert (found.modality, found.pixel_mm, found.uid) == ("CT", (0.7, 0.8), "1.2.3")
    for image, u in zip(found.images, SAMPLES, strict=True):
        assert image.dtype == np.float32 and image.flags.writeable
        np.testing.assert_array_equal(image, u.astype(np.float32) - 1024)
    assert found.files[0].endswith("1.dcm")


def test_series_are_told_apart_and_reports_passed_over(tmp_path):
    scan(tmp_path / "deep" / "a")
    scan(tmp_path / "b", order=(2, 1, 0), series="1.2.4", normal="x", intercept=0.0)
    dicom(tmp_path / "b" / "scout", SAMPLES[0, :3], series="1.2.4", position=0.0)  # other plane
    report = pydicom.dcmread(tmp_path / "b" / "0.dcm")
    for name in ("PixelData", "Rows", "Columns"):
        del report[name]
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"  # a structured report
    report.save_as(tmp_path / "report.dcm")
    (tmp_path / "DICOMDIR").write_bytes((tmp_path / "b" / "0.dcm").read_bytes())
    (tmp_path / "notes.txt").write_text("nothing")
    found = series(tmp_path)
    assert sorted((s.uid, len(s.images)) for s in found) == [
        ("1.2.3", 7),
        ("1.2.4", 1),
        ("1.2.4", 3),
    ]
    with pytest.raises(UnreadableFile, match="holds no image"):
        series(tmp_path / "report.dcm")


def test_a_zip_of_files_without_ending(tmp_path):
    folder = scan(tmp_path / "ct")
    with zipfile.ZipFile(tmp_path / "ct.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"study/{file.stem}")
        archive.writestr("study/readme", "nothing")
    (found,) = series(tmp_path / "ct.zip")
    np.testing.assert_array_equal(found.images, series(folder)[0].images)
    assert found.files[0].startswith(str(tmp_path / "ct.zip") + ": study/")


def test_orientations_that_differ_in_the_last_digit_are_one(tmp_path):
    for k in range(3):
        dicom(
            tmp_path / f"{k}.dcm", SAMPLES[k], position=1.0 * k,
            ImageOrientationPatient=[1, 0, 0, 0, 0.999987, 0.005 + 0.00001 * (k - 1)],
        )  # fmt: skip
    (found,) = series(tmp_path)
    assert len(found.images) == 3


def test_a_gap_is_told(tmp_path):
    with pytest.warns(UserWarning, match=r"2 slices are missing between the 5"):
        (found,) = series(scan(tmp_path / "ct", order=(0, 1, 2, 5, 6)))
    assert len(found.images) == 5


def test_times_at_one_position_are_no_gap(tmp_path):
    scan(tmp_path / "a")
    scan(tmp_path / "b")
    (found,) = series(tmp_path)
    assert len(found.images) == 14 and found.positions[0] == found.positions[1]


def test_sizes_and_spacings_that_differ_are_stacks_of_their_own(tmp_path):
    scan(tmp_path)
    for k in range(2):
        dicom(tmp_path / f"odd{k}.dcm", SAMPLES[k, :4], position=90.0 + k)
        dicom(tmp_path / f"wide{k}.dcm", SAMPLES[k], position=50.0 + k, PixelSpacing=[1.4, 1.4])
    dicom(tmp_path / "close.dcm", SAMPLES[0], position=-22.5, PixelSpacing=[0.70001, 0.8])
    found = {(one.images[0].shape, one.pixel_mm): len(one.images) for one in series(tmp_path)}
    assert found == {((6, 5), (0.7, 0.8)): 8, ((4, 5), (0.7, 0.8)): 2, ((6, 5), (1.4, 1.4)): 2}
    assert len(images(tmp_path)) == 12


def test_without_slope_or_position(tmp_path):
    for k in range(3):
        dicom(tmp_path / f"{9 - k}.dcm", SAMPLES[k], slope=None, number=k)
    (found,) = series(tmp_path)
    np.testing.assert_array_equal(found.images, SAMPLES[:3])
    assert found.positions == () and found.pixel_mm is None


def test_each_file_has_its_own_slope(tmp_path):
    for k in range(3):
        dicom(tmp_path / f"{k}.dcm", SAMPLES[k].astype(np.uint16), slope=0.5 + k, intercept=0,
              position=k, modality="PT")  # fmt: skip
    for k, image in enumerate(series(tmp_path)[0].images):
        np.testing.assert_allclose(image, SAMPLES[k] * (0.5 + k), rtol=1e-6)


def test_low_is_white(tmp_path):
    u = np.array([[0, 1], [200, 4095]], np.uint16)
    path = dicom(tmp_path / "x.dcm", u, slope=None, modality="DX", BitsStored=12, HighBit=11,
                 PhotometricInterpretation="MONOCHROME1")  # fmt: skip
    np.testing.assert_array_equal(series(path)[0].images[0], 4095 - u.astype(int))
    signed = np.array([[-5, 7]], np.int16)
    path = dicom(tmp_path / "s.dcm", signed, slope=None,
                 PhotometricInterpretation="MONOCHROME1")  # fmt: skip
    np.testing.assert_array_equal(series(path)[0].images[0], [[4, -8]])
    path = dicom(tmp_path / "b.dcm", u.astype(np.uint8), slope=None,
                 PhotometricInterpretation="MONOCHROME1")  # fmt: skip
    image = series(path)[0].images[0]
    assert image.dtype == np.uint8 and np.array_equal(image, [[255, 254], [55, 0]])
    path = dicom(tmp_path / "hu.dcm", u, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(series(path)[0].images[0], u.astype(int) - 1024)


@pytest.mark.parametrize("syntax", [None, ImplicitVRLittleEndian])
@pytest.mark.parametrize("padding", [-2000, 63536])
def test_what_was_never_measured_in_ct_is_air(tmp_path, padding, syntax):
    u = np.array([[-2000, -1999], [24, 1024]], np.int16)
    options = {"syntax": syntax} if syntax else {}
    if padding > 0 and syntax:
        pytest.skip("an implicit file has no room for the wrong type")
    if padding > 0:
        from pydicom.dataelem import DataElement

        path = dicom(tmp_path / "x.dcm", u, **options)
        ds = pydicom.dcmread(path)
        ds.add(DataElement(0x00280120, "US", padding))
        ds.save_as(path)
    else:
        path = dicom(tmp_path / "x.dcm", u, PixelPaddingValue=padding, **options)
    image = series(path)[0].images[0]
    np.testing.assert_array_equal(image, [[-1024, -3023], [-1000, 0]])


def test_padding_is_air_also_where_samples_are_hounsfield_units_as_they_stand(tmp_path):
    u = np.array([[-2000, -1999], [24, 1024]], np.int16)
    path = dicom(tmp_path / "x.dcm", u, slope=None, PixelPaddingValue=-2000)
    np.testing.assert_array_equal(series(path)[0].images[0], [[-1024, -1999], [24, 1024]])


def test_a_report_among_other_files_is_passed_over(tmp_path):
    dicom(tmp_path / "report.dcm", SAMPLES[0])
    report = pydicom.dcmread(tmp_path / "report.dcm")
    for name in ("PixelData", "Rows", "Columns"):
        del report[name]
    report.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.save_as(tmp_path / "report.dcm")
    np.save(tmp_path / "x.npy", np.zeros((4, 4), np.float32))
    assert len(images(tmp_path)) == 1
    for read in (images, series):
        with pytest.raises(UnreadableFile, match="report.dcm: holds no image"):
            read(tmp_path / "report.dcm")


def test_colour(tmp_path):
    rgb = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    path = dicom(tmp_path / "us.dcm", rgb, slope=None, modality="US")
    np.testing.assert_array_equal(series(path)[0].images[0], rgb)


def group(**values):
    """A functional group sequence with one item."""
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return Sequence([item])


def test_enhanced_multi_frame(tmp_path):
    """Scale and position of every frame; frames are stored in another order than they lie."""
    order, frames = [2, 0, 1], []
    for k in order:
        frame = Dataset()
        frame.PlanePositionSequence = group(ImagePositionPatient=[0, 0, 3.0 * k])
        frame.PixelValueTransformationSequence = group(
            RescaleSlope=1.0 + k, RescaleIntercept=-1000.0, RescaleType="HU"
        )
        frames.append(frame)
    shared = Dataset()
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    shared.PixelMeasuresSequence = group(PixelSpacing=[0.5, 0.5])
    path = dicom(
        tmp_path / "e.dcm", SAMPLES[order], slope=None,
        PerFrameFunctionalGroupsSequence=Sequence(frames),
        SharedFunctionalGroupsSequence=Sequence([shared]),
    )  # fmt: skip
    (found,) = series(path)
    assert found.positions == (0.0, 3.0, 6.0) and found.pixel_mm == (0.5, 0.5)
    for k, image in enumerate(found.images):
        np.testing.assert_array_equal(image, SAMPLES[k] * (1.0 + k) - 1000)


def test_frames_without_positions_stay_in_order(tmp_path):
    cine = RNG.integers(0, 256, (4, 6, 5), dtype=np.uint8)
    (found,) = series(dicom(tmp_path / "us.dcm", cine, slope=None, modality="US"))
    assert found.images[0].dtype == np.uint8
    np.testing.assert_array_equal(found.images, cine)


def test_modality_table(tmp_path):
    table = group(
        LUTDescriptor=[4, 0, 16],
        LUTData=np.array([5, 10, 20, 40], np.uint16).tobytes(),
        ModalityLUTType="US",
    )
    u = np.array([[0, 1], [2, 3]], np.uint16)
    path = dicom(tmp_path / "t.dcm", u, slope=None, ModalityLUTSequence=table)
    np.testing.assert_array_equal(series(path)[0].images[0], [[5, 10], [20, 40]])


def test_transfer_syntaxes(tmp_path):
    plain = dicom(tmp_path / "a.dcm", SAMPLES[0])
    for name in ("ImplicitVRLittleEndian", "DeflatedExplicitVRLittleEndian"):
        syntax = {"I": ImplicitVRLittleEndian, "D": DeflatedExplicitVRLittleEndian}[name[0]]
        path = dicom(tmp_path / f"{name}.dcm", SAMPLES[0], syntax=syntax)
        np.testing.assert_array_equal(series(path)[0].images[0], SAMPLES[0] - 1024.0)
    ds = pydicom.dcmread(plain)
    ds.compress(RLELossless, generate_instance_uid=False)
    ds.save_as(tmp_path / "rle.dcm")
    np.testing.assert_array_equal(series(tmp_path / "rle.dcm")[0].images[0], SAMPLES[0] - 1024.0)
    bare = (tmp_path / "ImplicitVRLittleEndian.dcm").read_bytes()
    ds = pydicom.dcmread(tmp_path / "ImplicitVRLittleEndian.dcm")
    start = 132 + 12 + ds.file_meta.FileMetaInformationGroupLength
    (tmp_path / "old.dcm").write_bytes(bare[start:])  # as before 1993: no preamble
    np.testing.assert_array_equal(series(tmp_path / "old.dcm")[0].images[0], SAMPLES[0] - 1024.0)


def test_a_compression_that_needs_a_plugin_names_it(tmp_path):
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    for syntax in (JPEGLosslessSV1, JPEGLSLossless):
        if get_decoder(syntax).is_available:
            pytest.skip("the plugin is installed")
        path = dicom(tmp_path / "x.dcm", SAMPLES[0])
        ds = pydicom.dcmread(path)
        ds.file_meta.TransferSyntaxUID = syntax
        ds.PixelData = encapsulate([b"\xff\xd8 not really \xff\xd9"])
        ds.save_as(path)
        with pytest.raises(UnreadableFile, match=r"x.dcm.*compressed as JPEG.*pylibjpeg"):
            series(path)


def test_what_cannot_be_read_is_named_and_can_be_skipped(tmp_path):
    scan(tmp_path)
    whole = (tmp_path / "1.dcm").read_bytes()
    for content in (b"", whole[:300], whole[:-20], b"no DICOM at all" * 20):
        (tmp_path / "1.dcm").write_bytes(content)
        with pytest.raises(UnreadableFile, match="1.dcm"):
            series(tmp_path)
        with pytest.warns(UserWarning, match="skipped 1 of 7 files: .*1.dcm"):
            (found,) = series(tmp_path, skip_bad=True)
        assert len(found.images) == 6
    dicom(tmp_path / "1.dcm", SAMPLES[0], slope=0.0, position=-40.0)
    with pytest.raises(UnreadableFile, match="slope"):
        series(tmp_path)
    dicom(tmp_path / "1.dcm", SAMPLES[0], position=-40.0, NumberOfFrames=2_000_000_000)
    with pytest.raises(UnreadableFile, match="2000000000 frames"):
        series(tmp_path)
    dicom(tmp_path / "1.dcm", SAMPLES[0], position=-40.0, Rows=65535, Columns=65535)
    with pytest.raises(UnreadableFile, match="unpacks to"):
        series(tmp_path)


def test_a_missing_slice_is_a_note_and_another_orientation_is_named(tmp_path):
    folder = scan(tmp_path / "ct", order=(3, 0, 6, 1, 5, 2))
    _, note = volume(File("ct", folder)).notes
    assert "1 slice is missing between the 6" in note
    scan(folder / "x", order=(1, 0), normal="x")
    with pytest.raises(UnreadableFile, match="2 of '1.2.3', the first of them in .*orientation"):
        volume(File("ct", folder))


def test_a_slice_without_a_scale_among_others_is_a_bad_file(tmp_path):
    folder = scan(tmp_path / "ct")
    scan(tmp_path / "raw", slope=None)
    assert len(series(tmp_path / "raw")[0].images) == 7  # none of them has one
    dicom(folder / "bare.dcm", SAMPLES[0], position=17.5, slope=None)
    with pytest.raises(UnreadableFile, match=r"bare\.dcm: says no RescaleSlope .* 7 other"):
        series(folder)
    with pytest.warns(UserWarning, match=r"skipped 1 of 8 files: .*bare\.dcm"):
        (found,) = series(folder, skip_bad=True)
    assert len(found.images) == 7 and min(image.min() for image in found.images) < -900


def test_slices_that_are_there_twice_count_once(tmp_path):
    folder = scan(tmp_path / "ct")
    (folder / "copy (1).dcm").write_bytes((folder / "2.dcm").read_bytes())
    with pytest.warns(UserWarning, match=r"1 is a copy, left out: copy \(1\)\.dcm of 2\.dcm"):
        (found,) = series(folder)
    assert len(found.images) == 7
    (folder / "copy (1).dcm").unlink()
    scan(tmp_path / "ct" / "again")  # the whole folder
    for file in (folder / "again").iterdir():
        file.write_bytes((folder / file.name).read_bytes())
    with pytest.warns(UserWarning, match="7 are copies, left out"):
        (found,) = series(folder)
    assert len(found.images) == 7


def test_another_image_of_the_place_of_a_slice_is_told(tmp_path):
    folder = scan(tmp_path / "ct")
    dicom(folder / "again.dcm", SAMPLES[2] + 1, position=-35.0, number=99)
    with pytest.warns(UserWarning, match=r"1 of 7 places have more images .*again\.dcm"):
        (found,) = series(folder)
    assert len(found.images) == 8


def test_slices_of_ct_with_another_rescale_are_told(tmp_path):
    folder = scan(tmp_path / "ct")
    dicom(folder / "1.dcm", SAMPLES[0], position=-40.0, intercept=0.0)
    with pytest.warns(
        UserWarning, match=r"1 of 7 slices .* 1 and 0 instead of 1 and -1024: 1\.dcm"
    ):
        series(folder)


def test_names_are_sorted_by_their_numbers_where_nothing_else_says_the_order(tmp_path):
    for k in range(5):
        dicom(tmp_path / f"IM{8 + k}.dcm", SAMPLES[k], number=0)
    with pytest.warns(UserWarning, match="nothing says the order of its slices"):
        (found,) = series(tmp_path)
    for image, u in zip(found.images, SAMPLES, strict=False):
        assert np.array_equal(image, u - 1024.0)
