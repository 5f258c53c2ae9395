"""Stacks: the axes follow from the shape, numbers keep their values."""

import h5py
import numpy as np
import pytest

from measurand.data.collection import images
from measurand.data.sources import SkippedFiles, UnreadableFile
from measurand.data.stacks import slices

RNG = np.random.default_rng(0)


def put(folder, kind, array, key="images"):
    path = folder / f"a.{kind}"
    if kind == "npy":
        np.save(path, array)
    elif kind == "npz":
        np.savez_compressed(path, **{key: array, "subject": np.array(["a", "b"]), "mm": [1.0]})
    else:
        with h5py.File(path, "w") as h5:
            h5[f"group/{key}"] = array
            h5["labels"] = np.zeros(9)
    return path


@pytest.mark.parametrize("kind", ["npy", "npz", "h5"])
@pytest.mark.parametrize(
    ("shape", "count", "image"),
    [
        ((9, 7), 1, (9, 7)),
        ((6, 9, 7), 6, (9, 7)),
        ((9, 7, 3), 1, (9, 7, 3)),
        ((9, 7, 1), 1, (9, 7)),
        ((6, 9, 7, 3), 6, (9, 7, 3)),
        ((6, 9, 7, 1), 6, (9, 7)),
    ],
)
def test_axes_follow_from_the_shape(tmp_path, kind, shape, count, image):
    array = RNG.integers(0, 256, shape, dtype=np.uint8)
    found = slices(put(tmp_path, kind, array))
    assert len(found) == count and {x.shape for x in found} == {image}
    np.testing.assert_array_equal(np.array(found).reshape(shape), array)


def test_channels_first_and_named_axes(tmp_path):
    array = RNG.random((5, 3, 9, 7)).astype(np.float32)
    found = slices(put(tmp_path, "npy", array))
    np.testing.assert_array_equal(np.array(found), array.transpose(0, 2, 3, 1))
    thirteen = RNG.random((2, 13, 9, 7)).astype(np.float32)
    path = put(tmp_path, "npz", thirteen)
    with pytest.raises(UnreadableFile, match=r"a.npz:images.*\(2, 13, 9, 7\).*axes="):
        slices(path)
    np.testing.assert_array_equal(
        np.array(slices(path, axes="NCHW")), thirteen.transpose(0, 2, 3, 1)
    )
    np.testing.assert_array_equal(slices(put(tmp_path, "npy", array[0]), axes="WHN")[2].T,
                                  array[0][..., 2])  # fmt: skip
    with pytest.raises(ValueError, match="'NXY'"):
        slices(path, axes="NXY")
    with pytest.raises(UnreadableFile, match="as many axes as in NHW"):
        slices(path, axes="NHW")


@pytest.mark.parametrize(
    ("dtype", "wanted"),
    [
        ("u1", "u1"), ("f2", "f2"), (">f2", "f2"), ("f4", "f4"), (">f4", "f4"), ("f8", "f4"),
        ("i2", "f4"), ("u2", "f4"), (">u2", "f4"), ("i4", "f4"), ("?", "f4"), ("i1", "f4"),
        ("c8", "c8"), ("c16", "c8"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["npy", "npz", "h5"])
def test_numbers_keep_their_values(tmp_path, dtype, wanted, kind):
    array = RNG.integers(0, 100, (2, 5, 6)).astype(dtype)
    for image, u in zip(slices(put(tmp_path, kind, array)), array, strict=True):
        assert image.dtype == np.dtype(wanted) and image.dtype.isnative
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(image, u)


@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_a_key_is_needed_where_two_arrays_could_be_meant(tmp_path, kind):
    arrays = {"hu": np.zeros((3, 8, 8), np.int16), "full": np.ones((2, 9, 9), np.int16)}
    path = tmp_path / f"a.{kind}"
    if kind == "npz":
        np.savez(path, **arrays, size=np.zeros((3, 2)))
    else:
        with h5py.File(path, "w") as h5:
            for name, array in arrays.items():
                h5[name] = array
    with pytest.raises(UnreadableFile, match=r"which array.*hu \(3, 8, 8\)"):
        slices(path)
    assert len(slices(f"{path}:full")) == 2
    with pytest.raises(UnreadableFile, match="no array 'fall'"):
        slices(f"{path}:fall")


def test_an_empty_dataset_is_a_bad_file_and_stops_no_folder(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5["x"] = h5py.Empty("f4")
    np.save(tmp_path / "b.npy", np.zeros((4, 5), np.float32))
    with pytest.raises(UnreadableFile, match="a.h5:x is empty"):
        slices(tmp_path / "a.h5")
    with pytest.warns(SkippedFiles, match="skipped 1 of 2 files: .*a.h5"):
        assert len(images(tmp_path, skip_bad=True)) == 1


def test_damage_is_found(tmp_path):
    path = put(tmp_path, "npz", RNG.random((4, 9, 7)))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match="a.npz"):
        slices(path)
    array = RNG.random((4, 9, 7))
    array[2, 3, 4] = np.inf
    for kind in ("npy", "npz", "h5"):
        with pytest.raises(UnreadableFile, match="image 2: 1 of 63 samples are NaN or infinite"):
            slices(put(tmp_path, kind, array))
    with pytest.raises(UnreadableFile, match="none of them empty"):
        slices(put(tmp_path, "npy", np.zeros((0, 9, 7))))


def test_a_header_inside_an_archive_that_claims_too_much(tmp_path):
    import io
    import zipfile

    out = io.BytesIO()
    np.save(out, np.zeros((4, 4, 4)))
    raw = out.getvalue().replace(b"(4, 4, 4), ", b"(4, 90000, 90000), ", 1)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", raw)
    with pytest.raises(UnreadableFile, match="a.npz"):
        slices(tmp_path / "a.npz")
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5.create_dataset("x", (10_000, 10_000, 1000), np.uint8, chunks=(10, 10, 10))
    with pytest.raises(UnreadableFile, match="unpacks to 100000000000 bytes"):
        slices(tmp_path / "a.h5")
    zeros = np.zeros((1, 20_000, 20_000), np.uint8)  # 400 MB
    np.savez_compressed(tmp_path / "bomb.npz", zeros)
    with pytest.raises(UnreadableFile, match="unpacks to 400000"):
        slices(tmp_path / "bomb.npz")


def test_real_stacks(shared_data):
    found = slices(shared_data / "mri_brain_val.npz")
    assert len(found) == 33 and {(x.shape, x.dtype.name) for x in found} == {((256, 256), "uint8")}
    hu = slices(shared_data / "ct_val.npz")
    assert len(hu) == 8 and hu[0].dtype == np.float32 and -1024 <= hu[0].min() < -900
    with pytest.raises(UnreadableFile, match=r"hu \(35, 256, 256\), full512"):
        slices(shared_data / "ct_test.npz")
    assert len(slices(f"{shared_data}/ct_test.npz:hu")) == 35
    deep = slices(shared_data / "mri_brain_test.npz")
    assert len(deep) == 72 and 255 < deep[0].max() <= 65535
