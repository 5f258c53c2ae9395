"""fastMRI files: k-space as stored, images that agree with the stored ones."""

import h5py
import numpy as np
import pytest
import torch
from scans import HEADER, brain, fastmri

from measurand.data.collection import images
from measurand.data.fastmri import combined, header, is_fastmri, kspace, low_resolution_maps, rss
from measurand.data.sources import UnreadableFile, file_at
from measurand.operators.kspace import fft2c

IMAGES, COILS = brain()


def test_kspace_is_the_centred_orthonormal_transform_of_the_coil_images(tmp_path):
    path = fastmri(tmp_path / "a.h5", COILS)
    found = list(kspace(path))
    assert len(found) == 2 and found[0].shape == (4, 24, 20) and found[0].dtype == np.complex64
    for y, x in zip(found, COILS, strict=True):
        again = np.fft.fftshift(
            np.fft.ifft2(np.fft.ifftshift(y, (-2, -1)), norm="ortho"), (-2, -1)
        )
        np.testing.assert_allclose(again, x, atol=1e-5)


@pytest.mark.parametrize("with_header", [True, False])
@pytest.mark.parametrize("crop", [None, (12, 16), (13, 19)])
def test_root_sum_of_squares_is_what_files_store(tmp_path, crop, with_header):
    path = fastmri(tmp_path / "a.h5", COILS, crop=crop, header=with_header)
    assert header(path).image == (crop or (24, 20))
    with h5py.File(path) as h5:
        stored = h5["reconstruction_rss"][()]
    for image, target in zip(rss(path), stored, strict=True):
        assert image.dtype == np.float32
        np.testing.assert_allclose(image, target, atol=1e-5)


def test_the_crop_of_a_file_without_target_is_in_its_header(tmp_path):
    path = fastmri(tmp_path / "a.h5", COILS, crop=(12, 16))
    with h5py.File(path, "a") as h5:
        del h5["reconstruction_rss"]
    assert header(path).image == (12, 16) and rss(path)[0].shape == (12, 16)


def test_one_coil(tmp_path):
    path = fastmri(tmp_path / "a.h5", IMAGES[:, None], crop=(12, 20), single=True)
    assert header(path).shape == (2, 1, 24, 20)
    assert next(kspace(path)).shape == (1, 24, 20)
    np.testing.assert_allclose(np.array(combined(path)), IMAGES[:, 6:18], atol=1e-5)
    np.testing.assert_allclose(np.array(rss(path)), abs(IMAGES[:, 6:18]), atol=1e-5)


def test_combination_with_the_true_maps_is_the_image(tmp_path):
    ones = brain()[1] / np.where(IMAGES == 0, 1, IMAGES)[:, None]
    inside = (IMAGES[0] != 0)[None]
    path = fastmri(tmp_path / "a.h5", COILS)
    found = combined(path, maps=lambda y: (ones[0] * inside).astype(np.complex64))
    np.testing.assert_allclose(np.array(found), IMAGES, atol=1e-5)


def smooth_phantom(shape=(96, 80), coils=8):
    """A disc of noisy texture with a smooth phase, seen by smooth coils."""
    return brain(shape, coils, slices=1)


def test_maps_of_the_centre_combine_coils_without_losing_signal():
    """The magnitude is close to the root sum of squares, and the phase of x survives up to a
    smooth one: against the true coils the maps differ by one phase for all coils."""
    x, coil_images = smooth_phantom()
    y = fft2c(torch.from_numpy(coil_images[0])).numpy()
    maps = low_resolution_maps(y)
    inside = abs(x[0]) > 0
    np.testing.assert_allclose((abs(maps) ** 2).sum(0)[inside], 1, atol=1e-4)
    true = coil_images[0] / np.where(inside, x[0], 1)
    aligned = abs((maps.conj() * true).sum(0))[inside]
    assert aligned.mean() > 0.995 and np.percentile(aligned, 5) > 0.98
    found = (maps.conj() * coil_images[0]).sum(0)
    loss = np.linalg.norm(abs(found) - abs(x[0])) / np.linalg.norm(x[0])
    assert loss < 0.02
    # the common phase is smooth: it nowhere turns by much from one pixel to the next
    turn = np.where(inside, found / np.where(inside, x[0], 1), 0)
    both = inside[1:] & inside[:-1]
    step = np.angle(turn[1:] * turn[:-1].conj())[both]
    assert np.percentile(abs(step), 99) < 0.3


