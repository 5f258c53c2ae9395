"""NIfTI: the slices a scanner would show, in the units of the file."""

import gzip

import nibabel
import numpy as np
import pytest
from scans import nifti

from measurand.data.nifti import slices
from measurand.data.sources import UnreadableFile

RNG = np.random.default_rng(0)
VOXELS = RNG.integers(-500, 500, (4, 5, 6)).astype(np.int16)


def anatomy(shape=(4, 5, 6)):
    """Where a voxel lies, as 100 x + 10 y + z with x to the right, y forward and z up."""
    x, y, z = np.mgrid[: shape[0], : shape[1], : shape[2]]
    return (100 * x + 10 * y + z).astype(np.int16)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_packed_and_plain(tmp_path, name, version):
    found = slices(nifti(tmp_path / name, VOXELS, version=version))
    assert len(found) == 6
    for k, image in enumerate(found):
        assert image.dtype == np.float32 and image.flags.c_contiguous and image.flags.writeable
        np.testing.assert_array_equal(image, VOXELS[::-1, ::-1, k].T)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "ASL", "SRA"])
def test_however_it_is_stored_it_looks_the_same(tmp_path, codes):
    """The same anatomy in another order of the axes."""
    target = nibabel.orientations.axcodes2ornt(codes)
    image = nibabel.Nifti1Image(anatomy(), np.eye(4)).as_reoriented(
        nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), target)
    )
    image.to_filename(tmp_path / "a.nii")
    axial, coronal, sagittal = (slices(tmp_path / "a.nii", across=k) for k in (2, 1, 0))
    assert [len(axial), len(coronal), len(sagittal)] == [6, 5, 4]
    top_left = {  # value there, and change along rows and columns
        "axial": (axial[0], 340, -10, -100),  # right, front, feet
        "coronal": (coronal[0], 345, -1, -100),  # right, front, head
        "sagittal": (sagittal[0], 345, -1, -10),  # right, front, head
    }
    for cut, down, along in ((v[0] - v[1], v[2], v[3]) for v in top_left.values()):
        rows, columns = np.indices(cut.shape)
        np.testing.assert_array_equal(cut, down * rows + along * columns)
    assert axial[1][0, 0] == 341 and coronal[1][0, 0] == 335 and sagittal[1][0, 0] == 245


def test_an_oblique_volume_keeps_its_grid(tmp_path):
    angle = 0.3
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    found = slices(nifti(tmp_path / "a.nii", VOXELS, affine))
    np.testing.assert_array_equal(found[2], VOXELS[::-1, ::-1, 2].T)


def test_thick_slices_are_the_ones_that_were_measured(tmp_path):
    thick = nifti(tmp_path / "a.nii", VOXELS, zooms=(5.0, 1.0, 1.0))
    assert len(slices(thick)) == 4 and len(slices(thick, across=2)) == 6
    assert len(slices(nifti(tmp_path / "b.nii", VOXELS, zooms=(1.2, 1.0, 1.0)))) == 6


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, ">i2"])
def test_scaling(tmp_path, dtype):
    stored = (VOXELS % 100).astype(dtype)
    found = slices(nifti(tmp_path / "a.nii.gz", stored, slope=0.25, inter=-3.0))
    wanted = (stored[::-1, ::-1, 1].T * 0.25 - 3.0).astype(np.float32)
    np.testing.assert_allclose(found[1], wanted, rtol=1e-6)
    theirs = nibabel.load(tmp_path / "a.nii.gz").get_fdata()
    np.testing.assert_allclose(found[1], theirs[::-1, ::-1, 1].T, rtol=1e-6)


def test_bytes_stay_bytes_and_complex_stays_complex(tmp_path):
    stored = (VOXELS % 100).astype(np.uint8)
    assert slices(nifti(tmp_path / "a.nii", stored))[0].dtype == np.uint8
    assert slices(nifti(tmp_path / "b.nii", stored, slope=1.0))[0].dtype == np.uint8
    values = (RNG.normal(size=(4, 5, 6)) + 1j).astype(np.complex64)
    found = slices(nifti(tmp_path / "c.nii", values))
    np.testing.assert_array_equal(found[3], values[::-1, ::-1, 3].T)


