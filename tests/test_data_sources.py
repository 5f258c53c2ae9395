"""Folders and zips are read alike; what claims too much is refused; skipping is accounted for."""

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from measurand.data.photos import pictures, pixels
from measurand.data.sources import (
    File,
    Skips,
    UnreadableFile,
    folders_in,
    holds_files,
    listing,
    reading,
    sized,
)

RNG = np.random.default_rng(0)


def png(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def filled(tmp_path, contents):
    """The same files in a folder and in a zip."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in contents.items():
            file = tmp_path / "a" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            archive.writestr(name, content)
    return tmp_path / "a", tmp_path / "a.zip"


def test_folders_and_zips_list_the_same_files(tmp_path):
    contents = {"b/2.bin": b"two", "b/1.bin": b"one" * 100, "c.nii.gz": b"three"}
    hidden = {".x/3.bin": b"", "b/._1.bin": b"", "__MACOSX/b/1.bin": b""}
    for path in filled(tmp_path, contents | hidden):
        with listing(path) as files:
            assert [name for name, _ in files] == ["b/1.bin", "b/2.bin", "c.nii.gz"]
            for name, file in files:
                with file.open() as opened:
                    assert opened.read() == file.read() == contents[name]
                assert file.read(2) == contents[name][:2]
                assert file.name.startswith(str(path)) and file.base == name.split("/")[-1]
            assert files[2][1].suffix == ".nii.gz" and files[0][1].suffix == ".bin"
        with listing(path, "b") as files:
            assert [name for name, _ in files] == ["b/1.bin", "b/2.bin"]
    with pytest.raises(FileNotFoundError, match="gone"), listing(tmp_path / "gone"):
        pass


def test_folders_inside(tmp_path):
    contents = {"train/deep/1.bin": b"", "val": b"", "x/Test/2.bin": b"", ".h/y/3.bin": b""}
    paths = filled(tmp_path, contents | {"__MACOSX/train/1.bin": b""})
    (tmp_path / "a" / "empty").mkdir()
    with zipfile.ZipFile(tmp_path / "a.zip", "a") as archive:
        archive.mkdir("empty")
    for path in paths:
        assert folders_in(path) == ["empty", "train", "train/deep", "x", "x/Test"]
    assert folders_in(tmp_path / "a" / "val") == [] and holds_files(tmp_path / "a.zip")
    assert not holds_files(tmp_path / "a" / "val") and not holds_files(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="gone.zip"):
        folders_in(tmp_path / "gone.zip")


def test_links_are_followed_once_and_broken_ones_are_told(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "1.bin").write_bytes(b"one")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "there").symlink_to(tmp_path / "far")
    (folder / "back").symlink_to(folder)
    (folder / "gone.bin").symlink_to(tmp_path / "nothing")
    with listing(folder) as files:
        assert [name for name, _ in files] == ["gone.bin", "there/1.bin"]
        with pytest.raises(FileNotFoundError):
            files[0][1].open()
    assert folders_in(folder) == ["back", "there"]


def test_backslashes_in_a_zip_are_folders(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("x")
        info.filename = "set\\train\\1.bin"
        archive.writestr(info, b"one")
    assert folders_in(tmp_path / "a.zip") == ["set", "set/train"]
    with listing(tmp_path / "a.zip", "set/train") as files:
        assert [name for name, _ in files] == ["set/train/1.bin"] and files[0][1].read() == b"one"


def test_names_that_point_elsewhere_are_only_names(tmp_path):
    """Members are read in memory: nothing is written, whatever they are called."""
    archive = tmp_path / "in" / "a.zip"
    archive.parent.mkdir()
    picture = png(np.zeros((4, 4), np.uint8))
    with zipfile.ZipFile(archive, "w") as z:
        for name in ("../../evil.png", "/etc/evil.png", "ok/a.png"):
            z.writestr(name, picture)
        link = zipfile.ZipInfo("ok/link.png")
        link.external_attr = 0o120777 << 16
        z.writestr(link, "/etc/passwd")
        with pytest.warns(UserWarning, match="Duplicate"):
            z.writestr("ok/a.png", picture)
    with pytest.warns(UserWarning, match=r"skipped 1 of 4 files: .*link.png"):
        assert len(pictures(archive, skip_bad=True)) == 3
    assert sorted(os.listdir(tmp_path)) == ["in"] and os.listdir(archive.parent) == ["a.zip"]


def test_a_member_that_unpacks_to_too_much(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.png", bytes(2**28 + 1))
    with pytest.raises(UnreadableFile, match="bomb.png unpacks to"):
        pictures(tmp_path / "a.zip")


def test_sizes_to_be_believed():
    assert sized("a", 2**28, 1) == 2**28
    assert sized("a", 2**31, 2**24) == 2**31  # 128 times
    assert sized("a", 2**34, 2**34) == 2**34  # not compressed
    for unpacked, stored in ((2**28 + 1, 1), (2**32 + 1, 2**26), (2**32, 2**24)):
        with pytest.raises(UnreadableFile, match=f"a unpacks to {unpacked}"):
            sized("a", unpacked, stored)


def test_an_encrypted_zip_and_an_unknown_compression_are_named(tmp_path):
    _, archive = filled(tmp_path, {"x.png": png(np.zeros((4, 4), np.uint8))})
    content = archive.read_bytes()
    directory = content.rindex(b"PK\1\2")
    for at, value in ((8, 1), (10, 99)):  # flag of encryption; method
        broken = bytearray(content)
        broken[directory + at] |= value
        archive.write_bytes(broken)
        with pytest.raises(UnreadableFile, match="a.zip: x.png"):
            pictures(archive)


def test_reading_names_the_file_whatever_goes_wrong(tmp_path):
    for error in (ValueError("x"), RecursionError(), MemoryError(), KeyError("k"), EOFError()):
        with pytest.raises(UnreadableFile, match="^f.x: cannot be read as an x"):
            with reading(File("f.x"), "an x"):
                raise error
    with pytest.raises(FileNotFoundError, match="no such file"), reading(tmp_path / "gone"):
        pass
    with pytest.raises(PermissionError, match="f.x: no permission"), reading(File("f.x")):
        raise PermissionError


def test_skips_stop_or_go_on():
    with pytest.raises(UnreadableFile), Skips(False).over("a"):
        raise UnreadableFile("a: bad")
    skips = Skips(True)
    with skips.over("good"):
        pass
    assert skips.summary() == ""
    for k in range(5):
        with skips.over(f"f{k}"):
            raise UnreadableFile(f"f{k}: reason {k}")
    assert skips.found[1] == ("f1", "reason 1")
    assert skips.summary() == (
        "skipped 5 of 6 files: f0 (reason 0), f1 (reason 1), f2 (reason 2) and 2 more"
    )
    with pytest.raises(ImportError), skips.over("a"):  # not the fault of the file
        raise ImportError
    skips = Skips(True)
    for names in (("a",), ("b",), ("a", "b")):  # each by itself, then what they make together
        with skips.over(*names):
            if len(names) == 2:
                raise UnreadableFile("rows of a and b differ")
    assert skips.summary() == (
        "skipped 2 of 2 files: a (rows of a and b differ), b (belongs to a)"
    )


def test_bad_pictures_are_skipped_and_said(tmp_path):
    good = {f"{k}.png": png(np.full((4, 4), k, np.uint8)) for k in range(3)}
    for path in filled(tmp_path, good | {"1.png": b"bad", "4.jpg": good["0.png"][:44]}):
        with pytest.warns(UserWarning, match=r"skipped 2 of 4 files: .*1.png \(.*4.jpg"):
            found = pictures(path, skip_bad=True)
        assert [x[0, 0, 0] for x in found] == [0, 2]
        with pytest.raises(UnreadableFile, match="1.png"):
            pictures(path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_pixels_keep_sixteen_bits_on_the_scale_of_eight(tmp_path, suffix):
    from measurand.data.png import encode_png16

    deep = RNG.integers(0, 65536, (5, 7), dtype=np.uint16)
    deep[0, :2] = 0, 65535
    Image.fromarray(deep).save(tmp_path / f"grey.{suffix}")
    found = pixels(tmp_path / f"grey.{suffix}")
    assert found.dtype == np.float32 and (found[0, 0], found[0, 1]) == (0, 255)
    np.testing.assert_array_equal(np.rint(found * 257), deep)
    (tmp_path / "color.png").write_bytes(encode_png16(deep.reshape(5, 7, 1).repeat(3, 2)))
    found = pixels(tmp_path / "color.png")
    assert found.shape == (5, 7, 3)
    np.testing.assert_array_equal(np.rint(found[..., 1] * 257), deep)
    shallow = (deep >> 8).astype(np.uint8)
    Image.fromarray(shallow).save(tmp_path / f"8.{suffix}")
    found = pixels(tmp_path / f"8.{suffix}")
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, shallow)


def test_pixels_of_other_kinds(tmp_path):
    import tifffile

    counts = (RNG.random((5, 7)) * 1e4).astype(np.float32)
    tifffile.imwrite(tmp_path / "counts.tif", counts)
    np.testing.assert_array_equal(pixels(tmp_path / "counts.tif"), counts)
    with pytest.raises(UnreadableFile, match="float32, wanted a picture"):
        pictures(tmp_path)
    counts[0, 0] = np.nan
    tifffile.imwrite(tmp_path / "counts.tif", counts)
    with pytest.raises(UnreadableFile, match="1 of 35 samples are NaN"):
        pixels(tmp_path / "counts.tif")
    bits = RNG.random((5, 7)) > 0.5
    Image.fromarray(bits).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(pixels(tmp_path / "bits.png"), bits * np.uint8(255))
    half = np.full((4, 4, 2), (0, 51), np.uint8)
    Image.fromarray(half, "LA").save(tmp_path / "half.png")
    np.testing.assert_array_equal(pixels(tmp_path / "half.png"), 204)
    key = Image.fromarray(np.array([[7, 9]], np.uint8))
    key.save(tmp_path / "key.png", transparency=7)  # one grey value is transparent
    np.testing.assert_array_equal(pixels(tmp_path / "key.png"), [[255, 9]])
