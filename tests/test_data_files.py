"""Picture files: what is read is what other readers see, what is written is of its kind."""

import io
import struct
import zlib

import h5py
import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from measurand.data.arrays import UnreadableFile
from measurand.data.collection import images
from measurand.data.files import read_array, read_image, read_samples
from measurand.data.form import Form
from measurand.data.png import decode_png16, encode_png16
from measurand.data.writing import write_image

RNG = np.random.default_rng(0)


def samples(*shape, dtype=np.uint8):
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def stored(path):
    """The samples of a written file, by a reader that is not ours."""
    if path.suffix in (".tif", ".tiff"):
        return tifffile.imread(path)
    return np.load(path) if path.suffix == ".npy" else np.asarray(Image.open(path))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("grey.png", samples(9, 7)),
        ("color.png", samples(9, 7, 3)),
        ("alpha.png", samples(9, 7, 4)),
        ("grey16.png", samples(9, 7, dtype=np.uint16)),
        ("color.tif", samples(9, 7, 3)),
        ("color16.tif", samples(9, 7, 3, dtype=np.uint16)),
        ("alpha16.tiff", samples(9, 7, 4, dtype=np.uint16)),
        ("float.tif", RNG.random((9, 7), np.float32)),
        ("grey.npy", RNG.random((9, 7))),
        ("hwc.npy", samples(9, 7, 3)),
        ("chw.npy", RNG.random((3, 9, 7), np.float32)),
        ("nchw.npy", (RNG.random((1, 3, 9, 7)) * 2 - 1).astype(np.float32)),
        ("bool.npy", RNG.random((9, 7)) > 0.5),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_picture_comes_back_sample_for_sample(tmp_path, name, array):
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, array)
    elif "tif" in name:
        tifffile.imwrite(path, array, photometric="rgb" if array.ndim == 3 else "minisblack")
    else:
        Image.fromarray(array).save(path)
    picture = read_image(path)
    assert picture.x.dtype == torch.float32 and picture.x.shape[2:] == (9, 7)
    assert -1 <= picture.x.min() and picture.x.max() <= 1
    write_image(tmp_path / f"again-{name}", picture.x, picture.form)
    again = stored(tmp_path / f"again-{name}")
    assert again.dtype == array.dtype and again.shape == array.shape
    np.testing.assert_allclose(again, array, atol=1e-6 if array.dtype.kind == "f" else 0)


