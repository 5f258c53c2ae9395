"""Tensors of operators from files: one meaning in every format, and nothing cut without a word."""

import h5py
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from measurand.data.sources import UnreadableFile
from measurand.jobs.operands import operand

RNG = np.random.default_rng(0)
SHAPE = (1, 12, 16)
SEEN = RNG.random((12, 16)) > 0.4
FORMATS = ("a.npy", "a.npz", "a.npz:m", "a.h5", "a.h5:m", "a.tif", "a.png")


def stored(folder, name, array):
    """The array in a file of a format; the text that names it."""
    path = folder / name.split(":")[0]
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez(path, m=array)
    elif path.suffix == ".h5":
        with h5py.File(path, "w") as h5:
            h5["m"] = array
    elif path.suffix == ".tif":
        tifffile.imwrite(path, array)
    else:
        Image.fromarray(array).save(path)
    return str(folder / name)


def holds(name, dtype, white):
    """Whether a format and a type can hold the mask."""
    if name == "a.png" and dtype not in ("bool", "u1", "u2"):
        return False
    return white == 1 or (dtype != "bool" and white <= {"u1": 255, "f2": 60000}.get(dtype, white))


@pytest.mark.parametrize(
    ("name", "dtype", "white"),
    [
        (name, dtype, white)
        for name in FORMATS
        for dtype in ("bool", "u1", "u2", "i4", "i8", "f2", "f4", "f8")
        for white in (1, 255, 65535)
        if holds(name, dtype, white)
    ],
)
def test_one_mask_in_every_format(tmp_path, name, dtype, white):
    array = SEEN.astype(dtype) * np.array(white, dtype)
    mask, notes = operand(stored(tmp_path, name, array), "mask", SHAPE)
    assert mask.dtype == torch.float32 and mask.equal(torch.from_numpy(SEEN).float())
    if dtype != "bool":
        assert len(notes) == (white > 1)


def test_a_mask_may_have_one_value_only(tmp_path):
    for value in (1, 255):
        mask, _ = operand(stored(tmp_path, "a.png", np.full((4, 4), value, "u1")), "mask", SHAPE)
        assert mask.equal(torch.ones(4, 4))


@pytest.mark.parametrize("name", ["a.npy", "a.h5:m", "a.tif"])
def test_gains_keep_their_values(tmp_path, name):
    gains = (0.4 + 0.6 * RNG.random((12, 16))).astype(np.float32)
    mask, (note,) = operand(stored(tmp_path, name, gains), "mask", SHAPE)
    assert mask.equal(torch.from_numpy(gains)) and "gains from 0.4" in note
    flat = gains / gains.mean()  # a flat field about one
    assert operand(stored(tmp_path, name, flat), "mask", SHAPE)[0].equal(torch.from_numpy(flat))


@pytest.mark.parametrize("name", ["a.npy", "a.tif"])
def test_missing_values_of_a_mask_are_not_measured(tmp_path, name):
    values = np.where(SEEN, 1.0, np.nan).astype(np.float32)
    mask, (note,) = operand(stored(tmp_path, name, values), "mask", SHAPE)
    assert mask.equal(torch.from_numpy(SEEN).float()) and "NaN: not measured" in note
    tag = [(42113, "s", 0, "255", True)]
    tifffile.imwrite(tmp_path / "n.tif", np.where(SEEN, 1, 255).astype("u1"), extratags=tag)
    mask, _ = operand(str(tmp_path / "n.tif"), "mask", SHAPE)
    assert mask.equal(torch.from_numpy(SEEN).float())


def test_grey_masks_are_cut_at_half_of_white(tmp_path):
    block = np.kron(RNG.random((6, 8)) > 0.5, np.ones((5, 5))) > 0
    Image.fromarray((block * 255).astype("u1")).save(tmp_path / "a.jpg", quality=80)
    mask, (note,) = operand(str(tmp_path / "a.jpg"), "mask", SHAPE)
    assert mask.equal(torch.from_numpy(block).float())
    assert "cut at half of white, 127.5: selects" in note
    levels = np.array([[0, 100, 128, 255]])
    for dtype in ("u1", "i4", "f4"):
        mask, _ = operand(stored(tmp_path, "a.npy", levels.astype(dtype)), "mask", SHAPE)
        assert mask.tolist() == [[0, 0, 1, 1]]
    colors = np.repeat((block * 255).astype("u1")[..., None], 3, 2)
    mask, _ = operand(stored(tmp_path, "c.png", colors), "mask", SHAPE)
    assert mask.equal(torch.from_numpy(block).float())


