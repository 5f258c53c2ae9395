"""The C++ program, built with sanitizers, against damaged packages and arrays.

It has to name the file and end with exit code 2, or to find the image: a finding of a sanitizer
ends it with another code and many lines.
"""

import os
import shutil
import subprocess

import numpy as np
import pytest
import torch
from test_data_collection import damaged
from test_weights_export import CPP, SIZE, network

from measurand.weights.export import export

INPUTS = 300
SANITIZED = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -O1 -g1"
OPTIONS = {  # every input of a draw
    "y": (1, 3, *SIZE), "noise": (1, 3, *SIZE), "draw": (1, 3, *SIZE), "kernel": (3, 3),
}  # fmt: skip


def built(folder, flags):
    """The program of `cpp/`, compiled with some flags."""
    prefix = f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"
    for words in (
        ["-S", CPP, "-B", folder, prefix, f"-DCMAKE_CXX_FLAGS={flags}"],
        ["--build", folder],
    ):
        done = subprocess.run(["cmake", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "measurand-run"


def attack(program, package, folder, count):
    """Runs the program on `count` damaged inputs in turn; how many of them it refused."""
    rng = np.random.default_rng(0)
    for name, shape in OPTIONS.items():
        np.save(folder / f"{name}.npy", rng.standard_normal(shape).astype(np.float32))
    shutil.copy(package, folder / "net.pt2")
    files = [folder / "net.pt2", *(folder / f"{name}.npy" for name in OPTIONS)]
    whole = {file: file.read_bytes() for file in files}
    words = [program, "net.pt2", "--sigma", "0.1", "--steps", "1", "--out", "x.npy"]
    words += [word for name in OPTIONS for word in (f"--{name}", f"{name}.npy")]
    # what torch holds at its end is no finding of ours
    settings = os.environ | {"ASAN_OPTIONS": "detect_leaks=0", "OMP_NUM_THREADS": "1"}
    refused = 0
    for trial in range(count):
        file = files[0] if trial % 2 else files[1 + trial // 2 % len(OPTIONS)]
        content = damaged(whole[file], rng)
        file.write_bytes(content)
        (folder / "x.npy").unlink(missing_ok=True)
        done = subprocess.run(
            words, cwd=folder, env=settings, capture_output=True, text=True, timeout=60
        )
        if done.returncode:
            assert done.returncode == 2 and done.stderr.count("\n") == 1, (trial, done.stderr)
            assert not (folder / "x.npy").exists()
            refused += 1
        else:
            assert np.isfinite(np.load(folder / "x.npy")).all()
            assert file != files[0] or content == whole[file]  # a package is exact, or refused
        file.write_bytes(whole[file])
    return refused


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") and shutil.which("cmake")), reason="no g++ or cmake")
def test_no_finding_of_a_sanitizer_in_hundreds_of_damaged_inputs(tmp_path, injected):
    injected("9: damaged inputs of the C++ program, under sanitizers", INPUTS)
    package = export(network(1), tmp_path / "made" / "net.pt2", size=SIZE, batch=2)[-1]
    (tmp_path / "run").mkdir()
    program = built(tmp_path / "build", SANITIZED)
    refused = attack(program, package, tmp_path / "run", INPUTS)
    assert refused >= INPUTS // 2  # all packages