def test_columns_that_the_scanner_filled_up(tmp_path):
    """The example of a knee: 368 columns, centre 162, last 325."""
    path = fastmri(tmp_path / "a.h5", np.ones((1, 1, 4, 368), np.complex64))
    with h5py.File(path, "a") as h5:
        del h5["ismrmrd_header"]
        h5["ismrmrd_header"] = HEADER.format(h=4, w=368, x=4, y=320, last=325, center=162)
    head = header(path)
    assert head.columns == (22, 348)
    assert head.shape == (1, 1, 4, 368) and head.mask is None


@pytest.mark.parametrize("userblock", [0, 512])
def test_the_header_is_found_however_it_is_stored(tmp_path, userblock):
    text = HEADER.format(h=6, w=8, x=4, y=5, last=7, center=4)
    for value in (text, text.encode(), np.bytes_(text)):
        with h5py.File(tmp_path / "a.h5", "w", userblock_size=userblock) as h5:
            for k in range(40):  # others in the same heap
                h5[f"note {k}"] = "n" * k
            h5["ismrmrd_header"] = value
            h5["kspace"] = np.ones((1, 2, 6, 8), np.complex64)
        assert header(tmp_path / "a.h5").image == (4, 5)


def test_an_undersampled_file_has_k_space_and_no_image(tmp_path):
    mask = np.arange(20) % 4 == 0
    path = fastmri(tmp_path / "a.h5", COILS, mask=mask)
    np.testing.assert_array_equal(header(path).mask, mask)
    assert len(list(kspace(path))) == 2
    for function in (rss, combined):
        with pytest.raises(UnreadableFile, match=r"a.h5: 5 of 20 columns"):
            function(path)
    full = fastmri(tmp_path / "b.h5", COILS, mask=np.ones(20))
    assert header(full).mask is None and len(combined(full)) == 2


def stored(path, y, **others):
    """An HDF5 file of k-space and nothing else that fastMRI files have."""
    with h5py.File(path, "w") as h5:
        h5["kspace"] = y
        for name, value in others.items():
            h5[name] = value
    return path


def test_masked_k_space_without_a_mask_is_recognized(tmp_path):
    y = fft2c(torch.from_numpy(COILS)).numpy()
    mask = np.arange(20) % 4 == 0
    mask[9:12] = True
    path = stored(tmp_path / "a.h5", y * mask)
    for function in (rss, combined, images):
        with pytest.raises(UnreadableFile, match=r"a.h5: 9 of 17 columns are zero between"):
            function(path)
    np.testing.assert_array_equal(next(kspace(path)), y[0] * mask)
    with pytest.raises(UnreadableFile, match=r"a.h5: 8 of 20 columns"):
        combined(stored(path, y * mask, mask=mask))
    filled = y * (np.arange(20) > 3)  # which a scanner did
    assert len(combined(stored(path, filled))) == 2


def test_k_space_that_is_not_centred_is_recognized(tmp_path):
    plain = np.fft.fft2(COILS, norm="ortho").astype(np.complex64)
    path = stored(tmp_path / "a.h5", plain)
    for read in (combined, rss, images, lambda path: list(kspace(path))):
        with pytest.raises(UnreadableFile, match=r"index 0 of the rows.*fftshift\(kspace"):
            read(path)
    half = np.fft.fftshift(plain, axes=(-2, -1)).astype(np.complex64)
    with pytest.raises(UnreadableFile, match="its halves are exchanged.*ifftshift\\(image"):
        combined(stored(path, half))


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ((0, 2, 3, 1), r"that of the coils: np.moveaxis\(kspace, -1, -3\)"),
        ((0, 2, 1, 3), r"that of the coils: np.moveaxis\(kspace, -2, -3\)"),
        ((3, 2, 1, 0), r"in reverse, as MATLAB writes them: kspace.transpose\(\)"),
    ],
)
def test_axes_in_another_order_are_recognized(tmp_path, order, words):
    y = fft2c(torch.from_numpy(brain((32, 40), coils=8, slices=6)[1])).numpy()
    path = stored(tmp_path / "a.h5", y.transpose(order))
    for read in (combined, rss, images, lambda path: list(kspace(path))):
        with pytest.raises(UnreadableFile, match=f"a.h5: got kspace of shape .*{words}"):
            read(path)
    assert len(combined(stored(path, y))) == 6