def test_a_smooth_edge_is_cut_and_a_map_of_gains_is_not(tmp_path):
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    r = np.hypot(y, x)
    disk = np.clip((0.7 - r) * 32 + 0.5, 0, 1)  # smooth over one pixel
    for white, dtype in ((255, "u1"), (65535, "u2")):
        name = stored(tmp_path, "a.png", (white * disk).round().astype(dtype))
        mask, (note,) = operand(name, "mask", SHAPE)
        assert mask.equal(torch.from_numpy(disk > 0.5).float()) and "cut at half" in note
        for gains in (np.cos(0.8 * r) ** 4, np.cos(0.4 * r) ** 4, r / r.max()):
            grey = (white * gains).round().astype(dtype)
            grey[0, 0] = 1  # two values alone are a mask
            name = stored(tmp_path, "a.png", grey)
            words = (
                r"a\.png has .* neither near 0 nor near .* Gains .* \.npy or floating-point TIFF"
            )
            with pytest.raises(ValueError, match=words):
                operand(name, "mask", SHAPE)
            name = stored(tmp_path, "a.npy", (grey / white).astype(np.float32))
            torch.testing.assert_close(
                operand(name, "mask", SHAPE)[0], torch.from_numpy(grey / white).float()
            )


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 4), "u1"), "selects nothing: all of its values are zero"),
        (np.full((4, 4), np.nan), "selects nothing"),
        (np.array([[0, 1, 2]], "u1"), "selects nothing: 3 grey values from 0 to 2"),
        (np.array([[0, 1, 70000]]), "wanted a mask of 0 and 1"),
        (np.array([[0.0, -1.0]]), r"from -1 to 0.*not negative"),
        (np.array([[-1, 0, 1]]), r"from -1 to 1.*not negative"),
        (np.array([[0.0, np.inf]]), "finite"),
        (np.array([[0.0, 1j]]), "complex numbers"),
        (np.zeros((0, 4)), "empty array"),
    ],
)
def test_what_is_no_mask(tmp_path, array, words):
    with pytest.raises(ValueError, match=rf"mask: .*a\.npy.*{words}"):
        operand(stored(tmp_path, "a.npy", array), "mask", SHAPE)


def psf():
    t = np.arange(-3, 4)
    return np.exp(-(t[:, None] ** 2 + t**2) / 3)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (name, dtype)
        for name in FORMATS
        for dtype in ("u1", "u2", "i4", "f4", "f8")
        if holds(name, dtype, 1)
    ],
)
def test_one_kernel_in_every_format(tmp_path, name, dtype):
    counts = (psf() * 200).round().astype(dtype)
    kernel, (note,) = operand(stored(tmp_path, name, counts), "kernel", SHAPE)
    torch.testing.assert_close(kernel, torch.from_numpy(counts / counts.sum(dtype="f8")).float())
    assert f"divided by its sum, {counts.sum(dtype='f8'):.6g}" in note


def test_a_kernel_of_sum_one_is_taken_as_it_is(tmp_path):
    array = psf() / psf().sum() * 1.0004
    kernel, notes = operand(stored(tmp_path, "a.npy", array), "kernel", SHAPE)
    assert notes == [] and kernel.sum() == pytest.approx(1, abs=1e-6)


def test_negative_lobes_are_kept(tmp_path):
    array = 2 * psf() - 0.2
    assert array.min() < 0
    kernel, _ = operand(stored(tmp_path, "a.npy", array), "kernel", SHAPE)
    torch.testing.assert_close(kernel, torch.from_numpy(array / array.sum()).float())