def test_values_are_spread_over_minus_one_to_one(tmp_path):
    Image.fromarray(np.array([[0, 51, 255]], np.uint8)).save(tmp_path / "a.png")
    x = read_image(tmp_path / "a.png").x
    torch.testing.assert_close(x, torch.tensor([[[[-1.0, -0.6, 1.0]]]]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    from PIL import ImageOps

    image = Image.fromarray(samples(6, 4, 3))
    exif = Image.Exif()
    exif[274] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as theirs:
        upright = np.asarray(ImageOps.exif_transpose(theirs))
    ours = read_image(tmp_path / "turned.png")
    np.testing.assert_array_equal(
        ((ours.x[0].permute(1, 2, 0).numpy() + 1) * 127.5).round(), upright
    )
    assert bool(ours.notes) == (orientation != 1)
    tifffile.imwrite(
        tmp_path / "turned.tif",
        np.asarray(image),
        photometric="rgb",
        extratags=[(274, "H", 1, orientation, True)],
    )
    torch.testing.assert_close(read_image(tmp_path / "turned.tif").x, ours.x)


def test_palettes_and_cmyk_become_colours(tmp_path):
    image = Image.fromarray(samples(8, 8, 3)).quantize(16)
    image.save(tmp_path / "palette.png")
    picture = read_image(tmp_path / "palette.png")
    np.testing.assert_array_equal(
        ((picture.x[0].permute(1, 2, 0).numpy() + 1) * 127.5).round(),
        np.asarray(image.convert("RGB")),
    )
    Image.fromarray(samples(8, 8, 4), "CMYK").save(tmp_path / "cmyk.jpg")
    assert read_image(tmp_path / "cmyk.jpg").x.shape == (1, 3, 8, 8)


def test_jpeg_keeps_its_kind_and_nearly_its_values(tmp_path):
    smooth = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    picture = read_image(tmp_path / "a.jpg")
    write_image(tmp_path / "b.jpg", picture.x, picture.form)
    with Image.open(tmp_path / "b.jpg") as again:
        assert again.format == "JPEG" and again.mode == "L"
        assert np.abs(np.asarray(again).astype(int) - smooth).max() <= 4


def test_archives_keep_key_and_range(tmp_path):
    np.savez(tmp_path / "a.npz", y=RNG.random((5, 4)) * 100, range=np.array([0.0, 100.0]))
    picture = read_image(f"{tmp_path}/a.npz:y")
    write_image(tmp_path / "b.npz", picture.x, picture.form)
    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "b.npz") as b:
        np.testing.assert_allclose(a["y"], b["y"], atol=1e-4)
        np.testing.assert_array_equal(a["range"], b["range"])
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5.create_dataset("scan/image", data=RNG.random((5, 4)) * 7)
        h5["scan/image"].attrs["range"] = (0.0, 7.0)
        h5["scan/other"] = np.zeros(3)
    picture = read_image(f"{tmp_path}/a.h5:scan/image")
    write_image(tmp_path / "b.h5", picture.x, picture.form)
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        np.testing.assert_allclose(a["scan/image"], b["scan/image"], atol=1e-5)
    with pytest.raises(UnreadableFile, match="which array.*scan/image scan/other"):
        read_image(tmp_path / "a.h5")


def test_complex_arrays_keep_values_and_axes(tmp_path):
    kspace = (RNG.random((4, 6, 5)) + 1j * RNG.random((4, 6, 5))).astype(np.complex64)
    np.save(tmp_path / "k.npy", kspace)
    picture = read_image(tmp_path / "k.npy")
    assert picture.x.shape == (1, 4, 6, 5) and picture.x.dtype == torch.complex64
    write_image(tmp_path / "again.npy", picture.x, picture.form)
    np.testing.assert_array_equal(np.load(tmp_path / "again.npy"), kspace)


def test_complex_arrays_of_two_axes_are_one_channel(tmp_path):
    image = (RNG.random((6, 5)) + 1j * RNG.random((6, 5))).astype(np.complex64)
    np.save(tmp_path / "x.npy", image)
    picture = read_image(tmp_path / "x.npy")
    assert picture.x.shape == (1, 1, 6, 5)
    write_image(tmp_path / "again.npy", picture.x, picture.form)
    np.testing.assert_array_equal(np.load(tmp_path / "again.npy"), image)
    for shape in ((6,), (1, 1, 1, 6, 5)):
        np.save(tmp_path / "x.npy", np.zeros(shape, np.complex64))
        with pytest.raises(UnreadableFile, match=r"complex array of shape .*wanted \(H, W\)"):
            read_image(tmp_path / "x.npy")


def test_all_items_of_a_complex_batch_are_written(tmp_path):
    kspace = (RNG.random((3, 4, 6, 5)) + 1j).astype(np.complex64)
    with h5py.File(tmp_path / "volume.h5", "w") as h5:
        h5["kspace"] = kspace
    picture = read_image(tmp_path / "volume.h5")
    np.testing.assert_array_equal(picture.x.numpy(), kspace)
    estimate = picture.x[:, :1] * 2
    write_image(tmp_path / "estimate.h5", estimate, picture.form)
    with h5py.File(tmp_path / "estimate.h5") as h5:
        assert list(h5) == ["image"]  # an image under the name kspace is read as k-space
        np.testing.assert_array_equal(h5["image"], estimate)
    again = images(tmp_path / "estimate.h5").images
    np.testing.assert_array_equal(np.stack(again), estimate[:, 0])


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".h5"])
@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("leading", [False, True])
def test_the_last_channel_of_an_array_is_no_opacity(tmp_path, suffix, channels, leading):
    array = RNG.random((9, 7, channels)).astype(np.float32)
    array = array.transpose(2, 0, 1)[None] if leading else array
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, array)
    elif suffix == ".npz":
        np.savez(path, a=array)
    else:
        with h5py.File(path, "w") as h5:
            h5["a"] = array
    picture = read_image(path)
    assert picture.x.shape == (1, channels, 9, 7) and picture.form.alpha is None
    write_image(tmp_path / f"b{suffix}", picture.x, picture.form)
    key = "" if suffix == ".npy" else ":a"
    again = read_array(f"{tmp_path}/b{suffix}{key}")
    np.testing.assert_allclose(again, array, atol=1e-6)


