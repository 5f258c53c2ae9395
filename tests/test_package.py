"""The package as a whole: how long it takes to import, what it pulls in, what it promises."""

import importlib
import os
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

import measurand
from measurand.weights.store import known_weights
from measurand.weights.tensorfile import load_tensors

ROOT = Path(__file__).resolve().parents[1]
OPTIONAL = ["scipy", "PIL", "h5py", "matplotlib", "skimage", "tyro", "diffusers"]
OPTIONAL += ["nibabel", "pydicom", "tifffile"]
OPTIONAL += ["ray", "submitit"]


def run(code):
    # with compiled files beside the modules, as a user has them from the second run on
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    return done.stdout.strip()


def test_import_and_a_prior_are_cheap_beside_torch():
    """At most 0.3 s where torch takes a second or more: a ratio, so that the machine drops out.

    Of all that a script needs to restore an image; training, jobs and tuning come when asked for.
    sympy, which some functions of torch import, takes longer than all of it.
    """
    later = {"checks", "domains", "jobs", "problems", "recipes", "restore", "shift", "training"}
    later |= {"tuning", "as_operator", "as_prior"}
    assert later < set(measurand.__all__)
    code = (
        "import time; a = time.process_time(); import torch; b = time.process_time(); "
        "torch.set_num_threads(1); "
        f"import measurand; names = set(measurand.__all__) - {later}; "
        "[getattr(measurand, name) for name in names]; measurand.load_prior('natural-color'); "
        "c = time.process_time(); print((c - b) / (b - a), 'sympy' in sys.modules)"
    )
    found = [run(f"import sys; {code}").split() for _ in range(3)]
    assert min(float(ratio) for ratio, _ in found) < 0.3
    assert {sympy for _, sympy in found} == {"False"}


def test_import_needs_the_core_only():
    code = (
        "import measurand, sys; [getattr(measurand, name) for name in measurand.__all__]; "
        f"print([m for m in {OPTIONAL} if m in sys.modules])"
    )
    assert run(code) == "[]"


def test_torch_is_pinned_in_one_range_and_torchvision_nowhere():
    wanted = requires("measurand") or []
    assert any(line.startswith("torch") and "<2.14" in line for line in wanted)
    assert not any("torchvision" in line for line in wanted)


def test_the_page_of_licences_is_that_of_the_weights(monkeypatch):
    """It is in the metadata of the wheel; `python benchmarks/licences.py` writes it."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    licences = importlib.import_module("licences")
    text = licences.PAGE.read_text()
    assert text == licences.page()
    rows = {line.split("`")[1]: line for line in text.splitlines() if line.startswith("| `")}
    assert rows.keys() == known_weights().keys()
    for name, path in known_weights().items():
        terms = load_tensors(path)[1]["licence"]
        assert terms in rows[name] and ("| research only |" in rows[name]) == ("research" in terms)
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license-files"]
    assert {"LICENSE", str(licences.PAGE.relative_to(ROOT))} == set(wanted)


def test_the_two_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    assert "\ndemo:" in makefile and "\ntest:" in makefile
    assert "make test" in (ROOT / ".ci" / "run").read_text()
