"""Pixels of DICOM files: compressed or not, whatever stands in unused bits, in physical units."""

import io
import warnings

import numpy as np
import pydicom
import pytest
from PIL import Image, features
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from scans import dicom

from measurand.data.dicom import series
from measurand.data.sources import SkippedFiles, UnreadableFile

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_warning_is_overlooked():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", module="pydicom")
        yield


def image_of(path):
    return series(path)[0].images[0]


def jpeg_2000(path, samples, **options):
    """A DICOM file of samples that pillow has compressed without loss."""
    if not features.check("jpg_2000"):
        pytest.skip("this pillow has no JPEG 2000")
    out = io.BytesIO()
    Image.fromarray(samples).save(out, "JPEG2000", irreversible=False, no_jp2=True)
    ds = pydicom.dcmread(dicom(path, samples, **options))
    ds.file_meta.TransferSyntaxUID = JPEG2000Lossless
    ds.PixelData = encapsulate([out.getvalue()])
    ds.save_as(path)
    return path


def test_jpeg_2000_by_pillow(tmp_path):
    u = RNG.integers(0, 256, (32, 40), dtype=np.uint8)
    path = jpeg_2000(tmp_path / "x.dcm", u, slope=None, modality="US")
    np.testing.assert_array_equal(image_of(path), u)


