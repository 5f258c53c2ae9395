import io
import zipfile

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from measurand.data import collection
from measurand.data.photos import FewBits, FurtherChannels, load, pictures, pixels
from measurand.data.sources import SkippedFiles, UnreadableFile

RANDOM = np.random.default_rng(0)
COLOR = RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def image(pixels):
    """(1, 3, H, W) in [-1, 1] of (H, W, 3) samples of 8 bit."""
    return torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1


def close(x, pixels):
    assert x.dtype == torch.float32 and x.is_contiguous()
    assert torch.allclose(x, image(pixels), atol=1e-6)


def png(picture, **options):
    out = io.BytesIO()
    picture.save(out, "PNG", **options)
    return out.getvalue()


def both_ways(tmp_path, picture, pixels, **options):
    """`load` and `pictures` agree on what is in the file."""
    path = tmp_path / "x.png"
    path.write_bytes(png(picture, **options))
    close(load(path), pixels)
    (found,) = pictures(tmp_path)
    assert found.dtype == np.uint8 and np.array_equal(found, np.round(pixels))


def test_color(tmp_path):
    both_ways(tmp_path, Image.fromarray(COLOR), COLOR)


def test_grey_becomes_three_channels(tmp_path):
    both_ways(tmp_path, Image.fromarray(COLOR[..., 0]), COLOR[..., :1].repeat(3, 2))


def test_a_palette_is_looked_up(tmp_path):
    picture = Image.fromarray(RANDOM.integers(0, 4, (5, 7), dtype=np.uint8), "P")
    table = [[255, 0, 0], [0, 9, 0], [1, 2, 3], [200, 100, 50]]
    picture.putpalette(sum(table, []))
    both_ways(tmp_path, picture, np.array(table, np.uint8)[np.asarray(picture)])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path, orientation):
    turned = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: a.swapaxes(0, 1)[:, ::-1],
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
        8: lambda a: a.swapaxes(0, 1)[::-1],
    }[orientation](COLOR)
    exif = Image.Exif()
    exif[274] = orientation
    both_ways(tmp_path, Image.fromarray(COLOR), turned, exif=exif)


def test_transparency_goes_over_white(tmp_path):
    pixels = np.dstack([COLOR, np.zeros((5, 7), np.uint8)])
    pixels[:2, :, 3] = 255
    wanted = COLOR.copy()
    wanted[2:] = 255
    both_ways(tmp_path, Image.fromarray(pixels, "RGBA"), wanted)


def test_half_transparency(tmp_path):
    (tmp_path / "x.png").write_bytes(png(Image.new("LA", (4, 4), (0, 51))))
    assert torch.allclose(load(tmp_path / "x.png"), torch.full((1, 3, 4, 4), 0.6), atol=1e-6)


def test_sixteen_bits_keep_their_depth(tmp_path):
    deep = RANDOM.integers(0, 65536, (5, 7), dtype=np.uint16)
    (tmp_path / "x.png").write_bytes(png(Image.fromarray(deep)))
    x = load(tmp_path / "x.png")
    wanted = torch.from_numpy(deep.astype(np.float64) / 32767.5 - 1).float()
    assert torch.allclose(x, wanted.expand(1, 3, 5, 7), atol=1e-7)
    (found,) = pictures(tmp_path)
    assert np.array_equal(found, (deep >> 8).astype(np.uint8)[..., None].repeat(3, 2))


def tif(path, pixels, **options):
    tifffile.imwrite(path, pixels, planarconfig="contig", **options)
    return path


def test_near_infrared_is_no_opacity(tmp_path):
    bands = np.zeros((6, 5, 4), np.uint16)
    bands[...] = (800, 900, 700, 3000)
    for name in "ab":
        tif(tmp_path / f"{name}.tif", bands, photometric="rgb", extrasamples=[0])
    with pytest.warns(
        FurtherChannels, match=r"a\.tif: has 4 channels.*three taken.*1 more"
    ) as said:
        found = collection.images(tmp_path)
    assert len(said) == 1
    np.testing.assert_allclose(found.images[0][0, 0] * 257, [800, 900, 700], rtol=1e-6)
    with (
        pytest.warns(FurtherChannels, match="three taken, for colours"),
        pytest.warns(FewBits, match="a.tif: 1 picture of 16 bits .* taken as 10 bits"),
    ):
        (picture,) = pictures(tmp_path / "a.tif")
    assert picture[0, 0].tolist() == [200, 225, 175]
    sar = np.zeros((6, 5, 2), np.uint16)
    sar[...] = (5000, 200)
    path = tif(tmp_path / "sar.tif", sar, photometric="minisblack", extrasamples=[0])
    with pytest.warns(FurtherChannels, match="the first taken, for grey"):
        assert pixels(path)[0, 0] * 257 == 5000
    path = tif(tmp_path / "rgb.tif", bands[..., :3], photometric="minisblack")
    with pytest.warns(FurtherChannels, match="three taken, for colours"):
        np.testing.assert_allclose(pixels(path)[0, 0] * 257, [800, 900, 700], rtol=1e-6)
    path = tif(tmp_path / "many.tif", bands, photometric="minisblack")
    with pytest.raises(UnreadableFile, match="many.tif.*called colours"):
        pixels(path)
    with pytest.raises(UnreadableFile, match="wanted a grey or colour picture"):
        load(path)


