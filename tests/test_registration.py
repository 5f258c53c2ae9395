"""Images up to a shift: found to a sixteenth of a pixel, and what the edges are worth."""

import pytest
import torch

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
    torch.testing.assert_close(moved(x, 3.0, -2.0), x.roll((3, -2), (-2, -1)), rtol=0, atol=1e-5)


def test_shifts_are_found_item_by_item_to_a_sixteenth_of_a_pixel():
    x = smooth(2)
    away = [(2.3125, -4.0625), (-0.5, 0.25)]
    others = torch.cat([moved(one, *d) for one, d in zip(x.split(1), away, strict=True)])
    found, shifts = registered(others, x)
    assert shifts == [(-2.3125, 4.0625), (0.5, -0.25)]
    torch.testing.assert_close(found, x, rtol=0, atol=1e-5)


def test_of_what_does_not_wrap_around_the_middle_counts():
    x = torch.arange(60.0).reshape(1, 1, 6, 10)
    assert inner(x, [(1.25, -0.5)]).shape == (1, 1, 2, 6)
    assert inner(x, [(0.0, 0.0)]).shape == x.shape
    assert inner(x, [(4.0, 0.0)]).shape == x.shape  # nothing would be left


def test_images_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="registered: got images of shape"):
        registered(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5))
