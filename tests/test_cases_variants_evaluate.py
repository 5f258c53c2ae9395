"""Images of another kind than those of a prior that is evaluated are refused with the way out."""

import numpy as np
import pytest
from cases import refused, scene
from PIL import Image
from test_cli import run

ON = ["evaluate", "natural-gray", "--levels", 25]


@pytest.mark.parametrize("file", ["v/a.nii.gz", "v", "m/a.mha", "n/a.npy"])
def test_other_files_are_told_of_the_domain(here, capsys, file):
    (here / file).parent.mkdir(exist_ok=True)
    (here / "v").mkdir(exist_ok=True)
    if "." in file:
        (here / file).write_bytes(b"anything")
    words = refused(capsys, *ON, "--data", file)
    assert "natural-gray is measured on Photographs(grey=True)" in words and "--domain" in words


def test_a_domain_of_other_channels_is_named(here, capsys):
    Image.fromarray((255 * scene()).astype(np.uint8)).save("a.png")
    words = refused(capsys, *ON, "--data", "a.png", "--domain", "Photographs()")
    assert "of 3 channels" in words and "natural-gray is of Photographs(grey=True), 1 of" in words


def test_images_without_anything_are_said(here, capsys):
    Image.new("L", (48, 40), 120).save("a.png")
    assert run(*ON, "--data", "a.png") == 0
    assert "1 of 1 images have one value everywhere" in capsys.readouterr().err
