"""Operators from words: every class has its place, every shape is found, mistakes are named."""

import inspect
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from measurand import operators, samplers, solvers
from measurand.jobs.arguments import (
    build,
    build_for,
    families,
    methods,
    notes_of,
    read_tensor,
    twins,
    word,
)
from measurand.methods import Method
from measurand.operators import Blur, GaussianBlur, LinearOperator, MotionBlur, ValidBlur

OF_OTHERS = {
    "Adjoint", "AutogradOperator", "Composed", "FunctionOperator", "KernelBlur", "Normal",
    "Scaled", "ScipyOperator", "Stacked", "Sum",
}  # fmt: skip


def test_every_operator_has_a_twin_or_is_made_of_others():
    classes = {
        name
        for name in operators.__all__
        if inspect.isclass(cls := getattr(operators, name))
        and issubclass(cls, LinearOperator)
        and not inspect.isabstract(cls)
    }
    words = [word(getattr(operators, name)) for name in classes - OF_OTHERS]
    assert sorted(words) == sorted(twins())  # each has one of its own


def test_a_blur_is_that_of_a_camera_and_a_periodic_one_says_so():
    for kind in ("blur", "gaussian-blur", "motion-blur"):
        assert isinstance(build(twins()[kind](**CASES[kind]), (1, 30, 32)), ValidBlur)
    for name in ("blur", "motion-blur", "circular-blur", "circular-gaussian-blur"):
        operator = build(twins()[name](**CASES[name]), (1, 30, 32))
        assert isinstance(operator, Blur if name.startswith("circular") else ValidBlur)
        assert (operator.in_shape == operator.out_shape) == name.startswith("circular")
    assert set(families()) == {"unknown-blur", "unknown-circular-blur", "unknown-defocus"}
    for name in twins():
        twin = twins()[name](**CASES.get(name, {}))
        assert pickle.loads(pickle.dumps(twin)) == twin
    for cls in (Blur, GaussianBlur, MotionBlur):
        assert cls.__doc__.startswith("Periodic")


def test_every_method_is_a_choice_or_one_that_python_alone_can_make():
    words = "hqs admm red gradientred pgm fista posterior-mean flow-unfolding dps pigdm diffpir "
    words += "daps pnpdm diff-unfolding blind-pnpdm plugin-blind-pnpdm"
    assert set(words.split()) <= set(methods())
    public = [getattr(folder, name) for folder in (solvers, samplers) for name in folder.__all__]
    classes = {cls for cls in public if inspect.isclass(cls) and issubclass(cls, Method)}
    unnamed = {cls.__name__ for cls in classes - set(methods().values())}
    blind = {"BlindDPS", "BlindEdges", "BlindHQS", "BlindTV"}
    reverse = {"EulerFlow", "EulerSDE", "HeunFlow", "HeunSDE", "Reverse", "ReverseSDE"}
    assert unnamed == blind | reverse
    assert all(cls.command == name for name, cls in methods().items())


CASES = {  # options of the operators that have some without a default
    "gaussian-blur": {"sigma": 1.0},
    "circular-gaussian-blur": {"sigma": 1.0},
    "motion-blur": {"length": 4.0},
    "circular-motion-blur": {"length": 4.0},
    "circular-blur": {"kernel": "disk_kernel:2"},
    "blur": {"kernel": "gaussian_kernel:1.0:5"},
    "reflective-blur": {"kernel": "motion_kernel:5:0.3"},
    "mask": {"mask": "random_mask:0.5"},
    "block-average": {"factor": 2},
    "bicubic-downsample": {"factor": 2},
    "gaussian-downsample": {"factor": 2, "sigma": 1.0},
    "downsample": {"kernel": "gaussian_kernel:0.5:3", "factor": 3, "phase": 1},
    "circular-bicubic-downsample": {"factor": 3},
    "circular-gaussian-downsample": {"factor": 2, "sigma": 1.0},
    "circular-downsample": {"kernel": "gaussian_kernel:1.0", "factor": 2},
    "cartesian-mri": {"mask": "random_lines:2"},
    "fourier-mask": {"mask": "variable_density_mask:3"},
    "sense": {"maps": "birdcage_maps:3", "mask": "equispaced_lines:2"},
    "parallel-ct": {"angles": "even_angles:7"},
}


@pytest.mark.parametrize("name", twins())
def test_the_shape_of_the_image_follows_from_the_measurement(name):
    twin = twins()[name](**CASES.get(name, {}))
    side = 18
    shape = (1 if name in ("cartesian-mri", "sense", "parallel-ct") else 3, side, side)
    operator = build(twin, shape)
    found = build_for(twin, operator.out_shape)
    assert type(found) is type(operator) and found.in_shape == shape
    x = torch.ones(1, *shape, dtype=found.in_dtype)
    assert found(x).shape[1:] == operator.out_shape


