import io

import numpy as np
import pytest
import torch
from PIL import Image

import measurand as ms
from measurand.data.photos import load
from measurand.figures import as_images


def opened(figure):
    return np.asarray(Image.open(io.BytesIO(figure.png)).convert("RGB")).astype(int)


def picture(n=1, c=3, h=300, w=260):
    return torch.rand(n, c, h, w, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_show_draws_pixels_as_they_are():
    x = picture()
    drawn = opened(ms.show(x))
    wanted = ((x[0] + 1) * 127.5).round().permute(1, 2, 0).numpy()
    found = drawn[34 : 34 + 300, 16 : 16 + 260]
    assert np.abs(found - wanted).max() <= 1


def test_small_images_are_enlarged_without_smoothing():
    x = torch.tensor([[-1.0, 1.0], [1.0, -1.0]])
    drawn = opened(ms.show(x, window=(-1, 1)))
    values = np.unique(drawn[40:240, 20:230])
    assert values.tolist() == [0, 255]


@pytest.mark.parametrize(
    "x, n",
    [
        (torch.zeros(2, 3, 8, 8), 2),
        (torch.zeros(1, 8, 8), 1),
        (torch.zeros(8, 8), 1),
        (np.zeros((8, 9, 3)), 1),
        (np.zeros((8, 9, 4)), 1),
        (np.zeros((1, 8, 9)), 1),
        (torch.zeros(1, 2, 5, 8, 8), 1),
        (torch.zeros(1, 4, 8, 8, dtype=torch.complex64), 1),
    ],
)
def test_images_of_all_kinds(x, n):
    items = as_images(x)
    assert len(items) == n and all(i.ndim == 3 and len(i) in (1, 3) for i in items)


def test_array_channels_last_are_colours():
    x = np.zeros((8, 9, 3))
    x[..., 2] = 1
    assert as_images(x)[0][2].min() == 1


@pytest.mark.parametrize(
    "x", [torch.zeros(3), torch.zeros(0, 3, 8, 8), torch.zeros(1, 1, 1, 1, 1, 1)]
)
def test_what_is_no_image_is_refused(x):
    with pytest.raises(ValueError, match="shape"):
        ms.show(x)


def test_windows():
    assert "black -1, white 1" == window_of(torch.tensor([[-0.5, 0.9]]))
    assert "black 0, white 255" == window_of(torch.tensor([[3, 200]], dtype=torch.uint8))
    assert "black 0, white 5" == window_of(torch.tensor([[3j, 4 + 3j]]))
    assert "black -700, white 1000" == window_of(torch.tensor([[-700.0, 1000.0]]))
    with pytest.raises(ValueError, match="window"):
        ms.show(torch.zeros(4, 4), window=(1, 0))


def window_of(x):
    from measurand.figures import _said, _window

    return _said(_window(as_images(x), None))


def test_what_is_no_number_is_seen():
    x = torch.zeros(1, 1, 220, 220)
    x[..., :110] = torch.nan
    drawn = opened(ms.show(x))
    assert drawn[100, 50].tolist() == [255, 0, 255] and drawn[100, 200].tolist() == [128] * 3


def test_compare_gives_the_psnr_of_metrics():
    from measurand.figures import _decibels

    x, y = picture(), picture() + 0.1 * torch.randn(1, 3, 300, 260)
    wanted = float(ms.psnr(y, x, data_range=2.0))
    error = (y[0].double() - x[0].double()).abs()
    assert _decibels(error, 2.0) == f"{wanted:.2f} dB"
    figure = ms.compare({"noisy": y, "half": y[..., ::2, ::2]}, truth=x, zoom=(10, 20, 40))
    assert opened(figure).shape[0] > 3 * 220


def test_complex_images_are_compared_by_magnitude():
    x = picture(c=1).to(torch.complex64)
    turned = x * torch.exp(torch.tensor(1j))
    assert opened(ms.compare({"turned": turned}, truth=x)).shape[1] > 400
    from measurand.figures import _decibels, _magnitude

    assert _decibels((_magnitude(turned[0]) - _magnitude(x[0])).abs(), 1.0) > "100"


def test_errors_and_deviation_share_one_scale():
    x = torch.zeros(1, 1, 220, 220)
    y = x + 0.5
    figure = ms.compare({"y": y}, truth=x, deviation=torch.full_like(x, 0.25), window=(-1, 1))
    drawn = opened(figure)
    inferno = __import__("matplotlib").colormaps["inferno"]
    half = (255 * np.array(inferno(0.5)[:3])).round()
    top = (255 * np.array(inferno(1.0)[:3])).round()
    assert np.abs(drawn[100, 16 + 2 * 230 + 100] - half).max() <= 2  # 0.25 of 0.5
    assert np.abs(drawn[34 + 230 + 100, 100] - top).max() <= 2


def test_refusals():
    with pytest.raises(ValueError, match="no image"):
        ms.compare({})
    with pytest.raises(ValueError, match="2 images"):
        ms.compare({"a": picture(2)})
    with pytest.raises(ValueError, match="titles"):
        ms.show(picture(), titles=["a", "b"])
    with pytest.raises(ValueError, match="zoom"):
        ms.compare({"a": picture()}, zoom=(290, 0, 40))


def test_a_figure_is_shown_by_notebooks_and_saved(tmp_path):
    figure = ms.show(picture())
    assert figure._repr_png_()[:4] == b"\x89PNG"
    assert figure.save(tmp_path / "a.png").read_bytes() == figure.png
    assert len(repr(figure)) < 80


@pytest.mark.parametrize("name, bits", [("a.png", 8), ("a.png", 16), ("a.tif", 8), ("a.tif", 16)])
def test_saved_images_come_back(tmp_path, name, bits):
    x = picture(h=20, w=30)
    path = ms.save_image(x, tmp_path / name, bits=bits)
    assert float((load(path) - x).abs().max()) < 1.01 / (2**bits - 1)


def test_a_window_is_written_as_black_and_white(tmp_path):
    hounsfield = torch.tensor([[-1000.0, -500, 0, 500, 3000]])
    path = ms.save_image(hounsfield, tmp_path / "ct.png", window=(-1000, 1000))
    assert np.asarray(Image.open(path)).tolist() == [[0, 64, 128, 191, 255]]


def test_images_that_cannot_be_saved(tmp_path):
    x = picture(h=8, w=8)
    for words, call in {
        "JPEG": lambda: ms.save_image(x, tmp_path / "a.jpg", bits=16),
        "no .png": lambda: ms.save_image(x, tmp_path / "a.gif"),
        "bits": lambda: ms.save_image(x, tmp_path / "a.png", bits=12),
        "NaN": lambda: ms.save_image(x * torch.nan, tmp_path / "a.png"),
        "2 images": lambda: ms.save_image(picture(2), tmp_path / "a.png"),
    }.items():
        with pytest.raises(ValueError, match=words):
            call()
    assert not list(tmp_path.iterdir())
