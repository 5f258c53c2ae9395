"""The ten lines of the README run as they stand, but for sizes that would take minutes."""

import re
from pathlib import Path

import pytest
import torch

import measurand as ms
from measurand.weights.store import known_weights

ROOT = Path(__file__).resolve().parents[1]


def test_the_ten_lines(tmp_path, monkeypatch, capsys):
    from PIL import Image
    from skimage.data import astronaut

    if not any(name.startswith("natural-color@") for name in known_weights()):
        pytest.skip("natural-color is not among the shipped weights")
    code, _ = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(code.strip().splitlines()) == 11  # the import, and ten lines
    for long, short in (
        ("(3, 256, 256)", "(3, 64, 64)"),
        ("PnPDM()", "PnPDM(sweeps=2, rho_max=0.3)"),
        ("m.repeat(8)", "m.repeat(2)"),
    ):
        assert long in code
        code = code.replace(long, short)
    monkeypatch.chdir(tmp_path)
    Image.fromarray(astronaut()[60:124, 190:254]).save("kingfisher.png")
    names: dict = {}
    exec(code, names)
    numbers = [float(t) for t in re.findall(r"tensor\(\[([\d.]+)\]", capsys.readouterr().out)]
    blurred = float(ms.psnr(names["y"], names["x"], data_range=2.0))
    assert len(numbers) == 2 and min(numbers) > blurred
    assert names["draws"].shape == (2, 3, 64, 64) and bool(torch.isfinite(names["draws"]).all())


def test_parts_of_ones_own():
    _, code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)

    def shrink(v, sigma):
        return v / (1 + sigma[:, None, None, None] ** 2)

    names: dict = {"ms": ms, "forward": lambda x: 2 * x, "adjoint": lambda y: 2 * y}
    exec(code, names | {"network": shrink})
    names |= {"network": shrink, "adjoint": lambda y: 3 * y}
    with pytest.raises(ValueError, match="adjoint"):
        exec(code, names)


def test_every_page_the_readme_points_to_is_there():
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
        assert (ROOT / target).is_file(), target