def test_slices_do_not_lean_on_the_file(tmp_path):
    """A volume that needs no turning and no conversion is still copied from the mapped file."""
    for dtype in (np.uint8, np.float32):
        path = nifti(tmp_path / "a.nii", abs(VOXELS).astype(dtype), np.diag([-1, -1, 1, 1]))
        found = slices(path)
        np.testing.assert_array_equal(found[1], abs(VOXELS)[:, :, 1].astype(dtype).T)
        assert all(x.flags.writeable for x in found)
        assert all((x if x.base is None else x.base).flags.owndata for x in found)


def test_four_axes_and_two(tmp_path):
    series = RNG.integers(0, 99, (4, 5, 6, 3)).astype(np.int16)
    path = nifti(tmp_path / "a.nii.gz", series)
    found = slices(path)
    assert len(found) == 18
    np.testing.assert_array_equal(found[6 + 2], series[::-1, ::-1, 2, 1].T)
    np.testing.assert_array_equal(slices(path, volume=1)[2], found[8])
    with pytest.raises(UnreadableFile, match="volume=3, it holds 3"):
        slices(path, volume=3)
    assert len(slices(nifti(tmp_path / "b.nii", VOXELS[:, :, :1, None]))) == 1
    assert slices(nifti(tmp_path / "c.nii", VOXELS[:, :, 0]))[0].shape == (5, 4)
    with pytest.raises(UnreadableFile, match=r"\(4, 5, 6, 1, 3\)"):
        slices(nifti(tmp_path / "d.nii", np.zeros((4, 5, 6, 1, 3), np.float32)))


def test_nan_is_refused_or_replaced_and_infinity_refused(tmp_path):
    values = VOXELS.astype(np.float32)
    values[1, 2, 3] = np.nan
    path = nifti(tmp_path / "a.nii.gz", values)
    with pytest.raises(UnreadableFile, match=r"a.nii.gz: 1 of 20 voxels.*NaN.*nan=0.0"):
        slices(path)
    found = slices(path, nan=0.0)[3]
    assert found[2, 2] == 0 and np.isfinite(found).all()
    values[1, 2, 3] = np.inf
    with pytest.raises(UnreadableFile, match="infinite"):
        slices(nifti(tmp_path / "b.nii", values), nan=0.0)


def test_what_cannot_be_read_is_named(tmp_path):
    path = nifti(tmp_path / "a.nii", VOXELS)
    whole = path.read_bytes()
    for content, reason in (
        (b"", "no NIfTI file"),
        (b"x" * 400, "no NIfTI file"),
        (whole[:-10], "ends after 582 of 592 bytes"),
        (whole[:344] + b"ni1\0" + whole[348:], "half of a pair"),
        (whole[:40] + b"\3\0\xff\x7f\xff\x7f\xff\x7f" + whole[48:], "ends after 592 of 7"),
        (whole[:70] + b"\x80\0" + whole[72:], "colours"),
        (gzip.compress(whole)[:-20], "a.nii: cannot be read as NIfTI"),
    ):
        path.write_bytes(content)
        with pytest.raises(UnreadableFile, match=reason):
            slices(path)
    path.write_bytes(gzip.compress(whole[:40] + b"\3\0\xff\x0f\xff\x0f\xff\x0f" + whole[48:]))
    with pytest.raises(UnreadableFile, match="unpacks to"):
        slices(path)
    packed = bytearray(gzip.compress(whole, 0))  # stored without compression
    packed[400] ^= 1
    path.write_bytes(packed)
    with pytest.raises(UnreadableFile, match="CRC"):
        slices(path)
    with pytest.raises(FileNotFoundError, match="gone.nii"):
        slices(tmp_path / "gone.nii")
    with pytest.raises(ValueError, match="across=3"):
        slices(path, across=3)


def test_an_affine_without_inverse(tmp_path):
    path = nifti(tmp_path / "a.nii", VOXELS)
    content = bytearray(path.read_bytes())
    content[252:256] = b"\0\0\2\0"  # sform only,
    content[296:312] = bytes(16)  # and that without y
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match="inverse"):
        slices(path)