@pytest.mark.parametrize(
    ("operator", "y_shape", "options", "shape"),
    [
        (operators.Identity, (3, 7, 9), {}, (3, 7, 9)),
        (operators.SENSE, (8, 7, 9), {}, (1, 7, 9)),
        (operators.BlockAverage, (3, 7, 9), {"factor": 2}, (3, 14, 18)),
        (operators.GaussianDownsample, (3, 7, 9), {"factor": 3}, (3, 21, 27)),
        (operators.ValidBicubicDownsample, (3, 7, 9), {"factor": 2}, (3, 20, 24)),
        (operators.ValidGaussianDownsample, (3, 7, 9), {"factor": 1, "sigma": 1.0}, (3, 15, 17)),
        (operators.ValidBlur, (3, 7, 9), {"kernel": np.ones((4, 3))}, (3, 10, 11)),
        (operators.ValidGaussianBlur, (3, 7, 9), {"sigma": 1.0}, (3, 15, 17)),
        (operators.ValidMotionBlur, (3, 7, 9), {"length": 4.0}, (3, 11, 13)),
        (operators.ParallelCT, (1, 30, 12), {}, (1, 8, 8)),
        (operators.ParallelCT, (1, 30, 12), {"pixel": 0.5}, (1, 8, 8)),
        (operators.ParallelCT, (1, 30, 12), {"pixel": 0.5, "axis": -1.5}, (1, 6, 6)),
        (operators.ParallelCT, (1, 5, 30, 12), {"pixel": 0.5, "spacing": 1.0}, (1, 5, 16, 16)),
    ],
)
def test_an_operator_knows_the_shape_of_its_images(operator, y_shape, options, shape):
    assert operator.image_shape(y_shape, **options) == shape


def test_a_volume_of_projections_is_one_of_slices():
    twin = twins()["parallel-ct"](angles="even_angles:7")
    found = build_for(twin, (1, 4, 7, 12))
    assert found.in_shape == (1, 4, 8, 8) and found.out_shape == (1, 4, 7, 12)


def test_any_number_of_bins_is_one():
    found = build_for(twins()["parallel-ct"](angles="even_angles:7"), (1, 7, 11))
    assert found.in_shape == (1, 7, 7) and found.out_shape == (1, 7, 11)


def test_what_does_not_follow_is_asked_for():
    with pytest.raises(ValueError, match=r"the 9 rows of the data are views, and 7 angles"):
        build_for(twins()["parallel-ct"](angles="even_angles:7"), (1, 9, 11))
    with pytest.raises(ValueError, match="CartesianMRI: got image shape .3, 8, 8., wanted .1, H"):
        build_for(twins()["cartesian-mri"](mask="random_lines:2"), (3, 8, 8))
    with pytest.raises(ValueError, match="coils differ, rows and columns do not"):
        build_for(twins()["sense"](**CASES["sense"]), (5, 18, 18))
    with pytest.raises(ValueError, match="--shape C H W"):
        build_for(twins()["parallel-ct"](angles="even_angles:5", detectors=9), (1, 5, 9))


def test_tensors_from_files_and_functions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("a.npz", k=np.eye(3), m=np.ones((2, 9, 9)) + 1j)
    torch.testing.assert_close(read_tensor("a.npz:k", "kernel", (1, 9, 9)), torch.eye(3) / 3)
    assert read_tensor("a.npz:m", "maps", (1, 9, 9)).is_complex()
    grey = np.array([[51, 255, 51]], np.uint8)
    Image.fromarray(grey).save("p.png")
    kernel = read_tensor("p.png", "kernel", (1, 9, 9))
    torch.testing.assert_close(kernel, torch.tensor([[51.0, 255.0, 51.0]]) / 357)
    assert read_tensor("p.png", "mask", (1, 9, 9)).tolist() == [[0.0, 1.0, 0.0]]
    assert read_tensor("random_mask:0.5", "mask", (2, 9, 8)).shape[-2:] == (9, 8)
    assert len(read_tensor("even_angles:5", "angles", (1, 9, 9))) == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("disk_kernel", "wanted disk_kernel:RADIUS"),
        ("disk_kernel:big", "wanted disk_kernel:RADIUS"),
        ("even_angles:2.5", "wanted even_angles:COUNT"),
        ("random_mask:1.5", "missing = 1.5"),
        ("fft2c:1", "wanted fft2c|makes no tensor"),
        ("nan.npy", "NaN or infinite"),
    ],
)
def test_words_that_name_no_tensor(tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    np.save("nan.npy", np.array([[1.0, np.nan]]))
    with pytest.raises((ValueError, AttributeError), match=words):
        read_tensor(text, "kernel", (1, 9, 9))


def test_notes_of_the_files_of_an_operator(tmp_path):
    np.save(tmp_path / "psf.npy", np.full((3, 3), 5.0))
    Image.fromarray(np.eye(9, dtype=np.uint8) * 255).save(tmp_path / "m.png")
    blur = twins()["blur"](kernel=str(tmp_path / "psf.npy"))
    assert notes_of(blur, (1, 9, 9)) == [f"kernel: {tmp_path}/psf.npy: divided by its sum, 45"]
    assert build(blur, (1, 9, 9)).kernel.sum() == pytest.approx(1)
    for name in ("mask", "cartesian-mri", "fourier-mask"):
        twin = twins()[name](mask=str(tmp_path / "m.png"))
        (note,) = notes_of(twin, (1, 9, 9))
        assert note.endswith("m.png: 0 and 255 taken as 0 and 1: selects 11.1 %")
        assert build(twin, (1, 9, 9)).mask.squeeze().equal(torch.eye(9))
    assert notes_of(twins()["blur"](kernel="disk_kernel:2"), (1, 9, 9)) == []
    assert notes_of(twins()["identity"](), (1, 9, 9)) == []


def test_a_tomograph_in_degrees(tmp_path):
    for angles in (np.arange(0, 180, 4), np.arange(0, 180, 4.0)):
        np.save(tmp_path / "theta.npy", angles)
        twin = twins()["parallel-ct"]
        with pytest.raises(ValueError, match="--operator.degrees"):
            build(twin(angles=str(tmp_path / "theta.npy")), (1, 8, 8))
        operator = build_for(twin(angles=str(tmp_path / "theta.npy"), degrees=True), (1, 45, 12))
        torch.testing.assert_close(operator.angles, torch.from_numpy(np.deg2rad(angles)).float())
