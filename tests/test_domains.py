import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from measurand.data.sources import SkippedFiles, UnreadableFile
from measurand.domains import Body, Brain, Faces, Kernels, Photographs, domain_of
from measurand.domains.brain import prepared, smooth_phase
from measurand.domains.material import PARTS, parts
from measurand.domains.photographs import luminance
from measurand.weights.store import known_weights
from measurand.weights.tensorfile import load_tensors

RANDOM = np.random.default_rng(0)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for k, name in enumerate(["train/a", "train/b", "val/c", "test/d"]):
        path = folder / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(RANDOM.integers(0, 256, (40 + k, 36, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """Magnitudes and Hounsfield units of a few slices."""
    folder = tmp_path_factory.mktemp("slices")
    y, x = np.mgrid[-1:1:48j, -1:1:40j]
    disk = ((x**2 + y**2) < 0.5)[None] * RANDOM.uniform(0.5, 1, (3, 48, 40))
    np.savez(folder / "magnitude.npz", images=(255 * disk).astype(np.uint8))
    np.savez(folder / "hu.npz", images=(-1000 + 1040 * disk).astype(np.float32))
    complex_ = disk * np.exp(1j * 2 * x)
    np.savez(folder / "complex.npz", images=complex_.astype(np.complex64))
    return folder


def opened(domain, *data, held_out=()):
    return domain.open(data, held_out, seed=0, device=CPU, skip_bad=False)


FILES = [
    (Photographs(), "pictures", ""),
    (Photographs(grey=True), "pictures", ""),
    (Faces(32), "pictures", ""),
    (Brain(), "slices", "magnitude.npz"),
    (Brain(), "slices", "complex.npz"),
    (Body(), "slices", "hu.npz"),
]


@pytest.mark.parametrize(("domain", "folder", "name"), FILES, ids=str)
def test_batches_are_pure_and_of_the_domains_kind(domain, folder, name, request):
    path = request.getfixturevalue(folder) / name
    material = opened(domain, path)
    x = material.batch(3, 5, 32)["x"]
    assert x.shape == (5, domain.channels, 32, 32) and x.dtype == domain.dtype
    assert torch.equal(opened(domain, path).batch(3, 5, 32)["x"], x)
    assert not torch.equal(material.batch(4, 5, 32)["x"], x)
    assert x.abs().max() < 1.5 and x.isfinite().all()
    (first, *_) = domain.look(path)
    assert first.shape[:2] == (1, domain.channels) and first.dtype == domain.dtype
    assert isinstance(domain.facts["units"], str)


def test_training_and_held_out_images_are_parted(pictures, slices):
    material = opened(Photographs(), pictures)
    assert material.images == 2 and [case["x"].shape for case in material.held_out] == [
        (1, 3, 42, 36)
    ]
    material = opened(Body(), slices / "hu.npz", held_out=[slices / "hu.npz"])
    assert material.images == 3 and len(material.held_out) == 3
    assert opened(Body(), slices / "hu.npz").held_out == ()
    with pytest.raises(ValueError, match="empty: got no image to train on"):
        (slices / "empty").mkdir()
        opened(Body(), slices / "empty")


def test_a_bad_file_is_an_error_or_left_out(pictures, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(tmp_path / "good.png")
    with pytest.raises(ValueError, match="bad.png"):
        opened(Photographs(), tmp_path)
    with pytest.warns(UserWarning, match="bad.png"):
        material = Photographs().open([tmp_path], (), seed=0, device=CPU, skip_bad=True)
    assert material.images == 1


def parted(folder, **contents):
    """The same parts, each with one file, in a folder and in a zip."""
    with zipfile.ZipFile(folder / "parts.zip", "w") as archive:
        for name, content in contents.items():
            file = folder / "parts" / name / "x.png"
            file.parent.mkdir(parents=True)
            if isinstance(content, bytes):
                file.write_bytes(content)
            else:
                Image.fromarray(content).save(file)
            archive.write(file, f"{name}/x.png")
    return folder / "parts", folder / "parts.zip"


def test_val_and_test_are_never_trained_on(tmp_path):
    """Whatever is wrong with the files to train on: the folder `train` is what counts."""
    good = np.zeros((40, 40, 3), np.uint8)
    (tmp_path / "a").mkdir()
    for path in parted(tmp_path / "a", train=b"no picture", val=good, test=good):
        with pytest.warns(SkippedFiles, match="skipped 1 of 1 file: .*x.png"):
            with pytest.raises(ValueError, match=f"{path.name}: got no image to train on"):
                Photographs().open([path], (), seed=0, device=CPU, skip_bad=True)
    (tmp_path / "b").mkdir()
    for path in parted(tmp_path / "b", val=good, test=good):
        with pytest.raises(
            ValueError, match=f"{path.name}: has folders '(val|test)', '(val|test)'"
        ):
            opened(Photographs(), path)
    (tmp_path / "c").mkdir()
    for path in parted(tmp_path / "c", train=good, test=good):
        material = opened(Photographs(), path)
        assert material.images == 1 and material.held_out == ()
    (tmp_path / "d" / "train").mkdir(parents=True)
    Image.fromarray(good).save(tmp_path / "d" / "x.png")
    with pytest.raises(ValueError, match="d: got no image to train on"):
        opened(Photographs(), tmp_path / "d")


def laid_out(folder, *names):
    """A folder and a zip with one picture in each of some folders."""
    for name in names:
        (folder / "set" / name).mkdir(parents=True)
        Image.fromarray(np.zeros((40, 40, 3), np.uint8)).save(folder / "set" / name / "x.png")
    return folder / "set", Path(shutil.make_archive(str(folder / "set"), "zip", folder / "set"))


@pytest.mark.parametrize(
    ("names", "training", "held_out"),
    [
        (["train", "val", "test"], "train", "val"),
        (["Train", "Val", "Test"], "Train", "Val"),
        (["train/bus", "train/val", "other"], "train", ""),  # of classes, one called "val"
        (["deep/set/train", "deep/set/val", "notes"], "deep/set/train", "deep/set/val"),
        (["bus", "deep/train"], "", ""),  # a class called "train"
    ],
)
def test_parts_of_data(tmp_path, names, training, held_out):
    for path in laid_out(tmp_path, *names):
        assert parts(path) == (training, held_out)


@pytest.mark.parametrize(
    "names", [["test/train", "test/bus"], ["a/train", "a/val", "b/train", "b/val"], ["deep/Test"]]
)
def test_parts_that_cannot_be_told_are_an_error(tmp_path, names):
    """What is in a folder `test` is never trained on, whatever its classes are called."""
    for path in laid_out(tmp_path, *names):
        with pytest.raises(ValueError, match=rf"{path.name}: has folders .*--held-out"):
            opened(Photographs(), path)


def test_the_part_to_train_on_is_trained_on(tmp_path):
    content = {name: np.full((40, 40, 3), k, np.uint8) for k, name in enumerate(PARTS)}
    (tmp_path / "set").mkdir()
    parted(tmp_path / "set", **content)
    (tmp_path / "set" / "LICENSE").write_text("free")
    outer = shutil.make_archive(str(tmp_path / "outer"), "zip", tmp_path / "set")
    (tmp_path / "set" / "parts.zip").unlink()
    for path in (tmp_path / "set", Path(outer)):
        material = opened(Photographs(), path)
        assert material.images == 1 and len(material.held_out) == 1
        assert material.batch(0, 1, 8)["x"].unique().tolist() == [-1.0]  # 0 / 127.5 - 1 is `train`
        assert float(material.held_out[0]["x"].mean()) == pytest.approx(1 / 127.5 - 1)


def test_the_digest_is_that_of_the_samples(tmp_path):
    found = []
    for name, value in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        Image.fromarray(np.full((40, 40, 3), value, np.uint8)).save(tmp_path / name / "x.png")
        found.append(opened(Photographs(), tmp_path / name).digest)
    assert found[0] == found[1] != found[2]


def test_one_picture_is_enough(pictures):
    for domain in (Photographs(grey=True), Faces(32)):
        assert opened(domain, pictures / "train" / "a.png").images == 1
        assert len(domain.look(pictures / "test" / "d.png")) == 1


def test_what_a_domain_reads_is_said(slices, pictures, tmp_path):
    np.save(tmp_path / "stack.npy", np.zeros((2, 40, 40), np.uint8))
    for domain in (Photographs(grey=True), Faces(32)):
        for path in (slices / "hu.npz", tmp_path / "stack.npy"):
            with pytest.raises(UnreadableFile, match=rf"{path.name}: .*wanted .*picture.*\.png"):
                opened(domain, path)
        with pytest.raises(ValueError, match=r"no image to train on, wanted pictures.*\.png"):
            opened(domain, tmp_path)
    for domain in (Photographs(), Body()):
        with pytest.raises(ValueError, match="got no data.*--data"):
            opened(domain)


COLORS = np.zeros((2, 40, 40, 3), np.uint8) + RANDOM.integers(0, 256, (2, 40, 40, 1), np.uint8)


@pytest.mark.parametrize("domain", [Body(), Brain()], ids=str)
def test_channels_that_a_domain_does_not_have(domain, tmp_path):
    grey = COLORS[..., 0].astype(np.float32)
    np.save(tmp_path / "a.npy", 8 * grey - 1000 if isinstance(domain, Body) else grey)
    np.save(tmp_path / "b.npy", COLORS)
    Image.fromarray(COLORS[0]).save(tmp_path / "c.png")
    for name in ("b.npy", "c.png"):
        with pytest.raises(UnreadableFile, match=rf"{name}: got .*\(40, 40, 3\), wanted .*one"):
            opened(domain, tmp_path / name)
    with pytest.warns(SkippedFiles, match=r"skipped 2 of 3 files: .*b.npy \(.*c.png \("):
        material = domain.open([tmp_path], (), seed=0, device=CPU, skip_bad=True)
    assert material.images == 2 and material.batch(0, 2, 32)["x"].shape[1] == 1


def test_hounsfield_units_are_real(slices):
    with pytest.raises(UnreadableFile, match="complex.npz: got complex.*Hounsfield"):
        Body().look(slices / "complex.npz")


def test_a_card_says_what_the_images_are():
    shipped = {name: load_tensors(path)[1] for name, path in known_weights().items()}
    for name, card in shipped.items():
        assert repr(domain_of(card["recipe"]["domain"])) == card["recipe"]["domain"], name
    varied = [Body(window=(-1000, 1000)), Body((-1e3, 250.5), 0.0), Brain(0.3), Faces(20),
              Kernels(16, alpha=0.3), Photographs(grey=True)]  # fmt: skip
    assert [domain_of(repr(domain)) for domain in varied] == varied


@pytest.mark.parametrize(
    "text",
    [
        "Cells(side=3)", "Body", "", "Body(", "Body(-1000)", "Body(**{'scale': 0.1})",
        "Body(depth=3)", "Body(scale=0.1, scale=0.2)", "Body(scale=print('x'))", "x\0",
        "Body(scale=__import__('os').system('true'))", "domains.Body()", "1 + 1",
        "Domain()", "OfFiles()", "(" * 10_000, "Body(scale=" + "-" * 100_000 + "1)", 3, None,
    ],
    ids=lambda text: str(text)[:30],
)  # fmt: skip
def test_a_card_that_describes_no_domain_of_ours(text, capsys):
    with pytest.raises(ValueError, match="wanted one of Body, Brain, Faces, Kernels, Photogr"):
        domain_of(text)
    assert capsys.readouterr().out == ""


def test_luminance():
    colors = np.array([[[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    assert luminance(colors).tolist() == [[255, 76, 150, 29]]


def test_faces_are_whole_and_upright():
    picture = np.zeros((100, 60, 3), np.uint8)
    picture[20:50] = 255  # the upper half of the central square
    face = Faces(20).whole(picture)
    assert face.shape == (20, 20, 3) and face[:9].min() > 250 and face[11:].max() < 5


def test_hounsfield_units_are_affine_in_the_image(slices):
    hu = torch.tensor([-1000.0, 0.0, 500.0, 2000.0, 3000.0])[None, None, None]
    assert Body().image(hu, None).flatten().tolist() == pytest.approx([-1, -1 / 3, 0, 1, 1])
    varied = Body().image(hu.expand(500, 1, 1, 5), torch.Generator().manual_seed(0))
    assert varied[..., 0].eq(-1).all()  # air stays air
    water = 3000 * (varied[..., 1] + 1) / 2
    assert 950 <= water.min() < 955 and 1045 < water.max() <= 1050


def test_a_magnitude_keeps_its_size_and_gets_a_smooth_phase(slices):
    (x, *_) = Brain().look(slices / "magnitude.npz")
    assert torch.quantile(x.abs(), 0.995).item() == pytest.approx(1, abs=0.01)
    inside = x.abs() > 0.3
    unit = x / x.abs().clamp_min(1e-6)
    step = (unit[..., 1:] * unit[..., :-1].conj()).angle()[inside[..., 1:] & inside[..., :-1]]
    assert step.abs().max() < 0.3 and step.abs().max() > 1e-4


def test_a_phase_of_its_own_is_kept_up_to_a_constant(slices):
    y, x = np.mgrid[-1:1:48j, -1:1:40j]
    (found, *_) = Brain().look(slices / "complex.npz")
    rest = found[0, 0] * torch.from_numpy(np.exp(-2j * x)).to(found)
    phase = rest[rest.abs() > 0.3].angle()
    assert (phase - phase[0]).abs().max() < 5e-3


def test_global_phase_is_uniform(slices):
    x = opened(Brain(), slices / "magnitude.npz").batch(0, 2000, 32)["x"]
    turn = (x.sum((1, 2, 3)) / x.sum((1, 2, 3)).abs()).mean()
    assert turn.abs() < 0.06  # 1 / sqrt(2000) is one deviation


def test_slope_of_the_phase_does_not_depend_on_the_size_of_the_crop():
    spreads = []
    for size in (64, 256):
        phase = smooth_phase(200, (size, size), torch.Generator().manual_seed(0))
        spreads.append(float(phase.diff(dim=3).std()))
    assert spreads[0] == pytest.approx(spreads[1], rel=0.15)


@pytest.mark.parametrize("side", [32, 64])
def test_kernels_are_kernels(side):
    domain = Kernels(side, alpha=0.2 if side == 32 else 0.1)
    k = domain.draw(400, torch.Generator().manual_seed(0))
    assert k.shape == (400, 1, side, side) and k.min() >= 0
    assert torch.allclose(k.sum((1, 2, 3)), torch.ones(400))
    t = torch.arange(side) - side // 2.0
    assert (k.sum(2) @ t).abs().max() < 1.0 and (k.sum(3) @ t).abs().max() < 1.0
    edge = k.clone()
    edge[..., 2:-2, 2:-2] = 0
    assert edge.sum((1, 2, 3)).max() < 0.1  # all of it is inside
    assert (k.amax((1, 2, 3)) > domain.alpha).float().mean() < 0.2
    assert torch.allclose(domain.kernel(domain.scaled(k)), k, atol=1e-7)


def test_kernels_of_all_kinds_and_widths():
    k = Kernels(32).draw(1000, torch.Generator().manual_seed(0))[:, 0]
    t = torch.arange(32) - 16.0
    spread = (k.sum(1) @ t**2).sqrt()
    assert spread.min() < 1.2 and spread.max() > 5
    material = opened(Kernels(32))
    sums = (material.batch(4, 50, 32)["x"] + 1).sum((1, 2, 3))
    assert torch.allclose(sums, torch.full((50,), Kernels(32).fixed_sum), rtol=1e-5)
    assert material.images == 0 and sum(case.size for case in material.held_out) == 64
    assert torch.equal(material.batch(5, 3, 32)["x"], opened(Kernels(32)).batch(5, 3, 32)["x"])
    with pytest.raises(ValueError, match="made, not read"):
        opened(Kernels(32), "folder")


def test_a_slice_of_a_few_bright_points_is_empty():
    x = np.full((100, 100), 1e-7, np.float32)
    x[:3, :3] = 1.0
    assert prepared(x) is None and prepared(np.zeros((8, 8))) is None
    x[:20, :20] = 1.0
    assert np.isfinite(prepared(x)).all()


def test_eight_bits_are_no_hounsfield_units(tmp_path):
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(tmp_path / "x.png")
    with pytest.raises(UnreadableFile, match="x.png: got samples of 8 bits"):
        opened(Body(), tmp_path)


def test_ct_in_other_units_is_no_hounsfield_units(tmp_path):
    """A cylinder of soft tissue with bone in it, as data sets have it: HU + 32768 in a PNG of 16
    bits, shares of a window, attenuation, stored samples without their rescale."""
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    hu = np.where(x**2 + y**2 < 0.7, 40, -1000) + 900 * ((x - 0.2) ** 2 + y**2 < 0.03)
    mu = 0.0192 * (1 + hu / 1000)
    Image.fromarray((hu + 32768).astype(np.uint16)).save(tmp_path / "deeplesion.png")
    with pytest.raises(UnreadableFile, match="deeplesion.png: got a picture.*minus 32768"):
        Body().read(tmp_path / "deeplesion.png", "")
    tifffile.imwrite(tmp_path / "deep.tif", (hu + 32768).astype(np.uint16))
    others = {"unit": (hu + 1000) / 3000, "signed": (hu - 500) / 1500, "mm": mu, "m": 1000 * mu,
              "stored": hu + 1024, "normal": (hu - hu.mean()) / hu.std()}  # fmt: skip
    for name, image in others.items():
        np.save(tmp_path / f"{name}.npy", image.astype(np.float32))
    for path in (tmp_path / "deep.tif", *(tmp_path / f"{name}.npy" for name in others)):
        with pytest.raises(UnreadableFile, match=rf"{path.name}: got values from .*air is -1000"):
            Body().read(path, "")
    tissue = np.random.default_rng(0).normal(40, 20, (64, 64))  # a crop without air
    for image in (hu, tissue, np.full((64, 64), -1024), np.zeros((64, 64))):
        np.save(tmp_path / "hu.npy", image.astype(np.float32))
        np.testing.assert_array_equal(Body().read(tmp_path / "hu.npy", "")[0], image.astype("i2"))


def test_every_page_of_a_tiff_is_an_image(tmp_path):
    stack = RANDOM.integers(-1000, 1000, (5, 40, 36)).astype(np.int16)
    tifffile.imwrite(tmp_path / "x.tif", stack, photometric="minisblack")
    assert opened(Body(), tmp_path).images == 5
    images = Body().look(tmp_path / "x.tif")
    for x, wanted in zip(images, stack, strict=True):
        assert torch.equal(x, Body().image(torch.tensor(wanted)[None, None], None))
    colors = RANDOM.integers(0, 256, (3, 40, 36, 3), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "y.tif", colors, photometric="rgb")
    assert opened(Photographs(), tmp_path / "y.tif").images == 3