def test_channels_first_are_written_so_that_they_are_read_again(tmp_path):
    x = torch.rand(1, 4, 9, 7) * 2 - 1
    write_image(tmp_path / "a.npy", x, Form(".npy", "float32", "CHW", -1.0, 1.0))
    torch.testing.assert_close(read_image(tmp_path / "a.npy", value_range=(-1, 1)).x, x)


def test_shapes_that_can_be_meant_in_two_ways_are_told(tmp_path):
    def told(shape):
        np.save(tmp_path / "a.npy", RNG.integers(0, 256, shape).astype(np.uint8))
        return read_image(tmp_path / "a.npy").notes

    assert told((9, 7)) == told((9, 7, 3)) == told((1, 9, 7)) == told((1, 3, 9, 7)) == ()
    for shape, words in {
        (3, 3, 3): "rows, columns, channels",
        (3, 9, 3): "rows, columns, channels",
        (3, 9, 7): "one image of 3 channels",
        (1, 3, 9, 2): "channels, rows, columns",
        (7, 9, 8): "7 grey images",
        (5, 1, 9, 8): "5 images of channels, rows, columns",
        (5, 9, 8, 4): "5 images of rows, columns, channels",
        (1, 9, 8, 4): "1 images of rows, columns, channels",
    }.items():
        (note,) = told(shape)
        assert words in note and str(shape) in note
    for shape, advice in {
        (4, 9, 8): r"4 grey images, save a\[:, None\]; .*one image of 4 channels, save a\[None\]",
        (5, 7, 9, 8): r"wanted \(H, W\)",
        (7,): r"wanted \(H, W\)",
    }.items():
        with pytest.raises(UnreadableFile, match=advice):
            told(shape)


def test_pictures_hold_grey_or_colours(tmp_path):
    for suffix in (".png", ".jpg"):
        with pytest.raises(ValueError, match="wanted real \\(1, C, H, W\\), C 1 or 3"):
            write_image(tmp_path / f"a{suffix}", torch.zeros(1, 4, 8, 8), Form(suffix))


@pytest.mark.parametrize("white", [65535, 4095])
def test_a_ppm_of_sixteen_bits_keeps_them(tmp_path, white):
    deep = samples(5, 7, 3, dtype=np.uint16) // (65536 // (white + 1))
    spread = np.rint(deep * (65535 / white))
    head = b" # deep\n7 5\n%d\n" % white
    (tmp_path / "a.ppm").write_bytes(b"P6" + head + deep.astype(">u2").tobytes())
    (tmp_path / "b.pgm").write_bytes(b"P5" + head + deep[..., 0].astype(">u2").tobytes())
    for name, true in (("a.ppm", spread), ("b.pgm", spread[..., 0])):
        found = read_samples(tmp_path / name).values
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, true)
        picture = read_image(tmp_path / name)
        assert any("is a PNG" in note for note in picture.notes)
        write_image(tmp_path / "c.png", picture.x, picture.form)
        np.testing.assert_array_equal(read_samples(tmp_path / "c.png").values, true)
    (tmp_path / "a.ppm").write_bytes(b"P6" + head + b"123")
    with pytest.raises(UnreadableFile, match="ends early"):
        read_image(tmp_path / "a.ppm")


