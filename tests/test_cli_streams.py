"""Output that nobody reads: the work goes on, and exit code 0 means that its result is there."""

import json
import os
import subprocess
import sys

import pytest
from test_cli import TINY, files, picture

from measurand import cli
from measurand.training.log import tell

CLOSED = {
    "stdout": '"$@" | true',
    "stderr": '"$@" 2>&1 >/dev/null | true',
    "both": '"$@" 2>&1 | true',
    "no stdout": '"$@" >&-',
    "no stderr": '"$@" 2>&-',
    "nothing open": '"$@" <&- >&- 2>&-',
}
TV = ["--operator", "identity", "--sigma", 0.2, "--prior", "total-variation", "--method", "fista",
      "--method.steps", 3]  # fmt: skip
TRAIN = ["train", "natural-color", "--data", ".", *TINY[:-1], "--out", "t"]


def run(how, *words, unbuffered=False):
    """Runs a command whose output is closed in some way: its exit code, stdout and stderr."""
    # by itself the program would be done with its imports long after its reader has gone
    line = f"set -o pipefail; {how}; exit ${{PIPESTATUS[0]}}"
    command = ["bash", "-c", line, "bash", sys.executable, "-m", "measurand", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if unbuffered:
        environment["PYTHONUNBUFFERED"] = "1"
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("how", ["stderr", "both", "no stderr", "nothing open"])
def test_training_without_a_reader_makes_its_weights(here, how):
    picture(here / "a.png", 40, 40, 3)
    assert run(CLOSED[how], *TRAIN)[0] == 0
    assert [p.name for p in sorted((here / "t").glob("*.safetensors"))] == [
        "natural-color-0.05.safetensors",
        "natural-color-0.1.safetensors",
    ]


@pytest.mark.parametrize("how", ["stdout", "both", "no stdout", "no stderr"])
def test_a_reconstruction_without_a_reader_is_there(here, how):
    picture(here / "y.png", 16, 16, 3)
    words = ["--value-range", 0, 255, "--json", "--out", "r"]
    code, out, err = run(CLOSED[how], "reconstruct", "y.png", *TV, *words, unbuffered=True)
    assert code == 0 and files("r") == ["comparison.png", "estimate.png", "run.json"]
    record = json.loads((here / "r" / "run.json").read_text())
    if how == "no stderr":
        assert json.loads(out) == record | {"out": "r"}  # and nothing else
    else:
        assert out == err == ""


def test_an_error_is_one_with_and_without_a_reader(here):
    for how in ("both", "no stdout"):
        code, out, err = run(CLOSED[how], "reconstruct", "none.png", *TV, "--out", "r")
        assert code == 2 and out == "" and files(here) == []
        assert ("none.png: no such file" in err) == (how == "no stdout")


@pytest.mark.parametrize(
    ("words", "expected"), [(["--help"], 0), (["priors", "--json"], 0), (["train", "--help"], 0)]
)
def test_a_reader_of_text_may_leave(here, words, expected):
    code, out, err = run(CLOSED["stdout"], *words)
    assert code == expected and out == err == ""


def test_check_keeps_its_exit_code(here):
    picture(here / "y.png", 16, 16, 3)
    for sigma, code in (([], 0), (["--sigma", 0.2], 1)):  # which is not seen in the picture
        words = ["check", "y.png", *TV[:2], *sigma, "--prior", "total-variation", "--json"]
        assert run(CLOSED["stdout"], *words)[0] == code


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_text_that_could_not_be_written_is_an_error(here):
    code, _, err = run('"$@" >/dev/full', "priors")
    assert code == 2 and "standard output: No space left on device" in err
    picture(here / "y.png", 16, 16, 3)
    code, _, err = run('"$@" >/dev/full', "reconstruct", "y.png", *TV, "--out", "r")
    assert code == 2 and "No space left" in err and "estimate.png" in files("r")


class Gone:
    """A stream without a reader."""

    encoding = "ascii"

    def __init__(self):
        self.asked = 0

    def write(self, text):
        self.asked += 1
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self):
        self.write("")


def test_streams_are_given_back(monkeypatch):
    out, err = Gone(), Gone()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    assert cli.main(["--help"]) == 0 and cli.main(["nonsense"]) == 2
    assert sys.stdout is out and sys.stderr is err and out.asked and err.asked
    tell("a line of a run")
    monkeypatch.setattr("sys.stderr", None)
    tell("a line of a run")
    assert cli.main(["nonsense"]) == 2 and sys.stderr is None


def test_a_pipe_that_breaks_elsewhere_is_an_error(monkeypatch, capsys):
    def broken(*words):
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("measurand.commands.parsed", lambda *words: broken)
    assert cli.main(["priors"]) == 2
    assert "Broken pipe" in capsys.readouterr().err


def test_names_that_the_terminal_cannot_show_are_no_error(here):
    picture(here / "y.png", 16, 16, 3)
    words = ["reconstruct", "y.png", *TV, "--out", "r\u00e9sultat"]
    code, out, _ = run('PYTHONIOENCODING=ascii "$@"', *words)
    assert code == 0 and "results in r\\xe9sultat" in out
