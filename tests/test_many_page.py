"""The page "From one machine to many" runs as it stands, on tiny files."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from test_cli import picture

from measurand.cli import arranged, main
from measurand.weights.store import known_weights

PAGE = Path(__file__).resolve().parents[1] / "docs" / "many.md"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def commands():
    lines = "".join(blocks("bash")).strip().splitlines()
    return [shlex.split(line)[1:] for line in lines]


@pytest.fixture
def here(tmp_path, monkeypatch):
    if not any(name.startswith("natural-color@") for name in known_weights()):
        pytest.skip("natural-color is not among the shipped weights")
    monkeypatch.chdir(tmp_path)
    for folder in ("scans", "truths"):
        (tmp_path / folder).mkdir()
        for name in "ab":
            picture(tmp_path / folder / f"{name}.png", 16, 20, 3)
    (tmp_path / "scans.csv").write_text(blocks("text")[0])
    return tmp_path


def test_the_commands_of_this_machine(here, capsys):
    """All of them, in few steps and without the pool, which has its own tests."""
    ran = []
    for words in commands():
        if "ray" in words or "slurm" in words:
            continue
        if words[0] == "verify":
            assert main(words) == 0 and ", 0 not" in capsys.readouterr().out
            continue
        short = [word for word in words if word not in ("--executor", "pool")]
        steps = [] if "--method.steps" in words else ["--method.steps", "2"]
        assert main([*short, *steps, "--device", "cpu"]) == 0, words
        out = capsys.readouterr().out
        assert "done now" in out and "failed" not in out
        ran.append(words[words.index("--out") + 1])
    assert ran == ["results", "results", "patients", "pooled", "sharded", "sharded"]
    assert json.loads((here / "results" / "a" / "run.json").read_text())["method"]["steps"] == 12
    first = json.loads((here / "patients" / "patient-1" / "first" / "run.json").read_text())
    assert "psnr" in first["metrics"]
    assert (here / "patients" / "patient-1" / "second" / "estimate.png").exists()
    same = [(here / out / "b" / "estimate.png").read_bytes() for out in ("pooled", "sharded")]
    assert same[0] == same[1]


def test_the_commands_of_a_cluster_are_understood():
    import tyro

    from measurand.commands import command_named
    from measurand.jobs.executors import Ray, Slurm

    config = (tyro.conf.CascadeSubcommandArgs, tyro.conf.FlagCreatePairsOff)
    found = [
        tyro.cli(command_named("reconstruct"), args=arranged(words[1:]), config=config).executor
        for words in commands()
        if "ray" in words or "slurm" in words
    ]
    assert found == [
        Ray(),
        Ray(address="auto", gpus=0.5),
        Slurm(jobs=16, partition="gpu", gpus=1),
        Slurm(jobs=2, local=True),
    ]


def test_the_python_of_the_page(here):
    (code,) = blocks("python")
    (here / "many.py").write_text(code.replace("HQS()", "HQS(steps=2)"))
    path = os.pathsep.join([str(PAGE.parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "many.py"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"done now +2", done.stdout)
    assert (here / "from-python" / "a" / "estimate.png").exists()
