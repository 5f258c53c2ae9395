"""The examples run as they stand, at small sizes, and their pages say what they solve."""

import ast
import importlib.util
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
SMALL = {
    "deblur": {"size": 48},
    "mri": {"size": 32},
    "own_parts": {"size": 32},
    "tomography": {"size": 32, "views": 40},
    "uncertainty": {"size": 16, "draws": 3},
}


def test_every_example_is_run():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_an_example_draws_its_figure(name, tmp_path, capsys):
    pytest.importorskip("skimage")
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    figure = example.main(**SMALL[name])
    assert figure.save(tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    out = capsys.readouterr().out
    assert out and "FAILS" not in out


@pytest.mark.parametrize("name", SMALL)
def test_an_example_begins_with_its_equation_and_has_titled_steps(name):
    source = (EXAMPLES / f"{name}.py").read_text()
    words = ast.get_docstring(ast.parse(source)) or ""
    assert any(line.startswith("    ") and "=" in line for line in words.splitlines())
    assert source.count("# ---- ") >= 4


def test_the_pages_name_every_example():
    for page in ("README.md", "docs/index.md"):
        text = (EXAMPLES.parent / page).read_text()
        assert all(f"examples/{name}.py" in text for name in SMALL), page
