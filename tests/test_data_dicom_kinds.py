"""DICOM images that show something else than their modality: told apart, left out and counted."""

import warnings

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from scans import dicom

from measurand.data.collection import images
from measurand.data.dicom import OtherImages, series
from measurand.data.sources import UnreadableFile

RNG = np.random.default_rng(0)
U = RNG.integers(0, 3000, (8, 6, 5)).astype(np.int16)
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
SPECTROSCOPY = "1.2.840.10008.5.1.4.1.1.4.2"


def file(path, modality="MR", **others):
    return dicom(path, U[0], slope=None, modality=modality, **others)


@pytest.mark.parametrize(
    ("modality", "words", "kind"),
    [
        ("MR", "ORIGINAL/PRIMARY/M/ND", ""),
        ("MR", "ORIGINAL/PRIMARY/M_FFE/M/FFE", ""),
        ("MR", "DERIVED/SECONDARY/MPR", ""),
        ("MR", "ORIGINAL/PRIMARY", ""),
        ("MR", "ORIGINAL/PRIMARY/T1/NONE", ""),  # a weighting
        ("MR", "ORIGINAL/PRIMARY/P/ND", "phase"),
        ("MR", "ORIGINAL/PRIMARY/PHASE MAP/P/FFE", "phase"),
        ("MR", "ORIGINAL/PRIMARY/VELOCITY MAP/P/PCA", "phase"),
        ("MR", "ORIGINAL/PRIMARY/R/ND", "real part"),
        ("MR", "ORIGINAL/PRIMARY/REAL", "real part"),
        ("MR", "ORIGINAL/PRIMARY/I_SE/I/SE", "imaginary part"),
        ("MR", "ORIGINAL/PRIMARY/IMAGINARY", "imaginary part"),
        ("MR", "ORIGINAL/PRIMARY/B0 MAP/B0/UNSPECIFIED", "map"),
        ("MR", "DERIVED/PRIMARY/M/ND/T1 MAP", "map"),
        ("MR", "DERIVED/PRIMARY/T2_STAR MAP", "map"),
        ("MR", "DERIVED/PRIMARY/T1MAP", "map"),
        ("MR", "DERIVED/PRIMARY/DIFFUSION/ADC/ND", "map"),
        ("MR", "ORIGINAL/PRIMARY/M/ND/MOSAIC", "mosaic"),
        ("MR", "ORIGINAL/PRIMARY/SPECTROSCOPY/NONE", "spectroscopy"),
        ("CT", "ORIGINAL/PRIMARY/AXIAL", ""),
        ("CT", "DERIVED/SECONDARY/MIP", ""),
        ("CT", "ORIGINAL/PRIMARY/LOCALIZER", "localizer"),
        ("CT", "ORIGINAL/PRIMARY/LOCALIZER/CT_SOM5 TOP", "localizer"),
        ("CT", "DERIVED/SECONDARY/OTHER/CT_SOM5 PROT", "dose page"),
        ("CT", "DERIVED/SECONDARY/DOSE_INFO", "dose page"),
        ("CT", "DERIVED/SECONDARY/SCREEN SAVE", "screen capture"),
        ("CT", "DERIVED/PRIMARY/CBF", "map"),
        ("PT", "ORIGINAL/PRIMARY", ""),
        ("US", "ORIGINAL/PRIMARY/ABDOMINAL/0001", ""),
        ("SEG", "DERIVED/PRIMARY", "segmentation"),
        ("RTDOSE", "DERIVED/PRIMARY", "dose"),
    ],
)
def test_image_type_says_what_is_shown(tmp_path, modality, words, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = file(tmp_path / "plain.dcm", modality="CT", series="9.9")
        assert [one.kind for one in series(plain)] == [""]
        assert len(images(plain)) == 1
    file(tmp_path / "other.dcm", modality, ImageType=words.split("/"))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = images(tmp_path)
    told = [str(w.message) for w in said if w.category is OtherImages]
    assert len(found) == (1 if kind else 2)
    assert dict(found.others) == ({kind: 1} if kind else {})
    assert told == ([f"left out 1 DICOM images that show something else: 1 of kind '{kind}'"]
                    if kind else [])  # fmt: skip
    assert ("left out" in found.summary) == bool(kind)


@pytest.mark.parametrize("title", ["Dose Report", "Patient Protocol"])
def test_pages_of_a_capture(tmp_path, title):
    path = file(tmp_path / "a.dcm", "CT", SOPClassUID=CAPTURE, SeriesDescription=title)
    assert series(path)[0].kind == "dose page"
    assert series(file(path, "CT", SOPClassUID=CAPTURE))[0].kind == "screen capture"
    assert series(file(path, "US", SOPClassUID=CAPTURE))[0].kind == ""
    assert series(file(path, "CT", SeriesDescription="Low dose"))[0].kind == ""


def test_one_series_of_magnitudes_and_phases_is_two(tmp_path):
    for k in range(8):
        part = "MP"[k % 2]
        dicom(tmp_path / f"{k}.dcm", U[k], slope=None, modality="MR", position=float(k // 2),
              ImageType=["ORIGINAL", "PRIMARY", part, "ND"])  # fmt: skip
    magnitude, phase = series(tmp_path)
    assert (magnitude.kind, phase.kind) == ("", "phase")
    np.testing.assert_array_equal(magnitude.images, U[::2])
    np.testing.assert_array_equal(phase.images, U[1::2])
    with pytest.warns(OtherImages, match="left out 4 .* 4 of kind 'phase'"):
        found = images(tmp_path)
    np.testing.assert_array_equal(found.images, U[::2])


def test_frames_say_it_themselves(tmp_path):
    frames = []
    for part in ("MAGNITUDE", "PHASE", "REAL", "IMAGINARY"):
        told = Dataset()
        told.FrameType, told.ComplexImageComponent = ["ORIGINAL", "PRIMARY", "T1", "NONE"], part
        frames.append(Dataset())
        frames[-1].MRImageFrameTypeSequence = Sequence([told])
    path = dicom(tmp_path / "e.dcm", U[:4], slope=None, modality="MR",
                 ImageType=["ORIGINAL", "PRIMARY", "T1", "MIXED"],
                 PerFrameFunctionalGroupsSequence=Sequence(frames))  # fmt: skip
    found = series(path)
    assert [one.kind for one in found] == ["", "phase", "real part", "imaginary part"]
    for one, samples in zip(found, U, strict=False):
        np.testing.assert_array_equal(one.images, samples[None])


def test_a_private_number_of_ge(tmp_path):
    for value, kind in ((0, ""), (1, "phase"), (2, "real part"), (3, "imaginary part")):
        for vr, stored in (("SS", value), ("SS", [value, 0]), ("UN", bytes([value, 0]))):
            path = file(tmp_path / "a.dcm", ImageType=["ORIGINAL", "PRIMARY", "OTHER"])
            ds = pydicom.dcmread(path)
            ds.add_new(0x00430010, "LO", "GEMS_PARM_01")
            ds.add_new(0x0043102F, vr, stored)
            ds.save_as(path)
            assert series(path)[0].kind == kind


def test_spectra_without_pixels_are_counted(tmp_path):
    file(tmp_path / "a.dcm")
    ds = pydicom.dcmread(file(tmp_path / "b.dcm", SOPClassUID=SPECTROSCOPY))
    del ds.PixelData
    ds.save_as(tmp_path / "b.dcm")
    with pytest.warns(OtherImages, match="1 of kind 'spectroscopy'"):
        assert len(series(tmp_path)) == 1
    with pytest.warns(OtherImages, match="1 of kind 'spectroscopy'"):
        assert series(tmp_path / "b.dcm") == []


def test_one_file_of_another_kind_is_named(tmp_path):
    path = file(tmp_path / "a.dcm", ImageType=["ORIGINAL", "PRIMARY", "P", "ND"])
    with pytest.raises(UnreadableFile, match="a.dcm: holds no image, only one of kind 'phase'"):
        images(path)
    assert series(path)[0].kind == "phase"
