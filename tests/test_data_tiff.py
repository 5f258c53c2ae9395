"""TIFF files: every bit of what they store, in its place, or an error that says what it is."""

import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from measurand.data.collection import images
from measurand.data.files import read_image, read_samples, read_stored
from measurand.data.sources import File, UnreadableFile
from measurand.data.tiff import pages as pages_of
from measurand.data.writing import write_image

RNG = np.random.default_rng(0)
UNSPECIFIED, ASSOCIATED, UNASSOCIATED = 0, 1, 2


def samples(*shape, dtype=np.uint8):
    return RNG.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)


def written(path, array, **options):
    tifffile.imwrite(path, array, **options)
    return path


def read(path, key=None):
    return read_samples(File(str(path), path, key=key))


def units(picture):
    """The image of a picture in [0, 1], with shape (H, W, C)."""
    return (picture.x[0].permute(1, 2, 0).double().numpy() + 1) / 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("compression", [None, "zlib", "lzma"])
def test_layouts_hold_the_same_pixels(tmp_path, dtype, planar, tile, compression):
    pixels = samples(40, 24, 3, dtype=dtype)
    stored = pixels if planar == "contig" else pixels.transpose(2, 0, 1)
    path = written(
        tmp_path / "a.tif",
        stored,
        photometric="rgb",
        planarconfig=planar,
        tile=tile,
        compression=compression,
        predictor=compression == "zlib",
    )
    np.testing.assert_array_equal(read(path).values, pixels)
    picture = read_image(path)
    np.testing.assert_allclose(units(picture), pixels / np.iinfo(dtype).max, atol=1e-6)
    write_image(tmp_path / "b.tif", picture.x, picture.form)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), pixels)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u2", "i2", "f2", "f4", "f8"])
def test_types_and_byte_orders(tmp_path, byteorder, dtype):
    array = (RNG.random((9, 7)) * 100).astype(dtype)
    path = written(tmp_path / "a.tif", array, byteorder=byteorder)
    np.testing.assert_array_equal(read(path).values, array)


def pillow(path, image, compression, **options):
    image.save(path, compression=compression, **options)
    return path


@pytest.mark.parametrize(
    ("mode", "pixels"),
    [
        ("L", samples(17, 13)),
        ("RGB", samples(17, 13, 3)),
        ("RGBA", samples(17, 13, 4)),
        ("I;16", samples(17, 13, dtype=np.uint16)),
        ("F", RNG.random((17, 13)).astype(np.float32)),
        ("1", RNG.random((17, 13)) > 0.5),
    ],
)
@pytest.mark.parametrize("compression", ["tiff_lzw", "zstd", "packbits"])
def test_compressions_lose_nothing(tmp_path, mode, pixels, compression):
    image = Image.fromarray(pixels)
    assert image.mode == mode
    path = pillow(tmp_path / "a.tif", image, compression)
    found = read(path)
    colors = pixels[..., :3] if mode == "RGBA" else pixels
    np.testing.assert_array_equal(found.values, colors)
    if mode == "RGBA":
        np.testing.assert_array_equal(found.alpha, pixels[..., 3])


@pytest.mark.parametrize("compression", ["group3", "group4"])
def test_fax(tmp_path, compression):
    pixels = RNG.random((16, 24)) > 0.5
    path = pillow(tmp_path / "a.tif", Image.fromarray(pixels), compression)
    np.testing.assert_array_equal(read(path).values, pixels)
    path = pillow(tmp_path / "b.tif", Image.fromarray(pixels), compression, tiffinfo={262: 0})
    with tifffile.TiffFile(path) as tiff:
        assert tiff.pages[0].photometric == 0
    np.testing.assert_array_equal(read(path).values, pixels)


