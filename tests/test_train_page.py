"""The commands of the page on training run as they stand, with a tiny budget."""

import re
import shlex
from pathlib import Path

import numpy as np
from PIL import Image

from measurand.cli import main
from measurand.weights.tensorfile import load_tensors

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "train.md").read_text()
TINY = "--recipe.widths 8 8 --recipe.blocks 1 --recipe.batch 2 --recipe.crops 16 16 "
TINY += "--device cpu --quiet"


def test_the_page_can_be_followed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for name in ("photos/train/a", "photos/train/b", "photos/val/c", "blurred"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(f"{name}.png")
    for name in ("scans", "more"):
        np.savez(f"{name}.npz", images=random.uniform(0, 1, (3, 32, 32)).astype(np.float32))
    commands = [
        line
        for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
        for line in block.strip().splitlines()
    ]
    assert len(commands) == 4
    licences = []
    for line in commands:
        program, *words = shlex.split(line)
        assert program == "measurand"
        if words[0] == "train":
            at = words.index("--time-budget")
            name = (
                words[words.index("--recipe.name") + 1] if "--recipe.name" in words else words[1]
            )
            words = [*words[:at], "--steps", "2", *words[at + 2 :], *TINY.split()]
        assert main(words) == 0, capsys.readouterr().err
        if words[0] == "train":
            licences.append(load_tensors(f"runs/{name}/{name}-0.05.safetensors")[1]["licence"])
    assert Path("runs/mine/mine-0.05.safetensors").is_file()
    assert licences == [
        "my own photographs, all rights mine",
        "scans of our hospital, for research",
    ]
    assert Path("recovered").is_dir() and Path("runs/mine/metrics.jsonl").is_file()
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    code = code.replace("time_budget=7200", "steps=2, quiet=True")
    code = code.replace("widths=(64, 96, 128)", "widths=(8, 8), crops=(16, 16), batch=2")
    names: dict = {}
    exec(code, names)
    assert set(names["files"]) == {"mine-0.05", "mine-0.1"}