@pytest.mark.parametrize("syntax", ["little", "implicit", "rle", "jpeg 2000"])
@pytest.mark.parametrize("signed", [False, True])
def test_unused_bits_count_for_nothing(tmp_path, syntax, signed):
    """Twelve bits are stored, and an overlay in bit 12."""
    hu = RNG.integers(-1000, 1000, (32, 32))
    u = (hu if signed else hu + 1024).astype(np.int64) & 0xFFF
    overlay = (RNG.random((32, 32)) > 0.9).astype(np.int64) << 12
    samples = (u | overlay).astype(np.uint16)
    options = {"intercept": 0.0 if signed else -1024.0}
    options |= {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": int(signed)}
    if syntax == "jpeg 2000":
        path = jpeg_2000(tmp_path / "a.dcm", samples, **options)
    else:
        uid = ImplicitVRLittleEndian if syntax == "implicit" else ExplicitVRLittleEndian
        path = dicom(tmp_path / "a.dcm", samples, syntax=uid, **options)
        if syntax == "rle":
            ds = pydicom.dcmread(path)
            ds.compress(RLELossless, generate_instance_uid=False)
            ds.save_as(path)
    np.testing.assert_array_equal(image_of(path), hu)


def test_samples_may_stand_in_the_upper_bits(tmp_path):
    u = RNG.integers(0, 4096, (6, 8))
    noise = RNG.integers(0, 16, (6, 8))
    path = dicom(tmp_path / "a.dcm", (u << 4 | noise).astype(np.uint16), BitsStored=12, HighBit=15)
    np.testing.assert_array_equal(image_of(path), u - 1024)
    path = dicom(tmp_path / "b.dcm", u.astype(np.uint16), BitsStored=12, HighBit=5)
    with pytest.raises(UnreadableFile, match="b.dcm.*12 bits, the highest of them bit 5"):
        series(path)


def big_endian(path):
    """Rewrites a file in the other byte order, as pydicom does not by itself for words."""
    ds = pydicom.dcmread(path)
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds["PixelData"].VR = "OW"
    for element in ds:
        if element.VR == "OW":
            element.value = np.frombuffer(element.value, "<u2").byteswap().tobytes()
    dcmwrite(path, ds, implicit_vr=False, little_endian=False)
    return path


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("entries", ["bytes", "words", "bytes in words", "few colours in words"])
@pytest.mark.parametrize("index", ["u1", "u2"])
def test_palettes_of_both_byte_orders(tmp_path, entries, index, big):
    count, first = (200, 3) if index == "u1" else (1000, 3)
    u = RNG.integers(0, count + 5, (6, 8)).astype(index)
    colors = RNG.integers(0, 256, (3, count))
    if entries == "few colours in words":
        colors = colors // 4
    words = {"bytes": colors, "words": colors * 257, "bytes in words": colors}
    table = words.get(entries, colors).astype("u1" if entries == "bytes" else "<u2")
    others = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, values in zip(("Red", "Green", "Blue"), table, strict=True):
        depth = 8 if entries.startswith("bytes") else 16
        others[f"{name}PaletteColorLookupTableDescriptor"] = [count, first, depth]
        others[f"{name}PaletteColorLookupTableData"] = values.tobytes()
    path = dicom(tmp_path / "p.dcm", u, slope=None, modality="US", **others)
    if big:
        path = big_endian(path)
    wanted = colors.T[np.clip(u.astype(int) - first, 0, count - 1)]
    np.testing.assert_array_equal(image_of(path), wanted)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2"])
def test_grey_of_both_byte_orders(tmp_path, dtype):
    u = RNG.integers(0, 100, (6, 8)).astype(dtype)
    plain = dicom(tmp_path / "a.dcm", u)
    np.testing.assert_array_equal(image_of(plain), u - 1024.0)
    np.testing.assert_array_equal(image_of(big_endian(plain)), u - 1024.0)


def test_a_palette_that_lacks_entries_is_refused(tmp_path):
    others = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name in ("Red", "Green", "Blue"):
        others[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        others[f"{name}PaletteColorLookupTableData"] = bytes(100)
    u = np.zeros((4, 5), np.uint8)
    path = dicom(tmp_path / "p.dcm", u, slope=None, modality="US", **others)
    with pytest.raises(UnreadableFile, match="its palette has 100 of 256 entries"):
        series(path)


def world(slope=0.0125, intercept=0.0, first=0, last=65535, **others):
    mapping = Dataset()
    mapping.RealWorldValueFirstValueMapped = first
    mapping.RealWorldValueLastValueMapped = last
    if slope is not None:
        mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept = slope, intercept
    for name, value in others.items():
        setattr(mapping, name, value)
    return mapping


U = np.arange(1024, dtype=np.uint16).reshape(32, 32) * 64


@pytest.mark.parametrize("slope", [None, 1.0])
def test_real_world_values_are_the_counts(tmp_path, slope):
    """SPECT as some makers write it: the sixteen bits are filled, and only a mapping says how."""
    path = dicom(tmp_path / "a.dcm", U, slope=slope, intercept=0.0, modality="NM",
                 RealWorldValueMappingSequence=Sequence([world(), world()]))  # fmt: skip
    np.testing.assert_allclose(image_of(path), U * 0.0125, rtol=1e-6)
    path = dicom(tmp_path / "b.dcm", U, slope=0.5, intercept=1.0, modality="NM",
                 RealWorldValueMappingSequence=Sequence([world()]))  # fmt: skip
    np.testing.assert_allclose(image_of(path), U * 0.5 + 1, rtol=1e-6)


def test_real_world_tables_and_frames(tmp_path):
    u = RNG.integers(10, 20, (2, 6, 5)).astype(np.uint16)
    table = [float(v) for v in RNG.random(10)]
    mapping = world(None, first=10, last=19, RealWorldValueLUTData=table)
    path = dicom(tmp_path / "a.dcm", u[0], slope=None, modality="NM",
                 RealWorldValueMappingSequence=Sequence([mapping]))  # fmt: skip
    np.testing.assert_allclose(image_of(path), np.array(table)[u[0] - 10], rtol=1e-6)
    frames = []
    for slope in (2.0, 3.0):
        frames.append(Dataset())
        frames[-1].RealWorldValueMappingSequence = Sequence([world(slope, -1.0)])
    path = dicom(tmp_path / "b.dcm", u, slope=None, modality="MR",
                 PerFrameFunctionalGroupsSequence=Sequence(frames))  # fmt: skip
    for image, samples, slope in zip(series(path)[0].images, u, (2.0, 3.0), strict=True):
        np.testing.assert_array_equal(image, slope * samples - 1)


def test_mappings_that_leave_it_open_are_refused(tmp_path):
    path = dicom(tmp_path / "a.dcm", U, slope=None, modality="NM",
                 RealWorldValueMappingSequence=Sequence([world(), world(2.0)]))  # fmt: skip
    with pytest.raises(UnreadableFile, match="2 real-world value mappings that differ"):
        series(path)
    path = dicom(tmp_path / "a.dcm", U, slope=None, modality="NM",
                 RealWorldValueMappingSequence=Sequence([world(last=60000)]))  # fmt: skip
    with pytest.raises(UnreadableFile, match="of 1024 samples lie outside of the real-world"):
        series(path)
    with pytest.warns(SkippedFiles, match="skipped 1 of 1"):
        assert series(path, skip_bad=True) == []