def test_three_axes_need_a_word_on_the_coils(tmp_path):
    y = fft2c(torch.from_numpy(COILS[0])).numpy()
    path = stored(tmp_path / "a.h5", y)
    for read in (header, combined, images):
        with pytest.raises(UnreadableFile, match=r"4 slices of one coil or one slice of 4 coils"):
            read(path)
    text = HEADER.format(h=24, w=20, x=24, y=20, last=19, center=10)
    assert header(stored(path, y, ismrmrd_header=text)).shape == (4, 1, 24, 20)


def test_complex_numbers_of_matlab(tmp_path):
    y = fft2c(torch.from_numpy(COILS)).numpy()
    pairs = np.zeros(y.shape, [("real", "<f4"), ("imag", "<f4")])
    pairs["real"], pairs["imag"] = y.real, y.imag
    path = stored(tmp_path / "a.h5", pairs)
    np.testing.assert_array_equal(np.array(list(kspace(path))), y)
    np.testing.assert_allclose(rss(path), np.sqrt((abs(COILS) ** 2).sum(1)), atol=1e-5)


def test_what_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "a.h5"

    def put(**datasets):
        with h5py.File(path, "w") as h5:
            for name, value in datasets.items():
                h5[name] = value
        return path

    y = np.ones((1, 2, 4, 6), np.complex64)
    with pytest.raises(UnreadableFile, match="no dataset kspace"):
        header(put(x=y))
    with pytest.raises(UnreadableFile, match="float32, wanted complex"):
        header(put(kspace=y.real))
    with pytest.raises(UnreadableFile, match="mask has 5 columns"):
        header(put(kspace=y, mask=np.ones(5)))
    with pytest.raises(UnreadableFile, match="mask is object, wanted numbers"):
        header(put(kspace=y, mask="text"))
    with pytest.raises(UnreadableFile, match="no encoding/reconSpace"):
        header(put(kspace=y, ismrmrd_header="<a/>"))
    with pytest.raises(UnreadableFile, match="entities"):
        header(put(kspace=y, ismrmrd_header='<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>'))
    y[0, 1, 2, 3] = np.nan
    with pytest.raises(UnreadableFile, match="slice 0 of kspace: 1 of 48 samples are NaN"):
        rss(put(kspace=y))
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(UnreadableFile, match="a.h5"):
        list(kspace(path))


@pytest.mark.parametrize("kind", ["external", "through a group", "soft", "dangling", "virtual"])
@pytest.mark.parametrize(
    "name", ["kspace", "mask", "reconstruction_rss", "reconstruction_esc", "ismrmrd_header"]
)
def test_links_are_refused_and_other_files_are_never_read(tmp_path, name, kind):
    secret, path = tmp_path / "secret.h5", fastmri(tmp_path / "a.h5", COILS)
    fastmri(secret, COILS)
    with h5py.File(secret, "a") as h5:
        h5["mask"] = np.ones(20)
        h5["reconstruction_esc"] = h5["reconstruction_rss"][()]
        shape, dtype = h5[name].shape, h5[name].dtype
    with h5py.File(path, "a") as h5:
        if name in h5:
            del h5[name]
        if kind == "virtual":
            layout = h5py.VirtualLayout(shape, dtype)
            layout[...] = h5py.VirtualSource(str(secret), name, shape)
            h5.create_virtual_dataset(name, layout)
        else:
            h5["group"] = h5py.ExternalLink(str(secret), "/")
            h5["inside"] = np.ones(20)
            h5[name] = {
                "external": h5py.ExternalLink(str(secret), name),
                "through a group": h5py.SoftLink(f"/group/{name}"),
                "soft": h5py.SoftLink("/inside"),
                "dangling": h5py.ExternalLink(str(tmp_path / "none.h5"), name),
            }[kind]
    words = "other files|header" if kind == "virtual" else rf"a\.h5:{name} is a link"
    for read in (header, combined, rss, images, lambda path: list(kspace(path))):
        with pytest.raises(UnreadableFile, match=words):
            read(path)
    if name == "kspace" and kind != "virtual":
        with pytest.raises(UnreadableFile, match=words):
            is_fastmri(file_at(path))