def test_twelve_bits_are_white_where_no_picture_of_sixteen_has_more(tmp_path):
    u = RANDOM.integers(0, 4096, (6, 5), dtype=np.uint16)
    for k in range(2):
        tif(tmp_path / f"{k}.tif", u >> k)
    with pytest.warns(
        FewBits, match="2 pictures of 16 bits without a sample above 4095: taken as 12 bits"
    ):
        found = pictures(tmp_path)
    for k, x in enumerate(found):
        assert np.array_equal(x[..., 0], (u >> k) >> 4)
    tif(tmp_path / "2.tif", u << 4)  # one that uses all of them: the others are dark
    assert np.array_equal(pictures(tmp_path)[0][..., 0], u >> 8)


def test_opacity_that_the_colours_are_multiplied_by(tmp_path):
    opacity = np.full((5, 7, 1), 51, np.uint8)
    straight = np.concatenate([COLOR, opacity], 2)
    over = COLOR * 0.2 + 255 * 0.8
    dim = np.concatenate([(COLOR * 0.2).round().astype(np.uint8), opacity], 2)
    for array, kind in ((straight, "unassalpha"), (dim, "assocalpha")):
        path = tif(tmp_path / f"{kind}.tif", array, photometric="rgb", extrasamples=[kind])
        assert np.abs(pixels(path) - over).max() <= 1
        assert (load(path) - image(over)).abs().max() < 1.1 / 127.5


def test_missing_pixels_are_refused(tmp_path):
    height = np.full((6, 5), 120, np.float32)
    height[:2] = -9999
    tif(tmp_path / "dem.tif", height, extratags=[(42113, "s", 0, "-9999", True)])
    Image.fromarray(COLOR).save(tmp_path / "good.png")
    with pytest.raises(UnreadableFile, match="dem.tif: 10 of 30 pixels are missing"):
        collection.images(tmp_path)
    with pytest.warns(SkippedFiles, match="10 of 30 pixels are missing"):
        assert len(collection.images(tmp_path, skip_bad=True)) == 1


def test_all_images_behind_one_directory(tmp_path):
    stack = RANDOM.integers(0, 65536, (20, 6, 5), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, truncate=True)
    found = collection.images(tmp_path / "a.tif").images
    np.testing.assert_allclose(np.stack(found) * 257, stack, rtol=1e-6)
    (one,) = collection.images(f"{tmp_path}/a.tif:7").images
    np.testing.assert_array_equal(one, found[7])


def folder_and_zip(tmp_path):
    folder, archive = tmp_path / "photos", tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as z:
        for k, name in enumerate(["train/b.png", "train/deep/a.jpg", "val/c.PNG", "note.txt"]):
            content = b"note"
            if not name.endswith("txt"):
                out = io.BytesIO()
                kind = "JPEG" if name.endswith("jpg") else "PNG"
                Image.new("RGB", (4 + k, 3), (k, k, k)).save(out, kind)
                content = out.getvalue()
            z.writestr(name, content)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
    return folder, archive


def test_folders_and_zips_are_read_alike(tmp_path):
    for source in folder_and_zip(tmp_path):
        assert [p.shape[1] for p in pictures(source)] == [4, 5, 6]
        assert [p.shape[1] for p in pictures(source, under="train")] == [4, 5]
        assert [p.shape[1] for p in pictures(source, under="val")] == [6]
        assert pictures(source, under="test") == pictures(source, under="tra") == []


def test_one_picture_is_read_like_a_folder_of_it(tmp_path):
    folder, _ = folder_and_zip(tmp_path)
    for name, width in (("train/b.png", 4), ("val/c.PNG", 6)):
        (found,) = pictures(folder / name)
        assert found.shape == (3, width, 3)
        (found,) = pictures(folder / name, under="val")
    np.savez(tmp_path / "stack.npz", images=COLOR[None])
    for name in ("photos/note.txt", "stack.npz"):
        with pytest.raises(UnreadableFile, match=rf"{name}: got a file of .*picture.*\.png"):
            pictures(tmp_path / name)
    (folder / "bad.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableFile, match="bad.png: cannot be read as a picture"):
        pictures(folder / "bad.png")
    with pytest.warns(SkippedFiles, match="skipped 1 of 1 file"):
        assert pictures(folder / "bad.png", skip_bad=True) == []


def test_a_bad_picture_is_named(tmp_path):
    folder, archive = folder_and_zip(tmp_path)
    whole = (folder / "val/c.PNG").read_bytes()
    for content in (b"", b"no picture", whole[:40], whole[: len(whole) * 2 // 3]):
        (folder / "val/c.PNG").write_bytes(content)
        with pytest.raises(UnreadableFile, match="photos/val/c.PNG: cannot be read as a picture"):
            pictures(folder)
        with zipfile.ZipFile(tmp_path / "bad.zip", "w") as z:
            z.writestr("x/bad.png", content)
        with pytest.raises(
            UnreadableFile, match="bad.zip: x/bad.png: cannot be read as a picture"
        ):
            pictures(tmp_path / "bad.zip")
        with pytest.raises(UnreadableFile, match="c.PNG"):
            load(folder / "val/c.PNG")


def test_a_bad_zip_is_named(tmp_path):
    _, archive = folder_and_zip(tmp_path)
    content = archive.read_bytes()
    (tmp_path / "half.zip").write_bytes(content[: len(content) // 2])
    flipped = bytearray(content)
    flipped[60] ^= 0xFF
    (tmp_path / "flipped.zip").write_bytes(flipped)
    for name in ("half.zip", "flipped.zip"):
        with pytest.raises(UnreadableFile, match=name):
            pictures(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="gone: no such folder, zip or picture"):
        pictures(tmp_path / "gone")


def test_real_photographs(shared_data):
    found = pictures(shared_data / "natural_bsds500.zip", under="test")
    assert len(found) == 62
    assert {p.shape for p in found} == {(321, 481, 3), (481, 321, 3)}