@pytest.mark.parametrize("suffix", [".bmp", ".webp", ".pgm", ".ppm"])
def test_other_pictures_are_read_and_written_as_png(tmp_path, suffix):
    shape = (9, 7) if suffix == ".pgm" else (9, 7, 3)
    options = {"lossless": True} if suffix == ".webp" else {}
    array = samples(*shape)
    Image.fromarray(array).save(tmp_path / f"a{suffix}", **options)
    picture = read_image(tmp_path / f"a{suffix}")
    write_image(tmp_path / "b.png", picture.x, picture.form)
    np.testing.assert_array_equal(stored(tmp_path / "b.png"), array)


@pytest.mark.parametrize(("suffix", "depth"), [(".png", 8), (".png", 16), (".jpg", 8)])
def test_what_a_picture_says_of_itself_comes_back(tmp_path, suffix, depth):
    """EXIF without the orientation, which was applied, resolution and colour profile."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[274], exif[271] = 6, "a maker"
    exif.get_ifd(34665).update({33434: 0.01, 40962: 30, 40963: 20})
    said = {"exif": exif.tobytes(), "dpi": (300, 200), "icc_profile": profile}
    name = tmp_path / f"a{suffix}"
    if depth == 8:
        Image.fromarray(samples(20, 30, 3)).save(name, **said)
    else:
        pixels = samples(20, 30, 3, dtype=np.uint16)
        name.write_bytes(encode_png16(pixels, profile=profile, exif=said["exif"], dpi=(300, 200)))
    picture = read_image(name)
    assert picture.x.shape == (1, 3, 30, 20)
    larger = picture.x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    for k, x in ((1, picture.x), (2, larger)):
        write_image(tmp_path / f"b{suffix}", x, picture.form)
        with Image.open(tmp_path / f"b{suffix}") as image:
            assert image.size == (20 * k, 30 * k) and image.info["icc_profile"] == profile
            assert image.info["dpi"] == pytest.approx((200 * k, 300 * k), abs=0.02)
            back = image.getexif()
            assert 274 not in back and back[271] == "a maker"
            camera = back.get_ifd(34665)
            assert float(camera[33434]) == pytest.approx(0.01)
            assert (camera[40962], camera[40963]) == (20 * k, 30 * k)
        again = read_image(tmp_path / f"b{suffix}")
        assert again.x.shape == x.shape and "upright" not in " ".join(again.notes)


def test_alpha_follows_an_image_that_has_grown(tmp_path):
    array = samples(4, 4, 4)
    array[..., 3] = 200
    Image.fromarray(array).save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png")
    write_image(tmp_path / "b.png", torch.zeros(1, 3, 8, 8), picture.form)
    with Image.open(tmp_path / "b.png") as image:
        assert image.size == (8, 8) and (np.asarray(image)[..., 3] == 200).all()


def filtered_png(pixels, kinds):
    """A 16-bit PNG whose rows use the given filters, written straight from the specification."""
    height, _, channels = pixels.shape
    data = (
        np.ascontiguousarray(pixels.astype(">u2")).view(np.uint8).reshape(height, -1).astype(int)
    )
    step, rows = 2 * channels, b""
    for i, kind in enumerate(kinds):
        row = []
        for j in range(data.shape[1]):
            a = data[i, j - step] if j >= step else 0
            b = data[i - 1, j] if i else 0
            c = data[i - 1, j - step] if i and j >= step else 0
            distance = [abs(b - c), abs(a - c), abs(a + b - 2 * c)]
            paeth = (a, b, c)[distance.index(min(distance))]
            row.append((data[i, j] - (0, a, b, (a + b) // 2, paeth)[kind]) % 256)
        rows += bytes([kind, *row])

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    color = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    head = struct.pack(">IIBBBBB", pixels.shape[1], height, 16, color, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 7), st.integers(1, 4), st.data())
def test_sixteen_bit_png_undoes_every_filter(height, width, channels, data):
    kinds = data.draw(st.lists(st.integers(0, 4), min_size=height, max_size=height))
    pixels = samples(height, width, channels, dtype=np.uint16)
    np.testing.assert_array_equal(decode_png16(filtered_png(pixels, kinds)), pixels)
    np.testing.assert_array_equal(decode_png16(encode_png16(pixels)), pixels)


def test_sixteen_bit_color_png_is_seen_by_other_readers(tmp_path):
    pixels = samples(5, 7, 3, dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(encode_png16(pixels))
    picture = read_image(tmp_path / "a.png")
    assert picture.form.dtype == np.dtype(np.uint16).str
    write_image(tmp_path / "b.png", picture.x, picture.form)
    np.testing.assert_array_equal(decode_png16((tmp_path / "b.png").read_bytes()), pixels)
    with Image.open(tmp_path / "b.png") as theirs:  # pillow keeps the upper byte
        difference = np.asarray(theirs).astype(int) - (pixels >> 8)
    assert np.abs(difference).max() <= 1


def test_floating_point_ranges_are_recognised_said_or_asked_for(tmp_path):
    def put(array):
        np.save(tmp_path / "a.npy", array)
        return tmp_path / "a.npy"

    unit = read_image(put(RNG.random((5, 5))))
    assert "taken as an image in [0, 1]" in unit.notes[0] and unit.form.high == 1.0
    signed = read_image(put(RNG.random((5, 5)) * 2 - 1))
    assert "[-1, 1]" in signed.notes[0]
    with pytest.raises(UnreadableFile, match=r"--value-range"):
        read_image(put(RNG.random((5, 5)) * 4000))
    x = read_image(put(np.array([[0.0, 4000.0]])), value_range=(0.0, 4000.0)).x
    torch.testing.assert_close(x.flatten(), torch.tensor([-1.0, 1.0]))
    with pytest.raises(ValueError, match="LOW below HIGH"):
        read_image(put(np.zeros((4, 4))), value_range=(1.0, 1.0))


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.png"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(UnreadableFile, match="not a file"):
        (tmp_path / "folder.png").mkdir()
        read_image(tmp_path / "folder.png")
    with pytest.raises(FileNotFoundError, match="nothing: no such file"):
        read_image(tmp_path / "nothing")
    (tmp_path / "letter.doc").write_bytes(b"Dear")
    with pytest.raises(UnreadableFile, match=r"ending in '\.doc'.*\.png"):
        read_image(tmp_path / "letter.doc")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(UnreadableFile, match="empty.png"):
        read_image(tmp_path / "empty.png")
    np.save(tmp_path / "nan.npy", np.array([[0.5, np.nan]]))
    with pytest.raises(UnreadableFile, match="1 of 2 samples are NaN"):
        read_image(tmp_path / "nan.npy")
    np.save(tmp_path / "five.npy", np.zeros((2, 2, 2, 2, 5)))
    with pytest.raises(UnreadableFile, match="shape"):
        read_image(tmp_path / "five.npy")
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    with pytest.raises(UnreadableFile, match="wanted numbers"):
        read_array(tmp_path / "words.npy")


def test_nothing_is_unpickled_and_no_link_is_followed(tmp_path):
    canary = tmp_path / "canary"

    class Payload:
        def __reduce__(self):
            return (canary.write_text, ("ran",))

    np.save(tmp_path / "a.npy", np.array([Payload()], object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", x=np.array([1.0]))
    with pytest.raises(UnreadableFile):
        read_array(tmp_path / "a.npy")
    assert not canary.exists()
    with h5py.File(tmp_path / "secret.h5", "w") as h5:
        h5["x"] = np.zeros((4, 4))
    with h5py.File(tmp_path / "link.h5", "w") as h5:
        h5["x"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "x")
    with pytest.raises(UnreadableFile, match="no array 'x'|which array"):
        read_array(f"{tmp_path}/link.h5:x")
    with h5py.File(tmp_path / "path.h5", "w") as h5:
        h5["own/x"] = np.zeros((4, 4))
        h5["group"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/")
        h5["own/link"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "x")
        h5["own/soft"] = h5py.SoftLink("/group/x")
    for key in ("group/x", "own/link", "own/soft", "own/../group/x", "/group/x", "./own/link"):
        with pytest.raises(UnreadableFile, match=rf"no array '{key}'.*one of: own/x\)"):
            read_array(f"{tmp_path}/path.h5:{key}")
    assert read_array(f"{tmp_path}/path.h5:own/x").shape[-2:] == (4, 4)
    layout = h5py.VirtualLayout((4, 4), float)
    layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "x", (4, 4))
    with h5py.File(tmp_path / "virtual.h5", "w") as h5:
        h5.create_virtual_dataset("x", layout)
    with pytest.raises(UnreadableFile, match="other files"):
        read_array(tmp_path / "virtual.h5")


def test_a_header_that_claims_too_much_is_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    raw = (tmp_path / "a.npy").read_bytes().replace(b"(4, 4), ", b"(4, 1000000000000), ", 1)
    (tmp_path / "a.npy").write_bytes(raw)
    with pytest.raises(UnreadableFile):
        read_array(tmp_path / "a.npy")


def test_writing_refuses_what_is_not_an_image(tmp_path):
    form = read_image(_png(tmp_path)).form
    with pytest.raises(ValueError, match="NaN"):
        write_image(tmp_path / "b.png", torch.full((1, 3, 4, 4), torch.nan), form)
    with pytest.raises(ValueError, match="wanted real"):
        write_image(tmp_path / "b.png", torch.zeros(2, 3, 4, 4), form)
    with pytest.raises(ValueError, match=r"wanted an ending \.png"):
        write_image(tmp_path / "b.jpg", torch.zeros(1, 3, 4, 4), form)
    assert {path.name for path in tmp_path.iterdir()} == {"a.png"}


def _png(folder):
    Image.fromarray(samples(4, 4, 3)).save(folder / "a.png")
    return folder / "a.png"


def originals():
    """One small file of every kind, as (ending, bytes)."""
    for suffix, options in ((".png", {}), (".jpg", {}), (".tif", {})):
        out = io.BytesIO()
        Image.fromarray(samples(16, 16, 3)).save(
            out, {".png": "PNG", ".jpg": "JPEG", ".tif": "TIFF"}[suffix], **options
        )
        yield suffix, out.getvalue()
    yield ".png", encode_png16(samples(16, 16, 3, dtype=np.uint16))
    for suffix in (".npy", ".npz"):
        out = io.BytesIO()
        (np.save if suffix == ".npy" else np.savez_compressed)(out, RNG.random((16, 16)))
        yield suffix, out.getvalue()
    out = io.BytesIO()
    with h5py.File(out, "w") as h5:
        h5["x"] = RNG.random((16, 16))
    yield ".h5", out.getvalue()


def mutated(tmp_path, count):
    """Every file damaged `count` times: it is read, or refused with our error; nothing else."""
    rng, refused = np.random.default_rng(1), 0
    for suffix, content in originals():
        for trial in range(count):
            broken = bytearray(content)
            if trial % 4 == 0:
                del broken[rng.integers(0, len(broken)) :]
            else:
                for at in rng.integers(0, len(broken), rng.integers(1, 8)):
                    broken[at] ^= 1 << rng.integers(0, 8)
            path = tmp_path / f"m{suffix}"
            path.write_bytes(bytes(broken))
            try:
                assert torch.isfinite(torch.view_as_real(read_image(path).x + 0j)).all()
            except UnreadableFile:
                refused += 1
    return refused


def test_damaged_files_are_read_or_refused(tmp_path):
    assert mutated(tmp_path, 25) > 25


@pytest.mark.slow
def test_damaged_files_are_read_or_refused_in_thousands(tmp_path, injected):
    injected("9: damaged picture and array files", 1000)
    assert mutated(tmp_path, 1000) > 1000