def test_jpeg_pages_are_nearly_exact(tmp_path):
    ramp = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    pixels = np.stack([ramp, ramp.T, ramp[::-1]], 2)
    for image in (Image.fromarray(ramp), Image.fromarray(pixels)):
        path = pillow(tmp_path / "a.tif", image, "jpeg", quality=95)
        error = read(path).values.astype(int) - np.asarray(image)
        assert np.abs(error).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once_whoever_decodes(tmp_path, orientation):
    pixels = samples(6, 4, 3)
    exif = Image.Exif()
    exif[274] = orientation
    plain = pillow(tmp_path / "a.tif", Image.fromarray(pixels), None, exif=exif)
    packed = pillow(tmp_path / "b.tif", Image.fromarray(pixels), "tiff_lzw", exif=exif)
    np.testing.assert_array_equal(read(packed).values, read(plain).values)
    assert read(plain).values.shape == ((4, 6, 3) if orientation > 4 else (6, 4, 3))


def test_what_pillow_would_cut_to_eight_bits_is_refused(tmp_path):
    lzw = 5
    path = written(tmp_path / "a.tif", samples(8, 8, 3, dtype=np.uint16), photometric="rgb")
    relabelled(path, 259, lzw)
    with pytest.raises(UnreadableFile, match=r"a\.tif.*3 x 16 bits.*LZW.*pip install imagecodecs"):
        read_image(path)
    path = written(tmp_path / "i.tif", samples(8, 8, dtype=np.uint8).view(np.int8))
    relabelled(path, 259, lzw)
    with pytest.raises(UnreadableFile, match="imagecodecs"):
        read_image(path)