@pytest.mark.parametrize(
    "array",
    [
        np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]),
        np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0.001]]),
        -psf(),
    ],
)
def test_filters_of_differences_are_no_kernels(tmp_path, array):
    with pytest.raises(ValueError, match=r"kernel: .*a\.npy has the sum .*filter of differences"):
        operand(stored(tmp_path, "a.npy", array), "kernel", SHAPE)


def test_planes_are_named_and_not_cut(tmp_path):
    planes = np.stack([psf() ** k for k in range(1, 8)]).astype(np.float32)
    for options in ({}, {"imagej": True, "truncate": True}):
        tifffile.imwrite(tmp_path / "psf.tif", planes, **options)
        for name in ("kernel", "mask", "maps", "angles", "others"):
            with pytest.raises(ValueError, match=r"has 7 pages.*psf\.tif:N, N from 0 to 6"):
                operand(str(tmp_path / "psf.tif"), name, SHAPE)
        for k in (0, 3, 6):
            kernel, _ = operand(f"{tmp_path}/psf.tif:{k}", "kernel", SHAPE)
            torch.testing.assert_close(kernel, torch.from_numpy(planes[k] / planes[k].sum()))
        with pytest.raises(UnreadableFile, match="no page '7'"):
            operand(f"{tmp_path}/psf.tif:7", "kernel", SHAPE)
    for array in (planes, planes[:, None]):
        with pytest.raises(ValueError, match=r"7 planes, wanted one kernel.*np\.save"):
            operand(stored(tmp_path, "a.npy", array), "kernel", SHAPE)
    for array in (planes[:1], planes[0][..., None]):
        kernel, _ = operand(stored(tmp_path, "a.npy", array), "kernel", SHAPE)
        assert kernel.shape == (7, 7)
    kernel, notes = operand(stored(tmp_path, "a.npy", planes), "kernel", (7, 12, 16))
    assert kernel.shape == (1, 7, 7, 7) and "one for each channel" in notes[0]
    torch.testing.assert_close(kernel.sum((-2, -1)), torch.ones(1, 7))


def test_colours_and_transparency_are_no_kernels_or_masks(tmp_path):
    colors = RNG.integers(0, 256, (7, 7, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match=r"mask: .*3 channels that differ, wanted a grey"):
        operand(stored(tmp_path, "c.png", colors), "mask", SHAPE)
    with pytest.raises(ValueError, match=r"kernel: .*3 planes, wanted one kernel .h, w.: save"):
        operand(stored(tmp_path, "c.png", colors), "kernel", SHAPE)
    grey = np.repeat(colors[..., :1], 3, 2)
    kernel, _ = operand(stored(tmp_path, "c.png", grey), "kernel", SHAPE)
    wanted = grey[..., 0] / grey[..., 0].sum(dtype=float)
    torch.testing.assert_close(kernel, torch.from_numpy(wanted).float())
    opacity = np.dstack([grey, colors[..., 1]])
    with pytest.raises(ValueError, match="transparent in places"):
        operand(stored(tmp_path, "c.png", opacity), "kernel", SHAPE)
    opacity[..., 3] = 255
    assert operand(stored(tmp_path, "c.png", opacity), "kernel", SHAPE)[0].equal(kernel)


def test_others_keep_their_values(tmp_path):
    maps = RNG.random((4, 12, 16)) + 1j
    assert operand(stored(tmp_path, "a.npy", maps), "maps", SHAPE)[0].shape == (4, 12, 16)
    grey = np.array([[0, 51, 255]], np.uint8)
    assert operand(stored(tmp_path, "a.png", grey), "weights", SHAPE)[0].tolist() == [[0, 51, 255]]
    angles, _ = operand(stored(tmp_path, "a.npy", np.arange(5)), "angles", SHAPE)
    assert angles.dtype == torch.int64  # degrees, as the tomograph will say
    with pytest.raises(ValueError, match="NaN or infinite"):
        operand(stored(tmp_path, "a.npy", np.array([1.0, np.nan])), "angles", SHAPE)
    with pytest.raises(FileNotFoundError, match=r"mask: .*absent\.npy: no such file"):
        operand(str(tmp_path / "absent.npy"), "mask", SHAPE)
