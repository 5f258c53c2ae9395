"""Images up to a shift: found to a sixteenth of a pixel, and what the edges are worth."""

import pytest
import torch
from skimage.data import astronaut

from measurand.registration import inner, moved, registered


def smooth(items: int = 1) -> torch.Tensor:
    """Periodic images without high frequencies, with shape (items, 2, 24, 30)."""
    x = torch.randn(items, 2, 24, 30, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft2(x)
    spectrum[..., 5:-4, :] = 0
    spectrum[..., 5:] = 0
    return torch.fft.irfft2(spectrum, (24, 30))


def test_a_whole_shift_is_a_roll():
    x = smooth()
    torch.testing.assert_close(
        moved(x, 3.0, -2.0, periodic=True), x.roll((3, -2), (-2, -1)), rtol=0, atol=1e-5
    )


def test_shifts_are_found_item_by_item_to_a_sixteenth_of_a_pixel():
    x = smooth(2)
    away = [(2.3125, -4.0625), (-0.5, 0.25)]
    others = torch.cat(
        [moved(one, *d, periodic=True) for one, d in zip(x.split(1), away, strict=True)]
    )
    found, shifts = registered(others, x, periodic=True)
    assert shifts == [(-2.3125, 4.0625), (0.5, -0.25)]
    torch.testing.assert_close(found, x, rtol=0, atol=1e-5)


def crop(top: int, left: int) -> torch.Tensor:
    """A piece of one photograph, with shape (1, 3, 96, 80)."""
    x = torch.from_numpy(astronaut()[top : top + 96, left : left + 80].copy())
    return x.movedim(-1, 0)[None].float() / 127.5 - 1


@pytest.mark.parametrize("away", [(3, -2), (0, 1), (-7, 5), (0, 0)])
def test_a_crop_that_does_not_wrap_around_is_found_to_the_pixel(away):
    truth, other = crop(100, 160), crop(100 + away[0], 160 + away[1])
    found, shifts = registered(other, truth, periodic=False)
    assert shifts == [tuple(map(float, away))]
    torch.testing.assert_close(inner(found, shifts), inner(truth, shifts), rtol=0, atol=1e-3)


def test_half_a_pixel_costs_nothing_in_the_middle():
    wide = smooth().repeat(1, 1, 4, 4)
    other = moved(wide, 0.5, -0.25, periodic=True)
    one, two = (t[..., 10:80, 7:93] for t in (wide, other))  # no edges touch
    found, shifts = registered(two, one, periodic=False)
    assert shifts == [(-0.5, 0.25)]
    error = (inner(found, shifts) - inner(one, shifts)).square().mean()
    assert error < 1e-4 * one.square().mean()  # 40 dB


def test_of_what_does_not_wrap_around_the_middle_counts():
    x = torch.arange(400.0).reshape(1, 1, 20, 20)
    assert inner(x, [(1.25, -0.5)]).shape == (1, 1, 8, 8)
    assert inner(x, [(0.0, 0.0)]).shape == x.shape
    assert inner(x, [(14.0, 0.0)]).shape == x.shape  # nothing would be left


def test_images_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="registered: got images of shape"):
        registered(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5), periodic=True)