def relabelled(path, tag, value):
    """Changes the value of a short tag in place."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags[tag].overwrite(value)


def test_a_page_of_several_is_the_same_one_whoever_decodes(tmp_path):
    pages = [Image.fromarray(samples(5, 6)) for _ in range(4)]
    for compression in ("tiff_lzw", None):
        path = tmp_path / "a.tif"
        pages[0].save(path, save_all=True, append_images=pages[1:], compression=compression)
        assert len(pages_of(File("a.tif", path))) == 4 and read(path).pages == 4
        for k, page in enumerate(pages):
            np.testing.assert_array_equal(read(path, str(k)).values, np.asarray(page))
            picture = read_image(f"{path}:{k}")
            np.testing.assert_allclose(units(picture)[..., 0] * 255, np.asarray(page), atol=1e-4)
            assert picture.notes == ()
        assert read_image(path).x.shape[0] == 4
        for key in ("4", "-1", "x"):
            with pytest.raises(UnreadableFile, match=r"no page.*a\.tif:N, N from 0 to 3"):
                read(path, key)


def test_opacity_is_what_extra_samples_says(tmp_path):
    pixels = samples(9, 7, 4)
    for kind, opaque in ((UNASSOCIATED, True), (ASSOCIATED, True), (UNSPECIFIED, False)):
        path = written(tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=[kind])
        picture = read_image(path)
        assert picture.x.shape[1] == (3 if opaque else 4)
        assert (picture.form.alpha is not None) == opaque
        assert picture.form.further == (not opaque)
        write_image(tmp_path / "b.tif", picture.x, picture.form)
        np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), pixels)
        with tifffile.TiffFile(tmp_path / "b.tif") as tiff:
            assert tiff.pages[0].extrasamples == (kind,) and tiff.pages[0].photometric == 2


@pytest.mark.parametrize("channels", [2, 3, 4, 13])
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_channels_that_are_no_colours_come_back(tmp_path, channels, planar):
    pixels = samples(20, 18, channels, dtype=np.uint16)
    stored = pixels if planar == "contig" else pixels.transpose(2, 0, 1)
    path = written(tmp_path / "a.tif", stored, photometric="minisblack", planarconfig=planar)
    picture = read_image(path)
    assert picture.x.shape == (1, channels, 20, 18) and picture.form.alpha is None
    write_image(tmp_path / "b.tif", picture.x, picture.form)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), pixels)


def test_palettes(tmp_path):
    image = Image.fromarray(samples(8, 9, 3)).quantize(16)
    for compression in (None, "tiff_lzw"):
        path = pillow(tmp_path / "a.tif", image, compression)
        found = read(path)
        np.testing.assert_array_equal(found.values, np.asarray(image.convert("RGB")))
        assert "palette read as colours" in found.notes


def test_inks(tmp_path):
    inks = samples(8, 9, 4)
    wanted = np.asarray(Image.fromarray(inks, "CMYK").convert("RGB")).astype(int)
    for compression in (None, "tiff_lzw"):
        path = pillow(tmp_path / "a.tif", Image.fromarray(inks, "CMYK"), compression)
        assert np.abs(read(path).values - wanted).max() <= 1
    deep = inks.astype(np.uint16) * 257
    path = written(tmp_path / "b.tif", deep, photometric="separated", planarconfig="contig")
    assert np.abs(read(path).values / 257 - wanted).max() <= 1


def test_luma_and_chroma(tmp_path):
    pixels = samples(8, 9, 3)
    for compression in (None, "tiff_lzw"):
        path = pillow(tmp_path / "a.tif", Image.fromarray(pixels).convert("YCbCr"), compression)
        with tifffile.TiffFile(path) as tiff:
            assert tiff.pages[0].photometric == 6
        assert np.abs(read(path).values.astype(int) - pixels).max() <= 3


def test_white_may_be_zero(tmp_path):
    for dtype in (np.uint8, np.uint16):
        pixels = samples(9, 7, dtype=dtype)
        path = written(tmp_path / "a.tif", pixels, photometric="miniswhite")
        np.testing.assert_array_equal(read(path).values, np.iinfo(dtype).max - pixels)
    for array in (RNG.random((9, 7), np.float32), np.arange(-9, 9, dtype=np.int16)[None]):
        path = written(tmp_path / "a.tif", array, photometric="miniswhite")
        with pytest.raises(UnreadableFile, match="zero is white, wanted unsigned"):
            read_image(path)
    bits = RNG.random((9, 7)) > 0.5  # tifffile calls True black, and means no colour
    path = written(tmp_path / "a.tif", bits)
    np.testing.assert_array_equal(read(path).values, bits)
    path = written(tmp_path / "a.tif", bits, photometric="miniswhite", software="a scanner")
    np.testing.assert_array_equal(read(path).values, ~bits)


def test_reduced_images_and_masks_are_no_images(tmp_path):
    pixels = samples(16, 16)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(pixels[::2, ::2], subfiletype=1)
        tiff.write(pixels, subfiletype=0)
        tiff.write(pixels > 9, subfiletype=4)
        tiff.write(pixels[::2, ::2] > 9, subfiletype=5)
    found = read(tmp_path / "a.tif")
    np.testing.assert_array_equal(found.values, pixels)
    assert found.pages == 1 and found.notes == ("a mask page of the file is not used",)
    with tifffile.TiffWriter(tmp_path / "c.tif") as tiff:
        tiff.write(pixels)
        tiff.write(pixels[::2, ::2], extratags=[(255, "H", 1, 2, True)])
    assert read(tmp_path / "c.tif").pages == 1
    tifffile.imwrite(tmp_path / "b.tif", pixels, subfiletype=1)
    with pytest.raises(UnreadableFile, match="holds no image, only reduced ones"):
        read_image(tmp_path / "b.tif")


@pytest.mark.parametrize("imagej", [True, False])
@pytest.mark.parametrize("shape", [(20, 12, 16), (3, 12, 16, 3)])
def test_stacks_with_one_directory(tmp_path, imagej, shape):
    dtype = np.uint16 if len(shape) == 3 else np.uint8
    stack = samples(*shape, dtype=dtype)
    path = written(tmp_path / "a.tif", stack, imagej=imagej, truncate=True)
    with tifffile.TiffFile(path) as tiff:
        assert len(tiff.pages) == 1
    found = [read(path, str(k)).values for k in range(len(stack))]
    np.testing.assert_array_equal(found, stack)
    assert len(read_image(path).x) == len(stack)
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    with pytest.raises(UnreadableFile):
        read_image(f"{path}:{len(stack) - 1}")


def test_volumes_in_one_page_are_refused(tmp_path):
    path = written(tmp_path / "a.tif", samples(16, 32, 32), volumetric=True, tile=(16, 16, 16))
    with pytest.raises(UnreadableFile, match="volume of 16 slices"):
        read_image(path)


@pytest.mark.parametrize(
    ("value", "dtype", "nodata"),
    [
        (-9999, np.float32, "-9999"),
        (-9999, np.int16, "-9999"),
        (np.finfo(np.float32).min, np.float32, "-3.40282346638529e+38"),
        (65535, np.uint16, "65535 "),
        (0, np.uint8, "0"),
    ],
)
@pytest.mark.parametrize("colors", [1, 3])
def test_nodata_is_missing(tmp_path, value, dtype, nodata, colors):
    array = np.full((8, 9, colors) if colors > 1 else (8, 9), 120, dtype)
    array[:2] = value
    array[3, 3:] = 7
    if colors > 1:
        array[5, 5, 0] = value  # one channel alone is no hole
    tag = [(42113, "s", 0, nodata, True)]
    options = {"photometric": "rgb" if colors > 1 else "minisblack", "extratags": tag}
    path = written(tmp_path / "a.tif", array, **options)
    with pytest.raises(UnreadableFile, match=r"a\.tif: 18 of 72 pixels are missing.*nodata"):
        read_image(path, value_range=(0, 200))
    assert read(path).missing.sum() == 18
    x = read_stored(path).x  # what a mask leaves out may be missing
    assert x[..., :2, :].isnan().all() and x[..., 2:, :].isfinite().all()
    array[:2] = 5
    path = written(tmp_path / "a.tif", array, **options)
    assert read(path).missing is None


@pytest.mark.parametrize("photometric", ["cielab", "cfa", "linear_raw"])
def test_other_colours_are_refused(tmp_path, photometric):
    shape = (8, 8) if photometric == "cfa" else (8, 8, 3)
    path = written(tmp_path / "a.tif", samples(*shape), photometric=photometric)
    with pytest.raises(UnreadableFile, match=f"a.tif: got colours of kind {photometric.upper()}"):
        read_image(path)


@pytest.mark.parametrize("bits", [1, 2, 4, 12])
def test_packed_bits_are_spread_over_the_range(tmp_path, bits):
    values = RNG.integers(0, 2**bits, (4, 8))
    path = packed(tmp_path / "a.tif", values, bits)
    found = read(path)
    white = {1: 1, 2: 255, 4: 255, 12: 65535}[bits]
    np.testing.assert_array_equal(found.values, (values * white / (2**bits - 1)).round())
    assert bool(found.notes) == (bits > 1)


def packed(path, values, bits):
    """A grey TIFF of a few bits per sample, written straight from the specification."""
    word = "".join(f"{value:0{bits}b}" for value in values.ravel())
    data = int(word, 2).to_bytes(len(word) // 8, "big")
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 0, 277: 1, 278: height}
    tags[279], tags[273] = len(data), 8 + 2 + 12 * 9 + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    path.write_bytes(struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + data)
    return path


def lzw(data):
    """Bytes as LZW codes of nine bits, cleared before they grow."""
    codes = [c for i in range(0, len(data), 200) for c in (256, *data[i : i + 200])] + [257]
    bits = "".join(f"{code:09b}" for code in codes)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def planar(path, pixels, photometric, extra=()):
    """A TIFF with an LZW strip for each channel, written straight from the specification."""
    strips = [lzw(np.ascontiguousarray(pixels[..., k]).tobytes()) for k in range(pixels.shape[2])]
    (height, width, channels), depth = pixels.shape, 8 * pixels.dtype.itemsize
    tags = {256: [width], 257: [height], 258: [depth] * channels, 259: [5], 262: [photometric]}
    tags |= {273: [0] * channels, 277: [channels], 278: [height], 284: [2]}
    tags |= {279: [len(strip) for strip in strips]} | ({338: list(extra)} if extra else {})
    start = 8 + 2 + 12 * len(tags) + 4
    ends = start + 4 * sum(len(v) for v in tags.values() if len(v) > 1)
    tags[273] = [ends + sum(map(len, strips[:k])) for k in range(channels)]
    entries = values = b""
    for tag in sorted(tags):
        numbers = struct.pack(f"<{len(tags[tag])}I", *tags[tag])
        place = numbers if len(numbers) == 4 else struct.pack("<I", start + len(values))
        entries += struct.pack("<HHI", tag, 4, len(tags[tag])) + place
        values += numbers if len(numbers) > 4 else b""
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    path.write_bytes(head + entries + bytes(4) + values + b"".join(strips))
    return path


def test_planes_that_pillow_unpacks(tmp_path):
    pixels = samples(13, 17, 4)
    found = read(planar(tmp_path / "a.tif", pixels[..., :3], 2))
    np.testing.assert_array_equal(found.values, pixels[..., :3])
    found = read(planar(tmp_path / "b.tif", pixels, 2, [UNASSOCIATED]))
    np.testing.assert_array_equal(found.values, pixels[..., :3])
    np.testing.assert_array_equal(found.alpha, pixels[..., 3])
    uncompressed = written(
        tmp_path / "c.tif", pixels, photometric="separated", planarconfig="contig"
    )
    inks = read(planar(tmp_path / "d.tif", pixels, 5))
    np.testing.assert_array_equal(inks.values, read(uncompressed).values)
    deep = samples(13, 17, 3, dtype=np.uint16)
    for path in (
        planar(tmp_path / "e.tif", pixels, 2, [UNSPECIFIED]),
        planar(tmp_path / "f.tif", deep, 2),
    ):
        with pytest.raises(UnreadableFile, match="compressed by LZW.*pip install imagecodecs"):
            read(path)
    words = (
        r"f\.tif: got 3 x 16 bits of RGB, one channel after the other \(planar\), compressed by "
    )
    with pytest.raises(UnreadableFile, match=words + r"LZW.*'measurand\[tiff\]'.*uncompressed or"):
        read(path)


def test_empty_files_are_named(tmp_path):
    path, head = tmp_path / "a.tif", struct.pack("<2sHI", b"II", 42, 8)
    nothing = (head[:4], head[:4] + bytes(4), head + bytes(6))
    for content in nothing:
        path.write_bytes(content)
        for reader in (read_image, images):
            with pytest.raises(UnreadableFile, match=r"a\.tif: got an empty TIFF, without a page"):
                reader(path)
    with pytest.warns(UserWarning, match="zero-size"):
        written(path, np.zeros((0, 5), np.uint8))
    with pytest.raises(UnreadableFile, match="or without pixels; .* write it again"):
        read_image(path)
    for name in ("a.tif", "a.png", "a.jpg"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(UnreadableFile, match=rf"{name}: .* it is empty, 0 bytes"):
            read_image(tmp_path / name)


def test_damaged_files_are_read_or_refused(tmp_path):
    pixels, refused = Image.fromarray(samples(16, 16, 3)), 0
    for compression in ("tiff_lzw", "tiff_deflate", None):
        content = pillow(tmp_path / "a.tif", pixels, compression).read_bytes()
        for trial in range(40):
            broken = bytearray(content)
            if trial % 4 == 0:
                del broken[RNG.integers(0, len(broken)) :]
            for at in RNG.integers(0, len(broken) or 1, RNG.integers(1, 8)):
                broken[at : at + 1] = bytes([RNG.integers(0, 256)])
            (tmp_path / "b.tif").write_bytes(bytes(broken))
            try:
                assert read_image(tmp_path / "b.tif").x.isfinite().all()
            except UnreadableFile:
                refused += 1
    assert refused > 30


def test_complex_pages(tmp_path):
    array = (RNG.random((6, 5)) + 1j * RNG.random((6, 5))).astype(np.complex64)
    picture = read_image(written(tmp_path / "a.tif", array))
    assert picture.x.shape == (1, 1, 6, 5)
    write_image(tmp_path / "b.tif", picture.x, picture.form)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "b.tif"), array)
