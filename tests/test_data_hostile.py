"""Files that are made to do harm (`hostile`): read, or refused by name, within time and memory.

And ordinary files of the readers that `test_data_collection` does not damage, damaged at random.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import h5py
import hostile
import numpy as np
import pytest
import scipy.io
from PIL import Image
from pydicom.uid import DeflatedExplicitVRLittleEndian
from scans import dicom, nifti
from test_data_collection import damaged

from measurand.data import fastmri
from measurand.data import nifti as niftis
from measurand.data.collection import images
from measurand.data.files import read_stored
from measurand.data.limits import UnreadableFile, at_most, sized_in_all
from measurand.data.png import decode_png16, encode_png16

KINDS = 12  # of `originals`
SECONDS, MEMORY = 20, 2 * 2**30  # of computing, and beyond what the interpreter has, for each file
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits by setrlimit")
EVERY = {**hostile.FILES, **hostile.ARCHIVES, **hostile.SPECIAL}
# one of a kind, and quick to write
FEW = (
    "external-mask.h5", "raw-kspace.h5", "deflate-bomb.h5", "deflate-twice.h5", "groups.h5",
    "bias-kspace.h5",
    "slices-kspace.h5", "minus.npy", "nothing.npy", "wide.png", "text.png",
    "script.png", "exif.jpg", "shared.tif", "self.tif", "description-nested.tif", "nested.dcm",
    "claims.dcm", "bomb.nii.gz", "overflow2.nii", "passwd.mhd", "device.mhd", "huge.mhd",
    "overlapping.zip", "crc-IM.zip", "name-h5.zip", "lzma.zip", "pipe.IM0", "pipe.zip",
    "zero.npy", "pipes",
)  # fmt: skip


def read(name, folder):
    """Reads a hostile file by both front doors; what came of it, as text."""
    path = Path(folder) / name
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
    warnings.simplefilter("ignore")
    doors = [lambda path: images(path).images, lambda path: images(path, skip_bad=True).images]
    if name in hostile.FILES:
        doors.append(lambda path: [read_stored(path).image().x])
    for door in doors:
        try:
            found = door(path)
            assert all(np.isfinite(np.asarray(x)).all() for x in found)  # of a collection, too
        except (UnreadableFile, FileNotFoundError) as error:
            assert name in str(error) and len(str(error)) < 2000, error


def attack(folder, names):
    """Reads every file in a process of its own; prints the names of those that did harm."""
    harm = {}
    for name in names:
        own = Path(folder) / name.replace(".", "-")
        own.mkdir()
        EVERY[name](own / name)
        child = os.fork()
        if child == 0:
            try:
                read(name, own)
            except BaseException as error:
                print(name, repr(error)[:300], file=sys.stderr)
                os._exit(1)
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        if status:
            harm[name] = status
    print(json.dumps(harm))


def originals(folder):
    """A small file of each of some more kinds."""
    pixels = np.arange(12 * 10 * 3, dtype=np.uint8).reshape(12, 10, 3)
    image, grey = Image.fromarray(pixels), Image.fromarray(pixels[..., 0])
    scipy.io.savemat(folder / "old.mat", {"x": pixels[..., 0] / 7}, do_compression=True)
    with h5py.File(folder / "new.mat", "w", userblock_size=512) as h5:
        h5.create_dataset("x", data=pixels[..., 0] / 7, compression="gzip")
    head = "NDims = 3\nDimSize = 10 12 3\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    (folder / "volume.mha").write_bytes(head.encode() + pixels.tobytes())
    for name in ("a.webp", "b.bmp", "c.ppm", "d.jpg"):
        image.save(folder / name)
    (folder / "deep.png").write_bytes(encode_png16(pixels.astype(np.uint16) * 257))
    for name, kind in (("deflate.tif", "tiff_adobe_deflate"), ("lzw.tif", "tiff_lzw")):
        grey.save(folder / name, save_all=True, append_images=[grey] * 2, compression=kind)
    dicom(folder / "deflated.dcm", pixels[..., 0], syntax=DeflatedExplicitVRLittleEndian)
    with zipfile.ZipFile(folder / "many.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "b.bmp", "b.bmp")
        archive.write(folder / "deflated.dcm", "IM0")
    return sorted(path for path in folder.iterdir() if path.is_file())


def mutate(folder, count):
    """Reads `count` damaged versions of every original; prints how many of each were refused."""
    kinds = {path: path.read_bytes() for path in originals(Path(folder))}
    for path in kinds:  # what they import is not counted
        images(path)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY,) * 2)
    warnings.simplefilter("ignore")
    refused = {}
    for path, content in kinds.items():
        print("now", path.name, file=sys.stderr)
        refused[path.name], rng = 0, np.random.default_rng(sum(path.name.encode()))
        for _ in range(count):
            path.write_bytes(damaged(content, rng))
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of computing; it ends the process
            try:
                found = images(path).images
            except UnreadableFile as error:
                assert path.name in str(error), error
                refused[path.name] += 1
                continue
            assert all(x.size and np.isfinite(x).all() for x in found)
    signal.setitimer(signal.ITIMER_PROF, 0)
    print(json.dumps(refused))


def result_of(call):
    """What a function of this file prints, called in a process of its own, and its errors."""
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = f"import test_data_hostile as own; own.{call}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.split("\n")[-2]), done.stderr[-2000:]


@linux
def test_hostile_files_are_read_or_refused_by_name(tmp_path):
    harm, said = result_of(f"attack({str(tmp_path)!r}, own.FEW)")
    assert harm == {}, said


@linux
@pytest.mark.slow
def test_every_hostile_file_is_read_or_refused_by_name(tmp_path, injected):
    injected("9: hostile files, made by hand", len(EVERY))
    harm, said = result_of(f"attack({str(tmp_path)!r}, own.EVERY)")
    assert harm == {} and len(EVERY) >= 200, said


@linux
def test_more_damaged_files_are_read_or_refused(tmp_path):
    refused, _ = result_of(f"mutate({str(tmp_path)!r}, 20)")
    assert len(refused) == KINDS and sum(refused.values()) > 5 * KINDS


@linux
@pytest.mark.slow
def test_more_damaged_files_are_read_or_refused_in_thousands(tmp_path, injected):
    injected("9: damaged files of more readers", 1000 * KINDS)
    refused, _ = result_of(f"mutate({str(tmp_path)!r}, 1000)")
    assert len(refused) == KINDS and sum(refused.values()) > 250 * KINDS


@pytest.mark.parametrize("part", ["kspace", "mask", "reconstruction_rss", "ismrmrd_header"])
@pytest.mark.parametrize("kind", ["external", "loop", "virtual", "raw"])
def test_no_part_of_a_scan_comes_from_elsewhere(kind, part, tmp_path):
    name = f"{kind}-{part}.h5"
    if name not in EVERY:
        pytest.skip("text has no virtual dataset")
    EVERY[name](tmp_path / name)
    what = "is a link" if kind in ("external", "loop") else "keeps its data in other files"
    with pytest.raises(UnreadableFile, match=f"{name}:{part} {what}"):
        fastmri.header(tmp_path / name)


def test_a_link_says_nothing_about_a_scan(tmp_path):
    """Whether three axes are slices is not asked of what a link leads to."""
    beside = hostile.other(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        h5["kspace"] = np.ones((2, 8, 8), np.complex64)
        h5["ismrmrd_header"] = h5py.ExternalLink(beside, "ismrmrd_header")
    with pytest.raises(UnreadableFile, match="a.h5:ismrmrd_header is a link"):
        fastmri.header(tmp_path / "a.h5")


def test_a_file_that_is_cut_off_while_it_is_read_is_an_error(tmp_path, monkeypatch):
    """A mapped file would end the process by SIGBUS."""
    path = nifti(tmp_path / "a.nii", np.ones((8, 8, 8, 4), np.float32))
    whole, seen = niftis._slice, []

    def cut(*words):
        seen.append(words)
        if len(seen) == 2:
            path.write_bytes(path.read_bytes()[:2000])
        return whole(*words)

    monkeypatch.setattr(niftis, "_slice", cut)
    with pytest.raises(UnreadableFile, match="a.nii.*cut off while it was read"):
        niftis.slices(path)


def test_a_series_in_time_is_read_one_volume_at_a_time(tmp_path):
    voxels = np.arange(4 * 5 * 6 * 3, dtype=np.int16).reshape(4, 5, 6, 3)
    path = nifti(tmp_path / "a.nii", voxels)
    packed = nifti(tmp_path / "a.nii.gz", voxels)
    every = niftis.slices(path)
    for k in (0, 2, -1):
        alone = niftis.slices(path, volume=k)
        np.testing.assert_array_equal(alone, every[6 * (k % 3) : 6 * (k % 3) + 6])
    np.testing.assert_array_equal(every, niftis.slices(packed))


def test_a_deep_png_of_one_line_takes_no_minutes(tmp_path):
    """Six kilobytes whose filters were undone pixel by pixel: 100 s."""
    hostile.FILES["wide.png"](tmp_path / "wide.png")
    assert decode_png16((tmp_path / "wide.png").read_bytes()).shape == (1, 700_000, 3)


@pytest.mark.parametrize("color", [2, 4, 6])
def test_laced_deep_pngs_are_read(color):
    size = 5
    channels = {2: 3, 4: 2, 6: 4}[color]
    pixels = np.arange(size * size * channels, dtype=np.uint16).reshape(size, size, channels) * 257
    grids = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
             (0, 1, 1, 2))  # fmt: skip
    rows = b""
    for x, y, dx, dy in grids:
        for row in pixels[y::dy, x::dx]:
            rows += b"\0" + row.astype(">u2").tobytes() if row.size else b""
    content = hostile.png(size, size, 16, color, hostile.zlib.compress(rows), interlaced=1)
    np.testing.assert_array_equal(decode_png16(content), pixels)


@pytest.mark.parametrize("damage", [*hostile.DAMAGE, "method", "secret"])
def test_a_damaged_member_without_an_ending_is_no_silent_gap(damage, tmp_path):
    """It may be a slice of a series."""
    name = f"{damage}-IM.zip" if damage in hostile.DAMAGE else f"{damage}.zip"
    EVERY[name](tmp_path / name)
    with pytest.raises(UnreadableFile, match=f"{name}: a: cannot be read as a member of a zip"):
        images(tmp_path / name)
    with pytest.warns(UserWarning, match="skipped 1 of 2 files"):
        assert len(images(tmp_path / name, skip_bad=True)) == 1


def test_limits_let_large_collections_pass():
    assert at_most("a.zip", 262_144, 2**18, "members") == 2**18
    with pytest.raises(
        UnreadableFile, match="a.zip: holds 9 members, wanted at most 8: unpack it"
    ):
        at_most("a.zip", 9, 8, "members; unpack it")
    stored = 10 * 2**30  # a hundred thousand photographs, hardly packed
    assert sized_in_all("a.zip", 2 * stored, stored) == 2 * stored
    with pytest.raises(UnreadableFile, match="in all"):
        sized_in_all("a.zip", 2**30 + 1, 10**6)
